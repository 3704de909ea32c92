//! `-m set`: whether a set has the packet (`xt_set`).
//!
//! The rule as written names the set; the compiled test holds it. A walk may be remembered where
//! the set says the same to every packet of a conn until somebody changes it, who sees to it that
//! walks begin anew (see [`crate::rules::sets`]).

use std::sync::Arc;

use crate::rules::facts::Facts;
use crate::rules::sets::Set;
use crate::rules::sets::set::Asked;
use crate::rules::walk::Sink;

/// `-m set` as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetMatch {
    /// The set's name.
    pub name: String,
    /// `! --match-set`.
    pub not: bool,
    /// What is asked of it.
    pub asked: Asked,
}

/// The same with the set that has the name.
#[derive(Clone, Debug)]
pub(in crate::rules) struct SetTest {
    pub(in crate::rules) set: Arc<Set>,
    pub(in crate::rules) not: bool,
    pub(in crate::rules) asked: Asked,
}

impl PartialEq for SetTest {
    fn eq(&self, other: &SetTest) -> bool {
        Arc::ptr_eq(&self.set, &other.set) && self.not == other.not && self.asked == other.asked
    }
}

impl SetTest {
    /// `set_match_v4`.
    pub(in crate::rules) fn holds(
        &self,
        facts: &Facts<'_>,
        mark: u32,
        out: &mut impl Sink,
    ) -> bool {
        if self.set.is_per_packet() {
            out.per_packet();
        }
        self.set.holds(&self.asked, facts, mark, facts.around.now().tick) != self.not
    }
}
