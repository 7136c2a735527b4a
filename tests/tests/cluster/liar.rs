//! A store that lies: records of nodes, of their parts and of their containers made, changed and
//! removed at random, valid and not, while three real daemons live by it.

use std::collections::BTreeMap;
use std::time::Duration;

use causeway_model::MacAddress;
use causeway_source::etcd::{
    Client, Compare, CompareResult, Options, RangeRequest, RequestOp, TxnRequest,
};
use causeway_tests::cluster::{
    Cluster, Placed, Setup, all_ping, answers, how_soon, in_rotation, service,
};
use causeway_tests::steady::{Pings, Stream};
use causeway_tests::{Daemon, Lab, Random, say};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// How often the store lies; the figure is 10,000, by `CAUSEWAY_LIES`.
const LIES: usize = 200;
const SEED: u64 = 10;
const ROOT: &str = "/causeway/v1/";
const SERVICE: &str = "http-server-svc";
const VIP: &str = "10.96.1.100:8080";
/// How soon everything stands as it stood, after a lie that a living node has to put right.
const SOON: Duration = Duration::from_secs(10);

const NODES: [&str; 7] = ["node1", "node2", "node3", "aaa", "ghost", "node1.", "n%2Fn"];
const MACHINES: [&str; 3] = ["m1", "m2", ""];
const ADDRESSES: [&str; 14] = [
    "172.18.0.2",
    "172.18.0.3",
    "172.18.0.4",
    "172.18.0.66",
    "172.18.0.200",
    "127.0.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "10.0.2.2",
    "10.0.3.1",
    "10.96.1.100",
    "::1",
    "fd00:172:18::3",
];
const PARTS: [&str; 14] = [
    "10.0.2.0/24",
    "10.0.3.0/24",
    "10.0.4.0/24",
    "10.0.1.0/24",
    "10.0.9.0/24",
    "10.0.200.0/24",
    "10.0.0.0/24",
    "10.0.0.0/17",
    "10.0.2.0/25",
    "10.0.0.0/8",
    "0.0.0.0/0",
    "192.0.2.0/24",
    "fd00:10::/64",
    "fd00:10::/33",
];
const GARBAGE: [&str; 8] =
    ["", "?", "{}", "[]", "null", "{\"node\":7}", "\u{1b}[31m", "{\"subnet\":\"x\",\"ips\":{}}"];

/// Who writes into the store beside the daemons.
struct Liar<'a> {
    cluster: &'a Cluster<'a>,
    runtime: Runtime,
    client: Client,
    random: Random,
    counts: BTreeMap<String, usize>,
}

/// A key with its revisions of creation and of change.
type Found = (String, Vec<u8>, i64);

impl<'a> Liar<'a> {
    fn new(cluster: &'a Cluster<'a>, seed: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let url = cluster.etcd.url();
        let client = cluster
            .etcd
            .ns()
            .run(|| runtime.block_on(Client::connect(&url, Options::default())).expect("a client"));
        Self { cluster, runtime, client, random: Random(seed), counts: BTreeMap::new() }
    }

    fn ask<T: Send>(&self, work: impl AsyncFnOnce(&Client) -> T + Send) -> T {
        let (runtime, client) = (&self.runtime, &self.client);
        self.cluster.etcd.ns().run(move || runtime.block_on(work(client)))
    }

    /// All records that daemons and liar have written by now.
    fn records(&self) -> Vec<Found> {
        let areas = ["nodes/", "subnets/", "containers/", "reservations/"];
        self.ask(async |client| {
            let mut all = Vec::new();
            for area in areas {
                let range = RangeRequest::prefix(format!("{ROOT}{area}"));
                let found = client.get(range).await.expect("an answer");
                all.extend(found.kvs.into_iter().map(|one| {
                    let key = String::from_utf8(one.key).expect("a key of text");
                    (key, one.value, one.lease)
                }));
            }
            all
        })
    }

    /// Writes a key; on a lease that runs out if asked. Of a living node it is written over only:
    /// a key that its node is about to put back is nobody's for some milliseconds.
    fn put(&self, key: &str, value: &[u8], lease: bool, over: bool) -> i64 {
        self.ask(async |client| {
            let lease = if lease { client.lease_grant(2).await.expect("a lease") } else { 0 };
            let there = Compare::create_revision(key, CompareResult::Greater, 0);
            let txn = TxnRequest::new().when(over.then_some(there).into_iter().collect::<Vec<_>>());
            let done = client.txn(txn.and_then([RequestOp::put(key, value, lease)])).await;
            done.expect("written").header.expect("a header").revision
        })
    }

    fn delete(&self, key: &str) -> i64 {
        self.ask(async |client| {
            let txn = TxnRequest::new().and_then([RequestOp::delete(key)]);
            client.txn(txn).await.expect("deleted").header.expect("a header").revision
        })
    }

    /// One lie. Returns its revision, and what it was.
    fn lie(&mut self) -> (i64, String) {
        let records = self.records();
        let (kind, key, revision) = match self.random.below(10) {
            0..=2 => {
                let (key, ..) = self.random.pick(&records).clone();
                let revision = self.delete(&key);
                ("removed", key, revision)
            }
            3..=4 => {
                let (key, value, _) = self.random.pick(&records).clone();
                let value = self.twisted(&value);
                let revision = self.put(&key, &value, self.lease(), true);
                ("twisted", key, revision)
            }
            5 => {
                let (key, ..) = self.random.pick(&records).clone();
                let value = self.garbage();
                let revision = self.put(&key, &value, self.lease(), true);
                ("spoilt", key, revision)
            }
            _ => {
                let (key, value) = self.made();
                let over = records.iter().any(|(there, ..)| *there == key) || self.is_real(&key);
                let revision = self.put(&key, &value, self.lease(), over);
                ("made", key, revision)
            }
        };
        let area = key.trim_start_matches(ROOT).split('/').next().unwrap_or_default();
        let whose = if self.is_real(&key) { "of a living node" } else { "of none" };
        *self.counts.entry(format!("{kind} {area} {whose}")).or_default() += 1;
        (revision, format!("{kind} {key}"))
    }

    /// Seldom a lease, as daemons have it.
    fn lease(&self) -> bool {
        self.counts.values().sum::<usize>() % 5 == 0
    }

    fn is_real(&self, key: &str) -> bool {
        let key = key.trim_start_matches(ROOT);
        let of_node = |number: usize| {
            let name = format!("node{number}");
            key == format!("nodes/{name}")
                || key == format!("subnets/10.0.{}.0-24", number + 1)
                || key.starts_with(&format!("containers/{name}/"))
        };
        (1..=3).any(of_node)
    }

    fn garbage(&mut self) -> Vec<u8> {
        match self.random.below(10) {
            0 => vec![b'['; 100_000],
            1 => vec![0xff, 0xfe, 0],
            _ => self.random.pick(&GARBAGE).as_bytes().to_vec(),
        }
    }

    /// A value with something else in one of its fields.
    fn twisted(&mut self, value: &[u8]) -> Vec<u8> {
        let Ok(mut value) = serde_json::from_slice::<Value>(value) else { return self.garbage() };
        let field = *self.random.pick(&[
            "ips",
            "machineId",
            "node",
            "bootId",
            "started",
            "vtep",
            "mtu",
            "subnet",
            "labels",
            "record",
            "healthy",
            "created",
        ]);
        if value.is_object() {
            value[field] = match self.random.below(3) {
                0 => json!([self.random.pick(&ADDRESSES)]),
                1 => json!(self.random.pick(&NODES)),
                _ => json!(self.random.below(5) * 1_000_000_000),
            };
        }
        value.to_string().into_bytes()
    }

    /// A record as a daemon would write it, of a node that there is or not.
    fn made(&mut self) -> (String, Vec<u8>) {
        let node = *self.random.pick(&NODES);
        let machine = *self.random.pick(&MACHINES);
        let ips = [*self.random.pick(&ADDRESSES)];
        let part = *self.random.pick(&PARTS);
        let other = *self.random.pick(&NODES);
        let vtep = MacAddress::of_vtep(other, 1);
        let id = format!("c{}", self.random.below(4));
        let (key, value) = match self.random.below(4) {
            0 => (
                format!("nodes/{node}"),
                json!({ "node": node, "machineId": machine, "bootId": "b", "ips": ips,
                        "version": "0.1.0", "started": self.random.below(2) * 4_000_000_000,
                        "config": "" }),
            ),
            1 => (
                format!("subnets/{}", part.replace('/', "-")),
                json!({ "subnet": part, "node": node, "machineId": machine, "ips": ips,
                        "vtep": vtep, "mtu": self.random.below(3000) }),
            ),
            2 => (format!("reservations/{}", part.replace('/', "-")), json!("for the printer")),
            // Of another application: what a record says of its own node's containers is believed.
            _ => (
                format!("containers/{node}/pods/{id}/eth0"),
                json!({ "record": { "network": "pods", "containerID": id, "ifname": "eth0",
                                    "ips": ips, "labels": { "app": "other" }, "created": 1 },
                        "healthy": true }),
            ),
        };
        (format!("{ROOT}{key}"), value.to_string().into_bytes())
    }
}

/// How each node reaches the parts of the living ones: routes, neighbours and tunnel ends.
fn ways(cluster: &Cluster<'_>) -> Vec<Vec<String>> {
    let real = |line: &str| {
        let vtep = |number: usize| MacAddress::of_vtep(&format!("node{number}"), 1).to_string();
        (1..=3).any(|number| {
            line.contains(&format!("10.0.{}.0", number + 1)) || line.contains(&vtep(number))
        })
    };
    let of_node = |node: &causeway_tests::Node| {
        let text = node.sh(
            "ip route show proto 197; ip neigh show dev cwov1 nud permanent; bridge fdb show dev cwov1",
        );
        let mut lines: Vec<String> =
            text.lines().filter(|line| real(line)).map(|line| line.trim().to_owned()).collect();
        lines.sort();
        lines
    };
    cluster.lab.nodes.iter().map(of_node).collect()
}

/// Waits until every daemon has heard of the lie, and everything stands as it stood.
fn stands(cluster: &Cluster<'_>, before: &[Vec<String>], revision: i64, lie: &str) -> Duration {
    let heard = |daemon: &Daemon<'_>| {
        let seen = daemon.status().cluster.expect("a cluster").revision;
        seen >= revision && in_rotation(daemon, SERVICE) == 3
    };
    let all = || cluster.daemons.iter().all(heard) && ways(cluster) == *before;
    how_soon(SOON, all).unwrap_or_else(|| {
        let each = cluster.daemons.iter();
        let state: Vec<_> =
            each.map(|daemon| (in_rotation(daemon, SERVICE), daemon.status().degraded)).collect();
        panic!("{lie}: {state:#?}\n{:#?}\ninstead of {before:#?}", ways(cluster));
    })
}

/// Packets get there: between all containers, and by the service to each of them and to nobody else.
fn packets_arrive(cluster: &Cluster<'_>, pods: &[Placed]) {
    assert_eq!(all_ping(pods), 6);
    let wanted: Vec<&str> = pods.iter().map(Placed::ip).collect();
    for node in &cluster.lab.nodes {
        let mut got: Vec<String> =
            answers(node, VIP, 3).into_iter().map(|answer| answer.ip.to_string()).collect();
        got.sort();
        assert_eq!(got, wanted);
    }
}

/// No daemon stops, no way to a living node and no container of one is lost, and once the lies are
/// removed nothing is left of them. One of the nodes has the other backend.
///
/// Rows: RH7
#[test]
fn a_store_that_lies_takes_nothing_from_a_living_node() {
    let lies = option_env!("CAUSEWAY_LIES").and_then(|text| text.parse().ok()).unwrap_or(LIES);
    let seed = option_env!("CAUSEWAY_LIES_SEED").and_then(|text| text.parse().ok()).unwrap_or(SEED);
    let lab = Lab::with_nodes(3);
    let setup = Setup::default().unasked().own(1, "--backend", "iptables");
    let cluster = Cluster::start(&lab, setup);
    let pods: Vec<Placed> = (0..3).map(|node| cluster.pod(node, "app:cs-pod")).collect();
    cluster.daemons[0].apply(&[service("10.96.1.100", &json!({}))]);
    cluster.endpoints(SERVICE, 3);
    let before = ways(&cluster);
    assert_eq!(before.iter().map(Vec::len).collect::<Vec<_>>(), [6, 6, 6], "{before:#?}");
    packets_arrive(&cluster, &pods);

    let pids: Vec<i32> = cluster.daemons.iter().map(Daemon::pid).collect();
    let pings = Pings::start(&pods[0], pods[1].ip());
    let stream = Stream::start(&pods[2], &pods[0], &format!("{}:9000", pods[0].ip()), 9000);
    let mut liar = Liar::new(&cluster, seed);
    let (mut waited, mut longest) = (Duration::ZERO, (Duration::ZERO, String::new()));
    for number in 1..=lies {
        let (revision, lie) = liar.lie();
        let took =
            stands(&cluster, &before, revision, &format!("seed {seed}, lie {number}: {lie}"));
        waited += took;
        longest = longest.max((took, lie));
        if number % 100 == 0 {
            packets_arrive(&cluster, &pods);
        }
        if number % 1000 == 0 {
            say(&format!("{number} lies: {waited:?} until all stood"));
        }
    }
    let (pinged, streamed) = (pings.end(), stream.end());
    say(&format!("seed {seed}: {lies} lies: {:?}", liar.counts));
    say(&format!("until all stood: {waited:?}, at most {longest:?}; {pinged:?} {streamed:?}"));
    let alive: Vec<i32> = cluster.daemons.iter().map(Daemon::pid).collect();
    assert_eq!(alive, pids);
    assert!(pinged.lost * 50 <= pinged.sent, "{pinged:?}");

    // What no daemon wrote, or has no lease of one, goes.
    for (key, ..) in
        liar.records().into_iter().filter(|(key, _, lease)| !liar.is_real(key) || *lease == 0)
    {
        liar.delete(&key);
    }
    cluster.settled();
    cluster.everywhere("nothing is left of it", |daemon| {
        daemon.status().degraded.is_empty() && in_rotation(daemon, SERVICE) == 3
    });
    packets_arrive(&cluster, &pods);
}
