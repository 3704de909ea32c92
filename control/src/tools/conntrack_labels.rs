//! Labels on a command line of conntrack(8), and in its lines.
//!
//! The names are read when the first option asks for them, which is said on standard error where
//! there are none. From then on labels are shown too, whether `-o labels` was given or not, but for
//! those of a deletion. A label without a name is not shown; where no other one is set, the word
//! `labels` stands alone.
//!
//! Labels of 128 and more have names and nothing else: no conn has them, the kernel refuses a
//! message with one (`ERANGE`), and the tool sends none about a conn that has other labels already.

use dataplane::conntrack::view::ConnView;

use super::Answer;
use super::conntrack_args::refused;
use super::conntrack_format::put;
use crate::labels::Names;

/// Labels that an option names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// Those that a conn can have.
    pub bits: u128,
    /// There are more, which it cannot have.
    pub beyond: bool,
}

/// What `-U`, `-I` and `-A` do to labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// `--label-add`
    Add(Labels),
    /// `--label-del`; `None` for all.
    Delete(Option<Labels>),
}

impl Labels {
    /// The labels of a list of names.
    ///
    /// # Errors
    /// The answer about the first name that nobody knows.
    pub fn read(list: &str, names: Option<&Names>) -> Result<Labels, Answer> {
        let mut labels = Labels::default();
        for name in list.split(',') {
            let number = names.and_then(|names| names.number(name));
            let unknown = || refused(format_args!("unknown label '{name}'"));
            match 1u128.checked_shl(number.ok_or_else(unknown)?.into()) {
                Some(bit) => labels.bits |= bit,
                None => labels.beyond = true,
            }
        }
        Ok(labels)
    }

    /// These and others.
    pub fn with(self, other: Labels) -> Labels {
        Labels { bits: self.bits | other.bits, beyond: self.beyond | other.beyond }
    }

    /// Whether a conn has all of them.
    pub fn are_all_of(self, conn: &ConnView) -> bool {
        !self.beyond && conn.labels & self.bits == self.bits
    }
}

impl Wish {
    /// Whether a conn is to be changed for it: nothing is taken from one without labels.
    pub fn concerns(self, conn: &ConnView) -> bool {
        matches!(self, Wish::Add(_)) || conn.labels != 0
    }

    /// Labels to be set and labels to be taken away.
    pub fn bits(self) -> (u128, u128) {
        match self {
            Wish::Add(labels) => (labels.bits, 0),
            Wish::Delete(labels) => (0, labels.map_or(u128::MAX, |labels| labels.bits)),
        }
    }

    /// Whether it cannot be granted to a conn that has no labels yet.
    pub fn is_beyond(self) -> bool {
        matches!(self, Wish::Add(labels) if labels.beyond)
    }
}

/// Appends the labels of a conn to its line.
pub(super) fn put_labels(line: &mut String, labels: u128, names: &Names) {
    match names.of(labels).join(",") {
        _ if labels == 0 => {}
        named if named.is_empty() => line.push_str("labels "),
        named => put(line, format_args!("labels={named} ")),
    }
}

/// The same in XML.
pub(super) fn put_xml(xml: &mut String, labels: u128, names: &Names) {
    if labels != 0 {
        xml.push_str("<labels>");
        names.of(labels).iter().for_each(|name| put(xml, format_args!("<label>{name}</label>")));
        xml.push_str("</labels>");
    }
}
