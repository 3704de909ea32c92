//! Ten thousand routes at once: read message by message, and found again when messages were lost.

use std::time::Instant;

use dataplane::pipeline::route::{PortAddress, Routes};

use crate::bench::Bench;

const ROUTES: usize = 10_000;

fn lines(verb: &str) -> String {
    let line = |n: usize| {
        let (high, low) = (n / 250, n % 250);
        format!("route {verb} 10.{}.{low}.0/24 via 10.7.0.2 proto bgp metric 20\n", 100 + high)
    };
    (0..ROUTES).map(line).collect()
}

#[test]
fn ten_thousand_routes_are_followed() {
    let mut bench = Bench::new();
    let dumps = bench.host.dumps();
    let batch = lines("add");
    let (done, begin) = (std::sync::mpsc::channel(), Instant::now());
    let all = std::thread::scope(|scope| {
        let name = bench.box_itself.name().to_owned();
        let (tell, told) = done;
        scope.spawn(move || {
            let path = std::env::temp_dir().join(format!("{name}.storm"));
            std::fs::write(&path, batch).unwrap();
            let run =
                std::process::Command::new("ip").args(["-n", &name, "-batch"]).arg(&path).status();
            let _ = std::fs::remove_file(&path);
            tell.send(run.unwrap().success()).unwrap();
        });
        let ran = loop {
            bench.host.poll();
            if let Ok(ran) = told.try_recv() {
                break ran;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        };
        assert!(ran, "ip -batch succeeds");
        begin.elapsed()
    });
    let learnt = bench.settle();
    assert_eq!(learnt.routes.len(), ROUTES);
    let dumps = bench.host.dumps() - dumps;
    println!("{ROUTES} routes added in {all:?}, heard with {dumps} dumps beside");
    let begin = Instant::now();
    let port = PortAddress {
        port: 0,
        address: crate::bench::prefixed("10.7.0.1/24").address,
        prefix_len: 24,
    };
    let routes = Routes::new(&[port], &learnt.routes).unwrap();
    println!("routing table of {ROUTES} routes built in {:?}", begin.elapsed());
    let way = routes.lookup(crate::bench::prefixed("10.103.7.9/32").address);
    assert_eq!(way.and_then(|way| way.via), Some(crate::bench::prefixed("10.7.0.2/32").address));
}

#[test]
fn lost_messages_are_made_up_for() {
    let mut bench = Bench::with_buffer(Some(8192));
    let dumps = bench.host.dumps();
    let took = bench.batch(&lines("add"));
    let begin = Instant::now();
    assert_eq!(bench.settle().routes.len(), ROUTES);
    assert!(bench.host.dumps() > dumps, "the kernel dropped messages, so all is read again");
    println!("{ROUTES} routes: ip took {took:?}, the dump and its silence {:?}", begin.elapsed());
    let dumps = bench.host.dumps();
    bench.batch(&lines("del"));
    assert_eq!(bench.settle().routes.len(), 0);
    assert!(bench.host.dumps() > dumps);
}
