//! What the table raw says of conns before they exist: `-j CT`.

use arrayvec::ArrayVec;
use dataplane::conntrack::events;
use dataplane::conntrack::helper::Helper;
use dataplane::conntrack::knobs::Knobs;
use dataplane::conntrack::policies::Policies;
use dataplane::conntrack::record::{ConnRef, Family as Space};
use dataplane::conntrack::state::Status;
use dataplane::conntrack::timeouts::Timeout;
use dataplane::conntrack::view::{ConnView, EventKind};
use dataplane::lcore::memory::MemoryFrame;
use dataplane::pipeline::handoff::{Handed, Stage};
use dataplane::pipeline::messages::FromLcore;
use dataplane::rules::hook::Table::Raw;
use dataplane::rules::model::Rule;
use dataplane::rules::targets::Target;
use dataplane::rules::template::{Ct, Side, Template, Zone};
use dataplane::wire::tcp::flags::{ACK, RST, SYN};

use super::host_lcores::Pair;
use super::rig::*;
use super::rules::*;
use super::tracking::{tcp, udp};

const CLIENT: &str = "192.168.1.2:4000";
const SERVER: &str = "198.51.100.7:69";
const CLIENT6: &str = "[2001:db8:1::2]:4000";
const SERVER6: &str = "[2001:db8:9::7]:69";

/// `-j CT` with these options.
pub(super) fn ct(template: Template) -> Rule {
    on(Target::Ct(Ct { template, ..Ct::default() }))
}

fn tftp() -> Template {
    Template { helper: Some(Helper::Tftp), ..Template::default() }
}

fn helper(conn: &ConnView) -> Option<&str> {
    conn.helper.as_deref()
}

#[test]
fn s10_a_helper_is_assigned_when_the_conn_begins_and_stays() {
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
    let handed = Handed {
        frame,
        port: LAN,
        stage,
        hops: 1,
        mark: 0,
        traced: false,
        template,
        datagram: None,
    };
    pair.third.give(1, &mut ArrayVec::<_, 1>::from([handed]));
    assert_eq!(pair.settle().len(), 1);
    let records = &pair.shared.records;
    let conns = (0..records.numbers(Space::V4)).map(|n| ConnRef::new(Space::V4, n));
    let helpers: Vec<_> =
        conns.filter_map(|number| pair.shared.extension(records.get(number)?)?.helper()).collect();
    assert_eq!(helpers, [Helper::Tftp]);
}

fn in_zone(id: u16, mark: bool, side: Side) -> Rule {
    ct(Template { zone: Zone { id, mark, side }, ..Template::default() })
}

#[test]
fn conns_of_a_zone_by_port_take_the_short_way() {
    for side in [Side::Both, Side::Original] {
        let rule = match side {
            Side::Both => in_zone(5, false, side),
            _ => in_zone(5, false, side).in_port("lan"),
        };
        let mut rig = Setup::default().both(Raw, "PREROUTING", rule).start();
        for (client, server) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
            for _ in 0..4 {
                rig.pass(LAN, udp(client, server));
                rig.pass(WAN, udp(server, client));
            }
        }
        let zones: Vec<_> = rig.list().iter().map(|c| (c.zone_original, c.zone_reply)).collect();
        let reply = if side == Side::Both { 5 } else { 0 };
        assert_eq!(zones, [(5, reply); 2]);
        // Of each four the first is the conn's first, or the first answered, the second walks.
        assert!(rig.counters.fast.get() >= 8, "{side:?}: {}", rig.counters.fast.get());
    }
}

#[test]
fn s04_an_answer_of_the_replys_zone_is_found_behind_raw() {
    let rule = in_zone(5, false, Side::Original).in_port("lan");
    let mut rig = Setup::default().both(Raw, "PREROUTING", rule).start();
    for _ in 0..3 {
        rig.pass(WAN, udp(SERVER, CLIENT));
        rig.pass(LAN, udp(CLIENT, SERVER));
    }
    let conn = rig.conn();
    assert_eq!((conn.zone_original, conn.zone_reply), (0, 0));
    assert!(conn.status.has(Status::SEEN_REPLY));
}

/// How many conns each lcore owns, by zone.
fn zones_owned(pair: &Pair) -> Vec<(u8, u16)> {
    let records = &pair.shared.records;
    let conns = (0..records.numbers(Space::V4)).map(|n| ConnRef::new(Space::V4, n));
    let mut owned: Vec<_> = conns
        .filter_map(|number| {
            let conn = records.get(number)?;
            Some((conn.owner()?, conn.zones().original))
        })
        .collect();
    owned.sort_unstable();
    owned
}

#[test]
fn lcores_meet_in_a_zone_that_only_raw_can_tell() {
    // Both directions, by whichever queue they come, belong to one conn with one owner.
    let rules = [
        in_zone(3, false, Side::Both).src("192.168.1.2", 32),
        in_zone(3, false, Side::Both).dst("192.168.1.2", 32),
        in_zone(4, false, Side::Original).in_port("lan"),
    ];
    for queues in [1, 2] {
        let mut setup = Setup::default();
        for rule in &rules {
            setup = setup.rule(V4, Raw, "PREROUTING", rule.clone());
        }
        let mut pair = Pair::with_queues(setup, queues);
        let clients = ["192.168.1.2:4000", "192.168.1.3:4000", "192.168.1.2:4001"];
        for client in clients {
            for round in 0..4 {
                let (here, there) = if queues == 2 { (round % 2, 1 - round % 2) } else { (0, 1) };
                pair.pass(here, LAN, udp(client, SERVER));
                pair.pass(there, WAN, udp(SERVER, client));
            }
        }
        let owned = zones_owned(&pair);
        assert_eq!(owned.iter().map(|(_, zone)| *zone).filter(|z| *z == 3).count(), 2);
        assert_eq!(owned.len(), 3, "{owned:?}");
        assert!(pair.counters.iter().any(|c| c.handed_over.get() > 0));
    }
}

fn policies(before: &Policies, knobs: &Knobs, named: &[(&str, u32)]) -> Policies {
    let policy = |(name, secs): &(&str, u32)| {
        let mut timeouts = knobs.timeouts;
        let all = [Timeout::Udp, Timeout::TcpSynSent, Timeout::TcpClose, Timeout::Icmp];
        for timeout in all.into_iter().chain([Timeout::Icmpv6, Timeout::Generic]) {
            timeouts.set(timeout, *secs);
        }
        ((*name).to_owned(), timeouts)
    };
    before.next(&named.iter().map(policy).collect::<Vec<_>>(), knobs).unwrap()
}

fn by_policy(name: &str) -> Rule {
    on(Target::Ct(Ct { timeout: Some(name.to_owned()), ..Ct::default() }))
}

fn remaining(rig: &mut Rig) -> Vec<u32> {
    rig.list().iter().map(|conn| conn.remaining_secs).collect()
}

#[test]
fn a_policy_has_timeouts_for_all_protocols() {
    let knobs = Knobs::default();
    let setup = Setup {
        policies: policies(&Policies::default(), &knobs, &[("other", 5), ("slow", 777)]),
        ..Setup::default()
    };
    let mut rig = setup.both(Raw, "PREROUTING", by_policy("slow").in_port("lan")).start();
    rig.pass(LAN, udp(CLIENT, SERVER));
    rig.pass(LAN, tcp(CLIENT, SERVER, SYN, 1, 0));
    rig.pass(LAN, udp(CLIENT6, SERVER6));
    rig.pass(WAN, udp("198.51.100.7:70", CLIENT));
    // No policy keeps a SYN longer than what is not acknowledged.
    assert_eq!(remaining(&mut rig), [777, 300, 30, 777]);
    rig.wait_ticks(1000);
    rig.pass(LAN, udp(CLIENT, SERVER));
    rig.pass(WAN, udp(SERVER6, CLIENT6));
    assert_eq!(remaining(&mut rig), [777, 290, 20, 777], "an answer, too, is the policy's");
    rig.pass(WAN, tcp(SERVER, CLIENT, SYN | ACK, 5, 2));
    rig.pass(WAN, tcp(SERVER, CLIENT, RST | ACK, 6, 2));
    let closed = rig.list().into_iter().find(|conn| conn.state == Some("CLOSE")).unwrap();
    assert_eq!(closed.remaining_secs, 777);
}

#[test]
fn a_conn_keeps_its_policy_across_reloads_as_long_as_there_is_one_of_the_name() {
    let knobs = Knobs::default();
    let first = policies(&Policies::default(), &knobs, &[("slow", 777)]);
    let setup = Setup { policies: first.clone(), ..Setup::default() };
    let mut rig = setup.both(Raw, "PREROUTING", by_policy("slow")).start();
    rig.pass(LAN, udp(CLIENT, SERVER));
    // The rule goes, another policy comes, the values change.
    let rules = rig.setup.family(V4).table_mut(Raw).chain_mut("PREROUTING").unwrap();
    rules.rules.clear();
    rig.setup.family(V6).table_mut(Raw).chain_mut("PREROUTING").unwrap().rules.clear();
    let second = policies(&first, &knobs, &[("fast", 2), ("slow", 888)]);
    rig.setup.policies = second.clone();
    rig.publish();
    assert_eq!(remaining(&mut rig), [777], "no timer moves by itself");
    rig.pass(LAN, udp(CLIENT, SERVER));
    assert_eq!(remaining(&mut rig), [888]);
    rig.setup.policies = policies(&second, &knobs, &[("fast", 2)]);
    rig.publish();
    rig.pass(LAN, udp(CLIENT, SERVER));
    assert_eq!(remaining(&mut rig), [30], "the sysctl's");
}

#[test]
fn s10_a_conn_is_counted_if_it_began_while_that_was_switched_on() {
    let mut rig = Setup::default().start();
    rig.pass(LAN, udp(CLIENT, SERVER));
    rig.setup.knobs.acct = true;
    rig.publish();
    rig.pass(LAN, udp(CLIENT, SERVER));
    assert_eq!(rig.conn().counters, None, "it began before");
    rig.pass(LAN, udp(CLIENT6, SERVER6));
    rig.setup.knobs.acct = false;
    rig.publish();
    rig.pass(LAN, udp(CLIENT6, SERVER6));
    rig.pass(WAN, udp(SERVER6, CLIENT6));
    let counted = rig.list().iter().find_map(|conn| conn.counters).unwrap();
    assert_eq!(counted.map(|c| c.packets), [2, 1], "it goes on for those that have counters");
}

#[test]
fn a_helper_alone_neither_counts_nor_takes_the_time() {
    let assign = ct(tftp()).proto(17).dport(69);
    let mut rig = Setup::default().both(Raw, "PREROUTING", assign).start();
    rig.pass(LAN, udp(CLIENT, SERVER));
    rig.setup.knobs.acct = true;
    rig.publish();
    rig.pass(LAN, udp(CLIENT, SERVER));
    let conn = rig.conn();
    assert_eq!((conn.counters, conn.start_unix_ns), (None, None));
}

/// The events of a UDP conn from its first packet to its end, in the words of `conntrack -E`.
fn told(rig: &mut Rig, name_it: impl FnOnce(&mut Rig)) -> Vec<EventKind> {
    name_it(rig);
    rig.pass(LAN, udp(CLIENT, SERVER));
    rig.pass(WAN, udp(SERVER, CLIENT));
    rig.wait(3);
    rig.pass(LAN, udp(CLIENT, SERVER));
    rig.wait(121);
    // Its own first packet finds it gone.
    rig.setup.knobs.events = 0;
    rig.publish();
    rig.pass(WAN, udp(SERVER, CLIENT));
    let told = std::mem::take(&mut rig.told);
    let kinds = told.iter().filter_map(|message| match message {
        FromLcore::Event(event) => Some(event.kind),
        _ => None,
    });
    kinds.collect()
}

fn events_by(ct_events: u16, sysctl: u8, listened: bool) -> Vec<EventKind> {
    let rule = ct(Template { ct_events, ..Template::default() }).in_port("lan");
    let mut setup = Setup::default();
    setup.knobs.events = sysctl;
    let mut rig = setup.both(Raw, "PREROUTING", rule).start();
    if listened {
        rig.listen();
    }
    told(&mut rig, |_| {})
}

#[test]
fn s80_events_of_the_named_classes_are_told() {
    use EventKind::{Destroy, New, Update};
    let all = [New, Update, Update, Destroy];
    for sysctl in [1, 2] {
        assert_eq!(events_by(0, sysctl, true), all);
        assert_eq!(events_by(events::NEW, sysctl, true), [New]);
        assert_eq!(events_by(events::RELATED, sysctl, true), []);
        assert_eq!(events_by(events::REPLY, sysctl, true), [Update]);
        assert_eq!(events_by(events::ASSURED | events::DESTROY, sysctl, true), [Update, Destroy]);
    }
    assert_eq!(events_by(0, 0, true), [], "switched off");
    assert_eq!(events_by(events::NEW | events::DESTROY, 0, true), [New, Destroy], "but by a rule");
    assert_eq!(events_by(0, 1, false), [], "nobody there");
}

#[test]
fn who_comes_later_hears_of_later_conns_unless_all_are_reported() {
    use EventKind::{Destroy, Update};
    for (sysctl, expected) in [(2, vec![]), (1, vec![Update, Update, Destroy])] {
        let mut setup = Setup::default();
        setup.knobs.events = sysctl;
        let mut rig = setup.start();
        let early = |rig: &mut Rig| {
            rig.pass(LAN, udp(CLIENT, SERVER));
            rig.listen();
        };
        assert_eq!(told(&mut rig, early), expected);
    }
}

#[test]
fn of_expectations_the_named_events_are_told() {
    let all = [(events::NEW, 0), (events::NEW, 1), (0, 1), (0, 0)];
    for ((ct_events, exp_events), expected) in all.into_iter().zip([0, 1, 1, 2]) {
        let wanted = Template { ct_events, exp_events, ..tftp() };
        let mut rig = Setup::default().both(Raw, "PREROUTING", ct(wanted).proto(17)).start();
        rig.listen();
        rig.shared.expectations.listen(true).unwrap();
        rig.pass(LAN, udp(CLIENT, SERVER).payload(b"\0\x01file\0octet\0"));
        rig.pass(WAN, udp("198.51.100.7:3000", CLIENT));
        let mut news = Vec::new();
        rig.shared.expectations.take_news(&mut news).unwrap();
        assert_eq!(news.len(), expected, "{ct_events} {exp_events}");
    }
}
