//! Generates the DPDK bindings, compiles the C shim and tells cargo how to link DPDK.
//!
//! Release builds link DPDK's archives whole, so that the constructors of the drivers named in
//! `DRIVERS` run: one binary, and about 1.2 times the packets of a shared build. The feature
//! `all-drivers` adds the archives of all other NICs' drivers. Debug builds, and the feature
//! `dynamic`, link the shared libraries: EAL then loads every driver the machine has.
//!
//! Dependents' build scripts read the DPDK version from `DEP_DPDK_VERSION`.
use std::path::{Path, PathBuf};
use std::process::{Command, exit};
use std::{env, panic};

/// Drivers linked into a static binary: virtual devices, and the NICs that most machines have.
/// Those that need libraries of their own (NVIDIA's) come with `all-drivers` alone.
const DRIVERS: &[&str] = &[
    "rte_bus_vdev",
    "rte_bus_pci",
    "rte_mempool_ring",
    "rte_net_null",
    "rte_net_ring",
    "rte_net_pcap",
    "rte_net_tap",
    "rte_net_memif",
    "rte_net_af_packet",
    "rte_net_af_xdp",
    "rte_net_virtio",
    "rte_net_vhost",
    "rte_common_iavf",
    "rte_net_e1000",
    "rte_net_ena",
    "rte_net_i40e",
    "rte_net_iavf",
    "rte_net_ice",
    "rte_net_igc",
    "rte_net_ixgbe",
    "rte_net_vmxnet3",
];

/// What DPDK's archives need from the system.
const SYSTEM: &[&str] =
    &["numa", "pcap", "xdp", "bpf", "elf", "z", "bsd", "jansson", "crypto", "fdt"];

/// With `all-drivers`: archives whose names begin so go into the binary too. The drivers of
/// accelerators (crypto, events, raw devices, …) are none of a gateway's business, but `net_ipn3ke`
/// calls into one.
const CLASSES: &[&str] = &["rte_bus_", "rte_common_", "rte_mempool_", "rte_net_", "rte_raw_ifpga"];

/// The drivers among them that need more than `SYSTEM`: without these libraries they are left out,
/// and cargo says so.
const NEEDS: &[(&str, &[&str])] = &[
    ("rte_common_mlx5", &["ibverbs", "mlx5"]),
    ("rte_net_mlx4", &["ibverbs", "mlx4"]),
    ("rte_net_mlx5", &["ibverbs", "mlx5"]),
    ("rte_net_sfc", &["atomic"]),
];

/// All that the build needs beside Rust.
const PACKAGES: &str = "gcc libc6-dev pkg-config libclang-dev libdpdk-dev dpdk-dev";

/// The C functions, types and constants the wrappers use; nothing else is generated.
const FUNCTIONS: &[&str] = &[
    "shim_.*",
    "rte_eal_(init|cleanup|remote_launch|wait_lcore|get_lcore_state|get_runtime_dir)",
    "rte_(strerror|version|get_main_lcore|get_next_lcore|lcore_to_socket_id)",
    "rte_pktmbuf_(pool_create|free_bulk)",
    "rte_mempool_(free|avail_count|in_use_count)",
    "rte_ring_create",
    "rte_eth_from_rings",
    "rte_eth_dev_(get_port_by_name|get_name_by_port|info_get|configure|start|stop|close|[gs]et_mtu)",
    "rte_eth_dev_(adjust_nb_rx_tx_desc|default_mac_addr_set|socket_id)",
    "rte_eth_dev_(rss_hash_conf_get|rss_hash_update|rss_reta_query|rss_reta_update)",
    "rte_eth_dev_set_link_(up|down)",
    "rte_eth_(rx|tx)_queue_setup",
    "rte_eth_(add|remove)_(rx|tx)_callback",
    "rte_eal_hotplug_add",
    "rte_eth_(promiscuous|allmulticast)_enable",
    "rte_eth_(macaddr_get|stats_get|link_get_nowait)",
];
/// The same with the feature `rte-hash`; nothing of it is inline.
const HASH_FUNCTIONS: &str = "rte_hash_(create|free|add_key_data|del_key|lookup_bulk_data)";
const TYPES: &[&str] = &["rte_mbuf", "rte_mempool", "rte_ring", "rte_eth_.*", "rte_ether_addr"];
const CONSTANTS: &[&str] =
    &["shim_.*", "RTE_MAX_(LCORE|ETHPORTS)", "RTE_PKTMBUF_HEADROOM", "RING_F_EXACT_SZ"];

/// Types that bindgen cannot lay out (packed around aligned); never touched here.
const OPAQUE: &str = "rte_l2tpv2_.*|rte_gtp_psc_generic_hdr|rte_arp_hdr|rte_arp_ipv4";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=csrc");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let csrc =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("csrc");

    let dpdk = pkg_config::Config::new()
        .cargo_metadata(false)
        .range_version("22.11".."23")
        .probe("libdpdk")
        .unwrap_or_else(|_| fail("DPDK 22.11 (libdpdk) was not found"));
    println!("cargo::metadata=VERSION={}", dpdk.version);
    println!("cargo::rustc-env=SLUICEGATE_DPDK_VERSION={}", dpdk.version);

    let core: Vec<&str> =
        dpdk.libs.iter().map(String::as_str).filter(|lib| lib.starts_with("rte_")).collect();
    link(&core);
    let flags = compiler_flags();
    generate(&csrc, &out, &flags);
    compile_shim(&csrc, &flags);
}

fn link(core: &[&str]) {
    let libdir = pkg_config::get_variable("libdpdk", "libdir")
        .unwrap_or_else(|_| fail("libdpdk.pc names no libdir"));
    println!("cargo::rustc-link-search=native={libdir}");
    let feature = |name: &str| env::var_os(format!("CARGO_FEATURE_{name}")).is_some();
    let (all, dynamic) = (feature("ALL_DRIVERS"), feature("DYNAMIC"));
    let release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    // Shared libraries have all drivers by themselves.
    if !dynamic && (release || all) {
        link_archives(core, Path::new(&libdir), all);
    } else {
        // net_ring is a driver, and the one driver whose functions are called by name.
        for lib in core.iter().chain(&["rte_net_ring"]) {
            println!("cargo::rustc-link-lib=dylib={lib}");
        }
    }
}

fn link_archives(core: &[&str], libdir: &Path, all: bool) {
    let mut drivers: Vec<String> = DRIVERS.iter().map(|lib| (*lib).to_owned()).collect();
    let mut system: Vec<&str> = SYSTEM.to_vec();
    if all {
        let mut left = Vec::new();
        for (archive, needs) in archives(libdir) {
            match needs.iter().find(|need| !exists(need)) {
                Some(need) => left.push(format!("{archive} (no lib{need}.so)")),
                None => {
                    system.extend(needs);
                    drivers.push(archive);
                }
            }
        }
        if !left.is_empty() {
            println!("cargo::warning=drivers left out: {}", left.join(", "));
        }
    }
    drivers.extend(core.iter().map(|lib| (*lib).to_owned()));
    drivers.sort_unstable();
    drivers.dedup();
    for lib in drivers {
        if !libdir.join(format!("lib{lib}.a")).exists() {
            fail(&format!("the archive of {lib} is missing"));
        }
        println!("cargo::rustc-link-lib=static:+whole-archive,-bundle={lib}");
    }
    system.sort_unstable();
    system.dedup();
    for lib in system {
        println!("cargo::rustc-link-lib=dylib={lib}");
    }
}

/// The archives of all drivers a gateway can use, each with the system libraries that it alone
/// needs.
fn archives(libdir: &Path) -> Vec<(String, &'static [&'static str])> {
    let listed = libdir.read_dir().unwrap_or_else(|_| fail("DPDK's libdir cannot be read"));
    let names = listed.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<_> = names
        .filter_map(|name| Some(name.strip_prefix("lib")?.strip_suffix(".a")?.to_owned()))
        // Of accelerators alone, and it needs libraries for these.
        .filter(|name| name != "rte_common_qat")
        .filter(|name| CLASSES.iter().any(|class| name.starts_with(class)))
        .map(|name| {
            let needs = NEEDS.iter().find(|(driver, _)| name == *driver).map_or(&[][..], |n| n.1);
            (name, needs)
        })
        .collect();
    found.sort_unstable();
    found
}

/// Whether the linker will find a system library: the compiler answers with its path, or with the
/// bare name.
fn exists(lib: &str) -> bool {
    let name = format!("lib{lib}.so");
    let printed = cc::Build::new()
        .get_compiler()
        .to_command()
        .arg(format!("-print-file-name={name}"))
        .output();
    printed.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() != name)
}

/// The flags as pkg-config prints them: the pkg-config crate loses `-include` and `-march`.
fn compiler_flags() -> Vec<String> {
    let output = Command::new("pkg-config")
        .args(["--cflags", "libdpdk"])
        .output()
        .unwrap_or_else(|_| fail("pkg-config could not be run"));
    String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect()
}

fn generate(csrc: &Path, out: &Path, flags: &[String]) {
    let mut builder = bindgen::Builder::default()
        .header(csrc.join("shim.h").display().to_string())
        .clang_args(flags)
        .use_core()
        .rust_edition(bindgen::RustEdition::Edition2024)
        .generate_comments(false)
        .derive_default(true)
        .derive_debug(false)
        .prepend_enum_name(false)
        .opaque_type(OPAQUE)
        // Thread-local in C; bindgen would declare a plain symbol.
        .blocklist_item("per_lcore_.*");
    for pattern in FUNCTIONS {
        builder = builder.allowlist_function(pattern);
    }
    if env::var_os("CARGO_FEATURE_RTE_HASH").is_some() {
        builder = builder.clang_arg("-DSHIM_RTE_HASH").allowlist_function(HASH_FUNCTIONS);
    }
    for pattern in TYPES {
        builder = builder.allowlist_type(pattern);
    }
    for pattern in CONSTANTS {
        builder = builder.allowlist_var(pattern);
    }
    // A missing libclang is a panic inside bindgen; its message is a page long.
    panic::set_hook(Box::new(|_| {}));
    let generated = panic::catch_unwind(panic::AssertUnwindSafe(|| builder.generate()));
    let _ = panic::take_hook();
    match generated {
        Ok(Ok(bindings)) => bindings
            .write_to_file(out.join("bindings.rs"))
            .unwrap_or_else(|error| fail(&format!("cannot write the bindings: {error}"))),
        Ok(Err(error)) => fail(&format!("bindgen could not read DPDK's headers: {error}")),
        Err(_) => fail("bindgen found no libclang"),
    }
}

fn compile_shim(csrc: &Path, flags: &[String]) {
    let mut cc = cc::Build::new();
    cc.file(csrc.join("shim.c")).include(csrc).opt_level(3).flag("-Wno-unused-parameter");
    for flag in flags {
        cc.flag(flag);
    }
    if cc.try_compile("dpdk_shim").is_err() {
        fail("the C shim did not compile");
    }
}

/// Stops the build with one sentence: what is missing and which packages bring it. Cargo fails a
/// build script that logged an error; a failing exit status would add a page of output.
fn fail(what: &str) -> ! {
    let what = what.replace('\n', " ");
    println!("cargo::error={what}; on Debian 12 run: apt-get install {PACKAGES}");
    exit(0)
}
