//! What nodes give out at the same time, and nodes that find no store at all.

use std::collections::{BTreeMap, BTreeSet};

use causeway_api::AppliedOutcome;
use causeway_tests::cluster::{Cluster, Setup, until};
use causeway_tests::{Daemon, Etcd, Lab, Runtime};
use serde_json::{Value, json};

fn service(name: &str, ip: Option<&str>, port: Option<u16>) -> Value {
    let mut service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
        "spec": { "type": "NodePort", "selector": { "app": "a" }, "ports": [{ "port": 80 }] } });
    if let Some(ip) = ip {
        service["spec"]["clusterIP"] = json!(ip);
    }
    if let Some(port) = port {
        service["spec"]["ports"][0]["nodePort"] = json!(port);
    }
    service
}

#[test]
fn addresses_and_node_ports_are_given_out_once() {
    const EACH: usize = 15;
    let lab = Lab::with_nodes(3);
    let cluster = Cluster::start(&lab, Setup { overlay: "none", ..Setup::default() });
    let apply = |node: usize| {
        for number in 0..EACH {
            cluster.daemons[node].apply(&[service(&format!("n{node}-{number}"), None, None)]);
        }
    };
    std::thread::scope(|scope| {
        for node in 0..3 {
            scope.spawn(move || apply(node));
        }
    });
    cluster
        .everywhere("all services", |daemon| daemon.status().counts["services"] == 3 * EACH as u64);
    let views: Vec<BTreeMap<String, (String, u64)>> = cluster.daemons.iter().map(all).collect();
    assert!(views.iter().all(|view| *view == views[0]), "{views:?}");
    let ips: BTreeSet<_> = views[0].values().map(|(ip, _)| ip).collect();
    let ports: BTreeSet<_> = views[0].values().map(|(_, port)| port).collect();
    assert_eq!((ips.len(), ports.len()), (3 * EACH, 3 * EACH));

    // The same wish at the same time: one gets it, the others are told who has it.
    let wish = |node: usize| {
        let wanted = service(&format!("wish{node}"), Some("10.96.77.77"), Some(30777));
        cluster.daemons[node].try_apply(&[wanted]).results.remove(0)
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|node| scope.spawn(move || wish(node))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let made = |one: &&causeway_api::AppliedObject| one.outcome == AppliedOutcome::Created;
    assert_eq!(results.iter().filter(made).count(), 1, "{results:?}");
    let winner = results.iter().find(made).expect("counted").name.clone();
    for loser in results.iter().filter(|one| !made(one)) {
        let why = format!("{:?}", loser.refusal);
        assert!(why.contains(&winner), "{why}");
    }
    // Deleted, it is free for anybody.
    let path = format!("/v1/services/default/{winner}");
    cluster.daemons[1].request("DELETE", &path, b"").expect("deleted");
    cluster.daemons[2].apply(&[service("again", Some("10.96.77.77"), Some(30777))]);
}

fn all(daemon: &Daemon<'_>) -> BTreeMap<String, (String, u64)> {
    let list = daemon.get("/v1/services");
    let items = list["items"].as_array().expect("a list").iter();
    let one = |service: &Value| {
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let port = service["spec"]["ports"][0]["nodePort"].as_u64().expect("a node port");
        (text(&service["metadata"]["name"]), (text(&service["spec"]["clusterIP"]), port))
    };
    items.map(one).collect()
}

/// Rows: C-04, C-05
#[test]
fn a_new_node_that_finds_no_store_waits_for_it() {
    let lab = Lab::with_nodes(1);
    let mut etcd = Etcd::start(&lab);
    etcd.kill();
    let setup = Setup::default();
    let arguments = setup.arguments(0, &etcd.url());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let daemon = Daemon::start_with(&lab.nodes[0], &arguments);
    daemon.until("degraded", || !daemon.status().degraded.is_empty());
    let runtime = Runtime::new(&lab.nodes[0], lab.nodes[0].conflist("pods", "auto"));
    let pod = lab.nodes[0].pod();
    let refused = runtime.add(&pod.attachment("eth0")).expect_err("there is no subnet yet");
    assert_eq!(refused.error_code(), 11, "{refused:?}");
    etcd.again();
    until("well", || daemon.status().degraded.is_empty());
    until("a subnet", || runtime.add(&pod.attachment("eth0")).is_ok());
}
