//! Random TCP: the life of a conn as both hosts mean it, with what goes wrong on the way.

use super::dice::Dice;
use super::plan::{Body, Draft, Fault};

/// How far a conn has come, as its hosts see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    SynSent,
    SynReceived,
    Open,
    Closing,
    Gone,
}

/// One end; `next` is the sequence number of the next byte it sends.
#[derive(Clone, Copy, Debug, Default)]
struct Host {
    next: u32,
    window: u16,
    finished: bool,
}

/// Both ends of a flow. The client is the first.
pub struct Tcp {
    flow: usize,
    phase: Phase,
    hosts: [Host; 2],
    /// Whether both sides send time stamps.
    stamps: bool,
    /// Whether a checksum of zero shows a number that a device chose.
    shows: bool,
    earlier: Vec<Draft>,
}

/// Flags that a segment may carry, sound ones more often.
const FLAGS: [(u64, &str); 24] = [
    (4, "S"),
    (4, "SA"),
    (8, "A"),
    (6, "PA"),
    (5, "FA"),
    (5, "R"),
    (5, "RA"),
    (1, "F"),
    (1, ""),
    (1, "P"),
    (1, "SF"),
    (1, "SR"),
    (1, "FR"),
    (1, "FRA"),
    (1, "FPU"),
    (1, "SP"),
    (1, "SPA"),
    (1, "AU"),
    (1, "FPAU"),
    (1, "RPA"),
    (1, "SEC"),
    (1, "SAE"),
    (1, "AEC"),
    (1, "FSRPAUEC"),
];

const NO_OPERATION: u8 = 1;

impl Tcp {
    pub fn new(flow: usize, shows: bool, dice: &mut Dice) -> Tcp {
        let mut host = || Host {
            next: dice
                .pick(&[1000u32, 5000, 0xffff_fff0, 0x7fff_ff00, 0])
                .wrapping_add(dice.pick(&[0, 7])),
            window: dice.pick(&[8192, 65535, 1000, 300]),
            finished: false,
        };
        let hosts = [host(), host()];
        let (phase, stamps) = (Phase::Closed, dice.percent(20));
        Tcp { flow, phase, hosts, stamps, shows, earlier: Vec::new() }
    }

    /// The next segment of this flow.
    pub fn next(&mut self, dice: &mut Dice) -> Draft {
        let mut draft = match dice.below(100) {
            0..=13 if !self.earlier.is_empty() => {
                let last = self.earlier.len() as u64 - 1;
                let at = if dice.percent(60) { last } else { dice.below(last + 1) };
                self.earlier[at as usize].clone()
            }
            14..=35 => self.odd(dice),
            _ => self.sound(dice),
        };
        if dice.percent(5) {
            let zero = if self.shows { Fault::Checksum } else { Fault::ZeroChecksum };
            draft.fault = dice.pick(&[
                Fault::Checksum,
                Fault::Header,
                Fault::Cut(30),
                Fault::Offset(4),
                Fault::Offset(15),
                Fault::Ttl(1),
                zero,
            ]);
        } else {
            self.earlier.push(draft.clone());
        }
        draft
    }

    fn draft(&self, by: usize, body: Body) -> Draft {
        Draft { flow: self.flow, from_client: by == 0, body, fault: Fault::None }
    }

    /// A segment as the hosts would send it now.
    fn sound(&mut self, dice: &mut Dice) -> Draft {
        match self.phase {
            Phase::Closed => self.begin(dice),
            Phase::SynSent => match dice.below(10) {
                0 => {
                    self.phase = Phase::Gone;
                    self.segment(1, "RA", 0, 0, dice)
                }
                1 => self.syn(1, "S", dice),
                _ => {
                    self.phase = Phase::SynReceived;
                    self.hosts[0].next = self.hosts[0].next.wrapping_add(1);
                    let draft = self.syn(1, "SA", dice);
                    self.hosts[1].next = self.hosts[1].next.wrapping_add(1);
                    draft
                }
            },
            Phase::SynReceived => {
                self.phase = Phase::Open;
                self.segment(0, "A", 0, 0, dice)
            }
            Phase::Open => self.talk(dice),
            Phase::Closing => self.finish(dice),
            Phase::Gone => match dice.below(4) {
                0 => self.segment(dice.below(2) as usize, "A", 0, 0, dice),
                1 => self.segment(dice.below(2) as usize, "R", 0, 0, dice),
                _ => self.again(dice),
            },
        }
    }

    fn begin(&mut self, dice: &mut Dice) -> Draft {
        match dice.below(20) {
            0 | 1 => {
                self.phase = Phase::Open;
                let length = dice.pick(&[0, 10, 500]);
                self.segment(dice.below(2) as usize, "PA", 0, length, dice)
            }
            2 => {
                self.phase = Phase::SynReceived;
                self.syn(1, "SA", dice)
            }
            _ => {
                self.phase = Phase::SynSent;
                self.syn(0, "S", dice)
            }
        }
    }

    /// The same ports once more, with new sequence numbers.
    fn again(&mut self, dice: &mut Dice) -> Draft {
        for host in &mut self.hosts {
            let step = dice.pick(&[1_000_000, 1, 0, 0u32.wrapping_sub(100_000)]);
            *host = Host { next: host.next.wrapping_add(step), finished: false, ..*host };
        }
        self.phase = Phase::SynSent;
        self.syn(0, "S", dice)
    }

    fn talk(&mut self, dice: &mut Dice) -> Draft {
        let by = dice.below(2) as usize;
        match dice.below(20) {
            0..=8 => {
                let length = dice.pick(&[1, 10, 100, 300, 1000, 1300]);
                self.segment(by, if dice.percent(70) { "PA" } else { "A" }, 0, length, dice)
            }
            9..=12 => self.segment(by, "A", 0, 0, dice),
            13 => {
                self.hosts[by].window = dice.pick(&[0, 1, 100, 1000, 8192, 65535]);
                self.segment(by, "A", 0, 0, dice)
            }
            14 => self.selective(by, dice),
            // Keep-alive.
            15 => self.segment(by, "A", u32::MAX, dice.pick(&[0, 1]), dice),
            16 => {
                self.phase = Phase::Gone;
                self.segment(by, if dice.percent(50) { "R" } else { "RA" }, 0, 0, dice)
            }
            _ => {
                self.phase = Phase::Closing;
                self.fin(by, dice)
            }
        }
    }

    fn finish(&mut self, dice: &mut Dice) -> Draft {
        let open = self.hosts.iter().position(|host| !host.finished);
        match (open, dice.below(10)) {
            (Some(by), 0..=4) => self.fin(by, dice),
            (Some(by), 5) => {
                let length = dice.pick(&[10, 300]);
                self.segment(by, "PA", 0, length, dice)
            }
            (_, 6) => {
                self.phase = Phase::Gone;
                self.segment(dice.below(2) as usize, "R", 0, 0, dice)
            }
            (None, 0..=2) => {
                self.phase = Phase::Gone;
                self.segment(dice.below(2) as usize, "A", 0, 0, dice)
            }
            _ => self.segment(dice.below(2) as usize, "A", 0, 0, dice),
        }
    }

    fn fin(&mut self, by: usize, dice: &mut Dice) -> Draft {
        let length = dice.pick(&[0, 0, 10]);
        let draft = self.segment(by, "FA", 0, length, dice);
        if !self.hosts[by].finished {
            self.hosts[by].next = self.hosts[by].next.wrapping_add(1);
        }
        self.hosts[by].finished = true;
        draft
    }

    /// A segment of `by`, `offset` away from where it should begin; data moves its sender on.
    fn segment(
        &mut self,
        by: usize,
        flags: &'static str,
        offset: u32,
        length: usize,
        dice: &mut Dice,
    ) -> Draft {
        let (own, other) = (self.hosts[by], self.hosts[1 - by]);
        let sequence = own.next.wrapping_add(offset);
        let ack = if flags.contains('A') { other.next } else { 0 };
        if offset == 0 && !own.finished {
            self.hosts[by].next = sequence.wrapping_add(length as u32);
        }
        let options = if self.stamps { stamp(dice) } else { Vec::new() };
        let window = own.window;
        self.draft(by, Body::Tcp { flags, sequence, ack, window, options, length })
    }

    /// An acknowledgement with SACK blocks ahead of it.
    fn selective(&mut self, by: usize, dice: &mut Dice) -> Draft {
        let mut draft = self.segment(by, "A", 0, 0, dice);
        if let Body::Tcp { options, ack, .. } = &mut draft.body {
            options.clear();
            let blocks = dice.between(1, 3);
            options.extend([NO_OPERATION, NO_OPERATION, 5, 2 + 8 * blocks as u8]);
            for _ in 0..blocks {
                let left = ack.wrapping_add(dice.pick(&[0, 100, 1000, 20_000, u32::MAX - 10]));
                options.extend(left.to_be_bytes());
                options.extend(left.wrapping_add(dice.pick(&[0, 10, 1400])).to_be_bytes());
            }
        }
        draft
    }

    fn syn(&mut self, by: usize, flags: &'static str, dice: &mut Dice) -> Draft {
        let (own, other) = (self.hosts[by], self.hosts[1 - by]);
        let mut options = Vec::new();
        if dice.percent(80) {
            options.extend([2, 4, 5, 0xb4]);
        }
        if dice.percent(60) {
            options.extend([NO_OPERATION, NO_OPERATION, 4, 2]);
        }
        if dice.percent(60) {
            options.extend([NO_OPERATION, 3, 3, dice.pick(&[0, 1, 2, 7, 14, 15, 200])]);
        }
        if self.stamps {
            options.extend(stamp(dice));
        }
        if dice.percent(4) {
            // An option that says it is longer than it can be, or of length nought.
            options.extend([dice.pick(&[3, 4, 5, 99]), dice.pick(&[0, 1, 40]), 0, 0]);
        }
        let length = if dice.percent(5) { 20 } else { 0 };
        let ack = if flags.contains('A') { other.next } else { 0 };
        let window = own.window;
        let sequence = own.next;
        self.draft(by, Body::Tcp { flags, sequence, ack, window, options, length })
    }

    /// A segment that no host would send now.
    fn odd(&mut self, dice: &mut Dice) -> Draft {
        let by = dice.below(2) as usize;
        let (own, other) = (self.hosts[by], self.hosts[1 - by]);
        let far = [
            (6, 0),
            (2, 1),
            (2, u32::MAX),
            (2, 100),
            (2, 0u32.wrapping_sub(100)),
            (1, u32::from(other.window)),
            (1, u32::from(other.window) + 1),
            (1, 0u32.wrapping_sub(70_000)),
            (1, 70_000),
            (1, 0x7fff_ffff),
            (1, 0x8000_0000),
        ];
        let flags = dice.weighted(&FLAGS);
        let sequence = own.next.wrapping_add(dice.weighted(&far));
        let ack = if flags.contains('A') || dice.percent(10) {
            other.next.wrapping_add(dice.weighted(&far))
        } else {
            0
        };
        if flags.contains('S') && dice.percent(50) {
            let mut draft = self.syn(by, flags, dice);
            if let Body::Tcp { sequence: sent, ack: acked, .. } = &mut draft.body {
                (*sent, *acked) = (sequence, ack);
            }
            return draft;
        }
        let length = dice.pick(&[0, 0, 0, 1, 100, 1300]);
        let window = dice.pick(&[own.window, 0, 65535]);
        let options = if self.stamps { stamp(dice) } else { Vec::new() };
        self.draft(by, Body::Tcp { flags, sequence, ack, window, options, length })
    }
}

/// The time stamp option, aligned as hosts do it.
fn stamp(dice: &mut Dice) -> Vec<u8> {
    let mut option = vec![NO_OPERATION, NO_OPERATION, 8, 10, 0, 0, 1];
    option.push(dice.below(4) as u8);
    option.extend([0, 0, 2, dice.below(4) as u8]);
    option
}
