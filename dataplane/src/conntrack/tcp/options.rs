//! The TCP options the tracker reads: window scale and SACK-permitted of a SYN, SACK blocks of an
//! ACK (`tcp_options`, `tcp_sack`). At most 40 bytes, so the loops are bounded.

use super::window::before;

const END: u8 = 0;
const NOP: u8 = 1;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;

/// The largest shift a window may have (RFC 7323 section 2.3).
const SCALE_MAX: u8 = 14;

/// NOP, NOP, timestamp of ten bytes: what nearly every segment carries, and no SACK.
pub(super) const TIMESTAMP_ONLY: [u8; 4] = [1, 1, 8, 10];

/// Walks options as (kind, contents) until the end, or the first that does not fit.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        while let [NOP, rest @ ..] = self.0 {
            self.0 = rest;
        }
        let [kind, length, rest @ ..] = self.0 else { return None };
        if *kind == END {
            return None;
        }
        let (contents, rest) = rest.split_at_checked((*length as usize).checked_sub(2)?)?;
        self.0 = rest;
        Some((*kind, contents))
    }
}

/// What a SYN offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Offer {
    /// The window scale, at most 14; `None` if not offered.
    pub(super) scale: Option<u8>,
    /// SACK-permitted.
    pub(super) sack: bool,
}

/// Reads a SYN's options; of an option that comes twice the last counts.
pub(super) fn offer(options: &[u8]) -> Offer {
    let mut offer = Offer::default();
    for option in Options(options) {
        match option {
            (WINDOW_SCALE, &[scale]) => offer.scale = Some(scale.min(SCALE_MAX)),
            (SACK_PERMITTED, &[]) => offer.sack = true,
            _ => (),
        }
    }
    offer
}

/// The highest right edge of the SACK blocks that lies beyond `ack`, else `ack`.
#[inline]
pub(super) fn highest_sack(options: &[u8], ack: u32) -> u32 {
    if options.is_empty() || options.len() == 12 && options.starts_with(&TIMESTAMP_ONLY) {
        return ack;
    }
    search_sack(options, ack)
}

/// Takes `shift` off the edges of SACK blocks.
pub(super) fn move_sack(options: &mut [u8], shift: u32) {
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        if kind == NOP {
            at += 1;
            continue;
        }
        let length = options.get(at + 1).map_or(0, |&length| usize::from(length));
        let Some(contents) = options.get_mut(at + 2..at + length).filter(|_| kind != END) else {
            return;
        };
        if kind == SACK && contents.len().is_multiple_of(8) {
            for edge in contents.as_chunks_mut::<4>().0 {
                *edge = u32::from_be_bytes(*edge).wrapping_sub(shift).to_be_bytes();
            }
        }
        at += length;
    }
}

fn search_sack(options: &[u8], ack: u32) -> u32 {
    let mut highest = ack;
    let whole = |contents: &[u8]| !contents.is_empty() && contents.len().is_multiple_of(8);
    if let Some((_, blocks)) =
        Options(options).find(|(kind, blocks)| *kind == SACK && whole(blocks))
    {
        for block in blocks.as_chunks::<8>().0 {
            let edge = u32::from_be_bytes([block[4], block[5], block[6], block[7]]);
            if before(highest, edge) {
                highest = edge;
            }
        }
    }
    highest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_linux_syn_offers_sack_and_scale() {
        let options = [2, 4, 0x05, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];
        assert_eq!(offer(&options), Offer { scale: Some(7), sack: true });
    }

    #[test]
    fn edges_are_moved_wherever_they_stand() {
        let mut options = [1, 1, 8, 10, 9, 9, 9, 9, 9, 9, 9, 9, 1, 5, 10, 0, 0, 0, 7, 0, 0, 0, 9];
        move_sack(&mut options, 8);
        assert_eq!(options[15..], [255, 255, 255, 255, 0, 0, 0, 1]);
        assert_eq!(options[4..12], [9; 8]);
        for odd in [&mut [5, 10, 0, 0][..], &mut [5, 1], &mut [0, 5], &mut [5], &mut [2, 0]] {
            let before = odd.to_vec();
            move_sack(odd, 8);
            assert_eq!(odd, before);
        }
    }

    #[test]
    fn a_scale_above_14_counts_as_14() {
        assert_eq!(offer(&[3, 3, 15, 0]).scale, Some(14));
        assert_eq!(offer(&[3, 3, 14, 0]).scale, Some(14));
    }

    #[test]
    fn reading_stops_at_the_end_option_and_at_nonsense() {
        assert_eq!(offer(&[1, 0, 3, 3, 7]), Offer::default(), "after the end option");
        assert_eq!(offer(&[9, 1, 3, 3, 7]), Offer::default(), "length below two");
        assert_eq!(offer(&[3, 3, 7, 4, 3]), Offer { scale: Some(7), sack: false }, "cut off");
        assert_eq!(offer(&[3, 4, 7, 0]), Offer::default(), "wrong length");
        assert_eq!(offer(&[1, 1, 1, 3]), Offer::default(), "no room for a length");
    }

    fn sack(edges: &[(u32, u32)]) -> Vec<u8> {
        let mut options = vec![1, 1, 5, 2 + 8 * edges.len() as u8];
        for (left, right) in edges {
            options.extend(left.to_be_bytes());
            options.extend(right.to_be_bytes());
        }
        options
    }

    #[test]
    fn the_highest_right_edge_counts_also_across_the_wrap() {
        assert_eq!(highest_sack(&sack(&[(200, 300), (500, 600), (350, 400)]), 100), 600);
        assert_eq!(highest_sack(&sack(&[(10, 50)]), 100), 100, "below the ack");
        assert_eq!(highest_sack(&sack(&[(u32::MAX - 5, 7)]), u32::MAX - 20), 7);
    }

    #[test]
    fn blocks_behind_a_timestamp_are_found_and_broken_ones_skipped() {
        let mut options = vec![1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(highest_sack(&options, 100), 100);
        options.extend(sack(&[(200, 300)]));
        assert_eq!(highest_sack(&options, 100), 300);
        assert_eq!(highest_sack(&[5, 6, 0, 0, 1, 0x2c], 100), 100, "half a block");
        assert_eq!(highest_sack(&[5, 2], 100), 100, "no block");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(
            options in proptest::collection::vec(any::<u8>(), 0..=40), ack: u32,
        ) {
            prop_assert!(offer(&options).scale.unwrap_or(0) <= SCALE_MAX);
            prop_assert!(!before(highest_sack(&options, ack), ack));
        }
    }
}
