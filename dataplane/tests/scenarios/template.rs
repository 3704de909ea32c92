//! What the table raw says of conns before they exist: `-j CT`.

use arrayvec::ArrayVec;
use dataplane::conntrack::helper::Helper;
use dataplane::conntrack::record::{ConnRef, Family as Space};
use dataplane::conntrack::view::ConnView;
use dataplane::lcore::memory::MemoryFrame;
use dataplane::pipeline::handoff::{Handed, Stage};
use dataplane::rules::hook::Table::Raw;
use dataplane::rules::model::Rule;
use dataplane::rules::targets::Target;
use dataplane::rules::template::{Ct, Template};

use super::host_lcores::Pair;
use super::rig::*;
use super::rules::*;
use super::tracking::udp;

const CLIENT: &str = "192.168.1.2:4000";
const SERVER: &str = "198.51.100.7:69";
const CLIENT6: &str = "[2001:db8:1::2]:4000";
const SERVER6: &str = "[2001:db8:9::7]:69";

/// `-j CT` with these options.
fn ct(template: Template) -> Rule {
    on(Target::Ct(Ct { template, ..Ct::default() }))
}

fn tftp() -> Template {
    Template { helper: Some(Helper::Tftp), ..Template::default() }
}

fn helper(conn: &ConnView) -> Option<&str> {
    conn.helper.as_deref()
}

#[test]
fn a_helper_is_assigned_when_the_conn_begins_and_stays() {
    let assign = ct(tftp()).proto(17).dport(69);
    let mut rig = Setup::default().both(Raw, "PREROUTING", assign).start();
    for (client, server) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        rig.pass(LAN, udp(client, server));
        rig.pass(WAN, udp(server, client));
    }
    let conns = rig.list();
    assert_eq!(conns.iter().map(helper).collect::<Vec<_>>(), [Some("tftp"); 2]);
    // A conn that is there already gets none, nor does one that the rule does not hold for.
    rig.pass(WAN, udp("198.51.100.7:70", CLIENT));
    rig.pass(LAN, udp(CLIENT, "198.51.100.7:70"));
    let without = |c: &&ConnView| helper(c).is_none();
    assert_eq!(rig.list().iter().filter(without).count(), 1);
}

#[test]
fn the_first_rule_that_speaks_of_tracking_counts() {
    let notrack = || on(Target::Notrack).proto(17);
    let mut rig = Setup::default()
        .both(Raw, "PREROUTING", ct(tftp()).in_port("lan"))
        .both(Raw, "PREROUTING", notrack())
        .both(Raw, "PREROUTING", ct(tftp()))
        .start();
    rig.pass(LAN, udp(CLIENT, SERVER));
    assert_eq!(helper(&rig.conn()), Some("tftp"), "NOTRACK comes too late");
    rig.pass(WAN, udp("198.51.100.7:70", CLIENT));
    assert_eq!(rig.list().len(), 1, "the template comes too late");
}

#[test]
fn a_template_without_options_makes_a_conn_like_any_other() {
    let mut rig = Setup::default()
        .both(Raw, "PREROUTING", ct(Template::default()))
        .both(Raw, "PREROUTING", ct(tftp()))
        .start();
    rig.pass(LAN, udp(CLIENT, SERVER));
    assert_eq!(helper(&rig.conn()), None);
}

#[test]
fn a_packet_that_passed_raw_elsewhere_keeps_what_was_said_there() {
    let mut pair = Pair::with_queues(Setup::default(), 2);
    let frame = MemoryFrame::new(framed(LAN, &udp(CLIENT, SERVER)));
    let (stage, template) = (Stage::PastRaw, Some(tftp()));
    let handed = Handed { frame, port: LAN, stage, hops: 1, mark: 0, template };
    pair.third.give(1, &mut ArrayVec::<_, 1>::from([handed]));
    assert_eq!(pair.settle().len(), 1);
    let records = &pair.shared.records;
    let conns = (0..records.numbers(Space::V4)).map(|n| ConnRef::new(Space::V4, n));
    let helpers: Vec<_> =
        conns.filter_map(|number| pair.shared.extension(records.get(number)?)?.helper()).collect();
    assert_eq!(helpers, [Helper::Tftp]);
}
