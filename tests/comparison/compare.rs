//! Two transcripts of one sequence, held against each other.

use crate::listing::Line;
use crate::script::{Event, Transcript};

/// Everything in which `theirs` differs from `ours`, as text; empty if they agree. `names` are the
/// two devices'.
pub fn differences(ours: &Transcript, theirs: &Transcript, names: [&str; 2]) -> Vec<String> {
    let mut found = Vec::new();
    for (name, transcript) in names.iter().zip([ours, theirs]) {
        found.extend(transcript.violations.iter().map(|text| format!("{name}: {text}")));
    }
    for (at, (our, their)) in ours.events.iter().zip(&theirs.events).enumerate() {
        found.extend(event(our, their, names).map(|text| format!("event {at}: {text}")));
    }
    if let (Some(our), Some(their)) = (&ours.said, &theirs.said)
        && our != their
    {
        let lines = |said: &[String]| said.join("\n   ");
        let [a, b] = names;
        found.push(format!("{a} says\n   {}\n {b}\n   {}", lines(our), lines(their)));
    }
    if ours.events.len() != theirs.events.len() {
        let lengths = [ours.events.len(), theirs.events.len()];
        found.push(format!(
            "{} has {} events, {} has {}",
            names[0], lengths[0], names[1], lengths[1]
        ));
    }
    found
}

fn event(ours: &Event, theirs: &Event, names: [&str; 2]) -> Option<String> {
    let agree = match (ours, theirs) {
        (Event::Table(ours), Event::Table(theirs)) => tables_agree(ours, theirs),
        (ours, theirs) => ours == theirs,
    };
    (!agree).then(|| format!("\n {}:\n{ours}\n {}:\n{theirs}", names[0], names[1]))
}

/// Entries with equal text are paired by their timers, in order, as both listings are sorted.
fn tables_agree(ours: &[Line], theirs: &[Line]) -> bool {
    ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(our, their)| our.agrees(their))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Side;

    fn transcript() -> Transcript {
        let line = Line { text: "ipv4 2 udp 17 src=10.1.0.11".into(), seconds: Some(30) };
        let sent = vec!["a packet".into()];
        let step = Event::Step {
            side: Side::Lan,
            sent,
            lan: vec![],
            wan: vec!["a packet, ttl 63".into()],
        };
        Transcript { events: vec![step, Event::Table(vec![line])], said: None, violations: vec![] }
    }

    fn count(change: impl FnOnce(&mut Transcript)) -> usize {
        let mut theirs = transcript();
        change(&mut theirs);
        differences(&transcript(), &theirs, ["a", "b"]).len()
    }

    fn step(transcript: &mut Transcript) -> (&mut Vec<String>, &mut Vec<String>) {
        match &mut transcript.events[0] {
            Event::Step { lan, wan, .. } => (lan, wan),
            other => panic!("not a step: {other}"),
        }
    }

    fn line(transcript: &mut Transcript) -> &mut Vec<Line> {
        match &mut transcript.events[1] {
            Event::Table(lines) => lines,
            other => panic!("not a table: {other}"),
        }
    }

    #[test]
    fn equal_transcripts_agree() {
        assert_eq!(count(|_| ()), 0);
        assert_eq!(count(|theirs| line(theirs)[0].seconds = Some(28)), 0);
    }

    #[test]
    fn each_difference_is_found() {
        assert_eq!(count(|theirs| step(theirs).1.clear()), 1);
        assert_eq!(count(|theirs| step(theirs).0.push("a reply".into())), 1);
        assert_eq!(count(|theirs| step(theirs).1[0] = "a packet, ttl 64".into()), 1);
        assert_eq!(count(|theirs| line(theirs)[0].seconds = Some(33)), 1);
        assert_eq!(count(|theirs| line(theirs)[0].text.push_str(" [ASSURED]")), 1);
        assert_eq!(count(|theirs| line(theirs).clear()), 1);
        assert_eq!(count(|theirs| theirs.violations.push("port 7 of class high".into())), 1);
        assert_eq!(count(|theirs| drop(theirs.events.pop())), 1);
        let said = |text: &str| {
            let of = |text: &str| Transcript { said: Some(vec![text.into()]), ..transcript() };
            differences(&of("nf_ct_proto_6: invalid rst"), &of(text), ["a", "b"]).len()
        };
        assert_eq!(
            (said("nf_ct_proto_6: invalid rst"), said("nf_ct_proto_6: invalid new")),
            (0, 1)
        );
        assert_eq!(count(|theirs| theirs.said = Some(vec!["switched off here".into()])), 0);
    }
}
