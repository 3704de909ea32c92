//! The frames of a burst that walk, in their order, behind those that need not.
//!
//! A conn of which one packet has to walk keeps its order: its later packets in the burst walk too.
//! So each packet of a known conn asks here first. Under a flood of first packets that is to ask a
//! whole burst, so the ids of all tuples lie side by side: those of a conn that waits are among
//! them, and hardly any other's.

use arrayvec::ArrayVec;

use crate::conntrack::record::Conn;
use crate::conntrack::tuple::KeyV4;
use crate::conntrack::zones::Zones;
use crate::pipeline::burst::Prejudged;
use crate::pipeline::fragments::Datagram;
use crate::pipeline::frame::BURST_MAX;
use crate::pipeline::track::tuple_of;
use crate::pipeline::translate::Leaving;
use crate::wire::headers::Headers;

/// A frame that walks.
#[derive(Debug)]
pub(crate) struct Long<F> {
    pub frame: F,
    pub headers: Headers,
    pub prejudged: Option<Prejudged>,
    pub addressed: bool,
    /// What `sound` would check has been found right.
    pub sound: bool,
    /// The hash of its tuple, and the zone that it is for.
    pub hash: Option<(u16, u64)>,
    /// How a conn that begins with it will probably leave.
    pub leaving: Option<Leaving>,
    pub datagram: Option<Datagram>,
}

impl<F> Long<F> {
    /// A lean frame, which is for us and sound.
    #[inline(always)]
    pub(crate) fn first(frame: F, headers: Headers, hash: (u16, u64)) -> Long<F> {
        let (addressed, sound, hash) = (true, true, Some(hash));
        Long {
            frame,
            headers,
            prejudged: None,
            addressed,
            sound,
            hash,
            leaving: None,
            datagram: None,
        }
    }
}

/// Those of one burst.
#[derive(Debug)]
pub(crate) struct Walking<F> {
    frames: ArrayVec<Long<F>, BURST_MAX>,
    /// Of the tuple of each ([`KeyV4::ids_of`]).
    ids: ArrayVec<u32, BURST_MAX>,
}

impl<F> Default for Walking<F> {
    fn default() -> Walking<F> {
        Walking { frames: ArrayVec::new(), ids: ArrayVec::new() }
    }
}

impl<F> Walking<F> {
    /// Puts a frame behind the others; there is room for all of a burst.
    #[inline]
    pub(crate) fn push(&mut self, frame: Long<F>) {
        self.ids.push(KeyV4::ids_of(&tuple_of(&frame.headers)));
        self.frames.push(frame);
    }

    /// All of them, to be let go in their order once the others of the burst have gone.
    pub(crate) fn frames(&mut self) -> &mut ArrayVec<Long<F>, BURST_MAX> {
        &mut self.frames
    }

    /// True if a packet of the conn, in either direction, is among them.
    #[inline(always)]
    pub(crate) fn has_one_of(&self, conn: Conn<'_>, zones: Zones) -> bool {
        !self.ids.is_empty() && self.may_have_one_of(conn) && self.surely_has_one_of(conn, zones)
    }

    #[inline(never)]
    fn may_have_one_of(&self, conn: Conn<'_>) -> bool {
        let [original, reply] = conn.ids();
        // All of them are compared, several at once.
        self.ids.iter().fold(false, |any, &ids| any | (ids == original) | (ids == reply))
    }

    #[cold]
    fn surely_has_one_of(&self, conn: Conn<'_>, zones: Zones) -> bool {
        self.frames.iter().map(|l| tuple_of(&l.headers)).any(|tuple| {
            let waits = |zone| conn.matches(&tuple, zone).is_some();
            waits(zones.original) || zones.is_split() && waits(zones.reply)
        })
    }
}
