//! Extension blocks: what only some conns need, one cache line each from a bounded pool; two for a
//! conn that SYNPROXY has opened, from a pool of their own.
//!
//! ```text
//!    w0  packets original, and in the highest bit whether the conn counts
//!    w2  packets reply, and in the highest bit whether it has labels
//!    w1  bytes original       w3  bytes reply       w4  start (ns since 1970)
//!    w5, w6  labels, 128 bits
//!    w7  master (48 bits) | helper (8) | timeout policy (8)
//! ```
//!
//! The second line of a wide block is described in `conntrack/proxied.rs`. In a block's number its
//! highest bit says which pool it is of.
//!
//! A block has the owner of its conn as its only writer. The pool is exhausted when its numbers
//! are used up or the control core has made no more memory; the caller is told and goes on
//! without a block, as the kernel does when an extension cannot be allocated.

use super::chunks::{Chunks, FreeList};
use super::helper::Helper;
use super::proxied::Proxied;
use super::record::{ConnId, ConnRef};
use super::state::Direction;
use crate::arch::sync::Ordering::Relaxed;
use crate::arch::{Line, OutOfMemory};

/// In a block's number: it is a wide one.
const WIDE: u32 = 1 << 31;

/// Free blocks of an lcore: plain and wide ones.
#[derive(Debug, Default)]
pub(super) struct FreeBlocks {
    plain: FreeList,
    wide: FreeList,
}

/// The pools; clones are the same ones.
#[derive(Clone, Debug)]
pub struct Extensions {
    plain: Chunks<1>,
    wide: Chunks<2>,
}

impl Extensions {
    /// At most `limit` blocks of each kind, without memory yet.
    pub(super) fn new(limit: u32) -> Extensions {
        Extensions { plain: Chunks::new(limit), wide: Chunks::new(limit) }
    }

    /// Room for that many blocks of each kind. Control core only.
    pub(super) fn raise(&self, limit: u32) {
        self.plain.raise(limit);
        self.wide.raise(limit);
    }

    /// Makes memory for the plain blocks below `upto`. Control core only.
    pub fn ensure_chunks(&self, upto: u32) -> Result<(), OutOfMemory> {
        self.plain.ensure(upto)
    }

    /// Keeps memory for `reserve` more plain blocks than were ever in use. Control core only.
    pub fn keep_ahead(&self, reserve: u32) -> Result<(), OutOfMemory> {
        self.plain.keep_ahead(reserve)
    }

    /// The same for wide blocks.
    pub fn keep_wide_ahead(&self, reserve: u32) -> Result<(), OutOfMemory> {
        self.wide.keep_ahead(reserve)
    }

    /// Bytes of memory made so far.
    pub fn bytes(&self) -> usize {
        self.plain.bytes() + self.wide.bytes()
    }

    /// The block of a number.
    #[inline]
    pub fn get(&self, number: u32) -> Option<Extension<'_>> {
        if number & WIDE != 0 {
            return self.wide.get(number & !WIDE).map(|[line, _]| Extension(line));
        }
        self.plain.get(number).map(|[line]| Extension(line))
    }

    /// What a wide block has besides.
    #[inline]
    pub fn proxied(&self, number: u32) -> Option<Proxied<'_>> {
        if number & WIDE == 0 {
            return None;
        }
        self.wide.get(number & !WIDE).map(|[_, line]| Proxied::new(line))
    }

    pub(super) fn take(&self, free: &mut FreeBlocks) -> Option<u32> {
        let number = free.plain.pop(&self.plain)?;
        clear(self.plain.get(number)?);
        Some(number)
    }

    pub(super) fn take_wide(&self, free: &mut FreeBlocks) -> Option<u32> {
        let number = free.wide.pop(&self.wide)?;
        clear(self.wide.get(number)?);
        Some(number | WIDE)
    }

    pub(super) fn give(&self, free: &mut FreeBlocks, number: u32) {
        if number & WIDE != 0 {
            free.wide.push(&self.wide, number & !WIDE);
        } else {
            free.plain.push(&self.plain, number);
        }
    }
}

fn clear(lines: &[Line]) {
    lines.iter().flat_map(|line| &line.0).for_each(|word| word.store(0, Relaxed));
}

/// One block.
#[derive(Clone, Copy, Debug)]
pub struct Extension<'a>(&'a Line);

impl Extension<'_> {
    #[inline(always)]
    fn word(self, i: usize) -> u64 {
        self.0.0[i & 7].load(Relaxed)
    }

    #[inline(always)]
    fn set(self, i: usize, value: u64) {
        self.0.0[i & 7].store(value, Relaxed);
    }

    /// Has all that another block has.
    pub(super) fn copy(self, other: Extension<'_>) {
        (0..8).for_each(|i| self.set(i, other.word(i)));
    }

    /// In w0: the conn counts its packets.
    const COUNTS: u64 = 1 << 63;

    /// In w2: the conn has labels, set or not.
    const LABELLED: u64 = 1 << 63;

    /// Begins a conn's block: whether it counts, when it was made (0 for not noted), and whether
    /// it has labels (`nf_ct_labels_ext_add`).
    pub fn begin(self, counts: bool, unix_ns: u64, labelled: bool) {
        self.set(0, if counts { Self::COUNTS } else { 0 });
        self.set(2, if labelled { Self::LABELLED } else { 0 });
        self.set(1, 0);
        self.set(3, 0);
        self.set_started_ns(unix_ns);
    }

    /// The conn's labels, bit by bit; `None` for a conn that began while no rule knew any.
    #[inline]
    pub fn labels(self) -> Option<u128> {
        let has = self.word(2) & Self::LABELLED != 0;
        has.then(|| (self.word(6) as u128) << 64 | self.word(5) as u128)
    }

    /// Replaces the labels of a conn that has any.
    pub fn set_labels(self, labels: u128) {
        self.set(5, labels as u64);
        self.set(6, (labels >> 64) as u64);
    }

    /// True if the conn counts its packets.
    #[inline]
    pub fn counts(self) -> bool {
        self.word(0) & Self::COUNTS != 0
    }

    /// Packets and bytes of a direction (`nf_conn_acct`).
    #[inline]
    pub fn counted(self, direction: Direction) -> (u64, u64) {
        let at = 2 * direction.index();
        (self.word(at) & !(Self::COUNTS | Self::LABELLED), self.word(at + 1))
    }

    /// Counts packets of a direction, if the conn counts.
    #[inline]
    pub fn count(self, direction: Direction, packets: u64, bytes: u64) {
        if self.counts() {
            let at = 2 * direction.index();
            self.set(at, self.word(at).wrapping_add(packets));
            self.set(at + 1, self.word(at + 1).wrapping_add(bytes));
        }
    }

    /// Sets all counters back (`conntrack -L -z`).
    pub fn zero(self) {
        self.begin(self.counts(), self.started_ns(), self.labels().is_some());
    }

    /// When the conn was confirmed, ns since 1970; 0 if never noted (`nf_conn_tstamp`).
    pub fn started_ns(self) -> u64 {
        self.word(4)
    }

    /// Notes when the conn was confirmed.
    pub fn set_started_ns(self, unix_ns: u64) {
        self.set(4, unix_ns);
    }

    /// The helper that reads the conn's packets.
    pub fn helper(self) -> Option<Helper> {
        Helper::from_number((self.word(7) >> 8) as u8)
    }

    /// Assigns a helper, or none.
    pub fn set_helper(self, helper: Option<Helper>) {
        let number = helper.map_or(0, |helper| helper as u64);
        self.set(7, self.word(7) & !(0xff << 8) | number << 8);
    }

    /// The named timeout policy, counted from 1; 0 stands for the sysctls.
    pub fn timeout_policy(self) -> u8 {
        self.word(7) as u8
    }

    /// Sets the timeout policy.
    pub fn set_timeout_policy(self, number: u8) {
        self.set(7, self.word(7) & !0xff | number as u64);
    }

    /// The conn whose packets led to expect this one; only for an EXPECTED conn.
    pub fn master(self) -> ConnId {
        let word = self.word(7);
        ConnId { conn: ConnRef::from_bits((word >> 32) as u32), incarnation: (word >> 16) as u16 }
    }

    /// Notes the master.
    pub fn set_master(self, master: ConnId) {
        let word = (master.conn.bits() as u64) << 32 | (master.incarnation as u64) << 16;
        self.set(7, word | self.word(7) & 0xffff);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::conntrack::record::Family;

    #[test]
    fn labels_stay_when_counters_are_set_back() {
        let line = Line::default();
        let extension = Extension(&line);
        assert_eq!(extension.labels(), None);
        extension.begin(true, 7, true);
        assert_eq!(extension.labels(), Some(0));
        extension.set_labels(1 << 127 | 1 << 63 | 1);
        extension.count(Direction::Reply, 2, 100);
        assert_eq!(extension.counted(Direction::Reply), (2, 100));
        extension.zero();
        assert_eq!(extension.counted(Direction::Reply), (0, 0));
        assert_eq!(extension.labels(), Some(1 << 127 | 1 << 63 | 1));
        assert!(extension.counts() && extension.started_ns() == 7);
    }

    #[test]
    fn the_last_word_s_three_parts_do_not_disturb_each_other() {
        let line = Line::default();
        let extension = Extension(&line);
        let conn = ConnRef::new(Family::V6, 0x1234_5678 & 0x3fff_ffff);
        let master = ConnId { conn, incarnation: 0xabcd };
        extension.set_master(master);
        extension.set_helper(Some(Helper::Tftp));
        extension.set_timeout_policy(255);
        let all = (master, Some(Helper::Tftp), 255);
        assert_eq!((extension.master(), extension.helper(), extension.timeout_policy()), all);
        extension.set_helper(None);
        assert_eq!(
            (extension.master(), extension.helper(), extension.timeout_policy()),
            (master, None, 255)
        );
    }
}
