//! Helpers by name: which programs read a master's packets to expect further conns.
//!
//! A helper is assigned by a rule (`CT --helper NAME`) or by an expectation, never by a port.

use super::tuple::proto;

/// How much a class of a helper may expect (`nf_conntrack_expect_policy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Expectations of one master at once; one more replaces the oldest. 0 is no limit.
    pub max_expected: u8,
    /// Seconds that an expectation waits for its conn.
    pub timeout_secs: u32,
}

/// The policies of all helpers, by their first class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policies([Policy; Helper::ALL.len()]);

impl Default for Policies {
    fn default() -> Policies {
        Policies(Helper::ALL.map(Helper::policy))
    }
}

impl Policies {
    /// That of a helper.
    pub fn of(&self, helper: Helper) -> Policy {
        self.0.get(helper as usize - 1).copied().unwrap_or(helper.policy())
    }

    /// Sets that of a helper.
    pub fn set(&mut self, helper: Helper, policy: Policy) {
        if let Some(place) = self.0.get_mut(helper as usize - 1) {
            *place = policy;
        }
    }
}

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

    /// The kernel's policy.
    pub const fn policy(self) -> Policy {
        match self {
            Helper::Tftp => Policy { max_expected: 1, timeout_secs: 300 },
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
            let mut policies = Policies::default();
            assert_eq!(policies.of(helper), helper.policy());
            let other = Policy { max_expected: 7, timeout_secs: 8 };
            policies.set(helper, other);
            assert_eq!(policies.of(helper), other);
        }
        assert_eq!((Helper::from_name("no"), Helper::from_number(0)), (None, None));
    }
}
