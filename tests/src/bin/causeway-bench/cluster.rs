//! Many nodes over one etcd: how long a change of endpoints on one node takes to another node's
//! rules, and what one more daemon costs in a cluster of 200 nodes, which are played by their keys.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use causeway_model::{
    EndpointEvent, EndpointKey, EndpointRecord, IpFamily, NodeIdentity, NodeRecord, SubnetRecord,
};
use causeway_nft::{Client, Monitor};
use causeway_ruleset::services;
use causeway_source::cluster::Container;
use causeway_source::etcd::{self, RangeRequest, RequestOp, TxnRequest};
use causeway_tests::{DEADLINE, Daemon, Etcd, Lab, Node};
use serde_json::{Value, json};

use crate::report::{median, memory, ms, p99};

const CHANGES: usize = 1_000;
const NODES: u32 = 200;
const SERVICES: u32 = 5_000;
const CONTAINERS_PER_NODE: u32 = 100;
const FAR_CHANGES: usize = 300;
/// Operations of a transaction; etcd takes 128.
const BATCH: usize = 120;
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs the section.
pub(crate) fn run() {
    propagation();
    many();
    println!();
}

fn daemon<'a>(node: &'a Node, index: usize, etcd: &Etcd) -> Daemon<'a> {
    let name = format!("n{index}");
    let url = etcd.url();
    Daemon::start_with(node, &["--node-name", &name, "--store", "etcd", "--etcd-endpoints", &url])
}

fn connected(daemon: &Daemon<'_>) {
    daemon.until("it is connected", || daemon.status().degraded.is_empty());
}

/// Kernel's word of each change of a node's service rules, with its time.
struct Commits(mpsc::Receiver<Instant>);

impl Commits {
    fn of(node: &Node) -> Self {
        let (sender, receiver) = mpsc::channel();
        let mut monitor = node.run(|| {
            let client = Client::open().expect("nf_tables");
            let tables = [IpFamily::V4, IpFamily::V6].map(services::table).to_vec();
            Monitor::open(&client, tables).expect("a subscription")
        });
        std::thread::spawn(move || {
            loop {
                readable(&monitor);
                let now = Instant::now();
                let changed = monitor.changes().expect("notifications").is_some();
                if changed && sender.send(now).is_err() {
                    return;
                }
            }
        });
        Self(receiver)
    }

    /// Forgets what came before.
    fn drain(&self) {
        while self.0.try_recv().is_ok() {}
    }

    fn next(&self) -> Instant {
        self.0.recv_timeout(DEADLINE).expect("the change comes to the rules")
    }
}

fn readable(monitor: &Monitor) {
    use std::os::fd::AsRawFd as _;
    let mut poll =
        libc::pollfd { fd: monitor.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one structure, which outlives the call.
    unsafe { libc::poll(&raw mut poll, 1, -1) };
}

fn propagation() {
    println!(
        "Two nodes, one etcd: from an endpoint's event on one node to the rules of the other:"
    );
    let lab = Lab::two_nodes();
    let etcd = Etcd::start(&lab);
    let (here, there) = (daemon(&lab.nodes[0], 0, &etcd), daemon(&lab.nodes[1], 1, &etcd));
    connected(&here);
    connected(&there);
    here.apply(&[service(0)]);
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot id");
    let commits = Commits::of(&lab.nodes[1]);
    let (mut times, mut local) = (Vec::new(), Vec::new());
    for round in 0..CHANGES + 20 {
        let record = record(0, 0);
        let event = EndpointEvent {
            key: record.key.clone(),
            seq: u64::try_from(round).expect("small") + 1,
            boot_id: boot.trim().to_owned(),
            record: (round % 2 == 0).then_some(record),
        };
        let body = serde_json::to_vec(&event).expect("JSON");
        commits.drain();
        let started = Instant::now();
        here.request("PUT", "/v1/events", &body).expect("the event is taken");
        let answered = started.elapsed();
        let took = commits.next() - started;
        // The first ones open connections and fill caches.
        if round >= 20 {
            times.push(took);
            local.push(answered);
        }
    }
    println!(
        "  {CHANGES} changes, one after the other: {} p50, {} p99   (answered by the first node: {} p50)",
        ms(median(&mut times)),
        ms(p99(&times)),
        ms(median(&mut local))
    );
}

fn many() {
    let endpoints = NODES * CONTAINERS_PER_NODE;
    println!("{NODES} nodes (their keys), {SERVICES} services, {endpoints} endpoints in one etcd:");
    let lab = Lab::two_nodes();
    let etcd = Etcd::start(&lab);
    let first = daemon(&lab.nodes[0], 0, &etcd);
    connected(&first);
    let config = digest(&lab, &etcd);
    let started = Instant::now();
    for batch in (0..SERVICES).collect::<Vec<_>>().chunks(500) {
        let services: Vec<Value> = batch.iter().map(|&number| service(number)).collect();
        first.apply(&services);
    }
    println!(
        "  {SERVICES} services applied, 500 a request: {:.1} s",
        started.elapsed().as_secs_f64()
    );
    let started = Instant::now();
    let mut puts = Vec::new();
    for node in 0..NODES {
        puts.extend(node_keys(node, &config));
    }
    put(&lab, &etcd, &puts);
    first.until("it has all containers", || first.count("containers") == u64::from(endpoints));
    println!(
        "  {endpoints} containers written and in the rules of a running daemon: {:.1} s, {} then",
        started.elapsed().as_secs_f64(),
        memory(&first)
    );
    let started = Instant::now();
    let more = daemon(&lab.nodes[1], 1, &etcd);
    let ready = started.elapsed();
    until(&more, || {
        more.count("containers") == u64::from(endpoints) && more.status().degraded.is_empty()
    });
    println!(
        "  one more daemon: ready after {}, everything in its rules after {}, {}",
        ms(ready),
        ms(started.elapsed()),
        memory(&more)
    );
    far_changes(&lab, &etcd, &more);
    let started = Instant::now();
    drop(more);
    let again = daemon(&lab.nodes[1], 1, &etcd);
    println!(
        "  started again from its snapshot: rules found right after {}, {}",
        ms(started.elapsed()),
        memory(&again)
    );
}

/// Changes of endpoints of other nodes, as the second node sees them.
fn far_changes(lab: &Lab, etcd: &Etcd, more: &Daemon<'_>) {
    let commits = Commits::of(&lab.nodes[1]);
    let cpu = processor_time(more);
    let mut times = Vec::new();
    for round in 0..FAR_CHANGES {
        let number = u32::try_from(round / 2).expect("small");
        let mut container = container(number % NODES, number % CONTAINERS_PER_NODE);
        if round % 2 == 0 {
            container.record.ips = vec![[10, 1, 0, 1].into()];
        }
        let put_one = [container_key(number % NODES, &container)];
        commits.drain();
        let started = Instant::now();
        put(lab, etcd, &put_one);
        times.push(commits.next() - started);
    }
    let cpu = (processor_time(more) - cpu) / u32::try_from(FAR_CHANGES).expect("small");
    println!(
        "  a change of an endpoint far away: {} of processor time; written to rules {} p50, {} p99",
        ms(cpu),
        ms(median(&mut times)),
        ms(p99(&times))
    );
}

fn service(number: u32) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": format!("svc-{number}"), "namespace": "default" },
        "spec": { "selector": { "app": format!("svc-{number}") },
                  "ports": [{ "port": 80, "targetPort": 8080 }] } })
}

/// Container `index` of a node that is played: one of four of its service.
fn record(node: u32, index: u32) -> EndpointRecord {
    let number = node * CONTAINERS_PER_NODE + index;
    let id = format!("{number:064x}");
    let labels = [
        ("app", format!("svc-{}", number % SERVICES)),
        (EndpointRecord::POD_NAME, format!("pod-{number}")),
        (EndpointRecord::POD_NAMESPACE, "default".to_owned()),
        (EndpointRecord::NETWORK, "causeway".to_owned()),
    ];
    let [a, b] = u16::try_from(node + 40).expect("a small number").to_be_bytes();
    EndpointRecord {
        key: EndpointKey { network: "causeway".into(), container_id: id, ifname: "eth0".into() },
        netns: None,
        ips: vec![[10, a, b, u8::try_from(index + 2).expect("a small number")].into()],
        labels: labels.map(|(key, value)| (key.to_owned(), value)).into(),
        created: 1_700_000_000,
    }
}

fn container(node: u32, index: u32) -> Container {
    Container { record: record(node, index), healthy: true }
}

/// Name of a node that is played.
fn name(node: u32) -> String {
    format!("sim-{node}")
}

fn container_key(node: u32, container: &Container) -> (String, String) {
    let EndpointKey { network, container_id, ifname } = &container.record.key;
    let key = format!("/causeway/v1/containers/{}/{network}/{container_id}/{ifname}", name(node));
    (key, serde_json::to_string(container).expect("JSON"))
}

/// All that a node has in the store.
fn node_keys(node: u32, config: &str) -> Vec<(String, String)> {
    let identity = NodeIdentity { node: name(node), machine_id: format!("{node:032x}") };
    let ips = vec![[172, 18, 1, u8::try_from(node).expect("a small number")].into()];
    let record = NodeRecord {
        identity: identity.clone(),
        boot_id: "played".into(),
        ips: ips.clone(),
        labels: BTreeMap::new(),
        version: "0.1.0".into(),
        started: 1_700_000_000,
        config: config.to_owned(),
        created: 0,
    };
    let subnet = format!("10.0.{}.0", node + 40);
    let held = SubnetRecord {
        subnet: format!("{subnet}/24").parse().expect("a network"),
        owner: identity,
        ips,
        vtep: None,
        mtu: None,
        created: 0,
    };
    let mut keys = vec![
        (
            format!("/causeway/v1/nodes/{}", name(node)),
            serde_json::to_string(&record).expect("JSON"),
        ),
        (format!("/causeway/v1/subnets/{subnet}-24"), serde_json::to_string(&held).expect("JSON")),
    ];
    keys.extend((0..CONTAINERS_PER_NODE).map(|index| container_key(node, &container(node, index))));
    keys
}

/// What the daemon's own node record says of the configuration, as soon as it is there: a daemon is
/// ready before the store has answered it.
fn digest(lab: &Lab, etcd: &Etcd) -> String {
    let limit = Instant::now() + DEADLINE;
    let read = || {
        in_etcd(lab, etcd, async |client| {
            let range = RangeRequest::one("/causeway/v1/nodes/n0");
            let found = client.get(range).await.expect("an answer");
            found.kvs.first().map(|pair| pair.value.clone())
        })
    };
    let value = loop {
        match read() {
            Some(value) => break value,
            None => assert!(Instant::now() < limit, "the node does not register"),
        }
    };
    let record: NodeRecord = serde_json::from_slice(&value).expect("a node record");
    record.config
}

fn put(lab: &Lab, etcd: &Etcd, pairs: &[(String, String)]) {
    in_etcd(lab, etcd, async |client| {
        for batch in pairs.chunks(BATCH) {
            let puts: Vec<RequestOp> = batch
                .iter()
                .map(|(key, value)| RequestOp::put(key.as_str(), value.as_str(), 0))
                .collect();
            client.txn(TxnRequest::new().and_then(puts)).await.expect("a transaction");
        }
    })
}

/// Asks etcd from the lab's client.
fn in_etcd<T: Send>(
    lab: &Lab,
    etcd: &Etcd,
    work: impl AsyncFnOnce(&etcd::Client) -> T + Send,
) -> T {
    lab.client.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let client = etcd::Client::connect(&etcd.url(), etcd::Options::default()).await;
            work(&client.expect("a connection")).await
        })
    })
}

fn until(daemon: &Daemon<'_>, holds: impl Fn() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < limit, "{:?}", daemon.status());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// User and system time of a process; ticks are hundredths of a second.
fn processor_time(daemon: &Daemon<'_>) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid()));
    let stat = stat.expect("the daemon runs");
    let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
    let ticks = fields.split_whitespace().skip(11).take(2).map(|text| text.parse::<u64>());
    let ticks: u64 = ticks.map(|ticks| ticks.expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}
