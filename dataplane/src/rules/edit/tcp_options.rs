//! `-j TCPOPTSTRIP`: options of a TCP header become padding (`tcpoptstrip_mangle_packet`).

use crate::wire::checksum;
use crate::wire::headers::Headers;
use crate::wire::tcp;

/// What stands for an option that is none.
const NO_OPERATION: u8 = 1;

/// Bytes that the option at the head of `options` takes. One without a length, or with the length
/// 0, is passed over by a byte.
pub(super) fn length(options: &[u8]) -> usize {
    match options {
        [0 | NO_OPERATION, ..] | [_, 0, ..] | [_] => 1,
        [_, length, ..] => usize::from(*length),
        [] => 0,
    }
}

/// A set of options (`struct xt_tcpoptstrip_target_info`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StripOptions {
    kinds: [u64; 4],
}

impl StripOptions {
    /// Adds an option; false if it is there already.
    pub fn add(&mut self, kind: u8) -> bool {
        let new = !self.has(kind);
        self.kinds[usize::from(kind >> 6)] |= 1 << (kind & 63);
        new
    }

    /// True if it is in the set.
    pub fn has(&self, kind: u8) -> bool {
        self.kinds[usize::from(kind >> 6)] >> (kind & 63) & 1 != 0
    }

    /// All options in the set, in their order.
    pub fn kinds(&self) -> impl Iterator<Item = u8> + '_ {
        (0..=u8::MAX).filter(|&kind| self.has(kind))
    }

    pub(super) fn apply(&self, frame: &mut [u8], headers: &Headers) -> Option<()> {
        if headers.fragment.is_later() {
            return Some(());
        }
        let l4 = frame.get_mut(headers.l4 as usize..)?;
        let view = tcp::View::new(l4)?;
        let (header_len, mut check) = (view.header_len(), view.check());
        if headers.l4_len() < header_len as u32 {
            return None;
        }
        let options = l4.get_mut(tcp::HEADER_LEN..header_len)?;
        let mut at = 0;
        while at + 1 < options.len() {
            let Some(option) = options.get_mut(at..) else { break };
            let len = length(option);
            let Some(bytes) = option.get_mut(..len) else { break };
            if bytes.first().is_some_and(|&kind| self.has(kind)) {
                for (offset, byte) in (at..).zip(bytes) {
                    let high = if offset % 2 == 0 { 8 } else { 0 };
                    let [from, to] = [*byte, NO_OPERATION].map(|b| u16::from(b) << high);
                    check = checksum::adjust16(check, from, to);
                    *byte = NO_OPERATION;
                }
            }
            at += len;
        }
        tcp::ViewMut::new(l4)?.set_check(check);
        Some(())
    }
}
