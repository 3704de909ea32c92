//! The command line: `sluicegate [--socket PATH] COMMAND …`.
//!
//! Everything after the name of a tool belongs to that tool and is passed on verbatim, `-h` and
//! `--` included. Tools run in the gateway: this side only finds the socket, reads and writes the
//! files of `-restore` and `-save`, and copies the answer.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Parser, Subcommand};

use crate::config::SOCKET_DEFAULT;
use crate::ipset::command as ipset;
use crate::socket::{self, CallError};
use crate::tools::iptables_files::{Restore, Save};
use crate::tools::{Answer, conntrack};

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
        /// List the conns of the running gateway that it would treat otherwise; change nothing
        #[arg(long)]
        live: bool,
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
    /// List and edit the IPv4 rules, as iptables(8)
    #[command(disable_help_flag = true)]
    Iptables(Arguments),
    /// List and edit the IPv6 rules, as ip6tables(8)
    #[command(name = "ip6tables", disable_help_flag = true)]
    Ip6tables(Arguments),
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
    /// Sets of addresses and ports, as ipset(8)
    #[command(disable_help_flag = true)]
    Ipset(Arguments),
    /// Show and set net.netfilter.nf_conntrack_* and net.ipv4.ipfrag_*, as sysctl(8)
    #[command(disable_help_flag = true)]
    Sysctl(Arguments),
    /// What would become of a packet, and why
    #[command(disable_help_flag = true)]
    Explain(Arguments),
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
            Command::Check { config, live: true } => {
                // The gateway has a working directory of its own.
                let path = std::path::absolute(config).unwrap_or_else(|_| config.clone());
                let words = ["check", "--live", &path.to_string_lossy()].map(str::to_owned);
                return Some(words.to_vec());
            }
            Command::Run { .. } | Command::Check { .. } | Command::Replay { .. } => return None,
            Command::Conntrack(a) => ("conntrack", a),
            Command::Iptables(a) => ("iptables", a),
            Command::Ip6tables(a) => ("ip6tables", a),
            Command::IptablesSave(a) => ("iptables-save", a),
            Command::IptablesRestore(a) => ("iptables-restore", a),
            Command::Ip6tablesSave(a) => ("ip6tables-save", a),
            Command::Ip6tablesRestore(a) => ("ip6tables-restore", a),
            Command::Ipset(a) => ("ipset", a),
            Command::Sysctl(a) => ("sysctl", a),
            Command::Explain(a) => ("explain", a),
            Command::Proc(a) => ("proc", a),
            Command::Stats(a) => ("stats", a),
        };
        let words = arguments.words.iter().cloned();
        Some(std::iter::once(name.to_owned()).chain(words).collect())
    }
}

/// What a tool is called with once its files are read.
struct Prepared {
    argv: Vec<String>,
    stdin: String,
    /// Where its output goes; standard output if there is none.
    output: Option<PathBuf>,
}

/// Runs a tool in the gateway that listens on `socket` (by default [`SOCKET_DEFAULT`]); returns the
/// exit code. SIGINT and SIGTERM end a stream in order.
pub fn call_tool(socket: Option<&Path>, argv: Vec<String>) -> u8 {
    let socket = socket.unwrap_or(Path::new(SOCKET_DEFAULT));
    let Prepared { argv, stdin, output } = match prepare(argv) {
        Ok(prepared) => prepared,
        Err(Answer { out, err, exit }) => {
            print!("{out}");
            eprint!("{err}");
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
    let mut kept = Vec::new();
    let to: &mut dyn io::Write = if output.is_some() { &mut kept } else { &mut out };
    let exit = match socket::call(socket, &argv, &stdin, &interrupted, to, &mut err) {
        Ok(exit) => exit,
        Err(CallError::Broken(e)) if e.kind() == io::ErrorKind::BrokenPipe => 141,
        Err(e) => {
            drop(err);
            eprintln!("{e}");
            1
        }
    };
    // A file is written once all of it is there: a gateway that is down spoils no old one.
    match output.filter(|_| exit == 0).map(|path| (std::fs::write(&path, &kept), path)) {
        Some((Err(e), path)) => {
            let tool = argv.first().map_or("", String::as_str);
            eprintln!("{tool}: cannot write {}: {e}", path.display());
            1
        }
        _ => exit,
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

/// Reads what the tool reads on this side and takes files off its arguments.
///
/// # Errors
/// What to answer without asking the gateway.
fn prepare(argv: Vec<String>) -> Result<Prepared, Answer> {
    let plain = |argv, stdin| Prepared { argv, stdin, output: None };
    if let Some(file) = file_to_load(&argv) {
        let text = read_to_load(file).map_err(|complaint| Answer::failure(2, complaint))?;
        return Ok(plain(argv, text));
    }
    let Some((tool, words)) = argv.split_first() else { return Ok(plain(argv, String::new())) };
    if tool == "ipset" {
        let file = ipset::file_of(words).cloned();
        if !ipset::is_restore(words) {
            return Ok(Prepared { argv, stdin: String::new(), output: file.map(PathBuf::from) });
        }
        let text =
            input(tool, file.as_deref()).map_err(|complaint| Answer::failure(1, complaint))?;
        return Ok(plain(argv, text));
    }
    if tool.ends_with("-save") {
        let save = Save::read(tool, words)?;
        let output = save.file.as_ref().map(PathBuf::from);
        return Ok(Prepared { argv: save.argv(tool), stdin: String::new(), output });
    }
    if tool.ends_with("-restore") {
        let restore = Restore::read(tool, words)?;
        let text = input(tool, restore.file.as_deref())
            .map_err(|complaint| Answer::failure(1, complaint))?;
        return Ok(plain(restore.argv(tool), text));
    }
    Ok(plain(argv, String::new()))
}

/// What a `-restore` reads: its file or standard input.
fn input(tool: &str, file: Option<&str>) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = match file {
        Some(file) => std::fs::read(file).map(|b| bytes = b),
        None => io::stdin().lock().read_to_end(&mut bytes).map(drop),
    };
    let what = file.unwrap_or("standard input");
    read.map_err(|e| format!("{tool}: cannot read {what}: {e}"))?;
    String::from_utf8(bytes).map_err(|_| format!("{tool}: {what} is not UTF-8 text"))
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
            "explain --in lan -p tcp --json",
            "explain --help",
            "stats --json",
            "proc net/nf_conntrack",
            "iptables-save -c -t nat",
            "ipset -exist add a 1.2.3.4 timeout 5",
            "ipset list",
            "iptables -t nat -nvL POSTROUTING 2 --line-numbers",
            "iptables -A INPUT ! -s 1.2.3.4 -p tcp --dport 80 -j ACCEPT",
            "iptables -h",
            "ip6tables -V",
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
        for line in ["run", "check", "", "top", "replay -c a --in b"] {
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
    fn files_are_opened_on_this_side() {
        let prepare = |line: &str| prepare(line.split_whitespace().map(str::to_owned).collect());
        let error = prepare("iptables-restore /nonexistent/r").err().unwrap();
        let said = "iptables-restore: cannot read /nonexistent/r: ";
        assert!(error.err.starts_with(said) && error.exit == 1, "{error:?}");
        let save = prepare("iptables-save -c -f /tmp/x").unwrap();
        assert_eq!(
            (save.argv.join(" "), save.output),
            ("iptables-save -c".to_owned(), Some("/tmp/x".into()))
        );
        let plain = prepare("conntrack -L").unwrap();
        assert_eq!((plain.argv.join(" "), plain.stdin), ("conntrack -L".to_owned(), String::new()));
        assert_eq!(
            prepare("ip6tables-save -V").err().unwrap().out,
            "ip6tables-save v1.8.9 (nf_tables)\n"
        );
    }

    #[test]
    fn the_files_of_ipset() {
        let prepare = |line: &str| prepare(line.split_whitespace().map(str::to_owned).collect());
        let written = |line| prepare(line).unwrap().output;
        assert_eq!(written("ipset save -file x"), Some("x".into()));
        assert_eq!(written("ipset -f x list foo"), Some("x".into()));
        assert_eq!(written("ipset save"), None);
        assert_eq!(prepare("ipset list -file /nonexistent/x").unwrap().stdin, "");
        let error = prepare("ipset -exist restore -file /nonexistent/x").err().unwrap();
        let said = "ipset: cannot read /nonexistent/x: ";
        assert!(error.err.starts_with(said) && error.exit == 1, "{error:?}");
        let path = std::env::temp_dir().join(format!("sets-{}", std::process::id()));
        std::fs::write(&path, "create a hash:ip\n").unwrap();
        let read = prepare(&format!("ipset restore -file {}", path.display())).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((read.stdin.as_str(), read.output), ("create a hash:ip\n", None));
    }
}
