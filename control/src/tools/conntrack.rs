//! `sluicegate conntrack`: from a command line to its answer.
//!
//! Everything but `-E` is answered at once. `-E` becomes a [`Subscription`], which the daemon feeds
//! with events until the client goes away.

use dataplane::conntrack::view::{ConnView, EventView};

use super::conntrack_args::{Command, Request, Table, parse};
use super::conntrack_format::{self as format, NAME, Shape};
use super::{Answer, Gateway, Silent, conntrack_invalid, conntrack_xml};

/// How a command goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is over.
    Done(Answer),
    /// `-E`: events follow.
    Events(Box<Subscription>),
}

/// Runs a command line.
pub fn run(argv: &[String], gateway: &mut dyn Gateway) -> Outcome {
    // Not an option of conntrack(8), so it abbreviates none and goes with none.
    if argv == ["--invalid"] {
        return Outcome::Done(conntrack_invalid::run(gateway));
    }
    let request = match parse(argv) {
        Ok(request) => request,
        Err(answer) => return Outcome::Done(answer),
    };
    let answer = match (request.command, request.table) {
        (Command::Events, _) => {
            return Outcome::Events(Box::new(Subscription { request, shown: 0 }));
        }
        (Command::Help, _) => Answer::text(HELP),
        (Command::Version, _) => Answer::text(format!("{NAME}\n")),
        (Command::List, Table::Conntrack) => list(&request, gateway),
        (Command::List, Table::Expect) => footer("0 expectations have been shown."),
        (Command::Delete, _) => delete(&request, gateway),
        (Command::Flush, Table::Conntrack) => match gateway.flush(request.filter.family) {
            Ok(()) => footer("connection tracking table has been emptied."),
            Err(silent) => failed(silent),
        },
        (Command::Flush, Table::Expect) => footer("expectations table has been emptied."),
        (Command::Count, Table::Conntrack) => Answer::text(format!("{}\n", gateway.count())),
        (Command::Count, Table::Expect) => Answer::text("0\n"),
        (Command::Statistics, table) => statistics(table, gateway),
    };
    Outcome::Done(Answer { err: request.warnings + &answer.err, ..answer })
}

pub(super) fn footer(text: &str) -> Answer {
    Answer { err: format!("{NAME}: {text}\n"), ..Answer::default() }
}

/// What conntrack(8) says when the kernel fails it, with the reason.
pub(super) fn failed(silent: Silent) -> Answer {
    Answer::failure(1, format_args!("{NAME}: Operation failed: {silent}"))
}

fn list(request: &Request, gateway: &mut dyn Gateway) -> Answer {
    let mut conns = match gateway.conns() {
        Ok(conns) => conns,
        Err(silent) => return failed(silent),
    };
    conns.retain(|c| request.filter.matches(c));
    let (output, now) = (&request.output, gateway.unix_ns());
    let mut out = String::new();
    if output.xml && !conns.is_empty() {
        out.push_str(conntrack_xml::HEADER);
    }
    for conn in &conns {
        out.push_str(&format::conn_line(conn, output, Shape::Listing, now));
        out.push('\n');
    }
    if output.xml && !conns.is_empty() {
        out.push_str(conntrack_xml::FOOTER);
    }
    let shown = footer(&format!("{} flow entries have been shown.", conns.len()));
    Answer { out, ..shown }
}

fn delete(request: &Request, gateway: &mut dyn Gateway) -> Answer {
    let now = gateway.unix_ns();
    let conns: Vec<ConnView> = match gateway.conns() {
        Ok(conns) => conns,
        Err(silent) => return failed(silent),
    };
    let mut out = String::new();
    let mut deleted = 0;
    for conn in conns.iter().filter(|c| request.filter.matches(c)) {
        match gateway.delete(conn.key) {
            Ok(true) => {
                deleted += 1;
                out.push_str(&format::conn_line(conn, &request.output, Shape::Deletion, now));
                out.push('\n');
            }
            Ok(false) => {}
            // What is gone is told all the same.
            Err(silent) => return Answer { out, ..failed(silent) },
        }
    }
    let shown = footer(&format!("{deleted} flow entries have been deleted."));
    Answer { out, exit: u8::from(deleted == 0), ..shown }
}

fn statistics(table: Table, gateway: &mut dyn Gateway) -> Answer {
    let line = match table {
        Table::Conntrack => format::statistics_line,
        Table::Expect => format::expect_statistics_line,
    };
    let lines = gateway.cpu_statistics();
    Answer::text(lines.iter().enumerate().map(|(i, s)| line(i, s) + "\n").collect::<String>())
}

/// A running `conntrack -E`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    request: Request,
    shown: u64,
}

impl Subscription {
    /// The text for an event with its newline; `None` if it is not wanted.
    pub fn text(&mut self, event: &EventView) -> Option<String> {
        if self.request.table == Table::Expect || !self.request.wants(event) {
            return None;
        }
        let mut text = String::new();
        if self.request.output.xml && self.shown == 0 {
            text.push_str(conntrack_xml::HEADER);
        }
        self.shown += 1;
        text.push_str(&format::event_line(event, &self.request.output));
        text.push('\n');
        Some(text)
    }

    /// The end: what the tool prints when it is interrupted.
    pub fn finish(self) -> Answer {
        let kind = if self.request.table == Table::Expect { "expectation" } else { "flow" };
        let mut answer = footer(&format!("{} {kind} events have been shown.", self.shown));
        if self.request.output.xml && self.shown != 0 {
            answer.out.push_str(conntrack_xml::FOOTER);
        }
        answer
    }
}

const HELP: &str = "\
Usage: conntrack COMMAND [TABLE] [OPTIONS]     (as conntrack-tools 1.4.7)

Commands:  -L list   -D delete   -F flush   -C count   -S statistics   -E events   -V version
Tables:    conntrack (default), expect

Which conns:
  -s, -d ADDRESS[/PREFIX]     source, destination of the original direction (--mask-src, --mask-dst)
  -r, -q ADDRESS              source, destination of the reply direction
  -f ipv4|ipv6                family
  -p PROTOCOL                 by name or number; then, by protocol:
     --sport --dport --reply-port-src --reply-port-dst PORT   --state STATE
     --icmp-type --icmp-code --icmp-id N   --icmpv6-type --icmpv6-code --icmpv6-id N
     --srckey --dstkey --reply-key-src --reply-key-dst KEY
  -n, -g, -j [ADDRESS[:PORT]] source, destination, either translated
  -u STATUS[,...]             SEEN_REPLY, ASSURED, EXPECTED, FIXED_TIMEOUT, UNREPLIED
  -m MARK[/MASK]              mark
  -w, --orig-zone, --reply-zone ZONE
  -t SECONDS, -i ID           with -D: seconds left, number shown by -o id

Shown how:
  -o extended,id,timestamp,ktimestamp,xml   or   -o save
  -e ALL|NEW|UPDATES|DESTROY[,...]          with -E
";

#[cfg(test)]
mod tests {
    use super::super::conntrack_format::tests as sample;
    use super::super::stand_in::StandIn;
    use super::*;
    use dataplane::conntrack::view::EventKind;

    fn gateway() -> StandIn {
        StandIn::with([sample::tcp(), sample::udp(), sample::icmp()])
    }

    fn done(line: &str, gateway: &mut StandIn) -> Answer {
        let argv: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match run(&argv, gateway) {
            Outcome::Done(answer) => answer,
            Outcome::Events(_) => panic!("{line} subscribes"),
        }
    }

    fn err(text: &str) -> String {
        format!("{NAME}: {text}\n")
    }

    #[test]
    fn lists_and_counts() {
        let mut g = gateway();
        let all = done("-L", &mut g);
        assert_eq!(all.out.lines().count(), 3);
        assert_eq!((all.err, all.exit), (err("3 flow entries have been shown."), 0));
        let none = done("-L -p sctp -o xml", &mut g);
        assert_eq!(none, footer("0 flow entries have been shown."));
        let xml = done("-L -p udp -o xml", &mut g);
        assert!(
            xml.out.starts_with("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<conntrack>\n<flow>")
        );
        assert!(xml.out.ends_with("</flow>\n</conntrack>\n"));
        assert_eq!(done("-C", &mut g), Answer::text("3\n"));
        assert_eq!(done("-C expect", &mut g), Answer::text("0\n"));
        assert_eq!(done("-L expect", &mut g), footer("0 expectations have been shown."));
        assert_eq!(done("-V", &mut g), Answer::text(format!("{NAME}\n")));
        assert!(done("", &mut g).out.starts_with("Usage: conntrack"));
        assert_eq!(done("-S", &mut g).out.lines().count(), 2);
    }

    #[test]
    fn deletes_and_flushes() {
        let mut g = gateway();
        let one = done("-D -p udp -o save", &mut g);
        assert_eq!((one.err, one.exit), (err("1 flow entries have been deleted."), 0));
        assert!(one.out.starts_with("-D -t 29 -u UNSET "));
        let none = done("-D -p udp", &mut g);
        assert_eq!((none.err, none.exit), (err("0 flow entries have been deleted."), 1));
        let flushed = done("-F", &mut g);
        assert_eq!(flushed, footer("connection tracking table has been emptied."));
        assert_eq!(g.conns.len(), 0);
        assert_eq!(done("-F expect", &mut g), footer("expectations table has been emptied."));
    }

    #[test]
    fn a_worker_that_does_not_answer_is_named_and_no_part_passes_for_the_whole() {
        let said = err("Operation failed: worker lcore 2 (CPU 1) does not answer");
        for line in ["-L", "-L -o xml", "-D -p udp", "-F"] {
            let mut g = gateway();
            g.silent = Some(Silent { lcore: 2, cpu: 1 });
            let answer = done(line, &mut g);
            assert_eq!((answer.out.as_str(), answer.err, answer.exit), ("", said.clone(), 1));
        }
        let mut g = gateway();
        (g.silent, g.deletions_left) = (Some(Silent { lcore: 2, cpu: 1 }), 2);
        let answer = done("-D", &mut g);
        assert_eq!((answer.out.lines().count(), answer.err, answer.exit), (2, said, 1));
    }

    #[test]
    fn a_subscription_filters_counts_and_ends() {
        let argv = ["-E", "-e", "NEW", "-o", "xml"].map(str::to_owned);
        let Outcome::Events(mut events) = run(&argv, &mut gateway()) else { panic!("-E answers") };
        let event = |kind| EventView { kind, conn: sample::udp(), unix_ns: 0, by_process: None };
        assert_eq!(events.text(&event(EventKind::Update)), None);
        let text = events.text(&event(EventKind::New)).unwrap();
        assert!(text.starts_with("<?xml ") && text.ends_with("</flow>\n"));
        let end = events.finish();
        assert_eq!(end.err, err("1 flow events have been shown."));
        assert_eq!((end.out.as_str(), end.exit), ("</conntrack>\n", 0));
    }

    /// Each message and exit code taken from conntrack 1.4.7 (but for the last block).
    #[test]
    fn wrong_arguments() {
        for (line, text) in [
            ("-L --no-such-option", "unknown option `--no-such-option'"),
            ("-L foo", "unknown type `foo'"),
            ("-L -p foo", "`foo' unsupported protocol"),
            ("-L -p 300", "`300' unsupported protocol"),
            ("-L -f ipx", "`ipx' unsupported protocol"),
            ("-L -s 1.2.3.999", "Invalid IP address `1.2.3.999'"),
            ("-L -s 10.0.0.0/33", "Invalid netmask"),
            ("-L -s", "option `-s' requires an argument"),
            ("-L --src", "option `--src' requires an argument"),
            ("-L --sport 5", "unknown option `--sport'"),
            ("-L --sport 5 -p tcp", "unknown option `--sport'"),
            ("-L -p udp --state ESTABLISHED", "unknown option `--state'"),
            ("-L -p icmp --icmpv6-id 78", "unknown option `--icmpv6-id'"),
            ("-L -p tcp --state FOO", "unknown TCP state `FOO'"),
            ("-L -u FOO", "Bad parameter `FOO'"),
            ("-L -o foo", "Bad parameter `foo'"),
            ("-L -o id,", "Bad parameter `'"),
            ("-E -e FOO", "Bad parameter `FOO'"),
            ("-L -D", "Invalid commands combination"),
            ("-L -h", "Invalid commands combination"),
            ("-L -t 5", "Illegal option `--timeout' with this command"),
            ("-L -e NEW", "Illegal option `--event-mask' with this command"),
            ("-L --tuple-src 1.1.1.1", "Illegal option `--tuple-src' with this command"),
            ("-L expect -p tcp", "Illegal option `--protonum' with this command"),
            ("-D -j 1.1.1.1", "Illegal option `--any-nat' with this command"),
            ("-F -p tcp", "Illegal option `--protonum' with this command"),
            ("-F expect -f ipv4", "Illegal option `--family' with this command"),
            ("-E -u ASSURED", "Illegal option `--status' with this command"),
            ("-S -o xml", "Illegal option `--output' with this command"),
            ("-C -w 1 -s 1.1.1.1", "Illegal option `--src' with this command"),
            ("-p tcp", "Illegal option `--protonum' with this command"),
            ("-L -s ::1 -d 127.0.0.1", "mismatched address family"),
            ("-L -s ::1 -f ipv4", "mismatched address family"),
            ("-L --mask-src ffff:: -s 1.1.1.1", "mismatched address family"),
            ("-L --mask-src 255.0.0.0", "Can't use --mask-src without --src"),
            ("-L -q 10.9.0.0/16", "CIDR notation unavailable for `--reply-dst'"),
            ("-L -l foo", "unknown label 'foo'"),
            ("-D dying", "Can't do that command with tables `dying' and `unconfirmed'"),
        ] {
            let answer = done(line, &mut gateway());
            let hint = "Try `conntrack -h' or 'conntrack --help' for more information.\n";
            assert_eq!((answer.err, answer.exit), (err(text) + hint, 2), "{line}");
            assert_eq!(answer.out, "", "{line}");
        }
        for (line, text) in [
            (
                "-L -o save,id",
                "cannot combine save output with any other output type, use -o \
              save only",
            ),
            ("-L -u UNSET", "Operation failed: invalid parameters"),
        ] {
            let answer = done(line, &mut gateway());
            assert_eq!((answer.err, answer.exit), (err(text), 1), "{line}");
        }
        for line in ["-I -p tcp", "-U", "-G", "-L -z", "-L dying", "-D expect", "-E -b 9"] {
            let answer = done(line, &mut gateway());
            assert!(answer.err.ends_with("is not supported in this version\n"), "{line}");
            assert_eq!(answer.exit, 2, "{line}");
        }
    }

    /// The conns of a listing made by hand for conntrack 1.4.7, and which of them it then showed.
    #[test]
    fn filters_pick_what_conntrack_picks() {
        let mut g = StandIn::with(super::super::conntrack_filter::tests::made_by_hand());
        for (line, ids) in [
            ("", "1 2 3 4 5 6 7 8"),
            ("-p tcp", "1 2"),
            ("-p 6 --sport 1000", "1"),
            ("-p TCP --spo 1000", "1"),
            ("-p tcp --orig-port-src=1000", "1"),
            ("-p tcp --sport 1000:1001", "1"),
            ("-p tcp --sport abc", ""),
            ("-p tcp --reply-port-dst 5000", "2"),
            ("-p tcp --state SYN_SENT", "2"),
            ("-p udp -p tcp", "1 2"),
            ("-s 10.1.0.2 -p udp --dport 53 -r 10.9.9.8", "3"),
            ("-s fd00::/64", "7"),
            ("-s 10.0.0.0/8", "1 2 3 4 5 6 8"),
            ("-s 10.1.0.2/", "1 2 3 4 5 6 8"),
            ("-s 10.1.0.3", ""),
            ("-s 10.0.0.0 --mask-src 255.0.0.0", "1 2 3 4 5 6 8"),
            ("-f ipv6", "7"),
            ("-q 10.9.9.9", "2"),
            ("-n", "2"),
            ("--src-nat 10.9.9.9", "2"),
            ("-n10.9.9.9", "2"),
            ("-n 10.1.0.2", ""),
            ("-n 10.9.9.9:5000", "2"),
            ("-n 10.9.9.9:1", ""),
            ("-g", "3"),
            ("-n -g", ""),
            ("-j", "2 3"),
            ("-j 10.9.9.8", "3"),
            ("-m 7", "3"),
            ("-m 0x7", "3"),
            ("-m 5/5", "3"),
            ("-m 7/", ""),
            ("-u SEEN_REPLY", "1"),
            ("-u assured,seen_reply", "1"),
            ("-u UNREPLIED", "2 3 4 5 6 7 8"),
            ("-u UNREPLIED,ASSURED", ""),
            ("-u OFFLOAD", ""),
            ("-w 0", "1 2 3 5 6 7 8"),
            ("-w 5", "4"),
            ("-w 6", ""),
            ("--orig-zone 6", "5"),
            ("--orig-zone 0", "1 2 3 4 6 7 8"),
            ("--reply-zone 7", "6"),
            ("-p gre --srckey 16", "8"),
            ("-p gre --dstkey 0x20", "8"),
            ("-p icmp --icmp-type 8", ""),
        ] {
            let mut found: Vec<String> = done(&format!("-L -o id {line}"), &mut g)
                .out
                .lines()
                .map(|l| l.rsplit_once("id=").unwrap().1.to_owned())
                .collect();
            found.sort();
            assert_eq!(found.join(" "), ids, "{line}");
        }
        let ignored = done("-L -u SRC_NAT,ASSURED", &mut g);
        assert_eq!(ignored.out.lines().count(), 1);
        assert!(ignored.err.starts_with("WARNING: ignoring SRC_NAT, use --src-nat instead\n"));
        assert_eq!(done("-D -t 5 -p udp", &mut g).exit, 1);
        assert_eq!(done("-D -t 3999 -i 3 -p udp", &mut g).out.lines().count(), 1);
        // As the tool does it: a deletion does not know UNREPLIED.
        assert_eq!(done("-D -u UNREPLIED", &mut g).out.lines().count(), 7);
    }
}
