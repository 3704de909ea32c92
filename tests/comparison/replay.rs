//! Sluicegate as a device, offline: `sluicegate replay` on a capture with the script's packets.
//!
//! A replay runs a whole capture, while a script wants to see what came out before it goes on. So
//! the capture grows with the script and is run again from its beginning whenever an answer is
//! needed that the last run did not reach; equal captures give equal outputs. Time is the
//! capture's: each step takes [`STEP`], a wait is added to the clock.

use crate::kernel::is_chatter;
use crate::netns::mac;
use crate::script::{Device, Emitted, Script, Sequence, Setup, Transcript, Wire};
use crate::topology::Side;
use pcap_file::DataLink;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{Block, PcapNgBlock, PcapNgReader, PcapNgWriter};
use std::borrow::Cow;
use std::fmt::Write;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The clock of the first packet, since 1970.
pub const START: Duration = Duration::from_secs(1_700_000_000);
/// From one step to the next, about what it takes in the kernel's namespace.
const STEP: Duration = Duration::from_millis(5);
/// `if_tsresol` of the captures written here: nanoseconds, the unit in which pcap-file writes.
const NANOSECONDS: u8 = 9;

/// Sequences that need what the replay does not do yet, or does otherwise on purpose. One that
/// agrees has to leave the list.
pub const LATER: &[(&str, &str)] =
    &[("synproxy-server-resets", "a number that is no client's in a server's later reset")];

/// How many workers share the packets, and by how many queues of each port these come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    pub name: &'static str,
    pub workers: usize,
    pub queues: u16,
    /// Whether `log_invalid` is on, which makes what it has to say something about walk.
    pub logs: bool,
    /// Sequences in which that many workers do otherwise than the kernel, and why.
    pub differs: &'static [(&'static str, &'static str)],
}

/// Of what several workers do otherwise.
const DISTANCE: &[(&str, &str)] =
    &[("fragments-distance", "one count of a source's fragments for all workers")];

/// What every sequence is replayed with.
pub const SPREADS: [Spread; 3] = [
    Spread { name: "sluicegate replay", workers: 1, queues: 1, logs: true, differs: &[] },
    // Nearly everything is handed over, to its conn's owner and to whoever can send it.
    Spread {
        name: "sluicegate replay, three workers and single queues",
        workers: 3,
        queues: 1,
        logs: true,
        differs: DISTANCE,
    },
    // As a NIC spreads: both directions of a conn at one worker, until NAT makes them two.
    Spread {
        name: "sluicegate replay, two workers and two queues",
        workers: 2,
        queues: 2,
        logs: false,
        differs: DISTANCE,
    },
];

/// What came of a replay.
pub struct Replayed {
    /// The frames that came out, and when.
    pub emitted: Vec<(Duration, Emitted)>,
    /// The listing at the end.
    pub table: String,
    /// What it said on standard error.
    complaint: String,
}

/// The replay command, with a folder for its files.
pub struct Replay {
    program: PathBuf,
    folder: PathBuf,
    spread: Spread,
}

impl Replay {
    /// Makes the folder; it goes when the device is dropped.
    pub fn new(spread: Spread) -> Replay {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("sluicegate-compare-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("a folder for captures can be made");
        Replay { program: PathBuf::from(env!("CARGO_BIN_EXE_sluicegate")), folder, spread }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.join(name), text).expect("the folder can be written to");
    }

    /// Writes rules and configuration; `more` is appended to the latter.
    pub fn prepare(&self, setup: &Setup, more: &str) {
        self.write("rules.v4", &setup.rules4);
        self.write("rules.v6", &setup.rules6);
        self.write("gateway.toml", &(configuration(setup, self.spread) + RULES + more));
    }

    /// Runs a capture from an empty table; returns what came of it.
    pub fn replay(&self, frames: &[(Duration, Side, Vec<u8>)]) -> Replayed {
        let folder = &self.folder;
        let (input, output) = (folder.join("in.pcapng"), folder.join("out.pcapng"));
        write_capture(&input, frames);
        // What an earlier run wrote must not pass for this one's output.
        let _ = fs::remove_file(&output);
        let done = Command::new(&self.program)
            .args(["replay", "--conntrack", "-c"])
            .arg(folder.join("gateway.toml"))
            .arg("--in")
            .arg(&input)
            .arg("--out")
            .arg(&output)
            .output()
            .expect("the program under test starts");
        let complaint = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "sluicegate replay: {}: {complaint}", done.status);
        let table = String::from_utf8(done.stdout).expect("the table is text");
        Replayed { emitted: read_capture(&output), table, complaint: complaint.into_owned() }
    }

    /// Copies what the last replay ran with to another folder.
    pub fn keep(&self, folder: &Path) -> std::io::Result<()> {
        fs::create_dir_all(folder)?;
        for name in ["rules.v4", "rules.v6", "gateway.toml", "in.pcapng"] {
            fs::copy(self.folder.join(name), folder.join(name))?;
        }
        Ok(())
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("{}: {error}", self.folder.display());
        }
    }
}

impl Device for Replay {
    fn name(&self) -> &str {
        self.spread.name
    }

    fn lacks(&self, sequence: &str) -> Option<&str> {
        let all = LATER.iter().chain(self.spread.differs);
        all.filter(|(name, _)| *name == sequence).map(|(_, lacks)| *lacks).next()
    }

    fn run(&mut self, sequence: &Sequence) -> Transcript {
        self.prepare(&sequence.setup, "");
        let mut wire = CaptureWire {
            replay: self,
            now: START,
            sent: Vec::new(),
            steps: Vec::new(),
            emitted: Vec::new(),
            said: Vec::new(),
            covered: 0,
        };
        Script::play(sequence, &mut wire)
    }
}

/// Where a replay's configuration finds its rules.
const RULES: &str = "\n[rules]\nipv4 = \"rules.v4\"\nipv6 = \"rules.v6\"\n";

/// The configuration of [`crate::topology`] with a sequence's settings, without rules.
pub fn configuration(setup: &Setup, spread: Spread) -> String {
    let queues = spread.queues;
    // A replay needs no CPUs, only their number.
    let mut text = format!("[eal]\nworker_cores = {:?}\n\n", vec![1; spread.workers]);
    for (number, side) in Side::BOTH.into_iter().enumerate() {
        let _ = writeln!(
            text,
            "[[port]]\nname = \"{}\"\ndevice = \"net_null{number}\"\nmac = \"{}\"\n\
             addresses = {:?}\nmtu = {}\nrx_queues = {queues}\ntx_queues = {queues}\n",
            side.port(),
            mac(side.gateway_mac()),
            side.addresses(),
            if side == Side::Wan { setup.wan_mtu } else { 1500 }
        );
    }
    for side in Side::BOTH {
        for host in side.hosts() {
            let (mac, port) = (mac(side.host_mac()), side.port());
            let _ = writeln!(
                text,
                "[[neighbour]]\naddress = \"{host}\"\nmac = \"{mac}\"\nport = \"{port}\"\n"
            );
        }
    }
    // A small table, as it is made anew for each of many runs.
    text.push_str("[conntrack]\nhashsize = 1024\n");
    if spread.logs {
        text.push_str("log_invalid = 255\n");
    }
    let of_ipfrag = |name: &str| name.strip_prefix("ipfrag_").map(str::to_owned);
    for (name, value) in setup.settings.iter().filter(|(name, _)| of_ipfrag(name).is_none()) {
        let _ = writeln!(text, "{name} = {value}");
    }
    text.push_str("\n[ipfrag]\n");
    for (name, value) in setup.settings.iter().filter_map(|(n, v)| Some((of_ipfrag(n)?, v))) {
        let _ = writeln!(text, "{name} = {value}");
    }
    text
}

struct CaptureWire<'a> {
    replay: &'a Replay,
    now: Duration,
    sent: Vec<(Duration, Side, Vec<u8>)>,
    /// When each step began.
    steps: Vec<Duration>,
    /// What came out of the last run, and when.
    emitted: Vec<(Duration, Emitted)>,
    /// What the last run said of INVALID packets.
    said: Vec<String>,
    /// How many steps the last run had.
    covered: usize,
}

impl Wire for CaptureWire<'_> {
    fn send(&mut self, side: Side, frames: Vec<Vec<u8>>) {
        self.steps.push(self.now);
        self.sent.extend(frames.into_iter().map(|frame| (self.now, side, frame)));
        self.now += STEP;
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    fn emitted(&mut self, step: usize) -> Vec<Emitted> {
        if step >= self.covered {
            self.replay();
        }
        let from = self.steps[step];
        let to = self.steps.get(step + 1).copied().unwrap_or(Duration::MAX);
        let of_step = self.emitted.iter().filter(|(at, _)| (from..to).contains(at));
        of_step.map(|(_, emitted)| emitted.clone()).collect()
    }

    /// The table at the end of the capture, so a last frame that changes nothing brings the
    /// capture's clock to now.
    fn table(&mut self) -> String {
        self.sent.push((self.now, Side::Lan, Side::Lan.arp_request()));
        let table = self.replay();
        self.now += STEP;
        table
    }

    fn said(&mut self) -> Option<Vec<String>> {
        self.replay.spread.logs.then(|| self.said.clone())
    }
}

impl CaptureWire<'_> {
    /// Runs the capture as it is now and returns the table at its end.
    fn replay(&mut self) -> String {
        let Replayed { emitted, table, complaint } = self.replay.replay(&self.sent);
        self.emitted = emitted;
        self.said = complaint.lines().filter_map(sentence).map(str::to_owned).collect();
        self.covered = self.steps.len();
        table
    }
}

/// The sentence of a line that tracking or a helper writes, without what the packet's header says.
fn sentence(line: &str) -> Option<&str> {
    let from = line.get(line.find("nf_ct_")?..)?;
    from.split_once(" IN=").map(|(sentence, _)| sentence)
}

fn write_capture(path: &Path, frames: &[(Duration, Side, Vec<u8>)]) {
    let file = File::create(path).expect("the capture can be made");
    let mut writer = PcapNgWriter::new(file).expect("the capture can be written");
    for side in Side::BOTH {
        let options = vec![
            InterfaceDescriptionOption::IfName(Cow::Borrowed(side.port())),
            InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
        ];
        let block = InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen: 0, options };
        writer.write_block(&block.into_block()).expect("the capture can be written");
    }
    for (timestamp, side, frame) in frames {
        let block = EnhancedPacketBlock {
            interface_id: *side as u32,
            timestamp: *timestamp,
            original_len: frame.len() as u32,
            data: Cow::Borrowed(frame),
            options: Vec::new(),
        };
        writer.write_block(&block.into_block()).expect("the capture can be written");
    }
}

/// The frames of a capture with their times, in order; chatter is left out.
fn read_capture(path: &Path) -> Vec<(Duration, Emitted)> {
    let file = File::open(path).expect("the replay wrote its capture");
    let mut reader = PcapNgReader::new(file).expect("the replay wrote pcapng");
    let mut interfaces = Vec::new();
    let mut frames = Vec::new();
    while let Some(block) = reader.next_block() {
        match block.expect("the replay wrote whole blocks") {
            Block::InterfaceDescription(block) => interfaces.push(interface(&block.options)),
            Block::EnhancedPacket(block) => {
                let (side, unit_ns) = interfaces[block.interface_id as usize];
                // pcap-file hands out the raw number as if it were nanoseconds.
                let at = block.timestamp * unit_ns;
                let frame = block.data.into_owned();
                if !is_chatter(&frame) {
                    frames.push((at, Emitted { side, frame }));
                }
            }
            _ => {}
        }
    }
    frames
}

/// The side an interface stands for and the unit of its timestamps in nanoseconds.
fn interface(options: &[InterfaceDescriptionOption<'_>]) -> (Side, u32) {
    let mut side = None;
    let mut unit_ns = 1000;
    for option in options {
        match option {
            InterfaceDescriptionOption::IfName(name) => {
                side = Side::BOTH.into_iter().find(|side| side.port() == name);
            }
            InterfaceDescriptionOption::IfTsResol(power) if *power <= NANOSECONDS => {
                unit_ns = 10u32.pow(u32::from(NANOSECONDS - power));
            }
            InterfaceDescriptionOption::IfTsResol(power) => panic!("timestamp unit {power}"),
            _ => {}
        }
    }
    (side.expect("interfaces have the names of ports"), unit_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_is_read_as_it_was_written() {
        let replay = Replay::new(SPREADS[0]);
        let path = replay.folder.join("a.pcapng");
        let frame = Side::Wan.framed(&[0x45, 0, 0]);
        let later = START + Duration::from_millis(2005);
        let arp = (START, Side::Lan, Side::Lan.arp_request());
        write_capture(&path, &[arp, (later, Side::Wan, frame.clone())]);
        let read = read_capture(&path);
        assert_eq!(read.len(), 1);
        assert_eq!((read[0].0, read[0].1.side, &read[0].1.frame), (later, Side::Wan, &frame));
    }

    #[test]
    fn the_configuration_is_toml_with_both_ports() {
        let (rules4, rules6) = (String::new(), String::new());
        let setup = Setup { rules4, rules6, settings: &[("tcp_loose", 0)], wan_mtu: 1400 };
        let table: toml::Table = configuration(&setup, SPREADS[2]).parse().expect("valid TOML");
        assert_eq!(table["port"].as_array().map(Vec::len), Some(2));
        assert_eq!(table["neighbour"].as_array().map(Vec::len), Some(16));
        assert_eq!(table["conntrack"]["tcp_loose"].as_integer(), Some(0));
        assert_eq!(table["port"][1]["rx_queues"].as_integer(), Some(2));
        assert_eq!(table["eal"]["worker_cores"].as_array().map(Vec::len), Some(2));
    }

    /// A program that lets every frame out where it came in stands for the gateway.
    #[test]
    fn a_script_sees_what_came_out_of_each_step() {
        use std::os::unix::fs::PermissionsExt;
        let mut replay = Replay::new(SPREADS[0]);
        replay.write("mirror", "#!/bin/sh\ncp \"$6\" \"$8\"\necho 'udp 17 29 src=10.1.0.11'\n");
        replay.program = replay.folder.join("mirror");
        let executable = fs::Permissions::from_mode(0o700);
        fs::set_permissions(&replay.program, executable).expect("it can be made executable");
        let mut wire = CaptureWire {
            replay: &replay,
            now: START,
            sent: Vec::new(),
            steps: Vec::new(),
            emitted: Vec::new(),
            said: Vec::new(),
            covered: 0,
        };
        let frames = [1, 2].map(|byte| Side::Lan.framed(&[0x45, byte]));
        wire.send(Side::Lan, vec![frames[0].clone()]);
        assert_eq!(wire.emitted(0)[0].frame, frames[0]);
        wire.wait(Duration::from_secs(3));
        assert_eq!(wire.table(), "udp 17 29 src=10.1.0.11\n");
        wire.send(Side::Wan, vec![frames[1].clone(), frames[0].clone()]);
        let second = wire.emitted(1);
        assert_eq!(second.iter().map(|out| out.side).collect::<Vec<_>>(), [Side::Wan; 2]);
        assert_eq!(second[0].frame, frames[1]);
        assert_eq!(wire.emitted(0).len(), 1);
        assert_eq!(wire.sent[1].0, START + STEP + Duration::from_secs(3));
    }
}
