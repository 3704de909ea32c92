//! `conntrack -I`, `-A`, `-U` and `-G`: from arguments to a request, and the words for a refusal.
//!
//! What the tool puts into its netlink message, and what the kernel makes of it, is one step here.
//! An address that is not given is 0 in a tuple of which something is given; a port that is not
//! given makes the request invalid. Where only one tuple is given the other one is its inverse.
//!
//! Four things differ from version 1.4.7 on purpose: `-U` without a family works (there the
//! kernel refuses each change), it shows every conn that it changed (there every second answer is
//! taken for another one's), each line of a loaded file sets its own mark, and may speak of labels
//! (there the tool ends with a segmentation fault).

use dataplane::conntrack::dccp::DccpState;
use dataplane::conntrack::sctp::SctpState;
use dataplane::conntrack::state::Status;
use dataplane::conntrack::tcp::TcpState;
use dataplane::conntrack::tuple::{Tuple, proto};
use dataplane::nat::range::Range;
use dataplane::pipeline::by_hand::{Change, NewConn, Refusal, Told};
use dataplane::wire::address::Address;

use super::conntrack_args::{Command, Family, Request};
use super::conntrack_filter::{Filter, Translated};
use super::conntrack_format::has_ports;
use super::conntrack_labels::Wish;

/// The tool's words for a refusal, which depend on the command.
pub fn words_of(refusal: Refusal, command: Command) -> &'static str {
    match (refusal, command) {
        (Refusal::Exists, Command::Create) => "Such conntrack exists, try -U to update",
        (Refusal::Exists, _) => "File exists",
        (Refusal::NoMemory, Command::Create | Command::Add) => "not enough memory",
        (Refusal::NoMemory, _) => "Cannot allocate memory",
        (Refusal::NoRoom, _) => "No space left on device",
        (Refusal::Busy, _) => "Device or resource busy",
        (Refusal::Fixed, _) => "sorry, you must be root or get CAP_NET_ADMIN capability to do this",
        (Refusal::Invalid, Command::Add) => "Invalid argument",
        (Refusal::Invalid, _) => "invalid parameters",
        (Refusal::NotSupported, _) => "Operation not supported",
        (Refusal::OutOfRange, _) => "Numerical result out of range",
    }
}

/// The conn that `-I` or `-A` asks for.
///
/// # Errors
/// The request makes no sense to the kernel.
pub fn new_conn(request: &Request) -> Result<NewConn, Refusal> {
    let filter = &request.filter;
    if request.labels.is_some_and(Wish::is_beyond) {
        return Err(Refusal::OutOfRange);
    }
    Ok(NewConn {
        tuples: tuples(filter)?,
        zones: zones(filter)?,
        timeout_secs: request.timeout_secs.unwrap_or_default(),
        status: Status(request.status),
        mark: filter.mark.map_or(0, |(value, _)| value),
        told: told(filter),
        nat: [filter.dst_nat, filter.src_nat].map(|end| end.and_then(range)),
        labels: request.labels.map_or(0, |wish| wish.bits().0),
        by_process: None,
        outcome: Ok(()),
    })
}

/// What `-U` is to change.
pub fn change(request: &Request) -> Change {
    let filter = &request.filter;
    let nat = [filter.dst_nat, filter.src_nat].map(|end| end.and_then(range));
    Change {
        nat: nat.iter().any(Option::is_some),
        timeout_secs: request.timeout_secs,
        status: Status(request.status),
        told: told(filter),
        mark: filter.mark,
        labels: request.labels.map(Wish::bits),
    }
}

/// The original tuple that `-G` asks for; the kernel takes no other.
pub fn wanted(filter: &Filter) -> Result<Tuple, Refusal> {
    if filter.src.is_none() && filter.dst.is_none() {
        return Err(Refusal::Invalid);
    }
    let [original, _] = ends(filter);
    tuple(filter, original, original_ids(filter))
}

/// What is said of the tracker's state: anything of it is the whole of it to the kernel.
fn told(filter: &Filter) -> Told {
    match (filter.proto, filter.state, filter.vtags, filter.role) {
        (Some(proto::TCP), Some(state), ..) => tcp_state(state).map_or(Told::Nothing, Told::Tcp),
        (Some(proto::SCTP), None, [None, None], _) => Told::Nothing,
        (Some(proto::SCTP), state, tags, _) => {
            Told::Sctp(state.and_then(SctpState::from_name), tags)
        }
        (Some(proto::DCCP), None, _, None) => Told::Nothing,
        (Some(proto::DCCP), state, _, role) => {
            Told::Dccp(state.and_then(DccpState::from_name), role)
        }
        _ => Told::Nothing,
    }
}

/// The state of a number that the kernel takes: its tenth has two names.
fn tcp_state(name: &str) -> Option<TcpState> {
    if name == "LISTEN" { Some(TcpState::SynSent2) } else { TcpState::from_name(name) }
}

fn range(end: Translated) -> Option<Range> {
    let ports = end.port.map(|port| (port, port));
    let addresses = end.address.map(|address| (address, address));
    (addresses.is_some() || ports.is_some()).then_some(Range {
        addresses,
        ports,
        ..Range::default()
    })
}

/// Source and destination of both tuples, 0 where nothing was given.
fn ends(filter: &Filter) -> [(Address, Address); 2] {
    let none = if filter.family == Some(Family::V6) { Address::v6(0) } else { Address::v4(0) };
    let original = [filter.src, filter.dst].map(|end| end.map_or(none, |masked| masked.address));
    let reply = [filter.reply_src, filter.reply_dst].map(|end| end.unwrap_or(none));
    [(original[0], original[1]), (reply[0], reply[1])]
}

fn original_ids(filter: &Filter) -> [Option<u16>; 2] {
    match filter.proto {
        Some(proto::ICMP | proto::ICMPV6) => {
            let kind = filter
                .icmp_type
                .map(|kind| u16::from_be_bytes([kind, filter.icmp_code.unwrap_or_default()]));
            [Some(filter.icmp_id.unwrap_or_default()), kind]
        }
        _ => filter.original_ids,
    }
}

/// One tuple; ports that are needed and not given are an error.
fn tuple(
    filter: &Filter,
    (src, dst): (Address, Address),
    ids: [Option<u16>; 2],
) -> Result<Tuple, Refusal> {
    let number = filter.proto.unwrap_or_default();
    let needed = has_ports(number) || matches!(number, proto::GRE | proto::ICMP | proto::ICMPV6);
    let wrong_family = match number {
        proto::ICMP => !src.is_v4(),
        proto::ICMPV6 => src.is_v4(),
        _ => false,
    };
    let (src_id, dst_id) = match ids {
        _ if !needed => (0, 0),
        [Some(src_id), Some(dst_id)] => (src_id, dst_id),
        _ => return Err(Refusal::Invalid),
    };
    if wrong_family {
        return Err(Refusal::Invalid);
    }
    Ok(Tuple { src, dst, src_id, dst_id, proto: number })
}

fn tuples(filter: &Filter) -> Result<[Tuple; 2], Refusal> {
    let original_given = filter.src.is_some() || filter.dst.is_some();
    let reply_given = filter.reply_src.is_some() || filter.reply_dst.is_some();
    let is_icmp = matches!(filter.proto, Some(proto::ICMP | proto::ICMPV6));
    let [original, reply] = ends(filter);
    let inverse = |tuple: Tuple| tuple.inverted().ok_or(Refusal::Invalid);
    if !original_given {
        // ICMP's type is that of the original direction, which has no address here.
        let ids = if is_icmp { [None; 2] } else { filter.reply_ids };
        let reply = tuple(filter, reply, ids)?;
        return Ok([inverse(reply)?, reply]);
    }
    let given = original_ids(filter);
    let ids = if reply_given { given } else { given.map(|id| Some(id.unwrap_or_default())) };
    let original = tuple(filter, original, ids)?;
    let inverse = inverse(original)?;
    if !reply_given {
        return Ok([original, inverse]);
    }
    let ids = if is_icmp { [Some(inverse.src_id), Some(inverse.dst_id)] } else { filter.reply_ids };
    Ok([original, tuple(filter, reply, ids)?])
}

/// The zone of both directions, or that of one; more than one of them is too much for the kernel.
fn zones(filter: &Filter) -> Result<[u16; 2], Refusal> {
    let zones = [filter.zone, filter.zone_original, filter.zone_reply];
    match zones.map(Option::unwrap_or_default) {
        [both, 0, 0] => Ok([both, both]),
        [0, original, 0] => Ok([original, 0]),
        [0, 0, reply] => Ok([0, reply]),
        _ => Err(Refusal::Invalid),
    }
}

#[cfg(test)]
mod tests {
    use super::super::conntrack::{Outcome, footer, run};
    use super::super::conntrack_format::NAME;
    use super::super::stand_in::StandIn;
    use super::super::{Answer, Gateway};

    fn done(line: &str, gateway: &mut dyn Gateway) -> Answer {
        let argv: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match run(&argv, "", gateway) {
            Outcome::Done(answer) => answer,
            Outcome::Events(_) => panic!("{line} subscribes"),
        }
    }

    #[test]
    fn states_of_sctp_and_dccp_are_saved_and_loaded() {
        let ends = "-s 1.1.1.1 -d 2.2.2.2 -r 2.2.2.2 -q 1.1.1.1";
        let ports = "--sport 10 --dport 20 --reply-port-src 20 --reply-port-dst 10";
        for state in [
            "-p sctp P --state COOKIE_WAIT --orig-vtag 4294967295 --reply-vtag 6",
            "-p sctp P --state HEARTBEAT_SENT --orig-vtag 0 --reply-vtag 6",
            "-p dccp P --state OPEN --role client",
            "-p dccp P --state TIMEWAIT --role server",
        ] {
            let mut g = StandIn::with([]);
            let line =
                format!("-A -t 49 -u UNSET {ends} {}", state.replace(" P ", &format!(" {ports} ")));
            assert_eq!(done(&line, &mut g), footer("1 flow entries have been added."));
            assert_eq!(done("-L -o save", &mut g).out, format!("{line}\n"));
            let name = line.split_once("--state ").unwrap().1.split_once(' ').unwrap().0;
            let proto = state.split(' ').nth(1).unwrap();
            let same = done(&format!("-U -p {proto} --state {name}"), &mut g);
            let none = format!("{NAME}: 0 flow entries have been updated.\n");
            assert_eq!((same.err, same.exit), (none.clone(), 1));
            let tags = if proto == "sctp" { "--orig-vtag 7 --reply-vtag 8" } else { "--dport 20" };
            assert_eq!(done(&format!("-U -p {proto} {tags}"), &mut g).err, none, "no other state");
        }
        let mut g = StandIn::with([]);
        let tags = "--state CLOSED --orig-vtag 5 --reply-vtag 1144201745";
        done(&format!("-A -t 49 {ends} -p sctp {ports} {tags}"), &mut g);
        // As the kernel had them after the same line.
        assert_eq!(g.conns[0].sctp_tags, Some([0x0500_0000, 0x1122_3344]));
        let half = "-p sctp --sport 1 --dport 2 --state CLOSED --orig-vtag 5";
        let answer = done(&format!("-I -t 9 {ends} {half}"), &mut StandIn::with([]));
        assert!(answer.err.contains("You need to supply the `--reply-vtag' option"));
    }
}
