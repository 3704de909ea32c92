//! SYNPROXY: the gateway shakes hands with clients in their server's stead, and lets a client
//! through once it has shown that it is there (`ipt_SYNPROXY`, `nf_synproxy_core.c`).
//!
//! ```text
//!   client                    gateway                           server
//!     │ SYN ─────────────────► target: answered with a cookie      │
//!     │ ◄──── SYN|ACK, window 0                                    │
//!     │ ACK ─────────────────► target: is it our cookie?           │
//!     │                        the client's SYN, made anew ──────► │   a conn begins
//!     │                        hook: taken  ◄───────────── SYN|ACK │
//!     │                        the client's ACK, made anew ──────► │
//!     │ ◄─────── ACK, window   opened                              │
//!     │ data ────────────────► numbers moved ────────────────────► │
//! ```
//!
//! Until the cookie has come back nothing is kept. What the client asked for stands in the cookie
//! (its segment size) and in the time that it was told and tells back (window scale, SACK, ECN).
//! The *target* is a rule's; the *hook* is where packets of a conn that began so are about to
//! leave, behind all other edits and right before confirm. The conn's own numbers are in
//! `conntrack/proxied.rs`. The packets made here go the way of all that the gateway sends: OUTPUT,
//! POSTROUTING and tracking; the target is at neither, so that they meet it no more.

use crate::conntrack::events;
use crate::conntrack::proxied::Proxied;
use crate::conntrack::record::Conn;
use crate::conntrack::state::{CtState, Direction, Status};
use crate::conntrack::tcp::{TcpState, TcpTrack};
use crate::conntrack::tuple::proto;
use crate::nat::sequence::Shifts;
use crate::pipeline::answers::NO_LINK;
use crate::pipeline::burst::edit_cached;
use crate::pipeline::drops::DropReason;
use crate::pipeline::frame::{Frame, FramePool};
use crate::pipeline::track::tuple_of;
use crate::pipeline::transit::{Attached, Attachment, Extent, Transit};
use crate::pipeline::{At, Pipeline};
use crate::rules::facts::PortId;
use crate::rules::targets::synproxy::Synproxy;
use crate::rules::template::Template;
use crate::time::Now;
use crate::wire::address::Address;
use crate::wire::build;
use crate::wire::build::handshake::{self, Options, Segment};
use crate::wire::headers::Headers;
use crate::wire::tcp;
use crate::wire::tcp::flags::{ACK, CWR, ECE, RST, SYN};

/// What the lower bits of a time tell (`synproxy_init_timestamp_cookie`).
mod told {
    /// The client's window scale, or that it has none.
    pub(super) const SCALE: u32 = 0xf;
    /// It bears SACK.
    pub(super) const SACK: u32 = 1 << 4;
    /// It would like ECN.
    pub(super) const ECN: u32 = 1 << 5;
    /// All of them.
    pub(super) const ALL: u32 = 0x3f;
}

/// A segment that came.
#[derive(Clone, Copy)]
struct Heard {
    src: (Address, u16),
    dst: (Address, u16),
    seq: u32,
    ack: u32,
    flags: u8,
    window: u16,
    options: Options,
}

/// `None` if its header is not all there.
fn hear<F: Frame>(t: &Transit<F>) -> Option<Heard> {
    let h = &t.headers;
    let head = t.frame.head();
    let l4 = head.get(h.l4 as usize..head.len().min(h.end as usize))?;
    let view = tcp::View::new(l4)?;
    Some(Heard {
        src: (h.src, view.src_port()),
        dst: (h.dst, view.dst_port()),
        seq: view.seq(),
        ack: view.ack(),
        flags: view.flags(),
        window: view.window(),
        options: Options::read(view.options(l4)?),
    })
}

/// How a segment of ours is tracked.
#[derive(Clone, Copy)]
enum Goes {
    /// As any packet.
    Alone,
    /// As an answer within the conn of the packet that led to it.
    Within(Attachment),
    /// It opens a conn.
    Opening,
}

/// The conn of a packet as an answer of ours has it, whatever the packet's own direction.
fn within(a: &Attachment) -> Attachment {
    Attachment {
        direction: Direction::Reply,
        state: CtState::Established,
        fresh: false,
        lent: true,
        delete: false,
        events: 0,
        ..*a
    }
}

fn minute(now: Now) -> u32 {
    (now.unix_ns / 60_000_000_000) as u32
}

/// What the client is told of segment size, time, SACK and windows, and whether ECN is granted.
fn offer(heard: &Heard, proxy: Synproxy, now: Now) -> (Options, bool) {
    let asked = heard.options;
    let mss = asked.mss.filter(|_| proxy.has(Synproxy::MSS)).map(|_| proxy.mss);
    let plain = Options { mss, ..Options::default() };
    let timestamps = asked.timestamps.filter(|_| proxy.has(Synproxy::TIMESTAMP));
    // Without a time there is no place to note the rest.
    let Some((value, _)) = timestamps else { return (plain, false) };
    let scale = asked.window_scale.filter(|_| proxy.has(Synproxy::WSCALE));
    let sack_permitted = asked.sack_permitted && proxy.has(Synproxy::SACK_PERM);
    let ecn = heard.flags & (ECE | CWR) == ECE | CWR && proxy.has(Synproxy::ECN);
    let mut time = (now.unix_ns / 1_000_000) as u32 & !told::ALL;
    time |= scale.map_or(told::SCALE, u32::from);
    time |= if sack_permitted { told::SACK } else { 0 };
    time |= if ecn { told::ECN } else { 0 };
    let window_scale = scale.map(|_| proxy.wscale);
    (Options { timestamps: Some((time, value)), sack_permitted, window_scale, ..plain }, ecn)
}

/// What the client's SYN said, as its ACK tells back, and whether ECN was granted
/// (`synproxy_check_timestamp_cookie`).
fn recall(heard: &Heard, mss: u16) -> (Options, bool) {
    let mut options = Options { mss: Some(mss), ..heard.options };
    let Some((_, time)) = options.timestamps else { return (options, false) };
    let scale = time & told::SCALE;
    if scale != told::SCALE || options.window_scale.is_some() {
        options.window_scale = Some(scale as u8);
    }
    options.sack_permitted |= time & told::SACK != 0;
    (options, time & told::ECN != 0)
}

impl<P: FramePool> Pipeline<P> {
    /// The target: a first SYN or an ACK, its checksum right, ends here.
    #[inline(never)]
    pub(crate) fn synproxy(
        &mut self,
        pool: &mut P,
        t: &Transit<P::Frame>,
        proxy: Synproxy,
        at: At<'_>,
    ) -> DropReason {
        let Some(heard) = hear(t) else { return DropReason::SynRefused };
        if heard.flags & SYN != 0 {
            self.links.counters.synproxy.syn_received.add(1);
            self.answer_syn(pool, t, &heard, proxy, at);
            return DropReason::SynProxied;
        }
        self.take_ack(pool, t, &heard, heard.seq, at)
    }

    /// `synproxy_send_client_synack`.
    fn answer_syn(
        &mut self,
        pool: &mut P,
        t: &Transit<P::Frame>,
        heard: &Heard,
        proxy: Synproxy,
        at: At<'_>,
    ) {
        let (options, ecn) = offer(heard, proxy, at.now);
        let asked = heard.options.mss.unwrap_or(0);
        let tuple = tuple_of(&t.headers);
        let answer = Segment {
            src: heard.dst,
            dst: heard.src,
            seq: at.table.cookies.make(&tuple, heard.seq, asked, minute(at.now)),
            ack: heard.seq.wrapping_add(1),
            flags: if ecn { SYN | ACK | ECE } else { SYN | ACK },
            window: 0,
            options,
        };
        let goes = t.attachment().map_or(Goes::Alone, |a| Goes::Within(within(a)));
        self.say_segment(pool, &answer, goes, t.link(), at);
    }

    /// `synproxy_recv_client_ack`: if the ACK brings a cookie back, a SYN goes to the server, one
    /// number before `seq`.
    fn take_ack(
        &mut self,
        pool: &mut P,
        t: &Transit<P::Frame>,
        heard: &Heard,
        seq: u32,
        at: At<'_>,
    ) -> DropReason {
        let (cookie, began) = (heard.ack.wrapping_sub(1), heard.seq.wrapping_sub(1));
        let tuple = tuple_of(&t.headers);
        let size = at.table.cookies.judge(&tuple, began, cookie, minute(at.now));
        let counters = &self.links.counters.synproxy;
        let Some(mss) = size else {
            counters.cookie_invalid.add(1);
            return DropReason::SynRefused;
        };
        counters.cookie_valid.add(1);
        let (options, ecn) = recall(heard, mss);
        let opening = Segment {
            src: heard.src,
            dst: heard.dst,
            seq: seq.wrapping_sub(1),
            // The hook learns from it what the client was told.
            ack: cookie,
            flags: if ecn { SYN | ECE | CWR } else { SYN },
            window: heard.window,
            options,
        };
        self.say_segment(pool, &opening, Goes::Opening, t.link(), at);
        DropReason::SynProxied
    }

    fn say_segment(
        &mut self,
        pool: &mut P,
        segment: &Segment,
        goes: Goes,
        link: Option<PortId>,
        at: At<'_>,
    ) {
        let Some(mut frame) = self.generate(pool, build::ROOM) else { return };
        let Some(len) = handshake::write(frame.head_mut(), &NO_LINK, segment) else {
            return self.drop_frame(frame, DropReason::NoMbuf);
        };
        frame.truncate(len);
        let (lent, template) = match goes {
            Goes::Alone => (None, None),
            Goes::Within(a) => (Some(a), None),
            Goes::Opening => (None, Some(Template::PROXIED)),
        };
        self.originate_as(pool, frame, (lent, template), link, at);
    }

    /// What is done to a packet of a conn with an extension block when all else has been done, and
    /// before it confirms: the hook, the helper, and the numbers (`nf_confirm`).
    #[inline(always)]
    pub(crate) fn touch_last(
        &mut self,
        pool: &mut P,
        t: &mut Transit<P::Frame>,
        at: At<'_>,
    ) -> Result<(), DropReason> {
        let Attached::Conn(a) = &t.attached else { return Ok(()) };
        match at.table.records.get(a.conn) {
            Some(conn) if conn.extension().is_some() => self.touch(pool, t, conn, at),
            _ => Ok(()),
        }
    }

    #[inline(never)]
    fn touch(
        &mut self,
        pool: &mut P,
        t: &mut Transit<P::Frame>,
        conn: Conn<'_>,
        at: At<'_>,
    ) -> Result<(), DropReason> {
        let Attached::Conn(a) = t.attached else { return Ok(()) };
        match at.table.proxied(conn) {
            Some(proxied) if !a.error && t.headers.proto == proto::TCP => {
                self.proxy(pool, t, &a, (conn, proxied), at)
            }
            _ => self.read_as_helper(t, &a, conn, at),
        }
    }

    /// `ipv4_synproxy_hook`, `ipv6_synproxy_hook`.
    fn proxy(
        &mut self,
        pool: &mut P,
        t: &mut Transit<P::Frame>,
        a: &Attachment,
        (conn, proxied): (Conn<'_>, Proxied<'_>),
        at: At<'_>,
    ) -> Result<(), DropReason> {
        let Some(heard) = hear(t) else { return Err(DropReason::SynRefused) };
        let (flags, original) = (heard.flags, a.direction == Direction::Original);
        match TcpTrack::state_of_word(conn.tracker_word(TcpTrack::STATE_WORD)) {
            TcpState::Close if flags & RST != 0 && !original && !is_joined(conn) => {
                // To the client it is the answer to its ACK. The kernel takes any later one for
                // that, too, which the client has no use for then.
                let shift = proxied.number().wrapping_sub(heard.seq).wrapping_add(1);
                move_by(conn, proxied, shift);
            }
            TcpState::Close if flags & (SYN | ACK) == SYN && original => {
                proxied.set_time_shift(0);
                self.links.counters.synproxy.conn_reopened.add(1);
                note_opening(&heard, proxied);
            }
            TcpState::SynSent if flags & (SYN | ACK) == ACK && original => {
                let seq = heard.seq.wrapping_add(1);
                let reason = self.take_ack(pool, t, &heard, seq, at);
                if reason == DropReason::SynProxied {
                    self.links.counters.synproxy.cookie_retrans.add(1);
                }
                return Err(reason);
            }
            TcpState::SynSent => note_opening(&heard, proxied),
            TcpState::SynRecv if flags & (SYN | ACK) == SYN | ACK => {
                // What happened to the conn is told with the packets that follow from it.
                self.settle_events(a.events, conn, false, at);
                t.attached = Attached::Conn(Attachment { events: 0, ..*a });
                self.join_ends(pool, (t.link(), a), &heard, (conn, proxied), at);
                return Err(DropReason::SynProxied);
            }
            _ => {}
        }
        // An answer of REJECT has the numbers of the packet that it answers already.
        let numbers = is_joined(conn) && !(a.lent && a.state == CtState::Related);
        let shifts =
            Shifts { seq: if numbers { proxied.shift() } else { 0 }, time: proxied.time_shift() };
        let options_end = options_end(t);
        if let Some(datagram) = &mut t.datagram {
            datagram.as_it_came &= datagram.first >= options_end;
        }
        self.shift(&mut t.frame, (&t.headers).into(), shifts, a.direction)
    }

    /// The server has answered: it gets its ACK, the client hears that it may send, and both are
    /// one conn from now on.
    fn join_ends(
        &mut self,
        pool: &mut P,
        (link, a): (Option<PortId>, &Attachment),
        heard: &Heard,
        (conn, proxied): (Conn<'_>, Proxied<'_>),
        at: At<'_>,
    ) {
        let (id, times) = (conn.id(), heard.options.timestamps);
        let track = TcpTrack::from_words(conn.tracker_words());
        let after = heard.seq.wrapping_add(1);
        let to_server = Segment {
            src: heard.dst,
            dst: heard.src,
            seq: heard.ack,
            ack: after,
            flags: ACK,
            window: track.largest_window(Direction::Original) as u16,
            options: Options {
                timestamps: times.map(|(value, echo)| (echo, value)),
                ..Options::default()
            },
        };
        self.say_segment(pool, &to_server, Goes::Alone, link, at);
        // A rule may have ended the conn with it.
        if conn.id() != id || !self.owns(conn) {
            return;
        }
        // Not before, as in the kernel: that ACK would have its time moved, which newer servers
        // refuse.
        if let Some((value, _)) = times {
            proxied.set_time_shift(value.wrapping_sub(proxied.time()));
        }
        move_by(conn, proxied, proxied.number().wrapping_sub(heard.seq));
        self.settle_events(events::SEQADJ, conn, true, at);
        let to_client = Segment {
            src: heard.src,
            dst: heard.dst,
            seq: after,
            ack: heard.ack,
            flags: ACK,
            window: heard.window >> heard.options.window_scale.unwrap_or(0),
            options: Options { timestamps: times, ..Options::default() },
        };
        self.say_segment(pool, &to_client, Goes::Within(within(a)), link, at);
    }

    /// All that changes in a packet of a known conn that takes a cached path.
    #[inline]
    pub(crate) fn edit_on_path(
        &mut self,
        frame: &mut P::Frame,
        h: &Headers,
        macs: &[u8; 12],
        (conn, direction, status): (Conn<'_>, Direction, Status),
        at: At<'_>,
    ) -> Result<(), DropReason> {
        if status.has(Status::SEQ_ADJUST) {
            self.shift_cached(frame, h.into(), (conn, direction), at)?;
        }
        let edited = edit_cached(frame, h, macs, conn, direction, status);
        if edited { Ok(()) } else { Err(DropReason::NatDrop) }
    }

    /// Moves the numbers of a packet that takes a cached path.
    #[cold]
    #[inline(never)]
    pub(crate) fn shift_cached(
        &mut self,
        frame: &mut P::Frame,
        extent: Extent,
        (conn, direction): (Conn<'_>, Direction),
        at: At<'_>,
    ) -> Result<(), DropReason> {
        let Some(proxied) = at.table.proxied(conn) else { return Ok(()) };
        let shifts = Shifts { seq: proxied.shift(), time: proxied.time_shift() };
        self.shift(frame, extent, shifts, direction)
    }

    fn shift(
        &self,
        frame: &mut P::Frame,
        extent: Extent,
        shifts: Shifts,
        direction: Direction,
    ) -> Result<(), DropReason> {
        let head = frame.head_mut();
        let end = head.len().min(extent.end as usize);
        let l4 = head.get_mut(extent.l4 as usize..end).unwrap_or_default();
        if shifts.apply(l4, direction) {
            return Ok(());
        }
        self.links.counters.conntrack.drop.add(1);
        Err(DropReason::SynRefused)
    }
}

/// What the client was told, as the SYN to the server says.
fn note_opening(heard: &Heard, proxied: Proxied<'_>) {
    proxied.set_number(heard.ack);
    if let Some((_, echo)) = heard.options.timestamps {
        proxied.set_time(echo);
    }
}

/// True if both ends are known, and how far they are apart.
fn is_joined(conn: Conn<'_>) -> bool {
    conn.status().has(Status::SEQ_ADJUST)
}

/// `nf_ct_seqadj_init`.
fn move_by(conn: Conn<'_>, proxied: Proxied<'_>, shift: u32) {
    if shift != 0 {
        proxied.set_shift(shift);
        conn.add_status(Status::SEQ_ADJUST);
    }
}

/// Where the options of a segment end, behind its header's beginning.
fn options_end<F: Frame>(t: &Transit<F>) -> u16 {
    let offset = t.frame.head().get(t.headers.l4 as usize + 12);
    offset.map_or(0, |offset| u16::from(offset >> 4) * 4)
}
