//! What is kept of a conn that SYNPROXY has opened: two lines of numbers, and how far they are
//! apart (`struct nf_conn_synproxy`, `struct nf_conn_seqadj`).
//!
//! The client began with the gateway, whose sequence numbers were a cookie and whose time was its
//! own; the server has others. So whatever the server sends has its numbers moved on its way, and
//! what the client says about them is moved back.
//!
//! ```text
//!    63                             32 31                              0
//!    w0  time in the cookie            number before the cookie's segment
//!    w1  time of the server, less that  number of the gateway, less the server's
//! ```
//!
//! It lies in the second line of a wide extension block, and has the owner of its conn as its only
//! writer.

use crate::arch::Line;
use crate::arch::sync::Ordering::Relaxed;

/// The second line of a wide block.
#[derive(Clone, Copy, Debug)]
pub struct Proxied<'a>(&'a Line);

impl<'a> Proxied<'a> {
    pub(super) fn new(line: &'a Line) -> Proxied<'a> {
        Proxied(line)
    }

    fn half(self, i: usize, upper: bool) -> u32 {
        (self.0.0[i & 7].load(Relaxed) >> if upper { 32 } else { 0 }) as u32
    }

    fn set_half(self, i: usize, upper: bool, value: u32) {
        let word = &self.0.0[i & 7];
        let shift = if upper { 32 } else { 0 };
        let rest = word.load(Relaxed) & !(0xffff_ffff << shift);
        word.store(rest | u64::from(value) << shift, Relaxed);
    }

    /// The sequence number that the gateway began with towards the client (`isn`).
    pub fn number(self) -> u32 {
        self.half(0, false)
    }

    /// Notes it.
    pub fn set_number(self, number: u32) {
        self.set_half(0, false, number);
    }

    /// The time that the gateway told the client (`its`).
    pub fn time(self) -> u32 {
        self.half(0, true)
    }

    /// Notes it.
    pub fn set_time(self, time: u32) {
        self.set_half(0, true, time);
    }

    /// What is added to sequence numbers of the server on their way to the client
    /// (`nf_ct_seqadj.offset_after`).
    #[inline]
    pub fn shift(self) -> u32 {
        self.half(1, false)
    }

    /// Sets it.
    pub fn set_shift(self, shift: u32) {
        self.set_half(1, false, shift);
    }

    /// What is taken off the server's times on their way to the client (`tsoff`).
    #[inline]
    pub fn time_shift(self) -> u32 {
        self.half(1, true)
    }

    /// Sets it.
    pub fn set_time_shift(self, shift: u32) {
        self.set_half(1, true, shift);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn four_numbers_do_not_disturb_each_other() {
        let line = Line::default();
        let proxied = Proxied::new(&line);
        let all = |p: Proxied<'_>| [p.number(), p.time(), p.shift(), p.time_shift()];
        assert_eq!(all(proxied), [0; 4]);
        proxied.set_number(u32::MAX);
        proxied.set_time(2);
        proxied.set_shift(u32::MAX - 1);
        proxied.set_time_shift(4);
        assert_eq!(all(proxied), [u32::MAX, 2, u32::MAX - 1, 4]);
        proxied.set_number(1);
        proxied.set_time_shift(u32::MAX);
        assert_eq!(all(proxied), [1, 2, u32::MAX - 1, u32::MAX]);
    }
}
