//! The configuration file: TOML in, resolved values out, or one line that says where it is wrong.
//!
//! [`Config::load`] reads the file and checks it whole: names, ranges, that ports and networks fit
//! together, that the rule files can be read (their text is somebody else's to judge). Nothing here
//! has an effect; `check`, `run` and a reload share it. A key of a later version is refused, never
//! ignored. `configs/reference.toml` shows every key, `docs/configuration.md` explains them.

mod network;
mod reader;
pub mod sizes;
mod vlan;

use std::path::{Path, PathBuf};

use dataplane::conntrack::expect::EXPECT_MAX_LIMIT;
use dataplane::conntrack::helper::{Helper, Policy};
use dataplane::conntrack::knobs::{IN_ORDER, Knobs};
use dataplane::conntrack::policies::POLICIES_MAX;
use dataplane::conntrack::store::{MAX_LIMIT, default_expect_max};
use dataplane::conntrack::timeouts::{MAX_SECS, Timeout, Timeouts};
use dataplane::time::MAX_TIMEOUT_SECS;
use toml::de::DeTable;

use crate::labels;

pub use network::{
    DEVICES_MAX, MTU_DEFAULT, Neighbour, PORT_NAME_MAX, PORTS_MAX, Port, Prefixed, Route,
};
pub use reader::ConfigError;
use reader::{Section, Source, integer};
pub use vlan::Vlan;

/// A configuration without mistakes, all defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[eal]`
    pub eal: Eal,
    /// `[[port]]`, in the order of the file; at least one.
    pub ports: Vec<Port>,
    /// `[[route]]`
    pub routes: Vec<Route>,
    /// `[[neighbour]]`
    pub neighbours: Vec<Neighbour>,
    /// `[conntrack]`
    pub conntrack: Conntrack,
    /// `[timeout_policy.NAME]`: the file's timeouts with what the policy changes.
    pub timeout_policies: Vec<(String, Timeouts)>,
    /// `[rules]`
    pub rules: Rules,
    /// `[control] socket`
    pub socket: PathBuf,
    /// `[log] level`
    pub log_level: log::LevelFilter,
}

/// Whether DPDK's memory comes from huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hugepages {
    /// If the machine has enough of them.
    Auto,
    /// Or else do not start.
    Yes,
    /// Never.
    No,
}

/// What a worker does when it has nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Ask its queues again.
    Poll,
    /// Sleep a little, bounded.
    Sleep,
}

/// The most workers: DPDK counts 128 lcores (`RTE_MAX_LCORE`), one of them the control core.
pub const WORKERS_MAX: usize = 127;

/// How DPDK is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eal {
    /// The CPU of the control core.
    pub control_core: u32,
    /// The CPUs of the workers, 1 to [`WORKERS_MAX`]; they may share a CPU.
    pub worker_cores: Vec<u32>,
    /// Huge pages or not.
    pub hugepages: Hugepages,
    /// Memory for DPDK, in MiB.
    pub memory_mb: u32,
    /// Packet buffers; `None` for what queues and bursts need.
    pub mbufs: Option<u32>,
    /// What this process' DPDK files are called.
    pub file_prefix: String,
    /// Appended verbatim to the EAL arguments.
    pub args: Vec<String>,
    /// Packets taken from a queue at once, 1 to 64.
    pub burst: u16,
    /// Sleeping is the default where a worker shares its CPU with the control core or another one.
    pub idle: Idle,
}

/// The table and its knobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conntrack {
    /// The reported number of buckets.
    pub hashsize: u32,
    /// The most conns.
    pub max: u32,
    /// The most expectations.
    pub expect_max: u32,
    /// Whether the file names it.
    pub names_expect_max: bool,
    /// The kernel's defaults with what the file changes, `[helper.*]` included.
    pub knobs: Knobs,
    /// The knobs that the file names (without `nf_conntrack_`): a reload sets these, others keep
    /// their live value.
    pub named: Vec<&'static str>,
    /// At `max`, no conn goes for a new one (`full`).
    pub refuses_when_full: bool,
    /// The file with the names of labels; the default one need not be there.
    pub label_names: PathBuf,
    /// Whether the file names `hashsize` and `max`.
    pub names_sizes: (bool, bool),
}

/// Rule files, resolved against the configuration's directory; each could be opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// In the format of `iptables-save`.
    pub ipv4: Option<PathBuf>,
    /// In the format of `ip6tables-save`.
    pub ipv6: Option<PathBuf>,
    /// Sets that the rules name, in the format of `ipset save`.
    pub sets: Option<PathBuf>,
    /// What becomes of live conns when the rules change.
    pub on_reload: OnReload,
}

/// What becomes of live conns when the rules change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnReload {
    /// Their packets meet the new rules, as in the kernel.
    #[default]
    Reevaluate,
    /// What had passed goes on passing; only new conns meet the new rules.
    Keep,
    /// Their packets meet the new rules, and those whose packets they drop are deleted.
    KillDenied,
}

/// Where the control socket is if nobody says otherwise.
pub const SOCKET_DEFAULT: &str = "/run/sluicegate.sock";

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The first mistake, with its place.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|e| ConfigError {
            file: path.to_owned(),
            line: 1,
            column: 1,
            message: format!("cannot be read: {e}"),
        })?;
        Config::parse(path, &text, sizes::ram_bytes())
    }

    /// Checks a text; `path` is for messages and for the place of rule files, `ram_bytes` for the
    /// default size of the table.
    ///
    /// # Errors
    /// The first mistake, with its place.
    pub fn parse(path: &Path, text: &str, ram_bytes: u64) -> Result<Config, ConfigError> {
        let source = Source { path, text };
        let table = DeTable::parse(text)
            .map_err(|e| source.error(e.span().unwrap_or(0..0), e.message()))?;
        let root = Section::root(&source, table.get_ref());
        let ports = network::ports(&root.tables("port")?)?;
        let mut conntrack =
            conntrack(&root.table("conntrack")?, &root.table("ipfrag")?, ram_bytes)?;
        helpers(&root.table("helper")?, &mut conntrack.knobs)?;
        let policies = timeout_policies(&root.table("timeout_policy")?, &conntrack)?;
        let config = Config {
            eal: eal(&root.table("eal")?)?,
            routes: network::routes(&root.tables("route")?, &ports)?,
            neighbours: network::neighbours(&root.tables("neighbour")?, &ports)?,
            conntrack,
            timeout_policies: policies,
            rules: rules(&root.table("rules")?)?,
            socket: control(&root.table("control")?)?,
            log_level: log_level(&root.table("log")?)?,
            ports,
        };
        root.finish(&[])?;
        if config.ports.is_empty() {
            return Err(source.error(0..0, "there is no [[port]]"));
        }
        Ok(config)
    }

    /// Gives each sub-interface its parent's MAC address; `macs` is by port number.
    pub fn share_macs(&self, macs: &mut [[u8; 6]]) {
        for (number, port) in self.ports.iter().enumerate() {
            if let Some(Vlan { parent, .. }) = port.vlan {
                macs[number] = macs[parent];
            }
        }
    }
}

fn eal(section: &Section<'_>) -> Result<Eal, ConfigError> {
    const CORE_MAX: u64 = 1023;
    let control_core = section.number("control_core", 0, CORE_MAX)?.map_or(0, |(n, _)| n as u32);
    let mut worker_cores = Vec::new();
    for value in section.list("worker_cores")?.unwrap_or_default() {
        match integer(value.get_ref()).filter(|n| *n <= CORE_MAX) {
            Some(core) => worker_cores.push(core as u32),
            None => return Err(section.wrong("worker_cores", value, "must be CPU numbers")),
        }
    }
    if let Some(value) = section.value("worker_cores")
        && !(1..=WORKERS_MAX).contains(&worker_cores.len())
    {
        let what = format!("must name 1 to {WORKERS_MAX} CPUs");
        return Err(section.wrong("worker_cores", value, what));
    }
    let worker_cores = if worker_cores.is_empty() { vec![1] } else { worker_cores };
    let twice = |(i, cpu)| worker_cores[..i].contains(cpu);
    let shared = worker_cores.contains(&control_core) || worker_cores.iter().enumerate().any(twice);
    let words = [("poll", Idle::Poll), ("sleep", Idle::Sleep)];
    let default_idle = if shared { Idle::Sleep } else { Idle::Poll };
    let args = section.texts("args")?;
    let eal = Eal {
        control_core,
        worker_cores,
        hugepages: hugepages(section)?,
        memory_mb: section.number("memory_mb", 64, 1 << 20)?.map_or(512, |(n, _)| n as u32),
        mbufs: section.number("mbufs", 512, 1 << 24)?.map(|(n, _)| n as u32),
        file_prefix: file_prefix(section)?,
        args: args.into_iter().map(|(text, _)| text.to_owned()).collect(),
        burst: section.number("burst", 1, 64)?.map_or(32, |(n, _)| n as u16),
        idle: section.choice("idle", &words)?.unwrap_or(default_idle),
    };
    section.finish(&[])?;
    Ok(eal)
}

fn hugepages(section: &Section<'_>) -> Result<Hugepages, ConfigError> {
    let Some(value) = section.value("hugepages") else { return Ok(Hugepages::Auto) };
    if value.get_ref().as_str() == Some("auto") {
        return Ok(Hugepages::Auto);
    }
    match section.number("hugepages", 0, 1) {
        Ok(Some((0, _))) => Ok(Hugepages::No),
        Ok(_) => Ok(Hugepages::Yes),
        Err(_) => Err(section.wrong("hugepages", value, "must be \"auto\", true or false")),
    }
}

fn file_prefix(section: &Section<'_>) -> Result<String, ConfigError> {
    let Some((text, value)) = section.text("file_prefix")? else {
        return Ok("sluicegate".to_owned());
    };
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if text.is_empty() || text.len() > 64 || !text.chars().all(good) {
        let what = "must have 1 to 64 letters, digits, _ or -";
        return Err(section.wrong("file_prefix", value, what));
    }
    Ok(text.to_owned())
}

fn conntrack(
    section: &Section<'_>,
    ipfrag: &Section<'_>,
    ram_bytes: u64,
) -> Result<Conntrack, ConfigError> {
    let number = |key| section.number(key, sizes::HASHSIZE_MIN, sizes::HASHSIZE_MAX);
    let (hashsize, buckets) = (number("hashsize")?, number("buckets")?);
    if let (Some(_), Some((_, value))) = (hashsize, buckets) {
        let what = "is another name of hashsize, which is given too";
        return Err(section.wrong("buckets", value, what));
    }
    let named_size = hashsize.or(buckets).map(|(n, _)| n as u32);
    let hashsize = named_size.unwrap_or_else(|| sizes::default_hashsize(ram_bytes));
    let named_max = section.number("max", 1, u64::from(MAX_LIMIT))?.map(|(n, _)| n as u32);
    let (knobs, named) = knobs(section, ipfrag)?;
    let refuses_when_full = match section.text("full")? {
        None | Some(("early-drop", _)) => false,
        Some(("refuse", _)) => true,
        Some((_, value)) => {
            return Err(section.wrong("full", value, "must be \"early-drop\" or \"refuse\""));
        }
    };
    let label_names = file(section, "label_names")?;
    let expect_max = section.number("expect_max", 1, u64::from(EXPECT_MAX_LIMIT))?;
    section.finish(&[])?;
    Ok(Conntrack {
        hashsize,
        max: named_max.unwrap_or_else(|| sizes::default_max(hashsize)),
        expect_max: expect_max.map_or(default_expect_max(hashsize), |(n, _)| n as u32),
        names_expect_max: expect_max.is_some(),
        knobs,
        named,
        refuses_when_full,
        label_names: label_names.unwrap_or_else(|| PathBuf::from(labels::PATH)),
        names_sizes: (named_size.is_some(), named_max.is_some()),
    })
}

/// Helpers of the kernel that later versions have.
const HELPERS_LATER: &[&str] =
    &["ftp", "irc", "amanda", "pptp", "sip", "RAS", "Q.931", "sane", "netbios-ns", "snmp"];

/// `[helper.NAME]`: what a helper may expect.
fn helpers(section: &Section<'_>, knobs: &mut Knobs) -> Result<(), ConfigError> {
    for helper in Helper::ALL {
        let mut own = section.table(helper.name())?;
        own.name = format!("[helper.{}]", helper.name());
        let Policy { max_expected, timeout_secs } = helper.policy();
        let most = own.number("max_expected", 1, u64::from(u8::MAX))?;
        let timeout = own.number("timeout", 1, u64::from(MAX_TIMEOUT_SECS))?;
        own.finish(&[])?;
        let policy = Policy {
            max_expected: most.map_or(max_expected, |(n, _)| n as u8),
            timeout_secs: timeout.map_or(timeout_secs, |(n, _)| n as u32),
        };
        knobs.helpers.set(helper, policy);
    }
    section.finish(HELPERS_LATER)
}

/// The longest name that the kernel knows a policy by (`CTNL_TIMEOUT_NAME_MAX`).
const POLICY_NAME_MAX: usize = 31;

fn timeout_policies(
    section: &Section<'_>,
    conntrack: &Conntrack,
) -> Result<Vec<(String, Timeouts)>, ConfigError> {
    let mut policies = Vec::new();
    for name in section.keys() {
        let mut policy = section.table(name)?;
        policy.name = format!("[timeout_policy.{name}]");
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || name.len() > POLICY_NAME_MAX || !name.chars().all(good) {
            let what = format!("a policy's name has 1 to {POLICY_NAME_MAX} letters, digits, _ - .");
            return Err(section.source.error(policy.span.clone(), what));
        }
        let mut timeouts = conntrack.knobs.timeouts;
        for timeout in Timeout::ALL {
            if let Some((secs, _)) = policy.number(timeout.name(), 0, u64::from(MAX_SECS))? {
                timeouts.set(timeout, secs as u32);
            }
        }
        policy.finish(&[])?;
        if policies.len() == POLICIES_MAX {
            let what = format!("more than {POLICIES_MAX} timeout policies");
            return Err(section.source.error(policy.span.clone(), what));
        }
        policies.push((name.to_owned(), timeouts));
    }
    Ok(policies)
}

/// The sysctls, and which of them the file names.
fn knobs(
    section: &Section<'_>,
    ipfrag: &Section<'_>,
) -> Result<(Knobs, Vec<&'static str>), ConfigError> {
    let mut knobs = Knobs::default();
    let mut named = Vec::new();
    for knob in Knobs::all() {
        let (section, key) = match knob.of_ipfrag() {
            Some(key) => (ipfrag, key),
            None => (section, knob.name),
        };
        let Some((number, value)) = section.number(key, knob.min, knob.max)? else { continue };
        knobs.set(knob.name, number).map_err(|e| section.wrong(key, value, e))?;
        named.push(knob.name);
    }
    for (low, high) in IN_ORDER {
        let (least, most) = (knobs.get(low), knobs.get(high));
        if least <= most {
            continue;
        }
        let knob = Knobs::find(low);
        let (section, key) = match knob.and_then(|k| k.of_ipfrag()) {
            Some(key) => (ipfrag, key),
            None => (section, low),
        };
        if let Some(value) = section.value(key) {
            return Err(section.wrong(key, value, "must not be more than high_thresh"));
        }
        // A lower limit takes the default along.
        let _ = knobs.set(low, most.unwrap_or(0));
        named.push(low);
    }
    ipfrag.finish(&[])?;
    Ok((knobs, named))
}

/// A file of the user's, resolved against the configuration's directory; it could be opened.
fn file(section: &Section<'_>, key: &str) -> Result<Option<PathBuf>, ConfigError> {
    let Some((text, value)) = section.text(key)? else { return Ok(None) };
    let home = section.source.path.parent().unwrap_or(Path::new(""));
    let path = home.join(text);
    let opened = std::fs::File::open(&path).and_then(|f| f.metadata());
    let complaint = match opened {
        Ok(facts) if facts.is_dir() => "is a directory".to_owned(),
        Ok(_) => return Ok(Some(path)),
        Err(e) => format!("{} cannot be read: {e}", path.display()),
    };
    Err(section.wrong(key, value, complaint))
}

fn rules(section: &Section<'_>) -> Result<Rules, ConfigError> {
    let (ipv4, ipv6) = (file(section, "ipv4")?, file(section, "ipv6")?);
    let sets = file(section, "sets")?;
    let words = [
        ("reevaluate", OnReload::Reevaluate),
        ("keep", OnReload::Keep),
        ("kill-denied", OnReload::KillDenied),
    ];
    let on_reload = section.choice("on_reload", &words)?.unwrap_or_default();
    let rules = Rules { ipv4, ipv6, sets, on_reload };
    section.finish(&[])?;
    Ok(rules)
}

fn control(section: &Section<'_>) -> Result<PathBuf, ConfigError> {
    // A UNIX socket's path has 108 bytes with its final zero; `.new` is appended while binding.
    const SOCKET_PATH_MAX: usize = 103;
    let socket = match section.text("socket")? {
        None => PathBuf::from(SOCKET_DEFAULT),
        Some((text, value)) if text.is_empty() || text.len() > SOCKET_PATH_MAX => {
            let what = format!("must have 1 to {SOCKET_PATH_MAX} bytes");
            return Err(section.wrong("socket", value, what));
        }
        Some((text, _)) => PathBuf::from(text),
    };
    section.finish(&["metrics"])?;
    Ok(socket)
}

fn log_level(section: &Section<'_>) -> Result<log::LevelFilter, ConfigError> {
    use log::LevelFilter::{Debug, Error, Info, Off, Trace, Warn};
    let words = [
        ("off", Off),
        ("error", Error),
        ("warn", Warn),
        ("info", Info),
        ("debug", Debug),
        ("trace", Trace),
    ];
    let level = section.choice("level", &words)?.unwrap_or(Info);
    section.finish(&[])?;
    Ok(level)
}

#[cfg(test)]
mod tests;
