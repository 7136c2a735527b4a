//! Containers in networks outside the cluster networks, as nerdctl makes them of its own.

use std::collections::BTreeMap;
use std::net::IpAddr;

use causeway_tests::traffic::Server;
use causeway_tests::{Attachment, Daemon, Lab, Node, Pod, Runtime};
use serde_json::{Value, json};

use super::stage::{NODE, REMOTE, slice};

const PORT: u16 = 8001;

/// A network whose containers tell the daemon of themselves.
fn network(node: &Node, name: &str, bridge: &str, subnet: &str) -> Value {
    let mut list = node.conflist(name, subnet);
    list["plugins"][0]["bridge"] = json!(bridge);
    list["plugins"][1]["socket"] = json!(node.run_dir().join("causeway.sock"));
    list["plugins"][1]["spoolDir"] = json!(node.dir().join("spool"));
    list
}

/// Attaches a container with label `app`; its address.
fn attach(runtime: &Runtime<'_>, attachment: Attachment, app: &str) -> String {
    let attachment = attachment.args(&format!("CAUSEWAY_LABELS=app:{app}"));
    let result = runtime.add_ok(&attachment);
    let address = result["ips"][0]["address"].as_str().expect("an address");
    address.split_once('/').expect("a length").0.to_owned()
}

/// Who answered, and as whom each saw the client, until all of them have.
fn seen(client: &Pod, to: &str, servers: usize) -> BTreeMap<String, IpAddr> {
    let mut seen = BTreeMap::new();
    for _ in 0..200 {
        let answer = client.tcp(to).unwrap_or_else(|error| panic!("{to}: {error}"));
        seen.insert(answer.hostname, answer.peer.ip());
        if seen.len() == servers {
            break;
        }
    }
    seen
}

/// Rows: RB6
#[test]
fn a_container_outside_the_cluster_networks_keeps_its_address_on_its_node() {
    for backend in ["nftables", "iptables"] {
        let lab = Lab::two_nodes();
        let node = &lab.nodes[0];
        let daemon = Daemon::start_with(node, &["--backend", backend]);
        let cluster = Runtime::new(node, network(node, "cluster", "cw0", "10.0.1.0/24"));
        let private = Runtime::new(node, network(node, "shop", "br-shop", "10.4.0.0/24"));
        let pods: [Pod; 3] = [(); 3].map(|()| node.pod());
        let [near, beside, client] = &pods;
        let near_ip = attach(&cluster, near.attachment("eth0"), "web");
        let beside_ip = attach(&private, beside.attachment("eth0"), "web");
        let client_ip = attach(&private, client.attachment("eth0"), "client");
        let at = |ip: &str| format!("{ip}:{PORT}");
        let _servers = [
            Server::tcp(near, "near", &at(&near_ip)),
            Server::tcp(beside, "beside", &at(&beside_ip)),
            Server::tcp(&lab.nodes[1], "remote", &at(REMOTE)),
        ];
        let ports = json!([{ "name": "", "port": PORT }]);
        daemon.apply(&[
            json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" },
                    "spec": { "clusterIP": "10.96.0.10", "selector": { "app": "web" },
                              "ports": [{ "port": 80, "targetPort": PORT }] } }),
            slice("web", &ports, &[(REMOTE, "node2")]),
        ]);
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let named = |name: &str, address: &str| (name.to_owned(), ip(address));
        assert_eq!(
            seen(client, "10.96.0.10:80", 3),
            [named("near", &client_ip), named("beside", &client_ip), named("remote", NODE)].into(),
            "{backend}"
        );
        // One that reaches itself still is answered.
        let itself = seen(beside, "10.96.0.10:80", 3);
        assert_eq!(itself["near"], ip(&beside_ip), "{backend}");
        assert_ne!(itself["beside"], ip(&beside_ip), "{backend}");

        let trace = daemon.causeway(&["trace", &client.id, "web"]).ok();
        for part in [
            format!("{client_ip} is a container of this node, outside the cluster networks."),
            format!("It is default/{} in network shop.", client.id),
            format!(
                "{near_ip}, {beside_ip}: on this node, so the source address {client_ip} is kept."
            ),
            format!("{REMOTE}: not on this node and without a route back to {client_ip}"),
        ] {
            assert!(trace.contains(&part), "{backend}: {part}\n{trace}");
        }
        // Its rules go with it.
        let rules = || {
            let nft = "nft list set ip causeway_services containers";
            node.sh(&format!("{nft} 2>/dev/null || iptables-save -t nat"))
        };
        assert!(rules().contains(&client_ip), "{backend}: {}", rules());
        private.del_ok(&client.attachment("eth0"));
        assert!(!rules().contains(&client_ip), "{backend}: {}", rules());
    }
}
