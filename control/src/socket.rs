//! The control socket: how a command reaches the running gateway.
//!
//! A UNIX stream socket, mode 0600. The client sends one line of JSON, `{"argv": ["conntrack",
//! "-L"], "stdin": ""}`, and reads lines until `{"exit": N}`: `{"out": "text"}` goes to standard
//! output, `{"err": "text"}` to standard error. A client that closes its sending side asks a
//! running stream (`conntrack -E`) to end.
//!
//! The server belongs to the control core and never waits: [`Server::poll`] moves what can be moved
//! and returns the requests that are complete. Bounds: [`CLIENTS_MAX`] clients, [`REQUEST_MAX`]
//! bytes of a request, [`BACKLOG`] bytes of unread events per client or what the client asked for,
//! at most [`BACKLOG_MAX`] (later events are counted as lost and the client is told), and a client
//! that takes nothing for [`PATIENCE`] is let go.

use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::tools::Answer;

/// The most clients at once; another one is told to come back.
pub const CLIENTS_MAX: usize = 32;

/// The longest request in bytes, standard input included.
pub const REQUEST_MAX: usize = 64 << 20;

/// Unread bytes of events per client that has not asked for another number.
pub const BACKLOG: usize = 4 << 20;

/// The most unread bytes of events that a client may ask for, and the fewest.
pub const BACKLOG_MAX: usize = 64 << 20;
const BACKLOG_MIN: usize = 2304;

/// How long a client may leave an answer unread.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Text is sent in pieces of this many bytes, so that neither side holds it twice.
const PIECE: usize = 64 << 10;

/// Why the socket could not be set up.
#[derive(Debug)]
pub enum BindError {
    /// A living process listens there.
    InUse(PathBuf),
    /// Something that is no socket has that name.
    NotASocket(PathBuf),
    /// The system refused.
    Io(PathBuf, io::Error),
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BindError::InUse(path) => {
                write!(f, "control socket {} is in use by another process", path.display())
            }
            BindError::NotASocket(path) => {
                write!(f, "control socket {}: a file of that name exists", path.display())
            }
            BindError::Io(path, e) => write!(f, "control socket {}: {e}", path.display()),
        }
    }
}

impl std::error::Error for BindError {}

#[derive(Serialize, Deserialize)]
struct Call {
    argv: Vec<String>,
    #[serde(default)]
    stdin: String,
    /// The client's process, for events to name it.
    #[serde(default)]
    process: Option<u32>,
}

/// Takes a request line apart: the command line and its standard input.
///
/// # Errors
/// The line is not JSON, or not a request.
pub fn parse_request(line: &[u8]) -> Result<(Vec<String>, String), serde_json::Error> {
    serde_json::from_slice::<Call>(line).map(|call| (call.argv, call.stdin))
}

/// One line of an answer.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line<'a> {
    Out(std::borrow::Cow<'a, str>),
    Err(std::borrow::Cow<'a, str>),
    Exit(u8),
}

/// The listening side.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode: at the end only our own file is removed.
    identity: (u64, u64),
    clients: Vec<Arc<Mutex<Client>>>,
}

/// A command line that has arrived whole.
#[derive(Debug)]
pub struct Request {
    /// The command and its arguments.
    pub argv: Vec<String>,
    /// Its standard input.
    pub stdin: String,
    /// The process that asks, if it says so.
    pub process: Option<u32>,
    /// Where the answer goes, now or later.
    pub reply: Reply,
}

/// The way back to a client. It may be kept; dropped without an answer it tells the client so.
#[derive(Debug)]
pub struct Reply {
    client: Arc<Mutex<Client>>,
    answered: bool,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    request: Vec<u8>,
    /// Whether the request was handed out.
    asked: bool,
    /// Texts not yet encoded: the stream they belong to, the text, how much of it is gone.
    texts: VecDeque<(bool, String, usize)>,
    backlog: usize,
    backlog_max: usize,
    exit: Option<u8>,
    /// The exit line has been put on the wire; nothing follows it.
    closed: bool,
    wire: Vec<u8>,
    wire_sent: usize,
    lost: u64,
    /// The client sends no more.
    ended: bool,
    gone: bool,
    progress: Instant,
}

impl Server {
    /// Listens at `path`. What a dead process left there is replaced.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(path: &Path) -> Result<Server, BindError> {
        let io = |e| BindError::Io(path.to_owned(), e);
        match fs::symlink_metadata(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(io(e)),
            Ok(facts) if !facts.file_type().is_socket() => {
                return Err(BindError::NotASocket(path.to_owned()));
            }
            Ok(_) if UnixStream::connect(path).is_ok() => {
                return Err(BindError::InUse(path.to_owned()));
            }
            Ok(_) => {}
        }
        // Made under another name, so that the real one never exists with wider permissions.
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        match fs::remove_file(&new) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(io(e)),
            _ => {}
        }
        let listener = UnixListener::bind(&new).map_err(io)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).map_err(io)?;
        listener.set_nonblocking(true).map_err(io)?;
        let facts = fs::symlink_metadata(&new).map_err(io)?;
        fs::rename(&new, path).map_err(io)?;
        let identity = (facts.dev(), facts.ino());
        Ok(Server { listener, path: path.to_owned(), identity, clients: Vec::new() })
    }

    /// Takes new clients, reads, writes, and returns the requests that are complete. Never waits.
    pub fn poll(&mut self) -> Vec<Request> {
        self.accept();
        let mut requests = Vec::new();
        for client in &self.clients {
            let Some(Call { argv, stdin, process }) = lock(client).step() else { continue };
            let reply = Reply { client: Arc::clone(client), answered: false };
            requests.push(Request { argv, stdin, process, reply });
        }
        self.clients.retain(|client| !lock(client).is_over());
        requests
    }

    /// Sends what is left for at most `patience`, for the end of the process.
    pub fn drain(&mut self, patience: Duration) {
        let until = Instant::now() + patience;
        while !self.clients.is_empty() && Instant::now() < until {
            self.clients.retain(|client| {
                let mut client = lock(client);
                client.flush();
                !client.is_over() && client.exit.is_some()
            });
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            let mut client = Client::new(stream);
            if self.clients.len() >= CLIENTS_MAX {
                client.asked = true;
                client.answer(Answer::failure(1, "sluicegate: too many clients, try again"));
                client.flush();
                continue;
            }
            self.clients.push(Arc::new(Mutex::new(client)));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|facts| (facts.dev(), facts.ino()) == self.identity);
        if ours {
            // Nothing can be done about a failure at the end of the process.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Reply {
    /// Sends an answer and ends.
    pub fn answer(mut self, answer: Answer) {
        self.answered = true;
        let mut client = lock(&self.client);
        client.answer(answer);
        client.flush();
    }

    /// Sends a piece of a stream. False once the client is gone or wants no more: then
    /// [`Reply::answer`] ends it.
    pub fn stream(&mut self, text: &str) -> bool {
        let mut client = lock(&self.client);
        client.stream(text);
        client.flush();
        !client.gone && !client.ended
    }

    /// Lets events wait in a buffer as large as a socket's would be after `SO_RCVBUF`, which is
    /// twice what is asked for, and says how large it has become.
    pub fn set_backlog(&self, bytes: u32) {
        let asked = (bytes as usize).saturating_mul(2);
        let mut client = lock(&self.client);
        client.backlog_max = asked.clamp(BACKLOG_MIN, BACKLOG_MAX);
        let bytes = client.backlog_max;
        let notice = format!("NOTICE: Netlink socket buffer size has been set to {bytes} bytes.\n");
        client.queue(false, notice);
    }

    /// Whether the client still listens.
    pub fn is_wanted(&self) -> bool {
        let client = lock(&self.client);
        !client.gone && !client.ended
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.answered {
            lock(&self.client).answer(Answer::failure(1, "sluicegate: stopped before it answered"));
        }
    }
}

/// A panic while holding the lock leaves at worst half an answer.
fn lock(client: &Mutex<Client>) -> MutexGuard<'_, Client> {
    client.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    fn new(stream: UnixStream) -> Client {
        Client {
            stream,
            request: Vec::new(),
            asked: false,
            texts: VecDeque::new(),
            backlog: 0,
            backlog_max: BACKLOG,
            exit: None,
            closed: false,
            wire: Vec::new(),
            wire_sent: 0,
            lost: 0,
            ended: false,
            gone: false,
            progress: Instant::now(),
        }
    }

    /// One turn; the request once it is whole.
    fn step(&mut self) -> Option<Call> {
        self.receive();
        self.flush();
        if self.asked || self.gone {
            return None;
        }
        let whole = self.request.last() == Some(&b'\n') || self.ended;
        let complaint = if self.request.len() > REQUEST_MAX {
            "sluicegate: the request is too long".to_owned()
        } else if !whole {
            return None;
        } else {
            let request = std::mem::take(&mut self.request);
            match serde_json::from_slice::<Call>(&request) {
                Ok(call) => {
                    self.asked = true;
                    self.progress = Instant::now();
                    return Some(call);
                }
                Err(e) => format!("sluicegate: the request cannot be read: {e}"),
            }
        };
        self.asked = true;
        self.answer(Answer::failure(1, complaint));
        self.flush();
        None
    }

    fn receive(&mut self) {
        let mut piece = [0; 4096];
        while !self.ended && !self.gone && self.request.len() <= REQUEST_MAX {
            match self.stream.read(&mut piece) {
                Ok(0) => self.ended = true,
                // After its request a client says nothing that matters.
                Ok(_) if self.asked => {}
                Ok(n) => {
                    self.request.extend_from_slice(&piece[..n]);
                    self.progress = Instant::now();
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.gone = true,
            }
        }
    }

    fn stream(&mut self, text: &str) {
        if self.backlog + text.len() > self.backlog_max {
            self.lost += 1;
            return;
        }
        self.say_what_was_lost();
        self.queue(true, text.to_owned());
    }

    fn say_what_was_lost(&mut self) {
        let lost = std::mem::take(&mut self.lost);
        if lost != 0 {
            self.queue(false, format!("WARNING: {lost} events are lost, the reader is too slow\n"));
        }
    }

    fn queue(&mut self, is_out: bool, text: String) {
        if text.is_empty() || self.gone {
            return;
        }
        if self.backlog == 0 && self.wire.is_empty() {
            self.progress = Instant::now();
        }
        self.backlog += text.len();
        self.texts.push_back((is_out, text, 0));
    }

    fn answer(&mut self, answer: Answer) {
        self.say_what_was_lost();
        self.queue(true, answer.out);
        self.queue(false, answer.err);
        self.exit = Some(answer.exit);
        self.progress = Instant::now();
    }

    /// Writes what the client takes.
    fn flush(&mut self) {
        while !self.gone {
            if self.wire_sent == self.wire.len() && !self.encode() {
                return;
            }
            match self.stream.write(&self.wire[self.wire_sent..]) {
                Ok(n) => {
                    self.wire_sent += n;
                    self.progress = Instant::now();
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.gone = self.progress.elapsed() > PATIENCE;
                    return;
                }
                Err(_) => self.gone = true,
            }
        }
    }

    /// Puts the next line on the wire; false if there is none.
    fn encode(&mut self) -> bool {
        self.wire.clear();
        self.wire_sent = 0;
        let line = match self.texts.front_mut() {
            Some((is_out, text, from)) => {
                let mut to = text.len().min(*from + PIECE);
                while !text.is_char_boundary(to) {
                    to += 1;
                }
                let piece = text[*from..to].to_owned().into();
                self.backlog -= to - *from;
                let line = if *is_out { Line::Out(piece) } else { Line::Err(piece) };
                *from = to;
                if to == text.len() {
                    self.texts.pop_front();
                }
                line
            }
            None if self.closed => return false,
            None => match self.exit {
                Some(exit) => {
                    self.closed = true;
                    Line::Exit(exit)
                }
                None => return false,
            },
        };
        let encoded = serde_json::to_writer(&mut self.wire, &line);
        self.wire.push(b'\n');
        encoded.is_ok()
    }

    fn is_over(&self) -> bool {
        let silent = !self.asked && self.progress.elapsed() > PATIENCE;
        let answered = self.closed && self.wire_sent == self.wire.len();
        self.gone || answered || silent
    }
}

/// What a client call cannot do.
#[derive(Debug)]
pub enum CallError {
    /// Nobody listens there.
    NoDaemon(PathBuf, io::Error),
    /// The connection broke before the exit code.
    Broken(io::Error),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::NoDaemon(path, e) => {
                write!(f, "sluicegate: no gateway listens on {}: {e}", path.display())
            }
            CallError::Broken(e) => write!(f, "sluicegate: the gateway did not answer: {e}"),
        }
    }
}

impl std::error::Error for CallError {}

/// Sends a command line to the gateway and copies its answer; returns the exit code.
///
/// `interrupted` asks a stream to end: it may be set by a signal handler at any time.
///
/// # Errors
/// See [`CallError`]; what was received before is already written.
pub fn call(
    path: &Path,
    argv: &[String],
    stdin: &str,
    interrupted: &AtomicBool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, CallError> {
    let stream = UnixStream::connect(path).map_err(|e| CallError::NoDaemon(path.to_owned(), e))?;
    let process = Some(std::process::id());
    let request = Call { argv: argv.to_vec(), stdin: stdin.to_owned(), process };
    let mut text = serde_json::to_vec(&request).map_err(|e| CallError::Broken(e.into()))?;
    text.push(b'\n');
    (&stream).write_all(&text).map_err(CallError::Broken)?;
    stream.set_read_timeout(Some(Duration::from_millis(50))).map_err(CallError::Broken)?;
    let mut lines = BufReader::new(&stream);
    let mut line = Vec::new();
    let mut asked_to_end = false;
    loop {
        if interrupted.load(Ordering::Relaxed) && !asked_to_end {
            asked_to_end = true;
            stream.shutdown(Shutdown::Write).map_err(CallError::Broken)?;
        }
        match lines.read_until(b'\n', &mut line) {
            Ok(_) if line.last() == Some(&b'\n') => {}
            Ok(_) => return Err(CallError::Broken(ErrorKind::UnexpectedEof.into())),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                continue;
            }
            Err(e) => return Err(CallError::Broken(e)),
        }
        let parsed = serde_json::from_slice::<Line<'_>>(&line);
        let written = match parsed.map_err(|e| CallError::Broken(e.into()))? {
            Line::Out(text) => out.write_all(text.as_bytes()).and_then(|()| out.flush()),
            Line::Err(text) => err.write_all(text.as_bytes()),
            Line::Exit(code) => return Ok(code),
        };
        written.map_err(CallError::Broken)?;
        line.clear();
    }
}

#[cfg(test)]
mod tests;
