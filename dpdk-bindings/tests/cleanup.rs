//! EAL ends with the last thing made of it, in whatever order they drop. One test: one process has
//! one EAL.

use dpdk_bindings::testport::{TestPort, TestPortError};
use dpdk_bindings::{
    Burst, Eal, EalError, Mempool, PoolError, Port, PortConfig, PortError, PortInfo,
};

#[test]
fn eal_ends_with_its_last_holder() {
    assert_eq!(Mempool::create("early", 63, 0, 2176, None).unwrap_err(), PoolError::NoEal);
    assert_eq!(PortInfo::of("net_null0").unwrap_err(), PortError::NoEal);

    let bad = Eal::init(&["a\0b".to_owned()]).unwrap_err();
    assert_eq!(bad, EalError::Nul { arg: "a\0b".to_owned() }, "does not count as the one start");

    let args = format!(
        "--no-pci --no-telemetry --lcores 0@(0-1) --file-prefix=t{} --no-huge -m 64 --no-shconf \
         --log-level=lib.*:error --vdev net_null0",
        std::process::id()
    );
    let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
    let eal = Eal::init(&args).unwrap();
    let _ = Eal::runtime_dir().map(std::fs::remove_dir_all);
    let pool = Mempool::create("pool", 127, 0, 2176, None).unwrap();
    let wire = TestPort::create("wire", 1, 16).unwrap();
    let (port, mut rx, mut tx) =
        Port::configure("net_null0", &PortConfig::default(), &pool).unwrap();
    drop((eal, port));
    assert_eq!(Eal::init(&args).unwrap_err(), EalError::Already);

    let mut burst = Burst::new();
    assert_eq!(rx[0].burst(&mut burst), 64, "queues keep all they need");
    assert_eq!(tx[0].burst(&mut burst), 64);
    drop((rx, tx, pool));
    assert!(Mempool::create("still", 63, 0, 2176, None).is_ok(), "the test port holds EAL");
    drop(wire);

    assert_eq!(Mempool::create("late", 63, 0, 2176, None).unwrap_err(), PoolError::NoEal);
    assert_eq!(TestPort::create("late", 1, 16).unwrap_err(), TestPortError::NoEal);
    assert_eq!(Eal::init(&args).unwrap_err(), EalError::Already, "not even after the end");
}
