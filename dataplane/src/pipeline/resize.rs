//! The change of the table to another size: who is told what, and in which order.
//!
//! Owned by the control core, which sends what [`Resize::next`] says and reports the answers. Each
//! lcore has at most one message of it under way, and each message is a bounded piece of work, so
//! packets never wait longer than for [`PIECE`] buckets. What the steps are, and why no conn is
//! missed and none enters twice, is said in `conntrack::index`.
//!
//! ```text
//!   view "looking" ─ all have it ─► view "moving" ─ all have it ─► pieces … ─ all are through ─►
//!   view "new" ─ all have it ─► the old arrays are freed, here
//! ```

use std::sync::Arc;

use crate::conntrack::index::Moved;
use crate::conntrack::store::Shared;
use crate::conntrack::views::{Arrays, Step, Which};
use crate::pipeline::messages::ToLcore;

/// Buckets of the old array that an lcore looks through at once: at most 448 entries.
pub const PIECE: u32 = 64;

/// A change of size under way.
#[derive(Debug)]
pub struct Resize {
    /// The view that all lcores had before.
    before: Arc<Shared>,
    next: Arrays,
    step: Step,
    view: Arc<Shared>,
    lcores: Vec<Progress>,
    /// Answers so far.
    answers: u64,
    /// Times that an lcore has been through and had to leave an entry in the old array.
    crowded: u32,
}

/// How far one lcore is with the present step.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    asked: bool,
    has_view: bool,
    /// Where it has to go on moving; `None` if nowhere.
    at: Option<(Which, u32)>,
    stuck: bool,
}

impl Resize {
    /// To these arrays. `before` is what all of so many lcores see the table through.
    pub fn new(before: Arc<Shared>, next: Arrays, lcores: usize) -> Resize {
        let step = Step::Looking;
        let view = Arc::new(before.resized(&next, step));
        let lcores = vec![Progress::default(); lcores];
        Resize { before, next, step, view, lcores, answers: 0, crowded: 0 }
    }

    /// How the control core itself has to see the table.
    pub fn view(&self) -> &Arc<Shared> {
        &self.view
    }

    /// The next message for an lcore, if one is due and none is under way.
    pub fn next(&mut self, lcore: usize) -> Option<ToLcore> {
        let progress = self.lcores.get_mut(lcore).filter(|progress| !progress.asked)?;
        let message = match progress.at {
            _ if !progress.has_view => ToLcore::View(Arc::clone(&self.view)),
            Some((which, from)) => ToLcore::Move(which, from, PIECE),
            None => return None,
        };
        progress.asked = true;
        Some(message)
    }

    /// The last message for this lcore could not be sent.
    pub fn refused(&mut self, lcore: usize) {
        if let Some(progress) = self.lcores.get_mut(lcore) {
            progress.asked = false;
        }
    }

    /// The lcore has the view.
    pub fn viewed(&mut self, lcore: usize) {
        self.answers += 1;
        if let Some(progress) = self.lcores.get_mut(lcore) {
            (progress.asked, progress.has_view) = (false, true);
        }
        self.advance();
    }

    /// The lcore has moved a piece.
    pub fn moved(&mut self, lcore: usize, which: Which, moved: Moved) {
        self.answers += 1;
        if let Some(progress) = self.lcores.get_mut(lcore) {
            progress.asked = false;
            progress.stuck |= moved.stuck > 0;
            progress.at = match (moved.next, which) {
                (Some(from), _) => Some((which, from)),
                (None, Which::Tuples) => Some((Which::Sources, 0)),
                // Again, from the beginning: conns end, and then there is room.
                (None, Which::Sources) if progress.stuck => {
                    self.crowded += 1;
                    progress.stuck = false;
                    Some((Which::Tuples, 0))
                }
                (None, Which::Sources) => None,
            };
        }
        self.advance();
    }

    fn advance(&mut self) {
        if !self.lcores.iter().all(|lcore| lcore.has_view && lcore.at.is_none()) {
            return;
        }
        self.step = match self.step {
            Step::Looking => Step::Moving,
            Step::Moving => Step::New,
            Step::New => return,
        };
        self.view = Arc::new(self.before.resized(&self.next, self.step));
        let at = (self.step == Step::Moving).then_some((Which::Tuples, 0));
        self.lcores.fill(Progress { at, ..Progress::default() });
    }

    /// True once nobody sees the old arrays any more.
    pub fn is_done(&self) -> bool {
        self.step == Step::New && self.lcores.iter().all(|lcore| lcore.has_view)
    }

    /// An lcore that is being waited for.
    pub fn waits_for(&self) -> Option<usize> {
        self.lcores.iter().position(|lcore| !lcore.has_view || lcore.at.is_some())
    }

    /// Answers so far: it grows as long as there is progress.
    pub fn answers(&self) -> u64 {
        self.answers
    }

    /// Entries were found that have no room in the new arrays yet. They stay found in the old ones.
    pub fn is_crowded(&self) -> bool {
        self.crowded > 0
    }
}
