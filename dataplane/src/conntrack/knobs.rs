//! Knobs: the values behind `net.netfilter.nf_conntrack_*` that the trackers and the stages around
//! them read, with their defaults and ranges (`nf_ct_sysctl_table`).
//!
//! One list names them all: the config file, `sysctl` and the tests go through it. A `Knobs` is a
//! plain value in an immutable snapshot; the control core edits a copy and publishes it. Not here:
//! `max`, `buckets` and `count`, which belong to the table.

use super::helper::Policies;
use super::timeouts::{MAX_SECS, Timeout, Timeouts};

/// Why a knob was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnobError {
    /// There is no knob of that name.
    Unknown,
    /// The value lies outside `min..=max`.
    OutOfRange {
        /// Smallest value that is taken.
        min: u64,
        /// Largest value that is taken.
        max: u64,
    },
}

impl std::fmt::Display for KnobError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KnobError::Unknown => f.write_str("no such setting"),
            KnobError::OutOfRange { min, max } => write!(f, "must lie in {min}..={max}"),
        }
    }
}

impl std::error::Error for KnobError {}

/// Knobs of `net.ipv4`: all others are `net.netfilter.nf_conntrack_*`.
const OF_IPV4: &str = "ipfrag_";

/// What is fixed about a knob: its name without `nf_conntrack_`, default and range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knob {
    /// The name, without `nf_conntrack_`.
    pub name: &'static str,
    /// The kernel's default.
    pub default: u64,
    /// Smallest value that is taken.
    pub min: u64,
    /// Largest value that is taken.
    pub max: u64,
}

impl Knob {
    /// The last word of a knob of `net.ipv4.ipfrag_*`, whose name here is the sysctl's own.
    pub fn of_ipfrag(&self) -> Option<&'static str> {
        self.name.strip_prefix(OF_IPV4)
    }
}

/// Two knobs of which the first may not be more than the second.
pub const IN_ORDER: [(&str, &str); 2] =
    [("frag6_low_thresh", "frag6_high_thresh"), ("ipfrag_low_thresh", "ipfrag_high_thresh")];

/// How a number and a field's type become each other; the range was checked before.
trait Field: Copy {
    fn from_number(value: u64) -> Self;
    fn to_number(self) -> u64;
}

impl Field for bool {
    fn from_number(value: u64) -> bool {
        value != 0
    }
    fn to_number(self) -> u64 {
        self as u64
    }
}

impl Field for u32 {
    fn from_number(value: u64) -> u32 {
        value.min(u32::MAX as u64) as u32
    }
    fn to_number(self) -> u64 {
        self as u64
    }
}

impl Field for u64 {
    fn from_number(value: u64) -> u64 {
        value
    }
    fn to_number(self) -> u64 {
        self
    }
}

impl Field for u8 {
    fn from_number(value: u64) -> u8 {
        value.min(u8::MAX as u64) as u8
    }
    fn to_number(self) -> u64 {
        self as u64
    }
}

macro_rules! knobs {
    ($($field:ident: $ty:ty = $default:literal, max $max:literal, $doc:literal;)*) => {
        /// All knobs with their present values.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Knobs {
            /// Every timeout.
            pub timeouts: Timeouts,
            /// What helpers may expect; no sysctls, but keys of the configuration.
            pub helpers: Policies,
            $(#[doc = $doc] pub $field: $ty,)*
        }

        impl Default for Knobs {
            fn default() -> Knobs {
                Knobs {
                    timeouts: Timeouts::default(),
                    helpers: Policies::default(),
                    $($field: <$ty>::from_number($default),)*
                }
            }
        }

        /// The knobs that are no timeouts.
        const PLAIN: &[Knob] = &[
            $(Knob { name: stringify!($field), default: $default, min: 0, max: $max },)*
        ];

        impl Knobs {
            fn plain(&self, name: &str) -> Option<u64> {
                match name {
                    $(stringify!($field) => Some(self.$field.to_number()),)*
                    _ => None,
                }
            }

            fn set_plain(&mut self, name: &str, value: u64) {
                match name {
                    $(stringify!($field) => self.$field = <$ty>::from_number(value),)*
                    _ => (),
                }
            }
        }
    };
}

knobs! {
    acct: bool = 0, max 1, "Count packets and bytes of each conn.";
    checksum: bool = 1, max 1, "A wrong L4 checksum on receipt makes a packet INVALID.";
    dccp_loose: bool = 1, max 1, "Pick up DCCP conns whose Request was not seen.";
    events: u8 = 2, max 2, "Events: 0 never, 1 always, 2 when somebody listens.";
    frag6_high_thresh: u64 = 4194304, max 0x7fff_ffff_ffff_ffff,
        "IPv6 fragments that cost more, on all lcores together, let no other in; 0 lets none in.";
    frag6_low_thresh: u64 = 3145728, max 0x7fff_ffff_ffff_ffff,
        "A lower bound of `frag6_high_thresh`, as in the kernel, and nothing else.";
    frag6_timeout: u32 = 60, max 8_589_934, "How long IPv6 fragments wait for the rest, seconds.";
    ipfrag_high_thresh: u64 = 4194304, max 0x7fff_ffff_ffff_ffff,
        "The same as `frag6_high_thresh` for IPv4.";
    ipfrag_low_thresh: u64 = 3145728, max 0x7fff_ffff_ffff_ffff,
        "A lower bound of `ipfrag_high_thresh`, as in the kernel, and nothing else.";
    ipfrag_max_dist: u32 = 64, max 0x7fff_ffff,
        "IPv4 fragments of one source between two of a datagram; 0 is without limit.";
    ipfrag_time: u32 = 30, max 8_589_934, "How long IPv4 fragments wait for the rest, seconds.";
    log_invalid: u8 = 0, max 255, "IP protocol whose INVALID packets are logged; 255 is all.";
    tcp_be_liberal: bool = 0, max 1, "Only RSTs outside the window are INVALID.";
    tcp_ignore_invalid_rst: bool = 0, max 1, "An RST below the highest ack is not INVALID.";
    tcp_loose: bool = 1, max 1, "Pick up conns whose beginning was not seen.";
    tcp_max_retrans: u8 = 3, max 255, "Identical segments before the timeout is shortened.";
    timestamp: bool = 0, max 1, "Note start and stop time of each conn.";
}

impl Knobs {
    /// All knobs, in no particular order.
    pub fn all() -> impl Iterator<Item = Knob> {
        let timeouts = Timeout::ALL.into_iter().filter(|timeout| timeout.is_sysctl());
        let timeouts = timeouts.map(|timeout| Knob {
            name: timeout.name(),
            default: timeout.default_secs() as u64,
            min: 0,
            max: MAX_SECS as u64,
        });
        PLAIN.iter().copied().chain(timeouts)
    }

    /// The knob of that name (without `nf_conntrack_`).
    pub fn find(name: &str) -> Option<Knob> {
        Self::all().find(|knob| knob.name == name)
    }

    /// Every name (without `nf_conntrack_`), in alphabetical order.
    pub fn names() -> Vec<&'static str> {
        let mut names: Vec<_> = Self::all().map(|knob| knob.name).collect();
        names.sort_unstable();
        names
    }

    /// The present value of a knob; `None` if there is none of that name.
    pub fn get(&self, name: &str) -> Option<u64> {
        Self::find(name)?;
        match Timeout::from_name(name) {
            Some(timeout) => Some(self.timeouts.get(timeout) as u64),
            None => self.plain(name),
        }
    }

    /// True if [`IN_ORDER`] holds.
    pub fn are_in_order(&self) -> bool {
        IN_ORDER.iter().all(|(low, high)| self.get(low) <= self.get(high))
    }

    /// Changes a knob, whatever [`IN_ORDER`] says.
    ///
    /// # Errors
    /// [`KnobError`]; nothing is changed then.
    pub fn set(&mut self, name: &str, value: u64) -> Result<(), KnobError> {
        let Knob { min, max, .. } = Self::find(name).ok_or(KnobError::Unknown)?;
        if value < min || value > max {
            return Err(KnobError::OutOfRange { min, max });
        }
        match Timeout::from_name(name) {
            Some(timeout) => self.timeouts.set(timeout, value as u32),
            None => self.set_plain(name, value),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_the_kernels() {
        let knobs = Knobs::default();
        let kernel = [
            ("acct", 0),
            ("checksum", 1),
            ("dccp_loose", 1),
            ("dccp_timeout_closereq", 64),
            ("dccp_timeout_closing", 64),
            ("dccp_timeout_open", 43_200),
            ("dccp_timeout_partopen", 480),
            ("dccp_timeout_request", 240),
            ("dccp_timeout_respond", 480),
            ("dccp_timeout_timewait", 240),
            ("events", 2),
            ("frag6_high_thresh", 4_194_304),
            ("frag6_low_thresh", 3_145_728),
            ("frag6_timeout", 60),
            ("generic_timeout", 600),
            ("gre_timeout", 30),
            ("gre_timeout_stream", 180),
            ("icmp_timeout", 30),
            ("icmpv6_timeout", 30),
            ("ipfrag_high_thresh", 4_194_304),
            ("ipfrag_low_thresh", 3_145_728),
            ("ipfrag_max_dist", 64),
            ("ipfrag_time", 30),
            ("log_invalid", 0),
            ("sctp_timeout_closed", 10),
            ("sctp_timeout_cookie_echoed", 3),
            ("sctp_timeout_cookie_wait", 3),
            ("sctp_timeout_established", 210),
            ("sctp_timeout_heartbeat_sent", 30),
            ("sctp_timeout_shutdown_ack_sent", 3),
            ("sctp_timeout_shutdown_recd", 3),
            ("sctp_timeout_shutdown_sent", 3),
            ("tcp_be_liberal", 0),
            ("tcp_ignore_invalid_rst", 0),
            ("tcp_loose", 1),
            ("tcp_max_retrans", 3),
            ("tcp_timeout_close", 10),
            ("tcp_timeout_close_wait", 60),
            ("tcp_timeout_established", 432_000),
            ("tcp_timeout_fin_wait", 120),
            ("tcp_timeout_last_ack", 30),
            ("tcp_timeout_max_retrans", 300),
            ("tcp_timeout_syn_recv", 60),
            ("tcp_timeout_syn_sent", 120),
            ("tcp_timeout_time_wait", 120),
            ("tcp_timeout_unacknowledged", 300),
            ("timestamp", 0),
            ("udp_timeout", 30),
            ("udp_timeout_stream", 120),
        ];
        assert_eq!(Knobs::names(), kernel.map(|(name, _)| name));
        for (name, value) in kernel {
            assert_eq!(knobs.get(name), Some(value), "{name}");
            assert_eq!(Knobs::find(name).unwrap().default, value, "{name}");
        }
    }

    #[test]
    fn thresholds_are_in_order_or_not() {
        let mut knobs = Knobs::default();
        assert!(knobs.are_in_order());
        knobs.set("ipfrag_high_thresh", 3_145_728).unwrap();
        assert!(knobs.are_in_order());
        knobs.set("ipfrag_high_thresh", 3_145_727).unwrap();
        assert!(!knobs.are_in_order());
    }

    #[test]
    fn every_knob_takes_its_bounds_and_refuses_more() {
        for knob in Knobs::all() {
            let mut knobs = Knobs::default();
            for value in [knob.min, knob.max] {
                knobs.set(knob.name, value).unwrap();
                assert_eq!(knobs.get(knob.name), Some(value), "{}", knob.name);
            }
            let before = knobs;
            let refused = KnobError::OutOfRange { min: knob.min, max: knob.max };
            for value in [knob.max + 1, u64::MAX] {
                assert_eq!(knobs.set(knob.name, value), Err(refused));
            }
            assert_eq!(knobs, before);
        }
    }

    #[test]
    fn a_knob_changes_nothing_but_itself() {
        for knob in Knobs::all() {
            let mut knobs = Knobs::default();
            let value = if knob.default == knob.max { knob.min } else { knob.max };
            knobs.set(knob.name, value).unwrap();
            for other in Knobs::all().filter(|other| other.name != knob.name) {
                assert_eq!(knobs.get(other.name), Some(other.default));
            }
        }
    }

    #[test]
    fn unknown_names_are_refused() {
        let mut knobs = Knobs::default();
        for name in ["max", "tcp_timeout_syn_sent2", "nf_conntrack_acct", ""] {
            assert_eq!(knobs.get(name), None);
            assert_eq!(knobs.set(name, 1), Err(KnobError::Unknown));
        }
    }
}
