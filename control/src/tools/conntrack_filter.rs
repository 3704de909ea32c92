//! Which conns a conntrack(8) command means.
//!
//! An absent criterion matches everything. Addresses imply their family; a number is compared in
//! the width the conn has it in.

use dataplane::conntrack::dccp::Role;
use dataplane::conntrack::state::Status;
use dataplane::conntrack::tuple::proto;
use dataplane::conntrack::view::ConnView;
use dataplane::wire::address::Address;

use super::conntrack_labels::Labels;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `-f ipv4`
    V4,
    /// `-f ipv6`
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: Address) -> Family {
        if address.is_v4() { Family::V4 } else { Family::V6 }
    }
}

/// An address of which the bits of `mask` count. An IPv4 mask has its upper 96 bits set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Masked {
    /// The address.
    pub address: Address,
    /// The bits that count.
    pub mask: u128,
}

impl Masked {
    fn matches(&self, address: Address) -> bool {
        let same_family = address.is_v4() == self.address.is_v4();
        same_family && (address.bits() ^ self.address.bits()) & self.mask == 0
    }
}

/// The translated end of `--src-nat`, `--dst-nat` or `--any-nat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Translated {
    /// Translated to this address.
    pub address: Option<Address>,
    /// Translated to this port.
    pub port: Option<u16>,
}

impl Translated {
    /// `before` is the end as the original tuple has it, `after` as the reply tuple has it.
    fn matches(&self, before: (Address, u16), after: (Address, u16)) -> bool {
        let changed = before != after;
        let address = self.address.is_none_or(|a| a == after.0 && a != before.0);
        let port = self.port.is_none_or(|p| p == after.1 && p != before.1);
        changed && address && port
    }
}

/// All criteria of one command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// `-f`, or the family of an address.
    pub family: Option<Family>,
    /// `-p`
    pub proto: Option<u8>,
    /// `-s`
    pub src: Option<Masked>,
    /// `-d`
    pub dst: Option<Masked>,
    /// `-r`
    pub reply_src: Option<Address>,
    /// `-q`
    pub reply_dst: Option<Address>,
    /// Source and destination port or key of the original tuple.
    pub original_ids: [Option<u16>; 2],
    /// The same of the reply tuple.
    pub reply_ids: [Option<u16>; 2],
    /// `--icmp-type`
    pub icmp_type: Option<u8>,
    /// `--icmp-code`
    pub icmp_code: Option<u8>,
    /// `--icmp-id`
    pub icmp_id: Option<u16>,
    /// `--state`
    pub state: Option<&'static str>,
    /// `--orig-vtag` and `--reply-vtag`: what is to be, as nothing is searched for by them.
    pub vtags: [Option<u32>; 2],
    /// `--role`: what is to be.
    pub role: Option<Role>,
    /// Status bits that must be set.
    pub status_set: u16,
    /// Status bits that must not be set.
    pub status_unset: u16,
    /// A status that no conn can have was asked for.
    pub nothing: bool,
    /// `-m`: the mark under the mask.
    pub mark: Option<(u32, u32)>,
    /// `-l`: labels, all of which have to be set.
    pub labels: Option<Labels>,
    /// `-w`: the zone of both directions.
    pub zone: Option<u16>,
    /// `--orig-zone`
    pub zone_original: Option<u16>,
    /// `--reply-zone`
    pub zone_reply: Option<u16>,
    /// `-n`
    pub src_nat: Option<Translated>,
    /// `-g`
    pub dst_nat: Option<Translated>,
    /// `-j`
    pub any_nat: Option<Translated>,
    /// `-D -t`: the seconds left.
    pub remaining_secs: Option<u32>,
    /// `-D -i`: the number that `-o id` shows.
    pub id: Option<u32>,
}

impl Filter {
    /// Whether the command means this conn.
    pub fn matches(&self, conn: &ConnView) -> bool {
        self.matches_tuples(conn)
            && self.matches_ids(conn)
            && self.matches_nat(conn)
            && self.matches_facts(conn)
    }

    /// The same for `-U`, where mark, status, state and timeout are what is to be, not what is.
    pub fn of_update(&self) -> Filter {
        Filter { mark: None, state: None, ..self.clone() }
    }

    fn matches_tuples(&self, conn: &ConnView) -> bool {
        let (o, r) = (&conn.original, &conn.reply);
        same(self.family, Family::of(o.src))
            && same(self.proto, o.proto)
            && self.src.is_none_or(|m| m.matches(o.src))
            && self.dst.is_none_or(|m| m.matches(o.dst))
            && same(self.reply_src, r.src)
            && same(self.reply_dst, r.dst)
    }

    fn matches_ids(&self, conn: &ConnView) -> bool {
        let (o, r) = (&conn.original, &conn.reply);
        let [kind, code] = o.dst_id.to_be_bytes();
        let is_icmp = matches!(o.proto, proto::ICMP | proto::ICMPV6);
        let asks_icmp =
            self.icmp_type.is_some() || self.icmp_code.is_some() || self.icmp_id.is_some();
        same(self.original_ids[0], o.src_id)
            && same(self.original_ids[1], o.dst_id)
            && same(self.reply_ids[0], r.src_id)
            && same(self.reply_ids[1], r.dst_id)
            && (!asks_icmp || is_icmp)
            && same(self.icmp_type, kind)
            && same(self.icmp_code, code)
            && same(self.icmp_id, o.src_id)
    }

    fn matches_nat(&self, conn: &ConnView) -> bool {
        let (o, r) = (&conn.original, &conn.reply);
        // A ping's number is held against its type, so it always looks translated, as in the tool.
        let (by, of) = (Status::SRC_NAT_DONE, Status::DST_NAT_DONE);
        let src =
            |t: &Translated| conn.status.has(by) && t.matches((o.src, o.src_id), (r.dst, r.dst_id));
        let dst =
            |t: &Translated| conn.status.has(of) && t.matches((o.dst, o.dst_id), (r.src, r.src_id));
        self.src_nat.as_ref().is_none_or(src)
            && self.dst_nat.as_ref().is_none_or(dst)
            && self.any_nat.as_ref().is_none_or(|t| src(t) || dst(t))
    }

    fn matches_facts(&self, conn: &ConnView) -> bool {
        let (zone, original, reply) = zones(conn);
        !self.nothing
            && conn.status.has(Status(self.status_set))
            && conn.status.0 & self.status_unset == 0
            && self.mark.is_none_or(|(mark, mask)| conn.mark & mask == mark)
            && self.labels.is_none_or(|labels| labels.are_all_of(conn))
            && same(self.zone, zone)
            && same(self.zone_original, original)
            && same(self.zone_reply, reply)
            && self.state.is_none_or(|s| conn.state == Some(s))
            && same(self.remaining_secs, conn.remaining_secs)
            && same(self.id, conn.id)
    }
}

/// A conn's zones as the kernel reports them: the one both directions share, or one per direction;
/// what is not reported compares as 0.
fn zones(conn: &ConnView) -> (u16, u16, u16) {
    if conn.zone_original == conn.zone_reply {
        (conn.zone_original, 0, 0)
    } else {
        (0, conn.zone_original, conn.zone_reply)
    }
}

/// True if nothing is wanted or this is it.
fn same<T: PartialEq>(wanted: Option<T>, found: T) -> bool {
    wanted.is_none_or(|w| w == found)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::conntrack_format::tests::tuple;
    use super::*;
    use dataplane::conntrack::tuple::Tuple;

    /// Conns made with `conntrack -I`; the numbers are their order.
    pub(in crate::tools) fn made_by_hand() -> Vec<ConnView> {
        let v4 = |proto, a, b| tuple(proto, "10.1.0.2", a, "10.2.0.2", b);
        let conn = |id: u32, original: Tuple| ConnView {
            id,
            key: id.into(),
            original,
            reply: original.inverted().unwrap(),
            remaining_secs: 3999,
            ..ConnView::default()
        };
        let answered = Status::SEEN_REPLY.with(Status::ASSURED);
        let decided = Status::SRC_NAT_DONE.with(Status::DST_NAT_DONE);
        let established = Some("ESTABLISHED");
        vec![
            ConnView { status: answered, state: established, ..conn(1, v4(6, 1000, 80)) },
            ConnView {
                reply: tuple(6, "10.2.0.2", 80, "10.9.9.9", 5000),
                status: decided.with(Status::SRC_NAT),
                state: Some("SYN_SENT"),
                ..conn(2, v4(6, 1001, 80))
            },
            ConnView {
                reply: tuple(17, "10.9.9.8", 5300, "10.1.0.2", 1002),
                status: decided.with(Status::DST_NAT),
                mark: 7,
                ..conn(3, v4(17, 1002, 53))
            },
            ConnView { zone_original: 5, zone_reply: 5, ..conn(4, v4(17, 1003, 53)) },
            ConnView { zone_original: 6, ..conn(5, v4(17, 1004, 53)) },
            ConnView { zone_reply: 7, ..conn(6, v4(17, 1005, 53)) },
            conn(7, tuple(17, "fd00::1", 1000, "fd00::2", 80)),
            conn(8, v4(47, 16, 32)),
        ]
    }
}
