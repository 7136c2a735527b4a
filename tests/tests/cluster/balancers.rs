//! Load balancer addresses over a store: claimed like cluster addresses by whoever writes the service,
//! and given to whoever waits by the first node that lives.

use std::collections::BTreeMap;

use causeway_tests::cluster::{Cluster, Setup, answers, asked};
use causeway_tests::traffic::IMPATIENCE;
use causeway_tests::{Daemon, Lab};
use serde_json::{Value, json};

/// So many addresses.
const SIZE: usize = 8;

fn balanced(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
            "spec": { "type": "LoadBalancer", "selector": { "app": "a" }, "ports": [{ "port": 80 }] } })
}

/// Services with their addresses; those that wait have none.
fn all(daemon: &Daemon<'_>) -> BTreeMap<String, Option<String>> {
    let list = daemon.get("/v1/services");
    let items = list["items"].as_array().expect("a list").iter();
    let one = |service: &Value| {
        let name = service["metadata"]["name"].as_str().expect("a name").to_owned();
        let ip = service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str();
        (name, ip.map(str::to_owned))
    };
    items.map(one).collect()
}

/// The addresses that services have, in order; whoever has one has it alone, and all nodes agree.
#[track_caller]
fn given(cluster: &Cluster<'_>, nodes: &[usize], services: usize) -> Vec<String> {
    let view = |node: usize| all(&cluster.daemons[node]);
    let first = nodes[0];
    for node in nodes {
        cluster.daemons[*node].until("all nodes agree, and nothing is free", || {
            let (view, other) = (view(*node), view(first));
            let given = view.values().flatten().count();
            view == other && view.len() == services && given == services.min(SIZE)
        });
    }
    let mut given: Vec<String> = view(first).into_values().flatten().collect();
    given.sort();
    let once = given.len();
    given.dedup();
    assert_eq!(given.len(), once, "{given:?}");
    given
}

fn first_with(daemon: &Daemon<'_>) -> String {
    all(daemon).into_iter().find(|(_, ip)| ip.is_some()).expect("one has an address").0
}

/// Rows: L-20
#[test]
fn addresses_are_given_once_and_whoever_waits_gets_the_next() {
    const EACH: usize = 4;
    let lab = Lab::with_nodes(3);
    let setup = Setup::default().flag("--lb-pool", "172.18.0.150-172.18.0.157");
    let mut cluster = Cluster::start(&lab, setup);
    let apply = |node: usize| {
        for number in 0..EACH {
            cluster.daemons[node].apply(&[balanced(&format!("n{node}-{number}"))]);
        }
    };
    std::thread::scope(|scope| {
        for node in 0..3 {
            scope.spawn(move || apply(node));
        }
    });
    let wanted: Vec<String> = (150..158).map(|last| format!("172.18.0.{last}")).collect();
    assert_eq!(given(&cluster, &[0, 1, 2], 3 * EACH), wanted);
    cluster.everywhere("the pool is full", |daemon| {
        daemon.status().pools.iter().all(|pool| (pool.used, pool.free) == (SIZE as u64, 0))
    });

    // Every node sends what goes there to endpoints, whoever announces it.
    let pods: Vec<_> = (0..3).map(|node| cluster.pod(node, "app:a")).collect();
    let name = first_with(&cluster.daemons[0]);
    cluster.endpoints(&name, 3);
    let at = format!("{}:80", all(&cluster.daemons[0])[&name].as_ref().expect("an address"));
    for node in 0..3 {
        for from in [&*pods[node], &*lab.nodes[node]] {
            let answers = asked(from, &at, 3);
            assert!(answers.iter().all(|ip| pods.iter().any(|pod| pod.ip() == ip)), "{answers:?}");
        }
    }

    // Deleted at a node that gives nothing to others, it goes to one that waits.
    let delete = |cluster: &Cluster<'_>, node: usize| {
        let path = format!("/v1/services/default/{}", first_with(&cluster.daemons[node]));
        cluster.daemons[node].request("DELETE", &path, b"").expect("deleted");
    };
    delete(&cluster, 2);
    assert_eq!(given(&cluster, &[0, 1, 2], 3 * EACH - 1), wanted);
    // The node that gives dies: the next one does.
    cluster.die(0);
    delete(&cluster, 2);
    assert_eq!(given(&cluster, &[1, 2], 3 * EACH - 2), wanted);
}

/// Rows: L-16
#[test]
fn with_policy_local_clients_are_seen_and_nodes_without_endpoints_drop() {
    let lab = Lab::with_nodes(2);
    let setup = Setup::default().flag("--lb-pool", "172.18.0.150");
    let cluster = Cluster::start(&lab, setup);
    let mut local = balanced("web");
    local["spec"]["externalTrafficPolicy"] = json!("Local");
    cluster.daemons[1].apply(&[local]);
    let pod = cluster.pod(0, "app:a");
    cluster.endpoints("web", 1);
    let shown = cluster.daemons[0].get("/v1/services/default/web");
    let port = shown["spec"]["healthCheckNodePort"].as_u64().expect("a port");
    let health = |node: usize| {
        let url = format!("http://{}:{port}/", Lab::node_address(node));
        lab.client.sh(&format!("curl -s -m 5 -o /dev/null -w '%{{http_code}}' {url}"))
    };
    let route = |node: usize| {
        let via = Lab::node_address(node);
        lab.client.ip(&format!("route replace 172.18.0.150/32 via {via}\n"));
    };
    let at = "172.18.0.150:80";
    route(0);
    for answer in answers(&lab.client, at, 4) {
        assert_eq!(
            (answer.ip.to_string(), answer.peer.ip().to_string()),
            (pod.ip().to_owned(), Lab::CLIENT.to_owned())
        );
    }
    assert_eq!(health(0), "200");
    route(1);
    let error = lab.client.tcp_within(at, IMPATIENCE).expect_err("dropped");
    assert_ne!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{error}");
    assert_eq!(health(1), "503");
    // Those who are inside reach it on every node.
    assert_eq!(asked(&lab.nodes[1], at, 2), [pod.ip(), pod.ip()]);
    cluster.remove(&pod);
    cluster.daemons[0].until("nobody is there", || health(0) == "503");
}
