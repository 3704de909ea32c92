//! Safe owning wrappers over DPDK (being built).
