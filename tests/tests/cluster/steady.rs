//! What goes on while daemons and the store die, and how much fits.

use std::time::Duration;

use causeway_tests::cluster::{Cluster, Setup, over_and_over, service, socket};
use causeway_tests::steady::{Pings, Stream, fragments, transfer};
use causeway_tests::{Lab, say};
use serde_json::json;

/// How long traffic goes on; the figure is 60 s, by `CAUSEWAY_STEADY_SECONDS`.
const SECONDS: u64 = 15;

fn seconds() -> u64 {
    let asked = option_env!("CAUSEWAY_STEADY_SECONDS").and_then(|text| text.parse().ok());
    asked.unwrap_or(SECONDS)
}

/// Rows: O-66, O-07
#[test]
fn traffic_survives_daemons_and_store() {
    let lab = Lab::with_nodes(2);
    let mut cluster = Cluster::start(&lab, Setup::default());
    let pods = cluster.two_each("app:cs-pod");
    let flows =
        json!({ "ports": [{ "port": 9000 }], "type": "ClusterIP", "selector": { "app": "no" } });
    let slice = json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": "s", "labels": { "kubernetes.io/service-name": "http-server-svc" } },
        "addressType": "IPv4", "ports": [{ "name": "", "port": 9001 }],
        "endpoints": [{ "addresses": [pods[2].ip()] }] });
    cluster.daemons[0].apply(&[service("10.96.1.100", &flows), slice]);
    cluster.endpoints("http-server-svc", 1);

    let pings = [Pings::start(&pods[0], pods[2].ip()), Pings::start(&pods[3], pods[1].ip())];
    let direct = Stream::start(&pods[0], &pods[2], &socket(pods[2].ip(), 9000), 9000);
    let by_service = Stream::start(&pods[1], &pods[2], "10.96.1.100:9000", 9001);
    let length = Duration::from_secs(seconds());
    let (rounds, took) = over_and_over(length, || {
        for node in 0..2 {
            cluster.daemons[node].kill();
            cluster.daemons[node].again();
        }
        cluster.etcd.kill();
        cluster.etcd.again();
        for daemon in &mut cluster.daemons {
            daemon.stop();
        }
        for daemon in &mut cluster.daemons {
            daemon.again();
        }
        cluster.settled();
    });
    let pinged = pings.map(Pings::end);
    let streamed = [direct.end(), by_service.end()];
    say(&format!("{rounds} rounds in {took:?}: {pinged:?} {streamed:?}"));
    for one in pinged {
        assert_eq!(one.lost, 0, "{one:?}");
        assert!(one.sent as u64 > seconds() * 20, "{one:?}");
    }
    for one in streamed {
        assert!(one.numbers > seconds() * 50, "{one:?}");
        assert!(one.slowest < Duration::from_secs(3), "{one:?}");
    }
}

/// Rows: S-14
#[test]
fn a_hundred_megabytes_across_nodes_arrive_whole() {
    let lab = Lab::with_nodes(2);
    let cluster = Cluster::start(&lab, Setup::default());
    let pods = cluster.two_each("");
    let count = || -> u64 {
        let nodes = lab.nodes.iter().map(|node| fragments(node));
        nodes.chain(pods.iter().map(|pod| fragments(pod))).sum()
    };
    let before = count();
    let took = transfer(&pods[0], &pods[2], &socket(pods[2].ip(), 9000), 9000, 100_000_000);
    assert_eq!(count(), before, "fragments");
    say(&format!("100 MB across nodes in {took:?}"));
    for (name, place) in [("cw0", &*lab.nodes[0]), ("cwov1", &*lab.nodes[0]), ("eth0", &*pods[0])] {
        assert_eq!(place.link(name).expect("it is there")["mtu"], 1450, "{name}");
    }
}
