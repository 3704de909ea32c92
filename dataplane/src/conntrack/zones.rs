//! Zones: tables within the table, in each of which a tuple may be once (`nf_conntrack_zone`).

use super::state::Direction;

/// The zone that each of a conn's tuples lives in; where a packet is looked up, the zones of the
/// conn that it would begin (`nf_ct_zone_id`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Zones {
    /// Of the original tuple.
    pub original: u16,
    /// Of the reply tuple.
    pub reply: u16,
}

impl Zones {
    /// One zone for both tuples.
    pub const fn both(id: u16) -> Zones {
        Zones { original: id, reply: id }
    }

    /// True where each tuple has a zone of its own: such conns have two entries, and a packet is
    /// searched for twice.
    #[inline(always)]
    pub const fn is_split(self) -> bool {
        self.original != self.reply
    }

    /// A direction's zone.
    #[inline]
    pub const fn of(self, direction: Direction) -> u16 {
        match direction {
            Direction::Original => self.original,
            Direction::Reply => self.reply,
        }
    }

    /// The number that was given, for whichever tuple (`zone->id`).
    pub const fn id(self) -> u16 {
        if self.original != 0 { self.original } else { self.reply }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_of_one_side_leaves_the_other_in_zone_0() {
        let zones = Zones { original: 0, reply: 7 };
        assert_eq!((zones.of(Direction::Original), zones.of(Direction::Reply)), (0, 7));
        assert!(zones.is_split() && zones.id() == 7);
        assert!(!Zones::both(5).is_split() && Zones::both(5).id() == 5);
        assert!(!Zones::default().is_split());
    }
}
