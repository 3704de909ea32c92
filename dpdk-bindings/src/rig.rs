//! What the tests share: one EAL for the process, one test at a time.
//!
//! Without hugepages, root or PCI devices, unless SLUICEGATE_TEST_HUGEPAGES=1 asks for hugepages.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::{env, fs, process};

use crate::eal::{Eal, lock};
use crate::mbuf::Mbuf;
use crate::mempool::Mempool;

/// EAL, for one test at a time: names and devices are shared by the whole process.
pub(crate) struct Turn {
    eal: &'static Eal,
    _turn: MutexGuard<'static, ()>,
}

impl Deref for Turn {
    type Target = Eal;

    fn deref(&self) -> &Eal {
        self.eal
    }
}

pub(crate) fn eal() -> Turn {
    static TURN: Mutex<()> = Mutex::new(());
    static EAL: OnceLock<Eal> = OnceLock::new();
    let turn = lock(&TURN);
    Turn { eal: EAL.get_or_init(start), _turn: turn }
}

pub(crate) fn file_prefix() -> String {
    format!("t{}", process::id())
}

/// The file that the device `net_pcap0` writes.
pub(crate) fn capture() -> PathBuf {
    env::temp_dir().join(format!("{}.pcap", file_prefix()))
}

/// An mbuf of the pool holding `bytes`.
pub(crate) fn packet(pool: &Mempool, bytes: &[u8]) -> Mbuf {
    let mut mbuf = pool.alloc().unwrap();
    mbuf.append(bytes.len()).unwrap().copy_from_slice(bytes);
    mbuf
}

fn start() -> Eal {
    let memory = if env::var("SLUICEGATE_TEST_HUGEPAGES").is_ok_and(|on| on == "1") {
        "--in-memory"
    } else {
        "--no-huge -m 64 --no-shconf"
    };
    let prefix = file_prefix();
    // The last device cannot come up: EAL starts all the same.
    let args = format!(
        "--no-pci --no-telemetry --log-level=lib.*:error --lcores 0@(0-1),1@(0-1) \
         --file-prefix={prefix} {memory} --vdev net_pcap0,tx_pcap={} --vdev net_null0 \
         --vdev net_null1,size=300,copy=1 --vdev net_null2 --vdev net_null3 \
         --vdev net_af_packet0,iface=nosuch",
        capture().display()
    );
    let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
    let eal = Eal::init(&args).unwrap();
    // Nobody opens these files again, and there is no hook at the end of a test process.
    let _ = Eal::runtime_dir().map(fs::remove_dir_all);
    eal
}
