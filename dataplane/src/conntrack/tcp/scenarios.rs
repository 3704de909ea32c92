//! Scenarios: whole exchanges with explicit numbers, each named after the behaviour it shows. All
//! were replayed on a Linux 6.18 router and gave the same verdicts, states and timeouts there.

use super::flags::{ACK, FIN, PSH, RST, SYN};
use super::*;
use crate::conntrack::invalid::InvalidReason;
use crate::conntrack::knobs::Knobs;
use crate::conntrack::state::{Direction, Status};
use crate::conntrack::timeouts::{Timeout, Timeouts};
use proptest::prelude::*;

/// Initial sequence numbers; the original side's numbers wrap early.
const ISN: [u32; 2] = [u32::MAX - 20, 5000];

/// MSS, SACK permitted, window scale 7.
const OFFER: &[u8] = &[2, 4, 5, 180, 4, 2, 3, 3, 7, 1, 1, 1];

const DAYS: u32 = 432_000;

/// A segment with a window of 1000; numbers are relative to the initial ones of either side.
fn seg(flags: u8, seq: u32, ack: u32) -> Segment<'static> {
    Segment { flags, seq, ack, window: 1000, data_len: 0, options: &[] }
}

fn payload(seq: u32, ack: u32, data_len: u32) -> Segment<'static> {
    Segment { data_len, ..seg(ACK | PSH, seq, ack) }
}

fn refreshed(secs: u32) -> Outcome {
    Outcome::Accept { timeout_secs: Some(secs), assured: false, changed: false }
}

fn entered(secs: u32) -> Outcome {
    Outcome::Accept { timeout_secs: Some(secs), assured: false, changed: true }
}

fn invalid(reason: InvalidReason) -> Outcome {
    Outcome::Invalid { reason, shorten_to_secs: None }
}

const IGNORED: Outcome = Outcome::Ignored(Unexpected::State);

/// A conn and what its owner would keep beside the track.
struct Conn {
    track: TcpTrack,
    status: Status,
    secs: u32,
    knobs: Knobs,
}

impl Conn {
    fn first_with(knobs: Knobs, first: Segment<'_>) -> Result<Conn, InvalidReason> {
        let first = absolute(first, Direction::Original);
        let (track, secs) = TcpTrack::first(&first, &knobs)?;
        Ok(Conn { track, status: Status::CONFIRMED, secs, knobs })
    }

    fn first(first: Segment<'_>) -> Conn {
        Conn::first_with(Knobs::default(), first).unwrap()
    }

    /// After a handshake; windows are 1000, not scaled.
    fn open() -> Conn {
        Conn::open_with(&[], &[])
    }

    fn open_with(syn: &[u8], syn_ack: &[u8]) -> Conn {
        let mut conn = Conn::first(Segment { options: syn, ..seg(SYN, 0, 0) });
        conn.reply(Segment { options: syn_ack, ..seg(SYN | ACK, 0, 1) });
        conn.original(seg(ACK, 1, 1));
        assert!(conn.status.has(Status::ASSURED));
        conn
    }

    fn original(&mut self, seg: Segment<'_>) -> Outcome {
        self.judge(absolute(seg, Direction::Original), Direction::Original)
    }

    fn reply(&mut self, seg: Segment<'_>) -> Outcome {
        self.judge(absolute(seg, Direction::Reply), Direction::Reply)
    }

    /// Judges a segment with absolute numbers and does what the owner does.
    fn judge(&mut self, seg: Segment<'_>, dir: Direction) -> Outcome {
        let mut track = TcpTrack::from_words(self.track.to_words());
        assert_eq!(track, self.track);
        let outcome = track.packet(&seg, dir, self.status, &self.knobs, self.secs);
        self.track = track;
        match outcome {
            Outcome::Accept { timeout_secs, assured, .. } => {
                self.secs = timeout_secs.unwrap_or(self.secs);
                self.status = self.status.with(if assured { Status::ASSURED } else { Status(0) });
                if dir == Direction::Reply {
                    self.status = self.status.with(Status::SEEN_REPLY);
                }
            }
            Outcome::Invalid { shorten_to_secs, .. } => {
                self.secs = shorten_to_secs.unwrap_or(self.secs);
            }
            Outcome::Ignored(_) if dir == Direction::Reply => {
                self.status = self.status.with(Status::SEEN_REPLY);
            }
            Outcome::Ignored(_) | Outcome::Restart | Outcome::Delete => (),
        }
        outcome
    }

    fn state(&self) -> TcpState {
        self.track.state()
    }
}

fn absolute(seg: Segment<'_>, dir: Direction) -> Segment<'_> {
    let seq = seg.seq.wrapping_add(ISN[dir.index()]);
    // Without ACK the field is zero on the wire.
    let acked = seg.flags & ACK != 0;
    let ack = if acked { seg.ack.wrapping_add(ISN[dir.opposite().index()]) } else { 0 };
    Segment { seq, ack, ..seg }
}

// --- beginning ---

#[test]
fn a_handshake_ends_established_and_assured() {
    let mut conn = Conn::first(seg(SYN, 0, 0));
    assert_eq!((conn.state(), conn.secs), (TcpState::SynSent, 120));
    assert_eq!(conn.reply(seg(SYN | ACK, 0, 1)), entered(60));
    assert_eq!(conn.state(), TcpState::SynRecv);
    let last = conn.original(seg(ACK, 1, 1));
    assert_eq!(last, Outcome::Accept { timeout_secs: Some(DAYS), assured: true, changed: true });
    assert_eq!(conn.state(), TcpState::Established);
    assert_eq!(conn.reply(seg(ACK, 1, 1)), refreshed(DAYS));
}

#[test]
fn a_repeated_syn_without_answer_does_not_refresh() {
    let mut conn = Conn::first(seg(SYN, 0, 0));
    conn.secs = 77;
    let kept = Outcome::Accept { timeout_secs: None, assured: false, changed: false };
    assert_eq!(conn.original(seg(SYN, 0, 0)), kept);
    assert_eq!((conn.state(), conn.secs), (TcpState::SynSent, 77));
}

#[test]
fn only_syn_and_ack_start_a_conn() {
    for flags in [SYN | ACK, FIN | ACK, RST, RST | ACK, 0] {
        let refused = Conn::first_with(Knobs::default(), seg(flags, 5, 5)).map(|_| ());
        assert_eq!(refused, Err(InvalidReason::TcpNew), "{flags:#x}");
    }
}

#[test]
fn without_tcp_loose_only_a_syn_starts_a_conn() {
    let knobs = Knobs { tcp_loose: false, ..Knobs::default() };
    let refused = Conn::first_with(knobs, seg(ACK, 5, 5)).map(|_| ());
    assert_eq!(refused, Err(InvalidReason::TcpPickup));
    assert!(Conn::first_with(knobs, seg(SYN, 0, 0)).is_ok());
}

#[test]
fn a_picked_up_conn_waits_for_an_answer_and_is_assured_one_packet_later() {
    let mut conn = Conn::first(payload(1, 1, 10));
    assert_eq!((conn.state(), conn.secs), (TcpState::Established, 300));
    assert_eq!(conn.original(payload(1, 1, 10)), refreshed(300));
    assert_eq!(conn.reply(seg(ACK, 1, 11)), refreshed(300), "the answer itself, too");
    let next = conn.original(seg(ACK, 11, 1));
    assert_eq!(next, Outcome::Accept { timeout_secs: Some(DAYS), assured: true, changed: false });
}

#[test]
fn a_picked_up_conn_is_judged_liberally_both_ways() {
    let mut conn = Conn::first(seg(ACK, 1, 1));
    conn.reply(seg(ACK, 1, 1));
    assert!(matches!(conn.original(payload(1_000_000, 1, 5)), Outcome::Accept { .. }));
    assert_eq!(conn.reply(seg(ACK, 1, 5_000_000)), refreshed(DAYS));
}

#[test]
fn a_conn_inserted_by_hand_is_judged_liberally() {
    let mut conn = Conn::open();
    conn.track = TcpTrack::inserted(TcpState::Established);
    assert_eq!(conn.original(seg(ACK, 1, 1)), refreshed(DAYS));
    assert_eq!(conn.original(payload(900_000, 1, 5)), refreshed(DAYS));
}

#[test]
fn syns_that_cross_open_a_conn_too() {
    let mut conn = Conn::first(seg(SYN, 0, 0));
    // Neither SYN refreshes: before any reply was accepted, this one counts as a repeat.
    let crossed = Outcome::Accept { timeout_secs: None, assured: false, changed: true };
    assert_eq!(conn.reply(seg(SYN, 0, 0)), crossed);
    assert_eq!((conn.state(), conn.secs), (TcpState::SynSent2, 120));
    assert_eq!(conn.reply(seg(SYN, 0, 0)), refreshed(120));
    assert_eq!(conn.original(seg(SYN | ACK, 0, 1)), entered(60));
    assert_eq!(conn.reply(seg(SYN | ACK, 0, 1)), IGNORED);
    assert!(matches!(conn.original(seg(ACK, 1, 1)), Outcome::Accept { assured: true, .. }));
}

#[test]
fn after_crossed_syns_the_replys_ack_establishes() {
    let mut conn = Conn::first(seg(SYN, 0, 0));
    conn.reply(seg(SYN, 0, 0));
    conn.original(seg(SYN | ACK, 0, 1));
    conn.reply(seg(ACK, 1, 1));
    assert_eq!(conn.state(), TcpState::Established);
}

#[test]
fn a_repeated_syn_with_newer_numbers_replaces_the_first() {
    let mut conn = Conn::first(seg(SYN, 0, 0));
    conn.original(Segment { options: OFFER, ..seg(SYN, 100, 0) });
    assert_eq!(conn.reply(Segment { options: OFFER, ..seg(SYN | ACK, 0, 101) }), entered(60));
    conn.original(seg(ACK, 101, 1));
    // 1000 << 7: the second SYN's scale counts.
    assert_eq!(conn.reply(payload(120_000, 101, 1)), refreshed(300));
}

#[test]
fn an_ack_before_the_answer_is_invalid_from_one_side_and_ignored_from_the_other() {
    let mut conn = Conn::first(seg(SYN, 0, 0));
    assert_eq!(conn.original(seg(ACK, 1, 1)), invalid(InvalidReason::TcpState));
    assert_eq!(conn.reply(seg(ACK, 9, 1)), IGNORED);
    assert_eq!(conn.state(), TcpState::SynSent);
}

// --- end ---

#[test]
fn an_orderly_close_walks_through_all_states() {
    let mut conn = Conn::open();
    assert_eq!(conn.original(seg(FIN | ACK, 1, 1)), entered(120));
    assert_eq!(conn.state(), TcpState::FinWait);
    assert_eq!(conn.reply(seg(ACK, 1, 2)), entered(60));
    assert_eq!(conn.state(), TcpState::CloseWait);
    assert_eq!(conn.reply(seg(FIN | ACK, 1, 2)), entered(30));
    assert_eq!(conn.state(), TcpState::LastAck);
    assert_eq!(conn.original(seg(ACK, 2, 2)), entered(120));
    assert_eq!(conn.state(), TcpState::TimeWait);
    assert_eq!(conn.reply(seg(FIN | ACK, 1, 2)), refreshed(120));
}

fn closed() -> Conn {
    let mut conn = Conn::open();
    conn.reply(seg(FIN | ACK, 1, 1));
    conn.original(seg(ACK, 1, 2));
    conn.original(seg(FIN | ACK, 1, 2));
    conn.reply(seg(ACK, 2, 2));
    assert_eq!(conn.state(), TcpState::TimeWait);
    conn
}

#[test]
fn a_syn_in_time_wait_restarts_from_either_side() {
    assert_eq!(closed().original(seg(SYN, 90_000, 0)), Outcome::Restart);
    assert_eq!(closed().reply(seg(SYN, 90_000, 0)), Outcome::Restart);
}

#[test]
fn a_syn_after_a_reset_restarts_only_for_the_side_that_reset() {
    let mut conn = Conn::open();
    conn.original(seg(RST, 1, 0));
    assert_eq!(conn.original(seg(SYN, 5000, 0)), Outcome::Restart);

    let mut conn = Conn::open();
    conn.reply(seg(RST, 1, 0));
    assert_eq!(conn.original(seg(SYN, 5000, 0)), IGNORED);
    assert_eq!(conn.reply(seg(SYN | ACK, 70_000, 5001)), entered(60), "the server took it");
}

#[test]
fn a_conn_that_the_gateway_reset_closes_once() {
    let mut conn = Conn::open();
    assert_eq!(conn.track.set_closing(&conn.knobs), Some(10));
    assert_eq!(conn.state(), TcpState::Close);
    assert_eq!(conn.track.set_closing(&conn.knobs), None);
}

// --- out of step ---

#[test]
fn an_answered_syn_that_was_ignored_brings_the_gateway_back_in_step() {
    let mut conn = Conn::open();
    let syn = Segment { window: 700, options: OFFER, ..seg(SYN, 900_000, 0) };
    assert_eq!(conn.original(syn), IGNORED);
    assert_eq!(conn.state(), TcpState::Established);
    let syn_ack = Segment { options: OFFER, ..seg(SYN | ACK, 300_000, 900_001) };
    assert_eq!(conn.reply(syn_ack), entered(60));
    assert_eq!(conn.state(), TcpState::SynRecv);
    assert_eq!(conn.original(seg(ACK, 900_001, 300_001)), entered(DAYS));
    // Both noted offers count: windows are scaled now.
    assert_eq!(conn.reply(payload(420_000, 900_001, 1)), refreshed(300));
}

#[test]
fn an_answer_to_another_syn_does_not() {
    let mut conn = Conn::open();
    conn.original(seg(SYN, 900_000, 0));
    assert_eq!(conn.reply(seg(SYN | ACK, 300_000, 900_002)), IGNORED);
    assert_eq!(conn.state(), TcpState::Established);
}

#[test]
fn a_reset_that_acknowledges_an_ignored_syn_closes() {
    let mut conn = Conn::open();
    conn.original(seg(SYN, 900_000, 0));
    assert_eq!(conn.reply(seg(RST | ACK, 77_777, 900_001)), entered(10));
    assert_eq!(conn.state(), TcpState::Close);
}

#[test]
fn a_challenge_ack_in_last_ack_is_not_the_last_ack() {
    let mut conn = Conn::open();
    conn.original(seg(FIN | ACK, 1, 1));
    conn.reply(seg(FIN | ACK, 1, 2));
    assert_eq!(conn.original(seg(SYN, 70_000, 0)), IGNORED);
    assert_eq!(conn.reply(seg(ACK, 2, 2)), Outcome::Ignored(Unexpected::Challenge));
    assert_eq!(conn.state(), TcpState::LastAck);
    assert_eq!(conn.reply(seg(ACK, 2, 2)), entered(120), "only one is forgiven");
}

#[test]
fn a_half_open_servers_challenge_lets_the_clients_reset_close() {
    let mut conn = Conn::first(seg(SYN, 0, 0));
    assert_eq!(conn.reply(seg(ACK, 700, 700)), IGNORED);
    assert_eq!(conn.original(seg(RST, 700, 0)), entered(10));

    let mut conn = Conn::first(seg(SYN, 0, 0));
    conn.reply(seg(ACK, 700, 700));
    let other = conn.original(seg(RST, 600, 0));
    assert_eq!(other, invalid(InvalidReason::TcpSeqOver), "not what was challenged");
}

// --- reset ---

#[test]
fn a_reset_before_any_reply_deletes_at_once() {
    let zero = Segment { seq: 0, ..absolute(seg(RST | ACK, 0, 1), Direction::Reply) };
    assert_eq!(Conn::first(seg(SYN, 0, 0)).judge(zero, Direction::Reply), Outcome::Delete);
    assert_eq!(Conn::first(seg(SYN, 0, 0)).original(seg(RST, 1, 0)), Outcome::Delete);
}

#[test]
fn an_exact_reset_closes_an_established_conn() {
    let mut conn = Conn::open();
    assert_eq!(conn.reply(seg(RST, 1, 0)), entered(10));
    assert_eq!(conn.state(), TcpState::Close);
}

#[test]
fn an_inexact_reset_keeps_established_but_for_ten_seconds_only() {
    let mut conn = Conn::open();
    assert_eq!(conn.reply(seg(RST, 50, 0)), refreshed(10));
    assert_eq!(conn.state(), TcpState::Established);
    // Nothing was acknowledged beyond the reset's number, so the challenge ACK waits as usual.
    assert_eq!(conn.original(seg(ACK, 1, 1)), refreshed(300));
}

#[test]
fn a_reset_right_behind_its_own_last_segment_closes() {
    let mut conn = Conn::open();
    conn.reply(payload(1, 1, 50));
    assert_eq!(conn.reply(seg(RST | ACK, 51, 1)), entered(10));
}

#[test]
fn a_reset_below_the_highest_ack_is_invalid_unless_told_otherwise() {
    let mut conn = Conn::open();
    conn.reply(payload(1, 1, 50));
    conn.original(seg(ACK, 1, 51));
    assert_eq!(conn.reply(seg(RST, 10, 0)), invalid(InvalidReason::TcpRst));
    conn.knobs.tcp_ignore_invalid_rst = true;
    assert_eq!(conn.reply(seg(RST, 10, 0)), refreshed(10));
}

#[test]
fn a_reset_beyond_the_window_is_invalid() {
    let mut conn = Conn::open();
    assert_eq!(conn.reply(seg(RST, 100_000, 0)), invalid(InvalidReason::TcpSeqOver));
    assert_eq!(conn.secs, DAYS);
}

#[test]
fn a_reset_with_ack_flag_and_zero_ack_is_taken() {
    let mut conn = Conn::open();
    let broken = Segment { ack: 0, ..absolute(seg(RST | ACK, 1, 0), Direction::Reply) };
    assert_eq!(conn.judge(broken, Direction::Reply), entered(10));
}

#[test]
fn any_reset_is_taken_once_the_conn_is_closing() {
    let mut conn = closed();
    assert_eq!(conn.reply(seg(RST, 123_456, 0)), entered(10));
}

// --- timeouts ---

#[test]
fn unacknowledged_bytes_shorten_the_timeout_until_all_are_acknowledged() {
    let mut conn = Conn::open();
    assert_eq!(conn.original(payload(1, 1, 100)), refreshed(300));
    assert_eq!(conn.original(payload(101, 1, 100)), refreshed(300));
    assert_eq!(conn.reply(seg(ACK, 1, 101)), refreshed(300), "half of it");
    assert_eq!(conn.reply(seg(ACK, 1, 201)), refreshed(DAYS));
}

#[test]
fn a_closed_window_shortens_the_timeout_until_it_opens() {
    let mut conn = Conn::open();
    assert_eq!(conn.reply(Segment { window: 0, ..seg(ACK, 1, 1) }), refreshed(300));
    assert_eq!(conn.original(seg(ACK, 1, 1)), refreshed(DAYS));
}

#[test]
fn the_fourth_identical_ack_shortens_the_timeout() {
    let mut conn = Conn::open();
    conn.knobs.timeouts.set(Timeout::TcpMaxRetrans, 250);
    let timeouts = [(); 5].map(|()| conn.original(seg(ACK, 1, 1)));
    let expected = [DAYS, DAYS, 250, 250, 250].map(refreshed);
    assert_eq!(timeouts, expected, "the handshake's ACK was the first");
    assert_eq!(conn.reply(seg(ACK, 1, 1)), refreshed(DAYS), "any other resets the count");
}

#[test]
fn the_count_of_repeats_wraps_like_the_kernels() {
    let mut conn = Conn::open();
    for _ in 0..255 {
        conn.original(seg(ACK, 1, 1));
    }
    let timeouts = [(); 4].map(|()| conn.original(seg(ACK, 1, 1)));
    assert_eq!(timeouts, [DAYS, DAYS, DAYS, 300].map(refreshed));
}

#[test]
fn a_timeout_shorter_than_the_special_ones_stays() {
    let mut conn = Conn::open();
    conn.knobs.timeouts.set(Timeout::TcpEstablished, 99);
    assert_eq!(conn.original(payload(1, 1, 100)), refreshed(99));
}

#[test]
fn impossible_ends_from_both_sides_shorten_what_is_left() {
    for flags in [FIN | ACK, RST] {
        let mut conn = Conn::open();
        let over = invalid(InvalidReason::TcpSeqOver);
        assert_eq!(conn.original(seg(flags, 900_000, 1)), over);
        assert_eq!(conn.original(seg(flags, 900_000, 1)), over, "the same side again");
        let reason = InvalidReason::TcpSeqOver;
        let shortened = Outcome::Invalid { reason, shorten_to_secs: Some(300) };
        assert_eq!(conn.reply(seg(flags, 900_000, 1)), shortened);
        assert_eq!(conn.reply(seg(flags, 900_000, 1)), over, "nothing left to shorten");
    }
}

#[test]
fn impossible_ends_shorten_neither_unassured_nor_fixed_conns() {
    for status in [Status::SEEN_REPLY, Status::SEEN_REPLY.with(Status::ASSURED)] {
        let mut conn = Conn::open();
        let fixed = status.has(Status::ASSURED);
        conn.status = status.with(if fixed { Status::FIXED_TIMEOUT } else { Status(0) });
        for dir in [Direction::Original, Direction::Reply] {
            let end = absolute(seg(FIN | ACK, 900_000, 1), dir);
            assert_eq!(conn.judge(end, dir), invalid(InvalidReason::TcpSeqOver));
        }
    }
}

// --- windows ---

#[test]
fn beyond_the_window_is_invalid_and_moves_nothing() {
    let mut conn = Conn::open();
    let before = conn.track;
    assert_eq!(conn.original(payload(1002, 1, 1000)), invalid(InvalidReason::TcpSeqOver));
    assert_eq!(conn.track, before);
    assert_eq!(conn.original(payload(1001, 1, 1)), refreshed(300), "touching is enough");
}

#[test]
fn an_overrun_by_less_than_a_window_passes_and_may_be_acknowledged() {
    let mut conn = Conn::open();
    conn.original(payload(1, 1, 1000));
    conn.secs = 7;
    assert_eq!(conn.original(payload(1010, 1, 900)), Outcome::Ignored(Unexpected::Overshoot));
    assert_eq!(conn.secs, 7);
    assert_eq!(conn.reply(seg(ACK, 1, 1910)), refreshed(DAYS));
}

#[test]
fn acknowledging_what_was_never_sent_is_invalid() {
    let mut conn = Conn::open();
    assert_eq!(conn.original(seg(ACK, 1, 2)), invalid(InvalidReason::TcpAckOver));
}

#[test]
fn data_older_than_a_window_is_ignored() {
    let mut conn = Conn::open();
    for at in [1, 1001, 2001] {
        conn.original(payload(at, 1, 1000));
        conn.reply(seg(ACK, 1, at + 1000));
    }
    conn.secs = 7;
    assert_eq!(conn.original(payload(1, 1, 10)), Outcome::Ignored(Unexpected::SeqUnder));
    assert_eq!(
        conn.original(payload(1901, 1, 99)),
        Outcome::Ignored(Unexpected::SeqUnder),
        "ends one byte too early"
    );
    assert_eq!(conn.secs, 7);
    assert_eq!(conn.original(payload(1901, 1, 100)), refreshed(DAYS));
}

#[test]
fn an_ack_lags_66000_bytes_at_most() {
    let mut conn = Conn::open();
    conn.reply(payload(1, 1, 900));
    conn.secs = 7;
    let lag = |by: u32| seg(ACK, 1, 901u32.wrapping_sub(by));
    assert_eq!(conn.original(lag(66_001)), Outcome::Ignored(Unexpected::AckUnder));
    assert_eq!(conn.secs, 7);
    assert_eq!(conn.original(lag(66_000)), refreshed(300));
}

#[test]
fn windows_are_scaled_only_if_both_offered_it() {
    let mut both = Conn::open_with(OFFER, OFFER);
    assert_eq!(both.reply(payload(128_000, 1, 1)), refreshed(300));
    for (syn, syn_ack) in [(OFFER, &[][..]), (&[][..], OFFER)] {
        let mut one = Conn::open_with(syn, syn_ack);
        assert_eq!(one.reply(payload(128_000, 1, 1)), invalid(InvalidReason::TcpSeqOver));
    }
}

#[test]
fn a_scale_above_14_is_taken_as_14() {
    let offer = &[3, 3, 15, 0];
    let mut conn = Conn::first(Segment { options: offer, window: 1, ..seg(SYN, 0, 0) });
    conn.reply(Segment { options: offer, window: 1, ..seg(SYN | ACK, 0, 1) });
    conn.original(Segment { window: 1, ..seg(ACK, 1, 1) });
    let window = 1 << 14;
    let beyond = Segment { window: 1, ..payload(window + 2, 1, 1) };
    assert_eq!(conn.reply(beyond), Outcome::Ignored(Unexpected::Overshoot));
    let mut beyond = Segment { window: 1, ..payload(3 * window, 1, 1) };
    assert_eq!(conn.reply(beyond), invalid(InvalidReason::TcpSeqOver));
    beyond.seq = window + 1;
    assert_eq!(conn.reply(beyond), refreshed(300));
}

#[test]
fn the_highest_sack_edge_counts_as_the_ack_if_sack_was_permitted() {
    let edge = |right: u32| {
        let mut options = [1, 1, 5, 10, 0, 0, 0, 0, 0, 0, 0, 0];
        options[8..].copy_from_slice(&ISN[1].wrapping_add(right).to_be_bytes());
        options
    };
    let mut conn = Conn::open_with(OFFER, OFFER);
    conn.reply(payload(1, 1, 200));
    assert_eq!(conn.original(Segment { options: &edge(201), ..seg(ACK, 1, 1) }), refreshed(300));
    let over = conn.original(Segment { options: &edge(202), ..seg(ACK, 1, 1) });
    assert_eq!(over, invalid(InvalidReason::TcpAckOver));

    let mut conn = Conn::open();
    conn.reply(payload(1, 1, 200));
    let unread = conn.original(Segment { options: &edge(900), ..seg(ACK, 1, 1) });
    assert_eq!(unread, refreshed(300));
}

#[test]
fn with_tcp_be_liberal_only_bad_resets_are_invalid() {
    let mut conn = Conn::open();
    conn.knobs.tcp_be_liberal = true;
    assert_eq!(conn.original(payload(50_000, 1, 5)), refreshed(DAYS), "and the window stays");
    assert_eq!(conn.reply(seg(ACK, 1, 60_000)), refreshed(DAYS));
    conn.reply(payload(1, 1, 50));
    conn.original(seg(ACK, 1, 51));
    assert_eq!(conn.reply(seg(RST, 10, 0)), invalid(InvalidReason::TcpRst));
}

#[test]
fn a_probe_of_a_closed_window_is_inside() {
    let mut conn = Conn::open();
    conn.original(payload(1, 1, 1000));
    conn.reply(Segment { window: 0, ..seg(ACK, 1, 1001) });
    assert_eq!(conn.original(payload(1001, 1, 1)), refreshed(300));
}

#[test]
fn flags_that_fit_no_state_are_invalid() {
    let mut conn = Conn::open();
    assert_eq!(conn.reply(seg(SYN, 9, 0)), invalid(InvalidReason::TcpState));
    assert_eq!(conn.original(seg(SYN | ACK, 0, 1)), invalid(InvalidReason::TcpState));
    let mut conn = Conn::first(seg(SYN, 0, 0));
    assert_eq!(conn.reply(seg(FIN | ACK, 0, 1)), invalid(InvalidReason::TcpState));
}

// --- properties ---

/// Numbers that crowd around the interesting places.
fn number() -> impl Strategy<Value = u32> {
    let near = (0usize..2, -3000i32..3000).prop_map(|(side, by)| ISN[side].wrapping_add_signed(by));
    prop_oneof![4 => near, 1 => any::<u32>(), 1 => Just(0)]
}

prop_compose! {
    fn segment()(
        header: [u8; 20],
        flags in prop_oneof![
            Just(SYN), Just(SYN | ACK), Just(ACK), Just(ACK | PSH), Just(FIN | ACK), Just(RST),
            Just(RST | ACK), any::<u8>()
        ],
        seq in number(),
        ack in number(),
        options in proptest::collection::vec(any::<u8>(), 0..=10),
        data_len in prop_oneof![Just(0u32), 1u32..1500, any::<u32>()],
    ) -> (Vec<u8>, u32) {
        let mut l4 = header.to_vec();
        l4.extend(options.iter().flat_map(|&b| [1, b & 7, 10, b]));
        l4[4..8].copy_from_slice(&seq.to_be_bytes());
        l4[8..12].copy_from_slice(&ack.to_be_bytes());
        l4[12] = (l4.len() as u8 / 4) << 4;
        l4[13] = flags;
        let len = (l4.len() as u32).saturating_add(data_len);
        (l4, len)
    }
}

#[test]
fn a_reset_refers_to_the_other_sides_ignored_syn_not_to_its_own() {
    let ignored_syn = || {
        let mut conn = Conn::open();
        assert_eq!(conn.original(seg(SYN, 70_000, 0)), IGNORED);
        conn
    };
    let over = invalid(InvalidReason::TcpAckOver);
    let own =
        Segment { ack: ISN[0].wrapping_add(70_001).wrapping_sub(ISN[1]), ..seg(RST | ACK, 1, 0) };
    assert_eq!(ignored_syn().original(own), over);
    let mut conn = ignored_syn();
    assert_eq!(conn.reply(seg(RST | ACK, 1, 70_001)), entered(10));
    assert_eq!(conn.state(), TcpState::Close);
}

proptest! {
    #[test]
    fn words_survive_the_record(words: [u64; 7]) {
        let track = TcpTrack::from_words(words);
        prop_assert_eq!(TcpTrack::from_words(track.to_words()), track);
        prop_assert_eq!(TcpTrack::state_of_word(words[TcpTrack::STATE_WORD]), track.state());
    }

    #[test]
    fn any_exchange_is_judged_without_panic_and_with_known_timeouts(
        words: [u64; 7],
        status in any::<u16>().prop_map(Status),
        liberal: bool,
        exchange in proptest::collection::vec((segment(), any::<bool>()), 1..20),
    ) {
        let knobs = Knobs { tcp_be_liberal: liberal, ..Knobs::default() };
        let known = |secs: u32| Timeout::ALL.iter().any(|&t| Timeouts::default().get(t) == secs);
        let mut track = TcpTrack::from_words(words);
        for ((l4, len), reply) in &exchange {
            let Ok(seg) = sanity(l4, *len) else { continue };
            let dir = if *reply { Direction::Reply } else { Direction::Original };
            match track.packet(&seg, dir, status, &knobs, 5000) {
                Outcome::Accept { timeout_secs, assured, .. } => {
                    prop_assert!(timeout_secs.is_none_or(known));
                    prop_assert!(!assured || track.state() == TcpState::Established);
                    prop_assert!(!assured || !status.has(Status::ASSURED));
                }
                Outcome::Invalid { shorten_to_secs, .. } => {
                    prop_assert!(shorten_to_secs.is_none_or(known));
                }
                Outcome::Ignored(_) | Outcome::Restart | Outcome::Delete => (),
            }
            prop_assert_eq!(TcpTrack::from_words(track.to_words()), track);
            if let Ok((first, secs)) = TcpTrack::first(&seg, &knobs) {
                prop_assert!(known(secs) && first.state() != TcpState::None);
            }
        }
    }

    #[test]
    fn an_invalid_segment_changes_no_state(
        exchange in proptest::collection::vec((segment(), any::<bool>()), 1..20),
    ) {
        let mut conn = Conn::open();
        for ((l4, len), reply) in &exchange {
            let Ok(seg) = sanity(l4, *len) else { continue };
            let state = conn.state();
            let dir = if *reply { Direction::Reply } else { Direction::Original };
            if let Outcome::Invalid { .. } = conn.judge(seg, dir) {
                prop_assert_eq!(conn.state(), state);
            }
        }
    }
}
