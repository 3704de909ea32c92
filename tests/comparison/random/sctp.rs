//! Random SCTP: an association as both hosts mean it, with what goes wrong on the way.

use super::dice::Dice;
use super::plan::{Body, Draft, Fault};
use crate::packets::{chunk, init};

/// How far an association has come, as its hosts see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    InitSent,
    InitAcked,
    CookieEchoed,
    Open,
    /// The host that ends it has said SHUTDOWN.
    ShutdownSent(usize),
    ShutdownAcked(usize),
    Gone,
}

/// Both ends of a flow. The client is the first.
pub struct Association {
    flow: usize,
    phase: Phase,
    /// The verification tag that packets to each host carry.
    tags: [u32; 2],
    /// Whether a wrong CRC may be drawn.
    damages: bool,
    earlier: Vec<Draft>,
}

const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const SACK: u8 = 3;
const HEARTBEAT: u8 = 4;
const HEARTBEAT_ACK: u8 = 5;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const ERROR: u8 = 9;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;

/// Chunk types that no host would send now, those with a meaning more often.
const KINDS: [(u64, u8); 20] = [
    (4, DATA),
    (6, INIT),
    (6, INIT_ACK),
    (2, SACK),
    (5, HEARTBEAT),
    (5, HEARTBEAT_ACK),
    (5, ABORT),
    (4, SHUTDOWN),
    (4, SHUTDOWN_ACK),
    (2, ERROR),
    (5, COOKIE_ECHO),
    (5, COOKIE_ACK),
    (1, 12),
    (1, 13),
    (5, SHUTDOWN_COMPLETE),
    (1, 15),
    (1, 64),
    (1, 130),
    (1, 192),
    (1, 255),
];

impl Association {
    pub fn new(flow: usize, damages: bool, dice: &mut Dice) -> Association {
        let tags = [tag(dice), tag(dice)];
        Association { flow, phase: Phase::Closed, tags, damages, earlier: Vec::new() }
    }

    /// The next packet of this flow.
    pub fn next(&mut self, dice: &mut Dice) -> Draft {
        let mut draft = match dice.below(100) {
            0..=9 if !self.earlier.is_empty() => {
                let last = self.earlier.len() as u64 - 1;
                let at = if dice.percent(60) { last } else { dice.below(last + 1) };
                self.earlier[at as usize].clone()
            }
            10..=29 => self.odd(dice),
            _ => self.sound(dice),
        };
        if dice.percent(5) {
            let wrong = if self.damages { Fault::Checksum } else { Fault::Header };
            let cut = Fault::Cut(dice.pick(&[24, 30, 32, 34, 36, 44, 48, 54, 60]));
            draft.fault = dice.pick(&[wrong, wrong, Fault::Header, cut, Fault::Ttl(1)]);
        } else {
            self.earlier.push(draft.clone());
        }
        draft
    }

    fn packet(&self, by: usize, tag: u32, chunks: Vec<Vec<u8>>) -> Draft {
        let body = Body::Sctp { tag, chunks };
        Draft { flow: self.flow, from_client: by == 0, body, fault: Fault::None }
    }

    /// A packet with the tag that its receiver expects.
    fn tagged(&self, by: usize, chunks: Vec<Vec<u8>>) -> Draft {
        self.packet(by, self.tags[1 - by], chunks)
    }

    /// A packet as the hosts would send it now.
    fn sound(&mut self, dice: &mut Dice) -> Draft {
        match self.phase {
            Phase::Closed => self.begin(dice),
            Phase::InitSent => match dice.below(20) {
                // Nobody listens.
                0 => {
                    self.phase = Phase::Gone;
                    self.packet(1, self.tags[0], vec![chunk(ABORT, 1, &[])])
                }
                // Both begin.
                1 => self.packet(1, 0, vec![init(INIT, self.tags[1])]),
                _ => {
                    self.phase = Phase::InitAcked;
                    self.tagged(1, vec![init(INIT_ACK, self.tags[1])])
                }
            },
            Phase::InitAcked => {
                self.phase = Phase::CookieEchoed;
                self.with_data(0, chunk(COOKIE_ECHO, 0, b"cookie"), dice)
            }
            Phase::CookieEchoed => match dice.below(20) {
                // A stale cookie.
                0 => {
                    self.phase = Phase::Closed;
                    self.tagged(1, vec![chunk(ERROR, 0, &[0, 3, 0, 8, 0, 0, 0, 9])])
                }
                _ => {
                    self.phase = Phase::Open;
                    self.with_data(1, chunk(COOKIE_ACK, 0, &[]), dice)
                }
            },
            Phase::Open => self.talk(dice),
            Phase::ShutdownSent(by) => match dice.below(5) {
                0 => self.tagged(1 - by, vec![data(dice)]),
                1 => self.tagged(by, vec![chunk(SHUTDOWN, 0, &[0; 4])]),
                _ => {
                    self.phase = Phase::ShutdownAcked(by);
                    self.tagged(1 - by, vec![chunk(SHUTDOWN_ACK, 0, &[])])
                }
            },
            Phase::ShutdownAcked(by) => {
                self.phase = Phase::Gone;
                // With the T bit the tag is the sender's own.
                match dice.percent(20) {
                    true => self.packet(by, self.tags[by], vec![chunk(SHUTDOWN_COMPLETE, 1, &[])]),
                    false => self.tagged(by, vec![chunk(SHUTDOWN_COMPLETE, 0, &[])]),
                }
            }
            Phase::Gone => match dice.below(4) {
                0 => self.tagged(dice.below(2) as usize, vec![data(dice)]),
                _ => self.again(0, dice),
            },
        }
    }

    fn begin(&mut self, dice: &mut Dice) -> Draft {
        match dice.below(20) {
            // A second path, or the middle of an association.
            0 | 1 => {
                self.phase = Phase::Open;
                self.tagged(0, vec![chunk(HEARTBEAT, 0, &[7; 8])])
            }
            2 => {
                self.phase = Phase::Open;
                self.tagged(dice.below(2) as usize, vec![data(dice)])
            }
            _ => {
                self.phase = Phase::InitSent;
                self.packet(0, 0, vec![init(INIT, self.tags[0])])
            }
        }
    }

    /// The same ports once more: with other tags, or the old ones.
    fn again(&mut self, by: usize, dice: &mut Dice) -> Draft {
        if dice.percent(80) {
            self.tags = [tag(dice), tag(dice)];
        }
        self.phase = if by == 0 { Phase::InitSent } else { Phase::Open };
        self.packet(by, 0, vec![init(INIT, self.tags[by])])
    }

    fn talk(&mut self, dice: &mut Dice) -> Draft {
        let by = dice.below(2) as usize;
        match dice.below(20) {
            0..=7 => self.with_data(by, chunk(SACK, 0, &[0; 12]), dice),
            8..=10 => self.tagged(by, vec![data(dice)]),
            11 | 12 => self.tagged(by, vec![chunk(HEARTBEAT, 0, &[7; 8])]),
            13 | 14 => self.tagged(by, vec![chunk(HEARTBEAT_ACK, 0, &[7; 8])]),
            15 => {
                self.phase = Phase::Gone;
                match dice.percent(50) {
                    true => self.packet(by, self.tags[by], vec![chunk(ABORT, 1, &[])]),
                    false => self.tagged(by, vec![chunk(ABORT, 0, &[])]),
                }
            }
            16 => self.again(by, dice),
            _ => {
                self.phase = Phase::ShutdownSent(by);
                self.tagged(by, vec![chunk(SHUTDOWN, 0, &[0; 4])])
            }
        }
    }

    /// A chunk, now and then with data behind it.
    fn with_data(&self, by: usize, first: Vec<u8>, dice: &mut Dice) -> Draft {
        let mut chunks = vec![first];
        if dice.percent(40) {
            chunks.push(data(dice));
        }
        self.tagged(by, chunks)
    }

    /// A packet that no host would send now.
    fn odd(&mut self, dice: &mut Dice) -> Draft {
        let by = dice.below(2) as usize;
        let tag = dice.weighted(&[
            (6, self.tags[1 - by]),
            (2, self.tags[by]),
            (2, 0),
            (1, 7),
            (1, self.tags[1 - by].wrapping_add(1)),
        ]);
        let count = dice.weighted(&[(7, 1), (2, 2), (1, 0), (1, 3)]);
        let mut chunks: Vec<Vec<u8>> = (0..count).map(|_| self.any_chunk(by, dice)).collect();
        if let Some(last) = chunks.last_mut()
            && dice.percent(15)
        {
            match dice.below(3) {
                // A length that is not the chunk's: too short to be one, too long, a little off.
                0 => last[2..4].copy_from_slice(&dice.pick(&[0u16, 1, 3, 4, 4000]).to_be_bytes()),
                1 => last[3] = last[3].wrapping_add(dice.pick(&[1, 2, 4, 255])),
                _ => last.truncate(dice.pick(&[1, 3, 4, 8])),
            }
        }
        self.packet(by, tag, chunks)
    }

    fn any_chunk(&self, by: usize, dice: &mut Dice) -> Vec<u8> {
        let kind = dice.weighted(&KINDS);
        let flags = dice.weighted(&[(4, 0), (1, 1)]);
        match kind {
            DATA => data_of(dice.pick(&LENGTHS[..4])),
            INIT | INIT_ACK => {
                let told = dice.weighted(&[(6, self.tags[by]), (2, 0), (2, 0x5555), (1, 0x6666)]);
                init(kind, told)
            }
            _ => chunk(kind, flags, dice.pick(&[&[][..], &[0; 4], &[0; 8], &[1; 16]])),
        }
    }
}

/// A verification tag; nought is none.
fn tag(dice: &mut Dice) -> u32 {
    dice.between(1, 0xffff_ffff) as u32
}

/// Bytes of data in a chunk. Three chunks of 300 still fit a frame, and one of 1200 beside others.
const LENGTHS: [usize; 5] = [1, 5, 40, 300, 1200];

fn data(dice: &mut Dice) -> Vec<u8> {
    let length = dice.pick(&LENGTHS);
    data_of(length)
}

/// TSN, stream and payload protocol, then bytes.
fn data_of(length: usize) -> Vec<u8> {
    let mut value = vec![0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    value.extend((0..length).map(|at| at as u8));
    chunk(DATA, 3, &value)
}
