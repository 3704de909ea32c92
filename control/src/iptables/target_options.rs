//! The options of targets: which there are and what they set.

use dataplane::conntrack::tuple::proto;
use dataplane::rules::hook::Family;
use dataplane::rules::matches::Maybe;
use dataplane::rules::targets::{Log, NatOptions, SetMark, Target};
use dataplane::rules::template::{Ct, Side};

use super::ct::{self, CtKey};
use super::match_options::Opt;
use super::names;
use super::values::{self, Fault};

/// What an option of a target sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    RejectWith,
    LogPrefix,
    LogLevel,
    LogFlag(u8),
    Ct(CtKey),
    SetMark,
    SetXmark,
    AndMark,
    OrMark,
    XorMark,
    ToAddress,
    ToPorts,
    Random,
    RandomFully,
    Persistent,
}

const fn valued(name: &'static str, key: Key) -> Opt<Key> {
    Opt { name, key, takes: 1, not: false }
}

const fn flag(name: &'static str, key: Key) -> Opt<Key> {
    Opt { name, key, takes: 0, not: false }
}

const REJECT: &[Opt<Key>] = &[valued("reject-with", Key::RejectWith)];
const LOG: &[Opt<Key>] = &[
    valued("log-level", Key::LogLevel),
    valued("log-prefix", Key::LogPrefix),
    flag("log-tcp-sequence", Key::LogFlag(Log::TCP_SEQUENCE)),
    flag("log-tcp-options", Key::LogFlag(Log::TCP_OPTIONS)),
    flag("log-ip-options", Key::LogFlag(Log::IP_OPTIONS)),
    flag("log-uid", Key::LogFlag(Log::UID)),
    flag("log-macdecode", Key::LogFlag(Log::MAC_DECODE)),
];
const CT: &[Opt<Key>] = &[
    flag("notrack", Key::Ct(CtKey::Notrack)),
    valued("helper", Key::Ct(CtKey::Helper)),
    valued("timeout", Key::Ct(CtKey::Timeout)),
    valued("ctevents", Key::Ct(CtKey::CtEvents)),
    valued("expevents", Key::Ct(CtKey::ExpEvents)),
    valued("zone", Key::Ct(CtKey::Zone(Side::Both))),
    valued("zone-orig", Key::Ct(CtKey::Zone(Side::Original))),
    valued("zone-reply", Key::Ct(CtKey::Zone(Side::Reply))),
];
const MARK: &[Opt<Key>] = &[
    valued("set-xmark", Key::SetXmark),
    valued("set-mark", Key::SetMark),
    valued("and-mark", Key::AndMark),
    valued("or-mark", Key::OrMark),
    valued("xor-mark", Key::XorMark),
];
const SNAT: &[Opt<Key>] = &[
    valued("to-source", Key::ToAddress),
    flag("random", Key::Random),
    flag("random-fully", Key::RandomFully),
    flag("persistent", Key::Persistent),
];
const DNAT: &[Opt<Key>] = &[
    valued("to-destination", Key::ToAddress),
    flag("random", Key::Random),
    flag("persistent", Key::Persistent),
];
const MASQUERADE: &[Opt<Key>] = &[
    valued("to-ports", Key::ToPorts),
    flag("random", Key::Random),
    flag("random-fully", Key::RandomFully),
];
const REDIRECT: &[Opt<Key>] = &[valued("to-ports", Key::ToPorts), flag("random", Key::Random)];

/// A target while its options are read.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    target: Target,
    /// Options seen, which may come only once.
    seen: Vec<Key>,
}

impl Loaded {
    /// The target of a word; anything that is no target's name is a chain.
    ///
    /// # Errors
    /// A target that iptables has and this gateway does not.
    pub(super) fn new(word: &str, family: Family) -> Result<Loaded, Fault> {
        let target = match word {
            "ACCEPT" => Target::Accept,
            "DROP" => Target::Drop,
            "RETURN" => Target::Return,
            "REJECT" => Target::Reject(names::default_reject(family)),
            "LOG" => {
                Target::Log(Log { prefix: String::new(), level: Log::DEFAULT_LEVEL, flags: 0 })
            }
            "CT" => Target::Ct(Ct::default()),
            "NOTRACK" => Target::Notrack,
            "MARK" => Target::Mark(SetMark { value: 0, mask: 0 }),
            "SNAT" => Target::Snat(NatOptions::default()),
            "DNAT" => Target::Dnat(NatOptions::default()),
            "MASQUERADE" => Target::Masquerade(NatOptions::default()),
            "REDIRECT" => Target::Redirect(NatOptions::default()),
            _ if names::UNSUPPORTED_TARGETS.contains(&word) => {
                return Err(format!("target `{word}' is not supported"));
            }
            chain => Target::Jump(chain.to_owned()),
        };
        Ok(Loaded { target, seen: Vec::new() })
    }

    /// `-g`.
    pub(super) fn goto(chain: &str) -> Loaded {
        Loaded { target: Target::Goto(chain.to_owned()), seen: Vec::new() }
    }

    /// The target's options.
    pub(super) const fn options(&self) -> &'static [Opt<Key>] {
        match &self.target {
            Target::Reject(_) => REJECT,
            Target::Log(_) => LOG,
            Target::Ct(_) => CT,
            Target::Mark(_) => MARK,
            Target::Snat(_) => SNAT,
            Target::Dnat(_) => DNAT,
            Target::Masquerade(_) => MASQUERADE,
            Target::Redirect(_) => REDIRECT,
            _ => &[],
        }
    }

    /// Takes an option.
    pub(super) fn set(
        &mut self,
        option: &Opt<Key>,
        text: &str,
        family: Family,
    ) -> Result<(), Fault> {
        if self.seen.contains(&option.key) {
            let (name, target) = (option.name, self.target.name());
            return Err(format!("{target}: option `--{name}' can be given only once"));
        }
        self.seen.push(option.key);
        match &mut self.target {
            Target::Reject(with) => {
                *with = names::reject(text, family)
                    .ok_or_else(|| format!("unknown reject type `{text}'"))?;
            }
            Target::Log(log) => set_log(log, option.key, text)?,
            Target::Ct(options) => {
                if let Key::Ct(key) = option.key {
                    ct::set(options, key, text)?;
                }
            }
            Target::Mark(mark) => {
                if self.seen.len() > 1 {
                    return Err("MARK: only one of its options can be given".to_owned());
                }
                *mark = set_mark(option.key, text)?;
            }
            Target::Dnat(options) => set_nat(options, option.key, text, family, true)?,
            Target::Snat(options) | Target::Masquerade(options) | Target::Redirect(options) => {
                set_nat(options, option.key, text, family, false)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The target, once all options are read.
    pub(super) fn finish(mut self, proto: Option<Maybe<u8>>) -> Result<Target, Fault> {
        if let Target::Ct(options) = &mut self.target {
            ct::settle(options);
        }
        let missing = |option: &str| {
            Err(format!("{}: option `--{option}' must be specified", self.target.name()))
        };
        match &self.target {
            Target::Ct(options) if let Some(fault) = ct::fault(options, proto) => Err(fault),
            Target::Mark(_) if self.seen.is_empty() => missing("set-xmark"),
            Target::Snat(_) if !self.seen.contains(&Key::ToAddress) => missing("to-source"),
            Target::Dnat(_) if !self.seen.contains(&Key::ToAddress) => missing("to-destination"),
            Target::Snat(options)
            | Target::Dnat(options)
            | Target::Masquerade(options)
            | Target::Redirect(options)
                if options.ports.is_some() && !proto.is_some_and(|p| has_ports(p.value)) =>
            {
                Err(format!(
                    "{}: ports need `-p' with TCP, UDP, SCTP, DCCP or ICMP",
                    self.target.name()
                ))
            }
            _ => Ok(self.target),
        }
    }
}

fn has_ports(number: u8) -> bool {
    matches!(
        number,
        proto::TCP | proto::UDP | proto::SCTP | proto::DCCP | proto::ICMP | proto::ICMPV6
    )
}

fn set_log(log: &mut Log, key: Key, text: &str) -> Result<(), Fault> {
    match key {
        Key::LogFlag(bit) => log.flags |= bit,
        Key::LogLevel => {
            log.level =
                names::log_level(text).ok_or_else(|| format!("log level `{text}' unknown"))?;
        }
        _ if text.is_empty() => return Err("LOG: the prefix must not be empty".to_owned()),
        _ => {
            // As iptables, which cuts what does not fit.
            let end = (0..=Log::MAX_PREFIX).rev().find(|&end| text.is_char_boundary(end));
            log.prefix = text.get(..end.unwrap_or(0)).unwrap_or(text).to_owned();
        }
    }
    Ok(())
}

fn set_mark(key: Key, text: &str) -> Result<SetMark, Fault> {
    Ok(match key {
        Key::SetMark => {
            let mark = values::masked(text)?;
            SetMark { value: mark.value, mask: mark.value | mark.mask }
        }
        Key::SetXmark => {
            let mark = values::masked(text)?;
            SetMark { value: mark.value, mask: mark.mask }
        }
        Key::AndMark => SetMark { value: 0, mask: !values::number(text)? },
        Key::OrMark => {
            let bits = values::number(text)?;
            SetMark { value: bits, mask: bits }
        }
        _ => SetMark { value: values::number(text)?, mask: 0 },
    })
}

fn set_nat(
    options: &mut NatOptions,
    key: Key,
    text: &str,
    family: Family,
    base: bool,
) -> Result<(), Fault> {
    match key {
        Key::ToAddress => values::nat_range(text, family, base, options)?,
        Key::ToPorts => values::nat_ports(text, false, options)?,
        Key::Random => options.random = true,
        Key::RandomFully => options.random_fully = true,
        _ => options.persistent = true,
    }
    Ok(())
}
