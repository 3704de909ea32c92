//! What goes wrong when a port is set up, always with the device's name.

use std::fmt;

use crate::errno::Errno;

/// A side of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Receive.
    Rx,
    /// Transmit.
    Tx,
}

/// Why a port does not work.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PortError {
    /// EAL is not running.
    NoEal,
    /// No device of this name came up; EAL's log says why.
    NoDevice {
        /// The name.
        device: String,
    },
    /// The device is configured already and in use.
    Taken {
        /// The device.
        device: String,
    },
    /// No queues were asked for, or more than the device has.
    Queues {
        /// The device.
        device: String,
        /// Receive or transmit.
        side: Side,
        /// Queues asked for.
        asked: u16,
        /// Queues it has.
        max: u16,
    },
    /// The MTU is outside the device's range.
    Mtu {
        /// The device.
        device: String,
        /// The MTU asked for, bytes.
        asked: u16,
        /// The smallest it takes.
        min: u16,
        /// The largest it takes.
        max: u16,
    },
    /// Frames of this MTU do not fit one mbuf, and the driver cannot fill several.
    FrameTooBig {
        /// The device.
        device: String,
        /// Bytes of the largest frame.
        frame: u32,
        /// Bytes of an mbuf without headroom.
        room: u32,
    },
    /// An RSS key without a byte was given.
    RssKey {
        /// The device.
        device: String,
    },
    /// A redirection table without an entry was given, or one that names a queue that there is not.
    RssTable {
        /// The device.
        device: String,
        /// The receive queues asked for.
        queues: u16,
    },
    /// The driver failed.
    Call {
        /// The device.
        device: String,
        /// What it was to do.
        call: &'static str,
        /// What it returned.
        errno: Errno,
    },
}

impl fmt::Display for PortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEal => write!(f, "EAL is not running"),
            Self::NoDevice { device } => write!(f, "device {device} did not come up"),
            Self::Taken { device } => write!(f, "device {device} is in use already"),
            Self::Queues { device, side, asked, max } => {
                let side = if *side == Side::Rx { "receive" } else { "transmit" };
                write!(f, "device {device} has 1 to {max} {side} queues, not {asked}")
            }
            Self::Mtu { device, asked, min, max } => {
                write!(f, "device {device} takes an MTU of {min} to {max}, not {asked}")
            }
            Self::FrameTooBig { device, frame, room } => write!(
                f,
                "device {device}: frames of {frame} bytes need one mbuf, which holds {room}"
            ),
            Self::RssKey { device } => write!(f, "device {device}: the RSS key is empty"),
            Self::RssTable { device, queues } => write!(
                f,
                "device {device}: the redirection table names other queues than 0 to {}",
                queues.saturating_sub(1)
            ),
            Self::Call { device, call, errno } => {
                write!(f, "device {device} failed to {call}: {errno}")
            }
        }
    }
}

impl std::error::Error for PortError {}
