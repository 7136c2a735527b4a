//! The tutorials on nodes that share a store: addresses, pings, services, sources.

use std::net::IpAddr;

use causeway_tests::cluster::{Cluster, Setup, all_ping, answers, asked, service};
use causeway_tests::traffic::Server;
use causeway_tests::{Lab, Ns};
use serde_json::json;

const VIP: &str = "10.96.1.100";
const PODS: [&str; 4] = ["10.0.1.2", "10.0.1.3", "10.0.2.2", "10.0.2.3"];

/// Rows: O-54, S-11, S-18, S-19, S-22, S-27, S-29, S-30, S-34, S-35, P11, P18, P42
#[test]
fn the_tutorials_on_nodes_with_a_store() {
    tutorials(Setup::default());
}

/// Rows: S-19, S-22, S-27, S-29, S-30, S-34, S-35, P11, P18
#[test]
fn the_tutorials_on_nodes_with_a_store_by_iptables() {
    tutorials(Setup::default().flag("--backend", "iptables"));
}

fn tutorials(setup: Setup) {
    let lab = Lab::with_nodes(3);
    let cluster = Cluster::start(&lab, setup);
    let mut pods = vec![cluster.pod(0, "app:cs-pod"), cluster.pod(0, "app:cs-pod")];
    pods.extend([cluster.pod(1, "app:cs-pod"), cluster.pod(1, "app:cs-pod")]);
    let ips: Vec<&str> = pods.iter().map(|pod| pod.ip()).collect();
    assert_eq!(ips, PODS);
    assert_eq!(all_ping(&pods), 12);

    // Applied on the node that runs none of them.
    cluster.daemons[2].apply(&[service(VIP, &json!({}))]);
    cluster.endpoints("http-server-svc", 4);
    let vip = format!("{VIP}:8080");
    for (name, from) in sources(&lab, &pods.iter().map(|pod| &**pod).collect::<Vec<_>>()) {
        assert_eq!(asked(from, &vip, 4), PODS, "from {name}");
    }

    // The source of a container is what a container sees, on whatever node it is.
    for (from, to) in [(&pods[0], &pods[2]), (&pods[3], &pods[1])] {
        let direct = answers(from, &format!("{}:80", to.ip()), 1).remove(0);
        assert_eq!(direct.peer.ip().to_string(), from.ip());
        for answer in answers(from, &vip, 4) {
            let own = answer.ip.to_string() == from.ip();
            assert_eq!(answer.peer.ip().to_string() != from.ip(), own, "{answer:?}");
        }
    }
    // A process of the node comes as the node, by the address that it has in its own subnet.
    let answer = answers(&lab.nodes[0], &format!("{}:80", pods[2].ip()), 1).remove(0);
    assert_eq!(answer.peer.ip().to_string(), "10.0.1.0");
    node_ports(&lab, &pods[3], &cluster);
    from_outside(&lab);
    to_the_internet(&lab, &pods[3]);
}

fn sources<'a>(lab: &'a Lab, pods: &[&'a Ns]) -> Vec<(String, &'a Ns)> {
    let nodes = lab.nodes.iter().map(|node| (node.name().to_owned(), &**node));
    nodes.chain(pods.iter().map(|pod| (pod.name().to_owned(), *pod))).collect()
}

/// Every node answers on each of its addresses and nobody else does.
fn node_ports(lab: &Lab, pod: &Ns, cluster: &Cluster<'_>) {
    for (index, node) in lab.nodes.iter().enumerate() {
        let outside = asked(&lab.client, &format!("{}:30080", Lab::node_address(index)), 4);
        assert_eq!(outside, PODS, "node {index} from outside");
        let all = node.sh("ip -4 -o addr show | awk '{ sub(\"/.*\", \"\", $4); print $4 }'");
        assert!(all.lines().count() >= 3, "{all}");
        for address in all.lines() {
            assert_eq!(asked(node, &format!("{address}:30080"), 4), PODS, "{address}");
        }
    }
    assert_eq!(asked(&lab.nodes[0], "127.0.0.1:30080", 4), PODS);
    // A node's port on the way to somebody else's is not taken.
    let _outside = Server::tcp(&lab.client, "outside", "0.0.0.0:30080");
    let answer = answers(pod, &format!("{}:30080", Lab::CLIENT), 1).remove(0);
    assert_eq!(answer.hostname, "outside");
    let bound = cluster.lab.nodes[0].sh("ss -Hltn sport = :30080");
    assert_eq!(bound, "", "nothing listens there");
}

/// Who comes from outside the cluster is masqueraded, by node port and by cluster address.
fn from_outside(lab: &Lab) {
    lab.client.ip("route add 10.96.0.0/16 via 172.18.0.2\n");
    for to in ["172.18.0.2:30080", "172.18.0.4:30080", "10.96.1.100:8080"] {
        for answer in answers(&lab.client, to, 4) {
            let seen = answer.peer.ip();
            assert_ne!(seen.to_string(), Lab::CLIENT, "{to}: {answer:?}");
            let through = if to.starts_with("172.18.0.4") { 2 } else { 0 };
            assert!(has(&lab.nodes[through], seen), "{to}: {answer:?}");
        }
    }
}

/// Containers are hidden behind their node for the rest of the world, each behind its own.
fn to_the_internet(lab: &Lab, pod: &Ns) {
    let _server = Server::tcp(&lab.internet, "internet", "0.0.0.0:80");
    let answer = answers(pod, &format!("{}:80", Lab::INTERNET), 1).remove(0);
    assert_eq!(answer.peer.ip().to_string(), Lab::node_address(1));
}

fn has(node: &Ns, address: IpAddr) -> bool {
    node.sh("ip -o addr show").contains(&format!(" {address}/"))
}
