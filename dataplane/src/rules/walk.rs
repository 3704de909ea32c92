//! The walk: first match wins, chain by chain, as `ipt_do_table` does it.
//!
//! Reads a [`Compiled`] and [`Facts`], tells a [`Sink`] which counters were hit, and returns what
//! is to be done. No allocation, no panic; the number of steps is bounded when the ruleset is
//! compiled, so is the stack.
//!
//! What a walk did may be remembered for the later packets of a conn with the same direction,
//! state and pair of ports, unless [`Sink::per_packet`] was called. Marks are not per-packet facts:
//! a packet starts with mark 0 and only rules change it, so the walk's own result covers them. Nor
//! are ICMP types, which are part of a conn's tuples; for ICMP errors, which are RELATED to a conn
//! without having its tuples, the pipeline remembers nothing.

use core::{ops, slice};

use arrayvec::ArrayVec;

use super::check::MAX_DEPTH;
use super::classify::Heads;
use super::compiled::{Action, BaseChain, Compiled, CompiledRule, CounterId};
use super::edit::Edit;
use super::facts::Facts;
use super::gate::Bits;
use super::hook::{Hook, Table};
use super::matches::Net;
use super::model::Policy;
use super::sets::Change;
use super::sets::set::{Asked, Changed};
use super::targets::connmark::Marks;
use super::targets::nflog::Nflog;
use super::targets::synproxy::Synproxy;
use super::targets::{Log, RejectWith};
use super::template::Said;
use super::test::Answer;
use super::trace::Passed;
use crate::nat::range::Range;

/// The packet that walks.
pub trait Packet {
    /// As it is now.
    fn facts(&self) -> Facts<'_>;

    /// Changes it; the rules behind see it so.
    ///
    /// # Errors
    /// The verdict on a packet that the edit cannot be made in.
    fn edit(&mut self, edit: &Edit) -> Result<(), Verdict>;

    /// True if its transport checksum is right.
    fn is_sound(&self) -> bool {
        true
    }

    /// True if each rule that it meets is told of ([`Sink::trace`]).
    fn is_traced(&self) -> bool {
        false
    }

    /// Has it so from here on, in this table and all that follow.
    fn trace(&mut self);

    /// Shows the rules behind what is said about its tracking.
    fn say(&mut self, said: &Said);
}

/// Facts alone: a packet whose bytes nobody has, and that ends where a rule would edit it.
#[cfg(test)]
pub(super) struct Still<'a>(pub(super) Facts<'a>);

#[cfg(test)]
impl Packet for Still<'_> {
    fn facts(&self) -> Facts<'_> {
        self.0
    }

    fn edit(&mut self, _: &Edit) -> Result<(), Verdict> {
        Err(Verdict::Drop)
    }

    fn trace(&mut self) {}

    fn say(&mut self, said: &Said) {
        self.0.ct.state = said.state();
    }
}

/// Who is told what a walk meets.
pub trait Sink {
    /// A rule matched, or a policy decided.
    fn hit(&mut self, counter: CounterId);

    /// A test or target depended on this very packet: what this walk does must not be remembered
    /// for other packets.
    fn per_packet(&mut self);

    /// A test was asked whose answer rests on what a rule keeps, or on chance
    /// ([`Match::rests_on`](super::matches::Match::rests_on)): of the rule that matches next, or
    /// that does not.
    fn rests(&mut self) {}

    /// A rule did not match.
    fn failed(&mut self, _: CounterId) {}

    /// A LOG rule matched. [`Sink::per_packet`] is called as well.
    fn log(&mut self, log: &Log, facts: &Facts<'_>);

    /// A SET rule matched, and the control core is to change a set.
    fn change(&mut self, change: Change);

    /// An NFLOG rule matched, likewise.
    fn nflog(&mut self, _: &Nflog, _: &Facts<'_>) {}

    /// A traced packet met a rule, or the end of a chain.
    fn trace(&mut self, _: &Passed<'_>, _: &Facts<'_>) {}

    /// The packet was edited and has so many bytes now.
    fn resized(&mut self, _: u32) {}
}

/// What is to be done with the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Goes on; in the table nat: no rule asks for a translation.
    Accept,
    /// Ends here, silently.
    Drop,
    /// Ends here, and its sender is told.
    Reject(RejectWith),
    /// Ends here, and its sender is told that what stands so far behind the beginning of its IPv6
    /// header is why ([`Edited::Problem`](super::edit::Edited::Problem)).
    Problem(u32),
    /// Goes on, translated.
    Nat(NatTarget),
    /// Ends here: the gateway speaks with its sender in its receiver's stead.
    Synproxy(Synproxy),
}

/// Which translation a rule of the table nat asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatTarget {
    /// The source, to this range.
    Snat(Range),
    /// The destination, to this range.
    Dnat(Range),
    /// The source, to the address of the port of departure; the range has no addresses.
    Masquerade(Range),
    /// The destination, to the address of the port of arrival; the range has no addresses.
    Redirect(Range),
    /// The destination before routing, the source behind it: to the address with the same host
    /// bits in this network.
    Netmap(Net),
}

/// The result of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walked {
    /// What is to be done.
    pub verdict: Verdict,
    /// What the first rule that speaks of tracking said.
    pub said: Option<Said>,
    /// The mark as the rules left it.
    pub mark: u32,
}

/// Where to go on behind a jump: rules, and the chain they are in.
type Callers<'r> = ArrayVec<(slice::Iter<'r, CompiledRule>, u32), MAX_DEPTH>;

impl Compiled {
    /// Walks the base chain of `table` at `hook`; a table that was never named accepts. The facts
    /// of `packet` are put together for a rule that asks more than its gate can answer.
    pub fn walk(
        &self,
        table: Table,
        hook: Hook,
        mut packet: impl Packet,
        out: &mut impl Sink,
    ) -> Walked {
        let plain = |verdict, mark| Walked { verdict, said: None, mark };
        let Some(base) = self.base(table, hook) else {
            return plain(Verdict::Accept, packet.facts().mark);
        };
        let (mut rules, mut heads) = (self.chain(base.chain), Heads::default());
        let bits = bits_of(&packet);
        // Mostly the first rule that admits the packet has nothing more to ask, and decides.
        if let Some((bits, mark)) = bits {
            self.seek(base.chain, &mut rules, &bits, &mut heads);
            let Some(rule) = rules.as_slice().first() else {
                return plain(self.policy(base, out), mark);
            };
            if rule.first_open == rule.end_test
                && let Some(verdict) = self.final_verdict(rule.action)
            {
                out.hit(rule.counter);
                return plain(verdict, mark);
            }
        }
        self.walk_on(base, rules, bits.map(|(bits, _)| bits), &mut packet, (&mut heads, out))
    }

    /// Walks a base chain from some rule on.
    #[inline(never)]
    fn walk_on<'r>(
        &'r self,
        base: &BaseChain,
        mut rules: slice::Iter<'r, CompiledRule>,
        mut bits: Option<Bits>,
        packet: &mut impl Packet,
        (heads, out): (&mut Heads, &mut impl Sink),
    ) -> Walked {
        let mut mark = packet.facts().mark;
        if bits.is_none() {
            out.per_packet();
        }
        let (mut chain, mut traced, mut said) = (base.chain, packet.is_traced(), None);
        let (mut known, mut callers): (_, Callers<'_>) = (None, ArrayVec::new());
        let verdict = loop {
            if let Some(bits) = &bits {
                self.seek(chain, &mut rules, bits, heads);
            }
            let Some(rule) = rules.next() else {
                if traced {
                    self.trace_end(chain, base, (&*packet, mark), callers.is_empty(), out);
                }
                let Some(caller) = callers.pop() else { break self.policy(base, out) };
                (rules, chain) = caller;
                continue;
            };
            match self.tests_hold(rule, bits.is_some(), (&*packet, &mut known, mark), out) {
                Answer::Holds => {}
                Answer::Fails => continue,
                Answer::Drop => break Verdict::Drop,
            }
            out.hit(rule.counter);
            if traced {
                self.trace_rule(chain, rule, (&*packet, mark), out);
            }
            if let Some(verdict) = self.final_verdict(rule.action) {
                break verdict;
            }
            match rule.action {
                // Nesting was bounded when the ruleset was compiled; the stack has the room.
                Action::Jump(_) if callers.is_full() => break Verdict::Drop,
                Action::Jump(to) => {
                    let _ = callers.try_push((rules, chain));
                    (rules, chain) = (self.chain(to), to);
                }
                Action::Goto(to) => (rules, chain) = (self.chain(to), to),
                Action::Return => {
                    (rules, chain) = callers.pop().unwrap_or((slice::Iter::default(), base.chain))
                }
                Action::Say(number) => {
                    self.speak(number, &mut said, packet);
                    (known, bits) = (None, look_again(packet, bits, heads));
                }
                Action::Mark(set) => mark = set.apply(mark),
                Action::Edit(_) | Action::Synproxy(_) => {
                    if let Err(verdict) = self.change(rule.action, packet, out) {
                        break verdict;
                    }
                    (known, bits) = (None, look_again(packet, bits, heads));
                }
                Action::Trace => (traced, known) = (begin_trace(packet, out), None),
                // The others have decided.
                action => {
                    let facts = known.get_or_insert_with(|| packet.facts());
                    mark = self.act(action, facts, mark, out);
                }
            }
        };
        Walked { verdict, said, mark }
    }

    /// What the first rule that speaks of tracking says, which those behind it see.
    fn speak(&self, number: u32, said: &mut Option<Said>, packet: &mut impl Packet) {
        if let (None, Some(says)) = (&said, self.said.get(number as usize)) {
            packet.say(says);
            *said = Some(*says);
        }
    }

    /// What the rule's tests say that its gate, if it was asked, has left open.
    #[inline(always)]
    fn tests_hold<'p>(
        &self,
        rule: &CompiledRule,
        gated: bool,
        (packet, known, mark): (&'p impl Packet, &mut Option<Facts<'p>>, u32),
        out: &mut impl Sink,
    ) -> Answer {
        let first = if gated { rule.first_open } else { rule.first_test };
        if first >= rule.end_test {
            return Answer::Holds;
        }
        let facts = known.get_or_insert_with(|| packet.facts());
        let answer = self.ask(first..rule.end_test, facts, mark, out);
        if answer != Answer::Holds {
            out.failed(rule.counter);
        }
        answer
    }

    /// What a rule decides by itself.
    #[inline]
    fn final_verdict(&self, action: Action) -> Option<Verdict> {
        match action {
            Action::Accept => Some(Verdict::Accept),
            Action::Drop => Some(Verdict::Drop),
            Action::Reject(with) => Some(Verdict::Reject(with)),
            Action::Nat(number) => Some(self.nat_verdict(number)),
            _ => None,
        }
    }

    fn policy(&self, base: &BaseChain, out: &mut impl Sink) -> Verdict {
        out.hit(base.counter);
        match base.policy {
            Policy::Accept => Verdict::Accept,
            Policy::Drop => Verdict::Drop,
        }
    }

    /// Not inlined: in the walk's loop it would have the whole of the facts taken apart before the
    /// first rule.
    #[inline(never)]
    fn ask(
        &self,
        tests: ops::Range<u32>,
        facts: &Facts<'_>,
        mark: u32,
        out: &mut impl Sink,
    ) -> Answer {
        let span = tests.start as usize..tests.end as usize;
        for test in self.tests.get(span).unwrap_or(&[]) {
            match test.ask(facts, mark, out) {
                Answer::Holds => {}
                other => return other,
            }
        }
        Answer::Holds
    }

    /// Does what a rule does that goes on and leaves the packet's bytes alone; the mark behind it.
    #[inline(never)]
    fn act(&self, action: Action, facts: &Facts<'_>, mark: u32, out: &mut impl Sink) -> u32 {
        match action {
            Action::Log(number) => {
                out.per_packet();
                if let Some(log) = self.logs.get(number as usize) {
                    out.log(log, &Facts { mark, ..*facts });
                }
            }
            Action::Nflog(number) => {
                out.per_packet();
                if let Some(nflog) = self.nflogs.get(number as usize) {
                    out.nflog(nflog, &Facts { mark, ..*facts });
                }
            }
            Action::Connmark(number) => return self.connmark(number, facts, mark, out),
            Action::Set(number) => return self.change_sets(number, facts, mark, out),
            _ => {}
        }
        mark
    }

    /// `connmark_tg`. What a walk finds in a conn's mark may be remembered, as whoever changes the
    /// mark has its walks begin anew; a walk that changes it itself is none to be remembered.
    fn connmark(&self, number: u32, facts: &Facts<'_>, mark: u32, out: &mut impl Sink) -> u32 {
        let (Some(set), Some(conn)) = (self.connmarks.get(number as usize), facts.ct.conn) else {
            return mark;
        };
        let before = conn.mark();
        let after = set.apply(Marks { packet: mark, conn: before });
        if after.conn != before {
            out.per_packet();
            conn.set_mark(after.conn);
        }
        after.packet
    }

    #[inline(never)]
    fn change(
        &self,
        action: Action,
        packet: &mut impl Packet,
        out: &mut impl Sink,
    ) -> Result<(), Verdict> {
        out.per_packet();
        match action {
            Action::Synproxy(proxy) => return synproxy(proxy, packet),
            Action::Edit(number) => {
                if let Some(edit) = self.edits.get(number as usize) {
                    packet.edit(edit)?;
                    out.resized(packet.facts().length);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// `set_target_v3`; the mark behind it.
    #[inline(never)]
    fn change_sets(&self, number: u32, facts: &Facts<'_>, mark: u32, out: &mut impl Sink) -> u32 {
        let Some(action) = self.sets.get(number as usize) else { return mark };
        let now = facts.around.now().tick;
        if action.add.is_some() || action.del.is_some() {
            out.per_packet();
        }
        if let Some((set, sides)) = &action.add {
            let how = (action.timeout, action.exist);
            if let Changed::Wanted(change) = set.add(*sides, how, facts, (mark, now)) {
                out.change(change);
            }
        }
        if let Some((set, sides)) = &action.del
            && let Changed::Wanted(change) = set.remove(*sides, facts, mark, now)
        {
            out.change(change);
        }
        let Some((set, sides)) = &action.map else { return mark };
        if set.is_per_packet() {
            out.per_packet();
        }
        let asked = Asked { sides: *sides, ..Asked::default() };
        let info = set.info(&asked, facts, mark, now).unwrap_or_default();
        mark & !info.mask ^ info.mark
    }

    fn nat_verdict(&self, number: u32) -> Verdict {
        self.nats.get(number as usize).map_or(Verdict::Accept, |target| Verdict::Nat(*target))
    }
}

/// `synproxy_tg4`, as far as the packet itself tells: the verdict, unless it is to go on.
fn synproxy(proxy: Synproxy, packet: &impl Packet) -> Result<(), Verdict> {
    let facts = packet.facts();
    if !facts.is_whole() || !packet.is_sound() {
        return Err(Verdict::Drop);
    }
    if Synproxy::takes(facts.tcp_flags) { Err(Verdict::Synproxy(proxy)) } else { Ok(()) }
}

/// From here on each rule that the packet meets is told of.
fn begin_trace(packet: &mut impl Packet, out: &mut impl Sink) -> bool {
    out.per_packet();
    packet.trace();
    true
}

/// What rules are found by, of a packet that has changed.
fn look_again(packet: &impl Packet, bits: Option<Bits>, heads: &mut Heads) -> Option<Bits> {
    *heads = Heads::default();
    bits.and_then(|_| bits_of(packet)).map(|(bits, _)| bits)
}

/// What gates look at, and the mark; `None` for a packet that they are not asked for. Not inlined:
/// in the walk's loop it would be put together anew for each rule.
#[inline(never)]
fn bits_of(packet: &impl Packet) -> Option<(Bits, u32)> {
    let facts = packet.facts();
    let plain = facts.is_whole() && !packet.is_traced();
    plain.then(|| (Bits::of(&facts), facts.mark))
}
