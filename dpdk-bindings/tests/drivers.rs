//! The drivers that a process has, whichever way DPDK is linked.

use dpdk_bindings::Eal;

/// In every build.
const USUAL: &[&str] = &[
    "af_packet",
    "af_xdp",
    "e1000",
    "ena",
    "i40e",
    "iavf",
    "ice",
    "igc",
    "ixgbe",
    "memif",
    "null",
    "pcap",
    "ring",
    "tap",
    "vhost",
    "virtio",
    "vmxnet3",
];

/// In builds with all drivers: some of them.
const BARE_METAL: &[&str] = &[
    "atlantic", "bnxt", "cxgbe", "enic", "hns3", "ionic", "mlx4", "mlx5", "netvsc", "qede", "sfc",
];

#[test]
fn the_drivers_of_nics_are_there() {
    let args = format!(
        "--no-pci --no-telemetry --lcores 0@(0-1) --file-prefix=d{} --no-huge -m 64 --no-shconf \
         --log-level=lib.*:error",
        std::process::id()
    );
    let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
    let eal = Eal::init(&args).unwrap();
    let _ = Eal::runtime_dir().map(std::fs::remove_dir_all);
    let drivers = eal.drivers();
    let missing = |wanted: &[&'static str]| -> Vec<&str> {
        wanted.iter().copied().filter(|name| !drivers.contains(*name)).collect()
    };
    assert_eq!(missing(USUAL), [""; 0], "{drivers:?}");
    if cfg!(feature = "all-drivers") {
        assert_eq!(missing(BARE_METAL), [""; 0], "{drivers:?}");
    }
}
