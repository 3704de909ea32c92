//! Sequence numbers and times moved: what a server says to a client that began with other ones, and
//! what the client says about it (`nf_ct_seq_adjust`, `synproxy_tstamp_adjust`).
//!
//! Pure: bytes in, bytes out, the checksum kept as right or wrong as it was.

use crate::conntrack::state::Direction;
use crate::wire::checksum;
use crate::wire::tcp::flags::ACK;
use crate::wire::tcp::{HEADER_LEN, View, ViewMut, option};

/// How far apart both ends' numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shifts {
    /// Added to sequence numbers of the reply direction; 0 for numbers that stay.
    pub seq: u32,
    /// Taken off the times of the reply direction; 0 for times that stay.
    pub time: u32,
}

impl Shifts {
    /// Moves the numbers of the segment in `l4`, from its header to the packet's end. False for an
    /// ACK whose options end within one, if its numbers move; they may have moved by half.
    pub fn apply(&self, l4: &mut [u8], direction: Direction) -> bool {
        self.move_times(l4, direction);
        self.seq == 0 || self.move_numbers(l4, direction)
    }

    fn move_numbers(&self, l4: &mut [u8], direction: Direction) -> bool {
        let Some(mut tcp) = ViewMut::new(l4) else { return false };
        let (seq, ack, flags) = (tcp.view().seq(), tcp.view().ack(), tcp.view().flags());
        if direction == Direction::Reply {
            tcp.set_seq(seq.wrapping_add(self.seq));
        }
        if flags & ACK == 0 {
            return true;
        }
        // What the client names is the server's, in SACK, too.
        let moved = if direction == Direction::Original { self.seq } else { 0 };
        tcp.set_ack(ack.wrapping_sub(moved));
        each_option(l4, |l4, kind, at, end| {
            if kind == option::SACK && end > at && (end - at).is_multiple_of(8) {
                (at..end).step_by(4).for_each(|at| put(l4, at, |edge| edge.wrapping_sub(moved)));
            }
            true
        })
    }

    fn move_times(&self, l4: &mut [u8], direction: Direction) {
        if self.time == 0 {
            return;
        }
        each_option(l4, |l4, kind, at, end| {
            let found = kind == option::TIMESTAMPS && end - at == 8;
            match direction {
                _ if !found => {}
                Direction::Original => put(l4, at + 4, |echo| echo.wrapping_add(self.time)),
                Direction::Reply => put(l4, at, |value| value.wrapping_sub(self.time)),
            }
            !found
        });
    }
}

/// Calls `visit` with kind, beginning and end of what each option holds, until it says false. False
/// if they end within one.
fn each_option(l4: &mut [u8], mut visit: impl FnMut(&mut [u8], u8, usize, usize) -> bool) -> bool {
    let Some(end) = View::new(l4).map(|tcp| tcp.header_len().min(l4.len())) else { return false };
    let mut at = HEADER_LEN;
    while at < end {
        let kind = l4.get(at).copied().unwrap_or(option::END);
        match kind {
            option::END => return true,
            option::NOP => {
                at += 1;
                continue;
            }
            _ => {}
        }
        let len = l4.get(at + 1).map_or(0, |&len| usize::from(len));
        if at + 1 == end || len < 2 || at + len > end {
            return false;
        }
        if !visit(l4, kind, at + 2, at + len) {
            return true;
        }
        at += len;
    }
    true
}

/// Replaces four bytes. Where they lie across words the sum sees them turned round.
fn put(l4: &mut [u8], at: usize, new: impl FnOnce(u32) -> u32) {
    let Some(place) = l4.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>()) else { return };
    let old = u32::from_be_bytes(*place);
    let new = new(old);
    *place = new.to_be_bytes();
    let delta = checksum::delta32(old, new);
    let delta = if at.is_multiple_of(2) { delta } else { delta.swap_bytes() };
    if let Some(mut tcp) = ViewMut::new(l4) {
        tcp.adjust_check(delta);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::tcp::flags::{PSH, SYN};
    use crate::wire::tcp::summary;

    const TIMES: [u8; 10] = [8, 10, 0, 0, 0, 9, 0, 0, 0, 70];

    /// A header with these options, padded, and a right sum.
    fn segment(flags: u8, options: &[u8]) -> Vec<u8> {
        let mut l4 = vec![0; 20];
        l4[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
        l4[8..12].copy_from_slice(&100u32.to_be_bytes());
        l4[13] = flags;
        l4.extend(options);
        l4.resize(l4.len().next_multiple_of(4), option::NOP);
        l4[12] = (l4.len() as u8 / 4) << 4;
        l4.extend(b"payload!");
        let sum = checksum::internet(&l4);
        l4[16..18].copy_from_slice(&sum.to_be_bytes());
        l4
    }

    /// Both numbers, the times, the blocks.
    type Read = (u32, u32, Option<(u32, u32)>, Vec<(u32, u32)>);

    fn read(l4: &[u8]) -> Read {
        assert_eq!(checksum::internet(l4), 0, "the sum is right");
        let view = View::new(l4).unwrap();
        let options = summary(view.options(l4).unwrap());
        (view.seq(), view.ack(), options.timestamps, options.sack_blocks().to_vec())
    }

    #[test]
    fn a_server_s_numbers_go_up_and_a_client_s_words_about_them_down() {
        let mut options = vec![1, 1, 5, 18];
        options.extend([200u32, 300, 400, 5].iter().flat_map(|edge| edge.to_be_bytes()));
        options.extend(TIMES);
        let shifts = Shifts { seq: 10, time: 4 };
        let mut reply = segment(ACK | PSH, &options);
        assert!(shifts.apply(&mut reply, Direction::Reply));
        assert_eq!(read(&reply), (9, 100, Some((5, 70)), vec![(200, 300), (400, 5)]));
        let mut original = segment(ACK, &options);
        assert!(shifts.apply(&mut original, Direction::Original));
        let blocks = vec![(190, 290), (390, u32::MAX - 4)];
        assert_eq!(read(&original), (u32::MAX, 90, Some((9, 74)), blocks));
        let mut bare = segment(SYN, &[]);
        assert!(shifts.apply(&mut bare, Direction::Original));
        assert_eq!(read(&bare).1, 100, "without ACK it says nothing about numbers");
    }

    #[test]
    fn options_that_end_within_one_are_not_a_client_s() {
        let shifts = Shifts { seq: 10, time: 4 };
        for (options, right) in [
            (&[5, 10, 0, 0][..], false),
            (&[9, 1, 0, 0], false),
            (&[1, 1, 1, 9], false),
            (&[0, 5, 99, 9], true),
            (&[9, 4, 0, 0], true),
        ] {
            let mut l4 = segment(ACK, options);
            assert_eq!(shifts.apply(&mut l4, Direction::Original), right, "{options:?}");
        }
        let still = Shifts { seq: 0, time: 4 };
        assert!(still.apply(&mut segment(ACK, &[9, 1, 0, 0]), Direction::Original));
    }

    proptest! {
        /// There and back is nothing, wherever the options lie, and the sum stays right.
        #[test]
        fn what_is_moved_can_be_moved_back(
            seq: u32, time: u32, odd in 0..4usize, reply: bool, flags: u8,
        ) {
            let mut options = vec![option::NOP; odd];
            options.extend([5, 10, 0, 0, 1, 0, 0, 0, 2, 0]);
            options.extend(TIMES);
            let direction = if reply { Direction::Reply } else { Direction::Original };
            let begin = segment(flags, &options);
            let mut l4 = begin.clone();
            let there = Shifts { seq, time };
            prop_assert!(there.apply(&mut l4, direction));
            prop_assert_eq!(checksum::internet(&l4), 0);
            let back = Shifts { seq: seq.wrapping_neg(), time: time.wrapping_neg() };
            prop_assert!(back.apply(&mut l4, direction));
            prop_assert_eq!(&l4[18..], &begin[18..]);
            prop_assert_eq!(&l4[..16], &begin[..16]);
        }

        #[test]
        fn no_bytes_are_too_odd(mut l4: Vec<u8>, seq: u32, time: u32, reply: bool) {
            let direction = if reply { Direction::Reply } else { Direction::Original };
            Shifts { seq, time }.apply(&mut l4, direction);
        }
    }
}
