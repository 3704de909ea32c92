//! Captures in and out: pcapng files whose interface names are port names.
//!
//! [`Reader`] gives frames one by one with their moment in nanoseconds since 1970, whatever unit
//! the interface counts in. [`Writer`] writes one interface per port, in the order of the
//! configuration, and nanoseconds. Neither keeps frames: a capture may be larger than memory.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::time::Duration;

use dataplane::rules::facts::PortId;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption as InterfaceOption,
};
use pcap_file::pcapng::{Block, PcapNgBlock, PcapNgReader, PcapNgWriter};
use pcap_file::{DataLink, PcapError};

/// `if_tsresol` of nanoseconds, the unit in which pcap-file writes.
const NANOSECONDS: u8 = 9;

/// `if_tsresol` where an interface names none: microseconds.
const MICROSECONDS: u8 = 6;

/// Why a capture cannot be replayed.
#[derive(Debug)]
pub enum CaptureError {
    /// It cannot be read.
    Unreadable(io::Error),
    /// It ends within a block; so many frames came before.
    CutOff(u64),
    /// It is not pcapng, or a block is broken.
    Broken(u64, String),
    /// An interface without a name.
    Nameless(usize),
    /// An interface with a name that no port has.
    NoPort(String),
    /// An interface that is not Ethernet.
    NotEthernet(String),
    /// A frame of an interface that was not described, or in a block without time and interface.
    NoInterface(u64),
    /// The frame was not captured whole: bytes there, bytes it had.
    Snapped(u64, usize, u32),
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CaptureError::Unreadable(e) => write!(f, "cannot be read: {e}"),
            CaptureError::CutOff(frames) => {
                write!(f, "ends within a block, after {frames} whole frames")
            }
            CaptureError::Broken(frames, e) => {
                write!(f, "is no sound pcapng file after {frames} frames: {e}")
            }
            CaptureError::Nameless(number) => {
                write!(f, "interface {number} has no name, so no port can be found for it")
            }
            CaptureError::NoPort(name) => write!(f, "interface {name:?}: no port has this name"),
            CaptureError::NotEthernet(name) => write!(f, "interface {name:?} is not Ethernet"),
            CaptureError::NoInterface(frame) => {
                write!(f, "frame {frame} names no interface that was described before it")
            }
            CaptureError::Snapped(frame, there, had) => {
                write!(f, "frame {frame} was captured in part: {there} of {had} bytes")
            }
        }
    }
}

impl std::error::Error for CaptureError {}

/// A frame of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Captured {
    pub(super) port: PortId,
    /// Nanoseconds since 1970.
    pub(super) unix_ns: u64,
    pub(super) bytes: Vec<u8>,
}

/// An interface of the section being read.
#[derive(Clone, Copy)]
struct Interface {
    port: PortId,
    unit: u8,
    offset_ns: u64,
}

/// Reads a capture.
pub(super) struct Reader<'a> {
    blocks: PcapNgReader<File>,
    ports: &'a [&'a str],
    interfaces: Vec<Interface>,
    frames: u64,
}

impl<'a> Reader<'a> {
    /// For ports with these names, by [`PortId`].
    pub(super) fn new(file: File, ports: &'a [&'a str]) -> Result<Reader<'a>, CaptureError> {
        let blocks = PcapNgReader::new(file).map_err(|e| broken(e, 0))?;
        Ok(Reader { blocks, ports, interfaces: Vec::new(), frames: 0 })
    }

    /// The next frame; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Captured>, CaptureError> {
        loop {
            let Some(block) = self.blocks.next_block() else { return Ok(None) };
            match block.map_err(|e| broken(e, self.frames))? {
                Block::SectionHeader(_) => self.interfaces.clear(),
                Block::InterfaceDescription(block) => {
                    let interface = describe(&block, self.interfaces.len(), self.ports)?;
                    self.interfaces.push(interface);
                }
                Block::EnhancedPacket(block) => {
                    self.frames += 1;
                    let interface = self.interfaces.get(block.interface_id as usize);
                    let interface = interface.ok_or(CaptureError::NoInterface(self.frames))?;
                    return captured(&block, interface, self.frames).map(Some);
                }
                Block::SimplePacket(_) | Block::Packet(_) => {
                    return Err(CaptureError::NoInterface(self.frames + 1));
                }
                _ => {}
            }
        }
    }
}

fn broken(error: PcapError, frames: u64) -> CaptureError {
    match error {
        PcapError::IncompleteBuffer => CaptureError::CutOff(frames),
        PcapError::IoError(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            CaptureError::CutOff(frames)
        }
        PcapError::IoError(e) => CaptureError::Unreadable(e),
        other => CaptureError::Broken(frames, other.to_string()),
    }
}

fn describe(
    block: &InterfaceDescriptionBlock<'_>,
    number: usize,
    ports: &[&str],
) -> Result<Interface, CaptureError> {
    let (mut name, mut unit, mut offset_secs) = (None, MICROSECONDS, 0);
    for option in &block.options {
        match option {
            InterfaceOption::IfName(text) => name = Some(text.as_ref()),
            InterfaceOption::IfTsResol(resolution) => unit = *resolution,
            InterfaceOption::IfTsOffset(secs) => offset_secs = *secs,
            _ => {}
        }
    }
    let name = name.ok_or(CaptureError::Nameless(number))?;
    let port = ports.iter().position(|port| *port == name);
    let port = port.ok_or_else(|| CaptureError::NoPort(name.to_owned()))?;
    if block.linktype != DataLink::ETHERNET {
        return Err(CaptureError::NotEthernet(name.to_owned()));
    }
    let offset_ns = offset_secs.wrapping_mul(1_000_000_000);
    Ok(Interface { port: PortId(port as u8), unit, offset_ns })
}

fn captured(
    block: &EnhancedPacketBlock<'_>,
    interface: &Interface,
    number: u64,
) -> Result<Captured, CaptureError> {
    if (block.data.len() as u64) < u64::from(block.original_len) {
        return Err(CaptureError::Snapped(number, block.data.len(), block.original_len));
    }
    // pcap-file hands out the raw number as if it were nanoseconds.
    let unix_ns = nanoseconds(block.timestamp.as_nanos(), interface.unit);
    Ok(Captured {
        port: interface.port,
        unix_ns: unix_ns.wrapping_add(interface.offset_ns),
        bytes: block.data.to_vec(),
    })
}

/// A number in the unit of `if_tsresol`: a negative power of ten, or of two if the top bit is set.
fn nanoseconds(raw: u128, unit: u8) -> u64 {
    let power = u32::from(unit & 0x7f);
    let second = match unit & 0x80 {
        0 => 10u128.checked_pow(power),
        _ => 1u128.checked_shl(power),
    };
    // The raw number has 64 bits and a thousand million 30, so the product fits.
    second.map_or(0, |second| (raw * 1_000_000_000 / second) as u64)
}

/// Writes a capture.
pub(super) struct Writer {
    blocks: PcapNgWriter<BufWriter<File>>,
}

impl Writer {
    /// Describes the ports.
    pub(super) fn new(file: File, ports: &[&str]) -> io::Result<Writer> {
        let mut writer =
            Writer { blocks: PcapNgWriter::new(BufWriter::new(file)).map_err(unwritten)? };
        for name in ports {
            let options = vec![
                InterfaceOption::IfName(Cow::Borrowed(name)),
                InterfaceOption::IfTsResol(NANOSECONDS),
            ];
            let (linktype, snaplen) = (DataLink::ETHERNET, 0);
            writer.put(&InterfaceDescriptionBlock { linktype, snaplen, options }.into_block())?;
        }
        Ok(writer)
    }

    /// Adds a frame that left `port`.
    pub(super) fn frame(&mut self, port: PortId, unix_ns: u64, bytes: &[u8]) -> io::Result<()> {
        let block = EnhancedPacketBlock {
            interface_id: u32::from(port.0),
            timestamp: Duration::from_nanos(unix_ns),
            original_len: bytes.len() as u32,
            data: Cow::Borrowed(bytes),
            options: Vec::new(),
        };
        self.put(&block.into_block())
    }

    /// Everything is in the file.
    pub(super) fn finish(self) -> io::Result<()> {
        self.blocks.into_inner().flush()
    }

    fn put(&mut self, block: &Block<'_>) -> io::Result<()> {
        self.blocks.write_block(block).map_err(unwritten)?;
        Ok(())
    }
}

fn unwritten(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(e) => e,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_time() {
        let stamp = 1_700_000_000_123_456_789;
        assert_eq!(nanoseconds(stamp, 9), stamp as u64);
        assert_eq!(nanoseconds(1_700_000_000_123_456, 6), 1_700_000_000_123_456_000);
        assert_eq!(nanoseconds(5, 0), 5_000_000_000);
        assert_eq!(nanoseconds(5_000_000_000_007, 12), 5_000_000_000);
        assert_eq!(nanoseconds((3 << 20) + (1 << 19), 0x80 | 20), 3_500_000_000);
        assert_eq!(nanoseconds(u128::from(u64::MAX), 0x7f), 0);
    }
}
