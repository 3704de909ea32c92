//! `-j TTL` and `-j HL`: how many hops a packet may still go (`ttl_tg`, `hl_tg6`).

use crate::wire::headers::Headers;
use crate::wire::{ipv4, ipv6};

/// What becomes of the TTL or hop limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTtl {
    /// `--ttl-set`: this number.
    To(u8),
    /// `--ttl-inc`: so many more, up to 255.
    More(u8),
    /// `--ttl-dec`: so many less, down to 0.
    Less(u8),
}

impl SetTtl {
    const fn of(self, ttl: u8) -> u8 {
        match self {
            SetTtl::To(ttl) => ttl,
            SetTtl::More(by) => ttl.saturating_add(by),
            SetTtl::Less(by) => ttl.saturating_sub(by),
        }
    }

    pub(super) fn apply(self, frame: &mut [u8], headers: &mut Headers) -> Option<()> {
        let ttl = self.of(headers.ttl);
        if ttl == headers.ttl {
            return Some(());
        }
        let packet = frame.get_mut(headers.l3 as usize..)?;
        if headers.is_v6() {
            ipv6::ViewMut::new(packet)?.set_hop_limit(ttl);
        } else {
            ipv4::ViewMut::new(packet)?.set_ttl(ttl);
        }
        headers.ttl = ttl;
        Some(())
    }
}
