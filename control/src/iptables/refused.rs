//! Matches, targets and tables that iptables knows and that have no meaning here, and why.
//!
//! A gateway in user space has no processes of its own, no sockets, no bridges and no queueing
//! disciplines. Whoever brings a file that asks for one of these learns the reason at the word.

/// Name of a match or target, and why there is none.
const HOST_ONLY: &[(&str, &str)] = &[
    ("AUDIT", "there is no audit log of a kernel"),
    ("CHECKSUM", "checksums are always right when a packet leaves"),
    ("CLASSIFY", "there are no queueing disciplines"),
    ("CLUSTERIP", "it shares an address among hosts of one wire, which is not a gateway's work"),
    ("CONNSECMARK", "conns have no security marks"),
    ("IDLETIMER", "its timers report to a host's user space"),
    ("LED", "there are no lights to switch"),
    ("MIRROR", "Linux has given it up"),
    ("NFQUEUE", "no program waits at a queue for packets"),
    ("QUEUE", "no program waits at a queue for packets"),
    ("RATEEST", "there are no rate estimators of a kernel"),
    ("SECMARK", "packets have no security marks"),
    ("TPROXY", "packets end at no local socket"),
    ("ULOG", "Linux has given it up; use NFLOG"),
    ("bpf", "there is no kernel to run programs"),
    ("cgroup", "packets belong to no process"),
    ("cluster", "it shares an address among hosts of one wire, which is not a gateway's work"),
    ("cpu", "packets are placed on workers, not on a kernel's CPUs"),
    ("devgroup", "ports have no groups"),
    ("ipvs", "there are no virtual servers of a kernel"),
    ("nfacct", "there are no accounting objects of a kernel"),
    ("osf", "there is no list of fingerprints in a kernel"),
    ("owner", "packets belong to no process"),
    ("physdev", "there are no bridges"),
    ("policy", "there is no IPsec"),
    ("rateest", "there are no rate estimators of a kernel"),
    ("realm", "routes have no realms"),
    ("socket", "packets end at no local socket"),
    ("unclean", "Linux has given it up"),
];

/// Why there is no match or target of that name, if there is a reason.
fn reason(word: &str) -> Option<&'static str> {
    HOST_ONLY.iter().find(|(name, _)| *name == word).map(|(_, reason)| *reason)
}

/// True for a target of these: matches have names in small letters, which chains may have too.
pub(super) fn is_target(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_uppercase()) && reason(word).is_some()
}

/// What to say of a match or target that there is not; `what` is which of both.
pub(super) fn sentence(what: &str, word: &str) -> String {
    match reason(word) {
        Some(reason) => format!("{what} `{word}' is not supported: {reason}"),
        None => format!("{what} `{word}' is not supported"),
    }
}

/// What to say of a table that there is not.
pub fn table_sentence(name: &str) -> String {
    match name {
        "security" => {
            "table `security' is not supported: packets have no security marks".to_owned()
        }
        _ => format!("table `{name}' does not exist"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iptables::extensions;
    use dataplane::rules::hook::Family;

    #[test]
    fn what_is_refused_is_not_built() {
        for (name, _) in HOST_ONLY {
            for family in [Family::V4, Family::V6] {
                assert!(extensions::match_named(name, family).is_none(), "{name}");
                assert!(extensions::target_named(name, family).is_none(), "{name}");
            }
        }
        let owner = "match `owner' is not supported: packets belong to no process";
        assert_eq!(sentence("match", "owner"), owner);
        assert!(is_target("NFQUEUE") && !is_target("owner") && !is_target("ACCEPT"));
        assert_eq!(sentence("target", "TEE"), "target `TEE' is not supported");
    }
}
