//! What a rule says about a conn before it exists: `-j CT` (`xt_ct_target`).
//!
//! A packet that meets the target in the table raw carries a [`Template`] until tracking looks at
//! it; a conn that begins with the packet is made as the template says. The first such target
//! counts, NOTRACK included, as in the kernel: who has one is left alone by the next.

use crate::conntrack::helper::Helper;
use crate::conntrack::state::CtState;
use crate::conntrack::zones::Zones;

/// `-j CT` as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ct {
    /// `--notrack`: tracking leaves the packet alone, whatever else is said.
    pub notrack: bool,
    /// `--timeout`: the name of a policy.
    pub timeout: Option<String>,
    /// What else is said.
    pub template: Template,
}

/// What a template says by value: it stays true when the rule has gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// `--helper`.
    pub helper: Option<Helper>,
    /// `--timeout`: the number of the policy, from 1; 0 for the sysctls.
    pub timeout_policy: u8,
    /// `--ctevents`: the events of the conn that are reported, by [`CT_EVENTS`]; 0 for all.
    pub ct_events: u16,
    /// `--expevents`: the same of its expectations, by [`EXP_EVENTS`].
    pub exp_events: u8,
    /// `--zone`, `--zone-orig`, `--zone-reply`.
    pub zone: Zone,
    /// No rule's word: the packet is SYNPROXY's own, and opens a conn for another one.
    pub proxied: bool,
}

impl Template {
    /// What SYNPROXY's packets to servers carry.
    pub const PROXIED: Template = Template {
        helper: None,
        timeout_policy: 0,
        ct_events: 0,
        exp_events: 0,
        zone: Zone { id: 0, mark: false, side: Side::Both },
        proxied: true,
    };
}

/// Where a template's conns live (`struct nf_conntrack_zone`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    /// The zone's number.
    pub id: u16,
    /// The packet's mark is the number, cut to 16 bits.
    pub mark: bool,
    /// For which tuples.
    pub side: Side,
}

impl Zone {
    /// The zones of the tuples, for a packet with this mark (`nf_ct_zone_tmpl`).
    #[inline]
    pub const fn zones(self, mark: u32) -> Zones {
        let id = if self.mark { mark as u16 } else { self.id };
        match self.side {
            Side::Both => Zones::both(id),
            Side::Original => Zones { original: id, reply: 0 },
            Side::Reply => Zones { original: 0, reply: id },
        }
    }
}

/// Which of a conn's tuples a zone is for; the other is in zone 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Side {
    /// Both.
    #[default]
    Both,
    /// The original one.
    Original,
    /// The reply.
    Reply,
}

/// Names of a conn's events, by bit (`enum ip_conntrack_events`).
pub const CT_EVENTS: [&str; 10] = [
    "new",
    "related",
    "destroy",
    "reply",
    "assured",
    "protoinfo",
    "helper",
    "mark",
    "natseqinfo",
    "secmark",
];

/// Names of an expectation's events, by bit (`enum ip_conntrack_expect_events`).
pub const EXP_EVENTS: [&str; 1] = ["new"];

/// What the table raw says about tracking a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It is not tracked.
    Notrack,
    /// A conn that begins with it is made so.
    Template(Template),
}

impl Said {
    /// The state in which rules of the same table see the packet from there on: a template is a
    /// conn to them, of which nobody has seen anything yet.
    pub const fn state(&self) -> CtState {
        match self {
            Said::Notrack => CtState::Untracked,
            Said::Template(_) => CtState::New,
        }
    }
}
