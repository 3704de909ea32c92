//! Helpers by name: which programs read a master's packets to expect further conns.
//!
//! A helper is assigned by a rule (`CT --helper NAME`) or by an expectation, never by a port.

use super::tuple::proto;

/// A helper, as a number that fits a conn's extension block; 0 there means none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Helper {
    /// TFTP (RFC 1350).
    Tftp = 1,
}

impl Helper {
    /// All of them.
    pub const ALL: [Helper; 1] = [Helper::Tftp];

    /// As `CT --helper` and listings write it.
    pub const fn name(self) -> &'static str {
        match self {
            Helper::Tftp => "tftp",
        }
    }

    /// The protocol of its masters.
    pub const fn proto(self) -> u8 {
        match self {
            Helper::Tftp => proto::UDP,
        }
    }

    /// The helper of a name.
    pub fn from_name(name: &str) -> Option<Helper> {
        Helper::ALL.into_iter().find(|helper| helper.name() == name)
    }

    /// The helper of a number.
    pub fn from_number(number: u8) -> Option<Helper> {
        Helper::ALL.into_iter().find(|helper| *helper as u8 == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_lead_back() {
        for helper in Helper::ALL {
            assert_eq!(Helper::from_name(helper.name()), Some(helper));
            assert_eq!(Helper::from_number(helper as u8), Some(helper));
        }
        assert_eq!((Helper::from_name("no"), Helper::from_number(0)), (None, None));
    }
}
