//! What is told of a traced packet: each rule that it meets, as `nf_log_trace` of the legacy tables
//! tells it.
//!
//! Chains end there in a rule of their own, which is told of as `policy` or `return`. So is, as
//! there, any rule without a test that accepts, drops or returns.

use core::fmt;

use super::compiled::{BaseChain, Compiled, CompiledRule};
use super::facts::Facts;
use super::hook::Table;
use super::walk::{Packet, Sink};

/// What a packet meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A rule that matches.
    Rule,
    /// The end of a user's chain, or a rule that is like it.
    Return,
    /// The policy of a base chain, or a rule that is like it.
    Policy,
}

/// A place that a traced packet came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed<'a> {
    /// The table.
    pub table: Table,
    /// The chain's name.
    pub chain: &'a str,
    /// What is there.
    pub what: What,
    /// The number of the rule in its chain, from 1 on; the end is behind the last.
    pub number: u32,
}

/// As a line begins.
impl fmt::Display for Passed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.what {
            What::Rule => "rule",
            What::Return => "return",
            What::Policy => "policy",
        };
        let Passed { table, chain, number, .. } = self;
        write!(f, "TRACE: {}:{chain}:{what}:{number} ", table.name())
    }
}

/// A chain as it is told of.
#[derive(Clone, Debug)]
pub(super) struct ChainName {
    pub(super) table: Table,
    pub(super) name: String,
    pub(super) base: bool,
}

impl Compiled {
    /// Tells of a rule that matches.
    #[cold]
    #[inline(never)]
    pub(super) fn trace_rule(
        &self,
        chain: u32,
        rule: &CompiledRule,
        packet: (&impl Packet, u32),
        out: &mut impl Sink,
    ) {
        let first = self.chain(chain).next().map_or(0, |first| first.counter.0);
        let ends = self.like_ends.binary_search(&rule.counter).is_ok();
        self.tell(chain, (ends, rule.counter.0 - first + 1), packet, out);
    }

    /// Tells of the end of a chain, and of the policy where that decides.
    #[cold]
    #[inline(never)]
    pub(super) fn trace_end(
        &self,
        chain: u32,
        base: &BaseChain,
        packet: (&impl Packet, u32),
        last: bool,
        out: &mut impl Sink,
    ) {
        let mut tell = |chain| {
            let number = self.chain(chain).len() as u32 + 1;
            self.tell(chain, (true, number), packet, out);
        };
        if chain != base.chain {
            tell(chain);
        }
        if last {
            tell(base.chain);
        }
    }

    fn tell(
        &self,
        chain: u32,
        (ends, number): (bool, u32),
        (packet, mark): (&impl Packet, u32),
        out: &mut impl Sink,
    ) {
        let Some(ChainName { table, name, base }) = self.names.get(chain as usize) else { return };
        let what = match (ends, base) {
            (false, _) => What::Rule,
            (true, false) => What::Return,
            (true, true) => What::Policy,
        };
        let passed = Passed { table: *table, chain: name, what, number };
        out.trace(&passed, &Facts { mark, ..packet.facts() });
    }
}
