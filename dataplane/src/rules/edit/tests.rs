//! Edits against what a whole computation says of the result.

use proptest::prelude::*;

use super::ecn::SetEcn;
use super::prefix::{End, Prefixes};
use super::tcp_mss::{SetMss, insert};
use super::tcp_options::StripOptions;
use super::tos::SetTos;
use super::ttl::SetTtl;
use super::{Edit, Edited};
use crate::wire::address::Address;
use crate::wire::checksum;
use crate::wire::headers::{Headers, parse};

const ETHERNET: usize = 14;

/// A TCP frame with right checksums.
fn tcp(v6: bool, flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let header_len = 20 + options.len();
    assert_eq!(header_len % 4, 0);
    let l4_len = header_len + payload.len();
    let mut frame = vec![2; 12];
    let ip: Vec<u8> = if v6 {
        let mut ip = vec![0x6b, 0x8a, 0xbc, 0xde];
        ip.extend((l4_len as u16).to_be_bytes());
        ip.extend([6, 64]);
        ip.extend([0x20, 1, 0xd, 0xb8, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6]);
        ip.extend([0x20, 1, 0xd, 0xb8, 0, 9, 0, 8, 0, 7, 0, 6, 0, 5, 0, 4]);
        ip
    } else {
        let mut ip = vec![0x45, 0xb8];
        ip.extend((20 + l4_len as u16).to_be_bytes());
        ip.extend([0x12, 0x34, 0x40, 0, 64, 6, 0, 0, 192, 168, 1, 2, 198, 51, 100, 7]);
        let check = checksum::internet(&ip);
        ip[10..12].copy_from_slice(&check.to_be_bytes());
        ip
    };
    frame.extend(if v6 { [0x86, 0xdd] } else { [8, 0] });
    frame.extend(&ip);
    frame.extend([0x9c, 0x40, 0, 80, 1, 2, 3, 4, 5, 6, 7, 8]);
    frame.extend([(header_len as u8 / 4) << 4, flags, 0x72, 0x10, 0, 0, 0, 0]);
    frame.extend(options);
    frame.extend(payload);
    let h = parse(&frame, frame.len()).unwrap();
    let l4 = h.l4 as usize;
    let check = checksum::finish(h.pseudo() + checksum::sum(&frame[l4..]));
    frame[l4 + 16..l4 + 18].copy_from_slice(&check.to_be_bytes());
    frame
}

/// Edits the frame and checks that headers and checksums tell the truth afterwards.
fn edited(edit: &Edit, frame: &mut Vec<u8>, path_mtu: u32) -> Edited {
    let mut headers = parse(frame, frame.len()).unwrap();
    let mut done = edit.apply(frame, &mut headers, || path_mtu);
    if let Edited::Grow(option) = done {
        frame.truncate(headers.end as usize);
        frame.extend([0; 4]);
        insert(frame, &mut headers, option).unwrap();
        done = Edited::Done;
    }
    if done == Edited::Done {
        let again = parse(frame, frame.len()).unwrap();
        assert_eq!(headers, again);
        assert!(headers.l4_check_ok(frame));
    }
    done
}

fn flags() -> impl Strategy<Value = u8> {
    prop_oneof![Just(2u8), Just(0x12), Just(0xc2), any::<u8>()]
}

/// Options as they come, and such as make no sense.
fn options() -> impl Strategy<Value = Vec<u8>> {
    let known = prop_oneof![
        Just(vec![1]),
        Just(vec![4, 2]),
        Just(vec![3, 3, 7]),
        any::<u16>().prop_map(|mss| [&[2, 4], &mss.to_be_bytes()[..]].concat()),
        any::<[u8; 8]>().prop_map(|stamps| [&[8, 10], &stamps[..]].concat()),
        any::<(u8, u8)>().prop_map(|(kind, length)| vec![kind, length]),
    ];
    proptest::collection::vec(known, 0..8).prop_map(|parts| {
        let mut bytes = parts.concat();
        bytes.truncate(40);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    })
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![Just(Vec::new()), proptest::collection::vec(any::<u8>(), 0..9)]
}

fn edits() -> impl Strategy<Value = Edit> {
    prop_oneof![
        any::<(u8, u8)>().prop_map(|(value, mask)| Edit::Tos(SetTos { value, mask })),
        any::<u8>().prop_map(|ttl| Edit::Ttl(SetTtl::To(ttl))),
        any::<u8>().prop_map(|by| Edit::Ttl(SetTtl::More(by))),
        any::<u8>().prop_map(|by| Edit::Ttl(SetTtl::Less(by))),
        any::<(bool, Option<bool>, Option<bool>)>()
            .prop_map(|(ip, ece, cwr)| { Edit::Ecn(SetEcn { ip: ip.then_some(2), ece, cwr }) }),
        any::<u16>().prop_map(|mss| Edit::Mss(SetMss::To(mss))),
        Just(Edit::Mss(SetMss::Clamp)),
        proptest::collection::vec(2u8..=255, 1..5).prop_map(|kinds| {
            let mut set = StripOptions::default();
            for kind in [2, 3, 8].into_iter().chain(kinds) {
                set.add(kind);
            }
            Edit::Strip(set)
        }),
    ]
}

proptest! {
    #[test]
    fn checksums_and_headers_stay_true(
        v6: bool,
        flags in flags(),
        options in options(),
        payload in payload(),
        edits in proptest::collection::vec(edits(), 1..4),
        mtu in 61u32..9000,
    ) {
        let mut frame = tcp(v6, flags, &options, &payload);
        for edit in &edits {
            // What is IPv4's alone stands in no rule of the other family.
            if v6 && matches!(edit, Edit::Ecn(_)) {
                continue;
            }
            prop_assert_eq!(edited(edit, &mut frame, mtu), Edited::Done);
        }
    }

    /// RFC 6296, section 2: the address changes, its sum does not; and back again.
    #[test]
    fn prefixes_are_neutral_to_checksums(
        from in any::<u128>(), to in any::<u128>(), lengths in (0u8..=64, 0u8..=64),
        host in any::<u128>(),
    ) {
        let cut = |bits: u128, length: u8| (bits & Prefixes::mask(length), length);
        let there = Prefixes { from: cut(from, lengths.0), to: cut(to, lengths.1) };
        let longer = lengths.0.max(lengths.1);
        let address = there.from.0 | host & !Prefixes::mask(longer);
        let (mapped, sound) = there.map(address);
        let to = Prefixes::mask(there.to.1);
        prop_assert_eq!(mapped & to, there.to.0 & to);
        let sum = |bits: u128| checksum::internet(&bits.to_be_bytes());
        let zero = |check: u16| if check == 0xffff { 0 } else { check };
        prop_assert!(sound);
        prop_assert_eq!(zero(sum(mapped)), zero(sum(address)));
        let back = Prefixes { from: there.to, to: there.from };
        let word = if longer <= 48 { 3 } else { 4 };
        let spared = (address >> (112 - 16 * word)) as u16;
        if spared != 0xffff && spared != 0 {
            prop_assert_eq!(back.map(mapped), (address, true));
        }
    }
}

fn strip(kinds: &[u8]) -> Edit {
    let mut set = StripOptions::default();
    for &kind in kinds {
        assert!(set.add(kind));
    }
    Edit::Strip(set)
}

fn tcp_options(frame: &[u8]) -> Vec<u8> {
    let h = parse(frame, frame.len()).unwrap();
    let l4 = &frame[h.l4 as usize..h.end as usize];
    l4[20..usize::from(l4[12] >> 4) * 4].to_vec()
}

#[test]
fn a_segment_size_is_lowered_and_never_raised() {
    for v6 in [false, true] {
        let least = if v6 { 60 } else { 40 };
        for (asked, set, mtu, expected) in [
            (1460u16, SetMss::To(1400), 9000, 1400),
            (1300, SetMss::To(1400), 9000, 1300),
            (1460, SetMss::Clamp, 1280, 1280 - least),
            (1000, SetMss::Clamp, 1280, 1000),
            (1460, SetMss::To(0), 9000, 0),
        ] {
            let [high, low] = asked.to_be_bytes();
            let mut frame = tcp(v6, 2, &[1, 1, 1, 1, 2, 4, high, low], b"payload");
            assert_eq!(edited(&Edit::Mss(set), &mut frame, mtu), Edited::Done);
            assert_eq!(tcp_options(&frame)[6..], (expected as u16).to_be_bytes());
        }
        let mut frame = tcp(v6, 2, &[], &[]);
        assert_eq!(edited(&Edit::Mss(SetMss::Clamp), &mut frame, least as u32), Edited::Drop);
    }
}

#[test]
fn a_segment_size_is_added_where_there_is_none_and_no_payload() {
    for (v6, most) in [(false, 536u16), (true, 1220)] {
        for (set, expected) in [(1400, most), (500, 500)] {
            let mut frame = tcp(v6, 2, &[3, 3, 7, 1], &[]);
            // Padding of a short frame is none of the packet's.
            frame.extend([9; 6]);
            assert_eq!(edited(&Edit::Mss(SetMss::To(set)), &mut frame, 0), Edited::Done);
            let [high, low] = expected.to_be_bytes();
            assert_eq!(tcp_options(&frame), [2, 4, high, low, 3, 3, 7, 1]);
        }
        let full = [1; 40];
        for (options, payload) in [(&[][..], &b"x"[..]), (&full, b"")] {
            let before = tcp(v6, 2, options, payload);
            let mut frame = before.clone();
            assert_eq!(edited(&Edit::Mss(SetMss::To(500)), &mut frame, 0), Edited::Done);
            assert_eq!(frame, before);
        }
    }
}

#[test]
fn options_become_padding_wherever_they_lie() {
    for v6 in [false, true] {
        let mut frame = tcp(v6, 2, &[1, 2, 4, 5, 6, 3, 3, 7, 8, 0, 4, 4], &[7; 5]);
        assert_eq!(edited(&strip(&[3, 8, 4]), &mut frame, 0), Edited::Done);
        // A length of 0 takes one byte with it, and one that leads out ends it all.
        assert_eq!(tcp_options(&frame), [1, 2, 4, 5, 6, 1, 1, 1, 1, 0, 4, 4]);
        let mut frame = tcp(v6, 2, &[3, 9, 7, 1], &[]);
        assert_eq!(edited(&strip(&[3]), &mut frame, 0), Edited::Done);
        assert_eq!(tcp_options(&frame), [3, 9, 7, 1]);
    }
}

#[test]
fn a_header_that_is_not_there_is_not_edited() {
    for v6 in [false, true] {
        for edit in [strip(&[3]), Edit::Mss(SetMss::To(5))] {
            let mut frame = tcp(v6, 2, &[3, 3, 7, 1], &[]);
            let h = parse(&frame, frame.len()).unwrap();
            for offset in [0x40, 0x70] {
                frame[h.l4 as usize + 12] = offset;
                let mut headers = parse(&frame, frame.len()).unwrap();
                assert_eq!(edit.apply(&mut frame, &mut headers, || 0), Edited::Drop);
            }
        }
    }
}

#[test]
fn congestion_marks_change_one_by_one() {
    let flags = |set: SetEcn, flags: u8| {
        let mut frame = tcp(false, flags, &[], &[]);
        assert_eq!(edited(&Edit::Ecn(set), &mut frame, 0), Edited::Done);
        let h = parse(&frame, frame.len()).unwrap();
        (h.tcp_flags, h.tos)
    };
    let remove = SetEcn { ece: Some(false), cwr: Some(false), ip: None };
    assert_eq!(flags(remove, 0xc2), (2, 0xb8));
    assert_eq!(flags(SetEcn { ece: Some(true), ..SetEcn::default() }, 2), (0x42, 0xb8));
    assert_eq!(flags(SetEcn { cwr: Some(true), ..SetEcn::default() }, 2), (0x82, 0xb8));
    assert_eq!(flags(SetEcn { ip: Some(3), ..SetEcn::default() }, 0xc2), (0xc2, 0xbb));
}

#[test]
fn hops_and_classes_end_where_a_byte_does() {
    for v6 in [false, true] {
        for (set, ttl) in [
            (SetTtl::To(0), 0),
            (SetTtl::More(1), 65),
            (SetTtl::More(255), 255),
            (SetTtl::Less(64), 0),
            (SetTtl::Less(65), 0),
        ] {
            let mut frame = tcp(v6, 2, &[], &[]);
            assert_eq!(edited(&Edit::Ttl(set), &mut frame, 0), Edited::Done);
            assert_eq!(parse(&frame, frame.len()).unwrap().ttl, ttl);
        }
        let mut frame = tcp(v6, 2, &[], &[]);
        assert_eq!(edited(&Edit::Tos(SetTos::dscp(10)), &mut frame, 0), Edited::Done);
        assert_eq!(parse(&frame, frame.len()).unwrap().tos, 0x28);
    }
}

/// The example of RFC 6296, section 2.1, and addresses that have no word to spare.
#[test]
fn prefixes_map_as_the_rfc_shows() {
    let bits = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().to_bits();
    let map = |from: (&str, u8), to: (&str, u8), address: &str| {
        let prefixes = Prefixes { from: (bits(from.0), from.1), to: (bits(to.0), to.1) };
        let (mapped, sound) = prefixes.map(bits(address));
        (std::net::Ipv6Addr::from_bits(mapped).to_string(), sound)
    };
    let (inside, outside) = (("fd01:203:405::", 48), ("2001:db8:1::", 48));
    let there = map(inside, outside, "fd01:203:405:1::1234");
    assert_eq!(there, ("2001:db8:1:d550::1234".to_owned(), true));
    let back = map(outside, inside, "2001:db8:1:d550::1234");
    assert_eq!(back, ("fd01:203:405:1::1234".to_owned(), true));
    let (inside, outside) = (("fd01:203:405:1::", 64), ("2001:db8:1:2::", 64));
    let none = map(inside, outside, "fd01:203:405:1:ffff:ffff:ffff:ffff");
    assert_eq!(none, ("2001:db8:1:2:ffff:ffff:ffff:ffff".to_owned(), false));
    let second = map(inside, outside, "fd01:203:405:1:ffff::1");
    assert_eq!(second, ("2001:db8:1:2:ffff:d54e:0:1".to_owned(), true));
}

/// An error's quote names the host by the address that it has outside.
#[test]
fn quotes_of_errors_are_translated_too() {
    let quoted = tcp(true, 2, &[], &[]);
    let quote = &quoted[ETHERNET..];
    let mut frame = quoted[..ETHERNET].to_vec();
    frame.extend([0x60, 0, 0, 0]);
    frame.extend((8 + quote.len() as u16).to_be_bytes());
    frame.extend([58, 64]);
    // The peer answers what came from the host.
    frame.extend(&quote[24..40]);
    frame.extend(&quote[8..24]);
    frame.extend([3, 0, 0, 0, 0, 0, 0, 0]);
    frame.extend(quote);
    let h = parse(&frame, frame.len()).unwrap();
    let check = checksum::finish(h.pseudo() + checksum::sum(&frame[h.l4 as usize..]));
    frame[h.l4 as usize + 2..][..2].copy_from_slice(&check.to_be_bytes());
    let host = |at: usize, frame: &[u8]| -> u128 {
        u128::from_be_bytes(frame[at..at + 16].try_into().unwrap())
    };
    let before = host(ETHERNET + 24, &frame);
    let to = 0xfd00_u128 << 112;
    let prefixes = Prefixes { from: (before & Prefixes::mask(64), 64), to: (to, 64) };
    let edit = Edit::DestinationPrefix(prefixes);
    assert_eq!(edited(&edit, &mut frame, 0), Edited::Done);
    let after = prefixes.map(before).0;
    assert_eq!(host(ETHERNET + 24, &frame), after);
    assert_eq!(host(ETHERNET + 40 + 8 + 8, &frame), after);
    // One that has no word to spare ends the packet's way, with its new prefix.
    let mut frame = tcp(true, 2, &[], &[]);
    frame[ETHERNET + 16..][..8].fill(0xff);
    let mut headers: Headers = parse(&frame, frame.len()).unwrap();
    let done = prefixes.apply(&mut frame, &mut headers, End::Source);
    assert_eq!((done, headers.src), (Edited::Problem(8), Address::v6(to | u64::MAX as u128)));
}
