//! `-m dccp`: ports, types and options.

use super::{Maybe, PortRange};
use crate::rules::facts::Facts;
use crate::rules::test::Answer;

/// `-m dccp` (`struct xt_dccp_info`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dccp {
    /// `--sport`.
    pub src_port: Option<Maybe<PortRange>>,
    /// `--dport`.
    pub dst_port: Option<Maybe<PortRange>>,
    /// `--dccp-types`: a bit for each.
    pub types: Option<Maybe<u16>>,
    /// `--dccp-option`: not 0.
    pub option: Option<Maybe<u8>>,
}

impl Dccp {
    /// `dccp_mt`.
    pub(in crate::rules) fn judge(&self, facts: &Facts<'_>) -> Answer {
        let port =
            |asked: Option<Maybe<PortRange>>, id| asked.is_none_or(|p| p.judge(p.value.holds(id)));
        if facts.fragment_offset != 0 {
            return Answer::Fails;
        }
        let Some(header) = facts.transport().first_chunk::<12>() else { return Answer::Drop };
        let kind = header[8] >> 1 & 0xf;
        let types = |types: Maybe<u16>| types.judge(types.value >> kind & 1 == 1);
        if !port(self.src_port, facts.src_port)
            || !port(self.dst_port, facts.dst_port)
            || !self.types.is_none_or(types)
        {
            return Answer::Fails;
        }
        let Some(asked) = self.option else { return Answer::Holds };
        let extended = header[8] & 1 == 1;
        match has_option(facts.transport(), kind, extended, header[4], asked.value) {
            Some(has) => asked.judge(has).into(),
            None => Answer::Drop,
        }
    }
}

/// `dccp_find_option`; `None` if the header ends before its options would begin.
fn has_option(l4: &[u8], kind: u8, extended: bool, words: u8, wanted: u8) -> Option<bool> {
    let basic = if extended { 16 } else { 12 };
    // Request; Response; Data; those with an acknowledgement number alone; Reset and unknown ones.
    let more = match kind {
        0 => 4,
        1 => 12,
        2 => 0,
        3..=6 | 8 | 9 => 8,
        _ => 12,
    };
    let mut options = l4.get(basic + more..usize::from(words) * 4)?;
    while let Some((&found, rest)) = options.split_first() {
        if found == wanted {
            return Some(true);
        }
        let length = usize::from(rest.first().copied().unwrap_or(1));
        let skip = if found < 2 { 0 } else { length.saturating_sub(1) };
        options = rest.get(skip..).unwrap_or(&[]);
    }
    Some(false)
}
