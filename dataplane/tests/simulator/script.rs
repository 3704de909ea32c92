//! What the hosts mean to say: talks, each a strict sequence of groups of packets.
//!
//! A group is sent at once, by one end or both; the next one is sent when all that the group leads
//! to has arrived, as real hosts do that wait for an answer. So within a talk everything has its
//! cause, and what rules and trackers make of it does not depend on when it happens. Many talks go
//! on at the same time. A phase ends when all is said; then twenty seconds pass.

use std::net::{IpAddr, SocketAddr};

use dataplane::lcore::simulator::Dice;
use dataplane::wire::tcp::flags::{ACK, FIN, PSH, RST, SYN};

use super::gateway::{TCP, UDP};

/// Phases of a script.
pub(crate) const PHASES: usize = 4;
/// The phase in which the policy changes.
pub(crate) const PUBLISH: usize = 1;
/// The phase in which conns of idle talks are deleted.
pub(crate) const DELETE: usize = 2;

/// Protocol number of pings in a talk, of either family.
pub(crate) const PING: u8 = 1;

/// An end of a talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum End {
    /// Who begins.
    Client,
    /// Who answers.
    Server,
}

impl End {
    pub(crate) fn other(self) -> End {
        if self == End::Client { End::Server } else { End::Client }
    }
}

/// One packet of a talk.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    /// A datagram with this many bytes; in fragments if they are too many for a link.
    Datagram(usize),
    /// A datagram in fragments, one of which is lost on the way to the gateway.
    Torn(usize),
    /// A segment: flags and bytes.
    Segment(u8, usize),
    /// A ping of the client, or its answer by the server.
    Ping(usize),
    /// The server's host has nobody at the port of the last packet.
    PortUnreachable,
    /// A router beyond the gateway, on the server's side, dropped the last packet.
    TimeExceeded,
    /// A datagram whose TTL ends at the gateway.
    LastHop,
    /// A segment that opens nothing: SYN and ACK to who never asked.
    Stray,
}

/// Packets sent at once.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) packets: Vec<(End, What)>,
    /// How many packets arrive at the client and at the server in consequence.
    pub(crate) arrive: [usize; 2],
}

impl Group {
    /// Everything arrives at the other end.
    fn of(packets: &[(End, What)]) -> Group {
        let to = |end: End| packets.iter().filter(|(from, _)| from.other() == end).count();
        Group { packets: packets.to_vec(), arrive: [to(End::Client), to(End::Server)] }
    }

    /// The gateway answers itself.
    fn answered(what: What) -> Group {
        Group { packets: vec![(End::Client, what)], arrive: [1, 0] }
    }

    /// Nothing arrives.
    fn lost(from: End, what: What) -> Group {
        Group { packets: vec![(from, what)], arrive: [0, 0] }
    }
}

/// What the server sees of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Its own address and port.
    Plain,
    /// This address, and its port if that is free.
    As(IpAddr),
    /// The gateway answers, no server sees anything.
    Nobody,
}

/// A conversation.
#[derive(Clone, Debug)]
pub(crate) struct Talk {
    /// Shown when something is wrong with it.
    #[allow(dead_code)]
    pub(crate) kind: &'static str,
    pub(crate) proto: u8,
    /// The client is behind the LAN port.
    pub(crate) inside: bool,
    /// The client's socket; for pings the id.
    pub(crate) client: SocketAddr,
    /// Where it sends.
    pub(crate) dialed: SocketAddr,
    /// Where that arrives.
    pub(crate) server: SocketAddr,
    pub(crate) seen: Seen,
    pub(crate) phases: [Vec<Group>; PHASES],
    /// Its conn is deleted in the middle of [`DELETE`], in which it says nothing.
    pub(crate) deleted: bool,
}

/// All talks, out of one number.
pub(crate) struct Script {
    pub(crate) talks: Vec<Talk>,
    /// Conns count their packets.
    pub(crate) acct: bool,
    /// The rules that come deny what [`Self::keeps`] lets go on.
    pub(crate) strict: bool,
    /// Conns go on when the rules change.
    pub(crate) keeps: bool,
}

struct Writer {
    dice: Dice,
    talks: Vec<Talk>,
}

use End::{Client, Server};
use What::{Datagram, LastHop, Ping, PortUnreachable, Segment, Stray, TimeExceeded, Torn};

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

impl Script {
    /// A script of some hundred conns. `one_at_a_time` where packets of one direction may overtake
    /// each other on their way, which real hosts put up with but no comparison does.
    pub(crate) fn new(seed: u64, one_at_a_time: bool) -> Script {
        let mut writer = Writer { dice: Dice::new(seed), talks: Vec::new() };
        let most = if one_at_a_time { 1 } else { 3 };
        writer.datagrams(most);
        writer.streams(most);
        writer.pings();
        writer.errors();
        writer.inbound(most);
        writer.for_the_gateway();
        writer.odd_ones();
        writer.refused();
        writer.v6(most);
        writer.fragments();
        let acct = writer.dice.once_in(2);
        let keeps = seed.is_multiple_of(3);
        Script { talks: writer.talks, acct, strict: keeps, keeps }
    }
}

impl Writer {
    fn below(&mut self, n: usize) -> usize {
        self.dice.below(n as u64) as usize
    }

    fn talk(
        &mut self,
        kind: &'static str,
        proto: u8,
        client: SocketAddr,
        dialed: SocketAddr,
    ) -> &mut Talk {
        let inside = match client.ip() {
            IpAddr::V4(a) => a.octets()[0] == 192,
            IpAddr::V6(a) => a.segments()[2] == 1,
        };
        let phases = [const { Vec::new() }; PHASES];
        let seen = Seen::Plain;
        let talk = Talk {
            kind,
            proto,
            inside,
            client,
            dialed,
            server: dialed,
            seen,
            phases,
            deleted: false,
        };
        self.talks.push(talk);
        self.talks.last_mut().unwrap()
    }

    /// Requests and answers, up to `most` at once.
    fn exchanges(&mut self, most: usize) -> Vec<Group> {
        let mut groups = Vec::new();
        for _ in 0..1 + self.below(3) {
            let asked: Vec<_> = (0..1 + self.below(most))
                .map(|_| (Client, Datagram(8 + self.below(200))))
                .collect();
            let answers: Vec<_> =
                asked.iter().map(|_| (Server, Datagram(8 + self.below(900)))).collect();
            groups.push(Group::of(&asked));
            groups.push(Group::of(&answers));
        }
        // Known to each other, both may speak at once.
        if self.below(2) == 0 {
            groups.push(Group::of(&[(Client, Datagram(9)), (Server, Datagram(9))]));
        }
        groups
    }

    /// Hosts that use the same few ports towards the same few servers, behind one address each.
    fn datagrams(&mut self, most: usize) {
        for host in 2..14 {
            for port in [4000, 4001] {
                for server in 1..4 {
                    if self.below(2) == 0 {
                        continue;
                    }
                    let plain = self.below(4) == 0;
                    let net = if plain { "198.18.0" } else { "198.51.100" };
                    let (client, server) = (
                        at(&format!("192.168.1.{host}"), port),
                        at(&format!("{net}.{server}"), 53),
                    );
                    let mut phases: [Vec<Group>; PHASES] = Default::default();
                    for groups in &mut phases {
                        if self.below(4) > 0 {
                            *groups = self.exchanges(most);
                        }
                    }
                    let deleted = self.below(4) == 0;
                    if deleted {
                        phases[DELETE] = Vec::new();
                    }
                    let talk = self.talk("datagrams", UDP, client, server);
                    (talk.phases, talk.deleted) = (phases, deleted);
                    talk.seen = seen_as(host, plain);
                }
            }
        }
    }

    fn open() -> Vec<Group> {
        [(Client, SYN), (Server, SYN | ACK), (Client, ACK)]
            .map(|(end, flags)| Group::of(&[(end, Segment(flags, 0))]))
            .to_vec()
    }

    fn close(&mut self) -> Vec<Group> {
        let (first, sets) = (if self.below(2) == 0 { Client } else { Server }, FIN | ACK);
        let steps: &[(End, u8)] = match self.below(3) {
            0 => &[(first, RST | ACK)],
            1 => &[(first, sets), (first.other(), sets), (first, ACK)],
            _ => &[(first, sets), (first.other(), ACK), (first.other(), sets), (first, ACK)],
        };
        steps.iter().map(|&(end, flags)| Group::of(&[(end, Segment(flags, 0))])).collect()
    }

    fn segments(&mut self, most: usize) -> Vec<Group> {
        let mut groups = Vec::new();
        for _ in 0..1 + self.below(4) {
            let end = if self.below(2) == 0 { Client } else { Server };
            let mut packets: Vec<_> = (0..1 + self.below(most))
                .map(|_| (end, Segment(ACK | PSH, 8 + self.below(300))))
                .collect();
            if self.below(3) == 0 {
                packets.push((end.other(), Segment(ACK | PSH, 8 + self.below(300))));
            }
            groups.push(Group::of(&packets));
            groups.push(Group::of(&[(end.other(), Segment(ACK, 0))]));
        }
        groups
    }

    /// A conn that is opened in some phase and perhaps closed in the same or a later one, and
    /// perhaps opened anew.
    fn stream(&mut self, most: usize) -> [Vec<Group>; PHASES] {
        let mut phases: [Vec<Group>; PHASES] = Default::default();
        let mut open = false;
        for groups in &mut phases {
            if !open {
                if self.below(3) == 0 {
                    continue;
                }
                groups.extend(Writer::open());
                open = true;
            }
            groups.extend(self.segments(most));
            if self.below(2) == 0 {
                groups.extend(self.close());
                open = false;
            }
        }
        phases
    }

    fn streams(&mut self, most: usize) {
        for host in 2..14 {
            for port in [5000, 5001] {
                let plain = self.below(4) == 0;
                let net = if plain { "198.18.0" } else { "198.51.100" };
                let server = at(&format!("{net}.{}", 1 + self.below(2)), 80);
                let phases = self.stream(most);
                let talk = self.talk("stream", TCP, at(&format!("192.168.1.{host}"), port), server);
                talk.phases = phases;
                talk.seen = seen_as(host, plain);
            }
        }
    }

    fn pings(&mut self) {
        for host in 2..12 {
            let (id, bytes) = (7 + self.below(2) as u16, 8 + self.below(600));
            let there = [Group::of(&[(Client, Ping(bytes))]), Group::of(&[(Server, Ping(bytes))])];
            let client = at(&format!("192.168.1.{host}"), id);
            let talk = self.talk("ping", PING, client, at("198.51.100.9", id));
            talk.seen = seen_as(host, false);
            talk.phases[0] = there.to_vec();
            talk.phases[1] = [there.clone(), there].concat();
        }
    }

    /// Errors about datagrams, from servers, from a router and from the gateway.
    fn errors(&mut self) {
        for host in 2..12 {
            let plain = host % 4 == 0;
            let net = if plain { "198.18.0" } else { "198.51.100" };
            let client = at(&format!("192.168.1.{host}"), 4100);
            let why = if self.below(2) == 0 { PortUnreachable } else { TimeExceeded };
            let asked = Group::of(&[(Client, Datagram(20 + self.below(300)))]);
            let error = Group { packets: vec![(Server, why)], arrive: [1, 0] };
            let answer = Group::of(&[(Server, Datagram(20))]);
            let talk = self.talk("error", UDP, client, at(&format!("{net}.5"), 33434));
            talk.seen = seen_as(host, plain);
            talk.phases[0] = vec![asked.clone(), error.clone()];
            talk.phases[2] = vec![asked, answer, error];
        }
        for host in 2..8 {
            let client = at(&format!("192.168.1.{host}"), 4200);
            let talk = self.talk("last hop", UDP, client, at("198.51.100.6", 33435));
            (talk.seen, talk.phases[0]) = (Seen::Nobody, vec![Group::answered(LastHop)]);
        }
    }

    /// From outside to servers behind DNAT.
    fn inbound(&mut self, most: usize) {
        for peer in 1..9 {
            let client = at(&format!("100.64.0.{peer}"), 6000);
            let phases = self.stream(most);
            let talk = self.talk("inbound stream", TCP, client, at("203.0.113.1", 80));
            (talk.server, talk.phases) = (at("192.168.1.20", 8080), phases);
            let asked = self.exchanges(most);
            let talk = self.talk("inbound datagrams", UDP, client, at("203.0.113.1", 5353));
            talk.server = at("192.168.1.21", 5353);
            let error = Group { packets: vec![(Server, PortUnreachable)], arrive: [1, 0] };
            talk.phases[0] = asked.clone();
            talk.phases[3] = [asked, vec![error]].concat();
        }
    }

    fn for_the_gateway(&mut self) {
        for host in 2..7 {
            let client = |port| at(&format!("192.168.1.{host}"), port);
            let talk = self.talk("ping us", PING, client(9), at("192.168.1.1", 9));
            (talk.seen, talk.phases[0]) = (Seen::Nobody, vec![Group::answered(Ping(56)); 2]);
            let talk = self.talk("ping beyond us", PING, client(10), at("203.0.113.10", 10));
            (talk.seen, talk.phases[2]) = (Seen::Nobody, vec![Group::answered(Ping(56)); 2]);
            let talk = self.talk("closed port", TCP, client(7000), at("192.168.1.1", 22));
            talk.seen = Seen::Nobody;
            talk.phases[1] = vec![Group::answered(Segment(SYN, 0))];
            let talk = self.talk("closed", UDP, client(7001), at("192.168.1.1", 33434));
            (talk.seen, talk.phases[1]) = (Seen::Nobody, vec![Group::answered(Datagram(30)); 2]);
            let talk = self.talk("redirected", UDP, client(7002), at("198.51.100.3", 5300));
            (talk.seen, talk.phases[3]) = (Seen::Nobody, vec![Group::answered(Datagram(30)); 2]);
        }
        for peer in 1..4 {
            let client = at(&format!("100.64.1.{peer}"), 6100);
            let talk = self.talk("ping from outside", PING, client, at("203.0.113.1", 6100));
            (talk.seen, talk.phases[0]) = (Seen::Nobody, vec![Group::answered(Ping(100))]);
        }
    }

    /// Untracked ones, and ones where both ends speak first at the same moment.
    fn odd_ones(&mut self) {
        for host in 2..6 {
            let client = at(&format!("192.168.1.{host}"), 6081);
            let asked = self.exchanges(1);
            let talk = self.talk("untracked", UDP, client, at("198.18.0.9", 6081));
            talk.phases = [asked.clone(), Vec::new(), asked.clone(), asked];
        }
        for host in 2..12 {
            let client = at(&format!("192.168.1.{host}"), 4500);
            // Of one size: which of the two begins a conn is a matter of chance.
            let both = Group::of(&[(Client, Datagram(40)), (Server, Datagram(40))]);
            let talk = self.talk("mirror", UDP, client, at("198.18.0.8", 4500));
            talk.phases = [vec![both.clone(); 3], vec![both.clone()], Vec::new(), vec![both; 2]];
        }
    }

    /// What the rules refuse; new conns to port 7000 since [`PUBLISH`], or those that do not go on
    /// then.
    fn refused(&mut self) {
        for host in 2..10 {
            let server = at("198.18.0.7", 7000);
            let (asked, answer) =
                (Group::of(&[(Client, Datagram(70))]), Group::of(&[(Server, Datagram(70))]));
            let known = vec![asked.clone(), answer.clone()];
            let client = |port| at(&format!("192.168.1.{host}"), port);
            let talk = self.talk("before", UDP, client(8000), server);
            talk.phases[0] = known.clone();
            talk.phases[PUBLISH] = known.clone();
            talk.phases[PUBLISH + 1] = known;
            let talk = self.talk("after", UDP, client(8001), server);
            talk.phases[PUBLISH + 1] = vec![Group::lost(Client, Datagram(70)); 2];
        }
        for peer in 1..5 {
            let client = at(&format!("100.64.2.{peer}"), 6200);
            let talk = self.talk("from outside", UDP, client, at("192.168.1.3", 999));
            (talk.seen, talk.phases[0]) =
                (Seen::Nobody, vec![Group::lost(Client, Datagram(20)); 2]);
            let talk = self.talk("stray", TCP, client, at("192.168.1.3", 998));
            (talk.seen, talk.phases[1]) = (Seen::Nobody, vec![Group::lost(Client, Stray); 2]);
        }
    }

    /// More than fits a link, each way and through each kind of translation.
    fn fragments(&mut self) {
        let large = |writer: &mut Writer| 1600 + writer.below(3000);
        let exchange = |writer: &mut Writer| {
            let ends = [Client, Server, Client, Server];
            ends.map(|end| Group::of(&[(end, Datagram(large(writer)))])).to_vec()
        };
        for host in 2..12 {
            let plain = host % 4 == 0;
            let net = if plain { "198.18.0" } else { "198.51.100" };
            let client = |port| at(&format!("192.168.1.{host}"), port);
            let phases = [0, 2].map(|phase| (phase, exchange(self)));
            let talk = self.talk("fragments", UDP, client(4300), at(&format!("{net}.4"), 4300));
            talk.seen = seen_as(host, plain);
            for (phase, groups) in phases {
                talk.phases[phase] = groups;
            }
            let bytes = large(self);
            let pings = [Group::of(&[(Client, Ping(bytes))]), Group::of(&[(Server, Ping(bytes))])];
            let talk = self.talk("large ping", PING, client(11), at("198.51.100.9", 11));
            (talk.seen, talk.phases[1]) = (seen_as(host, false), pings.to_vec());
            let talk = self.talk("large ping for us", PING, client(12), at("192.168.1.1", 12));
            (talk.seen, talk.phases[2]) = (Seen::Nobody, vec![Group::answered(Ping(bytes))]);
            let talk = self.talk("torn", UDP, client(4301), at("198.51.100.4", 4301));
            talk.seen = Seen::Nobody;
            talk.phases[1] = vec![Group::lost(Client, Torn(bytes)); 2];
        }
        for peer in 1..5 {
            let client = at(&format!("100.64.3.{peer}"), 6300);
            let groups = exchange(self);
            let talk = self.talk("inbound fragments", UDP, client, at("203.0.113.1", 5353));
            (talk.server, talk.phases[3]) = (at("192.168.1.21", 5353), groups);
        }
        for host in 2..8 {
            let client = at(&format!("2001:db8:1::{host}"), 4300);
            let groups = exchange(self);
            let talk = self.talk("v6 fragments", UDP, client, at("2001:db8:ffff::7", 4300));
            talk.phases[0] = groups;
        }
    }

    fn v6(&mut self, most: usize) {
        for host in 2..8 {
            let client = |port| at(&format!("2001:db8:1::{host}"), port);
            let server = |port| at("2001:db8:ffff::7", port);
            let (asked, stream) = (self.exchanges(most), self.stream(most));
            self.talk("v6 datagrams", UDP, client(4000), server(53)).phases[0] = asked.clone();
            self.talk("v6 stream", TCP, client(5000), server(80)).phases = stream;
            let error = Group { packets: vec![(Server, PortUnreachable)], arrive: [1, 0] };
            let talk = self.talk("v6 error", UDP, client(4100), server(54));
            talk.phases[1] = vec![Group::of(&[(Client, Datagram(99))]), error];
            let there = [Group::of(&[(Client, Ping(64))]), Group::of(&[(Server, Ping(64))])];
            self.talk("v6 ping", PING, client(7), server(7)).phases[2] = there.to_vec();
        }
    }
}

/// The address behind which a host of the LAN is seen.
fn seen_as(host: usize, plain: bool) -> Seen {
    match host {
        _ if plain => Seen::Plain,
        8..16 => Seen::As("203.0.113.10".parse().unwrap()),
        _ => Seen::As("203.0.113.1".parse().unwrap()),
    }
}
