//! Lists the drivers there are, the devices that come up with the given EAL arguments, and what
//! these can do:
//! `probe DEVICE… -- EAL_ARGS…`, as in
//! `probe net_tap0 net_null0 -- --no-pci --no-huge -m 64 --vdev net_tap0 --vdev net_null0`.

use std::process::ExitCode;

use dpdk_bindings::{Eal, PortInfo};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(split) = args.iter().position(|arg| arg == "--") else {
        eprintln!("usage: probe DEVICE... -- EAL_ARGS...");
        return ExitCode::FAILURE;
    };
    let eal = match Eal::init(&args[split + 1..]) {
        Ok(eal) => eal,
        Err(error) => {
            eprintln!("probe: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("{}, {} worker lcores", eal.version(), eal.lcores().len());
    let drivers: Vec<String> = eal.drivers().into_iter().collect();
    println!("{} drivers: {}", drivers.len(), drivers.join(" "));
    let mut code = ExitCode::SUCCESS;
    for device in &args[..split] {
        match PortInfo::of(device) {
            Ok(port) => println!("{port:?}"),
            Err(error) => {
                eprintln!("probe: {error}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
