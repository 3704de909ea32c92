//! What a conn is found by: the hashes of its tuples and of its source.
//!
//! Nearly all conns are of TCP or UDP over IPv4, whose tuples are hashed as their records keep
//! them; of the others they are taken apart first. It comes to the same.

use super::record::Conn;
use super::state::Direction;
use super::store::Shared;

impl Shared {
    /// The hash that a conn with a translated source is listed by.
    #[inline]
    pub(super) fn source_hash(&self, conn: Conn<'_>) -> u64 {
        let zone = conn.zone(Direction::Original);
        match conn.key(Direction::Original) {
            Some(key) => key.source_hash(zone, &self.seed),
            None => conn.orig().source_hash(zone, &self.seed),
        }
    }

    /// The hash of one of a conn's tuples, of most conns from the record's words.
    #[inline(always)]
    fn hash_of(&self, conn: Conn<'_>, direction: Direction) -> u64 {
        let zone = conn.zone(direction);
        match conn.key(direction) {
            Some(key) => key.hash(&self.seed.keys(key.proto, zone)),
            None => self.hash_of_tuple(conn, direction),
        }
    }

    #[inline(never)]
    fn hash_of_tuple(&self, conn: Conn<'_>, direction: Direction) -> u64 {
        self.hash(&conn.tuple(direction), conn.zone(direction))
    }

    /// The hashes that the conn's entries are found by: first that of the entry with its due time,
    /// then that of its reply tuple. A conn with one entry has the same twice.
    #[inline(always)]
    pub(super) fn hashes(&self, conn: Conn<'_>) -> (u64, u64) {
        let reply = self.hash_of(conn, Direction::Reply);
        if conn.shows(Direction::Original) {
            (self.hash_of(conn, Direction::Original), reply)
        } else {
            (reply, reply)
        }
    }
}
