//! What each fuzz target does with its bytes: a parser must neither panic nor loop, and what it
//! accepts must hang together.
//!
//! Plain functions, so that the fuzzer, the corpora (`tests/corpus.rs`) and the mutations of
//! `tests/mutations.rs` run the same thing.

pub mod gateway;

use std::path::Path;

use dataplane::conntrack::dccp::{self, DccpTrack};
use dataplane::conntrack::fragments::{COST_OF_BUFFER, Key, Limits, Part, Reassembly};
use dataplane::conntrack::helpers::tftp;
use dataplane::conntrack::knobs::Knobs;
use dataplane::conntrack::sctp::SctpTrack;
use dataplane::conntrack::state::{Direction, Status};
use dataplane::conntrack::tcp::{self as tracker, Outcome, TcpTrack};
use dataplane::conntrack::timeouts::Timeouts;
use dataplane::conntrack::tuple::{HashSeed, KeyV4, Tuple};
use dataplane::rules::hook::Family;
use dataplane::rules::model::Ruleset;
use dataplane::time::Tick;
use dataplane::wire::address::Address;
use dataplane::wire::{arp, headers, ndp, quoted, sctp, tcp};
use sluicegate::config::Config;
use sluicegate::ipset::Sets;
use sluicegate::iptables::{self, Effect, Look, words};
use sluicegate::labels::Names;
use sluicegate::socket;
use sluicegate::tools::{self, conntrack_args};

/// A target.
pub struct Target {
    /// Its name, which is the name of its corpus too.
    pub name: &'static str,
    /// What it does with an input.
    pub run: fn(&[u8]),
    /// What an input costs, in inputs of a parser.
    pub cost: u64,
}

/// A parser, or what costs no more.
const fn parser(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run, cost: 1 }
}

/// All targets.
pub const TARGETS: &[Target] = &[
    parser("headers", headers),
    parser("quoted", quoted),
    parser("tcp_options", tcp_options),
    parser("tcp", tcp),
    parser("sctp", sctp),
    parser("dccp", dccp),
    parser("tuple", tuple),
    parser("neighbours", neighbours),
    parser("tftp", tftp),
    parser("iptables", iptables),
    parser("iptables_arguments", iptables_arguments),
    parser("ipset", ipset),
    parser("labels", labels),
    parser("config", config),
    parser("conntrack_arguments", conntrack_arguments),
    parser("request", request),
    parser("fragments", fragments),
    Target { name: "gateway", run: gateway::packets, cost: 40 },
];

/// A frame: one segment, the first of several, and without its link layer.
pub fn headers(frame: &[u8]) {
    let whole = headers::parse(frame, frame.len());
    if let Ok(h) = whole {
        assert!(h.l3 <= h.l4 && u32::from(h.l4) <= h.end, "{h:?}");
        assert!(h.end as usize <= frame.len(), "{h:?}");
        h.l4_check_ok(frame);
        let l4 = &frame[h.l4 as usize..h.end as usize];
        ndp::parse(&h, l4);
        if let Some(view) = tcp::View::new(l4) {
            view.options(l4).map(tcp_options);
        }
    }
    // The same in a chain of segments whose first ends somewhere.
    for cut in [14, 20, 34, 54, frame.len() / 2] {
        if let Ok(h) = headers::parse(&frame[..cut.min(frame.len())], frame.len()) {
            assert_eq!(whole, Ok(h), "the first segment says what the frame says");
        }
    }
    let _ = headers::parse_ip(frame, frame.len());
}

/// What an ICMP error quotes; the first byte chooses the family.
pub fn quoted(bytes: &[u8]) {
    let Some((v6, quote)) = bytes.split_first() else { return };
    if let Some(q) = quoted::parse(quote, v6 & 1 == 1) {
        // Of IPv6 headers the kernel has the last one end wherever it says.
        assert!(v6 & 1 == 1 || usize::from(q.l4) <= quote.len(), "{q:?}");
    }
}

/// The options of a TCP header.
pub fn tcp_options(bytes: &[u8]) {
    assert!(tcp::options(bytes).count() <= bytes.len());
    let summary = tcp::summary(bytes);
    assert!(summary.sack_blocks().len() <= 4, "{summary:?}");
}

/// Segments of one TCP conn; the first byte sets the knobs. A conn is never left without a state,
/// its deadline never lies beyond the longest timeout, and its words lead back to it.
pub fn tcp(bytes: &[u8]) {
    let Some((&with, rest)) = bytes.split_first() else { return };
    let knobs = Knobs {
        tcp_loose: with & 1 != 0,
        tcp_be_liberal: with & 2 != 0,
        tcp_ignore_invalid_rst: with & 4 != 0,
        ..Knobs::default()
    };
    const LONGEST: u32 = 432_000;
    let (mut status, mut track) = (Status::default(), None);
    for (direction, packet) in dialogue(rest) {
        let Ok(segment) = tracker::sanity(packet, packet.len() as u32) else { continue };
        let Some(conn) = &mut track else {
            if let Ok((first, timeout)) = TcpTrack::first(&segment, &knobs) {
                assert!(timeout <= LONGEST, "{timeout} s after {segment:?}");
                track = Some(first);
            }
            continue;
        };
        if direction == Direction::Reply {
            status = status.with(Status::SEEN_REPLY);
        }
        match conn.packet(&segment, direction, status, &knobs, LONGEST) {
            Outcome::Accept { timeout_secs, assured, .. } => {
                assert!(timeout_secs.is_none_or(|secs| secs <= LONGEST), "{segment:?}");
                if assured {
                    status = status.with(Status::ASSURED);
                }
            }
            Outcome::Invalid { shorten_to_secs, .. } => {
                assert!(shorten_to_secs.is_none_or(|secs| secs < LONGEST), "{segment:?}");
                conn.numbers(&segment, direction);
            }
            Outcome::Ignored(_) => drop(conn.numbers(&segment, direction)),
            Outcome::Restart | Outcome::Delete => track = None,
        }
        if let Some(conn) = &track {
            assert_eq!(TcpTrack::from_words(conn.to_words()), *conn);
        }
    }
}

/// A tuple: inverted twice it is itself, and both directions have one hash, by either form of key.
pub fn tuple(bytes: &[u8]) {
    let Some((&[v6, proto, a, b, c, d], rest)) = bytes.split_first_chunk() else { return };
    let Some((src, rest)) = rest.split_first_chunk::<16>() else { return };
    let Some((dst, _)) = rest.split_first_chunk::<16>() else { return };
    let address = |bits: u128| match v6 & 1 {
        0 => Address::v4(bits as u32),
        _ => Address::v6(bits),
    };
    let (src, dst) = (address(u128::from_le_bytes(*src)), address(u128::from_le_bytes(*dst)));
    let (src_id, dst_id) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
    let tuple = Tuple { src, dst, src_id, dst_id, proto };
    let seed = HashSeed([3, 5, 7, 11, 13]);
    let Some(inverted) = tuple.inverted() else { return };
    assert_eq!(inverted.inverted(), Some(tuple));
    assert_eq!(inverted.hash(7, &seed), tuple.hash(7, &seed), "{tuple:?}");
    if v6 & 1 == 0 && matches!(proto, 6 | 17) {
        let key = KeyV4::of(&tuple);
        let hash = key.hash(&seed.keys(proto, 7));
        assert_eq!((key.tuple(), hash), (tuple, tuple.hash(7, &seed)));
    }
}

/// Packets of one SCTP conn, as [`dialogue`] cuts them: what the tracker makes of each, and that its
/// words lead back to what it knows.
pub fn sctp(bytes: &[u8]) {
    let timeouts = Timeouts::default();
    let mut track = None;
    for (direction, packet) in dialogue(bytes) {
        let chunks = sctp::chunks(packet).count();
        assert!(chunks <= packet.len() / 4, "{chunks} chunks in {} bytes", packet.len());
        match &mut track {
            None => track = SctpTrack::first(packet, &timeouts).ok().map(|(track, _)| track),
            Some(track) => {
                track.packet(packet, direction, &timeouts);
                assert_eq!(SctpTrack::from_words(track.to_words()), *track);
            }
        }
    }
}

/// The same for DCCP.
pub fn dccp(bytes: &[u8]) {
    let knobs = Knobs::default();
    let mut track = None;
    for (direction, packet) in dialogue(bytes) {
        let Ok((header, covered)) = dccp::sanity(packet) else { continue };
        assert!(covered <= packet.len() && header.sequence < 1 << 48, "{header:?}");
        match &mut track {
            None => track = DccpTrack::first(&header, &knobs).ok().map(|(track, _)| track),
            Some(track) => {
                track.packet(&header, direction, Status::SEEN_REPLY, &knobs.timeouts);
                assert_eq!(DccpTrack::from_words(track.to_words()), *track);
            }
        }
    }
}

/// Packets out of bytes: one byte for direction and, in its lower seven bits, length, then as many.
fn dialogue(mut bytes: &[u8]) -> impl Iterator<Item = (Direction, &[u8])> {
    std::iter::from_fn(move || {
        let (first, rest) = bytes.split_first()?;
        let direction = if first & 0x80 == 0 { Direction::Original } else { Direction::Reply };
        let (packet, rest) = rest.split_at(rest.len().min(usize::from(first & 0x7f)));
        bytes = rest;
        Some((direction, packet))
    })
}

/// An ARP packet, and the same bytes as a neighbour discovery message.
pub fn neighbours(bytes: &[u8]) {
    if let Some(view) = arp::View::new(bytes) {
        let _ = (view.operation(), view.sender(), view.target(), view.is_gratuitous());
        let _ = (view.sender_mac(), view.target_mac());
    }
    let h = headers::Headers { proto: 58, ttl: 255, ..headers::Headers::default() };
    ndp::parse(&h, bytes);
}

/// What follows a UDP header to a TFTP server: nothing behind the opcode matters.
pub fn tftp(message: &[u8]) {
    let head = message.get(..tftp::BYTES).unwrap_or(message);
    assert_eq!(tftp::is_request(message), tftp::is_request(head));
    assert!(!tftp::is_request(message) || matches!(head, [0, 1 | 2]));
}

fn label_names() -> Result<Names, String> {
    Ok(Names::parse("0 zero\n5 two words\n127 last\n200 beyond"))
}

/// The names of labels: no two of one number, none that a list could be mistaken for.
pub fn labels(bytes: &[u8]) {
    let names = Names::parse(&String::from_utf8_lossy(bytes));
    for name in (0..1024).filter_map(|number| names.name(number)) {
        assert!(!name.contains(','));
        assert_eq!(names.number(name).and_then(|number| names.name(number)), Some(name));
    }
}

/// Rule text of both families: what is accepted is printed, read again and printed alike.
pub fn iptables(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for family in [Family::V4, Family::V6] {
        let empty = Ruleset::new(family);
        let names = label_names().unwrap_or_default();
        let look = Look { counters: true, labels: Some(&names), ..Look::default() };
        match iptables::restore_named(&empty, text, (false, true), &names) {
            Ok(rules) => {
                let saved = iptables::save(&rules, look);
                let again = iptables::restore_named(&empty, &saved, (false, true), &names);
                let again = again.unwrap_or_else(|e| panic!("{e} in\n{saved}"));
                assert_eq!(iptables::save(&again, look), saved);
            }
            Err(error) => assert_eq!(error.in_file("f").lines().count(), 1),
        }
    }
}

/// Command lines of `iptables` and `ip6tables`, one a line: what fails changes nothing and says why
/// in one line; what is left can be saved and read again.
pub fn iptables_arguments(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let names = label_names().unwrap_or_default();
    for family in [Family::V4, Family::V6] {
        let mut rules = Ruleset::new(family);
        for line in text.lines() {
            let Ok(words) = words::split(line, 1) else { continue };
            let argv: Vec<String> = words.into_iter().map(|word| word.text).collect();
            let before = rules.clone();
            let (answer, effect) = tools::iptables::run(&argv, &mut rules, &names);
            if answer.exit != 0 || effect == Effect::Nothing {
                assert!(rules == before, "{line}");
            }
            assert_eq!(answer.err.lines().count(), usize::from(answer.exit != 0), "{line}");
        }
        let look = Look { labels: Some(&names), ..Look::default() };
        let saved = iptables::save(&rules, look);
        let again = iptables::restore_named(&Ruleset::new(family), &saved, (false, true), &names);
        let again = again.unwrap_or_else(|e| panic!("{e} in\n{saved}"));
        assert_eq!(iptables::save(&again, look), saved);
    }
}

/// Command lines of `ipset`, one a line: what they leave can be saved, loaded and saved again.
pub fn ipset(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let now = Tick(1000);
    let sets = Sets::default();
    for line in text.lines() {
        let argv: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let answer = sets.run(&argv, text, now);
        assert!(answer.exit == 0 || answer.out.is_empty() || !answer.err.is_empty(), "{line}");
    }
    // The tool too takes a name that its own restore cannot read.
    let names = sets.run(&["list".to_owned(), "-n".to_owned()], "", now).out;
    if names.contains('"') {
        return;
    }
    let save = |sets: &Sets| sets.run(&["save".to_owned()], "", now).out;
    let saved = save(&sets);
    let again = Sets::load(&saved, now).unwrap_or_else(|e| panic!("{e:?} in\n{saved}"));
    // The order of elements is that of a hash whose secret is the set's own.
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&save(&again)), sorted(&saved));
    let _ = Sets::load(text, now);
}

/// A configuration.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(error) = Config::parse(Path::new("f.toml"), text, 8 << 30) {
        assert_eq!(error.to_string().lines().count(), 1, "{error}");
    }
}

/// The arguments of `conntrack`, one a line.
pub fn conntrack_arguments(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let argv: Vec<String> =
        std::iter::once("conntrack").chain(text.lines()).map(str::to_owned).collect();
    let _ = conntrack_args::parse(&argv, &label_names);
    let _ = conntrack_args::parse(&argv[1..], &label_names);
}

/// A line on the control socket.
pub fn request(bytes: &[u8]) {
    if let Ok((argv, _)) = socket::parse_request(bytes) {
        let _ = conntrack_args::parse(&argv, &label_names);
    }
}

/// Fragments, five bytes each: family and datagram, offset, length, flags and ECN, time that passes.
/// What becomes whole has no gap, and every fragment ends once.
pub fn fragments(bytes: &[u8]) {
    const SECOND: u32 = 100;
    let mut held = Reassembly::new(1);
    let (mut now, mut ended) = (Tick(0), 0);
    for (taken, word) in (1..).zip(bytes.chunks_exact(5)) {
        let &[datagram, offset, len, flags, wait] = word else { continue };
        let v6 = datagram & 1 == 1;
        let address = |n| if v6 { Address::v6(n) } else { Address::v4(n as u32) };
        let source = u128::from(datagram >> 5);
        let id = u32::from(datagram >> 1 & 15);
        let key = Key { src: address(source), dst: address(9), id, proto: 17, user: 0 };
        let hash = |key: &Key| u64::from(key.id % 3) << 40;
        // Far offsets are as likely as near ones.
        let offset = u32::from(offset & 0x3f) << if offset & 0x80 == 0 { 3 } else { 10 };
        let part = Part {
            offset,
            len: u32::from(len) << if flags & 0x80 == 0 { 0 } else { 8 },
            more: flags & 1 == 1,
            header: if v6 { 48 } else { 20 },
            dont_fragment: flags & 2 != 0,
            ecn: flags >> 2,
            at: 34,
            port: 0,
            cost: COST_OF_BUFFER,
        };
        let high_thresh = u64::from(flags >> 4 & 7) << 14;
        let limits = Limits { high_thresh, timeout_secs: 3, max_dist: 4 };
        now = Tick(now.0.wrapping_add(u32::from(wait & 15) * SECOND / 4));
        let mut gone = |_, _| ended += 1;
        let whole = held.add((&key, hash(&key)), &part, offset, &limits, now, &mut gone);
        if let Some(whole) = whole {
            let end = whole.parts.iter().fold(0, |end, part| {
                assert_eq!(part.frame, end, "no gap");
                end + part.len
            });
            assert_eq!(end, whole.len);
            assert!(whole.len <= 65535);
            ended += whole.parts.len();
        }
        while let Some(stale) = held.expired(now, hash) {
            ended += stale.parts.len();
        }
        assert_eq!(held.held() + ended, taken, "every fragment ends once");
    }
    held.clear(&mut |_| {});
    assert_eq!((held.held(), held.datagrams(), held.cost(false)), (0, 0, 0));
}
