//! `-o xml`: one `flow` element a line, inside one `conntrack` element.
//!
//! Element order is that of libnetfilter_conntrack. ICMP's type, code and id are not part of it.

use dataplane::conntrack::state::Status;
use dataplane::conntrack::tuple::{Tuple, proto};
use dataplane::conntrack::view::{ConnView, Counters, EventKind};

use super::conntrack_format::{Output, Shape, age_secs, has_ports, proto_name, put, utc};
use super::conntrack_labels;

/// What precedes the first conn; a listing without conns has neither this nor [`FOOTER`].
pub const HEADER: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<conntrack>\n";

/// What follows the last conn.
pub const FOOTER: &str = "</conntrack>\n";

/// One conn as one element, without newline.
pub fn flow(conn: &ConnView, output: &Output, shape: Shape, unix_ns: u64) -> String {
    let mut xml = String::with_capacity(768);
    xml.push_str(match shape.event() {
        Some(EventKind::New) => "<flow type=\"new\">",
        Some(EventKind::Update) => "<flow type=\"update\">",
        Some(EventKind::Destroy) => "<flow type=\"destroy\">",
        None => "<flow>",
    });
    let one_zone = conn.zone_original == conn.zone_reply;
    let counters = conn.counters.filter(|_| shape.has_totals());
    let [original, reply] = [(0, conn.zone_original), (1, conn.zone_reply)]
        .map(|(i, zone)| (if one_zone { 0 } else { zone }, counters.map(|c| c[i])));
    put_direction(&mut xml, "original", &conn.original, original);
    put_direction(&mut xml, "reply", &conn.reply, reply);
    put_independent(&mut xml, conn, output, shape, unix_ns);
    if output.timestamp && !shape.is_dump() {
        put_when(&mut xml, unix_ns);
    }
    if let Some(helper) = &conn.helper {
        put(&mut xml, format_args!("<helper>{helper}</helper>"));
    }
    xml.push_str("</flow>");
    xml
}

fn put_direction(xml: &mut String, name: &str, t: &Tuple, facts: (u16, Option<Counters>)) {
    let (number, family) = if t.is_v6() { (10, "ipv6") } else { (2, "ipv4") };
    put(xml, format_args!("<meta direction=\"{name}\"><layer3 protonum=\"{number}\" "));
    put(
        xml,
        format_args!("protoname=\"{family}\"><src>{}</src><dst>{}</dst></layer3>", t.src, t.dst),
    );
    let (src, dst, p) = (t.src_id, t.dst_id, t.proto);
    put(xml, format_args!("<layer4 protonum=\"{p}\" protoname=\"{}\">", proto_name(p)));
    if has_ports(p) {
        put(xml, format_args!("<sport>{src}</sport><dport>{dst}</dport>"));
    } else if p == proto::GRE {
        put(xml, format_args!("<srckey>0x{src:x}</srckey><dstkey>0x{dst:x}</dstkey>"));
    }
    xml.push_str("</layer4>");
    let (zone, counters) = facts;
    if zone != 0 {
        put(xml, format_args!("<zone>{zone}</zone>"));
    }
    if let Some(c) = counters {
        let (packets, bytes) = (c.packets, c.bytes);
        put(xml, format_args!("<counters><packets>{packets}</packets><bytes>{bytes}</bytes>"));
        xml.push_str("</counters>");
    }
    xml.push_str("</meta>");
}

fn put_independent(xml: &mut String, conn: &ConnView, output: &Output, shape: Shape, unix_ns: u64) {
    xml.push_str("<meta direction=\"independent\">");
    if let Some(state) = conn.state {
        put(xml, format_args!("<state>{state}</state>"));
    }
    if shape.is_dump() || conn.remaining_secs != 0 {
        put(xml, format_args!("<timeout>{}</timeout>", conn.remaining_secs));
    }
    if shape.has_mark(conn.mark) {
        put(xml, format_args!("<mark>{}</mark>", conn.mark));
    }
    if let Some(names) = &output.label_names
        && shape != Shape::Deletion
    {
        conntrack_labels::put_xml(xml, conn.labels, names);
    }
    if conn.zone_original == conn.zone_reply && conn.zone_original != 0 {
        put(xml, format_args!("<zone>{}</zone>", conn.zone_original));
    }
    if shape.is_dump() {
        put(xml, format_args!("<use>{}</use>", shape.uses()));
    }
    put(xml, format_args!("<id>{}</id>", conn.id));
    if conn.status.has(Status::ASSURED) {
        xml.push_str("<assured/>");
    } else if !conn.status.has(Status::SEEN_REPLY) {
        xml.push_str("<unreplied/>");
    }
    if let Some(start) = conn.start_unix_ns.filter(|_| shape.has_totals()) {
        if output.ktimestamp && shape.has_ktimestamp() {
            put(xml, format_args!("<timestamp><start>{start}</start>"));
            if let Some(stop) = conn.stop_unix_ns {
                put(xml, format_args!("<stop>{stop}</stop>"));
            }
            xml.push_str("</timestamp>");
        }
        // Of a conn that has ended, in XML alone, it is the whole seconds that it lived.
        let lived = conn.stop_unix_ns.map(|stop| stop.saturating_sub(start) / 1_000_000_000);
        let age = lived.unwrap_or_else(|| age_secs(conn, start, unix_ns));
        put(xml, format_args!("<deltatime>{age}</deltatime>"));
    }
    xml.push_str("</meta>");
}

/// The moment of an event; days of the week count from 1, Sunday.
fn put_when(xml: &mut String, unix_ns: u64) {
    let c = utc(unix_ns);
    put(xml, format_args!("<when><hour>{}</hour><min>{}</min>", c.hour, c.minute));
    put(xml, format_args!("<sec>{}</sec><wday>{}</wday>", c.second, c.weekday + 1));
    put(xml, format_args!("<day>{}</day><month>{}</month>", c.day, c.month));
    put(xml, format_args!("<year>{}</year></when>", c.year));
}

#[cfg(test)]
mod tests {
    use super::super::conntrack_format::{event_line, tests as sample};
    use super::*;
    use dataplane::conntrack::view::EventView;

    #[test]
    fn lists_as_the_golden_file() {
        let output = Output { xml: true, ..Output::default() };
        assert_eq!(
            flow(&sample::udp(), &output, Shape::Listing, sample::START),
            "<flow><meta direction=\"original\"><layer3 protonum=\"2\" protoname=\"ipv4\">\
             <src>10.9.0.1</src><dst>10.9.0.2</dst></layer3><layer4 protonum=\"17\" \
             protoname=\"udp\"><sport>50784</sport><dport>5353</dport></layer4><counters>\
             <packets>1</packets><bytes>29</bytes></counters></meta><meta direction=\"reply\">\
             <layer3 protonum=\"2\" protoname=\"ipv4\"><src>10.9.0.2</src><dst>10.9.0.1</dst>\
             </layer3><layer4 protonum=\"17\" protoname=\"udp\"><sport>5353</sport>\
             <dport>50784</dport></layer4><counters><packets>0</packets><bytes>0</bytes>\
             </counters></meta><meta direction=\"independent\"><timeout>29</timeout>\
             <mark>0</mark><use>1</use><id>484627318</id><unreplied/><deltatime>0</deltatime>\
             </meta></flow>"
        );
    }

    /// Taken from conntrack 1.4.7 with a zone in one direction, a helper and kernel time stamps.
    #[test]
    fn zones_counters_stamps_and_helper_in_order() {
        let output = Output { xml: true, ktimestamp: true, ..Output::default() };
        let start = 1_795_262_287_916_972_853;
        let conn = ConnView {
            zone_original: 6,
            status: Status::SEEN_REPLY.with(Status::ASSURED),
            start_unix_ns: Some(start),
            helper: Some("ftp".to_owned()),
            mark: 9,
            ..sample::udp()
        };
        let xml = flow(&conn, &output, Shape::Listing, start + 1);
        assert!(xml.contains("</layer4><zone>6</zone><counters>"), "{xml}");
        assert!(xml.ends_with(
            "<timeout>29</timeout><mark>9</mark><use>1</use><id>484627318</id><assured/>\
             <timestamp><start>1795262287916972853</start></timestamp><deltatime>0</deltatime>\
             </meta><helper>ftp</helper></flow>"
        ));
    }

    /// Taken from conntrack 1.4.7 with a helper.
    #[test]
    fn the_moment_comes_before_the_helper() {
        let output = Output { xml: true, timestamp: true, ..Output::default() };
        let conn = ConnView { helper: Some("tftp".to_owned()), ..sample::udp() };
        let xml = flow(&conn, &output, Shape::Event(EventKind::New), sample::START);
        assert!(xml.ends_with("</year></when><helper>tftp</helper></flow>"), "{xml}");
    }

    /// As conntrack 1.4.7: `delta-time=2` in a line was `<deltatime>1</deltatime>`.
    #[test]
    fn what_has_ended_lived_whole_seconds() {
        let output = Output { xml: true, ..Output::default() };
        let start = 1_795_262_287_916_972_853;
        let gone = ConnView {
            start_unix_ns: Some(start),
            stop_unix_ns: Some(start + 1_500_000_000),
            ..sample::udp()
        };
        let age = |conn: &ConnView, shape| {
            let xml = flow(conn, &output, shape, start + 1_500_000_000);
            let (_, age) = xml.split_once("<deltatime>").unwrap();
            age[..1].to_owned()
        };
        assert_eq!(age(&gone, Shape::Event(EventKind::Destroy)), "1");
        let live = ConnView { stop_unix_ns: None, ..gone };
        assert_eq!(age(&live, Shape::Listing), "2");
    }

    #[test]
    fn events_carry_their_moment() {
        let output = Output { xml: true, timestamp: true, ..Output::default() };
        let kind = EventKind::New;
        let moment = 1_795_261_997_000_000_000;
        let event = EventView { kind, conn: sample::icmp(), unix_ns: moment, by_process: None };
        let line = event_line(&event, &output);
        assert!(line.starts_with("<flow type=\"new\"><meta direction=\"original\"><layer3 "));
        assert!(line.contains("protoname=\"icmp\"></layer4></meta><meta direction=\"reply\">"));
        assert!(
            line.ends_with(
                "<timeout>29</timeout><id>0</id></meta><when><hour>11</hour><min>53</min>\
             <sec>17</sec><wday>7</wday><day>21</day><month>11</month><year>2026</year></when>\
             </flow>"
            ),
            "{line}"
        );
    }
}
