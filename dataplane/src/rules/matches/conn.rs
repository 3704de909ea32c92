//! What is known of a packet's conn: `-m connmark` and `-m helper`.
//!
//! Who changes a conn's mark, a rule or a tool, sees to it that remembered walks of the conn begin
//! anew; its master's helper is there from its birth. So both answer alike for all packets.

use super::{Masked, Maybe};
use crate::rules::facts::Facts;

/// `-m connmark` (`struct xt_connmark_mtinfo1`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connmark(pub Maybe<Masked>);

impl Connmark {
    /// `connmark_mt`: without conn it does not hold, negated or not.
    pub(in crate::rules) fn holds(&self, facts: &Facts<'_>) -> bool {
        let Masked { value, mask } = self.0.value;
        facts.ct.conn.is_some_and(|conn| self.0.judge(conn.mark() & mask == value))
    }
}

/// `-m helper` (`struct xt_helper_info`): the conn is expected, and its master's helper has this
/// name or one that the name begins with; the empty name means any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelperName(pub Maybe<String>);

impl HelperName {
    /// Bytes of the name that are kept.
    pub const MAX: usize = 29;

    /// `helper_mt`.
    pub(in crate::rules) fn holds(&self, facts: &Facts<'_>) -> bool {
        let name = &self.0.value;
        let helper = facts.ct.conn.and_then(|conn| conn.master_helper());
        let met = helper.is_some_and(|h| name.is_empty() || name.starts_with(h.name()));
        self.0.judge(met)
    }
}
