//! What a device does for the gateway, if it can: checksums verified, scattered frames received and
//! sent, sent mbufs freed fast.
//!
//! An offload that is not needed is not free: many drivers have a faster way to send for ports
//! that never send chains, and choose it at configure.

use crate::ffi;

/// What is wanted of a port; what its device lacks is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offloads {
    /// Verify the checksums of received packets; [`crate::Mbuf::checksums`] tells the result.
    pub rx_checksums: bool,
    /// Frames of several segments are sent as they are. Where no port of the process receives or
    /// makes any this may be off; what comes all the same is made one segment, or dropped.
    pub chains: bool,
    /// Free sent mbufs in bulk, unseen (`MBUF_FAST_FREE`). Right only where all that is sent comes
    /// from the pool given to `configure`; an mbuf of another pool is dropped, not sent. This crate
    /// has no shared mbufs, the other condition. Left out together with `chains`: drivers that free
    /// unseen would free a segment with its successor still attached.
    pub fast_free: bool,
}

impl Default for Offloads {
    fn default() -> Self {
        Self { rx_checksums: false, chains: true, fast_free: false }
    }
}

/// Drivers that, asked to verify checksums, let packets in that never had one: the peer on the same
/// machine leaves them to whoever sends them on a wire. Not asked, they have the peer write them.
const UNWRITTEN: &[&str] = &["net_virtio", "net_virtio_user", "net_vhost"];

impl Offloads {
    /// What of this may be asked of a driver.
    pub(super) fn of_driver(self, driver: &str) -> Self {
        Self { rx_checksums: self.rx_checksums && !UNWRITTEN.contains(&driver), ..self }
    }
}

/// What a port's device does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offloading {
    /// It verifies IPv4 header checksums.
    pub ipv4_checksum: bool,
    /// It verifies TCP checksums.
    pub tcp_checksum: bool,
    /// It verifies UDP checksums.
    pub udp_checksum: bool,
    /// A frame larger than an mbuf fills several.
    pub scatter: bool,
    /// Frames of several segments are sent as they are.
    pub chains: bool,
    /// Sent mbufs are freed in bulk, unseen.
    pub fast_free: bool,
}

/// DPDK's bits for a port: (receive, transmit).
pub(super) fn choose(wanted: Offloads, scatter: bool, info: &ffi::rte_eth_dev_info) -> (u64, u64) {
    let checksums = ffi::shim_rx_offload_ipv4_checksum
        | ffi::shim_rx_offload_tcp_checksum
        | ffi::shim_rx_offload_udp_checksum;
    let when = |on: bool, bits: u64| if on { bits } else { 0 };
    let rx = when(wanted.rx_checksums, checksums) | when(scatter, ffi::shim_rx_offload_scatter);
    // A port that scatters will meet its own chains again.
    let chains = wanted.chains || scatter;
    let tx = when(chains, ffi::shim_tx_offload_multi_segs)
        | when(wanted.fast_free && !chains, ffi::shim_tx_offload_fast_free);
    (rx & info.rx_offload_capa, tx & info.tx_offload_capa)
}

impl Offloading {
    /// From DPDK's bits. `scatters` and `gathers` are of drivers that do so without a bit.
    pub(super) fn from_bits((rx, tx): (u64, u64), scatters: bool, gathers: bool) -> Self {
        Self {
            ipv4_checksum: rx & ffi::shim_rx_offload_ipv4_checksum != 0,
            tcp_checksum: rx & ffi::shim_rx_offload_tcp_checksum != 0,
            udp_checksum: rx & ffi::shim_rx_offload_udp_checksum != 0,
            scatter: rx & ffi::shim_rx_offload_scatter != 0 || scatters,
            chains: tx & ffi::shim_tx_offload_multi_segs != 0 || gathers,
            fast_free: tx & ffi::shim_tx_offload_fast_free != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(rx: u64, tx: u64) -> ffi::rte_eth_dev_info {
        ffi::rte_eth_dev_info { rx_offload_capa: rx, tx_offload_capa: tx, ..Default::default() }
    }

    fn chosen(wanted: Offloads, scatter: bool, info: &ffi::rte_eth_dev_info) -> Offloading {
        Offloading::from_bits(choose(wanted, scatter, info), false, false)
    }

    #[test]
    fn what_is_not_asked_stays_off() {
        let asked = Offloads { chains: false, ..Offloads::default() };
        assert_eq!(choose(asked, false, &device(u64::MAX, u64::MAX)), (0, 0));
    }

    #[test]
    fn a_device_does_what_it_can() {
        let asked = Offloads { rx_checksums: true, chains: false, fast_free: true };
        assert_eq!(chosen(asked, true, &device(0, 0)), Offloading::default());
        let no_udp = device(!ffi::shim_rx_offload_udp_checksum, u64::MAX);
        let on = Offloading { ipv4_checksum: true, tcp_checksum: true, ..Default::default() };
        assert_eq!(chosen(asked, false, &no_udp), Offloading { fast_free: true, ..on });
    }

    #[test]
    fn packets_without_a_checksum_are_not_asked_for() {
        let asked = Offloads { rx_checksums: true, chains: true, fast_free: false };
        assert_eq!(asked.of_driver("net_ixgbe"), asked);
        let bare = Offloads { rx_checksums: false, ..asked };
        assert_eq!(asked.of_driver("net_virtio"), bare);
        assert!(!chosen(bare, false, &device(u64::MAX, u64::MAX)).tcp_checksum);
    }

    #[test]
    fn chains_are_never_freed_unseen() {
        let all = device(u64::MAX, u64::MAX);
        for (chains, scatter) in [(true, false), (false, true), (true, true)] {
            let asked = Offloads { chains, fast_free: true, ..Offloads::default() };
            let on = chosen(asked, scatter, &all);
            assert_eq!((on.chains, on.fast_free, on.scatter), (true, false, scatter));
        }
    }
}
