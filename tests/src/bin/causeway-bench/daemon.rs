//! The daemon with 45,000 services: memory, and one change through its socket.

use std::time::{Duration, Instant};

use causeway_tests::{Daemon, Node};

use crate::report::{median, memory, ms, p99};
use crate::services::documents;

const SERVICES: usize = 45_000;
const AT_ONCE: usize = 500;
const CHANGES: usize = 100;

/// Runs the section.
pub(crate) fn run() {
    println!("causewayd with {SERVICES} services of one endpoint, by its socket:");
    let node = Node::new("daemon");
    node.ip("link add eth0 type veth peer name far\naddr add 172.18.0.2/24 dev eth0\n\
             link set eth0 up\nlink set far up\nroute add default via 172.18.0.1\n");
    let mut daemon = Daemon::start(&node);
    println!("  idle: {}", memory(&daemon));
    let started = Instant::now();
    for first in (0..SERVICES).step_by(AT_ONCE) {
        let numbers = first..(first + AT_ONCE).min(SERVICES);
        let objects: Vec<_> = numbers.flat_map(|number| documents(number, 1, "TCP")).collect();
        daemon.apply(&objects);
    }
    let took = started.elapsed().as_secs_f64();
    println!("  stored and programmed, {AT_ONCE} services a request: {took:.1} s");
    println!("  loaded: {}   (kube-proxy: 250 MiB and more, published)", memory(&daemon));
    let mut times: Vec<Duration> = (0..CHANGES)
        .map(|round| {
            let [_, slice] = documents(round / 2 * 149 % SERVICES, 2 - round % 2, "TCP");
            let started = Instant::now();
            daemon.apply(&[slice]);
            started.elapsed()
        })
        .collect();
    println!(
        "  one slice applied, on disk and in the kernel: {} median, {} p99",
        ms(median(&mut times)),
        ms(p99(&times))
    );
    daemon.stop();
    let started = Instant::now();
    daemon.again();
    println!("  restart until the rules are found right: {}", ms(started.elapsed()));
    println!("  after it: {}", memory(&daemon));
}
