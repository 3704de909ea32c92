//! The types of sets (`struct ip_set_type`).

/// A part of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// An address.
    Ip,
    /// An address with a prefix length.
    Net,
    /// A protocol and a port, or what stands for one.
    Port,
    /// The packet's mark.
    Mark,
    /// A MAC address.
    Mac,
}

/// How elements are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// As many as `maxelem` says.
    Hash,
    /// Those of a range.
    Bitmap,
    /// Names of other sets.
    List,
}

/// A type.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its name.
    pub name: &'static str,
    /// The revision that the kernel has of it.
    pub revision: u8,
    /// How elements are kept.
    pub storage: Storage,
    /// What an element consists of, in the order of a rule's `src,dst`.
    pub parts: &'static [Part],
}

use Part::{Ip, Mac, Mark, Net, Port};

const fn hash(name: &'static str, revision: u8, parts: &'static [Part]) -> Kind {
    Kind { name, revision, storage: Storage::Hash, parts }
}

/// All types.
pub static KINDS: [Kind; 14] = [
    hash("hash:ip", 6, &[Ip]),
    hash("hash:net", 7, &[Net]),
    hash("hash:ip,port", 7, &[Ip, Port]),
    hash("hash:net,port", 8, &[Net, Port]),
    hash("hash:ip,port,ip", 6, &[Ip, Port, Ip]),
    hash("hash:ip,port,net", 8, &[Ip, Port, Net]),
    hash("hash:net,port,net", 3, &[Net, Port, Net]),
    hash("hash:net,net", 4, &[Net, Net]),
    hash("hash:ip,mark", 3, &[Ip, Mark]),
    hash("hash:ip,mac", 1, &[Ip, Mac]),
    hash("hash:mac", 1, &[Mac]),
    Kind { name: "bitmap:ip", revision: 3, storage: Storage::Bitmap, parts: &[Ip] },
    Kind { name: "bitmap:port", revision: 3, storage: Storage::Bitmap, parts: &[Port] },
    Kind { name: "list:set", revision: 3, storage: Storage::List, parts: &[] },
];

impl Kind {
    /// The type of that name.
    pub fn named(name: &str) -> Option<&'static Kind> {
        KINDS.iter().find(|kind| kind.name == name)
    }

    /// True if an element has such a part.
    pub fn has(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }

    /// Parts that a rule names at least (`dimension`).
    pub fn dimension(&self) -> usize {
        self.parts.len().max(1)
    }

    /// True if elements are of one family.
    pub fn has_family(&self) -> bool {
        self.has(Ip) || self.has(Net)
    }

    /// True if elements can be exceptions (`nomatch`).
    pub fn takes_nomatch(&self) -> bool {
        self.has(Net)
    }
}
