//! What a packet met on its way, noted step by step for whoever wants to have it explained.
//!
//! Where nobody can ask, in the daemon's workers, notes are of the type `()`, which keeps nothing
//! and costs nothing. A pipeline in memory keeps a [`Book`], which is closed until somebody opens
//! it. A packet's notes stand between its [`Note::Begins`] and its [`Note::Ends`]; those of an
//! answer of our own stand within them.

use core::fmt::Debug;

use crate::conntrack::invalid::{InvalidReason, Numbers};
use crate::conntrack::record::ConnRef;
use crate::conntrack::state::{CtState, Direction};
use crate::conntrack::tuple::Tuple;
use crate::conntrack::zones::Zones;
use crate::pipeline::Pipeline;
use crate::pipeline::drops::DropReason;
use crate::pipeline::frame::FramePool;
use crate::pipeline::route::{Destination, Martian};
use crate::pipeline::transit::{Attached, Exit, Transit};
use crate::rules::compiled::CounterId;
use crate::rules::facts::PortId;
use crate::rules::hook::{Hook, Table};
use crate::rules::walk::Verdict;
use crate::wire::address::Address;
use crate::wire::headers::Headers;

/// Who is told what packets meet.
pub trait Notes: Debug + Default {
    /// Keeps a note, if notes are kept; else it is not even made.
    fn note(&mut self, note: impl FnOnce() -> Note);

    /// A rule did not match: of interest if its answer rested on more than the packet.
    fn failed(&mut self, counter: CounterId);
}

impl Notes for () {
    #[inline(always)]
    fn note(&mut self, _: impl FnOnce() -> Note) {}

    #[inline(always)]
    fn failed(&mut self, _: CounterId) {}
}

/// Notes in their order, while it is open.
#[derive(Debug, Default)]
pub struct Book(Option<Vec<Note>>);

impl Book {
    /// Keeps notes from now on.
    pub fn open(&mut self) {
        self.0.get_or_insert_default();
    }

    /// Takes what has been noted since the last time.
    pub fn take(&mut self) -> Vec<Note> {
        self.0.as_mut().map(core::mem::take).unwrap_or_default()
    }
}

impl Notes for Book {
    #[inline(always)]
    fn note(&mut self, note: impl FnOnce() -> Note) {
        if let Some(notes) = &mut self.0 {
            notes.push(note());
        }
    }

    fn failed(&mut self, counter: CounterId) {
        if let Some(notes) =
            self.0.as_mut().filter(|notes| matches!(notes.last(), Some(Note::Rests)))
        {
            notes.push(Note::Failed(counter));
        }
    }
}

/// One step of a packet's way.
#[derive(Clone, Copy, Debug)]
pub enum Note {
    /// A packet enters the hooks; without a port it is one of our own.
    Begins(Option<PortId>, Headers),
    /// It walks the chain of a table.
    Walks(Table, Hook),
    /// The table filter is not asked at a hook: its conn goes on as before the rules changed.
    Kept(Hook),
    /// What the next rule says rests on what it keeps, or on chance.
    Rests,
    /// A rule of which that was so did not match.
    Failed(CounterId),
    /// A rule matched, or a policy decided.
    Hit(CounterId),
    /// The chain has been walked: its verdict, the packet as it is now, its mark.
    Walked(Verdict, Headers, u32),
    /// The conn that has this tuple, of either direction, is looked for.
    Sought(Tuple, Zones),
    /// Tracking calls it INVALID.
    Invalid(InvalidReason, Numbers),
    /// Tracking has spoken.
    Tracked(Tracked),
    /// A port is drawn by lot for it.
    Drawn,
    /// The translation of a new conn has been decided at a hook: both tuples as they are now.
    Bound(Hook, [Tuple; 2], Zones),
    /// The packet behind a hook of the table nat.
    Translated(Hook, Headers),
    /// Where a received packet goes.
    Routed(Result<Destination, Martian>),
    /// Where one of our own goes: a port and the next hop; `None` if it is for ourselves.
    RoutedOut(Option<(PortId, Address)>),
    /// The end, and the packet as it is there.
    Ends(End, Headers, u32),
}

/// What tracking attached to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracked {
    /// Nothing: it is INVALID.
    Invalid,
    /// Tracking does not apply.
    Untracked,
    /// A conn.
    Conn {
        /// Which one.
        conn: ConnRef,
        /// Of which of its directions the packet is.
        direction: Direction,
        /// What rules see.
        state: CtState,
        /// It begins with the packet.
        fresh: bool,
        /// The packet is an error about the conn.
        error: bool,
        /// The conn is that of the packet which this one answers.
        lent: bool,
    },
}

/// How a packet's way ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Sent out of a port towards a next hop.
    Sent(PortId, Address),
    /// Sent out of a port to who is at the MAC address that it has.
    Framed(PortId),
    /// The gateway itself took it.
    ToHost,
    /// The gateway took it and made its answer out of it.
    Answered,
    /// Nobody gets it.
    Dropped(DropReason),
    /// Another lcore goes on with it.
    Elsewhere(u8),
}

impl<P: FramePool> Pipeline<P> {
    /// What has been noted, for whoever owns the pipeline.
    pub fn notes(&mut self) -> &mut P::Notes {
        &mut self.notes
    }

    /// Notes that a packet enters the hooks.
    #[inline(always)]
    pub(crate) fn note_beginning(&mut self, t: &Transit<P::Frame>) {
        self.notes.note(|| Note::Begins(t.in_port, t.headers));
    }

    /// Notes what tracking has attached.
    #[inline(always)]
    pub(crate) fn note_tracked(&mut self, t: &Transit<P::Frame>) {
        self.notes.note(|| {
            Note::Tracked(match &t.attached {
                Attached::Nothing => Tracked::Invalid,
                Attached::Untracked => Tracked::Untracked,
                Attached::Conn(a) => Tracked::Conn {
                    conn: a.conn,
                    direction: a.direction,
                    state: a.state,
                    fresh: a.fresh,
                    error: a.error,
                    lent: a.lent,
                },
            })
        });
    }

    /// Notes how a packet's way ends.
    #[inline(always)]
    pub(crate) fn note_end(&mut self, t: &Transit<P::Frame>, exit: &Exit) {
        self.notes.note(|| {
            let end = match *exit {
                Exit::Transmit(port) => End::Sent(port, t.towards),
                Exit::Framed(port) => End::Framed(port),
                Exit::ToHost => End::ToHost,
                Exit::Answer => End::Answered,
                Exit::Drop(reason) => End::Dropped(reason),
                Exit::Elsewhere(lcore) => End::Elsewhere(lcore),
            };
            Note::Ends(end, t.headers, t.mark)
        });
    }
}
