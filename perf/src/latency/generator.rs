//! `perf generate`: a process of its own that sends at a pace over one memif and receives over
//! another, and says how long each frame was under way.
//!
//! One thread does both. A frame carries the time at which it was given to the driver and words
//! that make up for it in the checksum, so that whoever checks it finds it right. The pace does not
//! wait for answers: what is due is sent, and what finds no room is lost. While this thread is off
//! its CPU nothing is received, which is not the fault of whoever forwards: frames that come back
//! in the first look after such a gap are counted as left out and not timed.
//!
//! Orders come by standard input, a line each, `PPS MILLISECONDS` with 0 for as fast as possible;
//! an answer is a line of JSON.

use std::fmt;
use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use dpdk_bindings::{Burst, Eal, Mempool, Port, PortConfig, RxQueue, TxQueue};
use serde_json::{Value, json};

use super::histogram::Histogram;
use crate::process::{CONTROL_CPU, Failure};
use crate::program::{BURST, DESCRIPTORS};
use crate::traffic::Traffic;

/// Between two looks more than this is a gap.
const GAP: Duration = Duration::from_micros(20);
/// How long frames may still come after the last one was sent.
const REST: Duration = Duration::from_millis(20);
/// How long the other side may take to connect.
const PATIENCE: Duration = Duration::from_secs(15);
const MBUFS: u32 = 16 * 1024 - 1;
const DATA_ROOM: u16 = 2048 + dpdk_bindings::HEADROOM;
/// Where a 60-byte UDP frame carries the time, behind the number of its conn.
const STAMP: usize = 48;
/// Where it carries what makes up for the time in the checksum.
const BALANCE: usize = STAMP + 8;

/// Where to send and to receive.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The two memif sockets, inside and outside.
    #[arg(num_args = 2)]
    sockets: Vec<String>,
    /// DPDK's file prefix.
    #[arg(long)]
    prefix: String,
    /// Queues by which frames may come back.
    #[arg(long)]
    queues: u16,
    /// Number of conns.
    #[arg(long)]
    conns: usize,
    /// Seed of the conns.
    #[arg(long)]
    seed: u64,
}

/// What is known of a stretch of sending.
struct Stretch {
    sent: u64,
    /// Frames for which the queue had no room.
    refused: u64,
    received: u64,
    left_out: u64,
    gaps: u64,
    seconds: f64,
    times: Histogram,
}

impl Stretch {
    fn json(&self) -> Value {
        json!({
            "sent": self.sent,
            "refused": self.refused,
            "received": self.received,
            "left_out": self.left_out,
            "gaps": self.gaps,
            "pps": self.received as f64 / self.seconds,
            "timed": self.times.count(),
            "p50_ns": self.times.quantile(0.5),
            "p99_ns": self.times.quantile(0.99),
            "p999_ns": self.times.quantile(0.999),
            "max_ns": self.times.max(),
        })
    }
}

/// Serves orders until standard input ends.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let args = [
        "--lcores",
        &format!("0@{CONTROL_CPU}"),
        "--no-pci",
        "--in-memory",
        "--file-prefix",
        &options.prefix,
        "--no-telemetry",
    ];
    let devices = options.sockets.iter().enumerate().flat_map(|(number, socket)| {
        let socket = format!("socket={socket},socket-abstract=no");
        ["--vdev".to_owned(), format!("net_memif{number},role=client,id=0,{socket}")]
    });
    let args: Vec<String> = args.map(str::to_owned).into_iter().chain(devices).collect();
    let _eal = Eal::init(&args).map_err(dpdk)?;
    let pool = Mempool::create("generator", MBUFS, 256, DATA_ROOM, None).map_err(dpdk)?;
    let mut generator = Generator::new(options, pool)?;
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(Failure::io("orders"))?;
        let order = || Failure::Answer { what: "an order".to_owned(), text: line.clone() };
        let (pps, ms) = line.split_once(' ').ok_or_else(order)?;
        let pps: f64 = pps.parse().map_err(|_| order())?;
        let ms = ms.parse().map_err(|_| order())?;
        println!("{}", generator.send(pps, Duration::from_millis(ms)).json());
        std::io::stdout().flush().map_err(Failure::io("answers"))?;
    }
    Ok(())
}

fn dpdk(error: impl fmt::Display) -> Failure {
    Failure::Work { program: "the generator".to_owned(), reason: error.to_string() }
}

/// One thread's queues, and the frames.
struct Generator {
    inside: TxQueue,
    outside: Vec<RxQueue>,
    pool: Mempool,
    frames: Vec<Vec<u8>>,
    next: usize,
    /// What the stamps count from.
    epoch: Instant,
    /// When it last looked for frames.
    looked: Instant,
    // They stop when they are dropped.
    _ports: [Port; 2],
    _unused: (Vec<RxQueue>, Vec<TxQueue>),
}

impl Generator {
    fn new(options: &Options, pool: Mempool) -> Result<Self, Failure> {
        let queue = DESCRIPTORS as u16;
        let config = PortConfig { rx_desc: queue, tx_desc: queue, ..PortConfig::default() };
        let configure = |device, rx_queues| {
            let config = PortConfig { rx_queues, ..config.clone() };
            Port::configure(device, &config, &pool).map_err(dpdk)
        };
        let (lan, lan_rx, mut lan_tx) = configure("net_memif0", 1)?;
        let (wan, outside, wan_tx) = configure("net_memif1", options.queues)?;
        let start = Instant::now();
        while ![&lan, &wan].iter().all(|port| port.link().is_some_and(|link| link.up)) {
            if start.elapsed() > PATIENCE {
                return Err(dpdk("nobody answers on the other side of the memifs"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let inside = lan_tx.pop().ok_or_else(|| dpdk("a memif without queues"))?;
        Ok(Self {
            inside,
            outside,
            pool,
            frames: Traffic::new(options.conns, options.seed).originals(),
            next: 0,
            epoch: start,
            looked: start,
            _ports: [lan, wan],
            _unused: (lan_rx, wan_tx),
        })
    }

    /// Sends `pps` frames a second for a while, or as many as there is room for.
    fn send(&mut self, pps: f64, length: Duration) -> Stretch {
        let (mut stretch, mut burst) = (Stretch::new(length), Burst::new());
        self.drain(&mut burst);
        let start = Instant::now();
        let mut due = 0_u64;
        self.looked = start;
        loop {
            self.receive(&mut burst, &mut stretch);
            let elapsed = self.looked - start;
            if elapsed >= length {
                break;
            }
            let wanted = if pps > 0.0 {
                ((elapsed.as_secs_f64() * pps) as u64).saturating_sub(due).min(BURST as u64)
            } else {
                BURST as u64
            };
            if wanted > 0 && self.fill(&mut burst, wanted as usize) {
                due += wanted;
                let sent = self.inside.burst(&mut burst) as u64;
                stretch.sent += sent;
                stretch.refused += wanted - sent;
                burst.clear();
            }
        }
        while self.looked - start < length + REST {
            self.receive(&mut burst, &mut stretch);
        }
        stretch
    }

    /// Throws away what still comes from before.
    fn drain(&mut self, burst: &mut Burst) {
        let (start, mut last) = (Instant::now(), Instant::now());
        while last.elapsed() < REST && start.elapsed() < PATIENCE {
            let queues = self.outside.iter_mut();
            if queues.map(|queue| queue.burst(burst)).sum::<usize>() > 0 {
                last = Instant::now();
            }
            burst.clear();
        }
    }

    /// Makes the next frames, with the time.
    fn fill(&mut self, burst: &mut Burst, count: usize) -> bool {
        if !self.pool.alloc_bulk(burst, count) {
            return false;
        }
        let stamp = (self.epoch.elapsed().as_nanos() as u64).to_be_bytes();
        let balance = balance(stamp);
        for mbuf in burst.iter_mut() {
            let frame = &self.frames[self.next];
            self.next = (self.next + 1) % self.frames.len();
            if let Some(bytes) = mbuf.append(frame.len()) {
                bytes.copy_from_slice(frame);
                bytes[STAMP..BALANCE].copy_from_slice(&stamp);
                bytes[BALANCE..BALANCE + 2].copy_from_slice(&balance);
            }
        }
        true
    }

    /// Takes what has come and times it, unless this thread was away.
    fn receive(&mut self, burst: &mut Burst, stretch: &mut Stretch) {
        let queues = self.outside.iter_mut();
        let received = queues.map(|queue| queue.burst(burst) as u64).sum::<u64>();
        let now = Instant::now();
        let gap = now - self.looked > GAP;
        self.looked = now;
        stretch.received += received;
        stretch.gaps += u64::from(gap);
        if gap {
            stretch.left_out += received;
        } else {
            let now = (now - self.epoch).as_nanos() as u64;
            for mbuf in burst.iter() {
                let stamp = mbuf.head().get(STAMP..BALANCE).and_then(|b| b.try_into().ok());
                let sent = stamp.map_or(now, u64::from_be_bytes);
                stretch.times.add(now.saturating_sub(sent));
            }
        }
        burst.clear();
    }
}

impl Stretch {
    fn new(length: Duration) -> Self {
        let seconds = length.as_secs_f64();
        let times = Histogram::default();
        Self { sent: 0, refused: 0, received: 0, left_out: 0, gaps: 0, seconds, times }
    }
}

/// The two bytes that make words sum to nothing, as the zeros did in whose place they are.
fn balance(stamp: [u8; 8]) -> [u8; 2] {
    let words = stamp.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Kind, read};

    #[test]
    fn a_stamped_frame_is_the_same_conn_s_and_its_checksum_is_right() {
        for (number, mut frame) in Traffic::new(64, 1).originals().into_iter().enumerate() {
            let stamp = (number as u64 * 0x0123_4567_89ab_cdef).to_be_bytes();
            frame[STAMP..BALANCE].copy_from_slice(&stamp);
            frame[BALANCE..BALANCE + 2].copy_from_slice(&balance(stamp));
            let seen = read(Kind::Udp, &frame).unwrap();
            assert!(seen.checksums_right, "{number}");
            assert_eq!(seen.conn, number as u64);
        }
    }
}
