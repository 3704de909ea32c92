//! Timeout policies by name: what `CT --timeout` gives a conn instead of the sysctls' timeouts.
//!
//! A conn keeps the number of its policy in its extension block. A policy keeps its number as long
//! as each reload names it, so a conn keeps its policy across reloads; if a reload gives it other
//! values, they count from the conn's next packet on. The conns of a policy that is gone follow the
//! sysctls from then on, as in the kernel (`nf_ct_untimeout`): one that comes later under the same
//! name is another one, with a number of its own.

use super::knobs::Knobs;
use super::timeouts::Timeouts;

/// Policies there can be in the life of a process: a conn has eight bits for its policy.
pub const POLICIES_MAX: usize = 255;

/// All policies, immutable in a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies(Vec<Policy>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Policy {
    /// Empty if it is gone: no name is.
    name: String,
    /// All knobs, with the policy's timeouts; `None` if it is gone.
    knobs: Option<Knobs>,
}

impl Policies {
    /// The policies `named`, those that are there already under their numbers; `None` if there have
    /// been more than [`POLICIES_MAX`]. `knobs` are the sysctls.
    pub fn next(&self, named: &[(String, Timeouts)], knobs: &Knobs) -> Option<Policies> {
        let stays = |policy: &Policy| named.iter().any(|(name, _)| *name == policy.name);
        let kept = |policy: &Policy| {
            let name = if stays(policy) { policy.name.clone() } else { String::new() };
            Policy { name, knobs: None }
        };
        let mut all: Vec<Policy> = self.0.iter().map(kept).collect();
        for (name, timeouts) in named {
            let knobs = Some(Knobs { timeouts: *timeouts, ..*knobs });
            match all.iter_mut().find(|policy| policy.name == *name) {
                Some(policy) => policy.knobs = knobs,
                None => all.push(Policy { name: name.clone(), knobs }),
            }
        }
        (all.len() <= POLICIES_MAX).then_some(Policies(all))
    }

    /// The number of a policy, from 1.
    pub fn number(&self, name: &str) -> Option<u8> {
        let is = |policy: &Policy| policy.name == name && policy.knobs.is_some();
        u8::try_from(self.0.iter().position(is)? + 1).ok()
    }

    /// The knobs for conns with policy `number`; `None` where the sysctls count.
    #[inline]
    pub fn knobs(&self, number: u8) -> Option<&Knobs> {
        self.0.get(usize::from(number.checked_sub(1)?))?.knobs.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::super::timeouts::Timeout;
    use super::*;

    fn udp(secs: u32) -> Timeouts {
        let mut timeouts = Timeouts::default();
        timeouts.set(Timeout::Udp, secs);
        timeouts
    }

    #[test]
    fn a_name_keeps_its_number_and_a_policy_that_is_gone_says_nothing() {
        let named = |list: &[(&str, u32)]| -> Vec<(String, Timeouts)> {
            list.iter().map(|(name, secs)| ((*name).to_owned(), udp(*secs))).collect()
        };
        let secs = |p: &Policies, n| p.knobs(n).map(|k| k.timeouts.get(Timeout::Udp));
        let knobs = Knobs { acct: true, ..Knobs::default() };
        let first = Policies::default().next(&named(&[("a", 1), ("b", 2)]), &knobs).unwrap();
        assert_eq!(
            (first.number("a"), first.number("b"), first.number("c")),
            (Some(1), Some(2), None)
        );
        assert_eq!((secs(&first, 0), secs(&first, 1), secs(&first, 3)), (None, Some(1), None));
        assert!(first.knobs(2).unwrap().acct, "switches are everybody's");
        let second = first.next(&named(&[("c", 3), ("b", 9)]), &knobs).unwrap();
        assert_eq!(
            (second.number("a"), second.number("b"), second.number("c")),
            (None, Some(2), Some(3))
        );
        assert_eq!(
            (secs(&second, 1), secs(&second, 2), secs(&second, 3)),
            (None, Some(9), Some(3))
        );
        let third = second.next(&named(&[("a", 4)]), &knobs).unwrap();
        assert_eq!((third.number("a"), secs(&third, 1), secs(&third, 4)), (Some(4), None, Some(4)));
        let many: Vec<_> = (0..=POLICIES_MAX).map(|n| (n.to_string(), udp(1))).collect();
        assert!(Policies::default().next(&many, &knobs).is_none());
        assert_eq!(Policies::default().next(&many[1..], &knobs).unwrap().number("255"), Some(255));
    }
}
