//! CRC32c (RFC 9260 appendix A), which SCTP has for a checksum: eight bytes at a step.
//!
//! Pure; the tables are made when compiling. The sum is over the packet from the SCTP header on
//! with the field itself counted as zero, in however many pieces.

/// The Castagnoli polynomial, bits reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// What a byte does to the sum when `row` bytes follow it in its step.
static TABLES: [[u32; 256]; 8] = {
    let mut tables = [[0u32; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut row = 1;
    while row < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[row - 1][byte];
            tables[row][byte] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        row += 1;
    }
    tables
};

/// A sum in the making.
#[derive(Clone, Copy, Debug)]
pub struct Crc32c(u32);

impl Default for Crc32c {
    fn default() -> Crc32c {
        Crc32c(u32::MAX)
    }
}

impl Crc32c {
    /// Adds the next bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        let (steps, rest) = bytes.as_chunks::<8>();
        let mut crc = self.0;
        for step in steps {
            let [a, b, c, d, e, f, g, h] = *step;
            let low = (crc ^ u32::from_le_bytes([a, b, c, d])).to_le_bytes();
            let at = |row: usize, byte: u8| TABLES[row][byte as usize];
            crc = at(7, low[0])
                ^ at(6, low[1])
                ^ at(5, low[2])
                ^ at(4, low[3])
                ^ at(3, e)
                ^ at(2, f)
                ^ at(1, g)
                ^ at(0, h);
        }
        for byte in rest {
            crc = crc >> 8 ^ TABLES[0][(crc as u8 ^ byte) as usize];
        }
        self.0 = crc;
    }

    /// The sum, as it stands in a packet with its first byte lowest.
    pub const fn finish(self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(bytes: &[u8]) -> u32 {
        let mut crc = Crc32c::default();
        crc.add(bytes);
        crc.finish()
    }

    /// Bit by bit, as the appendix has it.
    fn slowly(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ *byte as u32, |crc, _| {
                crc >> 1 ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 }
            })
        })
    }

    #[test]
    fn golden() {
        assert_eq!(whole(b"123456789"), 0xe306_9283);
        assert_eq!(whole(&[0; 32]), 0x8a91_36aa, "RFC 3720 appendix B.4");
        assert_eq!(whole(b""), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces(
            bytes in proptest::collection::vec(any::<u8>(), 0..100), cuts: [u8; 2],
        ) {
            let at = |cut: u8| cut as usize % (bytes.len() + 1);
            let (a, b) = (at(cuts[0]).min(at(cuts[1])), at(cuts[0]).max(at(cuts[1])));
            let mut crc = Crc32c::default();
            for piece in [&bytes[..a], &bytes[a..b], &bytes[b..]] {
                crc.add(piece);
            }
            prop_assert_eq!(crc.finish(), slowly(&bytes));
        }
    }
}
