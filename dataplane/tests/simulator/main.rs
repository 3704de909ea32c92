//! Any number of workers give what one gives: scripts of hosts under seeded schedules.
//!
//! `gateway` is the policy, `script` what the hosts mean to say, `hosts` how they say it and what
//! they check, `fragments` what they cut and put together, `run` one script under one plan,
//! `schedules` the comparison of many with one worker.
//! `ports` uses up every port of an address, `lines` counts cache lines that lcores fight for.

mod flood;
mod fragments;
mod gateway;
mod hosts;
#[cfg(feature = "count-lines")]
mod lines;
mod ports;
mod run;
mod schedules;
mod script;
