//! `-j NETMAP`.

use dataplane::rules::matches::Net;
use dataplane::rules::targets::Target;
use dataplane::wire::address::Address;

use super::super::extension::{Extension, Given, Text, valued};
use super::super::print::{Line, net_text};
use super::super::values::{self, Fault};

pub(super) const NETMAP: Extension<Target> = Extension {
    name: "NETMAP",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[valued("to").must()],
    begin: |_| Target::Netmap(Net { address: Address::default(), mask: 0 }),
};

/// iptables takes an IPv4 address of fewer than four numbers for another one than elsewhere, and a
/// mask with holes for none; here neither is taken.
impl Text for Net {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let text = given.text();
        let host = text.split_once('/').map_or(text, |(host, _)| host);
        if values::address(host, given.family).is_none() {
            let family = values::family_name(given.family);
            return Err(format!("`{host}' is not an {family} address"));
        }
        let net = values::net(text, given.family)?;
        let bits = given.family.address_bits();
        if !(0..=bits).any(|length| values::prefix_mask(length, bits) == net.mask) {
            return Err(format!("the mask of `{text}' has holes"));
        }
        *self = net;
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        out.option("--to", &net_text(*self, out.family, true));
    }

    fn list(&self, out: &mut Line<'_>) {
        let net = net_text(*self, out.family, true);
        out.word(&format!("to:{net}"));
    }
}
