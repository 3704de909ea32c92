//! The files of `configs/` and the real tools: `iptables-restore`, `ip6tables-restore` and `ipset`
//! take them in a namespace and print of them what is printed here.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::netns::{Namespace, demand_programs};
use crate::site::{Site, configs};

/// Each configuration by its name.
const ALL: [&str; 3] = ["home-gateway", "office", "edge"];

/// What a namespace's tool prints that is fed with `text`.
fn fed(space: &Namespace, line: &str, text: &[u8]) -> String {
    let mut child = space.command(line);
    child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().expect("the tool starts");
    // It may refuse before it has read all.
    let _ = child.stdin.take().expect("a pipe").write_all(text);
    let output = child.wait_with_output().expect("the tool ends");
    done(line, &output)
}

fn done(line: &str, output: &Output) -> String {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {}: {complaint}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Lines but for comments, each with its number for whoever looks for a difference.
fn lines(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with('#')).collect()
}

fn same(what: &str, ours: &str, theirs: &str) {
    let (ours, theirs) = (lines(ours), lines(theirs));
    for (at, (our, their)) in ours.iter().zip(&theirs).enumerate() {
        assert_eq!(our, their, "{what}, line {}", at + 1);
    }
    assert_eq!(ours.len(), theirs.len(), "{what}");
}

/// Sets by name with sorted elements, as the order of a hash says nothing.
fn sets(text: &str) -> Vec<String> {
    let keep = |line: &&str| !line.starts_with('#') && !line.trim().is_empty();
    // What a set's head says of its hash is the kernel's own affair.
    let plain = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let mut kept = Vec::new();
        let mut at = 0;
        while let Some(word) = words.get(at) {
            if line.starts_with("create") && matches!(*word, "hashsize" | "bucketsize" | "initval")
            {
                at += 2;
                continue;
            }
            kept.push(*word);
            at += 1;
        }
        kept.join(" ")
    };
    let mut lines: Vec<String> = text.lines().filter(keep).map(plain).collect();
    lines.sort();
    lines
}

#[test]
fn the_real_tools_take_every_file_and_print_the_same() {
    demand_programs(&["iptables-restore", "iptables-save", "ip6tables-restore", "ipset"]);
    for name in ALL {
        let space = Namespace::new("configs");
        let mut site = Site::new(name, &[], "");
        let read = |end: &str| fs::read(configs().join(name).with_extension(end)).ok();
        if let Some(text) = read("ipset") {
            fed(&space, "ipset restore", &text);
            let theirs = fed(&space, "ipset save", b"");
            assert_eq!(sets(&site.run("ipset save")), sets(&theirs), "{name}");
        }
        for (end, tool) in [("v4", "iptables"), ("v6", "ip6tables")] {
            let text = read(end).expect("rules of both families");
            fed(&space, &format!("{tool}-restore --test"), &text);
            fed(&space, &format!("{tool}-restore"), &text);
            let theirs = fed(&space, &format!("{tool}-save"), b"");
            same(&format!("{name}.{end}"), &site.run(&format!("{tool}-save")), &theirs);
        }
    }
}

#[test]
fn check_takes_every_configuration() {
    for name in ALL.iter().chain(&["reference"]) {
        let path = configs().join(name).with_extension("toml");
        let output = Command::new(env!("CARGO_BIN_EXE_sluicegate"))
            .args(["check", "-c"])
            .arg(&path)
            .output()
            .expect("the program under test starts");
        done(name, &output);
    }
}

#[test]
fn the_edge_is_what_its_script_writes() {
    demand_programs(&["python3"]);
    let folder = std::env::temp_dir().join(format!("sluicegate-edge-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder for the files");
    let output = Command::new("python3").arg(configs().join("edge.py")).arg(&folder).output();
    done("edge.py", &output.expect("python3 starts"));
    let read = |folder: &Path, file: &str| fs::read(folder.join(file)).expect("a file of the edge");
    for file in ["edge.v4", "edge.v6", "edge.ipset"] {
        assert!(read(&folder, file) == read(&configs(), file), "{file} is not what edge.py writes");
    }
    fs::remove_dir_all(&folder).expect("the folder goes");
}
