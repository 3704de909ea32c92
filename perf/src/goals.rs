//! The goals of the product: what each row that is judged is a part of, in the order of the report,
//! and what is known about the bound of each.
//!
//! The text about bounds is [bounds.md](../bounds.md), a section for each goal; the report shows it
//! beside the rows of a goal that is missed. So a miss comes with where the time goes, what limits
//! it and what was tried.

use std::fmt;

/// A line of the table of goals; rows are parts of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    PlainForward,
    StatefulForward,
    Snat,
    SnatCycles,
    Ipv6AndTcp,
    Imix,
    Table,
    NewConns,
    Memory,
    Instructions,
    Expiry,
    Flood,
    Latency,
    HandedOver,
    TwoWorkers,
}

impl Topic {
    /// All of them.
    pub(crate) const ALL: [Topic; 15] = [
        Topic::PlainForward,
        Topic::StatefulForward,
        Topic::Snat,
        Topic::SnatCycles,
        Topic::Ipv6AndTcp,
        Topic::Imix,
        Topic::Table,
        Topic::NewConns,
        Topic::Memory,
        Topic::Instructions,
        Topic::Expiry,
        Topic::Flood,
        Topic::Latency,
        Topic::HandedOver,
        Topic::TwoWorkers,
    ];

    /// What is to be known about its bound; empty if nothing was written down.
    pub(crate) fn bound(self) -> &'static str {
        let sections = include_str!("../bounds.md").split("\n## ").skip(1);
        let own = sections.filter_map(|section| section.split_once('\n'));
        let own = own.into_iter().find(|(title, _)| *title == self.to_string());
        own.map_or("", |(_, text)| text.trim())
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Topic::PlainForward => "Plain forwarding, untracked",
            Topic::StatefulForward => "Stateful forwarding",
            Topic::Snat => "Source translation",
            Topic::SnatCycles => "Cycles of source translation",
            Topic::Ipv6AndTcp => "IPv6, and TCP with windows",
            Topic::Imix => "Source translation of mixed sizes",
            Topic::Table => "Table lookup and touch",
            Topic::NewConns => "New conns",
            Topic::Memory => "Memory of a conn",
            Topic::Instructions => "Instructions of source translation",
            Topic::Expiry => "A million conns expire",
            Topic::Flood => "A flood of SYNs at the limit",
            Topic::Latency => "Latency at half load",
            Topic::HandedOver => "Every packet handed over",
            Topic::TwoWorkers => "Two workers",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_goal_has_its_section_about_its_bound_and_no_other_has_one() {
        for topic in Topic::ALL {
            assert!(topic.bound().contains("**Bound.**"), "{topic}");
        }
        let titles = include_str!("../bounds.md").matches("\n## ").count();
        assert_eq!(titles, Topic::ALL.len());
    }
}
