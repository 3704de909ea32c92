//! The table `expect` of conntrack(8): listings, events, `-I`, `-G` and `-D`.
//!
//! What is made by hand is its master's helper's, and lives as long as that helper's policy says:
//! `-t` is needed and says nothing, nor do `-r`, `-q`, `-u` and the mask of the destination. `-o`
//! changes nothing but `xml` and, for events, `timestamp`. `-G` and `-D` name an expectation by its
//! tuple, of whose source only what the expectation itself looks at is compared.

use dataplane::conntrack::expect::{
    Expectation, ExpectationEvent, ExpectationView, Flags, News, SourceMask,
};
use dataplane::conntrack::tuple::Tuple;
use dataplane::conntrack::tuple::proto::ICMPV6;
use dataplane::wire::address::Address;

use super::conntrack::footer;
use super::conntrack_args::Request;
use super::conntrack_filter::Family;
use super::conntrack_format::{NAME, Output, has_ports, proto_name, put, put_ids};
use super::{Answer, ExpectRefusal, Gateway, Silent, WantedExpectation};

/// What precedes the first expectation in XML.
pub(super) const XML_HEADER: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<expect>\n";

/// What follows the last one.
pub(super) const XML_FOOTER: &str = "</expect>\n";

/// The flags in the words of listings (`NF_CT_EXPECT_*`).
pub(super) const FLAGS: [(Flags, &str); 3] = [
    (Flags::PERMANENT, "PERMANENT"),
    (Flags::INACTIVE, "INACTIVE"),
    (Flags::USERSPACE, "USERSPACE"),
];

fn shown(count: usize) -> Answer {
    footer(&format!("{count} expectations have been shown."))
}

/// `-L expect`.
///
/// # Errors
/// See [`Gateway::expectations`]; so everywhere here.
pub(super) fn list(request: &Request, gateway: &mut dyn Gateway) -> Result<Answer, Silent> {
    let mut all = gateway.expectations()?;
    let family = request.filter.family;
    all.retain(|e| family.is_none_or(|family| family == Family::of(e.what.tuple.dst)));
    let mut out = String::new();
    let xml = request.output.xml && !all.is_empty();
    if xml {
        out.push_str(XML_HEADER);
    }
    for view in &all {
        out.push_str(&line(view, None, &request.output));
        out.push('\n');
    }
    if xml {
        out.push_str(XML_FOOTER);
    }
    Ok(Answer { out, ..shown(all.len()) })
}

/// `-F expect`.
pub(super) fn flush(gateway: &mut dyn Gateway) -> Result<Answer, Silent> {
    for view in gateway.expectations()? {
        gateway.delete_expectation(view.key)?;
    }
    Ok(footer("expectation table has been emptied."))
}

/// `-G expect`: no last line.
pub(super) fn get(request: &Request, gateway: &mut dyn Gateway) -> Result<Answer, Silent> {
    if request.filter.proto == Some(ICMPV6) {
        return Ok(invalid());
    }
    let found = named(request, gateway)?;
    Ok(found.map_or_else(absent, |e| Answer::text(line(&e, None, &request.output) + "\n")))
}

/// `-D expect`. The tool counts what it shows, which is nothing, and exits as if it had deleted
/// nothing.
pub(super) fn delete(request: &Request, gateway: &mut dyn Gateway) -> Result<Answer, Silent> {
    if request.filter.proto == Some(ICMPV6) {
        return Ok(invalid());
    }
    match named(request, gateway)? {
        Some(view) if gateway.delete_expectation(view.key)? => Ok(Answer { exit: 1, ..shown(0) }),
        _ => Ok(absent()),
    }
}

/// `-I expect`: nothing is said where it is done.
pub(super) fn create(request: &Request, gateway: &mut dyn Gateway) -> Result<Answer, Silent> {
    let wanted = match wanted(request) {
        Ok(wanted) => wanted,
        Err(invalid) => return Ok(invalid),
    };
    let why = match gateway.expect(&wanted)? {
        Ok(()) => return Ok(Answer::default()),
        Err(ExpectRefusal::Exists) => "File exists",
        Err(ExpectRefusal::NoMaster) => "master conntrack not found",
        Err(ExpectRefusal::NoHelper) => "Operation not supported",
        Err(ExpectRefusal::Clash) => "Device or resource busy",
        Err(ExpectRefusal::Already) => "Operation already in progress",
        Err(ExpectRefusal::Full) => "Too many open files",
    };
    Ok(Answer::failure(1, format_args!("{NAME}: Operation failed: {why}")))
}

/// What is given of it. No type of ICMPv6 can be given, and there is none of number 0.
fn wanted(request: &Request) -> Result<WantedExpectation, Answer> {
    let (filter, expected) = (&request.filter, &request.expected);
    let proto = filter.proto.unwrap_or_default();
    let ends = (filter.src, filter.dst, expected.ends[0], expected.ends[1], expected.mask);
    let (Some(from), Some(to), Some(src), Some(dst), Some(mask)) = ends else {
        return Err(invalid());
    };
    if proto == ICMPV6 {
        return Err(invalid());
    }
    let tuple = |src, dst, ids: [Option<u16>; 2]| {
        let [src_id, dst_id] = ids.map(Option::unwrap_or_default);
        Tuple { src, dst, src_id, dst_id, proto }
    };
    let upper = if mask.is_v4() { !0 << 32 } else { 0 };
    let id = expected.mask_id.unwrap_or_default();
    Ok(WantedExpectation {
        master: tuple(from.address, to.address, filter.original_ids),
        tuple: tuple(src, dst, expected.ids),
        mask: SourceMask { address: mask.bits() | upper, id },
    })
}

fn invalid() -> Answer {
    Answer::failure(1, format_args!("{NAME}: Operation failed: invalid parameters"))
}

fn absent() -> Answer {
    Answer::failure(1, format_args!("{NAME}: Operation failed: No such file or directory"))
}

/// The expectation of zone 0 that a packet with the tuple of the options would fulfil.
fn named(request: &Request, gateway: &mut dyn Gateway) -> Result<Option<ExpectationView>, Silent> {
    let filter = &request.filter;
    let (Some(src), Some(dst), Some(proto)) = (filter.src, filter.dst, filter.proto) else {
        return Ok(None);
    };
    let [src_id, dst_id] = filter.original_ids.map(Option::unwrap_or_default);
    let tuple = Tuple { src: src.address, dst: dst.address, src_id, dst_id, proto };
    let mut all = gateway.expectations()?.into_iter();
    Ok(all.find(|e| e.what.zone == 0 && e.what.is_for(&tuple)))
}

/// One expectation as one line in the wanted format, without newline (`nfexp_snprintf`).
fn line(view: &ExpectationView, event: Option<News>, output: &Output) -> String {
    if output.xml {
        return xml(view, event);
    }
    let what = &view.what;
    let mut line = match event {
        None => String::new(),
        Some(kind) => format!("{:>9} ", if kind == News::New { "[NEW]" } else { "[DESTROY]" }),
    };
    put(&mut line, format_args!("{} proto={} ", view.remaining_secs, what.tuple.proto));
    let (t, m) = (&what.tuple, &what.master_tuple);
    put(&mut line, format_args!("src={} dst={} ", t.src, t.dst));
    put_ids(&mut line, t);
    let mask = mask_tuple(what);
    put(&mut line, format_args!("mask-src={} mask-dst={} ", mask.src, mask.dst));
    put_ids(&mut line, &mask);
    put(&mut line, format_args!("master-src={} master-dst={} ", m.src, m.dst));
    put_ids(&mut line, m);
    let words = flags(what.flags);
    if !words.is_empty() {
        put(&mut line, format_args!("{} ", words.join(",")));
    }
    put(&mut line, format_args!("class={} helper={}", what.class, what.helper.name()));
    line
}

/// The words of the flags that are set.
pub(super) fn flags(flags: Flags) -> Vec<&'static str> {
    FLAGS.iter().filter(|(flag, _)| flags.has(*flag)).map(|(_, word)| *word).collect()
}

/// The mask as a tuple: of the source what counts, of the destination everything.
fn mask_tuple(what: &Expectation) -> Tuple {
    let SourceMask { address, id } = what.mask;
    let of = |bits: u128| {
        if what.tuple.dst.is_v4() { Address::v4(bits as u32) } else { Address::v6(bits) }
    };
    let (src, dst) = (of(address), of(u128::MAX));
    Tuple { src, dst, src_id: id, dst_id: u16::MAX, proto: what.tuple.proto }
}

fn xml(view: &ExpectationView, event: Option<News>) -> String {
    let what = &view.what;
    let mut xml = match event {
        None => "<flow>".to_owned(),
        Some(News::New) => "<flow type=\"new\">".to_owned(),
        Some(News::Destroy) => "<flow type=\"destroy\">".to_owned(),
    };
    let (number, family) = if what.tuple.dst.is_v4() { (2, "ipv4") } else { (10, "ipv6") };
    let tuples =
        [("expected", what.tuple), ("mask", mask_tuple(what)), ("master", what.master_tuple)];
    put(&mut xml, format_args!("<layer3 protonum=\"{number}\" protoname=\"{family}\">"));
    for (name, t) in &tuples {
        put(&mut xml, format_args!("<{name}><src>{}</src><dst>{}</dst></{name}>", t.src, t.dst));
    }
    let proto = what.tuple.proto;
    put(&mut xml, format_args!("</layer3><layer4 protonum=\"{proto}\" "));
    put(&mut xml, format_args!("protoname=\"{}\">", proto_name(proto)));
    for (name, t) in &tuples {
        put(&mut xml, format_args!("<{name}>"));
        if has_ports(proto) {
            let (src, dst) = (t.src_id, t.dst_id);
            put(&mut xml, format_args!("<sport>{src}</sport><dport>{dst}</dport>"));
        }
        put(&mut xml, format_args!("</{name}>"));
    }
    let (helper, left) = (what.helper.name(), view.remaining_secs);
    put(&mut xml, format_args!("</layer4><meta><helper-name>{helper}</helper-name>"));
    put(&mut xml, format_args!("<timeout>{left}</timeout><class>{}</class>", what.class));
    xml.push_str("</meta></flow>");
    xml
}

/// One event with its newline; in XML the first one brings the header along.
pub(super) fn event_text(event: &ExpectationEvent, output: &Output, first: bool) -> String {
    let mut text = String::new();
    if output.xml && first {
        text.push_str(XML_HEADER);
    }
    if output.timestamp && !output.xml {
        // Padded behind, where conns' events are padded with zeros in front.
        let (secs, micros) = (event.unix_ns / 1_000_000_000, event.unix_ns / 1000 % 1_000_000);
        put(&mut text, format_args!("[{secs:<8}.{micros:<6}]\t"));
    }
    text.push_str(&line(&event.view, Some(event.kind), output));
    text.push('\n');
    text
}

#[cfg(test)]
pub(super) mod tests {
    use dataplane::conntrack::helper::Helper;
    use dataplane::conntrack::record::{ConnId, ConnRef};

    use super::super::conntrack::{Outcome, Subscription, run};
    use super::super::conntrack_format::tests as sample;
    use super::super::stand_in::StandIn;
    use super::*;

    /// A TFTP transfer asked for by `client`, port 5000.
    pub(in super::super) fn tftp(key: u64, client: &str, server: &str) -> ExpectationView {
        let master_tuple = sample::tuple(17, client, 5000, server, 69);
        let reply = master_tuple.inverted().unwrap();
        let what = Expectation {
            tuple: Tuple { src_id: 0, ..reply },
            mask: SourceMask::ANY_PORT,
            master: ConnId { conn: ConnRef::from_bits(0), incarnation: 0 },
            master_tuple,
            zone: 0,
            class: 0,
            flags: Flags::default(),
            helper: Helper::Tftp,
            assigns: None,
            follow: None,
            reported: u8::MAX,
        };
        ExpectationView { key, what, remaining_secs: 299 }
    }

    fn gateway() -> StandIn {
        let mut gateway = StandIn::with([]);
        gateway.expectations = vec![tftp(7, "10.1.0.2", "10.2.0.2"), tftp(8, "fd01::2", "fd02::2")];
        gateway
    }

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn done(line: &str, gateway: &mut StandIn) -> Answer {
        match run(&words(line), "", gateway) {
            Outcome::Done(answer) => answer,
            Outcome::Events(_) => panic!("{line} subscribes"),
        }
    }

    fn events(line: &str) -> Box<Subscription> {
        match run(&words(line), "", &mut gateway()) {
            Outcome::Events(subscription) => subscription,
            Outcome::Done(answer) => panic!("{answer:?}"),
        }
    }

    /// As conntrack 1.4.7 printed it on a 6.18 kernel.
    const V4: &str = "299 proto=17 src=10.2.0.2 dst=10.1.0.2 sport=0 dport=5000 \
        mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 \
        master-src=10.1.0.2 master-dst=10.2.0.2 sport=5000 dport=69 class=0 helper=tftp";
    const V6: &str = "299 proto=17 src=fd02::2 dst=fd01::2 sport=0 dport=5000 \
        mask-src=ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
        mask-dst=ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff sport=0 dport=65535 \
        master-src=fd01::2 master-dst=fd02::2 sport=5000 dport=69 class=0 helper=tftp";
    const XML: &str = "<layer3 protonum=\"2\" protoname=\"ipv4\"><expected><src>10.2.0.2</src>\
        <dst>10.1.0.2</dst></expected><mask><src>255.255.255.255</src>\
        <dst>255.255.255.255</dst></mask><master><src>10.1.0.2</src><dst>10.2.0.2</dst></master>\
        </layer3><layer4 protonum=\"17\" protoname=\"udp\"><expected><sport>0</sport>\
        <dport>5000</dport></expected><mask><sport>0</sport><dport>65535</dport></mask><master>\
        <sport>5000</sport><dport>69</dport></master></layer4><meta>\
        <helper-name>tftp</helper-name><timeout>299</timeout><class>0</class></meta></flow>";

    #[test]
    fn lists_as_the_tool() {
        let mut g = gateway();
        let said = |n: usize| format!("{NAME}: {n} expectations have been shown.\n");
        let both = done("-L expect", &mut g);
        assert_eq!((both.out, both.err, both.exit), (format!("{V4}\n{V6}\n"), said(2), 0));
        assert_eq!(done("-L expect -o extended,id -f ipv6", &mut g).out, format!("{V6}\n"));
        let xml = done("-L expect -o xml -f ipv4", &mut g);
        assert_eq!((xml.out, xml.err), (format!("{XML_HEADER}<flow>{XML}\n{XML_FOOTER}"), said(1)));
        assert_eq!(done("-C expect", &mut g), Answer::text("2\n"));
        g.expectations.clear();
        assert_eq!(done("-L expect -o xml", &mut g), footer("0 expectations have been shown."));
    }

    #[test]
    fn flushes_and_names_a_silent_worker() {
        let mut g = gateway();
        assert_eq!(done("-F expect", &mut g), footer("expectation table has been emptied."));
        assert!(g.expectations.is_empty());
        g.silent = Some(Silent { lcore: 2, cpu: 1 });
        for line in ["-L expect", "-F expect"] {
            let answer = done(line, &mut g);
            let said = "Operation failed: worker lcore 2 (CPU 1) does not answer\n";
            assert_eq!((answer.err, answer.exit), (format!("{NAME}: {said}"), 1));
        }
    }

    /// Answers and exit codes of conntrack 1.4.7.
    #[test]
    fn gets_and_deletes_by_tuple() {
        let mut g = gateway();
        let ports = "--reply-port-src 5000 --reply-port-dst 0";
        let tuple = |dst, sport, dport| {
            format!("expect -s 10.2.0.2 -d {dst} -p udp --sport {sport} --dport {dport} {ports}")
        };
        let missing =
            Answer::failure(1, format_args!("{NAME}: Operation failed: No such file or directory"));
        let found = Answer::text(format!("{V4}\n"));
        assert_eq!(done(&format!("-G {}", tuple("10.1.0.2", 0, 5000)), &mut g), found);
        assert_eq!(done(&format!("-G {}", tuple("10.1.0.2", 7, 5000)), &mut g), found);
        for (command, dst, dport) in [("-G", "10.1.0.2", 5009), ("-D", "10.1.0.3", 5000)] {
            assert_eq!(done(&format!("{command} {}", tuple(dst, 0, dport)), &mut g), missing);
        }
        g.expectations[0].what.zone = 5;
        assert_eq!(done(&format!("-G {}", tuple("10.1.0.2", 0, 5000)), &mut g), missing);
        g.expectations[0].what.zone = 0;
        let deleted = done(&format!("-D {}", tuple("10.1.0.2", 0, 5000)), &mut g);
        assert_eq!(deleted, Answer { exit: 1, ..shown(0) });
        assert_eq!(done(&format!("-D {}", tuple("10.1.0.2", 0, 5000)), &mut g), missing);
        assert_eq!(g.expectations.len(), 1);
        for (line, text) in [
            ("-G expect", "You need to supply the `--src' option for this command"),
            ("-G expect -s 10.2.0.2 -w 3", "You need to supply the `--dst' option"),
            ("-G expect -s 10.2.0.2 -d 10.1.0.2", "You need to supply the `--protonum' option"),
            ("-D expect -s 10.2.0.2 -d 10.1.0.2 -p udp", "You need to supply the `--sport'"),
            (
                "-D expect -s 10.2.0.2 -d 10.1.0.2 -p udp --sport 0 --reply-port-src 1",
                "You need to supply the `--dport' option",
            ),
            (
                "-G expect -s 10.2.0.2 -d 10.1.0.2 -p icmp --icmp-type 8 --icmp-code 0",
                "Illegal option `--icmp-type' with this command",
            ),
            ("-G expect -o xml -s 10.2.0.2 -d 10.1.0.2 -p icmp", "Illegal option `--output'"),
        ] {
            let answer = done(line, &mut g);
            assert!(answer.err.starts_with(&format!("{NAME}: {text}")), "{line}: {}", answer.err);
            assert_eq!(answer.exit, 2, "{line}");
        }
        assert_eq!(done("-G expect -s 10.2.0.2 -d 10.1.0.2 -p icmp", &mut g), missing);
    }

    /// What the kernel and conntrack 1.4.7 made of these lines, with a TFTP client's conn.
    #[test]
    fn makes_expectations_of_a_master_with_a_helper() {
        let mut g = gateway();
        g.expectations.clear();
        let master = |port, dport| {
            let original = sample::tuple(17, "10.1.0.2", port, "10.2.0.2", dport);
            let reply = original.inverted().unwrap();
            dataplane::conntrack::view::ConnView { original, reply, ..sample::udp() }
        };
        g.conns = vec![master(5000, 69), master(5001, 70)];
        let line = |port, dport, mask: &str, tuple_port| {
            format!(
                "-I expect -s 10.1.0.2/24 -d 10.2.0.2 -p udp --sport {port} --dport {dport} \
                 --tuple-src 10.2.0.2 --tuple-dst 10.1.0.2 {mask} --mask-dst 0.0.0.0 \
                 --mask-port-src 65280 --mask-port-dst 1 --tuple-port-src 77 \
                 --tuple-port-dst {tuple_port} -t 5 -u SEEN_REPLY -r 1.1.1.1"
            )
        };
        let said = |text| Answer::failure(1, format_args!("{NAME}: Operation failed: {text}"));
        let mask = "--mask-src 255.255.255.0";
        assert_eq!(done(&line(5000, 69, mask, 8), &mut g), Answer::default());
        let listed = "src=10.2.0.2 dst=10.1.0.2 sport=77 dport=8 mask-src=255.255.255.0 \
                      mask-dst=255.255.255.255 sport=65280 dport=65535 master-src=10.1.0.2";
        assert!(done("-L expect", &mut g).out.contains(listed));
        assert_eq!(done(&line(5000, 69, mask, 8), &mut g), said("File exists"));
        assert_eq!(done(&line(5001, 70, mask, 9), &mut g), said("Operation not supported"));
        assert_eq!(done(&line(5002, 69, mask, 9), &mut g), said("master conntrack not found"));
        // Of a prefix and masks the last one counts, whosever source it is about.
        for (words, mask) in [("", 24), ("--tuple-src 10.2.0.2/16", 16)] {
            g.expectations.clear();
            assert_eq!(done(&line(5000, 69, words, 8), &mut g), Answer::default());
            let expected = !0 << 32 | u128::from(u32::MAX << (32 - mask));
            let SourceMask { address, id } = g.expectations[0].what.mask;
            assert_eq!((address, id), (expected, 65280), "{words}");
        }
        g.silent = Some(Silent { lcore: 2, cpu: 1 });
        let silent = "worker lcore 2 (CPU 1) does not answer";
        assert_eq!(done(&line(5000, 69, mask, 9), &mut g), said(silent));
    }

    #[test]
    fn events_as_the_tool() {
        let view = tftp(7, "10.1.0.2", "10.2.0.2");
        let at = |micros: u64| 1_795_284_988_000_000_000 + micros * 1000;
        let event = |kind, micros| ExpectationEvent { kind, view, unix_ns: at(micros) };
        let mut plain = events("-E expect");
        let new = plain.expectation_text(&event(News::New, 0)).unwrap();
        assert_eq!(new, format!("    [NEW] {V4}\n"));
        let end = plain.finish();
        assert_eq!(end, footer("1 expectation events have been shown."));
        let mut stamped = events("-E expect -o timestamp");
        let gone = stamped.expectation_text(&event(News::Destroy, 14_481)).unwrap();
        assert_eq!(gone, format!("[1795284988.14481 ]\t[DESTROY] {V4}\n"));
        let mut xml = events("-E expect -o xml");
        let first = xml.expectation_text(&event(News::Destroy, 0)).unwrap();
        assert_eq!(first, format!("{XML_HEADER}<flow type=\"destroy\">{XML}\n"));
        let second = xml.expectation_text(&event(News::New, 0)).unwrap();
        assert_eq!(second, format!("<flow type=\"new\">{XML}\n"));
        assert_eq!(xml.finish().out, XML_FOOTER);
        assert_eq!(events("-E").expectation_text(&event(News::New, 0)), None);
    }

    #[test]
    fn flags_are_words_before_the_class() {
        let mut view = tftp(7, "10.1.0.2", "10.2.0.2");
        view.what.flags = Flags(Flags::PERMANENT.0 | Flags::INACTIVE.0 | Flags::USERSPACE.0);
        let text = line(&view, None, &Output::default());
        assert!(text.ends_with("dport=69 PERMANENT,INACTIVE,USERSPACE class=0 helper=tftp"));
    }
}
