//! What is refused, and that nothing changes then.

use causeway_tests::traffic::{IMPATIENCE, Server};
use causeway_tests::{FakeDaemon, Manner};
use serde_json::{Value, json};

use crate::{
    NODE, World, address, alone, at, attachment, mappings, refused, state_files, tcp, udp,
};

/// Rows: F44
#[test]
fn a_host_port_in_use_is_refused_by_name() {
    for backend in ["nftables", "iptables"] {
        let world = World::new();
        let node = world.node();
        let runtime = world.runtime("net", 20, json!({ "backend": backend }));
        let other = world.runtime("other", 21, json!({ "backend": backend }));
        let (first, second) = (node.pod(), node.pod());
        let held = json!([tcp(8080, 80), at("127.0.0.1", tcp(9090, 90)), at(NODE, tcp(9191, 91))]);
        let attached = attachment(&first, held);
        runtime.add_ok(&attached);
        let before = node.rules();

        for (wanted, named) in [
            (tcp(8080, 80), "8080/tcp"),
            (at(NODE, tcp(8080, 81)), "172.18.0.2:8080/tcp"),
            (at("0.0.0.0", tcp(8080, 81)), "8080/tcp"),
            (tcp(9090, 80), "9090/tcp"),
            (at(NODE, tcp(9191, 80)), "172.18.0.2:9191/tcp"),
        ] {
            let error = refused(other.add(&attachment(&second, json!([tcp(7070, 70), wanted]))));
            assert_eq!(error["code"], 102, "{backend}: {error}");
            let msg = error["msg"].as_str().expect("a message");
            assert!(msg.contains(&format!("host port {named} is in use by")), "{backend}: {msg}");
            assert!(msg.contains("net") && msg.contains(&first.id), "{backend}: the owner: {msg}");
            assert_eq!(node.rules(), before, "{backend}: {named}");
            other.del_ok(&attachment(&second, json!([])));
        }
        // Neither another protocol, nor another address is in the way.
        let free = json!([udp(8080, 80), at("127.0.0.2", tcp(9090, 80))]);
        let attached_second = attachment(&second, free);
        other.add_ok(&attached_second);
        other.check(&attached_second).expect("CHECK of the second");
        runtime.check(&attached).expect("CHECK of the first");

        // Free again once its owner is gone.
        runtime.del_ok(&attached);
        let third = node.pod();
        other.add_ok(&attachment(&third, json!([tcp(8080, 80)])));
    }
}

/// go-cni hands the same mappings to every network of a container.
///
/// Rows: C62
#[test]
fn a_container_on_two_networks_has_its_host_port_by_one_of_them() {
    for backend in ["nftables", "iptables"] {
        let world = World::new();
        let node = world.node();
        let one = world.runtime("one", 20, json!({ "backend": backend }));
        let two = world.runtime("two", 21, json!({ "backend": backend }));
        let pod = node.pod();
        let by = |ifname: &str, mappings: Value| {
            pod.attachment(ifname).runtime_config(json!({ "portMappings": mappings }))
        };
        let first = by("eth0", json!([tcp(8080, 80)]));
        let second = by("eth1", json!([tcp(8080, 80), udp(8080, 80)]));
        let result = one.add_ok(&first);
        let ip = address(&result, 0);
        two.add_ok(&second);
        let _server = Server::tcp(&pod, "pod", "0.0.0.0:80");
        let answer = world.lab.client.tcp("172.18.0.2:8080").expect("an answer");
        assert_eq!(answer.ip.to_string(), ip, "{backend}");
        one.check(&first).expect("CHECK of the first");
        two.check(&second).expect("CHECK of the second");

        // Another program behind the port is a conflict, in the same container too.
        two.del_ok(&second);
        let other = by("eth1", json!([tcp(8080, 81)]));
        assert_eq!(refused(two.add(&other))["code"], 102, "{backend}");
        two.del_ok(&other);
        one.check(&first).expect("CHECK of the first");
        one.del_ok(&first);
        assert!(!node.rules().contains("8080"), "{backend}: {}", node.rules());
        assert_eq!(state_files(node), "", "{backend}");
    }
}

/// Rows: C61, F13
#[test]
fn a_second_add_is_refused_and_the_first_stays() {
    for backend in ["nftables", "iptables"] {
        let world = World::new();
        let node = world.node();
        let pod = node.pod();
        let attached = attachment(&pod, json!([]));
        let with = |port: u16| {
            let extra = mappings(json!([tcp(port, 80)]));
            let extra = crate::merged(extra, json!({ "backend": backend }));
            alone(node, "ADD", extra, &attached)
        };
        with(8080).run().json();
        let before = (node.rules(), state_files(node));
        // The same ports, and others.
        for port in [8080, 8081] {
            assert_eq!(with(port).run().error_code(), 102, "{backend}: {port}");
            assert_eq!((node.rules(), state_files(node)), before);
        }
    }
}

/// Rows: C54, C58
#[test]
fn prev_result_is_needed_and_must_be_of_this_container() {
    let world = World::new();
    let node = world.node();
    let attached = node.pod().attachment("eth0");
    for command in ["ADD", "CHECK"] {
        let error = alone(node, command, json!({ "prevResult": null }), &attached).run().error();
        assert_eq!(error["code"], 7, "{error}");
        assert!(error["msg"].as_str().expect("a message").contains("chained"), "{error}");
    }
    let wrong = crate::previous(&attached.clone().netns("/run/netns/other"), "10.99.0.2/24");
    let error = alone(node, "CHECK", json!({ "prevResult": wrong }), &attached).run().error();
    assert_eq!(error["code"], 7, "{error}");
}

#[test]
fn values_out_of_range_are_refused_by_name() {
    let world = World::new();
    let node = world.node();
    let attached = node.pod().attachment("eth0");
    let one = |mapping: Value| mappings(json!([mapping]));
    let cases = [
        (one(tcp(0, 80)), 7, "hostPort 0"),
        (one(json!({ "hostPort": 70000, "containerPort": 80 })), 7, "hostPort 70000"),
        (one(json!({ "hostPort": 80, "containerPort": -1 })), 7, "containerPort -1"),
        (one(at("localhost", tcp(80, 80))), 7, "hostIP \"localhost\""),
        (
            one(json!({ "hostPort": 1, "containerPort": 1, "protocol": "icmp" })),
            2,
            "protocol \"icmp\"",
        ),
        (json!({ "backend": "ipvs" }), 2, "backend"),
        (json!({ "markMasqBit": 32 }), 7, "markMasqBit"),
        (json!({ "markMasqBit": 3, "externalSetMarkChain": "X" }), 2, "externalSetMarkChain"),
        (json!({ "conditionsV4": ["ip", "ttl", "5"] }), 2, "\"ttl\""),
        (json!({ "conditionsV4": ["-s", "10.0.0.1"], "backend": "nftables" }), 2, "conditionsV4"),
        (json!({ "conditionsV6": ["ip6 saddr ::1"], "backend": "iptables" }), 2, "conditionsV6"),
        (json!({ "labels": { "a": 1 } }), 7, "labels"),
        (mappings(json!([null])), 6, "portMappings"),
    ];
    for (extra, code, named) in cases {
        let error = alone(node, "ADD", extra, &attached).run().error();
        assert_eq!(error["code"], code, "{named}: {error}");
        assert!(error["msg"].as_str().expect("a message").contains(named), "{named}: {error}");
    }
    assert_eq!(node.nft(), "");
    assert_eq!(state_files(node), "");
}

/// Rows: C76
#[test]
fn a_required_daemon_that_does_not_answer_is_code_104() {
    let world = World::new();
    let node = world.node();
    let attached = node.pod().attachment("eth0");
    let socket = node.dir().join("no.sock");
    let required = json!({ "requireDaemon": true, "socket": socket });
    assert_eq!(alone(node, "ADD", required.clone(), &attached).run().error_code(), 104);
    assert_eq!(alone(node, "STATUS", required.clone(), &attached).run().error_code(), 50);
    alone(node, "DEL", required, &attached).run().silent();

    let daemon = FakeDaemon::start(&socket, Manner::Takes);
    let required = json!({ "requireDaemon": true, "socket": socket });
    alone(node, "STATUS", required.clone(), &attached).run().silent();
    alone(node, "ADD", required, &attached).run().json();
    assert_eq!(daemon.attached(&[]), [attached.id]);
}

/// Rows: C54, C55
#[test]
fn without_ports_the_result_passes_through_and_nothing_happens() {
    let world = World::new();
    let node = world.node();
    let attached = node.pod().attachment("eth0");
    let previous = crate::previous(&attached, "10.99.0.2/24");
    let before = state_files(node);
    for extra in [json!({}), mappings(json!([])), json!({ "runtimeConfig": {} })] {
        let result = alone(node, "ADD", extra.clone(), &attached).run().json();
        assert_eq!(result["ips"], previous["ips"]);
        assert_eq!(result["interfaces"], previous["interfaces"]);
        alone(node, "CHECK", extra, &attached).run().silent();
    }
    alone(node, "STATUS", json!({}), &attached).run().silent();
    assert_eq!(node.nft(), "");
    // What the daemon is to be told of the end of.
    assert_eq!(state_files(node).lines().count(), before.lines().count() + 1);
    alone(node, "DEL", json!({}), &attached).run().silent();
    assert_eq!(state_files(node), before);
}

/// A state directory that cannot be written: nothing is left of ADD, and DEL still removes rules.
///
/// Rows: C60, C69, F23
#[test]
fn without_state_folder_add_fails_whole_and_del_removes_rules() {
    let world = World::new();
    let node = world.node();
    let attached = node.pod().attachment("eth0");
    let blocked = node.dir().join("file");
    std::fs::write(&blocked, "").expect("write a file");
    let extra = crate::merged(mappings(json!([tcp(8080, 80)])), json!({ "runDir": blocked }));
    assert_eq!(alone(node, "ADD", extra.clone(), &attached).run().error_code(), 5);
    assert_eq!(node.nft(), "");

    alone(node, "ADD", mappings(json!([tcp(8080, 80)])), &attached).run().json();
    assert_eq!(alone(node, "DEL", json!({ "runDir": blocked }), &attached).run().error_code(), 5);
    assert_eq!(node.nft(), "");
}

/// Rows: F48
#[test]
fn an_undelivered_result_takes_the_mapping_back() {
    let world = World::new();
    let node = world.node();
    let attached = node.pod().attachment("eth0");
    let mut command = alone(node, "ADD", mappings(json!([tcp(8080, 80)])), &attached).command();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    command.stdin(std::process::Stdio::piped()).stdout(full).stderr(std::process::Stdio::null());
    let mut child = command.spawn().expect("start the plugin");
    let config = crate::merged(
        json!({ "cniVersion": "1.1.0", "name": "alone", "runDir": node.run_dir(),
                "prevResult": crate::previous(&attached, "10.99.0.2/24") }),
        mappings(json!([tcp(8080, 80)])),
    );
    let mut stdin = child.stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut stdin, config.to_string().as_bytes()).expect("write");
    drop(stdin);
    assert!(!child.wait().expect("wait").success());
    assert_eq!(node.nft(), "");
    assert_eq!(state_files(node), "");
}

/// A process of the host keeps what comes from the host itself by an address that is not mapped,
/// and loses what is mapped: documented, as with upstream.
#[test]
fn a_host_process_keeps_what_is_not_mapped() {
    let world = World::new();
    let (lab, node) = (&world.lab, world.node());
    let runtime = world.runtime("net", 20, json!({}));
    let pod = node.pod();
    let _host = Server::tcp(node, "host", "0.0.0.0:8080");
    runtime.add_ok(&attachment(&pod, json!([at("127.0.0.1", tcp(8080, 80))])));
    let answer = lab.client.tcp_within(&format!("{NODE}:8080"), IMPATIENCE).expect("the host's");
    assert_eq!(answer.hostname, "host");
}
