//! Removal with what little a runtime knows, repair, garbage, and many at once.

use std::time::Duration;

use causeway_host::{FileLock, RecordKey, Records};
use causeway_tests::{Attachment, Cni, Node};
use serde_json::{Value, json};

use crate::{World, alone, attachment, elements, mappings, merged, state_files, tcp};

/// `alone` for network `network`, container address `address` and these ports.
fn with<'a>(
    node: &'a Node,
    command: &str,
    (network, address, backend): (&str, &str, &str),
    attached: &Attachment,
    ports: Value,
) -> Cni<'a> {
    let extra = merged(
        mappings(ports),
        json!({ "name": network, "backend": backend,
                "prevResult": crate::previous(attached, &format!("{address}/24")) }),
    );
    alone(node, command, extra, attached)
}

/// A call with the configuration of `network` and nothing else.
fn bare<'a>(
    node: &'a Node,
    command: &str,
    (network, backend): (&str, &str),
    more: Value,
) -> Cni<'a> {
    let config = json!({ "cniVersion": "1.1.0", "name": network, "type": "causeway-service",
                         "runDir": node.run_dir(), "backend": backend });
    Cni::new(node, "causeway-service", command, &merged(config, more))
}

/// What GC is told if nothing is attached.
fn none_valid() -> Value {
    json!({ "cni.dev/valid-attachments": [] })
}

/// What is left of host ports: upstream's base chains stay, and count as nothing.
fn left(node: &Node) -> String {
    let rules = node.rules();
    rules.lines().filter(|line| line.contains("CNI-DN-") || line.contains("causeway")).collect()
}

/// Rows: C57, C63, C64, C65, C66, C67, F4, F8, F9
#[test]
fn del_needs_neither_netns_nor_result_nor_ports() {
    for backend in ["nftables", "iptables"] {
        let world = World::new();
        let node = world.node();
        let attached = node.pod().attachment("eth0");
        let plain = node.dir().join("plain");
        std::fs::write(&plain, "").expect("write a file");
        let del = |netns: &str, version: &str| {
            bare(node, "DEL", ("net", backend), json!({ "cniVersion": version }))
                .attachment(&attached.clone().netns(netns))
                .run()
                .silent();
        };
        // Before any ADD, as nerdctl does.
        del("", "1.1.0");
        for (netns, version) in [
            ("", "1.1.0"),
            ("/run/netns/gone", "0.3.1"),
            (plain.to_str().expect("a plain path"), "0.4.0"),
        ] {
            let ports =
                json!([tcp(8080, 80), { "hostPort": 53, "containerPort": 53, "protocol": "udp" }]);
            with(node, "ADD", ("net", "10.99.0.2", backend), &attached, ports).run().json();
            assert_ne!(left(node), "", "{backend}: ADD");
            del(netns, version);
            assert_eq!(left(node), "", "{backend}: DEL with netns {netns:?}");
            assert_eq!(state_files(node), "", "{backend}");
            del(netns, version);
        }
        let locks =
            node.sh(&format!("find {}/attachments -name '*.lock'", node.run_dir().display()));
        assert_eq!(locks, "", "{backend}: of attachments that are gone");
    }
}

/// Rows: C62
#[test]
fn attachments_of_one_container_are_independent() {
    for backend in ["nftables", "iptables"] {
        let world = World::new();
        let node = world.node();
        let pod = node.pod();
        let (eth0, eth1) = (pod.attachment("eth0"), pod.attachment("eth1"));
        let all = [
            ("a", "10.99.1.2", &eth0, 8081),
            ("b", "10.99.2.2", &eth0, 8082),
            ("a", "10.99.3.2", &eth1, 8083),
        ];
        let call = |command, (network, address, attached, port): (&str, &str, &Attachment, u16)| {
            let whom = (network, address, backend);
            with(node, command, whom, attached, json!([tcp(port, 80)])).run()
        };
        for one in all {
            call("ADD", one).json();
        }
        for gone in 0..all.len() {
            call("DEL", all[gone]).silent();
            for (index, one) in all.into_iter().enumerate() {
                let checked = call("CHECK", one);
                assert_eq!(checked.status.success(), index > gone, "{backend}: {gone} {index}");
            }
        }
        assert_eq!(left(node), "", "{backend}");
    }
}

/// Rows: C73, C74, F47
#[test]
fn gc_removes_what_is_not_valid_of_its_network_only() {
    for backend in ["nftables", "iptables"] {
        let world = World::new();
        let node = world.node();
        let pods: Vec<Attachment> = (0..3).map(|_| node.pod().attachment("eth0")).collect();
        let call = |command: &str, network: &str, index: usize| {
            let number = if network == "net" { index } else { index + 10 };
            let address = format!("10.99.0.{}", number + 2);
            let port = u16::try_from(8080 + number).expect("a port");
            let whom = (network, address.as_str(), backend);
            with(node, command, whom, &pods[index], json!([tcp(port, 80)])).run()
        };
        for index in 0..3 {
            call("ADD", "net", index).json();
            call("ADD", "net2", index).json();
        }
        let gc = |more: Value| bare(node, "GC", ("net", backend), more).run();
        let before = node.rules();
        let malformed = gc(json!({ "cni.dev/valid-attachments": "all" })).error();
        assert!([6, 7].contains(&malformed["code"].as_u64().expect("a code")), "{malformed}");
        assert_eq!(node.rules(), before);

        let valid = json!([{ "containerID": pods[1].id, "ifname": "eth0" },
                           { "containerID": pods[0].id, "ifname": "eth1" }]);
        gc(json!({ "cni.dev/valid-attachments": valid })).silent();
        for (network, alive) in [("net", [false, true, false]), ("net2", [true; 3])] {
            for (index, alive) in alive.into_iter().enumerate() {
                let checked = call("CHECK", network, index).status.success();
                assert_eq!(checked, alive, "{backend}: {network} {index}");
            }
        }
        gc(none_valid()).silent();
        assert!(!call("CHECK", "net", 1).status.success());
        for index in 0..3 {
            call("CHECK", "net2", index).silent();
            call("DEL", "net2", index).silent();
        }
        assert_eq!(left(node), "", "{backend}");
        assert_eq!(state_files(node), "", "{backend}");
    }
}

/// An attachment that is being made right now is newer than the list.
///
/// Rows: F46
#[test]
fn gc_leaves_an_attachment_under_work_alone() {
    let world = World::new();
    let node = world.node();
    let attached = node.pod().attachment("eth0");
    let whom = ("net", "10.99.0.2", "nftables");
    with(node, "ADD", whom, &attached, json!([tcp(8080, 80)])).run().json();
    let key = RecordKey {
        network: "net".to_owned(),
        container_id: attached.id.clone(),
        ifname: attached.ifname.clone(),
    };
    let held = Records::new(&node.run_dir(), "service").lock(&key, Duration::ZERO);
    let held = held.expect("nobody else works on it");
    bare(node, "GC", ("net", "nftables"), none_valid()).run().silent();
    with(node, "CHECK", whom, &attached, json!([tcp(8080, 80)])).run().silent();
    drop(held);
    bare(node, "GC", ("net", "nftables"), none_valid()).run().silent();
    assert_eq!(node.nft(), "");
}

/// Rules whose records are gone (`/run` was cleaned by hand) are found by their owner comment.
///
/// Rows: F4
#[test]
fn rules_without_record_are_found_by_their_owner() {
    for backend in ["nftables", "iptables"] {
        let world = World::new();
        let node = world.node();
        let pods: Vec<Attachment> = (0..3).map(|_| node.pod().attachment("eth0")).collect();
        for (index, attached) in pods.iter().enumerate() {
            let address = format!("10.99.0.{}", index + 2);
            let port = u16::try_from(8080 + index).expect("a port");
            let whom = ("net", address.as_str(), backend);
            with(node, "ADD", whom, attached, json!([tcp(port, 80)])).run().json();
        }
        node.sh(&format!("rm -r {}/attachments", node.run_dir().display()));
        bare(node, "DEL", ("net", backend), json!({})).attachment(&pods[0]).run().silent();
        let rules = node.rules();
        assert!(!rules.contains(&pods[0].id), "{backend}: {rules}");
        assert!(rules.contains(&pods[1].id) && rules.contains(&pods[2].id), "{backend}: {rules}");
        let valid = json!([{ "containerID": pods[1].id, "ifname": "eth0" }]);
        let valid = json!({ "cni.dev/valid-attachments": valid });
        bare(node, "GC", ("net", backend), valid).run().silent();
        let rules = node.rules();
        assert!(rules.contains(&pods[1].id) && !rules.contains(&pods[2].id), "{backend}: {rules}");
        bare(node, "GC", ("net", backend), none_valid()).run().silent();
        assert_eq!(left(node), "", "{backend}");
    }
}

/// A damaged record does not keep rules alive.
#[test]
fn a_damaged_record_is_no_obstacle() {
    let world = World::new();
    let node = world.node();
    let attached = node.pod().attachment("eth0");
    let whom = ("net", "10.99.0.2", "nftables");
    with(node, "ADD", whom, &attached, json!([tcp(8080, 80)])).run().json();
    for file in state_files(node).lines().filter(|file| file.contains("attachments")) {
        std::fs::write(file, "{").expect("damage the record");
    }
    bare(node, "DEL", ("net", "nftables"), json!({})).attachment(&attached).run().silent();
    assert_eq!(node.nft(), "");
    assert_eq!(state_files(node), "");
}

/// Rows: C72, F38
#[test]
fn flushed_rules_are_noticed_and_made_again() {
    for (backend, flush) in [
        ("nftables", "nft flush ruleset"),
        ("nftables", "nft flush table inet causeway_hostport"),
        ("nftables", "nft delete chain inet causeway_hostport postrouting"),
        ("iptables", "iptables -t nat -F; iptables -t nat -X; iptables -t raw -F"),
        ("iptables", "iptables -t nat -F CNI-HOSTPORT-DNAT"),
        ("iptables", "iptables -t nat -F PREROUTING"),
    ] {
        let world = World::new();
        let node = world.node();
        let pods: Vec<Attachment> = (0..2).map(|_| node.pod().attachment("eth0")).collect();
        let call = |command: &str, index: usize| {
            let address = format!("10.99.0.{}", index + 2);
            let port = u16::try_from(8080 + index).expect("a port");
            let whom = ("net", address.as_str(), backend);
            with(node, command, whom, &pods[index], json!([tcp(port, 80)])).run()
        };
        call("ADD", 0).json();
        let before = node.rules();
        call("CHECK", 0).silent();
        assert_eq!(node.rules(), before, "CHECK changes nothing");

        node.sh(flush);
        assert!(!call("CHECK", 0).status.success(), "{flush}: CHECK notices");
        call("DEL", 0).silent();
        call("ADD", 1).json();
        call("CHECK", 1).silent();
        call("DEL", 1).silent();
        assert_eq!(left(node), "", "{flush}");
    }
}

/// The address of a stopped container belongs to another one before DEL of the first arrives.
///
/// Rows: F40
#[test]
fn a_late_del_leaves_the_next_user_of_the_address_alone() {
    for backend in ["nftables", "iptables"] {
        let world = World::new();
        let node = world.node();
        let (old, new) = (node.pod().attachment("eth0"), node.pod().attachment("eth0"));
        let whom = ("net", "10.99.0.2", backend);
        with(node, "ADD", whom, &old, json!([tcp(8080, 80)])).run().json();
        with(node, "ADD", whom, &new, json!([tcp(8081, 80)])).run().json();
        with(node, "DEL", whom, &old, json!([tcp(8080, 80)])).run().silent();
        with(node, "CHECK", whom, &new, json!([tcp(8081, 80)])).run().silent();
        with(node, "DEL", whom, &new, json!([tcp(8081, 80)])).run().silent();
        assert_eq!(left(node), "", "{backend}");
    }
}

/// A DEL that was begun is finished, whoever ends the runtime's processes.
///
/// Rows: F48
#[test]
fn sigterm_does_not_stop_a_del() {
    let world = World::new();
    let node = world.node();
    let attached = node.pod().attachment("eth0");
    let whom = ("net", "10.99.0.2", "nftables");
    with(node, "ADD", whom, &attached, json!([tcp(8080, 80)])).run().json();
    let lock = FileLock::acquire(&node.run_dir().join("rules.lock"), Duration::ZERO);
    let lock = lock.expect("nobody else changes rules");
    let del = bare(node, "DEL", ("net", "nftables"), json!({})).attachment(&attached).spawn();
    // Its signal set says when it is past its start: bit 14 of the ignored ones is SIGTERM.
    let ignores = format!("grep -Eq '^SigIgn:.*[4-7c-f][0-9a-f]{{3}}$' /proc/{}/status", del.id());
    node.sh(&format!("timeout 10 sh -c \"until {ignores}; do :; done\""));
    node.sh(&format!("kill -TERM {}", del.id()));
    drop(lock);
    del.wait().silent();
    assert_eq!(node.nft(), "");
}

/// Rows: C75, C78, F11
#[test]
fn many_at_once_lose_nothing() {
    for (backend, count) in [("nftables", 40), ("iptables", 8)] {
        let world = World::new();
        let node = world.node();
        let pods: Vec<Attachment> = (0..count).map(|_| node.pod().attachment("eth0")).collect();
        let start = |command: &str, index: usize| {
            let address = format!("10.99.0.{}", index + 2);
            let port = u16::try_from(8080 + index).expect("a port");
            let whom = ("net", address.as_str(), backend);
            with(node, command, whom, &pods[index], json!([tcp(port, 80)])).spawn()
        };
        let half = pods.len() / 2;
        let first: Vec<_> = (0..half).map(|index| start("ADD", index)).collect();
        first.into_iter().for_each(|run| drop(run.wait().json()));
        // The second half comes while the first goes.
        let adds: Vec<_> = (half..pods.len()).map(|index| start("ADD", index)).collect();
        let dels: Vec<_> = (0..half).map(|index| start("DEL", index)).collect();
        let valid: Vec<Value> = pods[half..]
            .iter()
            .map(|one| json!({ "containerID": one.id, "ifname": one.ifname }))
            .collect();
        let valid = json!({ "cni.dev/valid-attachments": valid });
        let gc = bare(node, "GC", ("net", backend), valid).spawn();
        adds.into_iter().for_each(|run| drop(run.wait().json()));
        dels.into_iter().for_each(|run| run.wait().silent());
        gc.wait().silent();
        let checks: Vec<_> = (half..pods.len()).map(|index| start("CHECK", index)).collect();
        checks.into_iter().for_each(|run| run.wait().silent());
        let dels: Vec<_> = (half..pods.len()).map(|index| start("DEL", index)).collect();
        dels.into_iter().for_each(|run| run.wait().silent());
        assert_eq!(left(node), "", "{backend}");
        assert_eq!(state_files(node), "", "{backend}");
    }
}

/// Rows: F12
#[test]
fn add_and_del_of_one_attachment_end_whole() {
    let world = World::new();
    let node = world.node();
    let attached = node.pod().attachment("eth0");
    let call = |command| {
        with(node, command, ("net", "10.99.0.2", "nftables"), &attached, json!([tcp(8080, 80)]))
    };
    for _ in 0..10 {
        let (add, del) = (call("ADD").spawn(), call("DEL").spawn());
        add.wait().json();
        del.wait().silent();
        let recorded = state_files(node).contains("attachments");
        assert_eq!(call("CHECK").run().status.success(), recorded);
        call("DEL").run().silent();
        assert_eq!((node.nft(), state_files(node)), (String::new(), String::new()));
    }
}

/// An attachment is elements, and no rule.
///
/// Rows: F51
#[test]
fn the_number_of_rules_does_not_grow_with_attachments() {
    let world = World::new();
    let node = world.node();
    let add = |index: u16| {
        let attached = node.pod().attachment("eth0");
        let address = format!("10.99.0.{}", index + 2);
        let whom = ("net", address.as_str(), "nftables");
        with(node, "ADD", whom, &attached, json!([tcp(8080 + index, 80)])).run().json();
    };
    let rules = || {
        let text = node.sh("nft -s list table inet causeway_hostport");
        text.lines().filter(|line| line.starts_with("\t\t") && !line.contains('.')).count()
    };
    add(0);
    let with_one = rules();
    (1..30).for_each(add);
    assert_eq!(rules(), with_one);
    assert_eq!(elements(node, "any4").len(), 30);
}

/// The base chains go with the last attachment only.
#[test]
fn the_table_goes_with_the_last_attachment() {
    let world = World::new();
    let node = world.node();
    let (first, second) = (node.pod(), node.pod());
    let runtime = world.runtime("net", 20, json!({}));
    let one = attachment(&first, json!([tcp(8080, 80)]));
    let two = attachment(&second, json!([tcp(8081, 80)]));
    runtime.add_ok(&one);
    runtime.add_ok(&two);
    runtime.del_ok(&one);
    assert_eq!(elements(node, "any4").len(), 1);
    assert_eq!(node.sysctl("ipv4/conf/hp20/route_localnet"), "1");
    runtime.del_ok(&two);
    assert_eq!(node.nft(), "");
    assert_eq!(node.sysctl("ipv4/conf/hp20/route_localnet"), "0");
}

/// By the last attachment on a bridge, whether records tell of it or, after `/run` was cleaned by
/// hand, the rules alone; a bridge that another attachment relies on keeps it.
///
/// Rows: RC4
#[test]
fn route_localnet_goes_with_the_last_attachment_of_a_bridge() {
    for backend in ["nftables", "iptables"] {
        for (command, lost) in [("GC", ""), ("DEL", ""), ("GC", "*"), ("DEL", "*")] {
            let world = World::new();
            let node = world.node();
            let runtime = |name, number| world.runtime(name, number, json!({ "backend": backend }));
            let networks = [runtime("a", 20), runtime("a", 20), runtime("b", 21)];
            let pods = [(); 3].map(|()| node.pod());
            let attached = [0, 1, 2].map(|at: usize| {
                let port = 8080 + u16::try_from(at).expect("a port");
                attachment(&pods[at], json!([tcp(port, 80)]))
            });
            for (network, attached) in networks.iter().zip(&attached) {
                network.add_ok(attached);
            }
            let on = || [20, 21].map(|n| node.sysctl(&format!("ipv4/conf/hp{n}/route_localnet")));
            if !lost.is_empty() {
                node.sh(&format!("rm -r {}/{lost}", node.run_dir().display()));
            }
            let remove = |name: &str, gone: usize, valid: &[&Attachment]| {
                let id = |one: &&Attachment| json!({ "containerID": one.id, "ifname": "eth0" });
                let valid: Vec<Value> = valid.iter().map(id).collect();
                let valid = json!({ "cni.dev/valid-attachments": valid });
                let call = bare(node, command, (name, backend), valid);
                let call = if command == "GC" { call } else { call.attachment(&attached[gone]) };
                call.run().silent();
            };
            let shown = format!("{backend} {command} {lost}");
            assert_eq!(on(), ["1", "1"], "{shown}");
            remove("a", 0, &[&attached[1]]);
            assert_eq!(on(), ["1", "1"], "{shown}: the first of two");
            remove("a", 1, &[]);
            assert_eq!(on(), ["0", "1"], "{shown}: the last of its bridge");
            remove("b", 2, &[]);
            assert_eq!(on(), ["0", "0"], "{shown}: the last of all");
            assert_eq!(state_files(node), "", "{shown}");
        }
    }
}

/// A main plugin may name links that are not on this node, a cloud provider's for instance; the
/// route tells which one leads to the container.
///
/// Rows: RC3
#[test]
fn names_in_a_result_are_hints() {
    for backend in ["nftables", "iptables"] {
        let world = World::new();
        let node = world.node();
        let pod = node.pod();
        node.ip("link add real type veth peer name away\nlink set real up\nlink set away up\nroute add 10.99.0.2/32 dev real\n");
        let attached = pod.attachment("eth0");
        for (address, on) in [("10.99.0.2", "1"), ("10.98.0.2", "0")] {
            let result = json!({ "cniVersion": "1.1.0",
                "interfaces": [{ "name": "dummy-of-a-cloud" }, { "name": "eni0123456789abcdef" },
                               { "name": attached.ifname, "sandbox": attached.netns }],
                "ips": [{ "address": format!("{address}/32"), "interface": 2 }] });
            let extra = merged(
                mappings(json!([tcp(8080, 80)])),
                json!({ "backend": backend, "prevResult": result }),
            );
            let call = |command| alone(node, command, extra.clone(), &attached).run();
            call("ADD").json();
            assert_eq!(node.sysctl("ipv4/conf/real/route_localnet"), on, "{backend} {address}");
            call("CHECK").silent();
            call("DEL").silent();
            assert_eq!(node.sysctl("ipv4/conf/real/route_localnet"), "0", "{backend} {address}");
            assert_eq!(state_files(node), "", "{backend}");
        }
    }
}
