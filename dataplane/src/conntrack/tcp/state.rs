//! The states of a TCP conn, seen from the middle (`enum tcp_conntrack`, same numbers and names).

/// A conn's state. The gateway guesses what both ends think; it is not an end itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TcpState {
    /// No packet judged yet.
    #[default]
    None = 0,
    /// A SYN from the original side.
    SynSent = 1,
    /// A SYN/ACK answered it.
    SynRecv = 2,
    /// The handshake is done, or was assumed.
    Established = 3,
    /// One FIN.
    FinWait = 4,
    /// One FIN, acknowledged.
    CloseWait = 5,
    /// A FIN each way.
    LastAck = 6,
    /// Both FINs acknowledged.
    TimeWait = 7,
    /// Reset.
    Close = 8,
    /// A SYN each way: simultaneous open.
    SynSent2 = 9,
}

impl TcpState {
    /// How many states there are.
    pub const COUNT: usize = 10;

    /// All of them, in the order of their numbers.
    pub const ALL: [TcpState; TcpState::COUNT] = [
        TcpState::None,
        TcpState::SynSent,
        TcpState::SynRecv,
        TcpState::Established,
        TcpState::FinWait,
        TcpState::CloseWait,
        TcpState::LastAck,
        TcpState::TimeWait,
        TcpState::Close,
        TcpState::SynSent2,
    ];

    /// The kernel's name, as `conntrack -L` prints it.
    pub const fn name(self) -> &'static str {
        match self {
            TcpState::None => "NONE",
            TcpState::SynSent => "SYN_SENT",
            TcpState::SynRecv => "SYN_RECV",
            TcpState::Established => "ESTABLISHED",
            TcpState::FinWait => "FIN_WAIT",
            TcpState::CloseWait => "CLOSE_WAIT",
            TcpState::LastAck => "LAST_ACK",
            TcpState::TimeWait => "TIME_WAIT",
            TcpState::Close => "CLOSE",
            TcpState::SynSent2 => "SYN_SENT2",
        }
    }

    /// The state of a kernel's name.
    pub fn from_name(name: &str) -> Option<TcpState> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// The state of a number; `None` for a number that names none.
    pub fn from_number(number: u8) -> Option<TcpState> {
        Self::ALL.get(number as usize).copied()
    }

    /// True once a FIN or RST was seen: such a conn may go early although it is ASSURED, and its
    /// numbers no longer tell whether an RST is genuine (`tcp_can_early_drop`).
    #[inline]
    pub const fn is_closing(self) -> bool {
        matches!(
            self,
            TcpState::FinWait
                | TcpState::CloseWait
                | TcpState::LastAck
                | TcpState::TimeWait
                | TcpState::Close
        )
    }
}

impl std::fmt::Display for TcpState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_lead_back() {
        for (number, state) in TcpState::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, number);
            assert_eq!(TcpState::from_number(number as u8), Some(state));
            assert_eq!(TcpState::from_name(state.name()), Some(state));
        }
        assert_eq!(TcpState::from_number(10), None);
        assert_eq!(format!("{:>12}", TcpState::SynSent2), "   SYN_SENT2");
    }
}
