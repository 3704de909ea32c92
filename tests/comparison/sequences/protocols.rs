//! UDP-Lite, the protocols without a tracker, and ICMP errors and discovery around them.

use super::{HIGH, MASQUERADE, OPEN, STATEFUL, Sequence, Setup, both, only4, sequence};
use crate::packets::{ESP, Packet, UDPLITE, echo, error, icmp, other, udp, udplite};
use crate::topology::{C1, C1_6, C2, GATEWAY_WAN, S1, S1_6, S2, S2_6};

/// Sequences about them.
pub fn group() -> Vec<Sequence> {
    vec![
        lite(),
        lite_unchecked(),
        lite_checks(),
        lite_masqueraded(),
        untracked_protocols(),
        esp_masqueraded(),
        multicast_protocols(),
        about_esp(),
        about_esp_masqueraded(),
        about_lite(),
        errors_about_errors(),
        errors_reply_side(),
        wrong_outer_destination(),
        redirects(),
        discovery(),
    ]
}

fn stateful() -> Setup {
    both(&[("filter", STATEFUL)])
}

fn unchecked() -> Setup {
    Setup { settings: &[("checksum", 0)], ..stateful() }
}

fn question() -> Packet {
    udplite((C1, 4000), (S1, 53), 0).payload(b"question")
}

fn answer() -> Packet {
    udplite((S1, 53), (C1, 4000), 8).payload(b"answer")
}

fn lite() -> Sequence {
    sequence(
        "udplite",
        "with the checksum looked at, by which it is never right",
        stateful(),
        |s| {
            s.lan(question());
            s.table();
            s.wan(answer());
            s.table();
            s.lan(question());
            s.table();
            s.lan(udplite((C1_6, 4000), (S1_6, 53), 12).payload(b"question"));
            // What the kernel takes for right has the pseudo header of UDP.
            let as_udp = udp((C1, 4000), (S1, 53)).payload(b"question").bytes();
            let sum = u16::from_be_bytes([as_udp[26], as_udp[27]]);
            s.lan(other(C1, S1, UDPLITE, &as_udp[20..]).checksum(sum));
            s.table();
        },
    )
}

fn lite_unchecked() -> Sequence {
    sequence("udplite-unchecked", "ASSURED by the packet after the answer", unchecked(), |s| {
        s.lan(question());
        s.table();
        s.wan(answer());
        s.table();
        s.lan(question());
        s.table();
        s.wan(udplite((S1, 54), (C1, 4000), 0));
        s.lan(udplite((C1_6, 4000), (S1_6, 53), 12).payload(b"question"));
        s.wan(udplite((S1_6, 53), (C1_6, 4000), 12).payload(b"answer"));
        s.table();
    })
}

fn lite_checks() -> Sequence {
    sequence("udplite-checks", "coverage and missing checksums", unchecked(), |s| {
        for (port, coverage) in [(1, 1), (2, 7), (3, 8), (4, 16), (5, 17), (6, 0)] {
            let from = (C1, 4000 + port);
            s.lan(udplite(from, (S1, 53), coverage).payload(b"question"));
        }
        s.lan(udplite((C1, 4010), (S1, 53), 0).payload(b"question").zero_checksum());
        s.lan(udplite((C1, 4011), (S1, 53), 0).payload(b"question").bad_checksum());
        s.lan(other(C1, S1, 136, b"\x10\x00\x00\x35\x00\x00\x01"));
        s.lan(other(C1, S1, 136, b"\x10"));
        s.table();
    })
}

fn lite_masqueraded() -> Sequence {
    let setup = Setup {
        settings: &[("checksum", 0)],
        ..only4(&[("filter", STATEFUL), ("nat", MASQUERADE)])
    };
    sequence("udplite-masqueraded", "address and port, the partial checksum right", setup, |s| {
        let from = |host, port| udplite((host, port), (S1, 53), 10).payload(b"question");
        let step = s.lan(from(C1, 4000));
        let caller = s.learn(step, HIGH, "port");
        s.wan(udplite((S1, 53), caller, 12).payload(b"answer"));
        s.lan(from(C1, 4000));
        s.wan(udplite((S1, 53), caller, 0).payload(b"answer"));
        let step = s.lan(from(C2, 4000));
        let caller = s.learn(step, HIGH, "second");
        s.wan(udplite((S1, 53), caller, 0).payload(b"answer"));
        s.table();
    })
}

fn untracked_protocols() -> Sequence {
    sequence("generic", "by addresses alone, never ASSURED", stateful(), |s| {
        for protocol in [ESP, 51, 4, 41, 89, 103, 112, 115, 253] {
            s.lan(other(C1, S1, protocol, b"\x00\x01\x00\x02 some packet"));
        }
        s.table();
        s.wan(other(S1, C1, ESP, b"some packet"));
        s.wan(other(S1, C1, ESP, b"some packet"));
        s.lan(other(C1, S1, ESP, b""));
        s.table();
        s.lan(other(C1_6, S1_6, ESP, b"some packet"));
        s.wan(other(S1_6, C1_6, ESP, b"some packet"));
        s.table();
    })
}

fn esp_masqueraded() -> Sequence {
    let setup = only4(&[("filter", STATEFUL), ("nat", MASQUERADE)]);
    sequence("esp-masqueraded", "one host at a time", setup, |s| {
        s.lan(other(C1, S1, ESP, b"some packet"));
        s.wan(other(S1, GATEWAY_WAN, ESP, b"some packet"));
        s.lan(other(C2, S1, ESP, b"some packet"));
        s.lan(other(C2, S2, ESP, b"some packet"));
        s.table();
    })
}

fn multicast_protocols() -> Sequence {
    sequence("igmp", "what is not for us to route leaves nothing", stateful(), |s| {
        let all = "224.0.0.22".parse().expect("an address");
        s.lan(other(C1, all, 2, b"\x22\x00\x00\x00\x00\x00\x00\x00"));
        s.lan(other(C1, "224.0.0.5".parse().expect("an address"), 89, b"hello"));
        s.table();
    })
}

fn about_esp() -> Sequence {
    sequence("esp-error", "ICMP errors that quote it", stateful(), |s| {
        s.lan(other(C1, S1, ESP, b"some packet"));
        s.wan(error(S2, C1, 3, 4, &other(C1, S1, ESP, b"some packet")));
        s.wan(error(S2, C1, 3, 4, &other(C1, S1, ESP, b"some packet").cut(20)));
        s.wan(error(S2, C1, 3, 4, &other(C1, S1, 51, b"some packet")));
        s.lan(other(C1_6, S1_6, ESP, b"some packet"));
        s.wan(error(S2_6, C1_6, 2, 0, &other(C1_6, S1_6, ESP, b"some packet")));
        s.table();
    })
}

fn about_esp_masqueraded() -> Sequence {
    let setup = only4(&[("filter", STATEFUL), ("nat", MASQUERADE)]);
    sequence("esp-error-masqueraded", "the quote's address is translated back", setup, |s| {
        s.lan(other(C1, S1, ESP, b"some packet"));
        s.wan(error(S2, GATEWAY_WAN, 3, 4, &other(GATEWAY_WAN, S1, ESP, b"some packet")));
        s.table();
    })
}

fn about_lite() -> Sequence {
    sequence("udplite-error", "ICMP errors that quote UDP-Lite", unchecked(), |s| {
        s.lan(question());
        s.wan(error(S1, C1, 3, 3, &question()));
        s.wan(error(S1, C1, 3, 3, &question().cut(28)));
        s.wan(error(S1, C1, 3, 3, &question().cut(24)));
        s.wan(error(S1, C1, 3, 3, &question().cut(23)));
        s.wan(error(S1, C1, 3, 3, &udp((C1, 4000), (S1, 53)).payload(b"question")));
        s.table();
    })
}

fn errors_about_errors() -> Sequence {
    sequence("error-about-error", "a quote of an error belongs to nothing", stateful(), |s| {
        let first = udp((C1, 4000), (S1, 53)).payload(b"question");
        s.lan(first.clone());
        let about = error(S1, C1, 3, 3, &first);
        s.wan(about.clone());
        s.lan(error(C1, S1, 3, 3, &about));
        s.lan(error(C1, S1, 11, 0, &about));
        s.wan(error(S2, C1, 11, 0, &error(C1, S1, 3, 3, &first)));
        s.lan(echo(C1, S1, 5, 1));
        s.wan(error(S2, C1, 11, 0, &echo(C1, S1, 5, 1)));
        s.wan(error(S2, C1, 11, 0, &icmp(C1, S1, 10, 0, [0; 4])));
        s.wan(error(S2, C1, 11, 0, &icmp(C1, S1, 42, 0, [0; 4])));
        let six = udp((C1_6, 4000), (S1_6, 53)).payload(b"question");
        s.lan(six.clone());
        let about = error(S1_6, C1_6, 1, 4, &six);
        s.lan(error(C1_6, S1_6, 1, 4, &about));
        s.table();
    })
}

fn errors_reply_side() -> Sequence {
    let rules = "-A FORWARD -m conntrack --ctstate RELATED --ctdir REPLY -j ACCEPT
-A FORWARD -m conntrack --ctstate RELATED -j DROP\n";
    let setup = both(&[("filter", rules)]);
    sequence("error-direction", "RELATED of the side that the error is from", setup, |s| {
        let first = udp((C1, 4000), (S1, 53)).payload(b"question");
        let back = udp((S1, 53), (C1, 4000)).payload(b"answer");
        s.lan(first.clone());
        s.wan(back.clone());
        s.wan(error(S1, C1, 3, 3, &first));
        s.lan(error(C1, S1, 3, 3, &back));
        s.table();
    })
}

fn wrong_outer_destination() -> Sequence {
    sequence("error-elsewhere", "an error to a host that sent nothing", stateful(), |s| {
        let first = udp((C1, 4000), (S1, 53)).payload(b"question");
        s.lan(first.clone());
        s.wan(error(S2, C2, 11, 0, &first));
        s.wan(error(S2, C1, 11, 0, &first));
        s.lan(other(C1, S1, ESP, b"some packet"));
        s.wan(error(S2, C2, 11, 0, &other(C1, S1, ESP, b"some packet")));
        s.table();
    })
}

fn redirects() -> Sequence {
    let setup = only4(&[("filter", OPEN), ("nat", MASQUERADE)]);
    sequence("redirect-protocols", "redirects about translated conns end here", setup, |s| {
        s.lan(other(C1, S1, ESP, b"some packet"));
        s.wan(error(S2, GATEWAY_WAN, 5, 1, &other(GATEWAY_WAN, S1, ESP, b"some packet")));
        s.lan(udp((C1, 4000), (S1, 53)).payload(b"question"));
        s.wan(error(S2, GATEWAY_WAN, 5, 1, &udp((GATEWAY_WAN, 4000), (S1, 53)).payload(b"q")));
        s.table();
    })
}

fn discovery() -> Sequence {
    let rules = "-A FORWARD -m conntrack --ctstate UNTRACKED -j ACCEPT
-A FORWARD -j DROP\n";
    let setup = both(&[("filter", rules)]);
    sequence("discovery-untracked", "neighbour and listener discovery", setup, |s| {
        for kind in [127, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 138, 139, 140, 141, 142]
            .into_iter()
            .chain([143, 144, 148, 150, 151, 152, 153, 200, 255])
        {
            s.lan(icmp(C1_6, S1_6, kind, 0, [0; 4]).payload(&[0; 16]));
        }
        s.table();
    })
}
