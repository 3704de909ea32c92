//! Messages from the lcores, and questions that wait for an answer.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use dataplane::conntrack::record::ConnId;
use dataplane::pipeline::messages::{FromLcore, Slice, ToLcore};
use dataplane::pipeline::snapshot::Snapshot;

use super::ControlCore;
use crate::log_line;

/// Answers that somebody waits for.
#[derive(Default)]
pub(super) struct Inbox {
    pub(super) listed: Vec<Slice>,
    pub(super) deleted: Vec<ConnId>,
    pub(super) deleting: usize,
    pub(super) retired: Vec<Arc<Snapshot>>,
    pub(super) folding: usize,
    /// Lcores that have not adopted the current snapshot yet.
    pub(super) adopting: usize,
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
            let mailbox = Arc::clone(&self.lcores[number].mailbox);
            while let Some(message) = mailbox.from_lcore.pop() {
                self.take(message);
            }
        }
    }

    fn take(&mut self, message: FromLcore) {
        match message {
            FromLcore::Retired(snapshot) => {
                self.inbox.adopting = self.inbox.adopting.saturating_sub(1);
                self.inbox.retired.push(snapshot);
            }
            FromLcore::Expired(buffer) => {
                self.inbox.expiring = self.inbox.expiring.saturating_sub(1);
                self.inbox.spare.push(buffer);
            }
            FromLcore::Deleted(conns) => {
                self.inbox.deleting = self.inbox.deleting.saturating_sub(1);
                self.inbox.deleted.extend(*conns);
            }
            FromLcore::Listed(slice) => self.inbox.listed.push(*slice),
            FromLcore::Folded => self.inbox.folding = self.inbox.folding.saturating_sub(1),
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
            FromLcore::TableFull => {
                let now = self.tick_now();
                if self.upkeep.may_say_full(now) {
                    log::warn!("nf_conntrack: table full, dropping packet");
                }
            }
        }
    }

    /// Puts a message into an lcore's mailbox, waiting for room if need be.
    pub(super) fn send(&mut self, lcore: usize, message: ToLcore) -> bool {
        let mut message = Some(message);
        let mailbox = Arc::clone(&self.lcores[lcore].mailbox);
        let mut put = move || match message.take().map(|m| mailbox.to_lcore.push(m)) {
            Some(Err(back)) => {
                message = Some(back);
                false
            }
            _ => true,
        };
        put() || self.wait(|_| put())
    }

    /// Puts a message into an lcore's mailbox if there is room now.
    pub(super) fn try_send(&self, lcore: usize, message: ToLcore) -> Result<(), ToLcore> {
        self.lcores[lcore].mailbox.to_lcore.push(message)
    }
}
