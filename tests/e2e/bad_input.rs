//! What is wrong gets one clear line on stderr and exit code 1, and leaves nothing behind.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::gateway::{BINARY, Files, Gateway};

const PORT: &str =
    "[[port]]\nname = \"lan\"\ndevice = \"net_null0\"\naddresses = [\"10.0.0.1/24\"]\n";
const RULES: &str = "[rules]\nipv4 = \"rules.v4\"\n";

/// Runs `sluicegate COMMAND -c gateway.toml` of a folder. A gateway that starts after all is ended
/// and the test fails.
fn run(files: &Files, command: &str) -> Output {
    let config = files.path("gateway.toml");
    let mut run = Command::new("timeout");
    run.args(["--kill-after=5", "20", BINARY, command, "-c"]).arg(config);
    run.env_remove("SLUICEGATE_SOCKET").stdin(Stdio::null());
    run.output().expect("timeout starts")
}

/// Asserts exit 1, nothing on stdout, and one line on stderr with all of `words`.
fn assert_one_line(case: &str, output: &Output, words: &[&str]) {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{case}: {out}{err}");
    assert_eq!(out, "", "{case}");
    assert_eq!(err.lines().count(), 1, "{case}: {err}");
    for word in words {
        assert!(err.contains(word), "{case}: `{word}` is not in: {err}");
    }
}

/// `run` refuses the configuration with a line that has all of `words`.
pub fn refused(case: &str, files: &Files, words: &[&str]) {
    assert_one_line(case, &run(files, "run"), words);
    assert_eq!(files.leftovers(), Vec::<PathBuf>::new(), "{case}");
}

#[test]
fn mistakes_in_the_configuration_are_named_with_their_place() {
    let files = Files::new();
    let head = files.head("");
    let cases: &[(&str, String, &[&str])] = &[
        ("unknown key", format!("{head}{PORT}mtuu = 3\n"), &["mtuu"]),
        ("unknown table", format!("{head}{PORT}[nonsense]\n"), &["nonsense"]),
        ("no TOML", format!("{head}{PORT}= 3\n"), &[]),
        ("bad address", head.clone() + &PORT.replace("10.0.0.1/24", "10.0.0.256/24"), &["256"]),
        ("no prefix length", head.clone() + &PORT.replace("/24", ""), &["10.0.0.1"]),
        ("max too large", format!("{head}{PORT}[conntrack]\nmax = 4000000000\n"), &["max"]),
        ("two ports of one name", format!("{head}{PORT}{PORT}"), &["lan"]),
        (
            "route to nowhere",
            format!("{head}{PORT}[[route]]\nto = \"0.0.0.0/0\"\nport = \"x\"\n"),
            &["x"],
        ),
    ];
    for (case, text, words) in cases {
        let path = files.write("gateway.toml", text);
        let place = format!("{}:", path.display());
        refused(case, &files, &[&[place.as_str()], *words].concat());
        // `check` says the same without the name of the program.
        let checked = run(&files, "check");
        assert_one_line(case, &checked, words);
        let line = String::from_utf8_lossy(&checked.stderr).into_owned();
        let mut parts = line.strip_prefix(&place).expect("file first").split(':');
        let number = |part: Option<&str>| part.is_some_and(|p| p.parse::<u32>().is_ok());
        assert!(number(parts.next()) && number(parts.next()), "line and column: {line}");
    }
    fs::remove_file(files.path("gateway.toml")).unwrap();
    refused("missing", &files, &["gateway.toml", "No such file"]);
    fs::write(files.path("gateway.toml"), [0xff, 0xfe, 0]).unwrap();
    refused("not text", &files, &["gateway.toml"]);
    fs::remove_file(files.path("gateway.toml")).unwrap();
    fs::create_dir(files.path("gateway.toml")).unwrap();
    refused("a folder", &files, &["gateway.toml", "directory"]);
}

#[test]
fn mistakes_in_a_rule_file_are_named_with_their_place() {
    let files = Files::new();
    files.write("gateway.toml", &format!("{}{PORT}{RULES}", files.head("")));
    let rules = files.path("rules.v4").display().to_string();
    let rule = |rule: &str| format!("*filter\n:FORWARD DROP [0:0]\n{rule}\nCOMMIT\n");
    for (case, text, place, words) in [
        ("unknown match", rule("-A FORWARD -m nonsense -j ACCEPT"), ":3:", "nonsense"),
        ("unknown target", rule("-A FORWARD -j NONSENSE"), ":3:", "NONSENSE"),
        ("unknown chain", rule("-A NOWHERE -j ACCEPT"), ":3:", "NOWHERE"),
        ("port", rule("-A FORWARD -p tcp --dport 65536 -j ACCEPT"), ":3:", "65536"),
        ("address", rule("-A FORWARD -s 1.2.3 -j ACCEPT -x"), ":3:", "-x"),
        ("no COMMIT", "*filter\n".to_owned(), ":", "COMMIT"),
        ("unknown table", "*nonsense\nCOMMIT\n".to_owned(), ":1:", "nonsense"),
        ("no text", "\u{0}\u{1}\n".to_owned(), ":1:", ""),
    ] {
        files.write("rules.v4", &text);
        refused(case, &files, &[&format!("{rules}{place}"), words]);
        let checked = run(&files, "check");
        assert_one_line(case, &checked, &[words]);
        assert!(String::from_utf8_lossy(&checked.stderr).starts_with(&rules), "{case}");
    }
    fs::remove_file(files.path("rules.v4")).unwrap();
    refused("missing", &files, &[&rules, "No such file"]);
}

#[test]
fn devices_that_are_not_there_are_named() {
    let files = Files::new();
    for (device, words) in [
        ("net_tap0,iface=this-name-is-too-long", ["port lan", "net_tap0", "this-name-is-too-long"]),
        ("net_nonsense0", ["net_nonsense0", "", ""]),
        ("nonsense", ["nonsense", "", ""]),
        ("0000:ff:1f.7", ["port lan", "0000:ff:1f.7", "did not come up"]),
        ("net_af_packet0,iface=nosuch", ["port lan", "net_af_packet0", "No such device"]),
        ("net_af_packet0", ["port lan", "net_af_packet0", "did not come up"]),
        ("net_pcap0,rx_pcap=/nonexistent", ["port lan", "net_pcap0", "did not come up"]),
    ] {
        let port = PORT.replace("net_null0", device);
        files.write("gateway.toml", &(files.head("") + &port));
        refused(device, &files, &words);
    }
    // A good port before the bad one does not matter.
    let bad = PORT.replace("net_null0", "net_af_packet0,iface=nosuch").replace("lan", "wan");
    let good = PORT.replace("net_null0", "net_tap0,iface=sg-e2e-good").replace("10.0.0", "10.0.1");
    files.write("gateway.toml", &(files.head("") + &good + &bad));
    refused("second port", &files, &["port wan", "net_af_packet0", "No such device"]);
    let left = Command::new("ip").args(["link", "show", "sg-e2e-good"]).output().unwrap();
    assert!(!left.status.success(), "the first port's tap is gone");
}

#[test]
fn what_the_machine_does_not_have_is_named() {
    let files = Files::new();
    for (eal, words) in [
        ("worker_cores = [4711]", ["worker_cores", "4711"]),
        ("worker_cores = [120]", ["worker_cores", "120"]),
        ("control_core = 121", ["control_core", "121"]),
        ("memory_mb = 1048576", ["memory_mb = 1048576", "MiB"]),
        ("hugepages = true\nmemory_mb = 1048576", ["hugepages = true", "vm.nr_hugepages"]),
        ("mbufs = 1000000", ["1000000", "memory_mb"]),
    ] {
        files.write("gateway.toml", &(files.head(eal) + PORT));
        refused(eal, &files, &words);
    }
}

#[test]
fn a_control_socket_that_cannot_be_had_is_named() {
    let files = Files::new();
    let head = files.head("");
    let socket = files.socket().display().to_string();
    let elsewhere = |path: &str| head.replace(&socket, path) + PORT;
    files.write("gateway.toml", &elsewhere("/nonexistent/sluicegate.sock"));
    refused("no folder", &files, &["/nonexistent/sluicegate.sock", "No such file"]);
    let file = files.write("file", "").display().to_string();
    files.write("gateway.toml", &elsewhere(&file));
    refused("a file", &files, &["a file of that name exists"]);
    assert!(files.path("file").exists());

    files.write("gateway.toml", &(head + PORT));
    let other = Files::new();
    let mut first = Gateway::start(files, None);
    let config = first.files.head("").replace(&first.files.prefix, &other.prefix);
    let config = config.replace(
        &format!("{}/", other.folder.display()),
        &format!("{}/", first.files.folder.display()),
    );
    other.write("gateway.toml", &(config + PORT));
    refused("in use", &other, &[&socket, "is in use"]);
    first.files.ask("stats");
    first.stop_cleanly();
}

#[test]
fn without_root_the_reason_is_told() {
    let files = Files::new();
    fs::set_permissions(&files.folder, fs::Permissions::from_mode(0o777)).unwrap();
    // The build folder may be closed to others.
    let binary = files.path("sluicegate");
    fs::copy(BINARY, &binary).unwrap();
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    let tap = PORT.replace("net_null0", "net_tap0,iface=sg-e2e-nobody");
    let config = files.write("gateway.toml", &(files.head("") + &tap));
    let as_nobody = |config: &PathBuf| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "timeout", "20"]);
        command.arg(&binary).args(["run", "-c"]).arg(config);
        command.current_dir("/tmp").env_remove("SLUICEGATE_SOCKET").env_remove("XDG_RUNTIME_DIR");
        command.stdin(Stdio::null()).output().expect("setpriv starts")
    };
    assert_one_line("tap", &as_nobody(&config), &["port lan", "net_tap0", "not root"]);
    let head = files.head("").replace(&files.socket().display().to_string(), "/run/sg-e2e-no.sock");
    let config = files.write("other.toml", &(head + &tap));
    let words = ["control socket /run/sg-e2e-no.sock", "Permission denied"];
    assert_one_line("socket", &as_nobody(&config), &words);
    assert!(!PathBuf::from("/tmp/dpdk").join(&files.prefix).exists());
    assert_eq!(files.leftovers(), Vec::<PathBuf>::new());
}

#[test]
fn clients_without_a_gateway_are_told_so() {
    let files = Files::new();
    let socket = files.socket().display().to_string();
    for words in [&["conntrack", "-L"][..], &["stats"], &["sysctl", "-a"], &["iptables-save"]] {
        assert_one_line(words[0], &files.tool(words), &["no gateway listens", &socket]);
    }
    // What a dead gateway left is no gateway either.
    drop(std::os::unix::net::UnixListener::bind(files.socket()).unwrap());
    assert_one_line("dead", &files.tool(&["stats"]), &["no gateway listens", &socket]);
}

#[test]
fn garbage_on_the_control_socket_is_answered_and_forgotten() {
    let files = Files::new();
    files.write("gateway.toml", &(files.head("") + PORT));
    let mut gateway = Gateway::start(files, None);
    let long = vec![b'x'; 100_000];
    let deep = "[".repeat(50_000);
    for garbage in [
        &b"\n"[..],
        b"GET / HTTP/1.0\r\n\r\n",
        b"{}\n",
        b"{\"argv\": 3}\n",
        b"{\"argv\": []}\n",
        b"{\"argv\": [\"no-such-command\"]}\n",
        b"{\"argv\": [\"conntrack\", \"-L\", \"-s\", \"\\u0000\"]}\n",
        b"\xff\xfe\x00\n",
        &long,
        deep.as_bytes(),
    ] {
        let mut client = UnixStream::connect(gateway.files.socket()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        client.write_all(garbage).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an answer and the end of the stream");
        let shown = String::from_utf8_lossy(&garbage[..garbage.len().min(60)]);
        assert!(answer.contains("\"err\"") && answer.contains("\"exit\""), "{shown}: {answer}");
        assert!(!answer.contains("\"exit\":0"), "{shown}: {answer}");
    }
    // Clients that come, say half a word and stay silent do not keep others out for ever.
    let silent: Vec<_> = (0..40).map(|_| UnixStream::connect(gateway.files.socket())).collect();
    for client in silent.iter().flatten() {
        (&mut &*client).write_all(b"{\"argv\"").ok();
    }
    drop(silent);
    std::thread::sleep(Duration::from_millis(100));
    for (words, said) in [
        (&["conntrack", "-L", "--nonsense"][..], "nonsense"),
        (&["conntrack", "-L", "-p"], "-p"),
        (&["conntrack", "-D", "-s", "1.2.3.400"], "1.2.3.400"),
        (&["stats", "--nonsense"], "--json"),
        (&["proc", "net/nonsense"], "nonsense"),
        (&["iptables-save", "-t", "nonsense"], "nonsense"),
    ] {
        let output = gateway.files.tool(words);
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{words:?}");
        assert!(err.contains(said), "{words:?}: {err}");
    }
    gateway.stop_cleanly();
}
