//! The queue that the dataplane predicts for a tuple, against DPDK's software hash and against a
//! port that spreads frames: for random keys and tuples, and for NAT's search for a port.
#![allow(missing_docs)]

use std::fs;

use dataplane::conntrack::tuple::{Tuple, proto};
use dataplane::pipeline::steering::{Fields, Functions, KEY_LEN, SYMMETRIC_KEY, Steering};
use dataplane::wire::address::Address;
use dpdk_bindings::fakenic::{FakeNic, toeplitz};
use dpdk_bindings::{Eal, FamilyFunctions, Hashed, Mempool, Port, PortConfig};

/// Numbers without end, the same in each run (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn long(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }

    fn tuple(&mut self, v4: bool) -> Tuple {
        let mut address = || match v4 {
            true => Address::v4(self.next() as u32),
            false => Address::v6(self.long() | 1 << 127),
        };
        let (src, dst) = (address(), address());
        let (src_id, dst_id) = (self.next() as u16, self.next() as u16);
        let proto = [proto::TCP, proto::UDP, proto::ICMP, 47][self.next() as usize % 4];
        Tuple { src, dst, src_id, dst_id, proto }
    }
}

fn has_ports(tuple: &Tuple) -> bool {
    matches!(tuple.proto, proto::TCP | proto::UDP)
}

/// Addresses as bytes in network order.
fn addresses(tuple: &Tuple) -> Vec<u8> {
    let bytes = |address: Address| match address.is_v4() {
        true => address.v4_bits().to_be_bytes().to_vec(),
        false => address.bits().to_be_bytes().to_vec(),
    };
    [bytes(tuple.src), bytes(tuple.dst)].concat()
}

fn ports(tuple: &Tuple) -> [u8; 4] {
    (u32::from(tuple.src_id) << 16 | u32::from(tuple.dst_id)).to_be_bytes()
}

#[test]
fn the_hash_is_the_one_of_dpdk() {
    let mut numbers = Numbers(0x5eed);
    for n in 0..100 {
        let key: Vec<u8> = (0..KEY_LEN).map(|_| numbers.next() as u8).collect();
        let steering = Steering::new(&key, &[0], Functions::PORTS, Functions::PORTS).unwrap();
        for _ in 0..100 {
            let tuple = numbers.tuple(n % 2 == 0);
            let mut input = addresses(&tuple);
            if has_ports(&tuple) {
                input.extend(ports(&tuple));
            }
            let word = |word: &[u8]| u32::from_be_bytes(word.try_into().unwrap());
            let words: Vec<u32> = input.chunks_exact(4).map(word).collect();
            assert_eq!(Some(steering.hash(&tuple)), toeplitz(&key, &words), "{tuple:?} {key:?}");
        }
    }
}

fn frame(tuple: &Tuple) -> Vec<u8> {
    let mut bytes = vec![2; 12];
    if tuple.src.is_v4() {
        bytes.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, tuple.proto, 0, 0]);
    } else {
        bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, tuple.proto, 64]);
    }
    bytes.extend(addresses(tuple));
    bytes.extend(ports(tuple));
    bytes.extend([0; 16]);
    bytes
}

/// What a port reports, in the dataplane's words.
fn functions(reported: FamilyFunctions) -> Functions {
    let fields = |hashed| match hashed {
        Hashed::Nothing => Fields::Nothing,
        Hashed::Addresses => Fields::Addresses,
        Hashed::Ports => Fields::Ports,
    };
    let FamilyFunctions { tcp, udp, other, .. } = reported;
    Functions { tcp: fields(tcp), udp: fields(udp), other: fields(other) }
}

#[test]
fn frames_arrive_where_steering_says() {
    let prefix = format!("s{}", std::process::id());
    let args = format!(
        "--no-pci --no-telemetry --log-level=lib.*:error --lcores 0@(0-1) --file-prefix={prefix} \
         --no-huge -m 64 --no-shconf"
    );
    let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
    let _eal = Eal::init(&args).unwrap();
    let _ = Eal::runtime_dir().map(fs::remove_dir_all);
    let pool = Mempool::create("steering", 4095, 0, 2176, None).unwrap();
    let nic = FakeNic::create("steer").unwrap();
    let config = PortConfig {
        rx_queues: 3,
        tx_queues: 3,
        rss_key: Some(SYMMETRIC_KEY.to_vec()),
        ..PortConfig::default()
    };
    let (port, ..) = Port::configure(nic.device(), &config, &pool).unwrap();
    nic.plug(&port).unwrap();
    let rss = port.rss().unwrap();
    let (v4, v6) = (functions(rss.functions.v4), functions(rss.functions.v6));
    let steering = Steering::new(&rss.key, &rss.reta, v4, v6).unwrap();

    let mut numbers = Numbers(0xcab1e);
    let deliver = |tuple: &Tuple| {
        let mut mbuf = pool.alloc().unwrap();
        let bytes = frame(tuple);
        mbuf.append(bytes.len()).unwrap().copy_from_slice(&bytes);
        nic.deliver(mbuf).unwrap()
    };
    let mut seen = [0; 3];
    for n in 0..1000 {
        let tuple = numbers.tuple(n % 2 == 0);
        let queue = deliver(&tuple);
        assert_eq!(steering.queue(&tuple), queue, "{tuple:?}");
        seen[usize::from(queue)] += 1;
    }
    assert!(seen.iter().all(|count| *count > 200), "{seen:?}");

    // A reply to any port that is chosen so comes back to the queue wanted.
    for wanted in 0..3 {
        let reply = Tuple { proto: proto::TCP, ..numbers.tuple(true) };
        let mut ports = (1024..).map(|dst_id| Tuple { dst_id, ..reply });
        let chosen = ports.find(|reply| steering.queue(reply) == wanted).unwrap();
        assert_eq!(deliver(&chosen), wanted);
    }
}
