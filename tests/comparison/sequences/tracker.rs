//! The TCP tracker's corners, one by one, and then by chance: exchanges drawn by lot, in which
//! every verdict, sentence, timer, state and count has to be the kernel's. Nothing is dropped, so
//! that all that is judged comes out.

use super::{Ends, OPEN, Sequence, Setup, both, sequence};
use crate::packets::{Packet, sack, syn_options};
use crate::script::Script;
use crate::topology::{C1, S1};

/// Sequences about the tracker.
pub fn group() -> Vec<Sequence> {
    let mut all = vec![
        counted(),
        counted_to_the_end(),
        challenged_syn(),
        challenged_and_reset(),
        opened_at_once_and_confirmed(),
        opened_at_once_with_scales(),
        reset_of_zero(),
        reset_that_acknowledges_nothing(),
        reset_behind_other_data(),
        reset_of_unassured(),
        reopened_after_foreign_reset(),
        resynchronised_with_options(),
        resynchronised_when_liberal(),
        syn_ack_of_another_syn(),
        larger_syn(),
        larger_syn_ack(),
        syn_without_window(),
        two_blocks(),
        blocks_not_permitted(),
        broken_blocks(),
        timestamps(),
        odd_options(),
        picked_up_keep_alive(),
        picked_up_and_reset(),
        many_repeats(),
        window_closed_by_fin(),
        ends_out_of_window_unassured(),
        end_and_reset_out_of_window(),
        hardly_any_time_left(),
        overshoots(),
        last_ack_repeated(),
        reset_of_the_side_that_asked(),
        reset_answers_watched_syn(),
        reset_behind_a_crossing_syn(),
        reset_of_the_side_that_acknowledged(),
        every_class_in_every_state(),
    ];
    all.extend(drawn_by_lot());
    all
}

fn open() -> Setup {
    Setup { settings: &[("acct", 1)], ..both(&[("filter", OPEN)]) }
}

fn ends() -> Ends {
    Ends::plain((C1, 4000), (S1, 80))
}

fn tracker(name: &'static str, shows: &'static str, script: fn(&mut Script<'_>)) -> Sequence {
    sequence(name, shows, open(), script)
}

fn counted() -> Sequence {
    tracker("counted", "what is ignored, repeated as SYN or INVALID does not count", |s| {
        let ends = ends();
        s.lan(ends.c("S", 1000, 0));
        s.lan(ends.c("S", 1000, 0));
        s.table();
        s.wan(ends.s("SA", 5000, 1001));
        s.lan(ends.c("A", 1001, 5001));
        s.lan(ends.c("PA", 1001, 5001).payload(&[1; 10]));
        s.table();
        s.lan(ends.c("S", 70_000, 0));
        s.lan(ends.c("A", 4_290_000_000, 5001));
        s.lan(ends.c("PA", 200_000, 5001).payload(&[1; 10]));
        s.lan(ends.c("PA", 9100, 5001).payload(&[1; 200]));
        s.wan(ends.s("A", 5001, 900_000));
        s.table();
    })
}

fn counted_to_the_end() -> Sequence {
    tracker("counted-to-the-end", "FINs, resets and what comes after them count", |s| {
        let ends = ends();
        ends.open(s);
        s.lan(ends.c("FA", 1001, 5001));
        s.wan(ends.s("FA", 5001, 1002));
        s.lan(ends.c("A", 1002, 5002));
        s.table();
        s.wan(ends.s("R", 5002, 0));
        s.wan(ends.s("A", 5002, 1002));
        s.table();
    })
}

fn challenged_syn() -> Sequence {
    tracker("challenged-syn", "an ACK answers the SYN: ignored, and an answer all the same", |s| {
        let ends = ends();
        s.lan(ends.c("S", 1000, 0));
        s.wan(ends.s("A", 88_000, 77_000));
        s.table();
        s.lan(ends.c("S", 1000, 0));
        s.table();
        s.wan(ends.s("SA", 5000, 1001));
        s.table();
    })
}

fn challenged_and_reset() -> Sequence {
    tracker("challenged-and-reset", "the reset that a challenge ACK brings", |s| {
        let ends = ends();
        s.lan(ends.c("S", 1000, 0));
        s.wan(ends.s("A", 88_000, 77_000));
        s.lan(ends.c("R", 77_001, 0));
        s.table();
        s.lan(ends.c("R", 77_000, 0));
        s.table();
        s.lan(ends.c("S", 1000, 0));
        s.table();
    })
}

fn opened_at_once_and_confirmed() -> Sequence {
    tracker("opened-at-once-and-confirmed", "crossing SYNs, the reply's ACK ends it", |s| {
        let ends = ends();
        s.lan(ends.c("S", 1000, 0));
        s.wan(ends.s("S", 5000, 0));
        s.wan(ends.s("S", 5000, 0));
        s.lan(ends.c("S", 1000, 0));
        s.table();
        s.lan(ends.c("A", 1001, 5001));
        s.wan(ends.s("A", 5001, 1001));
        s.lan(ends.c("SA", 1000, 5001));
        s.table();
        s.wan(ends.s("A", 5001, 1001));
        s.table();
        s.lan(ends.c("A", 1001, 5001));
        s.table();
    })
}

fn opened_at_once_with_scales() -> Sequence {
    tracker("opened-at-once-with-scales", "one of the crossing SYNs offers a scale", |s| {
        let ends = ends();
        s.lan(ends.c("S", 1000, 0).options(&syn_options(1460, 7)));
        s.wan(ends.s("S", 5000, 0));
        s.wan(ends.s("SA", 5000, 1001).options(&syn_options(1460, 7)));
        s.lan(ends.c("SA", 1000, 5001));
        s.lan(ends.c("A", 1001, 5001).window(1000));
        s.wan(ends.s("PA", 50_001, 1001).payload(&[1; 100]));
        s.table();
    })
}

fn reset_of_zero() -> Sequence {
    tracker("reset-of-zero", "RST with number 0, before and after the handshake", |s| {
        let ends = ends();
        s.lan(ends.c("S", 1000, 0));
        s.wan(ends.s("SA", 5000, 1001));
        s.wan(ends.s("R", 0, 0));
        s.table();
        s.lan(ends.c("S", 1000, 0));
        s.lan(ends.c("A", 1001, 5001));
        s.wan(ends.s("RA", 0, 1001));
        s.table();
    })
}

fn reset_that_acknowledges_nothing() -> Sequence {
    tracker("reset-acknowledging-0", "RST with ACK and acknowledgement 0", |s| {
        let ends = ends();
        ends.open(s);
        s.wan(ends.s("RA", 5001, 0));
        s.table();
    })
}

fn reset_behind_other_data() -> Sequence {
    tracker("reset-behind-other-data", "data of the other side comes before the reset", |s| {
        let ends = ends();
        ends.open(s);
        s.lan(ends.c("PA", 1001, 5001).payload(&[1; 50]));
        s.wan(ends.s("PA", 5001, 1001).payload(&[1; 50]));
        s.lan(ends.c("R", 1051, 0));
        s.table();
        s.lan(ends.c("PA", 1051, 5051).payload(&[1; 50]));
        s.lan(ends.c("R", 1102, 0));
        s.table();
        s.lan(ends.c("R", 1101, 0));
        s.table();
    })
}

fn reset_of_unassured() -> Sequence {
    tracker("reset-of-unassured", "inexact resets before the conn is ASSURED", |s| {
        let ends = ends();
        s.lan(ends.c("S", 1000, 0));
        s.wan(ends.s("SA", 5000, 1001));
        s.wan(ends.s("R", 4999, 0));
        s.wan(ends.s("R", 900_000, 0));
        s.lan(ends.c("R", 900, 0));
        s.table();
        s.wan(ends.s("R", 5100, 0));
        s.table();
    })
}

fn reopened_after_foreign_reset() -> Sequence {
    tracker("reopened-after-foreign-reset", "after the server's RST a SYN is watched first", |s| {
        let ends = ends();
        ends.open(s);
        s.wan(ends.s("RA", 5001, 1001));
        s.lan(ends.c("S", 90_000, 0).options(&syn_options(1460, 4)));
        s.table();
        s.wan(ends.s("SA", 40_000, 90_001).options(&syn_options(1460, 6)));
        s.table();
        s.lan(ends.c("A", 90_001, 40_001));
        s.table();
    })
}

fn resynchronised_with_options() -> Sequence {
    tracker("resynchronised-with-options", "scale and SACK of the SYN that was watched", |s| {
        let ends = ends();
        ends.open(s);
        s.lan(ends.c("S", 700_000, 0).window(500).options(&syn_options(1460, 5)));
        s.wan(ends.s("SA", 900_000, 700_001).options(&syn_options(1460, 2)));
        s.lan(ends.c("A", 700_001, 900_001).window(4000));
        s.wan(ends.s("PA", 1_000_000, 700_001).payload(&[1; 100]));
        s.lan(ends.c("A", 700_001, 900_001).options(&sack(1_000_000, 1_000_100)));
        s.table();
    })
}

fn resynchronised_when_liberal() -> Sequence {
    tracker("resynchronised-when-liberal", "a picked up conn begins again", |s| {
        let ends = ends();
        s.lan(ends.c("A", 77_000, 88_000));
        s.wan(ends.s("A", 88_000, 77_000));
        s.lan(ends.c("S", 700_000, 0));
        s.wan(ends.s("SA", 900_000, 700_001));
        s.lan(ends.c("PA", 5, 900_001).payload(&[1; 100]));
        s.wan(ends.s("PA", 5, 700_001).payload(&[1; 100]));
        s.table();
    })
}

fn syn_ack_of_another_syn() -> Sequence {
    tracker("syn-ack-of-another-syn", "SYN/ACKs that answer no watched SYN", |s| {
        let ends = ends();
        ends.open(s);
        s.lan(ends.c("S", 700_000, 0));
        s.wan(ends.s("SA", 900_000, 700_002));
        s.wan(ends.s("SA", 900_000, 700_001));
        s.table();
        s.lan(ends.c("SA", 1, 1));
        s.table();
    })
}

fn larger_syn() -> Sequence {
    tracker("larger-syn", "a later SYN brings numbers and options of its own", |s| {
        let ends = ends();
        s.lan(ends.c("S", 1000, 0).options(&syn_options(1460, 7)));
        s.lan(ends.c("S", 900, 0));
        s.lan(ends.c("S", 9000, 0).window(100));
        s.wan(ends.s("SA", 5000, 9001).options(&syn_options(1460, 7)));
        s.lan(ends.c("A", 9001, 5001).window(1000));
        s.wan(ends.s("PA", 60_001, 9001).payload(&[1; 100]));
        s.wan(ends.s("PA", 200_001, 9001).payload(&[1; 100]));
        s.table();
    })
}

fn larger_syn_ack() -> Sequence {
    tracker("larger-syn-ack", "a later SYN/ACK has a number or an option of its own", |s| {
        let ends = ends();
        s.lan(ends.c("S", 1000, 0).options(&syn_options(1460, 7)));
        s.wan(ends.s("SA", 5000, 1001).options(&syn_options(1460, 7)));
        s.wan(ends.s("SA", 6000, 1001));
        s.lan(ends.c("A", 1001, 6001).window(1000));
        s.wan(ends.s("PA", 60_001, 1001).payload(&[1; 100]));
        s.table();
    })
}

fn syn_without_window() -> Sequence {
    tracker("syn-without-window", "windows of zero in the handshake", |s| {
        let ends = ends();
        s.lan(ends.c("S", 1000, 0).window(0));
        s.wan(ends.s("SA", 5000, 1001).window(0));
        s.table();
        s.lan(ends.c("A", 1001, 5001).window(0));
        s.lan(ends.c("A", 1001, 5001).payload(b"xy"));
        s.table();
    })
}

fn established_with_sack(s: &mut Script<'_>, ends: &Ends) {
    s.lan(ends.c("S", 1000, 0).options(&syn_options(1460, 2)));
    s.wan(ends.s("SA", 5000, 1001).options(&syn_options(1460, 2)));
    s.lan(ends.c("A", 1001, 5001));
    s.lan(ends.c("A", 1001, 5001).payload(&[1; 100]));
    s.lan(ends.c("A", 1201, 5001).payload(&[1; 100]));
}

fn two_blocks() -> Sequence {
    tracker("two-blocks", "the highest edge of several SACK blocks counts", |s| {
        let ends = ends();
        established_with_sack(s, &ends);
        let block = |edges: [u32; 2]| edges.map(u32::to_be_bytes).concat();
        let of = |a, b| [vec![1, 1, 5, 18], block(a), block(b)].concat();
        s.wan(ends.s("A", 5001, 1101).options(&of([1201, 1301], [1151, 1160])));
        s.wan(ends.s("A", 5001, 1101).options(&of([1151, 1160], [1201, 1302])));
        s.wan(
            ends.s("A", 5001, 1101).options(&[sack(1151, 1160), of([1, 2], [9000, 9001])].concat()),
        );
        s.table();
    })
}

fn blocks_not_permitted() -> Sequence {
    tracker("blocks-not-permitted", "SACK blocks to a side that never permitted them", |s| {
        let ends = ends();
        ends.open(s);
        s.lan(ends.c("A", 1001, 5001).payload(&[1; 100]));
        s.wan(ends.s("A", 5001, 1001).options(&sack(90_000, 90_100)));
        s.table();
    })
}

fn broken_blocks() -> Sequence {
    tracker("broken-blocks", "SACK options of odd lengths", |s| {
        let ends = ends();
        established_with_sack(s, &ends);
        let far = 90_000u32.to_be_bytes();
        let with = |head: &[u8], tail: &[u8]| [head, &far, &far, tail].concat();
        s.wan(ends.s("A", 5001, 1101).options(&with(&[5, 9], &[0, 0])));
        s.wan(ends.s("A", 5001, 1101).options(&with(&[5, 14], &[0, 0])));
        s.wan(ends.s("A", 5001, 1101).options(&with(&[0, 0, 5, 10], &[])));
        s.wan(ends.s("A", 5001, 1101).options(&with(&[9, 1, 5, 10], &[])));
        s.wan(ends.s("A", 5001, 1101).options(&with(&[9, 2, 5, 10], &[])));
        s.wan(ends.s("A", 5001, 1101).options(&with(&[5, 2, 5, 10], &[])));
        s.wan(ends.s("A", 5001, 1101).options(&with(&[1, 1, 5, 11], &[])));
        s.table();
    })
}

fn timestamps() -> Sequence {
    tracker("timestamps", "timestamps alone, and with SACK blocks behind them", |s| {
        let ends = ends();
        established_with_sack(s, &ends);
        let stamp = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        s.wan(ends.s("A", 5001, 1101).options(&stamp));
        s.wan(ends.s("A", 5001, 1101).options(&[&stamp[..], &sack(1201, 1301)].concat()));
        s.wan(ends.s("A", 5001, 1101).options(&[&stamp[..], &sack(90_000, 90_001)].concat()));
        // As long as a timestamp alone.
        s.wan(ends.s("A", 5001, 1101).options(&sack(90_000, 90_001)));
        s.table();
    })
}

fn odd_options() -> Sequence {
    tracker("odd-options", "options of SYNs that end early or come twice", |s| {
        let options: [&[u8]; 7] = [
            &[3, 3, 7, 3, 3, 3, 2, 0],
            &[3, 3, 14, 1],
            &[3, 4, 7, 1],
            &[0, 3, 3, 7],
            &[1, 1, 1, 3],
            &[9, 0, 3, 3, 7, 1, 1, 1],
            &[8, 40, 3, 3, 7, 1, 1, 1],
        ];
        for (port, options) in (4100..).zip(options) {
            let ends = Ends::plain((C1, port), (S1, 80));
            s.lan(ends.c("S", 1000, 0).options(options));
            s.wan(ends.s("SA", 5000, 1001).options(&syn_options(1460, 7)));
            s.lan(ends.c("A", 1001, 5001).window(1000));
            s.wan(ends.s("PA", 100_001, 1001).payload(&[1; 100]));
            s.wan(ends.s("PA", 30_001, 1001).payload(&[1; 100]));
            s.wan(ends.s("PA", 5_001, 1001).payload(&[1; 100]));
        }
        s.table();
    })
}

fn picked_up_keep_alive() -> Sequence {
    tracker(
        "picked-up-keep-alive",
        "a keep-alive picks the conn up, its answer is one ahead",
        |s| {
            let ends = ends();
            s.lan(ends.c("A", 76_999, 88_000));
            s.wan(ends.s("A", 88_000, 77_000));
            s.table();
            s.wan(ends.s("A", 88_000, 77_001));
            s.lan(ends.c("A", 77_000, 88_000));
            s.table();
        },
    )
}

fn picked_up_and_reset() -> Sequence {
    tracker("picked-up-and-reset", "liberal sides do not make resets liberal", |s| {
        let ends = ends();
        s.lan(ends.c("PA", 77_000, 88_000).payload(&[1; 10]));
        s.wan(ends.s("PA", 88_000, 77_010).payload(&[1; 10]));
        s.lan(ends.c("A", 77_010, 88_010));
        s.table();
        s.wan(ends.s("R", 80_000, 0));
        s.wan(ends.s("R", 900_000, 0));
        s.table();
        s.lan(ends.c("R", 77_010, 0));
        s.table();
    })
}

fn many_repeats() -> Sequence {
    let settings = &[("acct", 1), ("tcp_max_retrans", 255), ("tcp_timeout_max_retrans", 70)];
    let setup = Setup { settings, ..open() };
    sequence("many-repeats", "the count of repeats wraps", setup, |s| {
        let ends = ends();
        ends.open(s);
        for _ in 0..254 {
            s.lan(ends.c("A", 1001, 5001));
        }
        s.table();
        s.lan(ends.c("A", 1001, 5001));
        s.table();
        s.lan(ends.c("A", 1001, 5001));
        s.table();
    })
}

fn window_closed_by_fin() -> Sequence {
    tracker("window-closed-by-fin", "zero windows of segments other than ACKs", |s| {
        let ends = ends();
        ends.open(s);
        s.wan(ends.s("A", 5001, 1001).window(0));
        s.wan(ends.s("FA", 5001, 1001).window(0));
        s.table();
        s.lan(ends.c("A", 1001, 5002).window(0));
        s.table();
        s.lan(ends.c("FA", 1001, 5002));
        s.table();
    })
}

fn ends_out_of_window_unassured() -> Sequence {
    tracker("ends-out-of-window-unassured", "before ASSURED no timer is lowered", |s| {
        let ends = ends();
        s.lan(ends.c("S", 1000, 0));
        s.wan(ends.s("SA", 5000, 1001));
        s.lan(ends.c("FA", 500_000, 5001));
        s.wan(ends.s("FA", 500_000, 1001));
        s.table();
    })
}

fn end_and_reset_out_of_window() -> Sequence {
    tracker("end-and-reset-out-of-window", "FIN and RST far away, from both sides", |s| {
        let ends = ends();
        ends.open(s);
        s.wan(ends.s("FA", 500_000, 1001));
        s.lan(ends.c("A", 1001, 5001));
        s.lan(ends.c("R", 500_000, 0));
        s.table();
        s.wan(ends.s("FA", 500_000, 1001));
        s.table();
        s.lan(ends.c("R", 500_000, 0));
        s.table();
    })
}

fn hardly_any_time_left() -> Sequence {
    let settings = &[("acct", 1), ("tcp_timeout_established", 119)];
    let setup = Setup { settings, ..open() };
    sequence("hardly-any-time-left", "below two minutes no timer is lowered", setup, |s| {
        let ends = ends();
        ends.open(s);
        s.lan(ends.c("FA", 500_000, 5001));
        s.wan(ends.s("FA", 500_000, 1001));
        s.table();
    })
}

fn overshoots() -> Sequence {
    tracker("overshoots", "segments beyond the window by less and by more than a window", |s| {
        let ends = ends();
        ends.open(s);
        for (at, size) in [(9193, 1), (9194, 1), (9194, 900), (17_384, 1), (17_385, 1), (40_000, 5)]
        {
            s.lan(ends.c("A", at, 5001).payload(&vec![1; size]));
        }
        s.table();
        s.lan(ends.c("FA", 9300, 5001));
        s.lan(ends.c("R", 9300, 0));
        s.wan(ends.s("A", 5001, 9300));
        s.table();
    })
}

fn last_ack_repeated() -> Sequence {
    tracker("last-ack-repeated", "a second ACK is not taken for another challenge", |s| {
        let ends = ends();
        ends.open(s);
        s.wan(ends.s("FA", 5001, 1001));
        s.lan(ends.c("FA", 1001, 5002));
        s.lan(ends.c("S", 30_000, 0));
        s.wan(ends.s("A", 5002, 1002));
        s.wan(ends.s("A", 5002, 1002));
        s.table();
    })
}

fn reset_of_the_side_that_asked() -> Sequence {
    tracker("reset-of-the-side-that-asked", "a side's own watched SYN excuses no reset", |s| {
        let ends = ends();
        ends.open(s);
        s.lan(ends.c("S", 30_000, 0));
        s.lan(ends.c("RA", 1001, 30_001));
        s.table();
        s.wan(ends.s("RA", 900, 30_001));
        s.table();
        let ends = Ends::plain((C1, 4001), (S1, 80));
        s.lan(ends.c("S", 1000, 0));
        s.wan(ends.s("A", 9500, 77_000));
        s.lan(ends.c("S", 1000, 0));
        s.lan(ends.c("RA", 1001, 9500));
        s.table();
    })
}

fn reset_answers_watched_syn() -> Sequence {
    tracker("reset-answers-watched-syn", "the reset's numbers are those of the SYN", |s| {
        let ends = ends();
        ends.open(s);
        s.lan(ends.c("S", 30_000, 0));
        s.wan(ends.s("RA", 900, 30_002));
        s.table();
        s.lan(ends.c("S", 30_000, 0));
        s.wan(ends.s("RA", 900, 30_001));
        s.table();
    })
}

fn reset_behind_a_crossing_syn() -> Sequence {
    tracker("reset-behind-a-crossing-syn", "the last SYN was the other side's", |s| {
        let ends = ends();
        s.lan(ends.c("S", 1000, 0));
        s.wan(ends.s("A", 9500, 77_000));
        s.wan(ends.s("S", 5000, 0));
        s.lan(ends.c("RA", 1001, 9500));
        s.table();
    })
}

fn reset_of_the_side_that_acknowledged() -> Sequence {
    tracker("reset-of-the-side-that-acknowledged", "before ASSURED, of either side", |s| {
        let ends = ends();
        s.lan(ends.c("S", 1000, 0));
        s.wan(ends.s("SA", 5000, 1001));
        s.wan(ends.s("A", 5001, 1001));
        s.wan(ends.s("RA", 5001, 5001));
        s.table();
    })
}

/// The packets that lead from nothing to each state.
const ROADS: [&[(bool, &str, u32, u32)]; 10] = [
    &[],
    &[(true, "S", 1000, 0)],
    &[(true, "S", 1000, 0), (false, "S", 5000, 0)],
    &[(true, "S", 1000, 0), (false, "SA", 5000, 1001)],
    &[(true, "S", 1000, 0), (false, "SA", 5000, 1001), (true, "A", 1001, 5001)],
    &[
        (true, "S", 1000, 0),
        (false, "SA", 5000, 1001),
        (true, "A", 1001, 5001),
        (true, "FA", 1001, 5001),
    ],
    &[
        (true, "S", 1000, 0),
        (false, "SA", 5000, 1001),
        (true, "A", 1001, 5001),
        (true, "FA", 1001, 5001),
        (false, "A", 5001, 1002),
    ],
    &[
        (true, "S", 1000, 0),
        (false, "SA", 5000, 1001),
        (true, "A", 1001, 5001),
        (true, "FA", 1001, 5001),
        (false, "FA", 5001, 1002),
    ],
    &[
        (true, "S", 1000, 0),
        (false, "SA", 5000, 1001),
        (true, "A", 1001, 5001),
        (true, "FA", 1001, 5001),
        (false, "FA", 5001, 1002),
        (true, "A", 1002, 5002),
    ],
    &[
        (true, "S", 1000, 0),
        (false, "SA", 5000, 1001),
        (true, "A", 1001, 5001),
        (false, "R", 5001, 0),
    ],
];

fn every_class_in_every_state() -> Sequence {
    tracker("every-class-in-every-state", "the table of transitions, cell by cell", |s| {
        let mut port = 10_000;
        for road in ROADS {
            for flags in ["S", "SA", "FA", "A", "R"] {
                for client in [true, false] {
                    port += 1;
                    let ends = Ends::plain((C1, port), (S1, 80));
                    for &(client, flags, seq, ack) in road {
                        send(s, &ends, client, |ends| of(ends, client, flags, seq, ack));
                    }
                    let (seq, ack) = if client { (1002, 5002) } else { (5002, 1002) };
                    send(s, &ends, client, |ends| of(ends, client, flags, seq, ack));
                }
            }
        }
    })
}

fn of(ends: &Ends, client: bool, flags: &str, seq: u32, ack: u32) -> Packet {
    if client { ends.c(flags, seq, ack) } else { ends.s(flags, seq, ack) }
}

fn send(s: &mut Script<'_>, ends: &Ends, client: bool, packet: impl FnOnce(&Ends) -> Packet) {
    let packet = packet(ends);
    if client {
        s.lan(packet)
    } else {
        s.wan(packet)
    };
}

/// Exchanges drawn by lot.
fn drawn_by_lot() -> Vec<Sequence> {
    const SHOWS: &str = "segments drawn by lot";
    fn liberal() -> Setup {
        Setup { settings: &[("acct", 1), ("tcp_be_liberal", 1)], ..open() }
    }
    fn strict() -> Setup {
        let settings = &[("acct", 1), ("tcp_loose", 0), ("tcp_ignore_invalid_rst", 1)];
        Setup { settings, ..open() }
    }
    vec![
        sequence("drawn-1", SHOWS, open(), draw::<1>),
        sequence("drawn-2", SHOWS, open(), draw::<2>),
        sequence("drawn-3", SHOWS, open(), draw::<3>),
        sequence("drawn-4", SHOWS, open(), draw::<4>),
        sequence("drawn-5", SHOWS, open(), draw::<5>),
        sequence("drawn-6", SHOWS, open(), draw::<6>),
        sequence("drawn-7", SHOWS, liberal(), draw::<7>),
        sequence("drawn-8", SHOWS, liberal(), draw::<8>),
        sequence("drawn-9", SHOWS, strict(), draw::<9>),
        sequence("drawn-10", SHOWS, strict(), draw::<10>),
        sequence("drawn-11", SHOWS, open(), draw::<11>),
        sequence("drawn-12", SHOWS, open(), draw::<12>),
    ]
}

/// Both sides' next numbers; what is sent lies at them, or some way off.
fn draw<const SEED: u64>(s: &mut Script<'_>) {
    let shift = std::env::var("COMPARISON_SEED").map_or(0, |text| text.parse().expect("a number"));
    let seed: u64 = SEED + 1000 * shift;
    let mut lot = Lot(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for round in 0..6u16 {
        let ends = Ends::plain((C1, 20_000 + round), (S1, 80));
        let mut next = [1000u32, 5000];
        if lot.below(4) > 0 {
            ends.open(s);
            next = [1001, 5001];
        }
        for _ in 0..14 {
            let client = lot.below(2) == 0;
            let (own, other) = if client { (next[0], next[1]) } else { (next[1], next[0]) };
            let flags =
                *lot.of(&["A", "A", "A", "PA", "PA", "S", "SA", "FA", "R", "RA", "SU", "F"]);
            let seq = own.wrapping_add_signed(*lot.of(&OFFSETS));
            let ack = other.wrapping_add_signed(*lot.of(&OFFSETS));
            let ack = if lot.below(12) == 0 { 0 } else { ack };
            let size = *lot.of(&[0, 0, 0, 1, 10, 1000]);
            let size = if flags.contains(['A', 'U']) { size } else { 0 };
            let window = *lot.of(&[8192, 8192, 8192, 0, 1, 300, 65_535]);
            let options = lot.options(flags, other);
            let packet = of(&ends, client, flags, seq, ack).window(window).options(&options);
            let packet = packet.payload(&vec![1; size]);
            send(s, &ends, client, |_| packet);
            let ends_with = flags.contains(['S', 'F']) as u32;
            if lot.below(3) > 0 {
                next[usize::from(!client)] = seq.wrapping_add(size as u32 + ends_with);
            }
        }
        s.table();
    }
}

/// How far from where they should be numbers lie.
const OFFSETS: [i32; 16] =
    [0, 0, 0, 0, 0, 0, 0, 0, 1, -1, 400, -400, 8500, -70_000, 300_000, i32::MIN];

/// xorshift64*.
struct Lot(u64);

impl Lot {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    fn options(&mut self, flags: &str, ack: u32) -> Vec<u8> {
        match self.below(4) {
            0 if flags.contains('S') => syn_options(1460, *self.of(&[0, 2, 7, 14, 15])),
            1 => sack(ack, ack.wrapping_add_signed(*self.of(&OFFSETS))),
            2 => vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            _ => Vec::new(),
        }
    }
}
