//! Loading services into the kernel, and one change of one endpoint.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use causeway_model::{Event, Index, Object, ObjectKey, manifest};
use causeway_nft::Client;
use causeway_ruleset::plan::{NodePortAddresses, Plan, PlanContext, SourceHash};
use causeway_ruleset::services::TableMirror;
use causeway_tests::{Ns, finish};
use serde_json::{Value, json};

use crate::layouts;
use crate::report::{median, ms, p99};

const LOADS: usize = 5;
const CHANGES: usize = 300;
const PEER_CHANGES: usize = 30;

/// Runs the section.
pub(crate) fn run() {
    println!("Services, from facts to committed rules (median of {LOADS}, in a fresh namespace):");
    load(10_000, 2);
    load(45_000, 1);
    println!();
    println!("One endpoint more or less at 45,000 services, from the call to committed:");
    change();
    println!();
}

/// The facts of a node of the tutorials.
pub(crate) fn facts() -> PlanContext {
    let net = |text: &str| text.parse().expect("a network");
    PlanContext {
        node: "node1".to_owned(),
        zone: None,
        cluster_cidrs: vec![net("10.0.0.0/16")],
        service_cidrs: vec![net("10.96.0.0/16")],
        node_port_addresses: NodePortAddresses::All,
        masquerade_all: false,
        node_ips: vec!["172.18.0.2".parse().expect("an address")],
        source_hash: SourceHash::Nftables,
    }
}

/// Address of service `number`.
pub(crate) fn vip(number: usize) -> String {
    format!("10.96.{}.{}", number / 250, number % 250 + 1)
}

/// Address of endpoint `index` of service `number`, on another node.
pub(crate) fn endpoint(number: usize, index: usize) -> String {
    format!("10.{}.{}.{}", index + 1, number / 250, number % 250 + 1)
}

/// A service and its slice with `count` endpoints, as Kubernetes writes them.
pub(crate) fn documents(number: usize, count: usize, protocol: &str) -> [Value; 2] {
    let name = format!("service-{number}");
    let metadata = json!({ "name": name, "namespace": "default" });
    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": metadata,
        "spec": { "clusterIP": vip(number), "ports": [
            { "port": 80, "targetPort": 8080, "protocol": protocol }] } });
    let endpoints: Vec<Value> = (0..count)
        .map(|index| json!({ "addresses": [endpoint(number, index)], "nodeName": "node2" }))
        .collect();
    let slice = json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{ "port": 8080, "protocol": protocol }],
        "metadata": { "name": format!("{name}-1"), "namespace": "default",
                      "labels": { "kubernetes.io/service-name": name } } });
    [service, slice]
}

/// The same, checked.
fn objects(number: usize, count: usize, protocol: &str) -> Vec<Object> {
    let parsed =
        documents(number, count, protocol).map(|one| manifest::from_json(&one).expect("an object"));
    parsed.into_iter().flatten().collect()
}

/// All services of a cluster.
pub(crate) fn cluster(
    services: usize,
    endpoints: usize,
    protocol: &str,
) -> (Index, BTreeSet<ObjectKey>) {
    let mut index = Index::default();
    let all = (0..services).flat_map(|number| objects(number, endpoints, protocol)).collect();
    let changes = index.apply(Event::Reset(all));
    (index, changes.services)
}

/// A namespace whose rules are those of `plan`.
pub(crate) fn loaded(plan: &Plan) -> (Ns, TableMirror, Client) {
    let ns = Ns::new("bench");
    let mut client = ns.run(|| Client::open().expect("nf_tables"));
    let (mirror, batch) = TableMirror::full(plan);
    client.commit(&batch).expect("a commit");
    (ns, mirror, client)
}

fn load(services: usize, endpoints: usize) {
    let (index, keys) = cluster(services, endpoints, "TCP");
    let mut times = Vec::new();
    for _ in 0..LOADS {
        let ns = Ns::new("bench");
        let mut client = ns.run(|| Client::open().expect("nf_tables"));
        let started = Instant::now();
        let mut plan = Plan::new(facts());
        plan.update(&keys, &|key| index.resolve(key));
        let (_mirror, batch) = TableMirror::full(&plan);
        client.commit(&batch).expect("a commit");
        times.push(started.elapsed());
    }
    let ours = median(&mut times);
    println!("  {services} services x {endpoints}: {}", ms(ours));
    let mut peers = vec![("nft -f, shared maps", layouts::shared_maps(services, endpoints), "nft")];
    if services <= 10_000 {
        let chains = layouts::kube_proxy_nftables(services, endpoints);
        peers.push(("nft -f, kube-proxy's layout", chains, "nft"));
        let restore = layouts::kube_proxy_iptables(services, endpoints);
        peers.push(("iptables-restore, kube-proxy's layout", restore, "iptables-restore"));
    }
    for (name, text, program) in peers {
        let ns = Ns::new("bench");
        let took = feed(&ns, program, &text);
        println!("    {name}: {}   {:.1} times", ms(took), took.as_secs_f64() / ours.as_secs_f64());
    }
}

/// Runs `nft -f -` or `iptables-restore` on a text.
pub(crate) fn feed(ns: &Ns, program: &str, text: &str) -> Duration {
    let mut command = ns.command(program);
    if program == "nft" {
        command.args(["-f", "-"]);
    }
    let started = Instant::now();
    finish(command, text.as_bytes()).ok();
    started.elapsed()
}

fn change() {
    const SERVICES: usize = 45_000;
    let (mut index, keys) = cluster(SERVICES, 1, "TCP");
    let mut plan = Plan::new(facts());
    plan.update(&keys, &|key| index.resolve(key));
    let (_ns, mut mirror, mut client) = loaded(&plan);
    let mut times = Vec::new();
    for round in 0..CHANGES {
        let slice =
            objects(round / 2 * 149 % SERVICES, 2 - round % 2, "TCP").pop().expect("a slice");
        let started = Instant::now();
        let changes = index.apply(Event::Apply(slice));
        let delta = plan.update(&changes.services, &|key| index.resolve(key));
        client.commit(&mirror.change(&delta)).expect("a commit");
        times.push(started.elapsed());
    }
    let ours = median(&mut times);
    println!("  ours {} median, {} p99", ms(ours), ms(p99(&times)));
    let shared = layouts::shared_maps(SERVICES, 1);
    let chains = layouts::kube_proxy_nftables(10_000, 2);
    for (name, text, change) in [
        ("nft -f, shared maps", shared, layouts::shared_maps_change as fn(usize) -> String),
        ("nft -f, kube-proxy's layout at 10,000 services", chains, layouts::kube_proxy_change),
    ] {
        let ns = Ns::new("bench");
        feed(&ns, "nft", &text);
        let mut times: Vec<Duration> =
            (0..PEER_CHANGES).map(|round| feed(&ns, "nft", &change(round))).collect();
        let peer = median(&mut times);
        println!("    {name}: {}   {:.1} times", ms(peer), peer.as_secs_f64() / ours.as_secs_f64());
    }
}
