//! Masquerade and the check of Ethernet addresses, with packets.

use causeway_tests::traffic::Server;
use causeway_tests::{Daemon, Lab, Node, Ns, Pod, Runtime};
use serde_json::{Value, json};

const NODE: &str = "172.18.0.2";
const NODE6: &str = "fd00:172:18::2";

/// A network of our bridge over upstream's host-local: 10.N.0.0/16 and fd00:N::/64.
fn network(node: &Node, name: &str, number: u8, extra: &Value) -> Value {
    let mut bridge = json!({
        "type": "causeway-bridge", "bridge": format!("cw{number}"), "isDefaultGateway": true,
        "ipMasq": true, "runDir": node.run_dir(),
        "ipam": { "type": "host-local", "dataDir": node.data_dir(),
                  "ranges": [[{ "subnet": format!("10.{number}.0.0/16") }],
                             [{ "subnet": format!("fd00:{number}::/64") }]] } });
    let members = bridge.as_object_mut().expect("an object");
    members.extend(extra.as_object().cloned().unwrap_or_default());
    json!({ "cniVersion": "1.0.0", "name": name, "plugins": [bridge] })
}

/// As whom a server at `to` sees `from`.
fn seen_as(from: &Ns, to: &str) -> String {
    let answer = from.tcp(to).unwrap_or_else(|e| panic!("{} to {to}: {e}", from.name()));
    answer.peer.ip().to_string()
}

/// Servers on the machine beyond the router, of both families.
fn internet(lab: &Lab) -> [Server; 2] {
    [
        Server::tcp(&lab.internet, "inet", &format!("{}:80", Lab::INTERNET)),
        Server::tcp(&lab.internet, "inet", &format!("[{}]:80", Lab::INTERNET6)),
    ]
}

fn to_internet() -> [String; 2] {
    [format!("{}:80", Lab::INTERNET), format!("[{}]:80", Lab::INTERNET6)]
}

fn assert_masqueraded(pod: &Pod) {
    let [v4, v6] = to_internet();
    assert_eq!(seen_as(pod, &v4), NODE);
    assert_eq!(seen_as(pod, &v6), NODE6);
}

/// Rows: S-18
#[test]
fn a_container_reaches_the_internet_as_the_node() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let _servers = internet(&lab);
    let runtime = Runtime::new(node, network(node, "blue", 1, &json!({})));
    let pods = [node.pod(), node.pod()];
    for pod in &pods {
        runtime.add_ok(&pod.attachment("eth0"));
    }
    for pod in &pods {
        assert_masqueraded(pod);
        runtime.check(&pod.attachment("eth0")).expect("check");
    }
    // The internet host has no route back, so that without masquerade nothing comes.
    runtime.del_ok(&pods[0].attachment("eth0"));
    assert_masqueraded(&pods[1]);
    runtime.del_ok(&pods[1].attachment("eth0"));
    assert!(!node.nft().contains("causeway"), "{}", node.nft());
}

/// Rows: S-18, S-19
#[test]
fn excluded_destinations_see_the_container_itself() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let _internet = internet(&lab);
    lab.client.ip("route add 10.1.0.0/16 via 172.18.0.2\n\
         route add fd00:1::/64 via fd00:172:18::2\n\
         route add 10.2.0.0/16 via 172.18.0.2\n");
    let _client = [
        Server::tcp(&lab.client, "client", &format!("{}:80", Lab::CLIENT)),
        Server::tcp(&lab.client, "client", &format!("[{}]:80", Lab::CLIENT6)),
    ];
    let exclude = json!({ "ipMasqExclude": ["172.18.0.64/26", "fd00:172:18::/64"] });
    let runtime = Runtime::new(node, network(node, "blue", 1, &exclude));
    let other = Runtime::new(node, network(node, "red", 2, &json!({})));
    let (pod, neighbour, plain) = (node.pod(), node.pod(), node.pod());
    runtime.add_ok(&pod.attachment("eth0"));
    runtime.add_ok(&neighbour.attachment("eth0"));
    other.add_ok(&plain.attachment("eth0"));

    assert_eq!(seen_as(&pod, "172.18.0.100:80"), "10.1.0.2");
    assert_eq!(seen_as(&pod, "[fd00:172:18::100]:80"), "fd00:1::2");
    assert_masqueraded(&pod);
    // Its own subnet; over the node, as a gateway would route it.
    let _neighbour = Server::tcp(&neighbour, "neighbour", "10.1.0.3:80");
    pod.ip("route add 10.1.0.3/32 via 10.1.0.1\n");
    assert_eq!(seen_as(&pod, "10.1.0.3:80"), "10.1.0.2");
    // The exclusions are of one network.
    assert_eq!(seen_as(&plain, "172.18.0.100:80"), NODE);
}

/// Rows: F38
#[test]
fn a_flush_by_others_is_found_and_repaired() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let _servers = internet(&lab);
    let guarded = json!({ "macspoofchk": true });
    let runtime = Runtime::new(node, network(node, "blue", 1, &guarded));
    let (first, second) = (node.pod(), node.pod());
    runtime.add_ok(&first.attachment("eth0"));
    let flushes = [
        "nft flush table inet causeway_masq",
        "nft flush table bridge causeway_spoof",
        "nft flush ruleset",
    ];
    for flush in flushes {
        node.sh(flush);
        assert!(runtime.check(&first.attachment("eth0")).is_err(), "after {flush}");
        runtime.add_ok(&second.attachment("eth0"));
        assert_masqueraded(&second);
        runtime.check(&second.attachment("eth0")).expect("check after repair");
        if flush.contains("flush table") {
            // The elements were left: repairing the rules repairs everybody.
            assert_masqueraded(&first);
            runtime.check(&first.attachment("eth0")).expect("check after repair");
        }
        runtime.del_ok(&second.attachment("eth0"));
    }
    node.sh("nft flush ruleset");
    runtime.del_ok(&first.attachment("eth0"));
    assert!(!node.nft().contains("causeway"), "{}", node.nft());
}

/// Rows: F39
#[test]
fn foreign_rules_in_our_table_stay() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let _servers = internet(&lab);
    node.sh("nft add table inet causeway_masq && nft add chain inet causeway_masq theirs && \
         nft add rule inet causeway_masq theirs counter comment mine");
    let runtime = Runtime::new(node, network(node, "blue", 1, &json!({})));
    let pod = node.pod();
    runtime.add_ok(&pod.attachment("eth0"));
    assert_masqueraded(&pod);
    runtime.del_ok(&pod.attachment("eth0"));
    let left = node.nft();
    assert_eq!(left.matches("comment \"mine\"").count(), 1, "{left}");
    assert!(!left.contains("10.1.0.2"), "{left}");
}

/// Rows: F40
#[test]
fn a_late_del_leaves_the_address_to_its_new_owner() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let _servers = internet(&lab);
    let runtime = Runtime::new(node, network(node, "blue", 1, &json!({})));
    let (old, new) = (node.pod(), node.pod());
    let late = old.attachment("eth0");
    runtime.add_ok(&late);
    // The container is gone and its lease was freed, but its DEL is still to come.
    old.sh("ip link del eth0");
    node.sh(&format!("rm {}/blue/*", node.data_dir().display()));
    let result = runtime.add_ok(&new.attachment("eth0"));
    assert_eq!(result["ips"][0]["address"], "10.1.0.2/16", "the address is used again");
    runtime.del_ok(&late.netns(""));
    assert_masqueraded(&new);
    runtime.check(&new.attachment("eth0")).expect("check of the new owner");
}

/// Rows: C63
#[test]
fn del_without_a_namespace_removes_the_rules() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let guarded = json!({ "macspoofchk": true });
    let runtime = Runtime::new(node, network(node, "blue", 1, &guarded));
    let pod = node.pod();
    let attachment = pod.attachment("eth0");
    runtime.add_ok(&attachment);
    let rules = node.nft();
    assert!(rules.contains("causeway_masq") && rules.contains("causeway_spoof"), "{rules}");
    let lease = node.data_dir().join("blue/10.1.0.2");
    assert!(lease.exists());
    runtime.forget(&attachment);
    runtime.del_ok(&attachment.netns(""));
    assert!(!node.nft().contains("causeway"), "{}", node.nft());
    assert!(!lease.exists(), "the address is still leased");
}

#[test]
fn only_the_containers_own_ethernet_address_passes() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let guarded = json!({ "macspoofchk": true });
    let runtime = Runtime::new(node, network(node, "blue", 1, &guarded));
    let open = Runtime::new(node, network(node, "red", 2, &json!({})));
    let (pod, neighbour, free) = (node.pod(), node.pod(), node.pod());
    for pod in [&pod, &neighbour] {
        runtime.add_ok(&pod.attachment("eth0"));
    }
    open.add_ok(&free.attachment("eth0"));
    pod.assert_ping("10.1.0.3");
    pod.assert_ping("10.1.0.1");
    pod.assert_ping("fd00:1::1");

    let own = pod.link("eth0").expect("eth0")["address"].as_str().expect("a mac").to_owned();
    pod.sh("ip link set eth0 address 02:00:00:00:66:66");
    assert!(!pod.ping("10.1.0.3"), "a foreign Ethernet address passed");
    assert!(!pod.ping("10.1.0.1"), "a foreign Ethernet address reached the node");
    pod.sh(&format!("ip link set eth0 address {own}"));
    pod.assert_ping("10.1.0.3");
    // Who is not guarded may do as it likes.
    free.sh("ip link set eth0 address 02:00:00:00:66:67");
    free.assert_ping("10.2.0.1");

    runtime.del_ok(&pod.attachment("eth0"));
    assert!(node.nft().contains("causeway_spoof"), "the neighbour is still guarded");
    neighbour.sh("ip link set eth0 address 02:00:00:00:66:68");
    assert!(!neighbour.ping("10.1.0.1"));
}

/// Rows: C29
#[test]
fn another_backend_is_refused_by_name() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let extra = json!({ "ipMasqBackend": "ebtables" });
    let runtime = Runtime::new(node, network(node, "blue", 1, &extra));
    let refused = runtime.add(&node.pod().attachment("eth0")).expect_err("a refusal").error();
    assert_eq!(refused["code"], 2);
    let msg = refused["msg"].as_str().expect("a message");
    assert!(msg.contains("ipMasqBackend") && msg.contains("ebtables"), "{msg}");
    assert!(msg.contains("nftables") && msg.contains("iptables"), "no remedy: {msg}");
}

fn iptables() -> Value {
    json!({ "ipMasqBackend": "iptables" })
}

/// Rules of table nat, sorted: upstream appends in another order.
fn nat(node: &Node) -> Vec<String> {
    let text = node.iptables();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.retain(|line| line.contains("CNI-"));
    lines.sort();
    lines
}

#[test]
fn iptables_rules_are_those_of_upstream() {
    let lab = Lab::two_nodes();
    let (node, other) = (&lab.nodes[0], &lab.nodes[1]);
    let runtime = Runtime::new(node, network(node, "blue", 1, &iptables()));
    let mut list = network(other, "blue", 1, &json!({}));
    list["plugins"][0]["type"] = json!("bridge");
    let upstream = Runtime::new(other, list);
    let pod = node.pod();
    let attachment = pod.attachment("eth0");
    runtime.add_ok(&attachment);
    let their_pod = other.pod();
    let mut theirs = their_pod.attachment("eth0");
    theirs.id.clone_from(&pod.id);
    upstream.add_ok(&theirs);
    let ours = nat(node);
    assert_eq!(ours, nat(other));
    assert!(ours.iter().any(|line| line.contains("MASQUERADE")), "{ours:?}");
    assert!(!node.nft().contains("causeway"), "{}", node.nft());
    runtime.check(&attachment).expect("check");
    runtime.del_ok(&attachment);
    assert_eq!(nat(node), Vec::<String>::new());
}

/// Rows: S-18
#[test]
fn iptables_masquerades_and_excludes() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let _internet = internet(&lab);
    lab.client.ip("route add 10.1.0.0/16 via 172.18.0.2\n");
    let _client = Server::tcp(&lab.client, "client", &format!("{}:80", Lab::CLIENT));
    let mut extra = iptables();
    extra["ipMasqExclude"] = json!(["172.18.0.64/26"]);
    let runtime = Runtime::new(node, network(node, "blue", 1, &extra));
    let (first, second) = (node.pod(), node.pod());
    runtime.add_ok(&first.attachment("eth0"));
    runtime.add_ok(&second.attachment("eth0"));
    assert_masqueraded(&first);
    assert_eq!(seen_as(&first, "172.18.0.100:80"), "10.1.0.2");

    node.sh("iptables -t nat -F");
    assert!(runtime.check(&first.attachment("eth0")).is_err());
    runtime.forget(&first.attachment("eth0"));
    runtime.del_ok(&first.attachment("eth0").netns(""));
    runtime.del_ok(&first.attachment("eth0"));
    runtime.del_ok(&second.attachment("eth0"));
    assert_eq!(nat(node), Vec::<String>::new());
    assert_eq!(node.sh(&format!("find {} -name '*.json'", node.run_dir().display())), "");
}

/// Rows: C62
#[test]
fn interfaces_of_one_container_share_an_iptables_chain() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let _servers = internet(&lab);
    let runtime = Runtime::new(node, network(node, "blue", 1, &iptables()));
    let pod = node.pod();
    runtime.add_ok(&pod.attachment("eth0"));
    let mut extra = iptables();
    // The default route is the first interface's.
    extra["isDefaultGateway"] = json!(false);
    let second = Runtime::new(node, network(node, "blue", 1, &extra));
    second.add_ok(&pod.attachment("eth1"));
    assert_masqueraded(&pod);
    second.del_ok(&pod.attachment("eth1"));
    assert_masqueraded(&pod);
    runtime.check(&pod.attachment("eth0")).expect("check");
    runtime.del_ok(&pod.attachment("eth0"));
    assert_eq!(nat(node), Vec::<String>::new());
}

/// Rows: C74
#[test]
fn gc_frees_the_rules_of_what_is_not_valid() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let _servers = internet(&lab);
    let with_gc = |name: &str, number: u8, extra: Value| {
        let mut list = network(node, name, number, &extra);
        list["cniVersion"] = json!("1.1.0");
        list["plugins"][0]["ipam"]["type"] = json!("causeway-ipam");
        Runtime::new(node, list)
    };
    let blue = with_gc("blue", 1, json!({ "macspoofchk": true }));
    let red = with_gc("red", 2, json!({ "macspoofchk": true }));
    let green = with_gc("green", 3, iptables());
    let (valid, stale, other) = (node.pod(), node.pod(), node.pod());
    blue.add_ok(&valid.attachment("eth0"));
    let gone = blue.add_ok(&stale.attachment("eth0"))["ips"][0]["address"].clone();
    let gone = gone.as_str().expect("an address").replace("/16", " ");
    assert!(node.nft().contains(&gone), "{gone} is not in {}", node.nft());
    red.add_ok(&other.attachment("eth0"));
    green.add_ok(&node.pod().attachment("eth0"));
    blue.gc(&[&valid.attachment("eth0")]).expect("gc");
    let rules = node.nft();
    assert!(!rules.contains(&gone), "{rules}");
    assert_masqueraded(&valid);
    assert_masqueraded(&other);
    red.gc(&[]).expect("gc");
    blue.gc(&[]).expect("gc");
    assert!(!node.nft().contains("causeway"), "{}", node.nft());
    assert!(!nat(node).is_empty());
    green.gc(&[]).expect("gc");
    assert_eq!(nat(node), Vec::<String>::new());
}

/// A node that joins a cluster later has other networks that are not masqueraded; what an earlier
/// ADD promised is what CHECK wants and what is put back.
///
/// Rows: RC1
#[test]
fn what_is_never_masqueraded_stays_as_it_was_at_add() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    for backend in ["nftables", "iptables"] {
        let network = network(node, "blue", 1, &json!({ "ipMasqBackend": backend }));
        let runtime = Runtime::new(node, network);
        let (before, after) = (node.pod(), node.pod());
        let attached = [before.attachment("eth0"), after.attachment("eth0")];
        runtime.add_ok(&attached[0]);
        {
            let _daemon = Daemon::start_with(node, &["--cluster-cidr", "10.77.0.0/16"]);
            runtime.add_ok(&attached[1]);
            attached.iter().for_each(|one| runtime.check(one).expect("check beside the daemon"));
        }
        attached.iter().for_each(|one| runtime.check(one).expect("check"));
        attached.iter().for_each(|one| runtime.del_ok(one));
        node.sh(&format!("rm -f {}/node.json", node.run_dir().display()));
    }
}
