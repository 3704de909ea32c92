//! A sequence of packets, the device that runs it, and what is written down about it.
//!
//! A script is a function, because a later packet may depend on what came out before: the
//! translated port of one step is the destination port of the next. It speaks to a [`Wire`], which
//! a live device serves packet by packet and an offline device by running its capture again.
//! What happened becomes a [`Transcript`], in which nothing depends on the device's free choices.

use crate::learned::Learned;
use crate::listing::{self, Line};
use crate::packets::{self, Packet};
use crate::show;
use crate::topology::Side;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Rule files and settings under which a sequence runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Text for `iptables-restore` and `ip6tables-restore`; all four tables.
    pub rules4: String,
    pub rules6: String,
    /// `nf_conntrack_` settings without that prefix, and `ipfrag_` settings, where they differ from
    /// the default.
    pub settings: &'static [(&'static str, u32)],
    /// MTU of the port `wan`; that of `lan` is 1500.
    pub wan_mtu: u16,
}

/// One named sequence.
#[derive(Clone)]
pub struct Sequence {
    pub name: &'static str,
    /// One line: what it shows.
    pub shows: &'static str,
    pub setup: Setup,
    pub script: fn(&mut Script<'_>),
}

/// A frame that left the gateway.
#[derive(Clone, Debug)]
pub struct Emitted {
    pub side: Side,
    pub frame: Vec<u8>,
}

/// What a script needs of a device. Steps are numbered from 0.
pub trait Wire {
    /// Sends frames on one side: the next step.
    fn send(&mut self, side: Side, frames: Vec<Vec<u8>>);
    /// Lets time pass.
    fn wait(&mut self, time: Duration);
    /// The frames that came out because of a step.
    fn emitted(&mut self, step: usize) -> Vec<Emitted>;
    /// `conntrack -L` of both families as of now.
    fn table(&mut self) -> String;
    /// What `log_invalid` said of all packets so far, without what it says of their headers; `None`
    /// where it is switched off.
    fn said(&mut self) -> Option<Vec<String>>;
}

/// A device that can run sequences, each from an empty table.
pub trait Device {
    /// How reports call it.
    fn name(&self) -> &str;
    /// What keeps it from doing as the others in a sequence, if that is known.
    fn lacks(&self, _sequence: &str) -> Option<&str> {
        None
    }
    fn run(&mut self, sequence: &Sequence) -> Transcript;
}

/// What happened, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Packets in, and packets out of `lan` and `wan`.
    Step {
        side: Side,
        sent: Vec<String>,
        lan: Vec<String>,
        wan: Vec<String>,
    },
    Waited(Duration),
    Table(Vec<Line>),
}

/// The record of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript {
    pub events: Vec<Event>,
    /// What was said of INVALID packets.
    pub said: Option<Vec<String>>,
    /// Choices of the device that it was not free to make.
    pub violations: Vec<String>,
}

enum Note {
    Step { side: Side, frames: Vec<Vec<u8>> },
    Waited(Duration),
    Table(String),
}

/// The hand in which a script writes.
pub struct Script<'a> {
    wire: &'a mut dyn Wire,
    notes: Vec<Note>,
    /// The side of each step.
    steps: Vec<Side>,
    learned: Learned,
    /// Steps behind which the times that a segment on a side echoes are left out.
    unheard: Vec<(usize, Side)>,
}

impl<'a> Script<'a> {
    /// Runs a sequence on a wire and writes its transcript, with the table at the end.
    pub fn play(sequence: &Sequence, wire: &'a mut dyn Wire) -> Transcript {
        let learned = Learned::default();
        let (notes, steps, unheard) = (Vec::new(), Vec::new(), Vec::new());
        let mut script = Script { wire, notes, steps, learned, unheard };
        (sequence.script)(&mut script);
        if !matches!(script.notes.last(), Some(Note::Table(_))) {
            script.table();
        }
        script.transcript()
    }

    /// A packet from a host inside. Returns the number of the step.
    pub fn lan(&mut self, packet: Packet) -> usize {
        self.burst(Side::Lan, &[packet])
    }

    /// A packet from a host outside.
    pub fn wan(&mut self, packet: Packet) -> usize {
        self.burst(Side::Wan, &[packet])
    }

    /// Several packets as one step.
    pub fn burst(&mut self, side: Side, packets: &[Packet]) -> usize {
        self.frames(side, packets.iter().map(|packet| side.framed(&packet.bytes())).collect())
    }

    /// Frames as they are.
    pub fn frames(&mut self, side: Side, frames: Vec<Vec<u8>>) -> usize {
        self.wire.send(side, frames.clone());
        self.notes.push(Note::Step { side, frames });
        self.steps.push(side);
        self.steps.len() - 1
    }

    /// Lets time pass.
    pub fn wait_ms(&mut self, milliseconds: u64) {
        let time = Duration::from_millis(milliseconds);
        self.wire.wait(time);
        self.notes.push(Note::Waited(time));
    }

    /// Notes the connection table.
    pub fn table(&mut self) {
        let text = self.wire.table();
        self.notes.push(Note::Table(text));
    }

    /// The source address and port (or id) of the packet that left the other side in `step`: a
    /// choice of the device within `allowed`, called `name` from now on.
    pub fn learn(
        &mut self,
        step: usize,
        allowed: RangeInclusive<u16>,
        name: &str,
    ) -> (IpAddr, u16) {
        let side = self.steps[step].other();
        let emitted = self.wire.emitted(step);
        let found = emitted.iter().find(|out| out.side == side).and_then(|out| source(&out.frame));
        match found {
            Some((address, number)) => {
                self.learned.add(address, number, allowed, name);
                (address, number)
            }
            None => {
                let complaint = format!("{name}: nothing came out on {}", side.port());
                self.learned.violations.push(complaint);
                (IpAddr::from([192, 0, 2, 255]), 9)
            }
        }
    }

    /// The TCP segments that left a side because of a step, in order.
    pub fn segments(&mut self, step: usize, side: Side) -> Vec<Heard> {
        let emitted = self.wire.emitted(step);
        let on_side = emitted.iter().filter(|out| out.side == side);
        on_side.filter_map(|out| heard(&out.frame)).collect()
    }

    /// Calls a number of 32 bits that the device has chosen `name` from now on.
    pub fn call(&mut self, number: u32, name: &str) {
        self.learned.add_beginning(number, name);
    }

    /// Leaves out which time the segments echo that left a side because of a step; it has to be
    /// one of `allowed`.
    pub fn ignore_echo(&mut self, step: usize, side: Side, allowed: [u32; 2]) {
        for segment in self.segments(step, side) {
            if let Some((_, echo)) = segment.times
                && !allowed.contains(&echo)
            {
                self.complain(format!("the echo is {echo}, none of {allowed:?}"));
            }
        }
        self.unheard.push((step, side));
    }

    /// Notes something that must not be.
    pub fn complain(&mut self, complaint: String) {
        self.learned.violations.push(complaint);
    }

    fn transcript(self) -> Transcript {
        let Script { wire, notes, learned, unheard, .. } = self;
        let mut step = 0;
        let mut events = Vec::with_capacity(notes.len());
        for note in notes {
            events.push(match note {
                Note::Waited(time) => Event::Waited(time),
                Note::Table(text) => Event::Table(listing::parse(&text, &learned)),
                Note::Step { side, frames } => {
                    let emitted = wire.emitted(step);
                    let out = |side| -> Vec<String> {
                        let frames = emitted.iter().filter(|out| out.side == side);
                        let shown = |out: &Emitted| show::frame(&out.frame, &learned);
                        let frames = frames.map(shown);
                        match unheard.contains(&(step, side)) {
                            true => frames.map(|line| without_echo(&line)).collect(),
                            false => frames.collect(),
                        }
                    };
                    let (lan, wan) = (out(Side::Lan), out(Side::Wan));
                    step += 1;
                    let sent = frames.iter().map(|frame| show::frame(frame, &learned)).collect();
                    Event::Step { side, sent, lan, wan }
                }
            });
        }
        let said = wire.said().map(|lines| lines.into_iter().map(without_ticks).collect());
        Transcript { events, said, violations: learned.violations }
    }
}

/// A sentence that names a time does so in ticks, of which a second has as many as the kernel was
/// built for.
fn without_ticks(sentence: String) -> String {
    match sentence.split_once(" lower timeout to ") {
        Some((what, _)) => format!("{what} lower timeout"),
        None => sentence,
    }
}

/// A segment's line without the time that it echoes.
fn without_echo(line: &str) -> String {
    let Some((before, times)) = line.split_once("[080a ") else { return line.to_owned() };
    let value = times.split(' ').next().unwrap_or_default();
    let behind = times.split_once(']').map_or("", |(_, behind)| behind);
    format!("{before}[080a {value} _]{behind}")
}

/// A TCP segment as a host reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    /// TSval and TSecr.
    pub times: Option<(u32, u32)>,
}

fn heard(frame: &[u8]) -> Option<Heard> {
    let parts = show::layers(frame.get(14..)?)?;
    let header = parts.layer4.first_chunk::<20>().filter(|_| parts.protocol == packets::TCP)?;
    let number = |bytes: &[u8]| Some(u32::from_be_bytes(*bytes.first_chunk()?));
    let mut options = parts.layer4.get(20..usize::from(header[12] >> 4) * 4)?;
    let mut times = None;
    while let &[kind, length, ..] = options {
        let length = if kind < 2 { 1 } else { usize::from(length).max(2) };
        if kind == 8 {
            times = Some((number(options.get(2..)?)?, number(options.get(6..)?)?));
        }
        options = options.get(length..)?;
    }
    Some(Heard { flags: header[13], seq: number(&header[4..])?, ack: number(&header[8..])?, times })
}

/// Source address and port, or ICMP id, of a frame.
pub fn source(frame: &[u8]) -> Option<(IpAddr, u16)> {
    let parts = show::layers(frame.get(14..)?)?;
    let at = if matches!(parts.protocol, packets::ICMP | packets::ICMPV6) { 4 } else { 0 };
    let number = parts.layer4.get(at..at + 2)?;
    Some((parts.src, u16::from_be_bytes([number[0], number[1]])))
}

impl std::fmt::Display for Transcript {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for event in &self.events {
            writeln!(f, "{event}")?;
        }
        for line in self.said.iter().flatten() {
            writeln!(f, "  said {line}")?;
        }
        self.violations.iter().try_for_each(|violation| writeln!(f, "  VIOLATION {violation}"))
    }
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Event::Waited(time) => write!(f, "  wait {} ms", time.as_millis()),
            Event::Table(lines) => {
                write!(f, "  table: {} entries", lines.len())?;
                lines.iter().try_for_each(|line| write!(f, "\n      {line}"))
            }
            Event::Step { side, sent, lan, wan } => {
                write!(f, "  sent on {}:", side.port())?;
                sent.iter().try_for_each(|packet| write!(f, "\n      {packet}"))?;
                for (port, packets) in [("lan", lan), ("wan", wan)] {
                    packets
                        .iter()
                        .try_for_each(|packet| write!(f, "\n    {port} emits {packet}"))?;
                }
                if lan.is_empty() && wan.is_empty() {
                    write!(f, "\n    nothing")?;
                }
                Ok(())
            }
        }
    }
}
