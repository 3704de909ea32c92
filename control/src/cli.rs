//! The command line: `sluicegate [--socket PATH] COMMAND …`.
//!
//! Everything after the name of a tool belongs to that tool and is passed on verbatim, `-h` and
//! `--` included. Tools run in the gateway: this side only finds the socket, reads what standard
//! input or a file has for `-restore`, and copies the answer.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Parser, Subcommand};

use crate::config::SOCKET_DEFAULT;
use crate::socket::{self, CallError};
use crate::tools::conntrack;

/// The variable that names the control socket where `--socket` does not.
pub const SOCKET_VARIABLE: &str = "SLUICEGATE_SOCKET";

/// The words of a command line.
#[derive(Debug, Parser)]
#[command(name = "sluicegate", version = env!("SLUICEGATE_VERSION"))]
#[command(about = "A stateful firewall and NAT gateway on DPDK")]
pub struct Cli {
    /// Control socket; else the variable SLUICEGATE_SOCKET, else /run/sluicegate.sock
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Run in the foreground
    Run {
        /// Configuration
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Check a configuration and its rules; print sizes and memory
    Check {
        /// Configuration
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Run a capture through the pipeline, without DPDK
    Replay {
        /// Configuration
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// Capture to read; interface names are port names
        #[arg(long = "in", value_name = "PCAPNG")]
        input: PathBuf,
        /// Capture to write
        #[arg(long = "out", value_name = "PCAPNG")]
        output: PathBuf,
        /// Say for each frame what became of it and why
        #[arg(long)]
        explain: bool,
        /// List the conns at the end
        #[arg(long)]
        conntrack: bool,
    },
    /// The tracked conns, as conntrack(8)
    #[command(disable_help_flag = true)]
    Conntrack(Arguments),
    /// The live IPv4 rules as text, as iptables-save(8)
    #[command(disable_help_flag = true)]
    IptablesSave(Arguments),
    /// Replace the IPv4 rules, as iptables-restore(8)
    #[command(disable_help_flag = true)]
    IptablesRestore(Arguments),
    /// The live IPv6 rules as text, as ip6tables-save(8)
    #[command(name = "ip6tables-save", disable_help_flag = true)]
    Ip6tablesSave(Arguments),
    /// Replace the IPv6 rules, as ip6tables-restore(8)
    #[command(name = "ip6tables-restore", disable_help_flag = true)]
    Ip6tablesRestore(Arguments),
    /// Show and set net.netfilter.nf_conntrack_* and net.ipv4.ipfrag_*, as sysctl(8)
    #[command(disable_help_flag = true)]
    Sysctl(Arguments),
    /// The text of /proc/net/nf_conntrack and its relatives
    #[command(disable_help_flag = true)]
    Proc(Arguments),
    /// Ports, lcores, table and drop reasons [--json]
    #[command(disable_help_flag = true)]
    Stats(Arguments),
}

/// A tool's own arguments.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Arguments {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    words: Vec<String>,
}

impl Cli {
    /// The control socket that the command line or the environment names.
    pub fn socket(&self) -> Option<PathBuf> {
        self.socket_or(std::env::var_os(SOCKET_VARIABLE))
    }

    fn socket_or(&self, variable: Option<OsString>) -> Option<PathBuf> {
        let variable = variable.filter(|v| !v.is_empty()).map(PathBuf::from);
        self.socket.clone().or(variable)
    }
}

impl Command {
    /// The tool's name and arguments; `None` for what runs in this process.
    pub fn tool(&self) -> Option<Vec<String>> {
        let (name, arguments) = match self {
            Command::Run { .. } | Command::Check { .. } | Command::Replay { .. } => return None,
            Command::Conntrack(a) => ("conntrack", a),
            Command::IptablesSave(a) => ("iptables-save", a),
            Command::IptablesRestore(a) => ("iptables-restore", a),
            Command::Ip6tablesSave(a) => ("ip6tables-save", a),
            Command::Ip6tablesRestore(a) => ("ip6tables-restore", a),
            Command::Sysctl(a) => ("sysctl", a),
            Command::Proc(a) => ("proc", a),
            Command::Stats(a) => ("stats", a),
        };
        let words = arguments.words.iter().cloned();
        Some(std::iter::once(name.to_owned()).chain(words).collect())
    }
}

/// Runs a tool in the gateway that listens on `socket` (by default [`SOCKET_DEFAULT`]); returns the
/// exit code. SIGINT and SIGTERM end a stream in order.
pub fn call_tool(socket: Option<&Path>, mut argv: Vec<String>) -> u8 {
    let socket = socket.unwrap_or(Path::new(SOCKET_DEFAULT));
    let read = match file_to_load(&argv) {
        Some(file) => read_to_load(file).map_err(|complaint| (complaint, 2)),
        None => input(&mut argv).map_err(|complaint| (complaint, 1)),
    };
    let stdin = match read {
        Ok(text) => text,
        Err((complaint, exit)) => {
            eprintln!("{complaint}");
            return exit;
        }
    };
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // Without a handler the signal ends the process at once, which is good enough.
        let _ = signal_hook::flag::register_conditional_default(signal, Arc::clone(&interrupted));
        let _ = signal_hook::flag::register(signal, Arc::clone(&interrupted));
    }
    let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
    match socket::call(socket, &argv, &stdin, &interrupted, &mut out, &mut err) {
        Ok(exit) => exit,
        Err(CallError::Broken(e)) if e.kind() == io::ErrorKind::BrokenPipe => 141,
        Err(e) => {
            drop(err);
            eprintln!("{e}");
            1
        }
    }
}

/// The file of a `conntrack -R`, which no other word may precede.
fn file_to_load(argv: &[String]) -> Option<&str> {
    match argv {
        [tool, option, file, ..] if tool == "conntrack" && conntrack::is_load(option) => Some(file),
        _ => None,
    }
}

/// The lines to load; `-` is standard input.
fn read_to_load(file: &str) -> Result<String, String> {
    let bytes = match file {
        "-" => {
            let mut bytes = Vec::new();
            io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
        }
        file => std::fs::read(file),
    };
    let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
    text.ok_or_else(|| conntrack::cannot_read(file).err.trim_end().to_owned())
}

/// What a `-restore` reads: the file it names, which is then taken off its arguments, or standard
/// input. Other tools read nothing.
fn input(argv: &mut Vec<String>) -> Result<String, String> {
    let name = argv.first().cloned().unwrap_or_default();
    if !name.ends_with("-restore") {
        return Ok(String::new());
    }
    let file = file_operand(argv);
    if argv.iter().any(|a| matches!(a.as_str(), "-h" | "--help" | "-V" | "--version")) {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    let read = match &file {
        Some(at) => std::fs::read(&argv[*at]).map(|b| bytes = b),
        None => io::stdin().lock().read_to_end(&mut bytes).map(drop),
    };
    if let Err(e) = read {
        let what = file.map_or("standard input", |at| &argv[at]);
        return Err(format!("{name}: cannot read {what}: {e}"));
    }
    let what = file.map_or("standard input".to_owned(), |at| argv.remove(at));
    String::from_utf8(bytes).map_err(|_| format!("{name}: {what} is not UTF-8 text"))
}

/// The place of the file among the arguments of a `-restore`: the first word that is neither an
/// option nor an option's argument.
fn file_operand(argv: &[String]) -> Option<usize> {
    const TAKES: &[&str] = &["-T", "--table", "-M", "--modprobe", "-W", "--wait-interval"];
    let mut after_option = false;
    for (at, word) in argv.iter().enumerate().skip(1) {
        let number = word.parse::<u32>().is_ok();
        let waits = matches!(argv[at - 1].as_str(), "-w" | "--wait");
        if after_option || (waits && number) {
            after_option = false;
        } else if TAKES.contains(&word.as_str()) {
            after_option = true;
        } else if !word.starts_with('-') {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("sluicegate").chain(line.split_whitespace()))
    }

    fn tool(line: &str) -> String {
        parse(line).unwrap().command.tool().unwrap().join(" ")
    }

    #[test]
    fn the_table_of_commands_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn tools_get_their_arguments_verbatim() {
        for line in [
            "conntrack -L -p tcp --sport 5 -o id,extended",
            "conntrack -h",
            "conntrack --help",
            "conntrack -V",
            "conntrack --version",
            "conntrack --socket x",
            "conntrack -L -- foo",
            "conntrack",
            "conntrack -n -s 1.1.1.1",
            "sysctl -w net.netfilter.nf_conntrack_max=5",
            "sysctl -a",
            "stats --json",
            "proc net/nf_conntrack",
            "iptables-save -c -t nat",
            "ip6tables-restore --test",
        ] {
            assert_eq!(tool(line), line);
        }
        let cli = parse("--socket /tmp/s conntrack -L").unwrap();
        assert_eq!(cli.socket, Some(PathBuf::from("/tmp/s")));
    }

    #[test]
    fn own_commands() {
        let cli = parse("run -c a.toml").unwrap();
        assert_eq!(cli.command, Command::Run { config: "a.toml".into() });
        assert_eq!(cli.command.tool(), None);
        assert!(parse("check --config a.toml").is_ok());
        for (words, explain, conntrack) in
            [("", false, false), ("--conntrack", false, true), ("--explain", true, false)]
        {
            let replay = parse(&format!("replay -c a --in b --out c {words}")).unwrap().command;
            let (config, input, output) = ("a".into(), "b".into(), "c".into());
            assert_eq!(replay, Command::Replay { config, input, output, explain, conntrack });
        }
        for line in ["run", "check", "", "explain", "top", "iptables -L", "replay -c a --in b"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn the_option_wins_over_the_variable() {
        let variable = || Some(OsString::from("/v"));
        let socket = |line: &str, v| parse(line).unwrap().socket_or(v);
        assert_eq!(socket("--socket /o stats", variable()), Some("/o".into()));
        assert_eq!(socket("stats", variable()), Some("/v".into()));
        assert_eq!(socket("stats", Some(OsString::new())), None);
        assert_eq!(socket("stats", None), None);
    }

    #[test]
    fn the_file_of_a_restore() {
        let at = |line: &str| {
            let argv: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            file_operand(&argv).map(|i| argv[i].clone())
        };
        assert_eq!(at("iptables-restore -c --test"), None);
        assert_eq!(at("iptables-restore -T nat rules"), Some("rules".to_owned()));
        assert_eq!(at("iptables-restore -w 5 rules -n"), Some("rules".to_owned()));
        assert_eq!(at("iptables-restore -w rules"), Some("rules".to_owned()));
        let mut argv = vec!["iptables-restore".to_owned(), "/nonexistent/r".to_owned()];
        let error = input(&mut argv).unwrap_err();
        assert!(error.starts_with("iptables-restore: cannot read /nonexistent/r: "), "{error}");
        assert_eq!(input(&mut vec!["conntrack".to_owned()]), Ok(String::new()));
    }
}
