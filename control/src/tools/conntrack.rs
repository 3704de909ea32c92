//! `sluicegate conntrack`: from a command line to its answer.
//!
//! Everything but `-E` is answered at once. `-E` becomes a [`Subscription`], which the daemon feeds
//! with events until the client goes away.

use dataplane::conntrack::dccp::DccpState;
use dataplane::conntrack::expect::ExpectationEvent;
use dataplane::conntrack::sctp::SctpState;
use dataplane::conntrack::view::{ConnView, EventView};
use dataplane::pipeline::by_hand::{Change, Refusal, Told};

use super::conntrack_args::{Command, Request, Table, parse, refused};
use super::conntrack_format::{self as format, NAME, Shape};
use super::conntrack_labels::Wish;
use super::{
    Answer, Gateway, Silent, conntrack_change, conntrack_expect, conntrack_invalid, conntrack_xml,
};

/// How a command goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is over.
    Done(Answer),
    /// `-E`: events follow.
    Events(Box<Subscription>),
}

/// Runs a command line. `-R` finds the lines to load in `stdin`.
pub fn run(argv: &[String], stdin: &str, gateway: &mut dyn Gateway) -> Outcome {
    // Not an option of conntrack(8), so it abbreviates none and goes with none.
    if argv == ["--invalid"] {
        return Outcome::Done(conntrack_invalid::run(gateway));
    }
    if argv.len() > 1 && is_load(&argv[0]) {
        return Outcome::Done(load(stdin, gateway));
    }
    match parse(argv, &|| gateway.label_names()) {
        Err(answer) => Outcome::Done(answer),
        Ok(request) if request.command == Command::Events => {
            Outcome::Events(Box::new(Subscription { request, shown: 0 }))
        }
        Ok(request) => {
            let done = obey(&request, gateway);
            let answer = if done.finished { with_footer(&request, done) } else { done.answer };
            let err = request.warnings + &answer.err;
            Outcome::Done(Answer { err, ..answer })
        }
    }
}

/// True for the option that loads a file; it has to be the first word.
pub fn is_load(word: &str) -> bool {
    word == "-R" || word == "--load-file"
}

/// The answer where the file to load cannot be read.
pub fn cannot_read(file: &str) -> Answer {
    refused(format_args!("Failed to open file {file} for reading"))
}

/// What a command came to: how many conns it concerned, and whether it got to its end.
struct Done {
    answer: Answer,
    count: usize,
    finished: bool,
}

impl Done {
    fn with(answer: Answer, count: usize) -> Done {
        Done { answer, count, finished: true }
    }

    fn failed(answer: Answer) -> Done {
        Done { answer, count: 0, finished: false }
    }

    fn of(result: Result<Answer, Silent>) -> Done {
        match result {
            Ok(answer) => Done::with(answer, 0),
            Err(silent) => Done::failed(failed(silent)),
        }
    }
}

fn obey(request: &Request, gateway: &mut dyn Gateway) -> Done {
    let plain = |answer| Done::with(answer, 0);
    match (request.command, request.table) {
        (Command::Events, _) | (Command::List, Table::Hidden) => plain(Answer::default()),
        (Command::List, Table::Expect) => Done::of(conntrack_expect::list(request, gateway)),
        (Command::Get, Table::Expect) => Done::of(conntrack_expect::get(request, gateway)),
        (Command::Create, Table::Expect) => Done::of(conntrack_expect::create(request, gateway)),
        (Command::Delete, Table::Expect) => Done::of(conntrack_expect::delete(request, gateway)),
        (Command::Help, _) => plain(Answer::text(HELP)),
        (Command::Version, _) => plain(Answer::text(format!("{NAME}\n"))),
        (Command::List, Table::Conntrack) => list(request, gateway),
        (Command::Create | Command::Add, _) => create(request, gateway),
        (Command::Update, _) => update(request, gateway),
        (Command::Get, _) => get(request, gateway),
        (Command::Delete, _) => delete(request, gateway),
        (Command::Flush, Table::Expect) => Done::of(conntrack_expect::flush(gateway)),
        (Command::Flush, _) => {
            let emptied = |()| footer("connection tracking table has been emptied.");
            Done::of(gateway.flush(request.filter.family).map(emptied))
        }
        (Command::Count, Table::Expect) => {
            plain(Answer::text(format!("{}\n", gateway.expect_count())))
        }
        (Command::Count, _) => plain(Answer::text(format!("{}\n", gateway.count()))),
        (Command::Statistics, table) => plain(statistics(table, gateway)),
    }
}

/// What the tool says at the end of a command that stands alone.
fn with_footer(request: &Request, done: Done) -> Answer {
    let what = match (request.command, request.table) {
        (_, Table::Expect) => return done.answer,
        (Command::List | Command::Get, _) => "flow entries have been shown",
        (Command::Create, _) => "flow entries have been created",
        (Command::Add, _) => "flow entries have been added",
        (Command::Update, _) => "flow entries have been updated",
        (Command::Delete, _) => "flow entries have been deleted",
        _ => return done.answer,
    };
    let Done { answer, count, .. } = done;
    let may_be_none = matches!(request.command, Command::List | Command::Add);
    let err = format!("{}{NAME}: {count} {what}.\n", answer.err);
    Answer { err, exit: u8::from(count == 0 && !may_be_none), ..answer }
}

/// `-R`: all lines are read before the first is obeyed; a line that fails is the last one.
fn load(text: &str, gateway: &mut dyn Gateway) -> Answer {
    let mut requests = Vec::new();
    for line in text.lines() {
        let line = line.trim_start_matches([' ', '\t']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let words = words(line);
        match parse(&words, &|| gateway.label_names()) {
            Ok(request) => requests.push((request, words)),
            Err(answer) => return answer,
        }
    }
    for (request, words) in &requests {
        if let Some(name) = not_to_load(request, words) {
            return refused(format_args!("Cannot use command `{name}' with --load-file"));
        }
    }
    let mut all = Answer::default();
    for (request, _) in &requests {
        let done = obey(request, gateway);
        all.out += &done.answer.out;
        all.err = all.err + &request.warnings + &done.answer.err;
        if !done.finished {
            return Answer { exit: done.answer.exit, ..all };
        }
    }
    all
}

/// How a command is called that no file may have; making expectations as the tool calls it.
fn not_to_load(request: &Request, words: &[String]) -> Option<&'static str> {
    let expect = request.table == Table::Expect;
    let [conns, expectations] = match request.command {
        Command::Create | Command::Add | Command::Update if !expect => return None,
        Command::Delete | Command::Flush if !expect => return None,
        Command::Create | Command::Add | Command::Update => ["", "-C expect"],
        Command::Delete => ["", "-D expect"],
        Command::Flush => ["", "-F expect"],
        Command::List => ["-L", "-L expect"],
        Command::Get => ["-G", "-G expect"],
        Command::Events => ["-E", "-E expect"],
        Command::Count => ["-C", "-C expect"],
        Command::Statistics => ["-S", "-S expect"],
        Command::Version => ["-V"; 2],
        Command::Help if words.iter().any(|word| word == "-h" || word == "--help") => ["-h"; 2],
        Command::Help => ["unknown"; 2],
    };
    Some(if expect { expectations } else { conns })
}

/// The words of a line; double quotes hold spaces, and a backslash within them one character.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), String::new());
    let (mut quoted, mut escaped) = (false, false);
    for letter in line.chars() {
        match letter {
            _ if quoted && escaped => {
                word.push(letter);
                escaped = false;
            }
            '\\' if quoted => escaped = true,
            '"' if quoted => {
                quoted = false;
                words.push(std::mem::take(&mut word));
            }
            '"' => quoted = true,
            ' ' | '\t' | '\n' if !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            _ => word.push(letter),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

pub(super) fn footer(text: &str) -> Answer {
    Answer { err: format!("{NAME}: {text}\n"), ..Answer::default() }
}

/// What conntrack(8) says when the kernel fails it, with the reason.
pub(super) fn failed(silent: Silent) -> Answer {
    Answer::failure(1, format_args!("{NAME}: Operation failed: {silent}"))
}

fn refusal(refusal: Refusal, command: Command) -> Done {
    let words = conntrack_change::words_of(refusal, command);
    Done::failed(Answer::failure(1, format_args!("{NAME}: Operation failed: {words}")))
}

fn list(request: &Request, gateway: &mut dyn Gateway) -> Done {
    let conns =
        if request.zero { gateway.conns_zeroed(request.filter.family) } else { gateway.conns() };
    let mut conns = match conns {
        Ok(conns) => conns,
        Err(silent) => return Done::failed(failed(silent)),
    };
    conns.retain(|c| request.filter.matches(c));
    let mut out = shown(&conns, request, Shape::Listing, gateway);
    if request.output.xml && !conns.is_empty() {
        out.push_str(conntrack_xml::FOOTER);
    }
    Done::with(Answer::text(out), conns.len())
}

/// Conns as lines, with what precedes XML.
fn shown(conns: &[ConnView], request: &Request, shape: Shape, gateway: &dyn Gateway) -> String {
    let (output, now) = (&request.output, gateway.unix_ns());
    let mut out = String::new();
    let is_listing = matches!(shape, Shape::Listing | Shape::Found);
    if output.xml && is_listing && !conns.is_empty() {
        out.push_str(conntrack_xml::HEADER);
    }
    for conn in conns {
        out.push_str(&format::conn_line(conn, output, shape, now));
        out.push('\n');
    }
    out
}

fn create(request: &Request, gateway: &mut dyn Gateway) -> Done {
    let made = match conntrack_change::new_conn(request) {
        Ok(new) => gateway.create(new),
        Err(refusal) => Ok(Err(refusal)),
    };
    match made {
        Ok(Ok(())) => Done::with(Answer::default(), 1),
        Ok(Err(Refusal::Exists)) if request.command == Command::Add => {
            Done::with(Answer::default(), 0)
        }
        Ok(Err(why)) => refusal(why, request.command),
        Err(silent) => Done::failed(failed(silent)),
    }
}

fn get(request: &Request, gateway: &mut dyn Gateway) -> Done {
    let tuple = match conntrack_change::wanted(&request.filter) {
        Ok(tuple) => tuple,
        Err(why) => return refusal(why, Command::Get),
    };
    match gateway.get(&tuple) {
        Err(silent) => Done::failed(failed(silent)),
        Ok(None) => Done::failed(Answer::failure(
            1,
            format_args!("{NAME}: Operation failed: such conntrack doesn't exist"),
        )),
        Ok(Some(conn)) => {
            // One that has the tuple as its answers' is found and not shown.
            let conns: Vec<ConnView> =
                Some(conn).into_iter().filter(|c| request.filter.matches(c)).collect();
            let out = shown(&conns, request, Shape::Found, gateway);
            Done::with(Answer::text(out), conns.len())
        }
    }
}

fn update(request: &Request, gateway: &mut dyn Gateway) -> Done {
    let (filter, change) = (request.filter.of_update(), conntrack_change::change(request));
    let differs = |conn: &ConnView| {
        change.nat
            || change.timeout_secs.is_some_and(|secs| secs != conn.remaining_secs)
            || !conn.status.has(change.status)
            || differs_in_state(&change.told, conn)
            || change.mark_of(conn.mark) != conn.mark
            || request.labels.is_some_and(|wish| wish.concerns(conn))
    };
    let mut beyond = false;
    let changed = gateway.conns().and_then(|mut conns| {
        conns.retain(|conn| filter.matches(conn) && differs(conn));
        let keys = |labelled: bool| -> Vec<u64> {
            conns.iter().filter(|c| (c.labels != 0) == labelled).map(|conn| conn.key).collect()
        };
        let (labelled, bare) = (keys(true), keys(false));
        let mut changed = gateway.change(&labelled, &change)?;
        beyond = !bare.is_empty() && request.labels.is_some_and(Wish::is_beyond);
        if !beyond {
            let adds = matches!(request.labels, Some(Wish::Add(_)));
            let labels = change.labels.filter(|_| adds);
            changed.extend(gateway.change(&bare, &Change { labels, ..change })?);
        }
        Ok(changed)
    });
    let changed = match changed {
        Ok(changed) => changed,
        Err(silent) => return Done::failed(failed(silent)),
    };
    let mut err = String::new();
    for why in changed.iter().filter_map(|(_, outcome)| outcome.err()) {
        let words = conntrack_change::words_of(why, Command::Update);
        err += &format!("Operation failed: {words}\n");
    }
    let conns: Vec<ConnView> = changed.into_iter().map(|(conn, _)| conn).collect();
    let out = shown(&conns, request, Shape::Updated, gateway);
    if beyond {
        // The tool asks twice, to change the conn and what has become of it, and both is refused.
        let words = conntrack_change::words_of(Refusal::OutOfRange, Command::Update);
        err += &format!("Operation failed: {words}\n{NAME}: Operation failed: {words}\n");
        return Done::failed(Answer { out, err, exit: 1 });
    }
    Done::with(Answer { out, err, exit: 0 }, conns.len())
}

/// Whether the tool sees another state than the one asked for. It compares no tags, and a state of
/// DCCP without a role is sent to be refused.
fn differs_in_state(told: &Told, conn: &ConnView) -> bool {
    let wanted = match *told {
        Told::Nothing => None,
        Told::Tcp(state) => Some(state.name()),
        Told::Sctp(state, _) => state.map(SctpState::name),
        Told::Dccp(state, _) => Some(state.map_or("", DccpState::name)),
    };
    wanted.is_some_and(|wanted| conn.state != Some(wanted))
}

fn delete(request: &Request, gateway: &mut dyn Gateway) -> Done {
    let now = gateway.unix_ns();
    let conns: Vec<ConnView> = match gateway.conns() {
        Ok(conns) => conns,
        Err(silent) => return Done::failed(failed(silent)),
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
            Err(silent) => return Done::failed(Answer { out, ..failed(silent) }),
        }
    }
    Done::with(Answer::text(out), deleted)
}

fn statistics(table: Table, gateway: &mut dyn Gateway) -> Answer {
    let line = match table {
        Table::Conntrack | Table::Hidden => format::statistics_line,
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

    /// How many bytes of events may wait for this listener, as `-b` asks for it.
    pub fn buffer_bytes(&self) -> Option<u32> {
        self.request.buffer_bytes
    }

    /// True if it is the table of expectations that is listened to.
    pub fn is_of_expectations(&self) -> bool {
        self.request.table == Table::Expect
    }

    /// The text for an event of an expectation with its newline; `None` if it is not wanted.
    pub fn expectation_text(&mut self, event: &ExpectationEvent) -> Option<String> {
        if !self.is_of_expectations() {
            return None;
        }
        self.shown += 1;
        Some(conntrack_expect::event_text(event, &self.request.output, self.shown == 1))
    }

    /// The end: what the tool prints when it is interrupted.
    pub fn finish(self) -> Answer {
        let expect = self.is_of_expectations();
        let kind = if expect { "expectation" } else { "flow" };
        let mut answer = footer(&format!("{} {kind} events have been shown.", self.shown));
        answer.err.insert_str(0, &self.request.warnings);
        if self.request.output.xml && self.shown != 0 {
            let footer = if expect { conntrack_expect::XML_FOOTER } else { conntrack_xml::FOOTER };
            answer.out.push_str(footer);
        }
        answer
    }
}

const HELP: &str = "\
Usage: conntrack COMMAND [TABLE] [OPTIONS]     (as conntrack-tools 1.4.7)

Commands:  -L list   -G get one   -I create   -A create unless it exists   -U update
           -D delete   -F flush   -C count   -S statistics   -E events   -V version
           -R FILE  obey the lines of a file (-I -A -U -D -F); - is standard input
           --invalid  the last INVALID packets and why (alone, and not in conntrack-tools)
Tables:    conntrack (default), expect, dying, unconfirmed

Which conns:
  -s, -d ADDRESS[/PREFIX]     source, destination of the original direction (--mask-src, --mask-dst)
  -r, -q ADDRESS              source, destination of the reply direction
  -f ipv4|ipv6                family
  -p PROTOCOL                 by name or number; then, by protocol:
     --sport --dport --reply-port-src --reply-port-dst PORT   --state STATE
     --icmp-type --icmp-code --icmp-id N   --icmpv6-type --icmpv6-code --icmpv6-id N
     --srckey --dstkey --reply-key-src --reply-key-dst KEY
     --orig-vtag --reply-vtag TAG   --role client|server     (SCTP, DCCP: made or changed)
  -n, -g, -j [ADDRESS[:PORT]] source, destination, either translated
  -u STATUS[,...]             SEEN_REPLY, ASSURED, EXPECTED, FIXED_TIMEOUT, UNREPLIED, !STATUS
  -m MARK[/MASK]              mark
  -l LABEL[,...]              labels, all of them (names: see the key label_names)
  -w, --orig-zone, --reply-zone ZONE
  -t SECONDS, -i ID           with -D: seconds left, number shown by -o id

What a conn is made or changed to (-I, -A, -U):
  -t SECONDS  -u STATUS[,...]  -m MARK[/MASK]  --state STATE
  -n, -g ADDRESS[:PORT]       translate source, destination (-I, -A)
  --label-add LABEL[,...]     set labels
  --label-del [LABEL[,...]]   take labels away, or all of them (-U)

What is expected (-I expect), besides -s -d -p of its master:
  --tuple-src --tuple-dst ADDRESS   --mask-src --mask-dst MASK   -t SECONDS (the helper's count)
  --tuple-port-src --tuple-port-dst PORT   --mask-port-src --mask-port-dst MASK

With -L:  -z  set the counters of all conns back to 0
With -E:  -b BYTES  let events wait in a buffer of twice that size

Shown how:
  -o extended,id,timestamp,ktimestamp,labels,xml   or   -o save
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
        match run(&argv, "", gateway) {
            Outcome::Done(answer) => answer,
            Outcome::Events(_) => panic!("{line} subscribes"),
        }
    }

    fn err(text: &str) -> String {
        format!("{NAME}: {text}\n")
    }

    #[test]
    fn s79_lists_and_counts() {
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
        assert_eq!(done("-F expect", &mut g), footer("expectation table has been emptied."));
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
        let Outcome::Events(mut events) = run(&argv, "", &mut gateway()) else {
            panic!("-E answers")
        };
        let event = |kind| EventView { kind, conn: sample::udp(), unix_ns: 0, by_process: None };
        assert_eq!(events.text(&event(EventKind::Update)), None);
        assert_eq!(events.buffer_bytes(), None);
        for (bytes, taken) in [("5000", 5000), ("foo", 0), ("-1", 0), ("9999999999", 1410065407)] {
            let argv = ["-E", "-b", bytes].map(str::to_owned);
            let Outcome::Events(events) = run(&argv, "", &mut gateway()) else { panic!("{bytes}") };
            assert_eq!(events.buffer_bytes(), Some(taken));
        }
        let text = events.text(&event(EventKind::New)).unwrap();
        assert!(text.starts_with("<?xml ") && text.ends_with("</flow>\n"));
        let end = events.finish();
        assert_eq!(end.err, err("1 flow events have been shown."));
        assert_eq!((end.out.as_str(), end.exit), ("</conntrack>\n", 0));
    }

    /// What conntrack 1.4.7 printed and returned for each command line with an empty table.
    /// `$` is a command line, `.` standard output, `!` standard error (`:` for the tool's name and
    /// version; the hint that ends a complaint about arguments left out), `=` the exit code.
    #[test]
    fn command_lines_of_the_golden_file() {
        assert!(hold_golden(include_str!("golden/conntrack.txt"), None) > 200);
    }

    /// The same where labels have names.
    #[test]
    fn command_lines_about_labels_of_the_golden_file() {
        let names = "0 zero\n1 one\n2 two three\n200 beyond\n";
        assert!(hold_golden(include_str!("golden/labels.txt"), Some(names)) > 40);
    }

    fn hold_golden(golden: &str, label_names: Option<&'static str>) -> usize {
        let mut wrong = Vec::new();
        let blocks = golden.split("$ ").skip(1).map(|block| block.split_once('\n').unwrap());
        for (line, rest) in blocks.clone() {
            let answer = done(line, &mut StandIn { label_names, ..StandIn::with([]) });
            let hint = "Try `conntrack -h' or 'conntrack --help' for more information.\n";
            let err = match answer.exit {
                2 => answer.err.strip_suffix(hint).unwrap_or("no hint").to_owned(),
                _ => answer.err,
            };
            let mut text = String::new();
            for line in err.lines() {
                text += &format!("! {}\n", line.replacen(&format!("{NAME}: "), ": ", 1));
            }
            for line in answer.out.lines() {
                text += &format!(". {line}\n");
            }
            text += &format!("= {}\n", answer.exit);
            if text != rest {
                wrong.push(format!("$ {line}\n{text}-- not --\n{rest}"));
            }
        }
        assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
        blocks.count()
    }

    #[test]
    fn makes_changes_and_gets() {
        let mut g = StandIn::with([]);
        let save = "-s 1.1.1.1 -d 2.2.2.2 -r 2.2.2.2 -q 1.1.1.1 -p tcp --sport 10 --dport 20 \
                    --reply-port-src 20 --reply-port-dst 10 --state ESTABLISHED";
        let line = format!("-A -t 49 -u SEEN_REPLY,ASSURED {save}");
        assert_eq!(done(&line, &mut g), footer("1 flow entries have been added."));
        assert_eq!(done(&line, &mut g), footer("0 flow entries have been added."));
        assert_eq!(done("-L -o save", &mut g).out, format!("{line}\n"), "what is saved is loaded");
        let again = done(&line.replace("-A", "-I"), &mut g);
        let text = "Operation failed: Such conntrack exists, try -U to update";
        assert_eq!((again.err, again.exit), (err(text), 1));
        let got = done("-G -s 1.1.1.1 -d 2.2.2.2 -p tcp --sport 10 --dport 20", &mut g);
        assert_eq!((got.err, got.exit), (err("1 flow entries have been shown."), 0));
        assert!(got.out.ends_with(" [ASSURED] mark=0 use=2\n"), "{}", got.out);
        let other = done("-G -s 2.2.2.2 -d 1.1.1.1 -p tcp --sport 20 --dport 10", &mut g);
        assert_eq!((other.err, other.exit), (err("0 flow entries have been shown."), 1));
        let up = done("-U -p tcp --dport 20 --mark 0xf5/0xff -o extended", &mut g);
        assert_eq!((up.err, up.exit), (err("1 flow entries have been updated."), 0));
        assert!(up.out.starts_with("ipv4     2 tcp ") && up.out.contains(" mark=245 use=2\n"));
        let same = done("-U -p tcp --dport 20 --mark 0xf5", &mut g);
        assert_eq!((same.err, same.exit), (err("0 flow entries have been updated."), 1));
        let nat = done("-U -p tcp -n 9.9.9.9 -m 1", &mut g);
        assert_eq!((nat.err, nat.exit), (err("0 flow entries have been updated."), 1));
    }

    /// Lines and outcomes of conntrack 1.4.7 with the same names, one after the other.
    #[test]
    fn labels_are_set_shown_and_filtered() {
        let names = "0 zero\n1 one\n2 two three\n7 seven\n127 last\n200 beyond\n";
        let mut g = StandIn { label_names: Some(names), ..StandIn::with([]) };
        let udp = "-s 1.1.1.1 -d 2.2.2.2 -p udp --dport 2 --sport";
        let make = |g: &mut StandIn, port: u8, more: &str| {
            let answer = done(&format!("-I {udp} {port} -t 9 {more}"), g);
            assert_eq!(answer.err, err("1 flow entries have been created."));
        };
        make(&mut g, 1, "--label-add last,zero");
        make(&mut g, 2, "");
        make(&mut g, 3, "--label-add one --label-add zero");
        let count = |g: &mut StandIn, line: &str| {
            let Answer { out, err, exit } = done(line, g);
            let number = err.rsplit(": ").next().and_then(|text| text.split(' ').next());
            assert_eq!(number, Some(out.lines().count().to_string().as_str()), "{line}: {err}");
            (out.lines().count(), exit)
        };
        for (line, outcome) in [
            ("-L -l zero", (2, 0)),
            ("-L -l zero,one", (1, 0)),
            ("-L -l zero -l last", (1, 0)),
            ("-L -l beyond", (0, 0)),
            ("-L -l beyond,zero", (0, 0)),
            ("-U -p udp --sport 2 --label-del", (0, 1)),
            ("-U -p udp --sport 2 --label-del one", (0, 1)),
            ("-U -p udp --sport 2 --label-del one -m 5", (1, 0)),
            ("-U -p udp --sport 3 --label-del beyond", (1, 0)),
            ("-U -p udp --sport 3 --label-add zero", (1, 0)),
            ("-U -p udp --sport 3 --label-add beyond", (1, 0)),
            ("-U -l last --label-add seven", (1, 0)),
            ("-L -l seven", (1, 0)),
            ("-U -l seven --label-del=last,zero,seven", (1, 0)),
            ("-L -l seven", (0, 0)),
        ] {
            assert_eq!(count(&mut g, line), outcome, "{line}");
        }
        let mut end = |line: &str| {
            let out = done(line, &mut g).out;
            out.rsplit_once("mark=").map_or(out.clone(), |(_, end)| end.to_owned())
        };
        let third = "-L -p udp --sport 3";
        assert_eq!(end(&format!("{third} -o id,labels")), "0 use=1 id=0 labels=zero,one\n");
        assert_eq!(end(third), "0 use=1\n");
        assert_eq!(end(&format!("{third} -l one")), "0 use=1 labels=zero,one\n", "implied");
        let xml = end(&format!("{third} -o xml,labels"));
        let labels = "<mark>0</mark><labels><label>zero</label><label>one</label></labels><use>";
        assert!(xml.contains(labels), "{xml}");
        assert!(!end(&format!("{third} -o save -l one")).contains("label"));
        assert_eq!(end("-U -p udp --sport 3 --label-add two three"), "");
        assert_eq!(end("-D -p udp --sport 3 -l one -o labels"), "0 use=1\n");
    }

    #[test]
    fn a_label_that_no_conn_can_have_ends_an_update() {
        let mut g = StandIn { label_names: Some("0 zero\n200 beyond\n"), ..gateway() };
        let answer = done("-U -p udp --label-add zero,beyond", &mut g);
        let text = "Operation failed: Numerical result out of range";
        assert_eq!((answer.err, answer.exit), (format!("{text}\n{}", err(text)), 1));
        assert_eq!(done("-L -l zero", &mut g).out, "");
    }

    #[test]
    fn labels_without_a_name_leave_a_word() {
        let labels = 1 << 5;
        let conn = ConnView { labels, ..sample::udp() };
        let mut g = StandIn { label_names: Some("0 zero\n"), ..StandIn::with([conn]) };
        assert!(done("-L -o labels", &mut g).out.ends_with(" use=1 labels\n"));
        assert!(done("-L -o labels,xml", &mut g).out.contains("<labels></labels>"));
        g.label_names = None;
        let answer = done("-L -o labels", &mut g);
        assert!(answer.out.ends_with(" use=1\n"));
        assert!(answer.err.starts_with("nfct_labelmap_new: No such file or directory\nconntrack"));
    }

    #[test]
    fn what_a_change_is_refused_for_is_said_and_the_conn_shown() {
        let mut g = StandIn::with([sample::tcp()]);
        let answer = done("-U -n 10.9.0.2 -m 1", &mut g);
        let refused = "Operation failed: Operation not supported\n".to_owned();
        assert_eq!(answer.err, refused + &err("1 flow entries have been updated."));
        assert!(answer.out.contains(" mark=0 ") && answer.exit == 0);
    }

    #[test]
    fn zeroes_counters_after_it_has_shown_them() {
        let mut g = gateway();
        assert!(done("-L -z -o extended", &mut g).out.contains("packets=3 bytes=164"));
        let after = done("-L", &mut g).out;
        assert!(after.contains("packets=0 bytes=0") && !after.contains("bytes=164"), "{after}");
    }

    #[test]
    fn loads_lines() {
        let argv = ["-R", "file", "ignored"].map(str::to_owned);
        let load = |text: &str, g: &mut StandIn| match run(&argv, text, g) {
            Outcome::Done(answer) => answer,
            Outcome::Events(_) => panic!("-R subscribes"),
        };
        let mut g = StandIn::with([]);
        let a = "-A -t 49 -s 1.1.1.1 -d 2.2.2.2 -p udp --sport 10 --dport 20\n";
        let b = "  -I -t \"49\" -s 1.1.1.1 -d 2.2.2.2 -p udp --sport 11 --dport 20\n";
        assert_eq!(load(&format!("# two\n\n{a}{b}"), &mut g), Answer::default());
        assert_eq!(g.conns.len(), 2);
        let exists = load(&format!("{a}{b}-F\n"), &mut g);
        let text = "Operation failed: Such conntrack exists, try -U to update";
        assert_eq!((exists.err, exists.exit, g.conns.len()), (err(text), 1, 2));
        let mixed = load("-U -p udp --sport 10 -m 4\n-D -p udp -m 4\n-D -p sctp\n-F\n", &mut g);
        assert_eq!((mixed.out.lines().count(), mixed.exit), (2, 0));
        assert_eq!(mixed.err, err("connection tracking table has been emptied."));
        let hint = "Try `conntrack -h' or 'conntrack --help' for more information.\n";
        let ends = "-s 1.1.1.1 -d 2.2.2.2 --tuple-src 1.1.1.1 --tuple-dst 2.2.2.2";
        let expect = format!("-I expect {ends} -p 50 -t 9 --mask-src ::0 --mask-dst ::0");
        let expect = expect.replace("::0", "1.1.1.1");
        for (line, text) in [
            ("-L", "Cannot use command `-L' with --load-file"),
            ("-L expect", "Cannot use command `-L expect' with --load-file"),
            ("-G -s 1.1.1.1 -d 2.2.2.2 -p 50", "Cannot use command `-G' with --load-file"),
            ("-E", "Cannot use command `-E' with --load-file"),
            ("-S", "Cannot use command `-S' with --load-file"),
            (
                "-D expect -s 1.1.1.1 -d 2.2.2.2 -p 50",
                "Cannot use command `-D expect' with --load-file",
            ),
            (
                "-G expect -s 1.1.1.1 -d 2.2.2.2 -p 50",
                "Cannot use command `-G expect' with --load-file",
            ),
            (&expect, "Cannot use command `-C expect' with --load-file"),
            ("-C", "Cannot use command `-C' with --load-file"),
            ("-V", "Cannot use command `-V' with --load-file"),
            ("-h", "Cannot use command `-h' with --load-file"),
            ("foo", "Cannot use command `unknown' with --load-file"),
            ("-A -t", "option `-t' requires an argument"),
            ("-A --bogus", "unknown option `--bogus'"),
        ] {
            // The line before it is not obeyed.
            let answer = load(&format!("{a}{line}\n"), &mut g);
            assert_eq!((answer.err, answer.exit), (err(text) + hint, 2), "{line}");
            assert_eq!(g.conns.len(), 0, "{line}");
        }
        assert_eq!(cannot_read("x").exit, 2);
    }

    #[test]
    fn a_silent_worker_fails_what_needs_it_by_name() {
        let said = err("Operation failed: worker lcore 2 (CPU 1) does not answer");
        let tuple = "-s 1.1.1.1 -d 2.2.2.2 -p udp --sport 10 --dport 20";
        for line in [&format!("-I -t 5 {tuple}"), &format!("-G {tuple}"), "-U -m 1", "-L -z"] {
            let mut g = gateway();
            g.silent = Some(Silent { lcore: 2, cpu: 1 });
            let answer = done(line, &mut g);
            assert_eq!((answer.out.as_str(), &answer.err, answer.exit), ("", &said, 1), "{line}");
        }
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        for line in ["-L -c 5", "-E -c 0"] {
            let answer = done(line, &mut gateway());
            let why = "`--secmark' is not supported: conns here have no security marks\n";
            assert!(answer.err.contains(why), "{line}: {}", answer.err);
            assert_eq!((answer.exit, answer.out.as_str()), (2, ""), "{line}");
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
