//! `sluicegate sysctl` beside the kernel's: the same keys in the same order, with the same
//! defaults, and the same values taken and refused with the same words.

use std::process::{Output, Stdio};

use crate::netns::Namespace;
use crate::rig::{Rig, Wish};

/// Keys of the kernel that may be missing: what they govern is not there either.
const MAY_BE_MISSING: &[&str] = &["frag6_high_thresh", "frag6_low_thresh", "frag6_timeout"];

/// What the keys of DCCP begin with, which the kernel lost with its tracker in 6.16.
const GONE: &str = "dccp_";

/// Keys whose values are the table's own, not the kernel's.
const OF_THE_TABLE: &[&str] = &["buckets", "count", "expect_max", "max"];

const PREFIX: &str = "net.netfilter.nf_conntrack_";

fn keys(text: &str) -> Vec<(String, String)> {
    let pairs = text.lines().filter_map(|line| line.split_once(" = "));
    let ours = pairs.filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value)));
    ours.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn outcome(output: &Output) -> (String, String, Option<i32>) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

#[test]
fn keys_values_and_refusals_are_the_kernel_s() {
    let rig = Rig::new(Wish::default());
    let kernel = Namespace::new("sysctl");
    let theirs = keys(&String::from_utf8_lossy(&kernel.try_run("sysctl -a").stdout));
    let mut ours = keys(&rig.files().ask("sysctl -a"));
    ours.retain(|(key, _)| !key.starts_with(GONE));
    assert!(theirs.len() > 40, "{theirs:?}");
    let names = |keys: &[(String, String)]| -> Vec<String> {
        keys.iter().map(|(key, _)| key.clone()).collect()
    };
    let (here, there) = (names(&ours), names(&theirs));
    let missing = |key: &&String| !here.contains(key);
    for key in there.iter().filter(missing) {
        assert!(MAY_BE_MISSING.iter().any(|m| key.starts_with(m)), "{key} is missing");
    }
    let common: Vec<&String> = there.iter().filter(|key| here.contains(key)).collect();
    assert_eq!(here.iter().collect::<Vec<_>>(), common, "the order, and no key of our own");
    for (key, value) in ours.iter().filter(|(key, _)| !OF_THE_TABLE.contains(&key.as_str())) {
        let default = theirs.iter().find(|(name, _)| name == key).map(|(_, value)| value);
        assert_eq!(Some(value), default, "the default of {key}");
        for number in ["0", "1", "2", "3", "255", "256", "65536", "8589934", "abc", "7x", ""] {
            let words = format!("sysctl -w {PREFIX}{key}={number}");
            let theirs = kernel.command(&words).stdin(Stdio::null()).output().expect("sysctl");
            let ours = rig.files().tool(&words.split(' ').collect::<Vec<_>>());
            assert_eq!(outcome(&ours), outcome(&theirs), "{words}");
            let words = format!("sysctl -n {PREFIX}{key}");
            let now = kernel.run(&words);
            assert_eq!(rig.files().ask(&words), now, "{key} after {number}");
        }
        let back = format!("sysctl -w {PREFIX}{key}={value}");
        kernel.run(&back);
        rig.files().ask(&back);
    }
}
