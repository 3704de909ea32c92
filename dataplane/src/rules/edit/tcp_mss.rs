//! `-j TCPMSS`: the largest segment that a SYN asks for (`tcpmss_mangle_packet`).

use super::Edited;
use super::tcp_options::length;
use crate::wire::checksum;
use crate::wire::headers::Headers;
use crate::wire::{ipv4, ipv6, tcp};

/// What the option is lowered to. It is never raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetMss {
    /// `--set-mss`.
    To(u16),
    /// `--clamp-mss-to-pmtu`: what the smaller of the MTUs of both ways leaves.
    Clamp,
}

/// An MSS option as it stands in a header.
pub type MssOption = [u8; OPTION_LEN];

const OPTION_LEN: usize = 4;
const KIND: u8 = 2;
/// Headers of 15 words are as long as they can be.
const HEADER_MAX: usize = 60;
/// What a peer that says nothing is taken to bear: RFC 1122, and RFC 2460 for IPv6.
const DEFAULT_V4: u16 = 536;
const DEFAULT_V6: u16 = 1220;

impl SetMss {
    pub(super) fn apply(
        self,
        frame: &mut [u8],
        headers: &Headers,
        path_mtu: impl FnOnce() -> u32,
    ) -> Option<Edited> {
        if headers.fragment.is_later() {
            return Some(Edited::Done);
        }
        // What came in fragments so small that the header is not in one piece is dropped.
        let l4 = frame.get_mut(headers.l4 as usize..)?;
        let header_len = tcp::View::new(l4)?.header_len();
        if header_len < tcp::HEADER_LEN || headers.l4_len() < header_len as u32 {
            return None;
        }
        let headers_len = tcp::HEADER_LEN as u32
            + if headers.is_v6() { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN } as u32;
        let wanted = match self {
            SetMss::To(mss) => mss,
            // Of a way without a bound, as much as a packet can have.
            SetMss::Clamp => match path_mtu().checked_sub(headers_len) {
                None | Some(0) => return None,
                Some(mss) => mss as u16,
            },
        };
        let options = l4.get_mut(tcp::HEADER_LEN..header_len)?;
        if let Some((at, place)) = find(options) {
            let old = u16::from_be_bytes(*place);
            if old > wanted {
                *place = wanted.to_be_bytes();
                // Where padding has moved the number off its word the kernel leaves a wrong sum.
                let delta = match checksum::delta16(old, wanted) {
                    delta if at % 2 == 0 => delta,
                    delta => delta.swap_bytes(),
                };
                tcp::ViewMut::new(l4)?.adjust_check(delta);
            }
            return Some(Edited::Done);
        }
        // With payload the packet might get too long, and a full header has no room.
        if headers.l4_len() > header_len as u32 || header_len >= HEADER_MAX {
            return Some(Edited::Done);
        }
        let default = if headers.is_v6() { DEFAULT_V6 } else { DEFAULT_V4 };
        let [high, low] = wanted.min(default).to_be_bytes();
        Some(Edited::Grow([KIND, OPTION_LEN as u8, high, low]))
    }
}

/// Where the value of the first MSS option is, and the value.
fn find(options: &mut [u8]) -> Option<(usize, &mut [u8; 2])> {
    let mut at = 0;
    while let Some(rest) = options.get(at..).filter(|rest| rest.len() >= OPTION_LEN) {
        if rest.starts_with(&[KIND, OPTION_LEN as u8]) {
            return Some((at, options.get_mut(at + 2..)?.first_chunk_mut()?));
        }
        at += length(rest);
    }
    None
}

/// Puts the option before all others of a packet without payload, behind whose end there is room
/// for it. `None` if that is not so.
pub fn insert(frame: &mut [u8], headers: &mut Headers, option: MssOption) -> Option<()> {
    let (l3, l4, end) = (headers.l3 as usize, headers.l4 as usize, headers.end as usize);
    let len = headers.l4_len() as u16;
    let added = OPTION_LEN as u16;
    let segment = frame.get_mut(l4..end + OPTION_LEN)?;
    segment.copy_within(tcp::HEADER_LEN..len as usize, tcp::HEADER_LEN + OPTION_LEN);
    *segment.get_mut(tcp::HEADER_LEN..)?.first_chunk_mut()? = option;
    let mut tcp = tcp::ViewMut::new(segment)?;
    let word = |tcp: &tcp::ViewMut<'_>| u16::from_be_bytes([tcp.0[12], tcp.0[13]]);
    let old = word(&tcp);
    tcp.0[12] += 1 << 4;
    let new = word(&tcp);
    let lengths = checksum::delta16(len, len + added);
    let options = checksum::delta32(0, u32::from_be_bytes(option));
    tcp.adjust_check(lengths);
    tcp.adjust_check(options);
    tcp.adjust_check(checksum::delta16(old, new));
    let packet = frame.get_mut(l3..)?;
    if headers.is_v6() {
        let mut ip = ipv6::ViewMut::new(packet)?;
        let payload = ip.view().payload_len();
        ip.set_payload_len(payload + added);
    } else {
        let mut ip = ipv4::ViewMut::new(packet)?;
        let total = ip.view().total_len();
        ip.set_total_len(total + added);
    }
    headers.end += u32::from(added);
    Some(())
}
