//! TCP's numbers: windows, scales, exact and inexact resets, damaged segments.

use super::{Ends, STATEFUL, Sequence, Setup, both, sequence};
use crate::packets::{Packet, mss, sack, syn_options};
use crate::script::Script;
use crate::topology::{C1, S1};

/// Sequences about sequence numbers and flags.
pub fn group() -> Vec<Sequence> {
    vec![
        exact_reset(),
        reset_behind_data(),
        inexact_reset(),
        reset_outside(),
        invalid_reset_allowed(),
        beyond_window(),
        a_little_beyond(),
        ack_of_the_future(),
        old_segment(),
        old_ack(),
        liberal(),
        scaled(),
        scale_of_one_side(),
        scale_too_large(),
        zero_window(),
        selective_ack(),
        keep_alive(),
        unacknowledged(),
        wrong_syn_ack(),
        syn_in_established(),
        restarted_client(),
        strange_flags(),
        bad_checksums(),
        checksums_unchecked(),
        damaged_headers(),
        fin_out_of_window(),
        wrapped(),
    ]
}

fn stateful() -> Setup {
    both(&[("filter", STATEFUL)])
}

fn ends() -> Ends {
    Ends::plain((C1, 4000), (S1, 80))
}

fn numbers(name: &'static str, shows: &'static str, script: fn(&mut Script<'_>)) -> Sequence {
    sequence(name, shows, stateful(), script)
}

fn exact_reset() -> Sequence {
    numbers("exact-reset", "RST at the expected number closes", |s| {
        let ends = ends();
        ends.open(s);
        s.wan(ends.s("RA", 5001, 1001));
        s.table();
        s.lan(ends.c("A", 1001, 5001));
        s.table();
    })
}

fn reset_behind_data() -> Sequence {
    numbers("reset-behind-data", "RST at the end of the sender's last segment closes", |s| {
        let ends = ends();
        ends.open(s);
        s.lan(ends.c("PA", 1001, 5001).payload(&[1; 50]));
        s.lan(ends.c("RA", 1051, 5001));
        s.table();
    })
}

fn inexact_reset() -> Sequence {
    numbers("inexact-reset", "RST inside the window: still ESTABLISHED, ten seconds left", |s| {
        let ends = ends();
        ends.open(s);
        s.wan(ends.s("R", 5101, 0));
        s.table();
        s.lan(ends.c("A", 1001, 5001));
        s.table();
        s.lan(ends.c("R", 1301, 0));
        s.table();
    })
}

fn reset_outside() -> Sequence {
    numbers("reset-outside", "RST below the last ACK and far beyond the window", |s| {
        let ends = ends();
        ends.open(s);
        s.wan(ends.s("R", 4000, 0));
        s.table();
        s.wan(ends.s("R", 500_000, 0));
        s.table();
        s.wan(ends.s("R", 0, 0));
        s.lan(ends.c("R", 900, 0));
        s.lan(ends.c("RA", 900_000, 5001));
        s.table();
    })
}

fn invalid_reset_allowed() -> Sequence {
    let setup = Setup { settings: &[("tcp_ignore_invalid_rst", 1)], ..stateful() };
    sequence("invalid-reset-allowed", "tcp_ignore_invalid_rst lets old RSTs pass", setup, |s| {
        let ends = ends();
        ends.open(s);
        s.wan(ends.s("R", 4000, 0));
        s.table();
        s.wan(ends.s("R", 500_000, 0));
        s.table();
    })
}

fn beyond_window() -> Sequence {
    numbers("beyond-window", "data far beyond the window is invalid, both ways", |s| {
        let ends = ends();
        ends.open(s);
        s.lan(ends.c("PA", 200_000, 5001).payload(b"x"));
        s.wan(ends.s("PA", 200_000, 1001).payload(b"x"));
        s.lan(ends.c("PA", 1001, 5001).payload(b"x"));
        s.table();
    })
}

fn a_little_beyond() -> Sequence {
    numbers("a-little-beyond", "a segment that overshoots the window somewhat passes", |s| {
        let ends = ends();
        ends.open(s);
        s.lan(ends.c("A", 1001 + 8192 - 400, 5001).payload(&[1; 1000]));
        s.table();
        s.lan(ends.c("A", 1001 + 8192 + 1000, 5001).payload(&[1; 1000]));
        s.table();
        s.lan(ends.c("A", 1001 + 2 * 8192 + 1000, 5001).payload(&[1; 1000]));
        s.wan(ends.s("A", 5001, 1001));
        s.table();
    })
}

fn ack_of_the_future() -> Sequence {
    numbers("ack-of-the-future", "an ACK of bytes that were never sent is invalid", |s| {
        let ends = ends();
        ends.open(s);
        s.wan(ends.s("A", 5001, 1002));
        s.wan(ends.s("A", 5001, 60_000));
        s.lan(ends.c("A", 1001, 5002));
        s.lan(ends.c("PA", 1001, 9000).payload(b"x"));
        s.table();
    })
}

fn old_segment() -> Sequence {
    numbers("old-segment", "segments from before the window pass and change nothing", |s| {
        let ends = ends();
        ends.open(s);
        for at in 0..4 {
            s.lan(ends.c("A", 1001 + at * 1000, 5001).payload(&[1; 1000]));
            s.wan(ends.s("A", 5001, 2001 + at * 1000));
        }
        s.lan(ends.c("A", 1001, 5001).payload(&[1; 1000]));
        s.lan(ends.c("A", 400, 5001));
        s.table();
        s.lan(ends.c("A", 4_294_900_000, 5001).payload(b"very old"));
        s.table();
    })
}

fn old_ack() -> Sequence {
    numbers("old-ack", "an ACK from long ago: the window of 66000 bytes behind", |s| {
        let ends = ends();
        ends.open(s);
        for at in 0..10u32 {
            s.lan(ends.c("A", 1001 + at * 8000, 5001).payload(&[1; 1400]));
            s.lan(ends.c("A", 1001 + at * 8000 + 7000, 5001).payload(&[1; 1000]));
            s.wan(ends.s("A", 5001, 9001 + at * 8000));
        }
        s.wan(ends.s("A", 5001, 40_001));
        s.wan(ends.s("A", 5001, 1001));
        s.table();
    })
}

fn liberal() -> Sequence {
    let setup = Setup { settings: &[("tcp_be_liberal", 1)], ..stateful() };
    sequence("liberal", "tcp_be_liberal lets everything but bad RSTs pass", setup, |s| {
        let ends = ends();
        ends.open(s);
        s.lan(ends.c("PA", 200_000, 5001).payload(b"x"));
        s.wan(ends.s("A", 5001, 60_000));
        s.table();
        s.wan(ends.s("R", 4000, 0));
        s.lan(ends.c("FA", 700_000, 5001));
        s.table();
    })
}

fn scaled() -> Sequence {
    numbers("scaled", "with window scales a burst larger than 64 KiB is inside", |s| {
        let ends = ends();
        s.lan(ends.c("S", 1000, 0).options(&syn_options(1460, 7)));
        s.wan(ends.s("SA", 5000, 1001).options(&syn_options(1460, 7)));
        s.lan(ends.c("A", 1001, 5001).window(2000));
        s.wan(ends.s("A", 5001, 1001).window(2000));
        s.wan(ends.s("PA", 205_001, 1001).payload(&[1; 100]));
        s.table();
        s.wan(ends.s("PA", 705_001, 1001).payload(&[1; 100]));
        s.lan(ends.c("A", 1001, 205_101).window(2000));
        s.table();
    })
}

fn scale_of_one_side() -> Sequence {
    numbers("scale-of-one-side", "a scale that only one side offers counts for nobody", |s| {
        let ends = ends();
        s.lan(ends.c("S", 1000, 0).options(&syn_options(1460, 7)));
        s.wan(ends.s("SA", 5000, 1001).options(&mss(1460)));
        s.lan(ends.c("A", 1001, 5001).window(2000));
        s.wan(ends.s("PA", 15_001, 1001).payload(&[1; 100]));
        s.wan(ends.s("PA", 205_001, 1001).payload(&[1; 100]));
        s.table();
    })
}

fn scale_too_large() -> Sequence {
    numbers("scale-too-large", "a scale above 14 is taken as 14", |s| {
        let ends = ends();
        s.lan(ends.c("S", 1000, 0).options(&syn_options(1460, 200)));
        s.wan(ends.s("SA", 5000, 1001).options(&syn_options(1460, 15)));
        s.lan(ends.c("A", 1001, 5001).window(10));
        s.wan(ends.s("PA", 150_001, 1001).payload(&[1; 100]));
        s.wan(ends.s("PA", 400_001, 1001).payload(&[1; 100]));
        s.table();
    })
}

fn zero_window() -> Sequence {
    numbers("zero-window", "a closed window shortens the timer, a probe may still come", |s| {
        let ends = ends();
        ends.open(s);
        s.wan(ends.s("A", 5001, 1001).window(0));
        s.table();
        s.lan(ends.c("A", 1001, 5001).payload(b"p"));
        s.table();
        s.wan(ends.s("A", 5001, 1001).window(0));
        s.table();
        s.wan(ends.s("A", 5001, 1002).window(8192));
        s.table();
    })
}

fn selective_ack() -> Sequence {
    numbers(
        "selective-ack",
        "SACK blocks count as acknowledgement, also of what was not sent",
        |s| {
            let ends = ends();
            s.lan(ends.c("S", 1000, 0).options(&syn_options(1460, 2)));
            s.wan(ends.s("SA", 5000, 1001).options(&syn_options(1460, 2)));
            s.lan(ends.c("A", 1001, 5001));
            s.lan(ends.c("A", 1001, 5001).payload(&[1; 100]));
            s.lan(ends.c("A", 1201, 5001).payload(&[1; 100]));
            s.wan(ends.s("A", 5001, 1101).options(&sack(1201, 1301)));
            s.table();
            s.wan(ends.s("A", 5001, 1101).options(&sack(50_000, 50_100)));
            s.lan(ends.c("A", 1101, 5001).payload(&[1; 100]));
            s.wan(ends.s("A", 5001, 1301));
            s.table();
        },
    )
}

fn keep_alive() -> Sequence {
    numbers("keep-alive", "a segment one byte back, answered", |s| {
        let ends = ends();
        ends.open(s);
        s.lan(ends.c("A", 1000, 5001));
        s.wan(ends.s("A", 5001, 1001));
        s.table();
        s.wan(ends.s("A", 5000, 1001).payload(b"k"));
        s.lan(ends.c("A", 1001, 5001));
        s.table();
    })
}

fn unacknowledged() -> Sequence {
    numbers(
        "unacknowledged",
        "data under way holds the timer at five minutes, on both sides",
        |s| {
            let ends = ends();
            ends.open(s);
            s.lan(ends.c("PA", 1001, 5001).payload(&[1; 10]));
            s.wan(ends.s("PA", 5001, 1001).payload(&[2; 10]));
            s.table();
            s.lan(ends.c("A", 1011, 5011));
            s.table();
            s.wan(ends.s("A", 5011, 1006));
            s.table();
            s.wan(ends.s("A", 5011, 1011));
            s.table();
        },
    )
}

fn wrong_syn_ack() -> Sequence {
    numbers("wrong-syn-ack", "a SYN/ACK of another number", |s| {
        let ends = ends();
        s.lan(ends.c("S", 1000, 0));
        s.wan(ends.s("SA", 5000, 9999));
        s.table();
        s.wan(ends.s("A", 5001, 1001));
        s.wan(ends.s("SA", 5000, 1001));
        s.table();
    })
}

fn syn_in_established() -> Sequence {
    numbers("syn-in-established", "a SYN is passed on, the challenge ACK comes back", |s| {
        let ends = ends();
        ends.open(s);
        s.lan(ends.c("S", 30_000, 0));
        s.table();
        s.wan(ends.s("A", 5001, 1001));
        s.table();
        s.lan(ends.c("R", 1001, 0));
        s.table();
        s.lan(ends.c("S", 30_000, 0));
        s.table();
    })
}

fn restarted_client() -> Sequence {
    numbers("restarted-client", "SYN/ACK to a SYN that was only watched begins again", |s| {
        let ends = ends();
        ends.open(s);
        s.lan(ends.c("S", 700_000, 0).options(&syn_options(1460, 5)));
        s.table();
        s.wan(ends.s("SA", 900_000, 700_001).options(&syn_options(1460, 5)));
        s.table();
        s.lan(ends.c("A", 700_001, 900_001));
        s.lan(ends.c("PA", 700_001, 900_001).payload(b"hello"));
        s.table();
    })
}

fn strange_flags() -> Sequence {
    numbers("strange-flags", "sets of flags no TCP sends are invalid in a live connection", |s| {
        let ends = ends();
        ends.open(s);
        for flags in ["", "P", "FPU", "FSRPAU", "SF", "SR", "SAF", "SAR", "F", "FR", "U", "ARF"] {
            s.lan(ends.c(flags, 1001, 5001));
        }
        s.table();
    })
}

fn bad_checksums() -> Sequence {
    numbers("bad-checksums", "a wrong checksum is invalid, in SYN and data", |s| {
        let ends = ends();
        s.lan(ends.c("S", 1000, 0).bad_checksum());
        s.table();
        ends.open(s);
        s.lan(ends.c("PA", 1001, 5001).payload(b"damaged").bad_checksum());
        s.wan(ends.s("R", 5001, 0).bad_checksum());
        s.lan(ends.c("PA", 1001, 5001).payload(b"fine"));
        s.lan(ends.c("A", 1005, 5001).bad_header_checksum());
        s.table();
    })
}

fn checksums_unchecked() -> Sequence {
    let setup = Setup { settings: &[("checksum", 0)], ..stateful() };
    sequence(
        "checksums-unchecked",
        "nf_conntrack_checksum off: damaged segments count",
        setup,
        |s| {
            let ends = ends();
            s.lan(ends.c("S", 1000, 0).bad_checksum());
            s.wan(ends.s("SA", 5000, 1001).bad_checksum());
            s.table();
        },
    )
}

fn damaged_headers() -> Sequence {
    numbers("damaged-headers", "data offsets too small and too large, packets cut short", |s| {
        let ends = ends();
        let damage: [fn(Packet) -> Packet; 7] = [
            |packet| packet.data_offset(4),
            |packet| packet.data_offset(0),
            |packet| packet.data_offset(15),
            |packet| packet.cut(39),
            |packet| packet.cut(30),
            |packet| packet.cut(22),
            |packet| packet.cut(20),
        ];
        for spoil in damage {
            s.lan(spoil(ends.c("S", 1000, 0)));
        }
        s.table();
    })
}

fn fin_out_of_window() -> Sequence {
    numbers(
        "fin-out-of-window",
        "FINs far away are invalid; once both sides sent one the timer is short",
        |s| {
            let ends = ends();
            ends.open(s);
            s.lan(ends.c("FA", 500_000, 5001));
            s.table();
            s.lan(ends.c("FA", 500_000, 5001));
            s.table();
            s.wan(ends.s("FA", 500_000, 1001));
            s.table();
            s.lan(ends.c("A", 1001, 5001));
            s.table();
        },
    )
}

fn wrapped() -> Sequence {
    numbers("wrapped", "numbers pass through zero", |s| {
        let ends = ends();
        s.lan(ends.c("S", 0xffff_fff0, 0));
        s.wan(ends.s("SA", 0xffff_ff00, 0xffff_fff1));
        s.lan(ends.c("A", 0xffff_fff1, 0xffff_ff01));
        s.lan(ends.c("A", 0xffff_fff1, 0xffff_ff01).payload(&[1; 100]));
        s.wan(ends.s("A", 0xffff_ff01, 85));
        s.wan(ends.s("A", 0xffff_ff01, 85).payload(&[1; 600]));
        s.lan(ends.c("FA", 85, 345));
        s.table();
    })
}
