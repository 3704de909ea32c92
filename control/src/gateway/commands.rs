//! From a command line to its answer: the dispatch of everything that comes in by the socket.

use dataplane::rules::hook::Family;

use super::ControlCore;
use super::policy::RestoreError;
use crate::iptables::{self, Effect, Look};
use crate::labels::Names;
use crate::socket::Reply;
use crate::tools::conntrack::{Outcome, Subscription};
use crate::tools::conntrack_format::calendar;
use crate::tools::iptables_files::{Restore, Save};
use crate::tools::{self, Answer};

/// What became of a command.
#[derive(Debug)]
pub enum Served {
    /// It is answered.
    Done(Answer),
    /// It wants events from now on.
    Events(Box<Subscription>),
}

impl ControlCore {
    /// Runs a command line that came in by the socket.
    pub fn serve(&mut self, argv: &[String], stdin: &str) -> Served {
        let (name, rest) = match argv.split_first() {
            Some((name, rest)) => (name.as_str(), rest),
            None => return Served::Done(Answer::failure(1, "sluicegate: no command")),
        };
        Served::Done(match name {
            "iptables" => self.edit_rules(rest, Family::V4),
            "ip6tables" => self.edit_rules(rest, Family::V6),
            "iptables-save" => self.save(name, rest, Family::V4),
            "ipset" => self.ipset(rest, stdin),
            "ip6tables-save" => self.save(name, rest, Family::V6),
            "iptables-restore" => self.restore_tool(name, rest, stdin, Family::V4),
            "check" => self.check_live(rest),
            "explain" => self.explain(rest),
            "ip6tables-restore" => self.restore_tool(name, rest, stdin, Family::V6),
            _ => match tools::run(argv, stdin, self) {
                Some(Outcome::Done(answer)) => answer,
                Some(Outcome::Events(subscription)) => return Served::Events(subscription),
                None => Answer::failure(1, format!("sluicegate: unknown command '{name}'")),
            },
        })
    }

    /// Keeps a stream of events going until its client leaves.
    pub fn subscribe(&mut self, subscription: Box<Subscription>, reply: Reply) {
        if let Some(bytes) = subscription.buffer_bytes() {
            reply.set_backlog(bytes);
        }
        self.subscriptions.push((subscription, reply));
        self.end_subscriptions();
    }

    /// `iptables` and `ip6tables`.
    fn edit_rules(&mut self, argv: &[String], family: Family) -> Answer {
        let tool = family.tool();
        let failed = |e: &dyn std::fmt::Display| Answer::failure(4, format_args!("{tool}: {e}"));
        if let Err(silent) = self.count_rules() {
            return failed(&silent);
        }
        let names = Names::read(&self.config.conntrack.label_names).unwrap_or_default();
        let mut rulesets = self.rulesets.clone();
        let (answer, effect) = tools::iptables::run(argv, rulesets.of_mut(family), &names);
        let published = match effect {
            Effect::Nothing => return answer,
            // What the workers have counted is in the copy, which begins anew: no packet that was
            // counted since is lost.
            Effect::Counters => {
                *self.rulesets.of_mut(family) = rulesets.of(family).clone();
                return answer;
            }
            Effect::Rules => self.publish_rules(family, rulesets, false),
        };
        match published {
            Ok(()) => answer,
            Err(RestoreError::Text(e)) => tools::iptables::fault(tool, &e),
            Err(e) => failed(&e),
        }
    }

    fn save(&mut self, tool: &str, argv: &[String], family: Family) -> Answer {
        let save = match Save::read(tool, argv) {
            Ok(save) => save,
            Err(answer) => return answer,
        };
        let date = calendar(self.now().unix_ns);
        let names = Names::read(&self.config.conntrack.label_names).ok();
        let (counters, table, labels) = (save.counters, save.table, names.as_ref());
        let look = Look { counters, date: Some(&date), table, labels };
        match self.counted_rules(family) {
            Ok(rules) => Answer::text(iptables::save(rules, look)),
            Err(silent) => Answer::failure(1, format_args!("{tool}: {silent}")),
        }
    }

    fn restore_tool(&mut self, tool: &str, argv: &[String], stdin: &str, family: Family) -> Answer {
        let restore = match Restore::read(tool, argv) {
            Ok(restore) => restore,
            Err(answer) => return answer,
        };
        let family = restore.family.unwrap_or(family);
        match self.restore(family, stdin, restore.options, restore.test) {
            // With `-t` iptables-restore says nothing.
            Ok(text) => Answer::text(if restore.test { String::new() } else { text }),
            Err(RestoreError::Text(e)) => {
                Answer::failure(e.kind.exit(), format_args!("{tool}: line {e}"))
            }
            Err(e) => Answer::failure(1, format_args!("{tool}: {e}")),
        }
    }
}
