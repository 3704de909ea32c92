//! The SCTP tracker (`nf_conntrack_proto_sctp.c`): states from chunks, verification tags.
//!
//! Pure: an [`SctpTrack`] is a value of two words that lies in the conn's record. A packet's chunks
//! are judged one after the other, and what the ones before a refused one did stays done, as in the
//! kernel. A tag is known per direction: what packets of that direction have to carry.
//!
//! ```text
//! w0   state (bits 0-7), INIT seen per direction (8, 9), heartbeat with a foreign tag (10), by the
//!      reply direction (11)
//! w1   tag of the original direction (upper half), of the reply direction
//! ```

use super::invalid::{InvalidReason, Numbers};
use super::state::Direction;
use super::tcp::Outcome;
use super::timeouts::Timeouts;
use crate::wire::sctp::{self, Chunk, FLAG_T, Header, chunk};
use crate::wire::source::Source;

/// A conn's state, seen from the middle (`enum sctp_conntrack`, same numbers and names).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SctpState {
    /// No packet judged yet.
    #[default]
    None = 0,
    /// Nothing but an INIT, or over.
    Closed = 1,
    /// INIT and INIT ACK.
    CookieWait = 2,
    /// COOKIE ECHO.
    CookieEchoed = 3,
    /// COOKIE ACK.
    Established = 4,
    /// SHUTDOWN from the original side.
    ShutdownSent = 5,
    /// SHUTDOWN from the reply side.
    ShutdownRecd = 6,
    /// SHUTDOWN ACK from the other side.
    ShutdownAckSent = 7,
    /// A HEARTBEAT began the conn: another path of an association.
    HeartbeatSent = 8,
}

use SctpState::{
    Closed as CL, CookieEchoed as CE, CookieWait as CW, Established as ES, HeartbeatSent as HS,
    None as NO, ShutdownAckSent as SA, ShutdownRecd as SR, ShutdownSent as SS,
};

impl SctpState {
    /// How many states there are.
    pub const COUNT: usize = 9;

    /// All of them, in the order of their numbers.
    pub const ALL: [SctpState; SctpState::COUNT] = [NO, CL, CW, CE, ES, SS, SR, SA, HS];

    /// The kernel's name, as `conntrack -L` prints it.
    pub const fn name(self) -> &'static str {
        match self {
            NO => "NONE",
            CL => "CLOSED",
            CW => "COOKIE_WAIT",
            CE => "COOKIE_ECHOED",
            ES => "ESTABLISHED",
            SS => "SHUTDOWN_SENT",
            SR => "SHUTDOWN_RECD",
            SA => "SHUTDOWN_ACK_SENT",
            HS => "HEARTBEAT_SENT",
        }
    }

    /// True once one side has asked to end: such a conn may go early although it is ASSURED
    /// (`sctp_can_early_drop`).
    pub const fn is_closing(self) -> bool {
        matches!(self, SS | SR | SA)
    }

    /// The state of a name.
    pub fn from_name(name: &str) -> Option<SctpState> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// The state in [`SctpTrack::to_words`]' first word.
    pub fn of_word(word: u64) -> SctpState {
        Self::ALL.get(word as u8 as usize).copied().unwrap_or_default()
    }
}

/// Where each state leads; `None` is invalid.
type Row = [Option<SctpState>; SctpState::COUNT];

const fn row(to: [SctpState; SctpState::COUNT]) -> Row {
    let mut row = [None; SctpState::COUNT];
    let mut at = 0;
    while at < SctpState::COUNT {
        row[at] = Some(to[at]);
        at += 1;
    }
    row
}

/// A row of the reply direction: nothing begins there, and the rightmost state has its own rule.
const fn reply(to: [SctpState; SctpState::COUNT - 2], heartbeat_sent: Option<SctpState>) -> Row {
    let [a, b, c, d, e, f, g] = to;
    [None, Some(a), Some(b), Some(c), Some(d), Some(e), Some(f), Some(g), heartbeat_sent]
}

/// Chunk types of the tables' rows; the others change no state.
const ROWS: [u8; 11] = [
    chunk::INIT,
    chunk::INIT_ACK,
    chunk::ABORT,
    chunk::SHUTDOWN,
    chunk::SHUTDOWN_ACK,
    chunk::ERROR,
    chunk::COOKIE_ECHO,
    chunk::COOKIE_ACK,
    chunk::SHUTDOWN_COMPLETE,
    chunk::HEARTBEAT,
    chunk::HEARTBEAT_ACK,
];

/// From NO, CL, CW, CE, ES, SS, SR, SA, HS.
const ORIGINAL: [Row; ROWS.len()] = [
    row([CL, CL, CW, CE, ES, CL, CL, SA, CW]),
    row([CL, CL, CW, CE, ES, SS, SR, SA, CL]),
    row([CL, CL, CL, CL, CL, CL, CL, CL, CL]),
    row([CL, CL, CW, CE, SS, SS, SR, SA, CL]),
    row([SA, CL, CW, CE, ES, SA, SA, SA, SA]),
    row([CL, CL, CW, CE, ES, SS, SR, SA, CL]),
    row([CL, CL, CE, CE, ES, SS, SR, SA, CL]),
    row([CL, CL, CW, ES, ES, SS, SR, SA, CL]),
    row([CL, CL, CW, CE, ES, SS, SR, CL, CL]),
    row([HS, CL, CW, CE, ES, SS, SR, SA, HS]),
    row([CL, CL, CW, CE, ES, SS, SR, SA, HS]),
];

/// From CL, CW, CE, ES, SS, SR, SA, and HS.
const REPLY: [Row; ROWS.len()] = [
    reply([CL, CW, CE, ES, SS, SR, SA], None),
    reply([CW, CW, CE, ES, SS, SR, SA], None),
    reply([CL, CL, CL, CL, CL, CL, CL], None),
    reply([CL, CW, CE, SR, SS, SR, SA], None),
    reply([CL, CW, CE, ES, SA, SA, SA], None),
    reply([CL, CW, CL, ES, SS, SR, SA], None),
    reply([CL, CE, CE, ES, SS, SR, SA], None),
    reply([CL, CW, ES, ES, SS, SR, SA], None),
    reply([CL, CW, CE, ES, SS, SR, CL], None),
    reply([CL, CW, CE, ES, SS, SR, SA], Some(HS)),
    reply([CL, CW, CE, ES, SS, SR, SA], Some(ES)),
];

/// Where a chunk leads (`sctp_new_state`); `None` is invalid.
pub fn step(direction: Direction, kind: u8, state: SctpState) -> Option<SctpState> {
    let Some(row) = ROWS.iter().position(|k| *k == kind) else { return Some(state) };
    let table = match direction {
        Direction::Original => &ORIGINAL,
        Direction::Reply => &REPLY,
    };
    table.get(row)?.get(state as usize).copied()?
}

/// Chunk types of one packet, those below 64: no others matter.
#[derive(Clone, Copy, Debug, Default)]
struct Kinds(u64);

impl Kinds {
    fn of(kinds: &[u8]) -> Kinds {
        kinds.iter().fold(Kinds::default(), |all, kind| all.with(*kind))
    }

    const fn with(self, kind: u8) -> Kinds {
        Kinds(if kind < 64 { self.0 | 1 << kind } else { self.0 })
    }

    fn any(self, kinds: &[u8]) -> bool {
        self.0 & Kinds::of(kinds).0 != 0
    }
}

/// May not be the first thing that is seen of a conn (RFC 9260 section 8.4).
const NEVER_FIRST: &[u8] = &[chunk::ABORT, chunk::SHUTDOWN_COMPLETE, chunk::COOKIE_ACK];

/// Chunks with a rule of their own about the tag.
const OWN_TAG_RULE: &[u8] = &[
    chunk::INIT,
    chunk::SHUTDOWN_COMPLETE,
    chunk::COOKIE_ECHO,
    chunk::ABORT,
    chunk::SHUTDOWN_ACK,
    chunk::HEARTBEAT,
    chunk::HEARTBEAT_ACK,
];

/// `do_basic_checks`: which chunks there are, if they may be together.
fn survey<S: Source + ?Sized>(packet: &S) -> Result<Kinds, InvalidReason> {
    let (mut kinds, mut alone, mut count) = (Kinds::default(), false, 0u32);
    for c in sctp::chunks(packet) {
        alone |= matches!(c.kind, chunk::INIT | chunk::INIT_ACK | chunk::SHUTDOWN_COMPLETE);
        let first = alone || matches!(c.kind, chunk::COOKIE_ACK | chunk::COOKIE_ECHO);
        if c.length == 0 || first && count > 0 {
            return Err(InvalidReason::SctpChunks);
        }
        kinds = kinds.with(c.kind);
        count += 1;
    }
    if count == 0 { Err(InvalidReason::SctpChunks) } else { Ok(kinds) }
}

/// What [`survey`] stumbled on.
fn misplaced<S: Source + ?Sized>(packet: &S) -> Numbers {
    let (mut alone, mut number) = (false, 0u16);
    for c in sctp::chunks(packet) {
        alone |= matches!(c.kind, chunk::INIT | chunk::INIT_ACK | chunk::SHUTDOWN_COMPLETE);
        let first = alone || matches!(c.kind, chunk::COOKIE_ACK | chunk::COOKIE_ECHO);
        if c.length == 0 || first && number > 0 {
            return Numbers::Chunk { number, kind: c.kind, length: c.length, alone };
        }
        number = number.saturating_add(1);
    }
    Numbers::None
}

/// What is known of a conn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SctpTrack {
    state: SctpState,
    /// The tag that packets of each direction carry; 0 is not known.
    tags: [u32; 2],
    /// An INIT of this direction waits for its INIT ACK.
    init: [bool; 2],
    /// A HEARTBEAT came with a tag that is not the conn's, in this direction.
    foreign_heartbeat: Option<Direction>,
}

/// What one packet's chunks share.
struct Sight {
    tag: u32,
    kinds: Kinds,
    direction: Direction,
    confirmed: bool,
}

/// What chunks have said so far.
#[derive(Clone, Copy, Debug, Default)]
struct Course {
    /// The state changed.
    changed: bool,
    /// ESTABLISHED was reached.
    assured: bool,
    /// The timer is left alone.
    ignore: bool,
}

impl SctpTrack {
    /// A conn's first packet: its words, and the timeout in seconds.
    ///
    /// # Errors
    /// `SctpChunks`, `SctpNew`, `SctpTag`, `SctpChunkTag`, `SctpInit`.
    pub fn first<S: Source + ?Sized>(
        packet: &S,
        timeouts: &Timeouts,
    ) -> Result<(SctpTrack, u32), InvalidReason> {
        let header = Header::read(packet).ok_or(InvalidReason::SctpShort)?;
        let kinds = survey(packet)?;
        if kinds.any(NEVER_FIRST) {
            return Err(InvalidReason::SctpNew);
        }
        let mut track = SctpTrack::begin(packet, header.tag())?;
        let direction = Direction::Original;
        let sight = Sight { tag: header.tag(), kinds, direction, confirmed: false };
        track.judge(packet, &sight, &mut Course::default())?;
        Ok((track, timeouts.of_sctp(track.state)))
    }

    /// `sctp_new`: may these chunks begin a conn, and which tags do they tell?
    fn begin<S: Source + ?Sized>(packet: &S, tag: u32) -> Result<SctpTrack, InvalidReason> {
        let mut track = SctpTrack::default();
        for c in sctp::chunks(packet) {
            if step(Direction::Original, c.kind, NO).is_none_or(|state| state == NO) {
                return Err(InvalidReason::SctpNew);
            }
            match c.kind {
                chunk::INIT if tag != 0 => return Err(InvalidReason::SctpChunkTag),
                chunk::INIT => {
                    let told = c.initiate_tag(packet).ok_or(InvalidReason::SctpInit)?;
                    track.tags[Direction::Reply.index()] = told;
                }
                // A second path: its packets carry the tags of the first.
                chunk::HEARTBEAT => track.tags[Direction::Original.index()] = tag,
                // Out of the blue: a SHUTDOWN COMPLETE with the same tag is to come back.
                chunk::SHUTDOWN_ACK => track.tags[Direction::Reply.index()] = tag,
                _ => {}
            }
        }
        Ok(track)
    }

    /// A packet of a known conn, and whether it reached ESTABLISHED: what a chunk has done stays
    /// done, even if a later one makes the packet INVALID.
    pub fn packet<S: Source + ?Sized>(
        &mut self,
        packet: &S,
        direction: Direction,
        timeouts: &Timeouts,
    ) -> (Outcome, bool) {
        let mut course = Course::default();
        let judged = match (Header::read(packet), survey(packet)) {
            (None, _) => Err(InvalidReason::SctpShort),
            (_, Err(reason)) => Err(reason),
            (Some(header), Ok(kinds)) => {
                let sight = Sight { tag: header.tag(), kinds, direction, confirmed: true };
                self.judge(packet, &sight, &mut course)
            }
        };
        let outcome = match judged {
            Err(reason) => Outcome::Invalid { reason, shorten_to_secs: None },
            Ok(()) => Outcome::Accept {
                timeout_secs: (!course.ignore).then(|| timeouts.of_sctp(self.state)),
                assured: course.assured,
                changed: course.changed,
            },
        };
        (outcome, course.assured)
    }

    /// The chunks of a packet, one after the other (`nf_conntrack_sctp_packet`).
    fn judge<S: Source + ?Sized>(
        &mut self,
        packet: &S,
        sight: &Sight,
        course: &mut Course,
    ) -> Result<(), InvalidReason> {
        let Sight { tag, kinds, direction, .. } = *sight;
        if !kinds.any(OWN_TAG_RULE) && tag != self.tags[direction.index()] {
            return Err(InvalidReason::SctpTag);
        }
        for c in sctp::chunks(packet) {
            if self.tag_is_right(&c, sight, course)? {
                self.take(&c, packet, sight, course)?;
            }
        }
        Ok(())
    }

    /// The rules of section 8.5.1 and those for further paths; false for a chunk that is passed
    /// over.
    fn tag_is_right(
        &mut self,
        c: &Chunk,
        sight: &Sight,
        course: &mut Course,
    ) -> Result<bool, InvalidReason> {
        let (own, peer) = (sight.direction.index(), sight.direction.opposite().index());
        let right = match c.kind {
            chunk::INIT => sight.tag == 0,
            chunk::ABORT | chunk::SHUTDOWN_COMPLETE if c.flags & FLAG_T != 0 => {
                sight.tag == self.tags[peer]
            }
            chunk::ABORT | chunk::SHUTDOWN_COMPLETE | chunk::COOKIE_ECHO => {
                sight.tag == self.tags[own]
            }
            chunk::COOKIE_ACK => {
                self.init = [false; 2];
                true
            }
            chunk::HEARTBEAT | chunk::HEARTBEAT_ACK => return self.heartbeat(c, sight, course),
            _ => true,
        };
        if right { Ok(true) } else { Err(InvalidReason::SctpChunkTag) }
    }

    /// A further path of an association may have begun with packets that were not seen, or belong
    /// to another association on the same ports: a foreign HEARTBEAT is let through, and if the
    /// other side acknowledges it, the tags are learnt anew.
    fn heartbeat(
        &mut self,
        c: &Chunk,
        sight: &Sight,
        course: &mut Course,
    ) -> Result<bool, InvalidReason> {
        let (own, peer) = (sight.direction.index(), sight.direction.opposite().index());
        if self.tags[own] == 0 {
            self.tags[own] = sight.tag;
            return Ok(true);
        }
        if sight.tag == self.tags[own] {
            self.foreign_heartbeat = None;
            return Ok(true);
        }
        if sight.kinds.any(&[chunk::DATA]) || course.ignore {
            return Err(InvalidReason::SctpChunkTag);
        }
        if c.kind == chunk::HEARTBEAT {
            self.foreign_heartbeat = Some(sight.direction);
            course.ignore = true;
            return Ok(false);
        }
        if self.foreign_heartbeat != Some(sight.direction.opposite()) {
            return Err(InvalidReason::SctpChunkTag);
        }
        self.foreign_heartbeat = None;
        self.tags[own] = sight.tag;
        self.tags[peer] = 0;
        Ok(true)
    }

    /// The step of one chunk, and the tag it tells.
    fn take<S: Source + ?Sized>(
        &mut self,
        c: &Chunk,
        packet: &S,
        sight: &Sight,
        course: &mut Course,
    ) -> Result<(), InvalidReason> {
        let (own, peer) = (sight.direction.index(), sight.direction.opposite().index());
        let old = self.state;
        let new = step(sight.direction, c.kind, old).ok_or(InvalidReason::SctpState)?;
        if matches!(c.kind, chunk::INIT | chunk::INIT_ACK) {
            let told = c.initiate_tag(packet).ok_or(InvalidReason::SctpInit)?;
            let known = self.tags[peer];
            if c.kind == chunk::INIT {
                // One that repeats a known tag is late or lost its answer, and asks for nothing.
                if old == NO || known != told {
                    if self.init == [true; 2] {
                        self.init[peer] = false;
                    }
                    self.init[own] = true;
                }
                // A repeated INIT alone must not keep the conn.
                course.ignore |= old == CL && new == CL && sight.confirmed;
            } else {
                let unasked = !self.init[peer] && known != 0;
                if (unasked || self.init == [true; 2]) && known != told {
                    return Err(InvalidReason::SctpChunkTag);
                }
            }
            self.tags[peer] = told;
        }
        self.state = new;
        course.changed |= old != new;
        course.assured |= old != new && new == ES;
        Ok(())
    }

    /// Sets state and tags by hand (`nlattr_to_sctp`): what each direction's packets carry.
    pub fn set_by_hand(&mut self, state: SctpState, tags: [u32; 2]) {
        (self.state, self.tags) = (state, tags);
    }

    /// The tags that packets of the original and of the reply direction carry; 0 is not known.
    pub const fn tags(&self) -> [u32; 2] {
        self.tags
    }

    /// The numbers behind a refusal of this packet, by what is known after it; a conn that does not
    /// exist knows nothing.
    #[cold]
    pub fn numbers<S: Source + ?Sized>(
        &self,
        packet: &S,
        direction: Direction,
        reason: InvalidReason,
    ) -> Numbers {
        match reason {
            InvalidReason::SctpChunks => misplaced(packet),
            InvalidReason::SctpTag => {
                let right = self.tags[direction.index()];
                let found = Header::read(packet).map(|header| header.tag());
                found.map_or(Numbers::None, |found| Numbers::Tag { found, right, direction })
            }
            InvalidReason::SctpState => {
                let refused = |c: &Chunk| step(direction, c.kind, self.state).is_none();
                let state = self.state as u8;
                let kind = sctp::chunks(packet).find(refused).map(|c| c.kind);
                kind.map_or(Numbers::None, |kind| Numbers::Step { state, direction, kind })
            }
            _ => Numbers::None,
        }
    }

    /// The state.
    pub const fn state(&self) -> SctpState {
        self.state
    }

    /// As the record keeps it.
    pub fn to_words(self) -> [u64; 7] {
        let foreign = match self.foreign_heartbeat {
            None => 0,
            Some(Direction::Original) => 1,
            Some(Direction::Reply) => 3,
        };
        let flags = self.init[0] as u64 | (self.init[1] as u64) << 1 | foreign << 2;
        let tags = (self.tags[0] as u64) << 32 | self.tags[1] as u64;
        [self.state as u64 | flags << 8, tags, 0, 0, 0, 0, 0]
    }

    /// From the record.
    pub fn from_words(words: [u64; 7]) -> SctpTrack {
        let [word, tags, ..] = words;
        let foreign_heartbeat = match word >> 10 & 3 {
            1 => Some(Direction::Original),
            3 => Some(Direction::Reply),
            _ => None,
        };
        SctpTrack {
            state: SctpState::of_word(word),
            tags: [(tags >> 32) as u32, tags as u32],
            init: [word >> 8 & 1 == 1, word >> 9 & 1 == 1],
            foreign_heartbeat,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A packet with `tag` and these chunks: type, flags, and the initiate tag of INITs.
    fn packet(tag: u32, chunks: &[(u8, u8, u32)]) -> Vec<u8> {
        let mut bytes = vec![0, 5, 0, 6];
        bytes.extend(tag.to_be_bytes());
        bytes.extend([0; 4]);
        for (kind, flags, told) in chunks {
            let init = matches!(*kind, chunk::INIT | chunk::INIT_ACK);
            bytes.extend([*kind, *flags, 0, if init { 20 } else { 4 }]);
            if init {
                bytes.extend(told.to_be_bytes());
                bytes.extend([0, 0, 0xff, 0xff, 0, 1, 0, 1, 0, 0, 0, 1]);
            }
        }
        bytes
    }

    fn first(tag: u32, chunks: &[(u8, u8, u32)]) -> Result<(SctpTrack, u32), InvalidReason> {
        SctpTrack::first(&packet(tag, chunks)[..], &Timeouts::default())
    }

    const C: Direction = Direction::Original;
    const S: Direction = Direction::Reply;

    /// Timeout, ASSURED and state after a packet, or why not.
    fn go(
        track: &mut SctpTrack,
        direction: Direction,
        tag: u32,
        chunks: &[(u8, u8, u32)],
    ) -> Result<(Option<u32>, bool, SctpState), InvalidReason> {
        match track.packet(&packet(tag, chunks)[..], direction, &Timeouts::default()).0 {
            Outcome::Accept { timeout_secs, assured, .. } => {
                Ok((timeout_secs, assured, track.state()))
            }
            Outcome::Invalid { reason, shorten_to_secs: None } => Err(reason),
            other => panic!("{other:?}"),
        }
    }

    /// Client tag 1 and server tag 2: what the other side's packets carry.
    fn established() -> SctpTrack {
        let (mut track, _) = first(0, &[(chunk::INIT, 0, 1)]).unwrap();
        go(&mut track, S, 1, &[(chunk::INIT_ACK, 0, 2)]).unwrap();
        go(&mut track, C, 2, &[(chunk::COOKIE_ECHO, 0, 0), (chunk::DATA, 0, 0)]).unwrap();
        let done = go(&mut track, S, 1, &[(chunk::COOKIE_ACK, 0, 0)]).unwrap();
        assert_eq!(done, (Some(210), true, ES));
        track
    }

    #[test]
    fn a_whole_life() {
        let (mut track, secs) = first(0, &[(chunk::INIT, 0, 1)]).unwrap();
        assert_eq!((track.state(), secs), (CL, 10));
        let ack = &[(chunk::INIT_ACK, 0, 2)];
        assert_eq!(go(&mut track, S, 9, ack), Err(InvalidReason::SctpTag));
        assert_eq!(go(&mut track, S, 1, ack), Ok((Some(3), false, CW)));
        let echo = &[(chunk::COOKIE_ECHO, 0, 0)];
        assert_eq!(go(&mut track, C, 9, echo), Err(InvalidReason::SctpChunkTag));
        assert_eq!(go(&mut track, C, 2, echo), Ok((Some(3), false, CE)));
        let data = &[(chunk::DATA, 0, 0)];
        assert_eq!(go(&mut track, S, 1, &[(chunk::COOKIE_ACK, 0, 0)]), Ok((Some(210), true, ES)));
        assert_eq!(go(&mut track, C, 2, data), Ok((Some(210), false, ES)));
        assert_eq!(go(&mut track, C, 1, data), Err(InvalidReason::SctpTag));
        assert_eq!(go(&mut track, C, 2, &[(chunk::SHUTDOWN, 0, 0)]), Ok((Some(3), false, SS)));
        assert_eq!(go(&mut track, S, 1, &[(chunk::SHUTDOWN_ACK, 0, 0)]), Ok((Some(3), false, SA)));
        let complete = &[(chunk::SHUTDOWN_COMPLETE, 0, 0)];
        assert_eq!(go(&mut track, C, 1, complete), Err(InvalidReason::SctpChunkTag));
        assert_eq!(go(&mut track, C, 2, complete), Ok((Some(10), false, CL)));
    }

    #[test]
    fn the_t_bit_says_whose_tag_it_is() {
        for kind in [chunk::ABORT, chunk::SHUTDOWN_COMPLETE] {
            for (direction, flags, tag) in [(C, 0, 2), (C, 1, 1), (S, 0, 1), (S, 1, 2)] {
                let mut track = established();
                let wrong = go(&mut track, direction, 3 - tag, &[(kind, flags, 0)]);
                assert_eq!(wrong, Err(InvalidReason::SctpChunkTag));
                assert!(go(&mut track, direction, tag, &[(kind, flags, 0)]).is_ok());
                assert_eq!(track.state(), if kind == chunk::ABORT { CL } else { ES });
            }
        }
    }

    #[test]
    fn what_may_begin_a_conn() {
        for kind in 0..=255u8 {
            let result = first(0, &[(kind, 0, 1)]).map(|(track, secs)| (track.state(), secs));
            let expected = match kind {
                chunk::ABORT | chunk::SHUTDOWN_COMPLETE | chunk::COOKIE_ACK => {
                    Err(InvalidReason::SctpNew)
                }
                chunk::SHUTDOWN_ACK => Ok((SA, 3)),
                chunk::HEARTBEAT => Ok((HS, 30)),
                kind if ROWS.contains(&kind) => Ok((CL, 10)),
                _ => Err(InvalidReason::SctpNew),
            };
            assert_eq!(result, expected, "{kind}");
        }
        assert_eq!(first(7, &[(chunk::INIT, 0, 1)]), Err(InvalidReason::SctpChunkTag));
        assert_eq!(first(7, &[(chunk::COOKIE_ECHO, 0, 0)]), Err(InvalidReason::SctpChunkTag));
        assert_eq!(first(7, &[(chunk::ERROR, 0, 0)]), Err(InvalidReason::SctpTag));
        assert!(first(7, &[(chunk::HEARTBEAT, 0, 0)]).is_ok());
        assert!(first(7, &[(chunk::SHUTDOWN_ACK, 0, 0)]).is_ok());
        let cut = packet(0, &[(chunk::INIT, 0, 1)]);
        let refused = SctpTrack::first(&cut[..30], &Timeouts::default());
        assert_eq!(refused, Err(InvalidReason::SctpInit));
    }

    #[test]
    fn who_may_stand_with_whom() {
        let mut track = established();
        let together = |track: &mut SctpTrack, kinds: &[u8]| {
            let chunks: Vec<_> = kinds.iter().map(|kind| (*kind, 0, 2)).collect();
            go(track, C, 2, &chunks).err()
        };
        let refused = Some(InvalidReason::SctpChunks);
        assert_eq!(together(&mut track, &[]), refused);
        for kinds in [
            [chunk::INIT, chunk::DATA],
            [chunk::DATA, chunk::INIT],
            [chunk::INIT_ACK, chunk::DATA],
            [chunk::DATA, chunk::SHUTDOWN_COMPLETE],
            [chunk::DATA, chunk::COOKIE_ECHO],
            [chunk::DATA, chunk::COOKIE_ACK],
        ] {
            assert_eq!(together(&mut track, &kinds), refused, "{kinds:?}");
        }
        assert_eq!(together(&mut track, &[chunk::COOKIE_ACK, chunk::DATA]), None);
        let mut none = packet(2, &[(chunk::DATA, 0, 0)]);
        none[14..16].fill(0);
        let outcome = track.packet(&none[..], C, &Timeouts::default());
        let reason = InvalidReason::SctpChunks;
        assert_eq!(outcome, (Outcome::Invalid { reason, shorten_to_secs: None }, false));
    }

    #[test]
    fn what_a_chunk_has_done_stays_done() {
        let (mut track, _) = first(0, &[(chunk::INIT, 0, 1)]).unwrap();
        go(&mut track, S, 1, &[(chunk::INIT_ACK, 0, 2)]).unwrap();
        go(&mut track, C, 2, &[(chunk::COOKIE_ECHO, 0, 0)]).unwrap();
        let bytes = packet(2, &[(chunk::COOKIE_ACK, 0, 0), (chunk::ABORT, 1, 0)]);
        let outcome = track.packet(&bytes[..], C, &Timeouts::default());
        assert!(matches!(outcome, (Outcome::Invalid { .. }, true)), "{outcome:?}");
        assert_eq!(track.state(), ES);
        let outcome = track.packet(&bytes[..], C, &Timeouts::default());
        assert!(matches!(outcome, (Outcome::Invalid { .. }, false)), "{outcome:?}");
    }

    #[test]
    fn a_second_path_begins_with_a_heartbeat() {
        let (mut track, secs) = first(2, &[(chunk::HEARTBEAT, 0, 0)]).unwrap();
        assert_eq!((track.state(), secs), (HS, 30));
        let reply = go(&mut track, S, 1, &[(chunk::DATA, 0, 0)]);
        assert_eq!(reply, Err(InvalidReason::SctpTag), "its tag is not known yet");
        assert_eq!(go(&mut track, S, 1, &[(chunk::HEARTBEAT, 0, 0)]), Ok((Some(30), false, HS)));
        let ack = &[(chunk::HEARTBEAT_ACK, 0, 0)];
        assert_eq!(go(&mut track, S, 1, ack), Ok((Some(210), true, ES)));
        assert_eq!(go(&mut track, C, 2, &[(chunk::DATA, 0, 0)]), Ok((Some(210), false, ES)));
    }

    #[test]
    fn a_foreign_heartbeat_teaches_tags_once_it_is_acknowledged() {
        let (beat, ack) = (&[(chunk::HEARTBEAT, 0, 0)], &[(chunk::HEARTBEAT_ACK, 0, 0)]);
        let mut track = established();
        assert_eq!(go(&mut track, S, 9, ack), Err(InvalidReason::SctpChunkTag), "to nothing");
        let with_data = &[(chunk::HEARTBEAT, 0, 0), (chunk::DATA, 0, 0)];
        assert_eq!(go(&mut track, C, 8, with_data), Err(InvalidReason::SctpChunkTag));
        let twice = &[(chunk::HEARTBEAT, 0, 0), (chunk::HEARTBEAT, 0, 0)];
        assert_eq!(go(&mut track, C, 8, twice), Err(InvalidReason::SctpChunkTag));
        let mut track = established();
        assert_eq!(go(&mut track, C, 8, beat), Ok((None, false, ES)), "passes, refreshes nothing");
        assert_eq!(go(&mut track, C, 9, ack), Err(InvalidReason::SctpChunkTag), "the same side");
        assert_eq!(go(&mut track, S, 9, ack), Ok((Some(210), false, ES)));
        assert_eq!(track.tags, [0, 9]);
        assert_eq!(go(&mut track, C, 8, beat), Ok((Some(210), false, ES)));
        assert_eq!(track.tags, [8, 9]);
        // A right one in between means that there is no other association.
        let mut track = established();
        assert!(go(&mut track, C, 8, beat).is_ok());
        assert!(go(&mut track, C, 2, beat).is_ok());
        assert_eq!(go(&mut track, S, 9, ack), Err(InvalidReason::SctpChunkTag));
    }

    #[test]
    fn init_and_init_ack() {
        let init = &[(chunk::INIT, 0, 1)];
        let (mut track, _) = first(0, init).unwrap();
        assert_eq!(go(&mut track, C, 0, init), Ok((None, false, CL)), "the timer stands");
        assert_eq!(go(&mut track, C, 5, init), Err(InvalidReason::SctpChunkTag));
        // An INIT ACK that nobody asked for may repeat the tag, not change it.
        let mut track = established();
        assert!(go(&mut track, S, 1, &[(chunk::INIT_ACK, 0, 2)]).is_ok());
        let other = go(&mut track, S, 1, &[(chunk::INIT_ACK, 0, 3)]);
        assert_eq!(other, Err(InvalidReason::SctpChunkTag));
        // Nor does an old INIT ask for it.
        assert!(go(&mut track, C, 0, &[(chunk::INIT, 0, 1)]).is_ok());
        let other = go(&mut track, S, 1, &[(chunk::INIT_ACK, 0, 3)]);
        assert_eq!(other, Err(InvalidReason::SctpChunkTag));
        // A restart asks, and may.
        assert!(go(&mut track, C, 0, &[(chunk::INIT, 0, 4)]).is_ok());
        assert_eq!(go(&mut track, S, 4, &[(chunk::INIT_ACK, 0, 3)]), Ok((Some(210), false, ES)));
        assert_eq!(track.tags, [3, 4]);
        // Both sides ask at once: only the tags they told count.
        let (mut track, _) = first(0, init).unwrap();
        assert!(go(&mut track, S, 0, &[(chunk::INIT, 0, 2)]).is_ok());
        let other = go(&mut track, S, 1, &[(chunk::INIT_ACK, 0, 3)]);
        assert_eq!(other, Err(InvalidReason::SctpChunkTag));
        assert_eq!(go(&mut track, S, 1, &[(chunk::INIT_ACK, 0, 2)]), Ok((Some(3), false, CW)));
    }

    /// Each cell of both tables, written down another way: what changes, and what is invalid.
    #[test]
    fn both_tables_whole() {
        use std::collections::HashMap;
        let all = |kind: u8, from: &[SctpState], to: SctpState| {
            from.iter().map(move |s| ((kind, *s), to)).collect::<Vec<_>>()
        };
        let original: HashMap<(u8, SctpState), SctpState> = [
            all(chunk::INIT, &[NO, SS, SR], CL),
            all(chunk::INIT, &[HS], CW),
            all(chunk::INIT_ACK, &[NO, HS], CL),
            all(chunk::ABORT, &SctpState::ALL, CL),
            all(chunk::SHUTDOWN, &[NO, HS], CL),
            all(chunk::SHUTDOWN, &[ES], SS),
            all(chunk::SHUTDOWN_ACK, &[NO, SS, SR, HS], SA),
            all(chunk::ERROR, &[NO, HS], CL),
            all(chunk::COOKIE_ECHO, &[NO, HS], CL),
            all(chunk::COOKIE_ECHO, &[CW], CE),
            all(chunk::COOKIE_ACK, &[NO, HS], CL),
            all(chunk::COOKIE_ACK, &[CE], ES),
            all(chunk::SHUTDOWN_COMPLETE, &[NO, SA, HS], CL),
            all(chunk::HEARTBEAT, &[NO], HS),
            all(chunk::HEARTBEAT_ACK, &[NO], CL),
        ]
        .concat()
        .into_iter()
        .collect();
        let reply: HashMap<(u8, SctpState), SctpState> = [
            all(chunk::INIT_ACK, &[CL], CW),
            all(chunk::ABORT, &[CL, CW, CE, ES, SS, SR, SA], CL),
            all(chunk::SHUTDOWN, &[ES], SR),
            all(chunk::SHUTDOWN_ACK, &[SS, SR], SA),
            all(chunk::ERROR, &[CE], CL),
            all(chunk::COOKIE_ECHO, &[CW], CE),
            all(chunk::COOKIE_ACK, &[CE], ES),
            all(chunk::SHUTDOWN_COMPLETE, &[SA], CL),
            all(chunk::HEARTBEAT_ACK, &[HS], ES),
        ]
        .concat()
        .into_iter()
        .collect();
        for kind in 0..=255 {
            for state in SctpState::ALL {
                let changed = original.get(&(kind, state)).copied().unwrap_or(state);
                assert_eq!(step(C, kind, state), Some(changed), "{kind} {state:?}");
                let known = ROWS.contains(&kind);
                let beat = matches!(kind, chunk::HEARTBEAT | chunk::HEARTBEAT_ACK);
                let expected = match state {
                    NO if known => None,
                    HS if known && !beat => None,
                    _ => Some(reply.get(&(kind, state)).copied().unwrap_or(state)),
                };
                assert_eq!(step(S, kind, state), expected, "reply {kind} {state:?}");
            }
        }
    }

    type Chunks = Vec<(u8, u8, u32)>;

    fn some_packets() -> impl Strategy<Value = Vec<(bool, u32, Chunks)>> {
        let chunks = proptest::collection::vec((0u8..16, 0u8..2, 0u32..4), 0..4);
        proptest::collection::vec((any::<bool>(), 0u32..4, chunks), 0..12)
    }

    proptest! {
        #[test]
        fn any_packets_leave_words_that_lead_back(
            packets in some_packets(),
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let Ok((mut track, _)) = first(0, &[(chunk::INIT, 0, 1)]) else { unreachable!() };
            for (reply, tag, chunks) in &packets {
                let _ = go(&mut track, if *reply { S } else { C }, *tag, chunks);
                prop_assert_eq!(SctpTrack::from_words(track.to_words()), track);
            }
            track.packet(&bytes[..], C, &Timeouts::default());
            let _ = SctpTrack::first(&bytes[..], &Timeouts::default());
        }
    }
}
