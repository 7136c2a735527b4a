//! The daemon with 45,000 services: memory, and one change through its socket.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use causeway_api::{Applied, AppliedOutcome, Apply, Client};
use causeway_tests::{Node, bins};
use serde_json::Value;

use crate::report::{median, ms, p99};
use crate::services::documents;

const SERVICES: usize = 45_000;
const AT_ONCE: usize = 500;
const CHANGES: usize = 100;
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the section.
pub(crate) fn run() {
    println!("causewayd with {SERVICES} services of one endpoint, by its socket:");
    let node = Node::new("daemon");
    node.ip("link add eth0 type veth peer name far\naddr add 172.18.0.2/24 dev eth0\n\
             link set eth0 up\nlink set far up\nroute add default via 172.18.0.1\n");
    let daemon = Daemon::start(&node);
    println!("  idle: {}", daemon.memory());
    let started = Instant::now();
    for first in (0..SERVICES).step_by(AT_ONCE) {
        let numbers = first..(first + AT_ONCE).min(SERVICES);
        daemon.apply(numbers.flat_map(|number| documents(number, 1, "TCP")).collect());
    }
    let took = started.elapsed().as_secs_f64();
    println!("  stored and programmed, {AT_ONCE} services a request: {took:.1} s");
    println!("  loaded: {}   (kube-proxy: 250 MiB and more, published)", daemon.memory());
    let mut times: Vec<Duration> = (0..CHANGES)
        .map(|round| {
            let [_, slice] = documents(round / 2 * 149 % SERVICES, 2 - round % 2, "TCP");
            let started = Instant::now();
            daemon.apply(vec![slice]);
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
    let daemon = Daemon::start(&node);
    println!("  restart until the rules are found right: {}", ms(started.elapsed()));
    println!("  after it: {}", daemon.memory());
}

struct Daemon {
    process: Child,
    client: Client,
}

impl Daemon {
    /// Starts the daemon on a node and returns when it answers.
    fn start(node: &Node) -> Self {
        let socket = node.run_dir().join("causeway.sock");
        let mut command = node.command(bins::ours("causewayd"));
        command.args(["--node-name", "node1"]);
        command.args(["--healthz-listen", "127.0.0.1:10256"]);
        command.arg("--run-dir").arg(node.run_dir());
        command.arg("--state-dir").arg(node.dir().join("state"));
        command.arg("--manifest-dir").arg(node.dir().join("manifests"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        let process = command.spawn().expect("start causewayd");
        let client = Client::new(&socket);
        let limit = Instant::now() + PATIENCE;
        while client.request("GET", "/readyz", b"", PATIENCE).is_err() {
            assert!(Instant::now() < limit, "causewayd is not ready");
            std::thread::sleep(Duration::from_millis(2));
        }
        Self { process, client }
    }

    fn apply(&self, objects: Vec<Value>) {
        let body = serde_json::to_vec(&Apply { objects, wait: true }).expect("JSON");
        let answer = self.client.request("POST", "/v1/apply", &body, PATIENCE).expect("an answer");
        let applied: Applied = serde_json::from_slice(&answer).expect("the answer's JSON");
        let refused = applied.results.iter().find(|one| one.outcome == AppliedOutcome::Refused);
        assert!(refused.is_none(), "{refused:?}");
    }

    /// Resident memory as the kernel counts it.
    fn memory(&self) -> String {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).expect("the daemon runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
        let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u32>().ok());
        format!("{:.1} MiB resident", f64::from(kib.expect("a number")) / 1024.0)
    }

    /// Ends the daemon; its rules stay.
    fn stop(mut self) {
        let pid = libc::pid_t::try_from(self.process.id()).expect("a process id");
        // SAFETY: the process is our child and was not waited for.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0, "SIGTERM");
        self.process.wait().expect("wait for causewayd");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail where it has ended.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
