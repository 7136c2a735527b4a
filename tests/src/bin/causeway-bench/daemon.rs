//! The daemon with 45,000 services: memory, and one change through its socket. And files of many
//! services by the command line: what the daemon needs at its peak, and how long deleting takes.

use std::time::{Duration, Instant};

use causeway_tests::{Daemon, Node, TempDir};

use crate::report::{median, memory, ms, p99, peak};
use crate::services::documents;

const SERVICES: usize = 45_000;
const AT_ONCE: usize = 500;
const CHANGES: usize = 100;

/// Services of one `apply -f`, with two endpoints each.
const IN_A_FILE: usize = 10_000;
/// Services of one `delete -f`.
const DELETED: usize = 2_000;

/// Runs the section.
pub(crate) fn run() {
    files();
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

/// A file of services with two endpoints each, as `jq` writes them.
fn file(folder: &TempDir, services: usize) -> String {
    let path = folder.path().join("services.json");
    let all = (0..services).flat_map(|number| documents(number, 2, "TCP"));
    let text: String = all.map(|document| format!("{document}\n")).collect();
    std::fs::write(&path, text).expect("write the file");
    path.to_str().expect("a path of a test").to_owned()
}

fn files() {
    println!("files of services by the command line:");
    let folder = TempDir::new("bench");
    let node = Node::new("files");
    node.ip("link add eth0 type veth peer name far\naddr add 172.18.0.2/24 dev eth0\n\
             link set eth0 up\nlink set far up\nroute add default via 172.18.0.1\n");
    for backend in ["nftables", "iptables"] {
        let mut daemon = Daemon::start_with(&node, &["--backend", backend]);
        let path = file(&folder, DELETED);
        daemon.causeway(&["apply", "-f", &path]).ok();
        let started = Instant::now();
        daemon.causeway(&["delete", "-f", &path]).ok();
        let took = ms(started.elapsed());
        println!(
            "  delete -f of {DELETED} x 2, {backend}: {took}   (one by one, iptables: 60 s and more)"
        );
        daemon.stop();
    }
    let daemon = Daemon::start(&node);
    let path = file(&folder, IN_A_FILE);
    let started = Instant::now();
    daemon.causeway(&["apply", "-f", &path]).ok();
    println!("  apply -f of {IN_A_FILE} x 2: {}", ms(started.elapsed()));
    println!(
        "  the daemon: {}, then {}   (in one request: 390 MiB)",
        peak(&daemon),
        memory(&daemon)
    );
}
