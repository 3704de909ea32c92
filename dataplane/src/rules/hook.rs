//! Hooks, tables and families: the fixed frame that chains hang in.

/// Where in a packet's way rules are asked (`NF_INET_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Hook {
    /// Every packet that arrives.
    Prerouting = 0,
    /// Packets to the gateway itself.
    Input = 1,
    /// Packets that are routed through.
    Forward = 2,
    /// Packets the gateway itself sends.
    Output = 3,
    /// Every packet that leaves.
    Postrouting = 4,
}

impl Hook {
    /// All hooks in the kernel's numbering.
    pub const ALL: [Hook; 5] =
        [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];

    /// The base chain's name.
    pub const fn name(self) -> &'static str {
        match self {
            Hook::Prerouting => "PREROUTING",
            Hook::Input => "INPUT",
            Hook::Forward => "FORWARD",
            Hook::Output => "OUTPUT",
            Hook::Postrouting => "POSTROUTING",
        }
    }

    /// The hook of a base chain's name; names are case sensitive.
    pub fn from_name(name: &str) -> Option<Hook> {
        Hook::ALL.into_iter().find(|hook| hook.name() == name)
    }

    /// Position in arrays by hook.
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// The tables, in the order in which `iptables-save` prints them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// Marks and edits, at every hook.
    Mangle = 0,
    /// Before connection tracking: what shall not be tracked.
    Raw = 1,
    /// What may pass.
    Filter = 2,
    /// Translation, asked once for each conn and side.
    Nat = 3,
}

impl Table {
    /// All tables in printing order.
    pub const ALL: [Table; 4] = [Table::Mangle, Table::Raw, Table::Filter, Table::Nat];

    /// The table's name.
    pub const fn name(self) -> &'static str {
        match self {
            Table::Mangle => "mangle",
            Table::Raw => "raw",
            Table::Filter => "filter",
            Table::Nat => "nat",
        }
    }

    /// The table of that name.
    pub fn from_name(name: &str) -> Option<Table> {
        Table::ALL.into_iter().find(|table| table.name() == name)
    }

    /// The hooks at which the table has a base chain, in the kernel's order.
    pub const fn hooks(self) -> &'static [Hook] {
        match self {
            Table::Mangle => &Hook::ALL,
            Table::Raw => &[Hook::Prerouting, Hook::Output],
            Table::Filter => &[Hook::Input, Hook::Forward, Hook::Output],
            Table::Nat => &[Hook::Prerouting, Hook::Input, Hook::Output, Hook::Postrouting],
        }
    }

    /// True if the table has a base chain at `hook`.
    pub fn has(self, hook: Hook) -> bool {
        self.hooks().contains(&hook)
    }

    /// Position in arrays by table.
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Which address family a ruleset judges; each has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// `iptables`.
    V4,
    /// `ip6tables`.
    V6,
}

impl Family {
    /// Bits in an address.
    pub const fn address_bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    /// The name of the tool whose text the family uses, without suffix.
    pub const fn tool(self) -> &'static str {
        match self {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_and_positions_are_the_declared_ones() {
        for (at, table) in Table::ALL.into_iter().enumerate() {
            assert_eq!(Table::from_name(table.name()), Some(table));
            assert_eq!(table.index(), at);
        }
        for (at, hook) in Hook::ALL.into_iter().enumerate() {
            assert_eq!(Hook::from_name(hook.name()), Some(hook));
            assert_eq!(hook.index(), at);
        }
        assert_eq!(Hook::from_name("input"), None);
    }

    #[test]
    fn nat_has_no_forward_and_raw_only_the_entrances() {
        assert!(!Table::Nat.has(Hook::Forward));
        assert_eq!(Table::Raw.hooks(), [Hook::Prerouting, Hook::Output]);
        assert!(Hook::ALL.into_iter().all(|hook| Table::Mangle.has(hook)));
    }
}
