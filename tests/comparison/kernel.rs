//! The kernel of this machine as a device: the referee.
//!
//! Packets go in over packet sockets. Behind each step an ARP question is sent on both sides, one
//! after the other: once both are answered the kernel has worked off what was sent before, so a
//! packet that is dropped costs a few milliseconds and no guess at a timeout.

use crate::netns::{Netns, PacketSocket};
use crate::nflog::{Message, NfLog};
use crate::script::{Device, Emitted, Script, Sequence, Setup, Transcript, Wire};
use crate::topology::Side;
use std::time::{Duration, Instant};

/// How long the wires have to be silent behind the answered questions.
const QUIET_MS: u8 = 2;
/// An unanswered question means that the bench is broken.
const FENCE_LIMIT: Duration = Duration::from_secs(20);

/// A namespace with the kernel's connection tracking in it.
pub struct Kernel {
    netns: Netns,
    /// By side.
    sockets: [PacketSocket; 2],
    log: NfLog,
    /// What is loaded at the moment.
    setup: Option<Setup>,
}

impl Kernel {
    /// Builds the bench; panics with a clear message if this machine cannot have one.
    pub fn new() -> Kernel {
        let netns = Netns::create();
        let sockets = Side::BOTH.map(|side| netns.socket(side));
        let log = netns.log();
        Kernel { netns, sockets, log, setup: None }
    }

    /// Loads rules and MTU, and empties the table.
    pub fn prepare(&mut self, setup: &Setup) {
        let loaded = self.setup.take();
        let before = loaded.as_ref();
        if before.is_none_or(|before| before.rules4 != setup.rules4) {
            self.netns.gateway("iptables-restore", &setup.rules4);
        }
        if before.is_none_or(|before| before.rules6 != setup.rules6) {
            self.netns.gateway("ip6tables-restore", &setup.rules6);
        }
        if before.map_or(1500, |before| before.wan_mtu) != setup.wan_mtu {
            self.netns.gateway(&format!("ip link set wan mtu {}", setup.wan_mtu), "");
        }
        self.netns.gateway("conntrack -F", "");
        self.setup = Some(setup.clone());
    }

    /// Sets the sequence's settings and returns the values they had.
    pub fn set(&self, settings: &[(&str, u32)]) -> Vec<(String, String)> {
        let set = |(name, value): &(&str, u32)| {
            let name = match name.starts_with("ipfrag_") {
                true => format!("net.ipv4.{name}"),
                false => format!("net.netfilter.nf_conntrack_{name}"),
            };
            let before = self.netns.gateway(&format!("sysctl -n {name}"), "").trim().to_owned();
            self.netns.gateway(&format!("sysctl -qw {name}={value}"), "");
            (name, before)
        };
        settings.iter().map(set).collect()
    }

    /// Puts back what [`Kernel::set`] returned.
    pub fn reset(&self, before: Vec<(String, String)>) {
        for (name, value) in before {
            self.netns.gateway(&format!("sysctl -qw {name}={value}"), "");
        }
    }

    /// Runs a program in the gateway's namespace.
    pub fn gateway(&self, command: &str, input: &str) -> String {
        self.netns.gateway(command, input)
    }

    /// The same for a program that may fail: its complaint.
    pub fn try_gateway(&self, command: &str, input: &str) -> Result<String, String> {
        self.netns.try_gateway(command, input)
    }

    /// What was logged since the last time.
    pub fn logged(&self) -> Vec<Message> {
        self.log.messages()
    }

    /// Sends frames and returns what came out because of them.
    pub fn exchange(&self, frames: &[(Side, Vec<u8>)]) -> Vec<Emitted> {
        for (side, frame) in frames {
            self.sockets[*side as usize].send(frame);
        }
        self.collect()
    }

    /// `conntrack -L` of both families.
    pub fn table(&self) -> String {
        let list = |family| format!("conntrack -L -f {family}");
        self.netns.gateway(&list("ipv4"), "") + &self.netns.gateway(&list("ipv6"), "")
    }

    /// Everything that comes out before both questions are answered and the wires are quiet.
    fn collect(&self) -> Vec<Emitted> {
        let mut emitted = Vec::new();
        for side in Side::BOTH {
            self.sockets[side as usize].send(&side.arp_request());
            let start = Instant::now();
            while !self.receive(&mut emitted, side) {
                assert!(start.elapsed() < FENCE_LIMIT, "no ARP answer on {}", side.port());
                PacketSocket::wait(&self.sockets, 10);
            }
        }
        while PacketSocket::wait(&self.sockets, QUIET_MS) {
            self.receive(&mut emitted, Side::Lan);
        }
        emitted
    }

    /// Takes in what is there; true if the question asked on `fence` was answered.
    fn receive(&self, emitted: &mut Vec<Emitted>, fence: Side) -> bool {
        let mut answered = false;
        for side in Side::BOTH {
            while let Some(frame) = self.sockets[side as usize].receive() {
                if is_arp_reply(&frame) {
                    answered |= side == fence;
                } else if !is_chatter(&frame) {
                    emitted.push(Emitted { side, frame });
                }
            }
        }
        answered
    }
}

impl Device for Kernel {
    fn name(&self) -> &str {
        "kernel"
    }

    fn run(&mut self, sequence: &Sequence) -> Transcript {
        self.prepare(&sequence.setup);
        let before = self.set(sequence.setup.settings);
        let mut wire = LiveWire { kernel: self, steps: Vec::new() };
        wire.kernel.collect();
        wire.said();
        let transcript = Script::play(sequence, &mut wire);
        self.reset(before);
        transcript
    }
}

struct LiveWire<'a> {
    kernel: &'a Kernel,
    /// What came out, by step.
    steps: Vec<Vec<Emitted>>,
}

impl Wire for LiveWire<'_> {
    fn send(&mut self, side: Side, frames: Vec<Vec<u8>>) {
        let frames: Vec<_> = frames.into_iter().map(|frame| (side, frame)).collect();
        self.steps.push(self.kernel.exchange(&frames));
    }

    fn wait(&mut self, time: Duration) {
        std::thread::sleep(time);
        // What came out meanwhile belongs to what was sent before.
        let late = self.kernel.collect();
        if let Some(step) = self.steps.last_mut() {
            step.extend(late);
        }
    }

    fn emitted(&mut self, step: usize) -> Vec<Emitted> {
        self.steps[step].clone()
    }

    fn table(&mut self) -> String {
        self.kernel.table()
    }

    fn said(&mut self) -> Option<Vec<String>> {
        Some(self.kernel.log.lines())
    }
}

fn is_arp_reply(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[8, 6]) && frame.get(20..22) == Some(&[0, 2])
}

/// What a host says by itself: ARP questions, neighbour and router discovery, multicast reports.
pub fn is_chatter(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([8, 6]) => true,
        Some([0x86, 0xdd]) => {
            let multicast = frame.get(38) == Some(&0xff);
            let discovery = frame.get(20) == Some(&58)
                && frame.get(54).is_some_and(|kind| (133..=136).contains(kind));
            multicast || discovery
        }
        _ => false,
    }
}
