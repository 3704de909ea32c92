//! Messages from the lcores, and questions that wait for an answer.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use dataplane::conntrack::record::ConnId;
use dataplane::pipeline::by_hand::{Changes, NewConn};
use dataplane::pipeline::invalid::Finding;
use dataplane::pipeline::messages::{FromLcore, Slice, ToLcore};
use dataplane::pipeline::snapshot::Snapshot;

use super::ControlCore;
use crate::log_line;
use crate::tools::Silent;

/// Answers that somebody waits for.
#[derive(Default)]
pub(super) struct Inbox {
    /// The number of the question asked last: an answer to an earlier one, which nobody waited for
    /// to the end, is not mistaken for one to this.
    pub(super) question: u32,
    pub(super) listed: Option<Slice>,
    pub(super) found: Option<Vec<Finding>>,
    pub(super) created: Option<NewConn>,
    pub(super) changed: Option<Changes>,
    /// Conns deleted so far.
    pub(super) deleted: usize,
    pub(super) retired: Vec<Arc<Snapshot>>,
    /// Empty buffers of the expiry sweep, boxed as the messages carry them.
    #[allow(clippy::vec_box)]
    pub(super) spare: Vec<Box<Vec<ConnId>>>,
    /// Buffers of the expiry sweep under way.
    pub(super) expiring: usize,
}

impl ControlCore {
    /// Takes in whatever the lcores have sent.
    pub(super) fn read_mail(&mut self) {
        self.rounds.fetch_add(1, Relaxed);
        for number in 0..self.lcores.len() {
            while let Some(message) = self.lcores[number].mailbox.receive() {
                self.take(number, message);
            }
        }
    }

    fn take(&mut self, from: usize, message: FromLcore) {
        match message {
            FromLcore::Retired(snapshot) => {
                self.lcores[from].adopting -= 1;
                self.inbox.retired.push(snapshot);
                self.carry_late();
            }
            FromLcore::Expired(buffer) => {
                self.inbox.expiring = self.inbox.expiring.saturating_sub(1);
                self.inbox.spare.push(buffer);
            }
            FromLcore::Deleted(question, conns) => {
                if question == self.inbox.question {
                    self.lcores[from].deleting -= 1;
                    self.inbox.deleted += conns.len();
                }
            }
            FromLcore::Created(question, new) => {
                if question == self.inbox.question {
                    self.inbox.created = Some(*new);
                }
            }
            FromLcore::Changed(question, changes) => {
                if question == self.inbox.question {
                    self.inbox.changed = Some(*changes);
                }
            }
            FromLcore::Listed(question, slice) => {
                if question == self.inbox.question {
                    self.inbox.listed = Some(*slice);
                }
            }
            FromLcore::Found(question, findings) => {
                if question == self.inbox.question {
                    self.inbox.found = Some(*findings);
                }
            }
            FromLcore::Viewed(_) => self.note_resize(|resize| resize.viewed(from)),
            FromLcore::Moved(which, moved) => {
                self.note_resize(|resize| resize.moved(from, which, moved));
            }
            FromLcore::Folded => self.lcores[from].folding -= 1,
            FromLcore::Event(event) => {
                for (subscription, reply) in &mut self.subscriptions {
                    if let Some(text) = subscription.text(&event) {
                        reply.stream(&text);
                    }
                }
            }
            FromLcore::Log(line) => {
                let text = log_line::text(&line, &self.snapshot);
                if self.keep_log_lines {
                    self.log_lines.push(text);
                } else {
                    log::log!(target: "rules", log_line::level(line.level), "{text}");
                }
            }
            FromLcore::Change(change) => {
                self.rulesets.sets.change(&change, self.tick_now());
            }
            FromLcore::TableFull => self.take_full(),
            FromLcore::ExpectationsFull => {
                let now = self.tick_now();
                if self.upkeep.expectations_full.may_say(now) {
                    log::warn!("nf_conntrack: expectation table full");
                }
            }
        }
    }

    fn take_full(&mut self) {
        let now = self.tick_now();
        self.upkeep.make_room(self.shared.index.buckets());
        if self.upkeep.full.may_say(now) {
            log::warn!("nf_conntrack: table full, dropping packet");
        }
    }

    /// Puts a question into an lcore's mailbox, waiting for room if need be. One that stands still
    /// is asked nothing more.
    pub(super) fn send(&mut self, lcore: usize, message: ToLcore) -> Result<(), Silent> {
        if self.lcores[lcore].stalls.is_stalled() {
            return Err(self.silent(lcore));
        }
        let Err(message) = self.try_send(lcore, message) else { return Ok(()) };
        let mut left = Some(message);
        self.wait(|core| {
            left = left.take().and_then(|message| core.try_send(lcore, message).err());
            left.is_some().then_some(lcore)
        })
    }

    /// Puts a message into an lcore's mailbox if there is room now.
    // What finds no room comes back whole.
    #[allow(clippy::result_large_err)]
    pub(super) fn try_send(&mut self, lcore: usize, message: ToLcore) -> Result<(), ToLcore> {
        match self.lcores.get_mut(lcore) {
            Some(lcore) => lcore.mailbox.send(message),
            None => Err(message),
        }
    }
}
