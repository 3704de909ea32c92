//! The DCCP tracker: RFC 4340, as `nf_conntrack_proto_dccp.c` did it while Linux had it.
//!
//! Pure: a [`DccpTrack`] is a value of two words that lies in the conn's record. Which end is the
//! client is learnt from the Request, and turns round when the other end begins anew.
//!
//! ```text
//! w0   state (bits 0-7), the original direction is the server's (8), the last packet came in the
//!      reply direction (9), its type (16-23)
//! w1   sequence number of the Response, which the client's Ack has to name
//! ```

use super::invalid::InvalidReason;
use super::knobs::Knobs;
use super::state::{Direction, Status};
use super::tcp::Outcome;
use super::timeouts::Timeouts;
use crate::wire::dccp::{Header, kind};
use crate::wire::source::Source;

/// A conn's state, seen from the middle (`enum ct_dccp_states`, same numbers and names).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DccpState {
    /// No packet judged yet.
    #[default]
    None = 0,
    /// Request.
    Request = 1,
    /// Response.
    Respond = 2,
    /// The client acknowledged the Response.
    PartOpen = 3,
    /// The server went on from there.
    Open = 4,
    /// The server asked the client to close.
    CloseReq = 5,
    /// Close.
    Closing = 6,
    /// Reset.
    TimeWait = 7,
}

use DccpState::{
    CloseReq as CR, Closing as CG, None as NO, Open as OP, PartOpen as PO, Request as RQ,
    Respond as RS, TimeWait as TW,
};

impl DccpState {
    /// How many states there are.
    pub const COUNT: usize = 8;

    /// All of them, in the order of their numbers.
    pub const ALL: [DccpState; DccpState::COUNT] = [NO, RQ, RS, PO, OP, CR, CG, TW];

    /// The name in listings.
    pub const fn name(self) -> &'static str {
        match self {
            NO => "NONE",
            RQ => "REQUEST",
            RS => "RESPOND",
            PO => "PARTOPEN",
            OP => "OPEN",
            CR => "CLOSEREQ",
            CG => "CLOSING",
            TW => "TIMEWAIT",
        }
    }

    /// True once one side has asked to close: such a conn may go early although it is ASSURED
    /// (`dccp_can_early_drop`).
    pub const fn is_closing(self) -> bool {
        matches!(self, CR | CG | TW)
    }

    /// The state of a name.
    pub fn from_name(name: &str) -> Option<DccpState> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// The state in [`DccpTrack::to_words`]' first word.
    pub fn of_word(word: u64) -> DccpState {
        Self::ALL.get(word as u8 as usize).copied().unwrap_or_default()
    }
}

/// Which end of a connection a packet comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Role {
    /// Sends the Request.
    #[default]
    Client,
    /// Sends the Response.
    Server,
}

impl Role {
    /// The word for it, as `conntrack --role` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Client => "client",
            Role::Server => "server",
        }
    }
}

/// What a packet type does in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Goes there.
    To(DccpState),
    /// Lets it pass and changes nothing: it may belong to a conn that is not known.
    Ignore,
    /// Refuses it.
    Invalid,
}

type Row = [Step; DccpState::COUNT];

const IV: Step = Step::Invalid;
const IG: Step = Step::Ignore;

const fn to(state: DccpState) -> Step {
    Step::To(state)
}

/// Type by type, from NO, RQ, RS, PO, OP, CR, CG, TW.
const CLIENT: [Row; kind::COUNT] = [
    [to(RQ), to(RQ), to(RS), IG, IG, IG, IG, to(RQ)],
    [IV, IG, IG, IG, IG, IG, IG, IV],
    [IV, IV, IV, IV, to(OP), to(CR), to(CG), IV],
    [IV, IV, to(PO), to(PO), to(OP), to(CR), to(CG), IV],
    [IV, IV, to(PO), to(PO), to(OP), to(CR), to(CG), IV],
    [IV; DccpState::COUNT],
    [IV, IV, IV, to(CG), to(CG), to(CG), IV, IV],
    [IV, to(TW), to(TW), to(TW), to(TW), to(TW), to(TW), IG],
    [IG; DccpState::COUNT],
    [IG; DccpState::COUNT],
];

const SERVER: [Row; kind::COUNT] = [
    [IV, IG, IG, IG, IG, IG, IG, to(RQ)],
    [IV, to(RS), to(RS), IG, IG, IG, IG, IV],
    [IV, IV, IV, to(OP), to(OP), IV, to(CG), IV],
    [IV, IV, IV, to(OP), to(OP), IV, to(CG), IV],
    [IV, IV, IV, to(OP), to(OP), IV, to(CG), IV],
    [IV, IV, IV, to(CR), to(CR), to(CR), to(CR), IV],
    [IV, IV, IV, to(CG), to(CG), IV, to(CG), IV],
    [IV, to(TW), to(TW), to(TW), to(TW), to(TW), to(TW), to(TW)],
    [IG; DccpState::COUNT],
    [IG; DccpState::COUNT],
];

/// What a packet does (`dccp_state_table`); a reserved type is invalid.
pub fn step(role: Role, kind: u8, state: DccpState) -> Step {
    let table = match role {
        Role::Client => &CLIENT,
        Role::Server => &SERVER,
    };
    table.get(kind as usize).and_then(|row| row.get(state as usize)).copied().unwrap_or(IV)
}

/// Checks a header (`dccp_error`) and says how many bytes its checksum covers.
///
/// # Errors
/// `DccpShort`, `DccpLength`, `DccpCoverage`, `DccpType`.
pub fn sanity<S: Source + ?Sized>(packet: &S) -> Result<(Header, usize), InvalidReason> {
    let header = Header::read(packet).ok_or(InvalidReason::DccpShort)?;
    let least = if header.extended { 16 } else { 12 };
    if header.data_offset < least || header.data_offset > packet.total() {
        return Err(InvalidReason::DccpLength);
    }
    let covered = header.covered(packet.total()).ok_or(InvalidReason::DccpCoverage)?;
    if header.kind as usize >= kind::COUNT {
        return Err(InvalidReason::DccpType);
    }
    Ok((header, covered))
}

/// What is known of a conn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DccpTrack {
    state: DccpState,
    /// Of the original direction; the reply direction has the other.
    role: Role,
    last_direction: Direction,
    last_kind: u8,
    handshake: u64,
}

impl DccpTrack {
    /// A conn's first packet: its words, and the timeout in seconds.
    ///
    /// # Errors
    /// `DccpNew`, `DccpPickup`.
    pub fn first(header: &Header, knobs: &Knobs) -> Result<(DccpTrack, u32), InvalidReason> {
        match step(Role::Client, header.kind, NO) {
            Step::To(RQ) => {}
            Step::Invalid => return Err(InvalidReason::DccpNew),
            _ if !knobs.dccp_loose => return Err(InvalidReason::DccpPickup),
            _ => {}
        }
        let mut track = DccpTrack {
            state: NO,
            role: Role::Client,
            last_direction: Direction::Original,
            last_kind: kind::REQUEST,
            handshake: 0,
        };
        let timeouts = &knobs.timeouts;
        match track.packet(header, Direction::Original, Status::SEEN_REPLY, timeouts) {
            Outcome::Invalid { reason, .. } => Err(reason),
            // A Sync leaves the conn as it was, which is without any time to live.
            Outcome::Accept { timeout_secs, .. } => Ok((track, timeout_secs.unwrap_or(0))),
            _ => Ok((track, 0)),
        }
    }

    /// A packet of a known conn; `status` as it was before this packet.
    pub fn packet(
        &mut self,
        header: &Header,
        direction: Direction,
        status: Status,
        timeouts: &Timeouts,
    ) -> Outcome {
        if header.kind == kind::RESET && !status.has(Status::SEEN_REPLY) {
            return Outcome::Delete;
        }
        let (old, role) = (self.state, self.role_of(direction));
        let mut assured = false;
        let new = match step(role, header.kind, old) {
            Step::Invalid => {
                let reason = InvalidReason::DccpState;
                return Outcome::Invalid { reason, shorten_to_secs: None };
            }
            Step::Ignore if self.answers_ignored_request(header, direction) => {
                // It was a new connection after all, whose Request came the other way.
                self.set_client(direction.opposite());
                self.handshake = header.sequence;
                RS
            }
            Step::Ignore => {
                (self.last_direction, self.last_kind) = (direction, header.kind);
                return Outcome::Accept { timeout_secs: None, assured: false, changed: false };
            }
            Step::To(new) => {
                match new {
                    RQ if old == TW && role == Role::Server => self.set_client(direction),
                    RS if old == RQ => self.handshake = header.sequence,
                    PO if old == RS && header.kind == kind::ACK => assured = self.confirms(header),
                    _ => {}
                }
                new
            }
        };
        (self.last_direction, self.last_kind) = (direction, header.kind);
        self.state = new;
        let timeout_secs = Some(timeouts.of_dccp(new));
        Outcome::Accept { timeout_secs, assured, changed: old != new }
    }

    fn role_of(&self, direction: Direction) -> Role {
        match (self.role, direction) {
            (role, Direction::Original) => role,
            (Role::Client, Direction::Reply) => Role::Server,
            (Role::Server, Direction::Reply) => Role::Client,
        }
    }

    fn set_client(&mut self, direction: Direction) {
        self.role = match direction {
            Direction::Original => Role::Client,
            Direction::Reply => Role::Server,
        };
    }

    fn answers_ignored_request(&self, header: &Header, direction: Direction) -> bool {
        header.kind == kind::RESPONSE
            && self.last_kind == kind::REQUEST
            && self.last_direction == direction.opposite()
    }

    /// The Ack names the Response; with short numbers, by its low 24 bits.
    fn confirms(&self, header: &Header) -> bool {
        let mask = if header.extended { u64::MAX } else { 0xff_ffff };
        header.acknowledged == Some(self.handshake & mask)
    }

    /// Sets the state and who the original direction is by hand (`nlattr_to_dccp`).
    pub fn set_by_hand(&mut self, state: DccpState, role: Role) {
        (self.state, self.role) = (state, role);
    }

    /// Whose packets the original direction has.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Whose packets a direction has.
    pub fn role_in(&self, direction: Direction) -> Role {
        self.role_of(direction)
    }

    /// The number of the Response, which the client's Ack names.
    pub const fn response(&self) -> u64 {
        self.handshake
    }

    /// The state.
    pub const fn state(&self) -> DccpState {
        self.state
    }

    /// As the record keeps it.
    pub fn to_words(self) -> [u64; 7] {
        let server = (self.role == Role::Server) as u64;
        let word = self.state as u64
            | server << 8
            | (self.last_direction as u64) << 9
            | (self.last_kind as u64) << 16;
        [word, self.handshake, 0, 0, 0, 0, 0]
    }

    /// From the record.
    pub fn from_words(words: [u64; 7]) -> DccpTrack {
        let [word, handshake, ..] = words;
        let reply = word >> 9 & 1 == 1;
        DccpTrack {
            state: DccpState::of_word(word),
            role: if word >> 8 & 1 == 1 { Role::Server } else { Role::Client },
            last_direction: if reply { Direction::Reply } else { Direction::Original },
            last_kind: (word >> 16) as u8,
            handshake,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const C: Direction = Direction::Original;
    const S: Direction = Direction::Reply;
    const REPLIED: Status = Status::CONFIRMED.with(Status::SEEN_REPLY);

    fn header(kind: u8, sequence: u64, acknowledged: u64) -> Header {
        let acknowledged = Some(acknowledged);
        Header { kind, data_offset: 24, coverage: 0, extended: true, sequence, acknowledged }
    }

    fn first(kind: u8, knobs: &Knobs) -> Result<(DccpState, u32), InvalidReason> {
        let first = DccpTrack::first(&header(kind, 1, 0), knobs);
        first.map(|(track, secs)| (track.state(), secs))
    }

    /// Timeout, ASSURED and state after a packet, or why not.
    fn go(
        track: &mut DccpTrack,
        direction: Direction,
        header: Header,
    ) -> Result<(Option<u32>, bool, DccpState), InvalidReason> {
        match track.packet(&header, direction, REPLIED, &Timeouts::default()) {
            Outcome::Accept { timeout_secs, assured, .. } => {
                Ok((timeout_secs, assured, track.state()))
            }
            Outcome::Invalid { reason, shorten_to_secs: None } => Err(reason),
            other => panic!("{other:?}"),
        }
    }

    fn open() -> DccpTrack {
        let (mut track, secs) =
            DccpTrack::first(&header(kind::REQUEST, 1, 0), &Knobs::default()).unwrap();
        assert_eq!((track.state(), secs), (RQ, 240));
        let response = header(kind::RESPONSE, 0xffff_ffff_fff0, 1);
        assert_eq!(go(&mut track, S, response), Ok((Some(480), false, RS)));
        let ack = header(kind::ACK, 2, 0xffff_ffff_fff0);
        assert_eq!(go(&mut track, C, ack), Ok((Some(480), true, PO)));
        assert_eq!(go(&mut track, S, header(kind::DATA, 9, 0)), Ok((Some(43_200), false, OP)));
        track
    }

    #[test]
    fn a_whole_life() {
        let mut track = open();
        assert_eq!(go(&mut track, C, header(kind::DATA_ACK, 3, 0)), Ok((Some(43_200), false, OP)));
        assert_eq!(go(&mut track, S, header(kind::CLOSE_REQ, 10, 0)), Ok((Some(64), false, CR)));
        assert_eq!(go(&mut track, C, header(kind::CLOSE, 4, 0)), Ok((Some(64), false, CG)));
        assert_eq!(go(&mut track, S, header(kind::RESET, 11, 0)), Ok((Some(240), false, TW)));
        assert_eq!(go(&mut track, C, header(kind::DATA, 5, 0)), Err(InvalidReason::DccpState));
    }

    #[test]
    fn only_an_ack_that_names_the_response_assures() {
        let (fresh, _) = DccpTrack::first(&header(kind::REQUEST, 1, 0), &Knobs::default()).unwrap();
        let assured = |header| {
            let mut track = fresh;
            go(&mut track, S, self::header(kind::RESPONSE, 0x0102_0304_0506, 1)).unwrap();
            go(&mut track, C, header).unwrap().1
        };
        assert!(assured(header(kind::ACK, 2, 0x0102_0304_0506)));
        assert!(!assured(header(kind::ACK, 2, 0x04_0506)));
        assert!(!assured(header(kind::DATA_ACK, 2, 0x0102_0304_0506)));
        assert!(assured(Header { extended: false, ..header(kind::ACK, 2, 0x04_0506) }));
    }

    #[test]
    fn what_may_begin_a_conn() {
        let loose = Knobs::default();
        let strict = Knobs { dccp_loose: false, ..loose };
        for number in 0..16 {
            let (expected, strictly) = match number {
                kind::REQUEST => (Ok((RQ, 240)), Ok((RQ, 240))),
                kind::SYNC | kind::SYNC_ACK => (Ok((NO, 0)), Err(InvalidReason::DccpPickup)),
                _ => (Err(InvalidReason::DccpNew), Err(InvalidReason::DccpNew)),
            };
            assert_eq!(first(number, &loose), expected, "{number}");
            assert_eq!(first(number, &strict), strictly, "{number}");
        }
    }

    #[test]
    fn a_reset_before_any_answer_ends_the_conn() {
        let (mut track, _) =
            DccpTrack::first(&header(kind::REQUEST, 1, 0), &Knobs::default()).unwrap();
        let reset = header(kind::RESET, 5, 1);
        let timeouts = Timeouts::default();
        assert_eq!(track.packet(&reset, S, Status::CONFIRMED, &timeouts), Outcome::Delete);
        assert_eq!(go(&mut track, S, reset), Ok((Some(240), false, TW)));
    }

    #[test]
    fn the_other_end_may_begin_anew() {
        // After the end, at once.
        let mut track = open();
        go(&mut track, S, header(kind::RESET, 11, 0)).unwrap();
        assert_eq!(go(&mut track, S, header(kind::REQUEST, 70, 0)), Ok((Some(240), false, RQ)));
        assert_eq!(go(&mut track, C, header(kind::RESPONSE, 80, 0)), Ok((Some(480), false, RS)));
        assert_eq!(go(&mut track, S, header(kind::ACK, 71, 80)), Ok((Some(480), true, PO)));
        // In the midst of a conn that is dead without our knowing: when it is answered.
        let mut track = open();
        assert_eq!(go(&mut track, S, header(kind::REQUEST, 70, 0)), Ok((None, false, OP)));
        assert_eq!(go(&mut track, C, header(kind::RESPONSE, 80, 0)), Ok((Some(480), false, RS)));
        assert_eq!(go(&mut track, S, header(kind::ACK, 71, 80)), Ok((Some(480), true, PO)));
        // A Response to nothing is passed over.
        let mut track = open();
        assert_eq!(go(&mut track, C, header(kind::RESPONSE, 80, 0)), Ok((None, false, OP)));
    }

    #[test]
    fn both_tables_whole() {
        let cell = |role, kind: u8, state| match step(role, kind, state) {
            Step::Invalid => '-',
            Step::Ignore => '.',
            Step::To(to) => ['0', 'q', 's', 'p', 'o', 'r', 'c', 't'][to as usize],
        };
        let table = |role| {
            (0..kind::COUNT as u8)
                .map(|kind| DccpState::ALL.map(|state| cell(role, kind, state)).iter().collect())
                .collect::<Vec<String>>()
        };
        // NO RQ RS PO OP CR CG TW
        assert_eq!(
            table(Role::Client),
            [
                "qqs....q", "-......-", "----orc-", "--pporc-", "--pporc-", "--------", "---ccc--",
                "-tttttt.", "........", "........",
            ]
        );
        assert_eq!(
            table(Role::Server),
            [
                "-......q", "-ss....-", "---oo-c-", "---oo-c-", "---oo-c-", "---rrrr-", "---cc-c-",
                "-ttttttt", "........", "........",
            ]
        );
        assert_eq!(step(Role::Client, 10, OP), Step::Invalid);
        assert_eq!(step(Role::Server, 255, OP), Step::Invalid);
    }

    #[test]
    fn headers_that_make_no_sense() {
        let mut bytes = [0, 5, 0, 6, 3, 0, 0, 0, 0b0100, 0, 0, 1, 0xaa, 0xaa, 0xaa, 0xaa];
        assert_eq!(sanity(&bytes[..]).unwrap().1, 16);
        assert_eq!(sanity(&bytes[..11]), Err(InvalidReason::DccpShort));
        for (offset, reason) in [(2, InvalidReason::DccpLength), (5, InvalidReason::DccpLength)] {
            bytes[4] = offset;
            assert_eq!(sanity(&bytes[..]), Err(reason));
        }
        bytes[4] = 3;
        bytes[5] = 1;
        assert_eq!(sanity(&bytes[..]).unwrap().1, 12);
        bytes[5] = 3;
        assert_eq!(sanity(&bytes[..]), Err(InvalidReason::DccpCoverage));
        bytes[5] = 0;
        bytes[8] = 10 << 1;
        assert_eq!(sanity(&bytes[..]), Err(InvalidReason::DccpType));
    }

    proptest! {
        #[test]
        fn any_packets_leave_words_that_lead_back(
            packets in proptest::collection::vec((any::<bool>(), 0u8..16, 0u64..4, 0u64..4), 0..20),
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut track = open();
            for (reply, kind, sequence, acknowledged) in packets {
                let direction = if reply { S } else { C };
                let _ = go(&mut track, direction, header(kind, sequence, acknowledged));
                prop_assert_eq!(DccpTrack::from_words(track.to_words()), track);
            }
            let _ = sanity(&bytes[..]);
        }
    }
}
