//! Orders to the kernel about a tap. Each is one request and its acknowledgement.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};

use super::netlink::Requests;
use super::{HostError, Tap};
use crate::config::Prefixed;

const EEXIST: i32 = 17;
const EADDRNOTAVAIL: i32 = 99;

/// The interface index of a tap.
pub(super) fn find(requests: &mut Requests, tap: &Tap) -> Result<u32, HostError> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(tap.name.clone()));
    let error = |error| HostError::Tap { name: tap.name.clone(), what: "not found", error };
    let answers = requests.ask(Message::GetLink(message), 0).map_err(error)?;
    let index = answers.iter().find_map(|answer| match answer {
        Message::NewLink(link) => Some(link.header.index),
        _ => None,
    });
    index.ok_or_else(|| error(io::ErrorKind::NotFound.into()))
}

/// Whether an interface is administratively up.
pub(super) fn is_up(requests: &mut Requests, index: u32) -> io::Result<bool> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    let answers = requests.ask(Message::GetLink(message), 0)?;
    let up = answers.iter().find_map(|answer| match answer {
        Message::NewLink(link) => Some(link.header.flags.contains(LinkFlags::Up)),
        _ => None,
    });
    up.ok_or(io::ErrorKind::NotFound.into())
}

/// MAC address, MTU, addresses, and up. The kernel makes no IPv6 addresses of its own there; the
/// link-local one comes with the port's.
pub(super) fn set_up(requests: &mut Requests, tap: &Tap, index: u32) -> Result<(), HostError> {
    let failed =
        |what: &'static str| move |error| HostError::Tap { name: tap.name.clone(), what, error };
    // Down first: what the kernel gave it when it appeared goes.
    set_link(requests, index, Some(false), Vec::new()).map_err(failed("not taken down"))?;
    let address = LinkAttribute::Address(tap.mac.to_vec());
    set_link(requests, index, None, vec![address]).map_err(failed("MAC address not set"))?;
    let mtu = LinkAttribute::Mtu(tap.mtu.into());
    set_link(requests, index, None, vec![mtu]).map_err(failed("MTU not set"))?;
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let mode = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]);
    if let Err(error) = set_link(requests, index, None, vec![mode]) {
        log::debug!("host_tap {}: no IPv6: {error}", tap.name);
    }
    keep_secondaries(tap);
    set_link(requests, index, Some(true), Vec::new()).map_err(failed("not taken up"))?;
    for address in &tap.addresses {
        match add_address(requests, index, *address) {
            Ok(()) => {}
            // A kernel without IPv6 is no reason to be without IPv4.
            Err(error) if !address.address.is_v4() => {
                let (name, address) = (&tap.name, address.address);
                log::warn!("host_tap {name}: address {address} not added: {error}");
            }
            Err(error) => return Err(failed("address not added")(error)),
        }
    }
    Ok(())
}

/// A reload that takes the first address of a network away must not take the others with it, as the
/// kernel would.
fn keep_secondaries(tap: &Tap) {
    let path = format!("/proc/sys/net/ipv4/conf/{}/promote_secondaries", tap.name);
    if let Err(error) = std::fs::write(&path, "1\n") {
        log::debug!("host_tap {}: {path}: {error}", tap.name);
    }
}

/// The state of the wire as programs see it.
pub(super) fn set_carrier(requests: &mut Requests, index: u32, up: bool) -> io::Result<()> {
    set_link(requests, index, None, vec![LinkAttribute::Carrier(up.into())])
}

fn set_link(
    requests: &mut Requests,
    index: u32,
    up: Option<bool>,
    attributes: Vec<LinkAttribute>,
) -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    if let Some(up) = up {
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
    }
    message.attributes = attributes;
    requests.ask(Message::SetLink(message), 0).map(drop)
}

/// Adds an address that may be used at once; one that is there already is fine.
pub(super) fn add_address(
    requests: &mut Requests,
    index: u32,
    address: Prefixed,
) -> io::Result<()> {
    let message = Message::NewAddress(address_message(index, address));
    match requests.ask(message, NLM_F_CREATE | NLM_F_EXCL) {
        Err(error) if error.raw_os_error() == Some(EEXIST) => Ok(()),
        other => other.map(drop),
    }
}

/// Removes an address; one that is not there is fine.
pub(super) fn remove_address(
    requests: &mut Requests,
    index: u32,
    address: Prefixed,
) -> io::Result<()> {
    match requests.ask(Message::DelAddress(address_message(index, address)), 0) {
        Err(error) if error.raw_os_error() == Some(EADDRNOTAVAIL) => Ok(()),
        other => other.map(drop),
    }
}

fn address_message(index: u32, address: Prefixed) -> AddressMessage {
    let mut message = AddressMessage::default();
    let ip = address.address.ip();
    message.header.index = index;
    message.header.prefix_len = address.prefix;
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    match ip {
        IpAddr::V4(ip) => {
            message.header.family = AddressFamily::Inet;
            if address.prefix < 31 {
                let host = u32::MAX >> address.prefix;
                let broadcast = AddressAttribute::Broadcast((u32::from(ip) | host).into());
                message.attributes.push(broadcast);
            }
        }
        IpAddr::V6(ip) => {
            message.header.family = AddressFamily::Inet6;
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            if ip.is_unicast_link_local() {
                message.header.scope = AddressScope::Link;
            }
        }
    }
    message
}
