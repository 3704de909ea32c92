//! `-j TOS` and `-j DSCP`: the byte for the class of service (`tos_tg`, `dscp_tg`).

use crate::wire::headers::Headers;
use crate::wire::{ipv4, ipv6};

/// New byte = old byte without the bits of the mask, XOR value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetTos {
    /// Bits to flip after clearing.
    pub value: u8,
    /// Bits to clear.
    pub mask: u8,
}

impl SetTos {
    /// Bits of the byte that are the DSCP (`XT_DSCP_MASK`).
    pub const DSCP: u8 = 0xfc;

    /// What sets a DSCP, below 64, and leaves the rest.
    pub const fn dscp(dscp: u8) -> SetTos {
        SetTos { value: dscp << 2, mask: SetTos::DSCP }
    }

    pub(super) fn apply(self, frame: &mut [u8], headers: &mut Headers) -> Option<()> {
        let tos = (headers.tos & !self.mask) ^ self.value;
        if tos == headers.tos {
            return Some(());
        }
        let packet = frame.get_mut(headers.l3 as usize..)?;
        if headers.is_v6() {
            ipv6::ViewMut::new(packet)?.set_traffic_class(tos);
        } else {
            ipv4::ViewMut::new(packet)?.set_tos(tos);
        }
        headers.tos = tos;
        Some(())
    }
}
