//! Receive-side scaling: which packets a device spreads over its queues, by what.
//!
//! A key and a redirection table (RETA) are asked for; what counts is what the device says it uses,
//! read back after the start. Drivers keep a key of their own, round the table, or cannot tell.

use crate::errno::Errno;
use crate::ffi;
use crate::port::PortConfig;
use crate::port::opened::Opened;

/// How a device spreads what it receives: the Toeplitz hash under `key` of the fields that
/// `functions` tell; its low bits are the entry of `reta`, which is a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rss {
    /// The key, as long as the device's keys are: 40 bytes, 52 on some.
    pub key: Vec<u8>,
    /// The queue of each entry.
    pub reta: Vec<u16>,
    /// What is hashed.
    pub functions: HashFunctions,
}

/// What a device hashes of a kind of packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hashed {
    /// Nothing: such packets arrive at one queue, mostly the first.
    Nothing,
    /// Source and destination address.
    Addresses,
    /// Source and destination address, source and destination port.
    Ports,
}

/// What a device hashes, by family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashFunctions {
    /// Of IPv4 packets.
    pub v4: FamilyFunctions,
    /// Of IPv6 packets.
    pub v6: FamilyFunctions,
}

/// What a device hashes of the packets of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FamilyFunctions {
    /// Of TCP segments.
    pub tcp: Hashed,
    /// Of UDP datagrams.
    pub udp: Hashed,
    /// Of whatever is neither TCP nor UDP, nor a fragment.
    pub other: Hashed,
    /// Of fragments, the first one too.
    pub fragments: Hashed,
}

impl HashFunctions {
    /// From DPDK's bits. A device takes the most particular function that is on: the one for a
    /// protocol, or else the one for the whole family.
    fn from_bits(bits: u64) -> Self {
        let on = |function: u64| bits & function != 0;
        let family = |all: bool, tcp: u64, udp: u64, other: u64, fragments: u64| {
            let addresses = |on: bool| if on || all { Hashed::Addresses } else { Hashed::Nothing };
            let ports = |function| if on(function) { Hashed::Ports } else { addresses(false) };
            FamilyFunctions {
                tcp: ports(tcp),
                udp: ports(udp),
                other: addresses(on(other)),
                fragments: addresses(on(fragments)),
            }
        };
        Self {
            v4: family(
                on(ffi::shim_rss_ipv4),
                ffi::shim_rss_ipv4_tcp,
                ffi::shim_rss_ipv4_udp,
                ffi::shim_rss_ipv4_other,
                ffi::shim_rss_ipv4_fragments,
            ),
            v6: family(
                on(ffi::shim_rss_ipv6),
                ffi::shim_rss_ipv6_tcp,
                ffi::shim_rss_ipv6_udp,
                ffi::shim_rss_ipv6_other,
                ffi::shim_rss_ipv6_fragments,
            ),
        }
    }
}

/// What is asked of a device that has RSS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// DPDK's bits of the functions; never 0.
    pub(super) functions: u64,
    /// As long as the device's keys; empty for the driver's own.
    pub(super) key: Vec<u8>,
    /// Repeated over the device's table.
    reta: Vec<u16>,
}

impl Asked {
    /// `None` where there is one queue, or nothing the device could spread by. The bits are those
    /// the device has: DPDK refuses others.
    pub(super) fn of(config: &PortConfig, info: &ffi::rte_eth_dev_info) -> Option<Self> {
        let functions = info.flow_type_rss_offloads & ffi::shim_rss_ip_tcp_udp;
        if config.rx_queues < 2 || functions == 0 {
            return None;
        }
        let key = config.rss_key.iter().flat_map(|key| key.iter().cycle().copied());
        let key = key.take(key_size(info)).collect();
        let queues = (0..config.rx_queues).collect();
        let reta = config.rss_reta.clone().unwrap_or(queues);
        Some(Self { functions, key, reta })
    }

    /// Sets up what the device did not take at configure, and reads back what it uses; `None` if
    /// it does not tell. The port is started: some drivers write their own table at the start.
    ///
    /// A refused key or table is no error: the difference shows in what is read back.
    pub(super) fn set_up(&self, opened: &Opened) -> Option<Rss> {
        // The table's size may depend on the number of queues configured.
        let (key_size, reta_size) = opened.rss_sizes().ok()?;
        if reta_size == 0 {
            return None;
        }
        let (mut key, mut functions) = opened.rss_hash(key_size).ok()?;
        if functions != self.functions || (key != self.key && !self.key.is_empty()) {
            let _ = opened.set_rss_hash(&self.key, self.functions);
            (key, functions) = opened.rss_hash(key_size).ok()?;
        }
        let wanted = self.table(reta_size);
        let mut reta = opened.reta(reta_size).ok()?;
        if reta != wanted {
            let _ = opened.set_reta(&wanted);
            reta = opened.reta(reta_size).ok()?;
        }
        let functions = HashFunctions::from_bits(functions);
        Some(Rss { key, reta, functions })
    }

    /// Whether a device kept its own key, and its own table.
    pub(super) fn differs(&self, rss: &Rss) -> (bool, bool) {
        let key = !self.key.is_empty() && rss.key != self.key;
        (key, rss.reta != self.table(rss.reta.len()))
    }

    fn table(&self, size: usize) -> Vec<u16> {
        self.reta.iter().cycle().take(size).copied().collect()
    }
}

impl Opened {
    /// What the started port uses; `None` if it has no RSS or does not tell.
    pub(crate) fn rss(&self) -> Option<Rss> {
        let (key_size, reta_size) = self.rss_sizes().ok()?;
        if reta_size == 0 {
            return None;
        }
        let (key, functions) = self.rss_hash(key_size).ok()?;
        let reta = self.reta(reta_size).ok()?;
        Some(Rss { key, reta, functions: HashFunctions::from_bits(functions) })
    }

    /// Bytes of a key, entries of the table.
    fn rss_sizes(&self) -> Result<(usize, usize), Errno> {
        let mut raw = ffi::rte_eth_dev_info::default();
        // SAFETY: the port is open; the struct is written whole.
        Errno::check(unsafe { ffi::rte_eth_dev_info_get(self.id().0, &mut raw) })?;
        Ok((key_size(&raw), raw.reta_size.into()))
    }

    /// The key of `size` bytes, and the functions that are on.
    fn rss_hash(&self, size: usize) -> Result<(Vec<u8>, u64), Errno> {
        // A size is a u8: no driver writes more than this.
        let mut key = vec![0; 256];
        let mut conf =
            ffi::rte_eth_rss_conf { rss_key: key.as_mut_ptr(), rss_key_len: size as u8, rss_hf: 0 };
        // SAFETY: the port is open; the key has room for the longest there is.
        Errno::check(unsafe { ffi::rte_eth_dev_rss_hash_conf_get(self.id().0, &mut conf) })?;
        key.truncate(size);
        Ok((key, conf.rss_hf))
    }

    /// An empty key leaves the driver's.
    fn set_rss_hash(&self, key: &[u8], functions: u64) -> Result<i32, Errno> {
        let mut key = key.to_vec();
        let mut conf = ffi::rte_eth_rss_conf::default();
        if !key.is_empty() {
            conf.rss_key = key.as_mut_ptr();
            conf.rss_key_len = key.len() as u8;
        }
        conf.rss_hf = functions;
        // SAFETY: the port is open; drivers copy the key during the call.
        Errno::check(unsafe { ffi::rte_eth_dev_rss_hash_update(self.id().0, &mut conf) })
    }

    fn reta(&self, size: usize) -> Result<Vec<u16>, Errno> {
        let mut groups = groups(&vec![0; size]);
        // SAFETY: the port is open; there is a group for each 64 of `size` entries, begun ones too.
        Errno::check(unsafe {
            ffi::rte_eth_dev_rss_reta_query(self.id().0, groups.as_mut_ptr(), size as u16)
        })?;
        Ok(groups.iter().flat_map(|group| group.reta).take(size).collect())
    }

    fn set_reta(&self, reta: &[u16]) -> Result<i32, Errno> {
        let mut groups = groups(reta);
        // SAFETY: as for the query; the groups are only read.
        Errno::check(unsafe {
            ffi::rte_eth_dev_rss_reta_update(self.id().0, groups.as_mut_ptr(), reta.len() as u16)
        })
    }
}

/// Bytes of a device's keys. Some drivers do not tell (`net_null`): theirs have as many as DPDK
/// says a key has.
fn key_size(info: &ffi::rte_eth_dev_info) -> usize {
    const USUAL: usize = 40;
    match info.hash_key_size {
        0 => USUAL,
        size => size.into(),
    }
}

/// A table as DPDK passes it around: groups of 64 entries, with a mask of those meant.
fn groups(reta: &[u16]) -> Vec<ffi::rte_eth_rss_reta_entry64> {
    let group = |entries: &[u16]| {
        let mut group = ffi::rte_eth_rss_reta_entry64::default();
        for (at, queue) in entries.iter().enumerate() {
            group.mask |= 1 << at;
            group.reta[at] = *queue;
        }
        group
    };
    reta.chunks(64).map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_particular_function_goes_before_the_general() {
        use Hashed::{Addresses, Nothing, Ports};
        let family = |tcp, udp, other, fragments| FamilyFunctions { tcp, udp, other, fragments };
        let nothing = family(Nothing, Nothing, Nothing, Nothing);
        let of = HashFunctions::from_bits;
        assert_eq!(of(0), HashFunctions { v4: nothing, v6: nothing });
        let all = family(Ports, Ports, Addresses, Addresses);
        assert_eq!(of(ffi::shim_rss_ip_tcp_udp), HashFunctions { v4: all, v6: all });
        let v4 = of(ffi::shim_rss_ipv4 | ffi::shim_rss_ipv4_tcp);
        let v4_tcp = family(Ports, Addresses, Addresses, Addresses);
        assert_eq!(v4, HashFunctions { v4: v4_tcp, v6: nothing });
        let v6 = of(ffi::shim_rss_ipv6_udp | ffi::shim_rss_ipv6_other);
        let v6_udp = family(Nothing, Ports, Addresses, Nothing);
        assert_eq!(v6, HashFunctions { v4: nothing, v6: v6_udp });
    }

    #[test]
    fn what_is_asked_fits_the_device() {
        let mut info = ffi::rte_eth_dev_info {
            flow_type_rss_offloads: u64::MAX,
            hash_key_size: 52,
            ..Default::default()
        };
        let config = |queues, key: &[u8]| PortConfig {
            rx_queues: queues,
            rss_key: Some(key.to_vec()),
            ..PortConfig::default()
        };
        assert_eq!(Asked::of(&config(1, &[1]), &info), None);
        let asked = Asked::of(&config(3, &[0x6d, 0x5a]), &info).unwrap();
        assert_eq!(asked.functions, ffi::shim_rss_ip_tcp_udp, "nothing that is not IP");
        assert_eq!(asked.key, [0x6d, 0x5a].repeat(26));
        assert_eq!(asked.table(8), [0, 1, 2, 0, 1, 2, 0, 1]);
        info.hash_key_size = 40;
        assert_eq!(Asked::of(&config(3, &[7; 64]), &info).unwrap().key, [7; 40]);
        info.hash_key_size = 0;
        assert_eq!(Asked::of(&config(3, &[7]), &info).unwrap().key, [7; 40], "not told");
        info.flow_type_rss_offloads = !ffi::shim_rss_ip_tcp_udp;
        assert_eq!(Asked::of(&config(3, &[7; 64]), &info), None);
    }

    #[test]
    fn a_table_is_cut_in_groups() {
        let reta: Vec<u16> = (0..70).collect();
        let groups = groups(&reta);
        assert_eq!((groups.len(), groups[0].mask, groups[1].mask), (2, u64::MAX, 0b11_1111));
        assert_eq!((groups[0].reta[63], groups[1].reta[5], groups[1].reta[6]), (63, 69, 0));
    }
}
