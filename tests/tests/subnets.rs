//! `"subnet": "auto"`: addresses, gateway and MTU of the node as `node.json` tells them, and what
//! becomes of bridge and containers when it tells something else.

use causeway_tests::traffic::Server;
use causeway_tests::{Attachment, Lab, Node, Outcome, Runtime, Snapshot, bins};
use serde_json::{Value, json};

/// The conflist for many nodes, with the directories of `node`.
fn conflist(node: &Node) -> Value {
    let path = bins::workspace().join("conf/10-causeway-cluster.conflist");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut list: Value = serde_json::from_str(&text).expect("JSON");
    let (run, data) = (node.run_dir(), node.data_dir());
    // STATUS came with it; the rest of the configuration is the same.
    list["cniVersion"] = json!("1.1.0");
    list["plugins"][0]["runDir"] = json!(run);
    list["plugins"][0]["ipam"]["runDir"] = json!(run);
    list["plugins"][0]["ipam"]["dataDir"] = json!(data);
    list["plugins"][1]["runDir"] = json!(run);
    list["plugins"][1]["spoolDir"] = json!(node.dir().join("state/spool"));
    list["plugins"][1]["socket"] = json!(run.join("causeway.sock"));
    list
}

/// Writes `node.json` as the daemon does, by rename.
fn tell(node: &Node, facts: &Value) {
    let (part, file) = (node.run_dir().join("node.json.part"), node.run_dir().join("node.json"));
    std::fs::write(&part, facts.to_string()).expect("write node.json");
    std::fs::rename(&part, &file).expect("rename node.json");
}

fn of(subnets: &[&str]) -> Value {
    json!({ "node": "n1", "subnets": subnets, "clusterCIDRs": ["10.0.0.0/16", "fd00::/48"],
            "serviceCIDRs": ["10.96.0.0/16"] })
}

fn addresses(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().expect("ips").iter();
    ips.map(|ip| ip["address"].as_str().expect("an address").to_owned()).collect()
}

/// Runs the main plugin alone, for what it says on stderr.
fn main_plugin(
    runtime: &Runtime<'_>,
    command: &str,
    attachment: &Attachment,
    before: &Value,
) -> Outcome {
    let plugin = runtime.plugins().next().expect("the main plugin");
    runtime.call(plugin, command, &runtime.config(plugin, attachment, before), attachment).run()
}

fn mtu(ns: &causeway_tests::Ns, link: &str) -> Value {
    ns.link(link).unwrap_or_else(|| panic!("no {link}"))["mtu"].clone()
}

fn host_end(result: &Value) -> String {
    result["interfaces"][1]["name"].as_str().expect("a host end").to_owned()
}

#[test]
fn both_families_come_from_the_nodes_subnets() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let runtime = Runtime::new(node, conflist(node));
    let (pod, other) = (node.pod(), node.pod());
    let attachment = pod.attachment("eth0");
    let waiting = runtime.add(&attachment).expect_err("no node.json yet");
    assert_eq!(waiting.error_code(), 11, "{}", waiting.describe());
    tell(node, &of(&["10.0.1.0/24", "fd00:0:0:1::/64"]));
    let result = runtime.add_ok(&attachment);
    assert_eq!(addresses(&result), ["10.0.1.2/24", "fd00:0:0:1::2/64"]);
    assert_eq!(node.addresses("cw0"), ["10.0.1.1/24", "fd00:0:0:1::1/64"]);
    for family in ["-4", "-6"] {
        assert!(pod.sh(&format!("ip {family} route show default")).contains(" via "), "{family}");
    }
    let second = runtime.add_ok(&other.attachment("eth0"));
    assert_eq!(addresses(&second), ["10.0.1.3/24", "fd00:0:0:1::3/64"]);
    pod.assert_ping("10.0.1.3");
    pod.assert_ping("fd00:0:0:1::3");
    pod.assert_ping(Lab::INTERNET);
    pod.assert_ping(Lab::INTERNET6);
    runtime.check(&attachment).unwrap_or_else(|outcome| panic!("{}", outcome.describe()));
    runtime.del_ok(&attachment);
    runtime.del_ok(&other.attachment("eth0"));
    assert_eq!(node.leases().len(), 0);
}

/// Two stores would hand out one address twice.
#[test]
fn a_second_network_with_the_nodes_subnets_is_refused_until_the_first_has_gone() {
    let node = Node::new("node");
    tell(&node, &of(&["10.0.1.0/24", "fd00:0:0:1::/64"]));
    let first = Runtime::new(&node, conflist(&node));
    let mut list = conflist(&node);
    list["name"] = json!("second");
    let second = Runtime::new(&node, list.clone());
    let (pod, new) = (node.pod(), node.pod());
    let (attachment, other) = (pod.attachment("eth0"), new.attachment("eth0"));
    first.add_ok(&attachment);
    let before = Snapshot::take(&node);
    for outcome in [second.add(&other).expect_err("shared"), second.status().expect_err("shared")] {
        let error = outcome.error();
        assert_eq!(error["code"], 7, "{error}");
        let msg = error["msg"].as_str().expect("a message");
        assert!(msg.contains("give one of the two networks its own range"), "{msg}");
        second.del_ok(&other);
    }
    before.assert_same(&Snapshot::take(&node));
    first.status().unwrap_or_else(|outcome| panic!("{}", outcome.describe()));
    first.check(&attachment).unwrap_or_else(|outcome| panic!("{}", outcome.describe()));
    // What the message says helps.
    list["plugins"][0]["ipam"]["subnet"] = json!("10.0.9.0/24");
    list["plugins"][0]["bridge"] = json!("cw1");
    let apart = Runtime::new(&node, list);
    assert_eq!(addresses(&apart.add_ok(&other)), ["10.0.9.2/24"]);
    apart.del_ok(&other);
    first.del_ok(&attachment);
    second.status().unwrap_or_else(|outcome| panic!("{}", outcome.describe()));
    assert_eq!(addresses(&second.add_ok(&other)), ["10.0.1.2/24", "fd00:0:0:1::2/64"]);
}

/// Rows: O-38
#[test]
fn a_node_that_lost_its_subnet_refuses_to_attach_and_says_why() {
    let node = Node::new("node");
    let runtime = Runtime::new(&node, conflist(&node));
    let (pod, new) = (node.pod(), node.pod());
    let attachment = pod.attachment("eth0");
    tell(&node, &of(&["10.0.1.0/24"]));
    runtime.add_ok(&attachment);
    let mut lost = of(&[]);
    lost["subnetRefused"] = json!("node n2 took 10.0.1.0/24 while this node was away");
    tell(&node, &lost);
    let before = Snapshot::take(&node);
    let error = runtime.add(&new.attachment("eth0")).expect_err("no subnet").error();
    assert_eq!(error["code"], 11, "{error}");
    assert!(
        error["msg"].as_str().is_some_and(|msg| msg.contains("node n2 took 10.0.1.0/24")),
        "{error}"
    );
    before.assert_same(&Snapshot::take(&node));
    // Who is attached already stays so, and can go.
    runtime.check(&attachment).unwrap_or_else(|outcome| panic!("{}", outcome.describe()));
    node.assert_ping("10.0.1.2");
    assert_eq!(runtime.status().expect_err("ADD cannot work").error_code(), 50);
    runtime.del_ok(&attachment);
    assert_eq!(node.leases().len(), 0);
}

/// Rows: O-38b
#[test]
fn the_bridge_follows_to_a_new_subnet() {
    let node = Node::new("node");
    let runtime = Runtime::new(&node, conflist(&node));
    let pods = [node.pod(), node.pod(), node.pod()];
    let [one, two, three] = [0, 1, 2].map(|n: usize| pods[n].attachment("eth0"));
    tell(&node, &of(&["10.0.1.0/24", "fd00:0:0:1::/64"]));
    runtime.add_ok(&one);
    // An address that another program gave the bridge is not ours to take.
    node.ip("addr add fd99::77/64 dev cw0 nodad\n");
    tell(&node, &of(&["10.0.5.0/24", "fd00:0:0:5::/64"]));

    // A container of the old subnet is there: both gateways stay, and a warning is printed.
    let outcome = main_plugin(&runtime, "ADD", &two, &Value::Null);
    let result = outcome.json();
    assert_eq!(addresses(&result), ["10.0.5.2/24", "fd00:0:0:5::2/64"]);
    let warning = String::from_utf8_lossy(&outcome.stderr).into_owned();
    assert!(warning.contains("cw0 keeps 10.0.1.1/24 of an earlier subnet"), "{warning}");
    assert!(warning.contains("fd00:0:0:1::1/64") && !warning.contains("fd99"), "{warning}");
    let sorted = || {
        let mut addresses = node.addresses("cw0");
        addresses.sort();
        addresses
    };
    assert_eq!(
        sorted(),
        ["10.0.1.1/24", "10.0.5.1/24", "fd00:0:0:1::1/64", "fd00:0:0:5::1/64", "fd99::77/64"]
    );
    for (pod, gateway, peer) in
        [(&pods[0], "10.0.1.1", "10.0.5.2"), (&pods[1], "10.0.5.1", "10.0.1.2")]
    {
        pod.assert_ping(gateway);
        pod.assert_ping(peer);
    }
    pods[0].assert_ping("fd00:0:0:5::2");

    // The lease of the old subnet is released by its container's DEL.
    runtime.check(&one).unwrap_or_else(|outcome| panic!("{}", outcome.describe()));
    runtime.del_ok(&one);
    let left: Vec<_> = node.leases().iter().map(|lease| lease["address"].clone()).collect();
    assert_eq!(left, [json!("10.0.5.2"), json!("fd00:0:0:5::2")]);

    // Nobody is left there: the next attachment takes the old gateways off.
    let outcome = main_plugin(&runtime, "ADD", &three, &Value::Null);
    assert_eq!(addresses(&outcome.json()), ["10.0.5.3/24", "fd00:0:0:5::3/64"]);
    assert!(outcome.stderr.is_empty(), "{}", String::from_utf8_lossy(&outcome.stderr));
    assert_eq!(sorted(), ["10.0.5.1/24", "fd00:0:0:5::1/64", "fd99::77/64"]);
    pods[1].assert_ping("10.0.5.3");
    pods[2].assert_ping("fd00:0:0:5::1");
}

/// Rows: O-38b
#[test]
fn attachments_of_both_subnets_at_once_keep_their_gateways() {
    let node = Node::new("node");
    let runtime = Runtime::new(&node, conflist(&node));
    let first = node.pod();
    tell(&node, &of(&["10.0.1.0/24"]));
    runtime.add_ok(&first.attachment("eth0"));
    runtime.del_ok(&first.attachment("eth0"));
    for round in 2..8_u32 {
        let pods: Vec<_> = (0..6).map(|_| node.pod()).collect();
        let plugin = runtime.plugins().next().expect("the main plugin");
        let mut runs = Vec::new();
        for (n, pod) in pods.iter().enumerate() {
            if n == 3 {
                tell(&node, &of(&[&format!("10.0.{round}.0/24")]));
            }
            let attachment = pod.attachment("eth0");
            let config = runtime.config(plugin, &attachment, &Value::Null);
            runs.push((runtime.call(plugin, "ADD", &config, &attachment).spawn(), attachment));
        }
        let mut attachments = Vec::new();
        for (run, attachment) in runs {
            attachments.push((attachment, run.wait().json()));
        }
        for (pod, (_, result)) in pods.iter().zip(&attachments) {
            pod.assert_ping(result["ips"][0]["gateway"].as_str().expect("a gateway"));
        }
        for (attachment, result) in &attachments {
            main_plugin(&runtime, "DEL", attachment, result).silent();
        }
    }
}

/// What upstream does stays if the configuration names the subnet.
///
/// Rows: O-38b
#[test]
fn another_gateway_of_a_named_subnet_is_still_refused() {
    let node = Node::new("node");
    let first = Runtime::new(&node, node.conflist("net", "10.0.1.0/24"));
    let pod = node.pod();
    first.add_ok(&pod.attachment("eth0"));
    first.del_ok(&pod.attachment("eth0"));
    let second = Runtime::new(&node, node.conflist("other", "10.0.5.0/24"));
    let error = second.add(&pod.attachment("eth0")).expect_err("another address").error();
    assert_eq!(error["code"], 7);
    assert!(error["msg"].as_str().is_some_and(|msg| msg.contains("different from")), "{error}");
    assert_eq!(node.addresses("cw0"), ["10.0.1.1/24"]);
    // And on a bridge that another program made.
    let node = Node::new("node");
    node.ip("link add cw0 type bridge\nlink set cw0 up\naddr add 10.0.1.1/24 dev cw0\n");
    tell(&node, &of(&["10.0.5.0/24"]));
    let pod = node.pod();
    let auto = Runtime::new(&node, conflist(&node));
    assert_eq!(auto.add(&pod.attachment("eth0")).expect_err("not ours").error_code(), 7);
    assert_eq!(node.addresses("cw0"), ["10.0.1.1/24"]);
}

/// Rows: O-10, O-11, S-14
#[test]
fn the_overlays_mtu_is_everywhere_and_the_bridge_follows_it() {
    let node = Node::new("node");
    let runtime = Runtime::new(&node, conflist(&node));
    let pods = [node.pod(), node.pod(), node.pod(), node.pod()];
    let with = |mtu: u32| {
        let mut facts = of(&["10.0.1.0/24"]);
        facts["overlayMTU"] = json!(mtu);
        tell(&node, &facts);
    };
    let add = |n: usize| {
        let result = runtime.add_ok(&pods[n].attachment("eth0"));
        (mtu(&pods[n], "eth0"), mtu(&node, &host_end(&result)), mtu(&node, "cw0"))
    };
    let all = |mtu: u32| (json!(mtu), json!(mtu), json!(mtu));
    with(1450);
    assert_eq!(add(0), all(1450));
    // The underlay shrank: new containers and the bridge follow; what is routed to an old one is
    // told to be smaller, as the bridge's MTU says.
    with(1400);
    assert_eq!(add(1), all(1400));
    assert_eq!(mtu(&pods[0], "eth0"), 1450);
    pods[1].assert_ping("10.0.1.2");
    // It grew: not while there are containers whose ports would drop what the bridge lets pass.
    with(1430);
    assert_eq!(add(2), all(1400));
    for pod in &pods[..3] {
        runtime.del_ok(&pod.attachment("eth0"));
    }
    assert_eq!(add(3), all(1430));
}

#[test]
fn a_bridge_of_others_keeps_its_mtu() {
    let node = Node::new("node");
    node.ip("link add cw0 type bridge\nlink set cw0 mtu 1480 up\n");
    let mut facts = of(&["10.0.1.0/24"]);
    facts["overlayMTU"] = json!(1450);
    tell(&node, &facts);
    let runtime = Runtime::new(&node, conflist(&node));
    let pod = node.pod();
    runtime.add_ok(&pod.attachment("eth0"));
    assert_eq!((mtu(&pod, "eth0"), mtu(&node, "cw0")), (json!(1450), json!(1480)));
}

#[test]
fn what_is_excluded_and_rests_holds_for_the_nodes_subnet_too() {
    let node = Node::new("node");
    let mut list = conflist(&node);
    list["plugins"][0]["ipam"]["exclude"] = json!(["10.0.1.2", "10.0.5.0/30"]);
    list["plugins"][0]["ipam"]["reuseDelay"] = json!("1h");
    let runtime = Runtime::new(&node, list);
    let pod = node.pod();
    let attachment = pod.attachment("eth0");
    let turn = || {
        let address = addresses(&runtime.add_ok(&attachment)).remove(0);
        runtime.del_ok(&attachment);
        address
    };
    tell(&node, &of(&["10.0.1.0/24"]));
    assert_eq!([turn(), turn()], ["10.0.1.3/24", "10.0.1.4/24"]);
    tell(&node, &of(&["10.0.5.0/29"]));
    assert_eq!([turn(), turn(), turn()], ["10.0.5.4/29", "10.0.5.5/29", "10.0.5.6/29"]);
    let error = runtime.add(&attachment).expect_err("all rest").error();
    assert_eq!(error["code"], 100, "{error}");
    tell(&node, &of(&["10.0.1.0/24"]));
    assert_eq!(turn(), "10.0.1.5/24", "what rests goes on resting while another subnet is used");
}

/// A container on a bridge that lost its node's old subnet is still served on it.
///
/// Rows: O-38b
#[test]
fn services_of_the_old_subnet_go_on() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let runtime = Runtime::new(node, conflist(node));
    let (pod, new) = (node.pod(), node.pod());
    tell(node, &of(&["10.0.1.0/24"]));
    let ports =
        json!({ "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }] });
    runtime.add_ok(&pod.attachment("eth0").runtime_config(ports));
    let _web = Server::tcp(&pod, "web", "0.0.0.0:80");
    tell(node, &of(&["10.0.5.0/24"]));
    runtime.add_ok(&new.attachment("eth0"));
    assert_eq!(lab.client.tcp("172.18.0.2:8080").expect("an answer").hostname, "web");
    let seen = new.tcp("10.0.1.2:80").expect("an answer").peer.ip().to_string();
    assert_eq!(seen, "10.0.5.2", "both are of the cluster: no masquerade");
    pod.assert_ping(Lab::INTERNET);
}
