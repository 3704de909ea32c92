//! SYNPROXY with a virtual clock: what is kept and what is not, how long a cookie is good, and
//! which way the packets of an opened conn take.

use dataplane::conntrack::state::Status;
use dataplane::pipeline::drops::DropReason;
use dataplane::rules::hook::Table::{Filter, Raw};
use dataplane::rules::matches::{Match, Maybe, StateMask, TcpFlags, TcpMatch};
use dataplane::rules::targets::Target;
use dataplane::rules::targets::synproxy::Synproxy;
use dataplane::wire::build::packet::Packet;
use dataplane::wire::tcp::flags::{ACK, PSH, RST, SYN};
use dataplane::wire::tcp::{self, summary};

use super::rig::*;
use super::rules::*;
use super::tracking::tcp;

const PAIRS: [(&str, &str); 2] = [
    ("192.168.1.2:4000", "198.51.100.7:80"),
    ("[2001:db8:1::2]:4000", "[2001:db8:ffff::7]:80"),
];
const (CLIENT, SERVER): (&str, &str) = PAIRS[0];
