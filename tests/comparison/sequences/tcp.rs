//! TCP as the tracker follows it: states, timers and flags from the first SYN to the last ACK.

use super::{Ends, STATEFUL, Sequence, Setup, both, sequence};
use crate::packets::{mss, syn_options};
use crate::script::Script;
use crate::topology::{C1, S1};

/// Sequences about states.
pub fn group() -> Vec<Sequence> {
    vec![
        closed_by_client(),
        closed_by_server(),
        half_closed(),
        closed_at_once(),
        opened_at_once(),
        syn_repeated(),
        syn_ack_repeated(),
        data_repeated(),
        retransmission_limit(),
        fin_repeated(),
        refused(),
        reset_by_client_before_answer(),
        reset_in_syn_recv(),
        reset_in_fin_wait(),
        reset_in_close_wait(),
        reset_in_last_ack(),
        reset_in_time_wait(),
        reopened_in_time_wait(),
        reopened_by_other_side(),
        reopened_after_reset(),
        syn_with_data(),
        syn_with_ecn(),
        urgent(),
        picked_up(),
        picked_up_by_server(),
        not_picked_up(),
        no_first_packet(),
        last_ack_syn(),
    ]
}

fn stateful() -> Setup {
    both(&[("filter", STATEFUL)])
}

fn ends() -> Ends {
    Ends::plain((C1, 4000), (S1, 80))
}

/// A sequence under the stateful rules.
fn states(name: &'static str, shows: &'static str, script: fn(&mut Script<'_>)) -> Sequence {
    sequence(name, shows, stateful(), script)
}

fn closed_by_client() -> Sequence {
    states("closed-by-client", "each state and timer from SYN_SENT to TIME_WAIT", |s| {
        let ends = ends();
        s.lan(ends.c("S", 1000, 0).options(&mss(1460)));
        s.table();
        s.wan(ends.s("SA", 5000, 1001).options(&mss(1460)));
        s.table();
        s.lan(ends.c("A", 1001, 5001));
        s.table();
        s.lan(ends.c("PA", 1001, 5001).payload(b"request"));
        s.table();
        s.wan(ends.s("A", 5001, 1008));
        s.table();
        s.lan(ends.c("FA", 1008, 5001));
        s.table();
        s.wan(ends.s("A", 5001, 1009));
        s.table();
        s.wan(ends.s("FA", 5001, 1009));
        s.table();
        s.lan(ends.c("A", 1009, 5002));
    })
}

fn closed_by_server() -> Sequence {
    states("closed-by-server", "the server's FIN first", |s| {
        let ends = ends();
        ends.open(s);
        s.wan(ends.s("FA", 5001, 1001));
        s.table();
        s.lan(ends.c("A", 1001, 5002));
        s.table();
        s.lan(ends.c("FA", 1001, 5002));
        s.table();
        s.wan(ends.s("A", 5002, 1002));
    })
}

fn half_closed() -> Sequence {
    states("half-closed", "data of the server after the client's FIN", |s| {
        let ends = ends();
        ends.open(s);
        s.lan(ends.c("FA", 1001, 5001));
        s.wan(ends.s("A", 5001, 1002));
        for at in 0..3 {
            s.wan(ends.s("PA", 5001 + at * 100, 1002).payload(&[7; 100]));
            s.table();
            s.lan(ends.c("A", 1002, 5101 + at * 100));
        }
        s.table();
        s.wan(ends.s("FA", 5301, 1002));
        s.lan(ends.c("A", 1002, 5302));
    })
}

fn closed_at_once() -> Sequence {
    states("closed-at-once", "both FINs cross", |s| {
        let ends = ends();
        ends.open(s);
        s.lan(ends.c("FA", 1001, 5001));
        s.wan(ends.s("FA", 5001, 1001));
        s.table();
        s.lan(ends.c("A", 1002, 5002));
        s.table();
        s.wan(ends.s("A", 5002, 1002));
    })
}

fn opened_at_once() -> Sequence {
    states("opened-at-once", "both SYNs cross: SYN_SENT2", |s| {
        let ends = ends();
        s.lan(ends.c("S", 1000, 0).options(&syn_options(1460, 3)));
        s.wan(ends.s("S", 5000, 0).options(&syn_options(1460, 4)));
        s.table();
        s.lan(ends.c("SA", 1000, 5001).options(&syn_options(1460, 3)));
        s.table();
        s.wan(ends.s("SA", 5000, 1001).options(&syn_options(1460, 4)));
        s.table();
        s.lan(ends.c("A", 1001, 5001));
        s.table();
        s.wan(ends.s("A", 5001, 1001));
    })
}

fn syn_repeated() -> Sequence {
    states("syn-repeated", "a repeated SYN does not start the timer again", |s| {
        let ends = ends();
        s.lan(ends.c("S", 1000, 0));
        s.wait_ms(3300);
        s.lan(ends.c("S", 1000, 0));
        s.table();
        s.lan(ends.c("S", 2000, 0));
        s.table();
        s.wan(ends.s("SA", 5000, 2001));
        s.table();
    })
}

fn syn_ack_repeated() -> Sequence {
    states("syn-ack-repeated", "the server repeats its SYN/ACK, then the client its SYN", |s| {
        let ends = ends();
        s.lan(ends.c("S", 1000, 0));
        s.wan(ends.s("SA", 5000, 1001));
        s.wan(ends.s("SA", 5000, 1001));
        s.table();
        s.lan(ends.c("S", 1000, 0));
        s.table();
        s.wan(ends.s("SA", 5000, 1001));
        s.lan(ends.c("A", 1001, 5001));
        s.table();
        s.wan(ends.s("SA", 5000, 1001));
        s.table();
    })
}

fn data_repeated() -> Sequence {
    states("data-repeated", "three retransmissions bring the timer down, an answer up again", |s| {
        let ends = ends();
        ends.open(s);
        for _ in 0..5 {
            s.lan(ends.c("PA", 1001, 5001).payload(b"same"));
            s.table();
        }
        s.wan(ends.s("A", 5001, 1005));
        s.table();
        for _ in 0..5 {
            s.wan(ends.s("A", 5001, 1005));
        }
        s.table();
    })
}

fn retransmission_limit() -> Sequence {
    let settings = &[("tcp_max_retrans", 1), ("tcp_timeout_max_retrans", 70)];
    let setup = Setup { settings, ..stateful() };
    sequence("retransmission-limit", "tcp_max_retrans and its timeout are obeyed", setup, |s| {
        let ends = ends();
        ends.open(s);
        s.lan(ends.c("PA", 1001, 5001).payload(b"same"));
        s.table();
        s.lan(ends.c("PA", 1001, 5001).payload(b"same"));
        s.table();
    })
}

fn fin_repeated() -> Sequence {
    states("fin-repeated", "FINs and last ACKs again", |s| {
        let ends = ends();
        ends.open(s);
        s.lan(ends.c("FA", 1001, 5001));
        s.lan(ends.c("FA", 1001, 5001));
        s.table();
        s.wan(ends.s("FA", 5001, 1002));
        s.wan(ends.s("FA", 5001, 1002));
        s.table();
        s.lan(ends.c("A", 1002, 5002));
        s.table();
        s.wan(ends.s("FA", 5001, 1002));
        s.table();
        s.lan(ends.c("A", 1002, 5002));
    })
}

fn refused() -> Sequence {
    states("refused", "RST answers the SYN and takes the entry with it", |s| {
        let ends = ends();
        s.lan(ends.c("S", 1000, 0));
        s.wan(ends.s("RA", 0, 1001).window(0));
        s.table();
        s.wan(ends.s("RA", 0, 1001).window(0));
    })
}

fn reset_by_client_before_answer() -> Sequence {
    states("reset-before-answer", "the client takes its SYN back", |s| {
        let ends = ends();
        s.lan(ends.c("S", 1000, 0));
        s.lan(ends.c("R", 1001, 0));
        s.table();
    })
}

fn reset_in_syn_recv() -> Sequence {
    states("reset-in-syn-recv", "the client answers SYN/ACK with RST", |s| {
        let ends = ends();
        s.lan(ends.c("S", 1000, 0));
        s.wan(ends.s("SA", 5000, 1001));
        s.lan(ends.c("R", 1001, 0));
        s.table();
        s.wan(ends.s("SA", 5000, 1001));
    })
}

fn reset_in_fin_wait() -> Sequence {
    states("reset-in-fin-wait", "RST of the side that has not closed", |s| {
        let ends = ends();
        ends.open(s);
        s.lan(ends.c("FA", 1001, 5001));
        s.wan(ends.s("R", 5001, 0));
        s.table();
    })
}

fn reset_in_close_wait() -> Sequence {
    states("reset-in-close-wait", "RST after the FIN was acknowledged", |s| {
        let ends = ends();
        ends.open(s);
        s.lan(ends.c("FA", 1001, 5001));
        s.wan(ends.s("A", 5001, 1002));
        s.wan(ends.s("RA", 5001, 1002));
        s.table();
        s.lan(ends.c("A", 1002, 5001));
        s.table();
    })
}

fn reset_in_last_ack() -> Sequence {
    states("reset-in-last-ack", "RST instead of the last ACK", |s| {
        let ends = ends();
        ends.open(s);
        s.lan(ends.c("FA", 1001, 5001));
        s.wan(ends.s("FA", 5001, 1002));
        s.lan(ends.c("R", 1002, 0));
        s.table();
    })
}

fn close_completely(s: &mut Script<'_>, ends: &Ends) {
    ends.open(s);
    s.lan(ends.c("FA", 1001, 5001));
    s.wan(ends.s("FA", 5001, 1002));
    s.lan(ends.c("A", 1002, 5002));
}

fn reset_in_time_wait() -> Sequence {
    states("reset-in-time-wait", "RST after everything was said", |s| {
        let ends = ends();
        close_completely(s, &ends);
        s.table();
        s.wan(ends.s("R", 5002, 0));
        s.table();
        s.wan(ends.s("R", 4000, 0));
        s.table();
    })
}

fn reopened_in_time_wait() -> Sequence {
    states("reopened-in-time-wait", "a new SYN makes a new entry out of TIME_WAIT", |s| {
        let ends = ends();
        close_completely(s, &ends);
        s.lan(ends.c("S", 9000, 0));
        s.table();
        s.wan(ends.s("SA", 70000, 9001));
        s.lan(ends.c("A", 9001, 70001));
    })
}

fn reopened_by_other_side() -> Sequence {
    states("reopened-by-other-side", "in TIME_WAIT the server sends a SYN from its port", |s| {
        let ends = ends();
        close_completely(s, &ends);
        s.wan(ends.s("S", 90000, 0));
        s.table();
        s.lan(ends.c("SA", 40000, 90001));
        s.table();
    })
}

fn reopened_after_reset() -> Sequence {
    states("reopened-after-reset", "a new SYN after CLOSE, of either side's RST", |s| {
        let ends = ends();
        ends.open(s);
        s.wan(ends.s("RA", 5001, 1001));
        s.table();
        s.lan(ends.c("S", 9000, 0));
        s.table();
        s.wan(ends.s("SA", 70000, 9001));
        s.lan(ends.c("A", 9001, 70001));
        s.lan(ends.c("R", 9001, 0));
        s.table();
        s.lan(ends.c("S", 20000, 0));
        s.table();
    })
}

fn syn_with_data() -> Sequence {
    states("syn-with-data", "TCP fast open: the SYN's bytes count", |s| {
        let ends = ends();
        s.lan(ends.c("S", 1000, 0).payload(b"early"));
        s.wan(ends.s("SA", 5000, 1006));
        s.lan(ends.c("A", 1006, 5001));
        s.table();
    })
}

fn syn_with_ecn() -> Sequence {
    states("syn-with-ecn", "ECE and CWR do not matter", |s| {
        let ends = ends();
        s.lan(ends.c("SEC", 1000, 0));
        s.wan(ends.s("SAE", 5000, 1001));
        s.lan(ends.c("A", 1001, 5001).tos(2));
        s.table();
    })
}

fn urgent() -> Sequence {
    states("urgent", "URG with SYN, ACK and FIN is allowed, SYN/ACK with it is not", |s| {
        let ends = ends();
        s.lan(ends.c("SU", 1000, 0));
        s.wan(ends.s("SAU", 5000, 1001));
        s.wan(ends.s("SA", 5000, 1001));
        s.lan(ends.c("AU", 1001, 5001));
        s.lan(ends.c("FAU", 1001, 5001));
        s.table();
    })
}

fn picked_up() -> Sequence {
    states(
        "picked-up",
        "an ACK without a SYN opens an entry, ASSURED one packet after the answer",
        |s| {
            let ends = ends();
            s.lan(ends.c("A", 77000, 88000));
            s.table();
            s.wan(ends.s("PA", 88000, 77000).payload(b"x"));
            s.table();
            s.lan(ends.c("A", 77000, 88001));
            s.table();
            s.wan(ends.s("A", 999_999, 5).payload(b"far away"));
            s.table();
            s.lan(ends.c("FA", 77000, 88001));
            s.table();
        },
    )
}

fn picked_up_by_server() -> Sequence {
    states(
        "picked-up-by-server",
        "from outside a picked-up connection is NEW and not let in",
        |s| {
            let ends = ends();
            s.wan(ends.s("A", 88000, 77000));
            s.table();
            s.lan(ends.c("A", 77000, 88000));
            s.wan(ends.s("A", 88000, 77000));
            s.table();
        },
    )
}

fn not_picked_up() -> Sequence {
    let setup = Setup { settings: &[("tcp_loose", 0)], ..stateful() };
    sequence("not-picked-up", "with tcp_loose off an ACK alone is invalid", setup, |s| {
        let ends = ends();
        s.lan(ends.c("A", 77000, 88000));
        s.lan(ends.c("PA", 77000, 88000).payload(b"x"));
        s.table();
        ends.open(s);
    })
}

fn no_first_packet() -> Sequence {
    states("no-first-packet", "SYN/ACK, FIN, RST or nothing cannot come first", |s| {
        let ends = ends();
        for flags in ["SA", "FA", "F", "R", "RA", "", "P", "FPU", "SF", "SR"] {
            s.lan(ends.c(flags, 1000, 5000));
        }
        s.table();
    })
}

fn last_ack_syn() -> Sequence {
    states(
        "syn-in-last-ack",
        "a SYN in LAST_ACK, its challenge ACK, and the RST that clears",
        |s| {
            let ends = ends();
            ends.open(s);
            s.wan(ends.s("FA", 5001, 1001));
            s.lan(ends.c("FA", 1001, 5002));
            s.table();
            s.lan(ends.c("S", 30000, 0));
            s.table();
            s.wan(ends.s("A", 5002, 1001));
            s.table();
            s.lan(ends.c("R", 1001, 0));
            s.table();
        },
    )
}
