//! Publishing policy while packets run, in every order: a control core that sends two snapshots
//! and takes the old ones back, and two lcores that judge bursts meanwhile.
//!
//! Each of these is one step: the control core sends the next message or takes one in; an lcore
//! judges a burst, serves a message or delivers its answers. The real pipelines and mailboxes are
//! taken through every state that any order of steps leads to, and through every step from there.
//! Two orders lead to one state if the same steps were taken of each kind and each lcore has judged
//! as many bursts since it last adopted: what the pipelines remember then is the same.
//!
//! At every step: a packet shows one snapshot in its MAC addresses, which is the one its lcore
//! adopted last; no snapshot is held by anybody who should have let go of it, nor by nobody before
//! the control core frees it. In the end: each snapshot's rules have counted exactly the packets
//! that it judged, and every question has its answer. The rings hold one or two messages.

// A message that finds no room comes back whole.
#![allow(clippy::result_large_err)]

mod explore;
mod post;
mod rig;

use explore::explore;

#[test]
fn every_order_with_rings_of_one_message() {
    explore(1);
}

#[test]
fn every_order_with_rings_of_two_messages() {
    explore(2);
}
