//! The control core with workers that only answer their mail, or do not.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use dataplane::conntrack::early::can_go_early;
use dataplane::conntrack::expect::{Expectation, Flags, SourceMask};
use dataplane::conntrack::helper::Helper;
use dataplane::conntrack::index::Refused;
use dataplane::conntrack::invalid::{InvalidReason, Numbers};
use dataplane::conntrack::record::{ConnId, ConnRef};
use dataplane::conntrack::state::Status;
use dataplane::conntrack::tuple::{Tuple, proto};
use dataplane::pipeline::invalid::Finding;
use dataplane::pipeline::messages::FromLcore;
use dataplane::rules::compiled::CounterId;
use dataplane::rules::facts::PortId;
use dataplane::rules::hook::Family;
use dataplane::rules::model::Ruleset;
use dataplane::rules::sets::key::Key;
use dataplane::rules::sets::{Change, What};
use dataplane::wire::address::Address;

use super::policy::RestoreError;
use super::*;
use crate::iptables::Options;
use crate::tools::{Answer, Gateway, SysctlError};

/// Where a worker stops answering.
#[derive(Clone, Copy, PartialEq)]
enum Stops {
    Never,
    AtOnce,
    /// As soon as there is a policy to adopt.
    BeforeAdopt,
}

struct Fake {
    mailbox: LcoreEnd,
    store: Store,
    snapshot: Arc<Snapshot>,
    stalls: Arc<Stalls>,
    stops: Stops,
    /// Read and not obeyed.
    held: Option<ToLcore>,
    /// Its INVALID packets.
    found: Vec<Finding>,
    /// Whom it was told to end in need.
    named: Vec<ConnId>,
}

impl Fake {
    fn poll(&mut self) {
        while self.stops != Stops::AtOnce
            && let Some(message) = self.held.take().or_else(|| self.mailbox.receive())
        {
            let answer = match message {
                ToLcore::Fold => FromLcore::Folded,
                ToLcore::Adopt(_) if self.stops == Stops::BeforeAdopt => {
                    (self.held, self.stops) = (Some(message), Stops::AtOnce);
                    self.stalls.note(1, Some(Duration::from_secs(1)));
                    return;
                }
                ToLcore::Adopt(new) => {
                    FromLcore::Retired(std::mem::replace(&mut self.snapshot, new))
                }
                ToLcore::View(view) => FromLcore::Viewed(self.store.take_view(view)),
                ToLcore::Move(which, from, buckets) => {
                    FromLcore::Moved(which, self.store.move_own(which, from, buckets))
                }
                ToLcore::List(question, mut slice) => {
                    slice.end = true;
                    FromLcore::Listed(question, slice)
                }
                ToLcore::Relieve(mut conns) => {
                    conns.drain(..).for_each(|id| self.relieve(id));
                    FromLcore::Expired(conns)
                }
                ToLcore::Find(question, mut found) => {
                    found.extend(std::mem::take(&mut self.found));
                    FromLcore::Found(question, found)
                }
                _ => continue,
            };
            assert!(self.mailbox.send(answer).is_ok());
        }
    }

    /// As an lcore does it.
    fn relieve(&mut self, id: ConnId) {
        self.named.push(id);
        let goes = self.store.get(id).is_some_and(can_go_early);
        if goes && self.store.shared().capacity.is_pressed() {
            self.store.delete(id.conn);
        }
    }
}

const SEED: [u64; 6] = [
    0x9e37_79b9_7f4a_7c15,
    0xbf58_476d_1ce4_e5b9,
    0x94d0_49bb_1331_11eb,
    0x2545_f491_4f6c_dd1d,
    0xd6e8_feb8_6659_fd93,
    7,
];

/// A control core with two such workers.
fn bench() -> (ControlCore, Rc<RefCell<Vec<Fake>>>) {
    let text = "[eal]\nworker_cores = [1, 3]\n[[port]]\nname = \"lan\"\ndevice = \"net_null0\"\n\
                [conntrack]\nhashsize = 64\n";
    let config = Config::parse(Path::new("t.toml"), text, 8 << 30).unwrap();
    let rulesets = Rulesets {
        v4: Ruleset::new(Family::V4),
        v6: Ruleset::new(Family::V6),
        sets: Default::default(),
    };
    let wires = (vec![[2, 0, 0, 0, 0, 1]], Layout::even(2, 1, 1));
    let clock = Box::new(Now::default);
    let mut core = ControlCore::new(config, wires, rulesets, SEED, clock).unwrap();
    let fakes = (0..2).map(|number| {
        let parts = core.worker_parts(number).unwrap();
        let stalls = core.worker_stalls(number);
        let (mailbox, snapshot) = (parts.mailbox, parts.snapshot);
        let store = parts.store;
        let (stops, found, named) = (Stops::Never, Vec::new(), Vec::new());
        Fake { mailbox, store, snapshot, stalls, stops, held: None, found, named }
    });
    let fakes = Rc::new(RefCell::new(fakes.collect::<Vec<_>>()));
    let polled = Rc::clone(&fakes);
    core.set_pause(Box::new(move || {
        polled.borrow_mut().iter_mut().for_each(Fake::poll);
        true
    }));
    (core, fakes)
}

#[test]
fn invalid_packets_come_from_every_worker_with_their_ports() {
    let (mut core, fakes) = bench();
    for (number, fake) in fakes.borrow_mut().iter_mut().enumerate() {
        let (reason, numbers) = (InvalidReason::TcpFlags, Numbers::Flags(0));
        let in_port = (number == 0).then_some(PortId(0));
        let unix_ns = 9 - number as u64;
        let finding = Finding { unix_ns, in_port, tuple: Tuple::default(), reason, numbers };
        fake.found.push(finding);
    }
    let argv = ["conntrack", "--invalid"].map(str::to_owned);
    let answer = |core: &mut ControlCore| match core.serve(&argv, "") {
        Served::Done(answer) => answer,
        Served::Events(_) => panic!("no events were asked for"),
    };
    let out = answer(&mut core).out;
    let lines: Vec<&str> = out.lines().map(|line| line.split_once('\t').unwrap().1).collect();
    assert!(
        lines[0].starts_with("lcore=2 IN= ") && lines[1].starts_with("lcore=1 IN=lan "),
        "{out}"
    );
    assert_eq!(lines.len(), 2);
    fakes.borrow_mut()[1].stops = Stops::AtOnce;
    fakes.borrow_mut()[1].stalls.note(1, Some(Duration::from_secs(1)));
    assert!(answer(&mut core).err.contains("worker lcore 2 (CPU 3) does not answer"));
}

fn saved(core: &mut ControlCore) -> String {
    let argv = ["iptables-save", "-c", "-t", "filter"].map(str::to_owned);
    match core.serve(&argv, "") {
        Served::Done(answer) => answer.out + &answer.err,
        Served::Events(_) => panic!("no events were asked for"),
    }
}

const FILTER: &str = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -j ACCEPT\nCOMMIT\n";
const MANGLE: &str = "*mangle\n:FORWARD ACCEPT [0:0]\n-A FORWARD -j ACCEPT\nCOMMIT\n";

#[test]
fn a_policy_that_one_worker_adopts_late_loses_no_count_and_frees_nothing_early() {
    let (mut core, fakes) = bench();
    assert!(core.restore(Family::V4, FILTER, Options::default(), false).is_ok());
    let old = Arc::clone(core.snapshot());
    let count = |lcore: usize, packets: u64| {
        for id in old.v4.rules.counters().map(CounterId) {
            old.v4.counters[lcore].add(id, packets, 60 * packets);
        }
    };
    count(0, 3);
    assert!(saved(&mut core).contains("[3:180] -A FORWARD -j ACCEPT"));

    fakes.borrow_mut()[1].stops = Stops::BeforeAdopt;
    let Err(RestoreError::NotAdopted(error)) =
        core.restore(Family::V4, MANGLE, Options::default(), false)
    else {
        panic!("one worker is late");
    };
    assert_eq!(
        error.to_string(),
        "worker lcore 2 (CPU 3) has not adopted the new policy and does so when it goes on; the \
         others have"
    );
    assert_ne!(core.snapshot().generation, old.generation, "it is in force");
    // Here, with the worker, and with the control core for the worker's last counts.
    assert!(Arc::strong_count(&old) >= 3);
    // Nothing else is begun meanwhile.
    assert!(saved(&mut core).contains("worker lcore 2 (CPU 3) does not answer"));
    let again = core.restore(Family::V4, FILTER, Options::default(), false);
    assert!(matches!(again, Err(RestoreError::Silent(_))));

    count(1, 4);
    let mut late = fakes.borrow_mut();
    late[1].stops = Stops::Never;
    late[1].stalls.note(1, None);
    drop(late);
    for _ in 0..2 {
        let text = saved(&mut core);
        assert!(text.contains("[7:420] -A FORWARD -j ACCEPT"), "each counted once: {text}");
    }
    assert_eq!(Arc::strong_count(&old), 1, "nobody has it any more");
    assert!(core.restore(Family::V4, FILTER, Options::default(), false).is_ok());
}

fn iptables(core: &mut ControlCore, line: &str) -> (u8, String) {
    let argv: Vec<String> = line.split(' ').map(str::to_owned).collect();
    match core.serve(&argv, "") {
        Served::Done(answer) => (answer.exit, answer.out + &answer.err),
        Served::Events(_) => panic!("no events were asked for"),
    }
}

#[test]
fn an_edit_publishes_and_keeps_counts_and_zeroing_publishes_nothing() {
    let (mut core, _fakes) = bench();
    let done = (0, String::new());
    assert_eq!(iptables(&mut core, "iptables -A FORWARD -p udp -j ACCEPT"), done);
    let first = Arc::clone(core.snapshot());
    // The policies of INPUT and FORWARD come first.
    let rule = CounterId(2);
    first.v4.counters[0].add(rule, 3, 180);
    let listed = |core: &mut ControlCore, line: &str| {
        let (exit, out) = iptables(core, line);
        assert_eq!(exit, 0, "{out}");
        out
    };
    assert_eq!(
        listed(&mut core, "iptables -vS FORWARD 1"),
        "-A FORWARD -p udp -c 3 180 -j ACCEPT\n"
    );
    assert_eq!(core.snapshot().generation, first.generation, "a list changes nothing");

    assert_eq!(iptables(&mut core, "iptables -I FORWARD -p tcp -j DROP"), done);
    let second = Arc::clone(core.snapshot());
    assert_ne!(second.generation, first.generation);
    assert!(listed(&mut core, "iptables -vS").contains("-p udp -c 3 180"));

    // What is counted before the zero goes with it, what comes later stays.
    second.v4.counters[1].add(CounterId(3), 4, 240);
    assert!(listed(&mut core, "iptables -vS FORWARD -Z").contains("-p udp -c 7 420"));
    second.v4.counters[1].add(CounterId(3), 1, 60);
    assert!(listed(&mut core, "iptables -vS FORWARD").contains("-p udp -c 1 60"));
    assert_eq!(iptables(&mut core, "iptables -Z FORWARD 2"), done);
    assert!(listed(&mut core, "iptables -vS FORWARD").contains("-p udp -c 0 0"));
    assert_eq!(core.snapshot().generation, second.generation, "nothing was published");

    // What is refused changes nothing; the other family is another ruleset.
    for (line, exit) in [
        ("iptables -A FORWARD -j NOSUCH", 2),
        ("iptables -A FORWARD -j SNAT --to-source 1.2.3.4", 4),
        ("iptables -t raw -A PREROUTING -j CT --timeout nosuch", 4),
        ("ip6tables -D FORWARD -p udp -j ACCEPT", 1),
    ] {
        assert_eq!(iptables(&mut core, line).0, exit, "{line}");
    }
    assert_eq!(core.snapshot().generation, second.generation);
    assert_eq!(listed(&mut core, "ip6tables -S FORWARD"), "-P FORWARD ACCEPT\n");
}

#[test]
fn an_edit_needs_every_worker() {
    let (mut core, fakes) = bench();
    fakes.borrow_mut()[1].stops = Stops::AtOnce;
    fakes.borrow_mut()[1].stalls.note(1, Some(Duration::from_secs(1)));
    let (exit, said) = iptables(&mut core, "iptables -A FORWARD -j DROP");
    assert_eq!(exit, 4);
    assert_eq!(said, "iptables: worker lcore 2 (CPU 3) does not answer\n");
}

#[test]
fn a_silent_worker_is_given_up_with_the_watchdog_and_changes_nothing() {
    let (mut core, fakes) = bench();
    assert_eq!(core.conns().map(|conns| conns.len()), Ok(0));
    fakes.borrow_mut()[1].stops = Stops::AtOnce;
    let stalls = Arc::clone(&fakes.borrow()[1].stalls);
    let start = Instant::now();
    // The watchdog finds out while the answer is waited for.
    let polled = Rc::clone(&fakes);
    core.set_pause(Box::new(move || {
        polled.borrow_mut().iter_mut().for_each(Fake::poll);
        if start.elapsed() > Duration::from_millis(30) {
            stalls.note(1, Some(Duration::from_secs(1)));
        }
        true
    }));
    let silent = Silent { lcore: 2, cpu: 3 };
    assert_eq!(core.conns().map(|conns| conns.len()), Err(silent));
    assert_eq!(core.flush(None), Err(silent));
    let timeout = core.sysctl("nf_conntrack_udp_timeout");
    let set = core.set_sysctl("nf_conntrack_udp_timeout", 5);
    assert_eq!(set, Err(crate::tools::SysctlError::Silent(silent)));
    assert_eq!(core.sysctl("nf_conntrack_udp_timeout"), timeout);
    assert_eq!(core.set_sysctl("nf_conntrack_max", 77), Ok(()));
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    // It is asked nothing while it stands still, so its mailbox does not fill.
    assert!(core.lcores[1].mailbox.has_room());

    let mut fake = fakes.borrow_mut();
    fake[1].stops = Stops::Never;
    drop(fake);
    let polled = Rc::clone(&fakes);
    core.set_pause(Box::new(move || {
        polled.borrow_mut().iter_mut().for_each(Fake::poll);
        true
    }));
    fakes.borrow()[1].stalls.note(1, None);
    assert_eq!(core.conns().map(|conns| conns.len()), Ok(0), "old answers are not mistaken");
    assert_eq!(core.set_sysctl("nf_conntrack_udp_timeout", 5), Ok(()));
}

#[test]
fn conns_expire_at_a_pace_and_as_fast_as_new_ones_come() {
    let (mut core, fakes) = bench();
    let begin = |core: &ControlCore, n| core.lcores[1].counters.conntrack.begun.add(n);
    let idle = core.pace(1);
    assert!((1000..10_000).contains(&idle), "{idle} in a hundredth of a second");
    assert_eq!(core.pace(3), 3 * idle);
    begin(&core, 20_000);
    assert_eq!(core.pace(1), idle + 25_000);
    assert_eq!(core.pace(1), idle, "only those since the last time count");
    core.set_sysctl("nf_conntrack_max", 100).unwrap();
    for n in 0..96 {
        enter(&mut fakes.borrow_mut()[0].store, n).unwrap();
    }
    assert_eq!(core.pace(1), idle, "nobody needs the room");
    begin(&core, 1);
    assert_eq!(core.pace(1), u64::MAX);
}

/// Of no master that is there.
fn expectation() -> Expectation {
    let address = |bits| dataplane::wire::address::Address::v4(bits);
    let (src, dst) = (address(0x0a02_0002), address(0x0a01_0002));
    let tuple = Tuple { src, dst, src_id: 0, dst_id: 5000, proto: 17 };
    Expectation {
        tuple,
        mask: SourceMask::ANY_PORT,
        master: ConnId { conn: ConnRef::from_bits(0), incarnation: 1 },
        master_tuple: tuple,
        zone: 0,
        class: 0,
        flags: Flags::default(),
        helper: Helper::Tftp,
        assigns: None,
        follow: None,
        reported: u8::MAX,
    }
}

#[test]
fn expectations_are_listed_counted_deleted_and_swept() {
    let (mut core, _fakes) = bench();
    let policy = Helper::Tftp.policy();
    let enter = |core: &ControlCore| {
        let table = &core.shared.expectations;
        table.enter(1, &expectation(), policy, false, Now::default()).unwrap();
    };
    enter(&core);
    let [view] = core.expectations().unwrap()[..] else { panic!("one") };
    assert_eq!((view.what, view.remaining_secs), (expectation(), 300));
    assert_eq!((core.expect_count(), core.stats().conntrack.expect_count), (1, 1));
    assert_eq!(core.delete_expectation(view.key), Ok(true));
    assert_eq!(core.delete_expectation(view.key), Ok(false));
    let counted = core.cpu_statistics();
    let of = |i: usize| (counted[i].expect_create, counted[i].expect_delete);
    assert_eq!([of(0), of(1)], [(0, 1), (1, 0)]);
    enter(&core);
    core.sweep_expectations(Tick(1000));
    assert_eq!(core.expect_count(), 0, "its master is nobody");
}

#[test]
fn the_limit_on_expectations_is_a_sysctl_with_the_kernels_default() {
    let (mut core, _fakes) = bench();
    assert_eq!(core.sysctl("nf_conntrack_expect_max"), Some(4));
    assert_eq!(core.set_sysctl("nf_conntrack_expect_max", 4096), Ok(()));
    assert_eq!(core.sysctl("nf_conntrack_expect_max"), Some(4096));
    let above = core.set_sysctl("nf_conntrack_expect_max", 4097);
    assert_eq!(above, Err(SysctlError::Invalid));
}

fn tuple(n: u32) -> Tuple {
    let src = Address::v4(0x0a00_0000 + n);
    Tuple { src, dst: Address::v4(0xc633_6401), src_id: 1000, dst_id: 53, proto: proto::UDP }
}

/// Confirms a conn of a worker, with a translated source.
fn enter(store: &mut Store, n: u32) -> Result<(), Refused> {
    let orig = tuple(n);
    let reply = Tuple { dst: Address::v4(0xcb00_0000 + n), ..orig.inverted().unwrap() };
    let number = store.allocate(&orig, &reply, [0, 0]).unwrap();
    store.conn(number).unwrap().add_status(Status::SRC_NAT);
    let now = Tick(0);
    store.confirm(number, now.plus_secs(600), now)
}

/// How many of the first conns are found by both tuples, and how many by their source.
fn there(store: &Store, conns: u32) -> (usize, usize) {
    let found = |n: &u32| {
        let found = store.find(&tuple(*n), 0, Tick(0))?;
        store.find(&found.conn.reply(), 0, Tick(0))
    };
    let listed = |n: &u32| store.shared().same_source(&tuple(*n), 0, |_| Some(()));
    let (found, listed) = (|n: &u32| found(n).is_some(), |n: &u32| listed(n).is_some());
    ((0..conns).filter(found).count(), (0..conns).filter(listed).count())
}

fn all_there(store: &Store, conns: u32) -> bool {
    there(store, conns) == (conns as usize, conns as usize)
}

#[test]
fn s23_buckets_and_max_change_live_and_every_conn_stays() {
    let (mut core, fakes) = bench();
    for n in 0..256 {
        enter(&mut fakes.borrow_mut()[n as usize % 2].store, n).unwrap();
    }
    let lines = |core: &ControlCore| core.table().index.buckets();
    assert_eq!(lines(&core), 148, "256 conns, two entries each, at load 1/2");
    let before = Arc::downgrade(core.table());
    for (buckets, expected) in [(5000, 716), (5001, 716), (100_000, 14286), (64, 148)] {
        assert_eq!(core.set_sysctl("nf_conntrack_buckets", buckets), Ok(()));
        assert_eq!(core.sysctl("nf_conntrack_buckets"), Some(buckets));
        assert_eq!((core.sysctl("nf_conntrack_max"), core.count()), (Some(256), 256));
        assert_eq!(lines(&core), expected, "as many slots as {buckets}");
        assert!(fakes.borrow().iter().all(|fake| all_there(&fake.store, 256)));
    }
    assert!(before.upgrade().is_none(), "the old arrays are gone");
    // Far beyond what the index and the record numbers were made for.
    assert_eq!(core.set_sysctl("nf_conntrack_max", 40_000), Ok(()));
    assert_eq!((core.sysctl("nf_conntrack_max"), core.count()), (Some(40_000), 256));
    assert_eq!(core.sysctl("nf_conntrack_buckets"), Some(64));
    assert_eq!(lines(&core), 22_858);
    for n in 256..30_000 {
        enter(&mut fakes.borrow_mut()[n as usize % 2].store, n).unwrap();
    }
    assert!(fakes.borrow().iter().all(|fake| all_there(&fake.store, 30_000)));
    // Less deletes nothing and moves nothing; buckets then fit those that there are.
    assert_eq!(core.set_sysctl("nf_conntrack_max", 10), Ok(()));
    assert_eq!((lines(&core), core.count()), (22_858, 30_000));
    assert_eq!(core.set_sysctl("nf_conntrack_buckets", 512), Ok(()));
    assert_eq!((lines(&core), core.count()), (17_144, 30_000));
    // At their load some may find no room in the list of sources, which may be incomplete.
    let (found, listed) = there(&fakes.borrow()[1].store, 30_000);
    assert!(found == 30_000 && listed > 29_950, "{found} {listed}");
    assert_eq!(core.set_sysctl("nf_conntrack_max", 1 << 29), Err(SysctlError::Invalid));
}

#[test]
fn a_resize_waits_for_a_worker_that_stands_still_and_the_next_one_for_both() {
    let (mut core, fakes) = bench();
    for n in 0..200 {
        enter(&mut fakes.borrow_mut()[n as usize % 2].store, n).unwrap();
    }
    fakes.borrow_mut()[1].stops = Stops::AtOnce;
    let stalls = Arc::clone(&fakes.borrow()[1].stalls);
    let start = Instant::now();
    let polled = Rc::clone(&fakes);
    core.set_pause(Box::new(move || {
        polled.borrow_mut().iter_mut().for_each(Fake::poll);
        if start.elapsed() > Duration::from_millis(30) {
            stalls.note(1, Some(Duration::from_secs(1)));
        }
        true
    }));
    let silent = SysctlError::Silent(Silent { lcore: 2, cpu: 3 });
    assert_eq!(core.set_sysctl("nf_conntrack_buckets", 9000), Err(silent));
    assert_eq!(core.sysctl("nf_conntrack_buckets"), Some(64));
    assert_eq!(core.set_sysctl("nf_conntrack_buckets", 700), Err(silent), "one at a time");
    assert!(fakes.borrow().iter().all(|fake| all_there(&fake.store, 200)));

    fakes.borrow_mut()[1].stops = Stops::Never;
    fakes.borrow()[1].stalls.note(1, None);
    let polled = Rc::clone(&fakes);
    core.set_pause(Box::new(move || {
        polled.borrow_mut().iter_mut().for_each(Fake::poll);
        true
    }));
    assert_eq!(core.set_sysctl("nf_conntrack_buckets", 7000), Ok(()));
    assert_eq!(core.table().index.buckets(), 1000);
    assert!(core.resize.is_none());
    assert!(fakes.borrow().iter().all(|fake| all_there(&fake.store, 200)));
}

#[test]
fn a_reload_changes_the_sizes_that_the_file_names() {
    let (mut core, fakes) = bench();
    for n in 0..100 {
        enter(&mut fakes.borrow_mut()[0].store, n).unwrap();
    }
    assert!(fakes.borrow().iter().all(|fake| all_there(&fake.store, 100)));
    let file = std::env::temp_dir().join(format!("sg-sizes-{}.toml", std::process::id()));
    let reload = |core: &mut ControlCore, table: &str| {
        let text = "[eal]\nworker_cores = [1, 3]\n[[port]]\nname = \"lan\"\n\
                    device = \"net_null0\"\n[conntrack]\n";
        std::fs::write(&file, format!("{text}{table}")).unwrap();
        let done = core.reload(&file).map_err(|e| e.to_string());
        std::fs::remove_file(&file).unwrap();
        let sizes = ["nf_conntrack_buckets", "nf_conntrack_max"].map(|key| core.sysctl(key));
        (done, sizes.map(Option::unwrap), core.table().capacity.refuses())
    };
    let both = reload(&mut core, "hashsize = 7000\nmax = 3000\nfull = \"refuse\"\n");
    assert_eq!(both, (Ok(()), [7000, 3000], true));
    assert_eq!(core.table().index.buckets(), 1716);
    assert_eq!(reload(&mut core, "hashsize = 64\n"), (Ok(()), [64, 3000], false));
    core.set_sysctl("nf_conntrack_buckets", 777).unwrap();
    assert_eq!(reload(&mut core, "udp_timeout = 5\n"), (Ok(()), [777, 3000], false));
    assert_eq!(reload(&mut core, "max = 50\n"), (Ok(()), [777, 50], false));
    assert!(fakes.borrow().iter().all(|fake| all_there(&fake.store, 100)));
}

/// Once a new conn found the table full, one pass deletes what may go until 5 % are free.
#[test]
fn a_full_table_is_relieved_down_to_95_percent() {
    for refuses in [false, true] {
        let (mut core, fakes) = bench();
        let ticks = Rc::new(std::cell::Cell::new(0));
        let clock = Rc::clone(&ticks);
        core.clock = Box::new(move || Now { tick: Tick(clock.get()), unix_ns: 0 });
        core.table().capacity.set_refuses(refuses);
        core.set_sysctl("nf_conntrack_max", 200).unwrap();
        for n in 0..200 {
            let store = &mut fakes.borrow_mut()[0].store;
            enter(store, n).unwrap();
            // An ASSURED conn of UDP stays whatever happens.
            let found = store.find(&tuple(n), 0, Tick(0)).unwrap().conn;
            if n >= 50 {
                found.add_status(Status::ASSURED);
            }
        }
        let mut named: Vec<ConnId> = Vec::new();
        let mut round = |core: &mut ControlCore, said: bool| {
            if said {
                assert!(fakes.borrow_mut()[0].mailbox.send(FromLcore::TableFull).is_ok());
            }
            ticks.set(ticks.get() + 100);
            core.round();
            while let Some(message) = fakes.borrow_mut()[0].mailbox.receive() {
                if let ToLcore::Relieve(batch) = message {
                    named.extend(batch.iter());
                }
            }
            std::mem::take(&mut named).len()
        };
        assert_eq!(round(&mut core, false), 0, "nobody has found it full");
        assert_eq!(round(&mut core, true), if refuses { 0 } else { 50 });
        assert_eq!(round(&mut core, false), 0, "one pass");
    }
}

/// A pass ends as soon as there is room, and the next one goes on from there: under lasting
/// pressure every conn gets its turn, wherever in the table it is.
#[test]
fn s21_passes_go_round_the_table() {
    const MAX: u32 = 1000;
    let (mut core, fakes) = bench();
    let ticks = Rc::new(std::cell::Cell::new(0));
    let clock = Rc::clone(&ticks);
    core.clock = Box::new(move || Now { tick: Tick(clock.get()), unix_ns: 0 });
    core.set_sysctl("nf_conntrack_max", MAX.into()).unwrap();
    // So many that a pass needs few of them.
    core.set_sysctl("nf_conntrack_buckets", 20_000).unwrap();
    let buckets = core.table().index.buckets();
    let mut made = 0;
    let mut fill = |core: &mut ControlCore| {
        while core.count() < MAX {
            enter(&mut fakes.borrow_mut()[0].store, made).unwrap();
            made += 1;
        }
        assert!(fakes.borrow_mut()[0].mailbox.send(FromLcore::TableFull).is_ok());
    };
    fill(&mut core);
    let id = |n| fakes.borrow()[0].store.find(&tuple(n), 0, Tick(0)).unwrap().conn.id();
    let first: Vec<ConnId> = (0..MAX).map(id).collect();
    let mut rounds = 0;
    let mut round = |core: &mut ControlCore| {
        ticks.set(ticks.get() + 1);
        core.round();
        fakes.borrow_mut().iter_mut().for_each(Fake::poll);
        rounds += 1;
    };
    for _ in 0..45 {
        fill(&mut core);
        // A pass takes half a second; it ends where the next round sees that there is room.
        (0..50).for_each(|_| {
            if core.table().capacity.is_pressed() {
                round(&mut core);
            }
        });
        round(&mut core);
        assert!((MAX * 9 / 10..MAX * 95 / 100).contains(&core.count()), "{}", core.count());
    }
    assert!(rounds > 90 && buckets > 2000, "in small steps: {rounds} rounds, {buckets} buckets");
    // Each pass takes a twentieth, and new ones come everywhere: after 35 it has gone round.
    let named = &fakes.borrow()[0].named;
    let left = first.iter().filter(|id| !named.contains(id)).count();
    assert_eq!(left, 0, "never looked at");
}

#[test]
fn a_rule_may_only_name_a_timeout_policy_that_there_is() {
    let dir = std::env::temp_dir().join(format!("sluicegate-policies-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let rules = "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j CT --timeout slow\nCOMMIT\n";
    std::fs::write(dir.join("r.v4"), rules).unwrap();
    let load = |more: &str| {
        let text = format!(
            "[[port]]\nname = \"lan\"\ndevice = \"net_null0\"\n[rules]\nipv4 = \"r.v4\"\n{more}"
        );
        let config = Config::parse(&dir.join("x.toml"), &text, 1 << 32).unwrap();
        load_rules(&config).map_err(|error| error.to_string())
    };
    let error = load("[timeout_policy.fast]\n").unwrap_err();
    assert!(error.ends_with("r.v4:3:18: timeout policy `slow' does not exist"), "{error}");
    let loaded = load("[timeout_policy.slow]\n").unwrap();
    assert!(crate::iptables::save(&loaded.v4, Default::default()).contains("--timeout slow\n"));
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_low_threshold_is_never_above_its_high_one() {
    let (mut core, _fakes) = bench();
    let invalid = Err(crate::tools::SysctlError::Invalid);
    for family in ["ipfrag", "nf_conntrack_frag6"] {
        let [low, high] = ["low", "high"].map(|which| format!("{family}_{which}_thresh"));
        assert_eq!((core.sysctl(&low), core.sysctl(&high)), (Some(3_145_728), Some(4_194_304)));
        assert_eq!(core.set_sysctl(&high, 1000), invalid);
        assert_eq!(core.set_sysctl(&low, 4_194_305), invalid);
        assert_eq!(core.set_sysctl(&low, 1000), Ok(()));
        assert_eq!(core.set_sysctl(&high, 1000), Ok(()));
        assert_eq!((core.sysctl(&low), core.sysctl(&high)), (Some(1000), Some(1000)));
    }
    assert_eq!(core.set_sysctl("ipfrag_nothing", 1), invalid);
}

fn ipset(core: &mut ControlCore, line: &str) -> Answer {
    let argv: Vec<String> = format!("ipset {line}").split(' ').map(str::to_owned).collect();
    match core.serve(&argv, "") {
        Served::Done(answer) => answer,
        Served::Events(_) => panic!("no events were asked for"),
    }
}

#[test]
fn a_set_in_use_that_changes_has_walks_begin_anew() {
    let (mut core, fakes) = bench();
    let rules = "*filter\n-A FORWARD -m set --match-set a src -j DROP\n\
                 -A FORWARD -m set --match-set b src -j SET --add-set t src\nCOMMIT\n";
    let refused = core.restore(Family::V4, rules, Options::default(), true);
    let Err(RestoreError::Text(error)) = refused else { panic!("there is no set") };
    assert_eq!(error.to_string(), "2:40: Set a doesn't exist.");
    for line in ["create a hash:ip", "create b list:set", "create t hash:ip", "create six hash:ip"]
    {
        let line = if line.contains("six") { format!("{line} family inet6") } else { line.into() };
        assert_eq!(ipset(&mut core, &line), Answer::default(), "{line}");
    }
    let other = rules.replace("match-set a", "match-set six");
    let refused = core.restore(Family::V4, &other, Options::default(), true);
    let Err(RestoreError::Text(error)) = refused else { panic!("the set is of the other family") };
    let text = "The protocol family of set six is IPv6, which is not applicable.";
    assert!(error.to_string().ends_with(text), "{error}");
    assert!(core.restore(Family::V4, rules, Options::default(), false).is_ok());
    for (line, anew) in [
        ("list", false),
        ("add a 1.1.1.1", true),
        ("test a 1.1.1.1", false),
        ("add t 1.1.1.1", false),
        ("add b a", true),
        ("add six ::1", false),
        ("swap a t", true),
    ] {
        let before = core.snapshot().generation;
        assert_eq!(ipset(&mut core, line).exit, 0, "{line}");
        assert_eq!(core.snapshot().generation != before, anew, "{line}");
    }
    let set = core.rulesets.sets.named()["t"].id;
    let key = Key { first: 0x0909_0909, ..Key::default() };
    let what = What::Add { timeout: None, bytes: 60 };
    let change = FromLcore::Change(Change { set, key, what });
    assert!(fakes.borrow_mut()[1].mailbox.send(change).is_ok());
    let saved = ipset(&mut core, "save t").out;
    assert!(saved.ends_with("add t 1.1.1.1\nadd t 9.9.9.9\n"), "{saved}");
    fakes.borrow_mut()[1].stops = Stops::AtOnce;
    fakes.borrow_mut()[1].stalls.note(1, Some(Duration::from_secs(1)));
    let answer = ipset(&mut core, "swap a t");
    assert!(answer.err.contains("worker lcore 2 (CPU 3) does not answer"), "{answer:?}");
    assert_eq!(answer.exit, 1);
}

#[test]
fn a_file_of_sets_is_read_before_the_rules() {
    let dir = std::env::temp_dir().join(format!("sluicegate-sets-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let rules = "*filter\n-A FORWARD -m set --match-set a src -j DROP\nCOMMIT\n";
    std::fs::write(dir.join("r.v4"), rules).unwrap();
    let load = |sets: &str| {
        std::fs::write(dir.join("s"), sets).unwrap();
        let text = "[[port]]\nname = \"lan\"\ndevice = \"net_null0\"\n[rules]\nipv4 = \"r.v4\"\n\
                    sets = \"s\"\n";
        let config = Config::parse(&dir.join("x.toml"), text, 1 << 32).unwrap();
        load_rules(&config).map_err(|error| error.to_string())
    };
    let loaded = load("create a hash:ip\nadd a 10.0.0.0/30\n").unwrap();
    assert_eq!(loaded.sets.named()["a"].table().unwrap().count(), 4);
    let place = |file: &str| dir.join(file).display().to_string();
    let text = "Element cannot be added to the set: it's already added";
    let twice = load("create a hash:ip\nadd a 10.0.0.1\nadd a 10.0.0.1\n").unwrap_err();
    assert_eq!(twice, format!("{}:3:1: {text}", place("s")));
    let none = load("create b hash:ip\n").unwrap_err();
    assert_eq!(none, format!("{}:2:40: Set a doesn't exist.", place("r.v4")));
    std::fs::remove_dir_all(&dir).unwrap();
}

/// As Linux 6.18 does it: a rule that asks switches accounting on when it is added; who switches it
/// off afterwards is obeyed, also when other rules come.
#[test]
fn rules_that_ask_what_conns_carry_make_them_count() {
    let (mut core, _) = bench();
    let asks = "*filter\n-A INPUT -m connbytes --connbytes 5 --connbytes-dir both \
                --connbytes-mode bytes\nCOMMIT\n";
    let restore = |core: &mut ControlCore, family, text: &str, test| {
        let options = Options { noflush: true, ..Options::default() };
        assert!(core.restore(family, text, options, test).is_ok());
        (core.knobs.acct, core.snapshot.knobs.acct)
    };
    assert_eq!(restore(&mut core, Family::V6, asks, true), (false, false), "only a test");
    assert_eq!(restore(&mut core, Family::V6, asks, false), (true, true));
    core.knobs.acct = false;
    let more = "*filter\n-A INPUT -p tcp\nCOMMIT\n";
    assert_eq!(restore(&mut core, Family::V4, more, false), (false, false));
}
