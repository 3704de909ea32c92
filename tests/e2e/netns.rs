//! Network namespaces that carry the number of this process in their names and go when dropped, on
//! a panic too, and what still runs in them with them. Those of processes that were killed are
//! removed by the next run.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PREFIX: &str = "sg-e2e";

/// Programs that the tests start.
const PROGRAMS: [&str; 7] = ["ip", "nsenter", "setpriv", "ethtool", "sysctl", "curl", "ping"];

/// One network namespace.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace. Panics with a clear message where that cannot be done: a test that
    /// quietly did not run would be worse than none.
    pub fn new(role: &str) -> Namespace {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        demand_machine();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let namespace =
            Namespace { name: format!("{PREFIX}-{}-{number}-{role}", std::process::id()) };
        run(&["ip", "netns", "add", &namespace.name]);
        namespace.run("ip link set lo up");
        // A test waits for no duplicate address detection and hears no chatter.
        namespace.run(
            "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
             net.ipv6.conf.default.router_solicitations=0",
        );
        namespace
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A program that will run inside.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.name))
            .args(line.split(' ').filter(|w| !w.is_empty()));
        command
    }

    /// Runs a program to its end, whatever comes of it.
    pub fn try_run(&self, line: &str) -> Output {
        self.command(line).stdin(Stdio::null()).output().expect("nsenter starts")
    }

    /// Runs a program that has to succeed; its standard output.
    pub fn run(&self, line: &str) -> String {
        let output = self.try_run(line);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "`{line}` in {} failed ({}): {complaint}",
            self.name,
            output.status
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Does something on a thread that lives in this namespace; sockets keep the namespace they
    /// were opened in.
    pub fn within<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let path = format!("/run/netns/{}", self.name);
        let thread = std::thread::spawn(move || {
            let file = File::open(path).expect("the namespace exists");
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
            job()
        });
        thread.join().expect("the job does not panic")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Fails clearly on a machine that cannot run these tests.
pub fn demand_machine() {
    static LOOKED: Once = Once::new();
    assert!(
        nix::unistd::geteuid().is_root(),
        "the end-to-end tests make network namespaces and have to run as root"
    );
    demand_programs(&PROGRAMS);
    LOOKED.call_once(remove_orphans);
}

/// Fails clearly where a program is missing.
pub fn demand_programs(programs: &[&str]) {
    for program in programs {
        assert!(in_path(program), "the end-to-end tests need the program `{program}`");
    }
}

fn in_path(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').any(|folder| Path::new(folder).join(program).is_file())
}

fn run(argv: &[&str]) {
    let output = Command::new(argv[0]).args(&argv[1..]).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", argv[0]));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{}` failed: {complaint}", argv.join(" "));
}

/// Ends what runs in a namespace, as a server's children may outlive it.
fn end_programs(name: &str) {
    let output = Command::new("ip").args(["netns", "pids", name]).stderr(Stdio::null()).output();
    let Ok(output) = output else { return };
    let own = Pid::this();
    for pid in String::from_utf8_lossy(&output.stdout).lines().filter_map(|pid| pid.parse().ok()) {
        let pid = Pid::from_raw(pid);
        if pid != own {
            // It may have ended by itself in the meantime.
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}

fn remove(name: &str) {
    end_programs(name);
    let status = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
    if !status.is_ok_and(|status| status.success()) {
        eprintln!("namespace {name} could not be removed");
    }
}

fn remove_orphans() {
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let rest = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('-'));
        let owner = rest.and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(&name);
        }
    }
}
