//! 127.0.0.0/8 of the node behind `route_localnet`, with rules and without.

use std::net::UdpSocket;

use causeway_tests::traffic::{IMPATIENCE, PATIENCE, Server};
use causeway_tests::{FakeDaemon, Manner, Ns, Runtime};
use serde_json::json;

use super::{World, attachment, tcp};

const CALL_IPTABLES: &str = "bridge/bridge-nf-call-iptables";

fn reaches(attacker: &Ns) -> bool {
    attacker.tcp("127.0.0.1:9000").is_ok()
}

fn is_kept_out(attacker: &Ns) -> bool {
    attacker.tcp_within("127.0.0.1:9000", IMPATIENCE).is_err()
}

/// `route_localnet` alone would let neighbours reach what listens on 127.0.0.1 (CVE-2020-8558). The
/// rules that forbid it go with a flush, as when nftables.service is reloaded; no daemon is there to
/// write them again.
///
/// Rows: RH4, S-36, S-37, S-38
#[test]
fn neighbours_do_not_reach_127_even_without_rules() {
    for backend in ["nftables", "iptables"] {
        // With it replies are translated before they leave the bridge.
        for call in ["1", "0"] {
            let world = World::new();
            let node = world.node();
            node.set_sysctl(CALL_IPTABLES, call);
            let case = format!("{backend}, bridge-nf-call-iptables {call}");
            let runtime = world.runtime("net", 20, json!({ "backend": backend }));
            let (pod, neighbour, last) = (node.pod(), node.pod(), node.pod());
            let attached = attachment(&pod, json!([tcp(8080, 80)]));
            runtime.add_ok(&attached);
            runtime.add_ok(&attachment(&neighbour, json!([])));
            let _web = Server::tcp(&pod, "web", "0.0.0.0:80");
            let _private = Server::tcp(node, "private", "127.0.0.1:9000");
            neighbour.aim_at_localhost_of("10.20.0.1");
            assert!(node.tcp("127.0.0.1:8080").is_ok(), "{case}: a host port by 127.0.0.1");
            assert!(is_kept_out(&neighbour), "{case}: guarded by rules");

            node.sh("nft flush ruleset");
            assert_eq!(node.sysctl("ipv4/conf/hp20/route_localnet"), "1", "{case}");
            assert!(is_kept_out(&neighbour), "{case}: guarded without rules");

            let other = attachment(&last, json!([tcp(8081, 80)]));
            runtime.add_ok(&other);
            assert!(node.tcp("127.0.0.1:8080").is_ok(), "{case}: restored by the next ADD");

            // The attack works if no guard is: the test is able to fail.
            node.sh("nft flush ruleset && tc filter del dev hp20 ingress");
            assert!(reaches(&neighbour), "{case}: the attack itself");

            runtime.del_ok(&other);
            runtime.del_ok(&attached);
            assert_eq!(node.sysctl("ipv4/conf/hp20/route_localnet"), "0", "{case}");
        }
    }
}

/// `route_localnet` also lets in what only says that it comes from 127.0.0.0/8, for services that
/// trust such clients.
///
/// Rows: RH4
#[test]
fn a_container_is_no_client_from_127() {
    let world = World::new();
    let node = world.node();
    let runtime = world.runtime("net", 20, json!({}));
    let pod = node.pod();
    runtime.add_ok(&attachment(&pod, json!([tcp(8080, 80)])));
    node.set_sysctl("ipv4/conf/all/rp_filter", "0");
    node.set_sysctl("ipv4/conf/hp20/rp_filter", "0");
    pod.set_sysctl("ipv4/conf/all/route_localnet", "1");
    let server = node.run(|| UdpSocket::bind("0.0.0.0:9001")).expect("a socket");
    let heard = |patience| {
        server.set_read_timeout(Some(patience)).expect("a timeout above zero");
        let client = pod.run(|| UdpSocket::bind("127.0.0.2:0")).expect("a socket");
        pod.assert_ping("10.20.0.1");
        client.send_to(b"hello", "10.20.0.1:9001").expect("send");
        server.recv_from(&mut [0; 16]).map(|(_, from)| from.ip().to_string()).ok()
    };
    assert_eq!(heard(IMPATIENCE), None);
    node.sh("tc filter del dev hp20 ingress");
    assert_eq!(heard(PATIENCE).as_deref(), Some("127.0.0.2"), "the attack itself");
}

/// The filter goes with the last host port; what held it stays, and what others hang on the bridge:
/// the kernel drops what a link sends while it takes or gives away the first such thing.
///
/// Rows: RH4
#[test]
fn the_guard_of_a_link_goes_with_its_last_host_port() {
    let world = World::new();
    let node = world.node();
    let held = || node.sh("tc qdisc show dev hp20; tc filter show dev hp20 ingress");
    let runtime = world.runtime("net", 20, json!({}));
    let (one, two) = (node.pod(), node.pod());
    let (one, two) =
        (attachment(&one, json!([tcp(8080, 80)])), attachment(&two, json!([tcp(81, 80)])));
    runtime.add_ok(&one);
    runtime.add_ok(&two);
    runtime.del_ok(&one);
    assert!(held().contains("pref 197 bpf"), "{}", held());
    runtime.del_ok(&two);
    assert!(held().contains("clsact") && !held().contains("bpf"), "{}", held());

    node.sh("tc filter add dev hp20 egress pref 7 bpf da bytecode '1,6 0 0 4294967295'");
    runtime.add_ok(&one);
    runtime.del_ok(&one);
    assert!(held().contains("clsact") && !held().contains("bpf"), "{}", held());
    assert!(node.sh("tc filter show dev hp20 egress").contains("pref 7 bpf"));
}

/// Host ports come and go on a bridge whose other containers are talking.
///
/// Rows: RH4
#[test]
fn the_guard_costs_others_of_the_bridge_no_packet() {
    let world = World::new();
    let node = world.node();
    let runtime = world.runtime("net", 20, json!({}));
    let (talker, with_port) = (node.pod(), node.pod());
    let with_port = attachment(&with_port, json!([tcp(8080, 80)]));
    // The first one takes its guard into a bridge that is up.
    runtime.add_ok(&with_port);
    runtime.add_ok(&attachment(&talker, json!([])));
    let said = std::thread::scope(|scope| {
        let talks = scope.spawn(|| talker.sh("ping -q -i 0.002 -c 600 10.20.0.1"));
        for _ in 0..6 {
            runtime.del_ok(&with_port);
            runtime.add_ok(&with_port);
        }
        talks.join().expect("the pings end")
    });
    assert!(said.contains(" 0% packet loss"), "{said}");
}

/// A kernel without what the guard needs, which a filter of another kind in its place stands for:
/// only while a daemon would restore the rules does 127.0.0.1 reach host ports.
///
/// Rows: RH4
#[test]
fn without_a_guard_127_reaches_host_ports_while_a_daemon_answers() {
    let world = World::new();
    let node = world.node();
    node.ip("link add hp20 type bridge\n");
    node.sh(
        "tc qdisc add dev hp20 clsact && tc filter add dev hp20 ingress pref 197 protocol ipv6 \
             bpf da bytecode '1,6 0 0 4294967295'",
    );
    let socket = node.dir().join("causeway.sock");
    let runtime = world.runtime("net", 20, json!({ "socket": socket }));
    let pod = node.pod();
    let attached = attachment(&pod, json!([tcp(8080, 80)]));
    runtime.add_ok(&attached);
    let _web = Server::tcp(&pod, "web", "0.0.0.0:80");
    assert_eq!(node.sysctl("ipv4/conf/hp20/route_localnet"), "0");
    assert!(world.lab.client.tcp("172.18.0.2:8080").is_ok(), "elsewhere it answers");
    runtime.del_ok(&attached);

    let _daemon = FakeDaemon::start(&socket, Manner::Takes);
    runtime.add_ok(&attached);
    assert_eq!(node.sysctl("ipv4/conf/hp20/route_localnet"), "1");
    assert!(node.tcp("127.0.0.1:8080").is_ok());
    runtime.del_ok(&attached);
    assert_eq!(node.sysctl("ipv4/conf/hp20/route_localnet"), "0");
}

/// Without a bridge the link is the container's own, and the container itself the attacker.
///
/// Rows: RH4
#[test]
fn a_container_without_a_bridge_does_not_reach_127_either() {
    let world = World::new();
    let node = world.node();
    let mut list = node.conflist("routed", "10.30.0.0/24");
    let bridged = list["plugins"][0].as_object_mut().expect("an object");
    bridged.retain(|key, _| key != "bridge" && key != "hairpinMode");
    bridged.insert("mode".to_owned(), json!("ptp"));
    let runtime = Runtime::new(node, list);
    let pod = node.pod();
    let attached = attachment(&pod, json!([tcp(8080, 80)]));
    let result = runtime.add_ok(&attached);
    let host_end = result["interfaces"][0]["name"].as_str().expect("the host's end").to_owned();
    let _web = Server::tcp(&pod, "web", "0.0.0.0:80");
    let _private = Server::tcp(node, "private", "127.0.0.1:9000");
    assert!(node.tcp("127.0.0.1:8080").is_ok());
    pod.aim_at_localhost_of("10.30.0.1");
    node.sh("nft flush ruleset");
    assert_eq!(node.sysctl(&format!("ipv4/conf/{host_end}/route_localnet")), "1");
    assert!(is_kept_out(&pod), "guarded without rules");
    node.sh(&format!("tc filter del dev {host_end} ingress"));
    assert!(reaches(&pod), "the attack itself");
}
