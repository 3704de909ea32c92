//! One packet: a chain of one or more segments, owned.
//!
//! ```text
//!  buf_addr     data_off             data_off + data_len        buf_len
//!  |- headroom -|------ data of segment ------|---- tailroom ----|  --next--> segment 2 …
//! ```
//!
//! The fields are read and written here, not through C: a call per packet would cost more than the
//! access. What this relies on, and what makes a chain one owner's:
//! * each segment has reference count 1, and its buffer is its own or a driver's buffer that no
//!   other mbuf shows. Pools hand mbufs out that way and drivers receive that way; this crate never
//!   clones, attaches or raises a count.
//! * `nb_segs` and `pkt_len` of the first segment tell the chain's length; each method keeps them.

use std::fmt;
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop};
use std::ptr::{self, NonNull};
use std::slice;

use crate::ffi;
use crate::port::PortId;

/// What a device found of one checksum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Checksum {
    /// It did not look.
    #[default]
    Unknown,
    /// It is right.
    Good,
    /// It is wrong.
    Bad,
    /// It is not right in the packet, but the packet is whole: it never left a machine (virtio).
    None,
}

/// What a device found of a packet's checksums.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checksums {
    /// Of the IPv4 header.
    pub ip: Checksum,
    /// Of TCP or UDP.
    pub l4: Checksum,
}

/// An owned packet buffer chain; dropping it returns all segments to their pools.
#[repr(transparent)]
pub struct Mbuf(NonNull<ffi::rte_mbuf>);

// SAFETY: an Mbuf is the only owner of its segments, and pools take mbufs back from any thread.
unsafe impl Send for Mbuf {}
// SAFETY: a shared Mbuf only reads.
unsafe impl Sync for Mbuf {}

impl Mbuf {
    /// The first segment's bytes.
    #[inline]
    pub fn head(&self) -> &[u8] {
        // SAFETY: data_off + data_len lie within the segment's buffer, which is mapped and owned.
        unsafe { slice::from_raw_parts(data(self.first()), self.first().data_len.into()) }
    }

    /// The first segment's bytes, to be edited.
    #[inline]
    pub fn head_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in head; &mut self makes this the only view.
        unsafe { slice::from_raw_parts_mut(data(self.first()), self.first().data_len.into()) }
    }

    /// What says where the packet's bytes are, to be brought into the cache and for nothing else.
    #[inline]
    pub fn description(&self) -> &impl Sized {
        self.first()
    }

    /// Bytes of the whole packet, all segments.
    #[inline]
    pub fn pkt_len(&self) -> usize {
        self.first().pkt_len as usize
    }

    /// Segments of the packet, at least 1.
    #[inline]
    pub fn segment_count(&self) -> usize {
        self.first().nb_segs.into()
    }

    /// The bytes of each segment in turn; a segment may be empty.
    #[inline]
    pub fn segments(&self) -> Segments<'_> {
        Segments { next: self.0.as_ptr(), packet: PhantomData }
    }

    /// Bytes that [`Self::prepend`] can add.
    #[inline]
    pub fn headroom(&self) -> usize {
        self.first().data_off.into()
    }

    /// Bytes that [`Self::append`] can add.
    #[inline]
    pub fn tailroom(&self) -> usize {
        // SAFETY: last_segment points into the chain that self owns.
        tailroom(unsafe { &*self.last_segment() }).into()
    }

    /// The port it was received on; `None` for one that was not received.
    #[inline]
    pub fn port(&self) -> Option<PortId> {
        let port = self.first().port;
        (u32::from(port) != ffi::shim_invalid_mbuf_port).then_some(PortId(port))
    }

    /// What the device found of the packet's checksums, as it was received; unknown for a packet
    /// that was not, or where verifying was not asked for. Edits do not change it.
    #[inline]
    pub fn checksums(&self) -> Checksums {
        let flags = self.first().ol_flags;
        let found = |good, bad| match (flags & good != 0, flags & bad != 0) {
            (false, false) => Checksum::Unknown,
            (true, false) => Checksum::Good,
            (false, true) => Checksum::Bad,
            (true, true) => Checksum::None,
        };
        Checksums {
            ip: found(ffi::shim_rx_ip_checksum_good, ffi::shim_rx_ip_checksum_bad),
            l4: found(ffi::shim_rx_l4_checksum_good, ffi::shim_rx_l4_checksum_bad),
        }
    }

    /// Marks the packet as a device does; the default takes its marks off, for a packet that is no
    /// longer what it looked at.
    pub fn set_checksums(&mut self, checksums: Checksums) {
        let flags = |checksum, good, bad| match checksum {
            Checksum::Unknown => 0,
            Checksum::Good => good,
            Checksum::Bad => bad,
            Checksum::None => good | bad,
        };
        let (ip_good, ip_bad) = (ffi::shim_rx_ip_checksum_good, ffi::shim_rx_ip_checksum_bad);
        let (l4_good, l4_bad) = (ffi::shim_rx_l4_checksum_good, ffi::shim_rx_l4_checksum_bad);
        let first = self.first_mut();
        first.ol_flags &= !(ip_good | ip_bad | l4_good | l4_bad);
        first.ol_flags |= flags(checksums.ip, ip_good, ip_bad);
        first.ol_flags |= flags(checksums.l4, l4_good, l4_bad);
    }

    /// Where its pool is: the first segment's stands for all, as pools are not mixed in a chain
    /// that goes to a driver which cares.
    #[inline]
    pub(crate) fn pool_address(&self) -> usize {
        self.first().pool.addr()
    }

    /// Cuts the packet's tail so that `len` bytes are left; segments beyond are freed, the first
    /// one stays even if empty. A packet that is no longer than that is left alone.
    pub fn trim_to(&mut self, len: usize) {
        if len >= self.pkt_len() {
            return;
        }
        let mut left = len;
        let mut kept: u16 = 1;
        let mut segment: *mut ffi::rte_mbuf = self.0.as_ptr();
        // SAFETY: the chain is owned and ends with a null `next`; the loop stops at the last
        // segment at the latest. The cut-off part is a chain of its own once `next` is cleared.
        unsafe {
            while usize::from((*segment).data_len) < left && !(*segment).next.is_null() {
                left -= usize::from((*segment).data_len);
                kept += 1;
                segment = (*segment).next;
            }
            (*segment).data_len = usize::from((*segment).data_len).min(left) as u16;
            let cut = ptr::replace(&raw mut (*segment).next, ptr::null_mut());
            if !cut.is_null() {
                ffi::shim_mbuf_free(cut);
            }
        }
        // `len` is less than a u32 here.
        let first = self.first_mut();
        first.pkt_len = len as u32;
        first.nb_segs = kept;
    }

    /// Makes the packet `len` bytes longer at its end and gives these bytes, which hold whatever
    /// was there; `None` if the last segment has no room for them.
    #[inline]
    pub fn append(&mut self, len: usize) -> Option<&mut [u8]> {
        let last = self.last_segment();
        // SAFETY: last points into the owned chain; no other reference to it exists. The range lies
        // between the segment's data and the end of its buffer, as checked.
        unsafe {
            let grow = u16::try_from(len).ok().filter(|grow| *grow <= tailroom(&*last))?;
            let total = (*self.0.as_ptr()).pkt_len.checked_add(grow.into())?;
            let tail = data(&*last).add((*last).data_len.into());
            (*last).data_len += grow;
            (*self.0.as_ptr()).pkt_len = total;
            Some(slice::from_raw_parts_mut(tail, len))
        }
    }

    /// Makes the packet `len` bytes longer at its front and gives these bytes, which hold whatever
    /// was there; `None` if the headroom is too small.
    #[inline]
    pub fn prepend(&mut self, len: usize) -> Option<&mut [u8]> {
        let first = self.first_mut();
        let grow = u16::try_from(len).ok()?;
        let offset = first.data_off.checked_sub(grow)?;
        let segment_len = first.data_len.checked_add(grow)?;
        let total = first.pkt_len.checked_add(grow.into())?;
        first.data_off = offset;
        first.data_len = segment_len;
        first.pkt_len = total;
        self.head_mut().get_mut(..len)
    }

    /// Strips `len` bytes from the front; `None`, and nothing done, if the first segment is
    /// shorter.
    #[inline]
    #[must_use = "None means that nothing was stripped"]
    pub fn adj(&mut self, len: usize) -> Option<()> {
        let first = self.first_mut();
        let cut = u16::try_from(len).ok()?;
        first.data_len = first.data_len.checked_sub(cut)?;
        first.data_off += cut;
        first.pkt_len -= u32::from(cut);
        Some(())
    }

    /// Sets the length of a packet of one segment; bytes gained hold whatever was there. `None`,
    /// and nothing done, if it has more segments or the buffer is too small.
    #[inline]
    #[must_use = "None means that the length is unchanged"]
    pub fn set_len(&mut self, len: usize) -> Option<()> {
        let first = self.first_mut();
        let len = u16::try_from(len).ok()?;
        if first.nb_segs != 1 || len > first.buf_len.checked_sub(first.data_off)? {
            return None;
        }
        first.data_len = len;
        first.pkt_len = len.into();
        Some(())
    }

    /// Appends all segments of `tail` to this packet.
    ///
    /// # Errors
    /// Gives `tail` back if the chain would have more segments than a u16 or more bytes than a u32
    /// counts.
    pub fn chain(&mut self, tail: Mbuf) -> Result<(), Mbuf> {
        let segments = self.first().nb_segs.checked_add(tail.first().nb_segs);
        let total = self.first().pkt_len.checked_add(tail.first().pkt_len);
        let (Some(segments), Some(total)) = (segments, total) else {
            return Err(tail);
        };
        let last = self.last_segment();
        // SAFETY: last points into the owned chain and has no successor; into_raw gives up `tail`.
        unsafe { (*last).next = tail.into_raw().as_ptr() };
        let first = self.first_mut();
        first.nb_segs = segments;
        first.pkt_len = total;
        Ok(())
    }

    /// Moves a chain's bytes into its first segment and frees the others; false, and nothing done,
    /// if they do not fit. For drivers that send one segment only.
    pub fn linearize(&mut self) -> bool {
        if self.segment_count() == 1 {
            return true;
        }
        let total = self.pkt_len();
        let used = usize::from(self.first().data_len);
        if total - used > tailroom(self.first()).into() {
            return false;
        }
        let rest = mem::replace(&mut self.first_mut().next, ptr::null_mut());
        // SAFETY: the segments after the first, cut off it by the line above, are a whole chain
        // with no other owner.
        let rest = NonNull::new(rest).map(|rest| unsafe { Mbuf::from_raw(rest) });
        let mut end = used;
        for segment in rest.iter().flat_map(Mbuf::segments) {
            // SAFETY: the first segment has tailroom for all segments together, as checked; the
            // source is another segment's buffer, so the two do not overlap.
            unsafe {
                data(self.first())
                    .add(end)
                    .copy_from_nonoverlapping(segment.as_ptr(), segment.len());
            }
            end += segment.len();
        }
        let first = self.first_mut();
        first.data_len = end as u16;
        first.nb_segs = 1;
        true
    }

    /// # Safety
    /// `raw` is a whole chain that nothing else owns or reads, each segment of reference count 1
    /// and from a pool that stays alive as long as mbufs of it are out.
    #[inline]
    pub(crate) unsafe fn from_raw(raw: NonNull<ffi::rte_mbuf>) -> Self {
        let mbuf = Self(raw);
        debug_assert_eq!(mbuf.first().refcnt, 1, "an mbuf has one owner");
        mbuf
    }

    /// Gives the chain away without freeing it.
    #[inline]
    pub(crate) fn into_raw(self) -> NonNull<ffi::rte_mbuf> {
        ManuallyDrop::new(self).0
    }

    #[inline]
    fn first(&self) -> &ffi::rte_mbuf {
        // SAFETY: the chain is owned, so its header is mapped and nothing else writes it.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    fn first_mut(&mut self) -> &mut ffi::rte_mbuf {
        // SAFETY: as in first, and &mut self makes this the only view.
        unsafe { self.0.as_mut() }
    }

    #[inline]
    fn last_segment(&self) -> *mut ffi::rte_mbuf {
        let mut last = self.0.as_ptr();
        // SAFETY: the chain is owned and ends with a null `next`.
        unsafe {
            while !(*last).next.is_null() {
                last = (*last).next;
            }
        }
        last
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the chain is owned, and forgotten from here on.
        unsafe { ffi::shim_mbuf_free(self.0.as_ptr()) };
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mbuf({} bytes, {} segments)", self.pkt_len(), self.segment_count())
    }
}

/// Iterator over the bytes of each segment of an [`Mbuf`].
#[derive(Clone, Debug)]
pub struct Segments<'a> {
    next: *const ffi::rte_mbuf,
    packet: PhantomData<&'a Mbuf>,
}

impl<'a> Iterator for Segments<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        // SAFETY: `next` is null or a segment of the chain borrowed for 'a.
        let segment = unsafe { self.next.as_ref() }?;
        self.next = segment.next;
        // SAFETY: data_off + data_len lie within the segment's buffer, borrowed for 'a.
        Some(unsafe { slice::from_raw_parts(data(segment), segment.data_len.into()) })
    }
}

/// Where a segment's bytes start.
#[inline]
fn data(segment: &ffi::rte_mbuf) -> *mut u8 {
    // SAFETY: data_off never exceeds buf_len, the size of the buffer at buf_addr.
    unsafe { segment.buf_addr.cast::<u8>().add(segment.data_off.into()) }
}

/// Bytes left behind a segment's data.
#[inline]
fn tailroom(segment: &ffi::rte_mbuf) -> u16 {
    segment.buf_len.saturating_sub(segment.data_off).saturating_sub(segment.data_len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mempool::{HEADROOM, Mempool};
    use crate::rig;

    /// Small mbufs, so that the room runs out in both directions.
    const ROOM: u16 = 64;

    fn bytes(mbuf: &Mbuf) -> Vec<u8> {
        mbuf.segments().flatten().copied().collect()
    }

    fn chain_of(pool: &Mempool, parts: &[&[u8]]) -> Mbuf {
        let mut packets = parts.iter().map(|part| rig::packet(pool, part));
        let mut whole = packets.next().unwrap();
        packets.for_each(|part| whole.chain(part).unwrap());
        whole
    }

    #[test]
    fn a_fresh_mbuf_is_empty_and_roomy() {
        let _eal = rig::eal();
        let pool = Mempool::create("fresh", 7, 0, HEADROOM + ROOM, None).unwrap();
        let mut mbuf = pool.alloc().unwrap();
        assert_eq!((mbuf.pkt_len(), mbuf.segment_count(), mbuf.port()), (0, 1, None));
        assert_eq!((mbuf.headroom(), mbuf.tailroom()), (HEADROOM.into(), ROOM.into()));
        assert!(mbuf.append(65).is_none());
        assert!(mbuf.prepend(129).is_none());
        assert!(mbuf.adj(1).is_none());
        assert!(mbuf.set_len(65).is_none());
        mbuf.append(64).unwrap().fill(1);
        mbuf.prepend(128).unwrap().fill(2);
        assert_eq!((mbuf.pkt_len(), mbuf.headroom(), mbuf.tailroom()), (192, 0, 0));
        assert_eq!(mbuf.head(), [[2; 64], [2; 64], [1; 64]].concat());
        mbuf.head_mut()[0] = 9;
        mbuf.set_len(3).unwrap();
        assert_eq!(mbuf.head(), [9, 2, 2]);
    }

    #[test]
    fn a_trimmed_chain_frees_its_segments() {
        let _eal = rig::eal();
        let pool = Mempool::create("trim", 15, 0, HEADROOM + ROOM, None).unwrap();
        // Lengths left, segments left: the cut within, before and at the end of a segment.
        for (len, segments) in [(9, 3), (8, 3), (7, 3), (6, 2), (4, 2), (3, 1), (1, 1), (0, 1)] {
            let mut mbuf = chain_of(&pool, &[b"abc", b"def", b"gh"]);
            mbuf.trim_to(len);
            assert_eq!(bytes(&mbuf), b"abcdefgh"[..len.min(8)]);
            assert_eq!((mbuf.pkt_len(), mbuf.segment_count()), (len.min(8), segments));
            assert_eq!(pool.avail(), 15 - segments as u32);
        }
        assert_eq!(pool.avail(), 15);
    }

    #[test]
    fn a_chain_grows_at_both_ends() {
        let _eal = rig::eal();
        let pool = Mempool::create("ends", 15, 0, HEADROOM + ROOM, None).unwrap();
        let mut mbuf = chain_of(&pool, &[b"bc", b"", b"d"]);
        assert!(mbuf.set_len(1).is_none(), "several segments");
        mbuf.append(1).unwrap().copy_from_slice(b"e");
        mbuf.prepend(1).unwrap().copy_from_slice(b"a");
        let parts: Vec<&[u8]> = mbuf.segments().collect();
        assert_eq!(parts, [&b"abc"[..], b"", b"de"]);
        assert!(mbuf.adj(4).is_none(), "more than the first segment");
        mbuf.adj(3).unwrap();
        assert_eq!(bytes(&mbuf), b"de");
    }

    #[test]
    fn linearize_fits_or_leaves_alone() {
        let _eal = rig::eal();
        let pool = Mempool::create("line", 15, 0, HEADROOM + ROOM, None).unwrap();
        let mut mbuf = chain_of(&pool, &[&[1; 30], &[2; 30], &[3; 4]]);
        assert!(mbuf.linearize());
        assert_eq!((mbuf.segment_count(), mbuf.pkt_len(), pool.avail()), (1, 64, 14));
        assert_eq!(mbuf.head(), [&[1; 30][..], &[2; 30], &[3; 4]].concat());
        mbuf.chain(rig::packet(&pool, b"x")).unwrap();
        assert!(!mbuf.linearize());
        assert_eq!((mbuf.segment_count(), mbuf.pkt_len()), (2, 65));
    }

    #[test]
    fn a_chain_refuses_what_its_counts_cannot_hold() {
        let _eal = rig::eal();
        let pool = Mempool::create("limit", 7, 0, HEADROOM + ROOM, None).unwrap();
        let mut mbuf = rig::packet(&pool, b"a");
        mbuf.first_mut().nb_segs = u16::MAX;
        let refused = mbuf.chain(rig::packet(&pool, b"b")).unwrap_err();
        assert_eq!(refused.head(), b"b");
        mbuf.first_mut().nb_segs = 1;
        drop((mbuf, refused));
        assert_eq!(pool.avail(), 7);
    }

    #[derive(Debug, Clone)]
    enum Edit {
        Append(Vec<u8>),
        Prepend(Vec<u8>),
        Adj(usize),
        Trim(usize),
        Chain(Vec<u8>),
        Linearize,
        SetLen(usize),
    }

    fn edit() -> impl Strategy<Value = Edit> {
        let part = || prop::collection::vec(any::<u8>(), 0..40);
        prop_oneof![
            part().prop_map(Edit::Append),
            part().prop_map(Edit::Prepend),
            (0..60usize).prop_map(Edit::Adj),
            (0..200usize).prop_map(Edit::Trim),
            part().prop_map(Edit::Chain),
            Just(Edit::Linearize),
            (0..60usize).prop_map(Edit::SetLen),
        ]
    }

    /// Does the edit on the mbuf and on a plain vector; a refused edit changes neither.
    fn apply(pool: &Mempool, mbuf: &mut Mbuf, model: &mut Vec<u8>, edit: &Edit) {
        match edit {
            Edit::Append(part) => {
                if let Some(room) = mbuf.append(part.len()) {
                    room.copy_from_slice(part);
                    model.extend(part);
                }
            }
            Edit::Prepend(part) => {
                if let Some(room) = mbuf.prepend(part.len()) {
                    room.copy_from_slice(part);
                    model.splice(..0, part.iter().copied());
                }
            }
            Edit::Adj(len) => {
                if mbuf.adj(*len).is_some() {
                    model.drain(..*len);
                }
            }
            Edit::Trim(len) => {
                mbuf.trim_to(*len);
                model.truncate(*len);
            }
            Edit::Chain(part) => {
                mbuf.chain(rig::packet(pool, part)).unwrap();
                model.extend(part);
            }
            Edit::Linearize => {
                let segments = mbuf.segment_count();
                let done = mbuf.linearize();
                assert_eq!(mbuf.segment_count(), if done { 1 } else { segments });
            }
            Edit::SetLen(len) => {
                if *len <= model.len() && mbuf.set_len(*len).is_some() {
                    model.truncate(*len);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// Whatever is done to it, a packet holds what a vector would, and frees all it took.
        #[test]
        fn edits_agree_with_a_vector(edits in prop::collection::vec(edit(), 1..40)) {
            let _eal = rig::eal();
            let pool = Mempool::create("model", 63, 0, HEADROOM + ROOM, None).unwrap();
            let mut mbuf = pool.alloc().unwrap();
            let mut model = Vec::new();
            for edit in &edits {
                apply(&pool, &mut mbuf, &mut model, edit);
                prop_assert_eq!(bytes(&mbuf), model.clone());
                prop_assert_eq!(mbuf.pkt_len(), model.len());
                prop_assert_eq!(mbuf.segment_count(), mbuf.segments().count());
                prop_assert_eq!(pool.avail() as usize, 63 - mbuf.segment_count());
            }
            drop(mbuf);
            prop_assert_eq!(pool.avail(), 63);
        }
    }
}
