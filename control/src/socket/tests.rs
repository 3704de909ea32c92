//! Round trips through a real socket in a directory of their own.

use super::*;
use std::thread;

/// A directory that is removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("sluicegate-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("s")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

static NEVER: AtomicBool = AtomicBool::new(false);

fn client(path: &Path, words: &[&str], stdin: &str) -> (u8, String, String) {
    let argv: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = call(path, &argv, stdin, &NEVER, &mut out, &mut err).unwrap();
    (exit, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

/// Polls until `ready` gives something.
fn until<T>(server: &mut Server, mut ready: impl FnMut(Vec<Request>) -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        if let Some(found) = ready(server.poll()) {
            return found;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("nothing came");
}

#[test]
fn a_command_goes_there_and_back() {
    let d = Directory::new("round");
    let mut server = Server::bind(&d.socket()).unwrap();
    let mode = fs::metadata(d.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let path = d.socket();
    let asking = thread::spawn(move || client(&path, &["echo", "-x"], "in\nput"));
    let request = until(&mut server, |requests| requests.into_iter().next());
    assert_eq!((request.argv.join(" ").as_str(), request.stdin.as_str()), ("echo -x", "in\nput"));
    let answer = Answer { out: "é\n".to_owned(), err: "bad\n".to_owned(), exit: 7 };
    request.reply.answer(answer);
    until(&mut server, |_| asking.is_finished().then_some(()));
    assert_eq!(asking.join().unwrap(), (7, "é\n".to_owned(), "bad\n".to_owned()));
    until(&mut server, |_| Some(()));
    assert!(server.clients.is_empty());
    drop(server);
    assert!(!d.socket().exists());
}

#[test]
fn a_large_answer_does_not_block_the_server() {
    let d = Directory::new("large");
    let mut server = Server::bind(&d.socket()).unwrap();
    let text = "zwölf Zeichen\n".repeat(400_000);
    let mut slow = UnixStream::connect(d.socket()).unwrap();
    slow.write_all(b"{\"argv\":[\"slow\"]}\n").unwrap();
    let request = until(&mut server, |requests| requests.into_iter().next());
    request.reply.answer(Answer::text(text.clone()));
    // The first client reads nothing; a second one is served all the same.
    let path = d.socket();
    let asking = thread::spawn(move || client(&path, &["quick"], ""));
    until(&mut server, |requests| {
        requests.into_iter().for_each(|r| r.reply.answer(Answer::text(text.clone())));
        asking.is_finished().then_some(())
    });
    assert_eq!(asking.join().unwrap().1, text);
    // That it has gone is seen with the next look.
    until(&mut server, |_| Some(()));
    assert_eq!(server.clients.len(), 1);
    drop(slow);
    until(&mut server, |_| Some(()));
    assert!(server.clients.is_empty());
}

#[test]
fn a_slow_reader_of_a_stream_loses_events_and_is_told() {
    let d = Directory::new("stream");
    let mut server = Server::bind(&d.socket()).unwrap();
    let mut slow = UnixStream::connect(d.socket()).unwrap();
    slow.write_all(b"{\"argv\":[\"conntrack\",\"-E\"]}\n").unwrap();
    let mut request = until(&mut server, |requests| requests.into_iter().next());
    let event = "e".repeat(1 << 20);
    for _ in 0..20 {
        assert!(request.reply.stream(&event));
    }
    let held = lock(&request.reply.client).backlog;
    assert!(held <= BACKLOG);
    // A larger buffer takes more of them, and one of no size has the size that sockets have.
    for (asked, most) in [(8 << 20, 16 << 20), (0, 2304), (u32::MAX, BACKLOG_MAX)] {
        request.reply.set_backlog(asked);
        let mut client = lock(&request.reply.client);
        assert_eq!(client.backlog_max, most);
        let (_, text, _) = client.texts.back().unwrap();
        assert_eq!(
            *text,
            format!("NOTICE: Netlink socket buffer size has been set to {most} bytes.\n")
        );
        client.lost = 0;
    }
    request.reply.set_backlog(8 << 20);
    for _ in 0..20 {
        request.reply.stream(&event);
    }
    let held = lock(&request.reply.client).backlog;
    assert!((15 << 20..=16 << 20).contains(&held), "{held}");
    let reading = thread::spawn(move || {
        let mut text = String::new();
        slow.shutdown(Shutdown::Write).unwrap();
        slow.read_to_string(&mut text).unwrap();
        text
    });
    until(&mut server, |_| (!request.reply.is_wanted()).then_some(()));
    request.reply.answer(Answer::default());
    until(&mut server, |_| reading.is_finished().then_some(()));
    let text = reading.join().unwrap();
    assert!(text.contains("events are lost, the reader is too slow"));
    assert!(text.ends_with("{\"exit\":0}\n"));
}

#[test]
fn an_interrupt_ends_a_stream_in_order() {
    let d = Directory::new("interrupt");
    let mut server = Server::bind(&d.socket()).unwrap();
    let (path, stop) = (d.socket(), Arc::new(AtomicBool::new(false)));
    let flag = Arc::clone(&stop);
    let asking = thread::spawn(move || {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let argv = ["conntrack".to_owned(), "-E".to_owned()];
        let exit = call(&path, &argv, "", &flag, &mut out, &mut err).unwrap();
        (exit, out, err)
    });
    let mut request = until(&mut server, |requests| requests.into_iter().next());
    assert!(request.reply.stream("one\n"));
    stop.store(true, Ordering::Relaxed);
    until(&mut server, |_| (!request.reply.is_wanted()).then_some(()));
    request.reply.answer(Answer { err: "footer\n".to_owned(), ..Answer::default() });
    until(&mut server, |_| asking.is_finished().then_some(()));
    assert_eq!(asking.join().unwrap(), (0, b"one\n".to_vec(), b"footer\n".to_vec()));
}

#[test]
fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
    let d = Directory::new("stale");
    drop(UnixListener::bind(d.socket()).unwrap());
    assert!(d.socket().exists());
    let server = Server::bind(&d.socket()).unwrap();
    assert!(matches!(Server::bind(&d.socket()), Err(BindError::InUse(_))));
    drop(server);
    fs::write(d.socket(), "text").unwrap();
    assert!(matches!(Server::bind(&d.socket()), Err(BindError::NotASocket(_))));
    let missing = Server::bind(&d.0.join("no/s")).unwrap_err();
    assert!(missing.to_string().contains("No such file"), "{missing}");
}

#[test]
fn what_a_client_hears_when_it_goes_wrong() {
    let d = Directory::new("wrong");
    let argv = ["stats".to_owned()];
    let quiet = &mut io::sink();
    let nobody = call(&d.socket(), &argv, "", &NEVER, quiet, &mut io::sink()).unwrap_err();
    assert!(nobody.to_string().starts_with("sluicegate: no gateway listens on "), "{nobody}");

    let mut server = Server::bind(&d.socket()).unwrap();
    let mut raw = UnixStream::connect(d.socket()).unwrap();
    raw.write_all(b"nonsense\n").unwrap();
    let path = d.socket();
    let forgotten = thread::spawn(move || client(&path, &["x"], ""));
    until(&mut server, |requests| {
        drop(requests);
        forgotten.is_finished().then_some(())
    });
    let (exit, _, err) = forgotten.join().unwrap();
    assert_eq!((exit, err.as_str()), (1, "sluicegate: stopped before it answered\n"));
    let mut text = String::new();
    raw.read_to_string(&mut text).ok();
    assert!(text.contains("the request cannot be read") && text.ends_with("{\"exit\":1}\n"));
}
