//! Every timeout of the trackers, as one list: enum variant, sysctl name, default seconds.
//!
//! A [`Timeouts`] is a plain value: the sysctls are one, a named policy of `CT --timeout` is
//! another. It belongs to an immutable snapshot; nobody writes to it while packets read it. Values
//! lie in `0..=MAX_SECS`. A conn's deadline is absolute, so a changed timeout moves no live timer.

use super::dccp::DccpState;
use super::sctp::SctpState;
use super::tcp::TcpState;

/// The largest value a timeout takes, in seconds: what the kernel accepts where `HZ` is 250
/// (`proc_dointvec_jiffies` refuses more than `INT_MAX / HZ`). Negative values, which the kernel
/// takes by accident, are refused.
pub const MAX_SECS: u32 = i32::MAX as u32 / 250;

const _: () = assert!(MAX_SECS <= crate::time::MAX_TIMEOUT_SECS, "a tick must be able to hold it");

macro_rules! timeouts {
    ($($variant:ident, $name:literal, $default:literal, $doc:literal;)*) => {
        /// Names one timeout.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Timeout {
            $(#[doc = $doc] $variant,)*
        }

        impl Timeout {
            /// All of them, in the order of their numbers.
            pub const ALL: [Timeout; COUNT] = [$(Timeout::$variant,)*];

            /// The sysctl's name without `nf_conntrack_`; also the key in a timeout policy.
            pub const fn name(self) -> &'static str {
                match self { $(Timeout::$variant => $name,)* }
            }

            /// The kernel's default, in seconds.
            pub const fn default_secs(self) -> u32 {
                match self { $(Timeout::$variant => $default,)* }
            }
        }

        const COUNT: usize = [$($default,)*].len();
    };
}

timeouts! {
    TcpSynSent, "tcp_timeout_syn_sent", 120, "A SYN, not answered.";
    TcpSynRecv, "tcp_timeout_syn_recv", 60, "SYN and SYN/ACK seen.";
    TcpEstablished, "tcp_timeout_established", 432_000, "The handshake is done.";
    TcpFinWait, "tcp_timeout_fin_wait", 120, "The first FIN was seen.";
    TcpCloseWait, "tcp_timeout_close_wait", 60, "The first FIN was acknowledged.";
    TcpLastAck, "tcp_timeout_last_ack", 30, "FINs both ways.";
    TcpTimeWait, "tcp_timeout_time_wait", 120, "The last FIN was acknowledged.";
    TcpClose, "tcp_timeout_close", 10, "Reset.";
    TcpSynSent2, "tcp_timeout_syn_sent2", 120, "Simultaneous open; the one without a sysctl.";
    TcpMaxRetrans, "tcp_timeout_max_retrans", 300, "Repeats without an answer, or a closed window.";
    TcpUnacknowledged, "tcp_timeout_unacknowledged", 300, "Some byte is not acknowledged.";
    Udp, "udp_timeout", 30, "UDP, one way or younger than two seconds.";
    UdpStream, "udp_timeout_stream", 120, "UDP both ways for more than two seconds.";
    Icmp, "icmp_timeout", 30, "ICMP queries.";
    Icmpv6, "icmpv6_timeout", 30, "ICMPv6 queries.";
    SctpClosed, "sctp_timeout_closed", 10, "SCTP: only an INIT was seen, or all is over.";
    SctpCookieWait, "sctp_timeout_cookie_wait", 3, "INIT and INIT ACK.";
    SctpCookieEchoed, "sctp_timeout_cookie_echoed", 3, "COOKIE ECHO.";
    SctpEstablished, "sctp_timeout_established", 210, "COOKIE ACK, or a HEARTBEAT ACK.";
    SctpShutdownSent, "sctp_timeout_shutdown_sent", 3, "SHUTDOWN from the original side.";
    SctpShutdownRecd, "sctp_timeout_shutdown_recd", 3, "SHUTDOWN from the reply side.";
    SctpShutdownAckSent, "sctp_timeout_shutdown_ack_sent", 3, "SHUTDOWN ACK.";
    SctpHeartbeatSent, "sctp_timeout_heartbeat_sent", 30, "A HEARTBEAT on a new path.";
    DccpRequest, "dccp_timeout_request", 240, "DCCP: Request.";
    DccpRespond, "dccp_timeout_respond", 480, "Response.";
    DccpPartOpen, "dccp_timeout_partopen", 480, "The Response was acknowledged.";
    DccpOpen, "dccp_timeout_open", 43_200, "The server went on from there.";
    DccpCloseReq, "dccp_timeout_closereq", 64, "The server asked the client to close.";
    DccpClosing, "dccp_timeout_closing", 64, "Close.";
    DccpTimeWait, "dccp_timeout_timewait", 240, "Reset.";
    Gre, "gre_timeout", 30, "GRE, one way.";
    GreStream, "gre_timeout_stream", 180, "GRE both ways.";
    Generic, "generic_timeout", 600, "Protocols without a tracker of their own.";
}

impl Timeout {
    /// The timeout of a sysctl name (without `nf_conntrack_`).
    pub fn from_name(name: &str) -> Option<Timeout> {
        Self::ALL.into_iter().find(|timeout| timeout.name() == name)
    }

    /// False for the one timeout that only a policy can set.
    pub const fn is_sysctl(self) -> bool {
        !matches!(self, Timeout::TcpSynSent2)
    }
}

/// The timeout of each TCP state; a conn is in NONE only while its first packet is judged.
const OF_STATE: [Timeout; TcpState::COUNT] = [
    Timeout::TcpSynSent,
    Timeout::TcpSynSent,
    Timeout::TcpSynRecv,
    Timeout::TcpEstablished,
    Timeout::TcpFinWait,
    Timeout::TcpCloseWait,
    Timeout::TcpLastAck,
    Timeout::TcpTimeWait,
    Timeout::TcpClose,
    Timeout::TcpSynSent2,
];

/// The timeout of each SCTP state.
const OF_SCTP: [Timeout; SctpState::COUNT] = [
    Timeout::SctpClosed,
    Timeout::SctpClosed,
    Timeout::SctpCookieWait,
    Timeout::SctpCookieEchoed,
    Timeout::SctpEstablished,
    Timeout::SctpShutdownSent,
    Timeout::SctpShutdownRecd,
    Timeout::SctpShutdownAckSent,
    Timeout::SctpHeartbeatSent,
];

/// The timeout of each DCCP state.
const OF_DCCP: [Timeout; DccpState::COUNT] = [
    Timeout::DccpRequest,
    Timeout::DccpRequest,
    Timeout::DccpRespond,
    Timeout::DccpPartOpen,
    Timeout::DccpOpen,
    Timeout::DccpCloseReq,
    Timeout::DccpClosing,
    Timeout::DccpTimeWait,
];

/// One value, in seconds, for each [`Timeout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts([u32; COUNT]);

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts(Timeout::ALL.map(Timeout::default_secs))
    }
}

impl Timeouts {
    /// Seconds.
    #[inline]
    pub const fn get(&self, which: Timeout) -> u32 {
        self.0[which as usize]
    }

    /// Changes one; more than [`MAX_SECS`] counts as that.
    pub const fn set(&mut self, which: Timeout, secs: u32) {
        self.0[which as usize] = if secs > MAX_SECS { MAX_SECS } else { secs };
    }

    /// Seconds for a TCP state.
    #[inline]
    pub const fn of_tcp(&self, state: TcpState) -> u32 {
        self.get(OF_STATE[state as usize])
    }

    /// Seconds for an SCTP state.
    pub const fn of_sctp(&self, state: SctpState) -> u32 {
        self.get(OF_SCTP[state as usize])
    }

    /// Seconds for a DCCP state.
    pub const fn of_dccp(&self, state: DccpState) -> u32 {
        self.get(OF_DCCP[state as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_lead_back() {
        for timeout in Timeout::ALL {
            assert_eq!(Timeout::from_name(timeout.name()), Some(timeout));
        }
        assert_eq!(Timeout::from_name("tcp_timeout"), None);
    }

    #[test]
    fn each_state_has_the_timeout_of_its_name() {
        for state in TcpState::ALL.into_iter().skip(1) {
            let name = format!("tcp_timeout_{}", state.name().to_lowercase());
            assert_eq!(OF_STATE[state as usize].name(), name);
        }
        for state in SctpState::ALL.into_iter().skip(1) {
            let name = format!("sctp_timeout_{}", state.name().to_lowercase());
            assert_eq!(OF_SCTP[state as usize].name(), name);
        }
        for state in DccpState::ALL.into_iter().skip(1) {
            let name = format!("dccp_timeout_{}", state.name().to_lowercase());
            assert_eq!(OF_DCCP[state as usize].name(), name);
        }
    }

    #[test]
    fn a_set_timeout_changes_alone_and_is_capped() {
        let mut timeouts = Timeouts::default();
        timeouts.set(Timeout::TcpClose, 11);
        timeouts.set(Timeout::Udp, u32::MAX);
        for which in Timeout::ALL {
            let expected = match which {
                Timeout::TcpClose => 11,
                Timeout::Udp => MAX_SECS,
                other => other.default_secs(),
            };
            assert_eq!(timeouts.get(which), expected);
        }
        assert_eq!(timeouts.of_tcp(TcpState::Close), 11);
    }
}
