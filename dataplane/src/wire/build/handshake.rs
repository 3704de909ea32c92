//! Segments without payload as the kernel's SYNPROXY writes them (`nf_synproxy_core.c`): options in
//! its order and padding, DF, identification 0, TOS 0.

use super::{Ip, Link, TTL, Writer};
use crate::wire::address::Address;
use crate::wire::headers::protocol;
use crate::wire::ipv4;
use crate::wire::tcp::{self, option};

/// TCP options of a handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Maximum segment size.
    pub mss: Option<u16>,
    /// TSval and TSecr.
    pub timestamps: Option<(u32, u32)>,
    /// SACK may be used.
    pub sack_permitted: bool,
    /// Window scale.
    pub window_scale: Option<u8>,
}

impl Options {
    /// What a segment's options say; a scale above 14 counts as 14 (`synproxy_parse_options`).
    pub fn read(bytes: &[u8]) -> Options {
        const SCALE_MAX: u8 = 14;
        let found = tcp::summary(bytes);
        Options {
            mss: found.mss.map(|(mss, _)| mss),
            timestamps: found.timestamps,
            sack_permitted: found.sack_permitted,
            window_scale: found.window_scale.map(|scale| scale.min(SCALE_MAX)),
        }
    }

    /// Their bytes, whole words.
    const fn len(&self) -> usize {
        let mss = if self.mss.is_some() { 4 } else { 0 };
        // SACK has room in the padding of the timestamps.
        let more = match (self.timestamps, self.sack_permitted) {
            (Some(_), _) => 12,
            (None, sack) => 4 * sack as usize,
        };
        mss + more + if self.window_scale.is_some() { 4 } else { 0 }
    }

    fn put(&self, writer: &mut Writer<'_>) -> Option<()> {
        const NOP: u8 = option::NOP;
        let sack = [option::SACK_PERMITTED, 2];
        if let Some(mss) = self.mss {
            let [high, low] = mss.to_be_bytes();
            writer.put(&[option::MSS, 4, high, low])?;
        }
        if let Some((value, echo)) = self.timestamps {
            writer.put(if self.sack_permitted { &sack } else { &[NOP, NOP] })?;
            writer.put(&[option::TIMESTAMPS, 10])?;
            writer.put(&value.to_be_bytes())?;
            writer.put(&echo.to_be_bytes())?;
        } else if self.sack_permitted {
            writer.put(&[NOP, NOP])?;
            writer.put(&sack)?;
        }
        match self.window_scale {
            Some(scale) => writer.put(&[NOP, option::WINDOW_SCALE, 3, scale]),
            None => Some(()),
        }
    }
}

/// A segment to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Address and port that it comes from.
    pub src: (Address, u16),
    /// Address and port that it goes to.
    pub dst: (Address, u16),
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number, written whether there is an ACK or not.
    pub ack: u32,
    /// Flags.
    pub flags: u8,
    /// Window, not scaled.
    pub window: u16,
    /// Options.
    pub options: Options,
}

/// Writes the segment as a frame.
pub fn write(buffer: &mut [u8], link: &Link, segment: &Segment) -> Option<usize> {
    let ip = Ip {
        src: segment.src.0,
        dst: segment.dst.0,
        proto: protocol::TCP,
        ttl: TTL,
        tos: 0,
        id: 0,
        fragment_word: ipv4::DONT_FRAGMENT,
    };
    let header_len = tcp::HEADER_LEN + segment.options.len();
    let mut writer = Writer::new(buffer);
    writer.ip(link, &ip, header_len)?;
    let l4 = writer.len();
    writer.put(&segment.src.1.to_be_bytes())?;
    writer.put(&segment.dst.1.to_be_bytes())?;
    writer.put(&segment.seq.to_be_bytes())?;
    writer.put(&segment.ack.to_be_bytes())?;
    writer.put(&[(header_len as u8 / 4) << 4, segment.flags])?;
    writer.put(&segment.window.to_be_bytes())?;
    writer.put(&[0; 4])?;
    segment.options.put(&mut writer)?;
    writer.finish_l4(&ip, l4, 16)?;
    Some(writer.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::LINK;
    use super::*;
    use crate::wire::headers;
    use crate::wire::tcp::flags;

    fn segment(v6: bool, options: Options) -> Segment {
        let address = |last: u8| match v6 {
            true => Address::v6(0x2001_0db8 << 96 | u128::from(last)),
            false => Address::v4(0x0a00_0000 | u32::from(last)),
        };
        Segment {
            src: (address(1), 80),
            dst: (address(2), 40_000),
            seq: 0xfeed_beef,
            ack: 7,
            flags: flags::SYN | flags::ACK,
            window: 0,
            options,
        }
    }

    /// Bytes of what Linux answers a SYN of Linux with.
    #[test]
    fn options_stand_as_the_kernel_writes_them() {
        let all = Options {
            mss: Some(1460),
            timestamps: Some((0x0102_0304, 0x0506_0708)),
            sack_permitted: true,
            window_scale: Some(7),
        };
        let bytes = |options: Options| {
            let mut buffer = [0; 128];
            let len = write(&mut buffer, &LINK, &segment(false, options)).unwrap();
            buffer[54..len].to_vec()
        };
        let whole = [2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 7];
        assert_eq!(bytes(all), whole);
        let none = Options { timestamps: None, ..all };
        assert_eq!(bytes(none), [2, 4, 5, 0xb4, 1, 1, 4, 2, 1, 3, 3, 7]);
        let only = Options { timestamps: all.timestamps, ..Options::default() };
        assert_eq!(bytes(only), [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(bytes(Options::default()), []);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            v6: bool,
            mss: Option<u16>,
            timestamps: Option<(u32, u32)>,
            sack_permitted: bool,
            window_scale in prop::option::of(0..=14u8),
        ) {
            let options = Options { mss, timestamps, sack_permitted, window_scale };
            let wanted = segment(v6, options);
            let mut buffer = [0; 128];
            let len = write(&mut buffer, &LINK, &wanted).unwrap();
            prop_assert_eq!(write(&mut buffer[..len - 1], &LINK, &wanted), None);
            write(&mut buffer, &LINK, &wanted).unwrap();
            let h = headers::parse(&buffer[..len], len).unwrap();
            prop_assert!(h.l4_check_ok(&buffer));
            prop_assert_eq!((h.src, h.src_port, h.dst, h.dst_port),
                (wanted.src.0, wanted.src.1, wanted.dst.0, wanted.dst.1));
            let view = tcp::View::new(&buffer[h.l4 as usize..len]).unwrap();
            prop_assert_eq!((view.seq(), view.ack(), view.window()), (wanted.seq, 7, 0));
            let read = view.options(&buffer[h.l4 as usize..len]).unwrap();
            prop_assert_eq!(Options::read(read), options);
        }
    }
}
