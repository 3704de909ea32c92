//! Bytes on the wire: one file per protocol with a checked view, plus checksums and builders.
//!
//! The contract of every file here:
//!
//! - **A view is the proof.** A `View` owns `&[u8; N]` (a `ViewMut` owns `&mut [u8; N]`), so
//!   whoever holds one has the bytes; constant indices into an array are checked when compiling.
//!   Making a view from a slice gives `None` if there are too few bytes; after that no accessor can
//!   fail or panic.
//! - **Judged once.** Lengths, versions and checksums of the IP layer are judged by
//!   [`headers::parse`], in the kernel's order and with a reason for each refusal. L4 fields are
//!   left to the trackers.
//! - **Pure.** Functions of bytes: no state, clock, allocation, log or lock. Nobody else writes to
//!   a frame while a view of it lives; the borrow says so. (`build::packet::Packet::to_vec`
//!   allocates: it is for tests.)
//! - **Bounded.** Every loop ends with its slice or a constant: 40 bytes of options, eight
//!   extension headers, 32 neighbour discovery options.
//! - **Checksums stay right.** A setter that changes a covered field adjusts the check
//!   incrementally; `set_check` and the `adjust_check` of edits made elsewhere are the only ways to
//!   write one alone.
//!
//! ```text
//! frame ─ ethernet ─┬─ arp                      headers::parse goes down this tree in one pass;
//!          [vlan]   ├─ ipv4 ─┬─ tcp udp icmp    quoted::parse starts at the IP header that an
//!                   └─ ipv6 ─┘   icmpv6 ─ ndp   ICMP error carries. build/ goes up it again.
//! ```
//!
//! Numbers are in host order everywhere outside the bytes themselves.

pub mod address;
pub mod arp;
pub mod build;
pub mod checksum;
pub mod crc32c;
pub mod dccp;
pub mod ethernet;
pub mod headers;
pub mod icmp;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod ndp;
pub mod quoted;
pub mod sctp;
pub mod source;
pub mod tcp;
pub mod udp;
pub mod vlan;
