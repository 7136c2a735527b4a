//! Several attachments with one host port, and rules that another program flushed.

use std::path::Path;

use causeway_tests::traffic::Server;
use causeway_tests::{Attachment, Pod};
use serde_json::json;

use crate::{NODE, World, attachment, elements, state_files, tcp};

/// One container on three networks that all publish one port.
///
/// Rows: RC2
#[test]
fn a_port_of_several_networks_lives_until_the_last_del() {
    for backend in ["nftables", "iptables"] {
        let world = World::new();
        let (lab, node) = (&world.lab, world.node());
        let extra = json!({ "backend": backend });
        let networks = [("c", 20), ("b", 21), ("a", 22)]
            .map(|(name, number)| world.runtime(name, number, extra.clone()));
        let pod = node.pod();
        let attached = ["eth0", "eth1", "eth2"].map(|ifname| {
            pod.attachment(ifname).runtime_config(json!({ "portMappings": [tcp(8080, 80)] }))
        });
        let _web = Server::tcp(&pod, "web", "0.0.0.0:80");
        for (network, attached) in networks.iter().zip(&attached) {
            network.add_ok(attached);
        }
        let serves = |network: u8| {
            let answer = lab.client.tcp(&format!("{NODE}:8080"));
            let answer = answer.unwrap_or_else(|error| panic!("{backend} {network}: {error}"));
            assert_eq!(answer.hostname, "web", "{backend}");
            assert!(node.rules().contains(&format!("10.{network}.0.")), "{backend} {network}");
        };
        let check = |at: usize| {
            let checked = networks[at].check(&attached[at]);
            checked.unwrap_or_else(|outcome| panic!("{backend} {at}: {}", outcome.describe()));
        };
        (0..3).for_each(check);
        serves(20);
        // The one that waits goes first, then the one that serves.
        networks[1].del_ok(&attached[1]);
        [0, 2].into_iter().for_each(check);
        serves(20);
        networks[1].add_ok(&attached[1]);
        networks[0].del_ok(&attached[0]);
        [1, 2].into_iter().for_each(check);
        // The earliest ADD that is left.
        serves(22);
        networks[2].del_ok(&attached[2]);
        check(1);
        serves(21);
        networks[1].del_ok(&attached[1]);
        assert!(lab.client.tcp(&format!("{NODE}:8080")).is_err(), "{backend}");
        assert_eq!(state_files(node), "", "{backend}");
        assert!(!node.rules().contains("8080"), "{backend}: {}", node.rules());
    }
}

/// Two containers, then another program flushes rules, whole or in part; the ADD of a third one repairs.
///
/// Rows: RC1
#[test]
fn an_add_repairs_the_host_ports_of_others() {
    let flushes = [
        ("nftables", "nft flush ruleset"),
        ("nftables", "nft flush table inet causeway_hostport"),
        ("nftables", "nft flush map inet causeway_hostport any4"),
        ("nftables", "nft flush set inet causeway_hostport hairpin4"),
        ("iptables", "iptables -t nat -F"),
        ("iptables", "iptables -t nat -F && iptables -t nat -X"),
        ("iptables", "iptables -t raw -F"),
    ];
    for (backend, flush) in flushes {
        let world = World::new();
        let (lab, node) = (&world.lab, world.node());
        let runtime = world.runtime("net", 20, json!({ "backend": backend }));
        let pods: [Pod; 3] = [(); 3].map(|()| node.pod());
        let attached: Vec<Attachment> = pods
            .iter()
            .zip(8080..)
            .map(|(pod, port)| attachment(pod, json!([tcp(port, 80)])))
            .collect();
        runtime.add_ok(&attached[0]);
        runtime.add_ok(&attached[1]);
        let _web = Server::tcp(&pods[0], "web", "0.0.0.0:80");
        node.sh(flush);
        assert!(runtime.check(&attached[0]).is_err(), "{flush}: nothing was lost");
        runtime.add_ok(&attached[2]);
        for attached in &attached {
            let checked = runtime.check(attached);
            checked.unwrap_or_else(|outcome| panic!("{flush}: {}", outcome.describe()));
        }
        let answer = lab.client.tcp(&format!("{NODE}:8080"));
        assert_eq!(answer.expect("the port of the first").hostname, "web", "{flush}");
        // What was deleted meanwhile does not come back with the next one.
        runtime.del_ok(&attached[0]);
        node.sh(flush);
        runtime.del_ok(&attached[1]);
        runtime.del_ok(&attached[2]);
        runtime.add_ok(&attached[2]);
        assert!(!node.rules().contains("8081"), "{flush}: {}", node.rules());
        runtime.del_ok(&attached[2]);
        assert_eq!(state_files(node), "", "{flush}");
        assert!(
            Path::new(&node.run_dir()).exists() && elements(node, "any4").is_empty(),
            "{flush}"
        );
    }
}
