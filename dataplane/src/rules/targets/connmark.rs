//! `-j CONNMARK`: marks between packets and conns (`connmark_tg_shift`).

/// What a rule does with the two marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkMode {
    /// The conn gets a mark: its own without the bits of `ct_mask`, XOR `mark`, then shifted.
    Set,
    /// The conn gets the packet's bits of `packet_mask`, shifted, in place of its own of `ct_mask`
    /// (XOR, where masks differ).
    Save,
    /// The packet gets the conn's bits of `ct_mask`, shifted, in place of its own of `packet_mask`.
    Restore,
}

/// Where bits are moved (revision 2 of the target); counts are below 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shift {
    /// Towards the high end; by 0 is nowhere.
    Left(u8),
    /// Towards the low end.
    Right(u8),
}

impl Shift {
    const fn apply(self, bits: u32) -> u32 {
        match self {
            Shift::Left(count) => bits << (count & 31),
            Shift::Right(count) => bits >> (count & 31),
        }
    }
}

/// `-j CONNMARK` (`struct xt_connmark_tginfo2`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnMark {
    /// What is done.
    pub mode: MarkMode,
    /// `--set-xmark`: bits to flip after clearing.
    pub mark: u32,
    /// Bits of the conn's mark.
    pub ct_mask: u32,
    /// Bits of the packet's mark.
    pub packet_mask: u32,
    /// `--left-shift-mark`, `--right-shift-mark`.
    pub shift: Shift,
}

/// The marks of a packet and of its conn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// The packet's.
    pub packet: u32,
    /// The conn's.
    pub conn: u32,
}

impl ConnMark {
    /// Both marks after the target.
    pub const fn apply(&self, marks: Marks) -> Marks {
        let Marks { packet, conn } = marks;
        match self.mode {
            MarkMode::Set => {
                let conn = self.shift.apply((conn & !self.ct_mask) ^ self.mark);
                Marks { packet, conn }
            }
            MarkMode::Save => {
                let saved = self.shift.apply(packet & self.packet_mask);
                Marks { packet, conn: (conn & !self.ct_mask) ^ saved }
            }
            MarkMode::Restore => {
                let restored = self.shift.apply(conn & self.ct_mask);
                Marks { packet: (packet & !self.packet_mask) ^ restored, conn }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_go_where_the_kernel_puts_them() {
        let start = ConnMark {
            mode: MarkMode::Set,
            mark: 5,
            ct_mask: u32::MAX,
            packet_mask: u32::MAX,
            shift: Shift::Left(0),
        };
        let marks = Marks { packet: 0xabcd, conn: 0x1234 };
        assert_eq!(start.apply(marks), Marks { conn: 5, ..marks });
        let masked = ConnMark { ct_mask: 0xff, shift: Shift::Left(4), ..start };
        assert_eq!(masked.apply(marks), Marks { conn: 0x1_2050, ..marks });
        let save = ConnMark { mode: MarkMode::Save, mark: 0, ..start };
        assert_eq!(save.apply(marks), Marks { conn: 0xabcd, ..marks });
        let save = ConnMark { packet_mask: 0xff, ct_mask: 0xff00, ..save };
        assert_eq!(save.apply(marks), Marks { conn: 0x34 ^ 0xcd, ..marks });
        let save = ConnMark { packet_mask: 0xff, ct_mask: 0xff00, shift: Shift::Left(8), ..save };
        assert_eq!(save.apply(marks), Marks { conn: 0xcd34, ..marks });
        let restore = ConnMark { mode: MarkMode::Restore, shift: Shift::Right(8), ..save };
        assert_eq!(restore.apply(marks), Marks { packet: 0xab00 ^ 0x12, ..marks });
    }
}
