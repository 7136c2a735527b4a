//! One container on two networks, each an interface of its own, as runtimes make them.

use causeway_tests::{Attachment, BridgeNet as Net, FakeIpam, Node, Pod};
use serde_json::{Value, json};

/// A plugin that answers with one address of each family of network `n`, and with `routes`.
fn ipam(n: u8, routes: Value) -> FakeIpam {
    FakeIpam::new(&json!({ "ips": [
        { "address": format!("10.{n}.0.2/16"), "gateway": format!("10.{n}.0.1") },
        { "address": format!("fd0{n}::2/64"), "gateway": format!("fd0{n}::1") } ],
        "routes": routes }))
}

/// Network `n` on a bridge of its own.
fn network<'a>(node: &'a Node, fake: &'a FakeIpam, n: u8, more: Value) -> Net<'a> {
    let own = json!({ "name": format!("net{n}"), "bridge": format!("cw{n}"), "ipMasq": true });
    Net::new(node, fake, own).with(more)
}

/// Default routes of one family, as `via ADDRESS dev NAME`, in the kernel's order.
fn defaults(pod: &Pod, family: &str) -> Vec<String> {
    let text = pod.sh(&format!("ip {family} route show default"));
    let words = |line: &str| {
        let words = line.split(' ').skip_while(|word| *word != "via").take(4);
        words.collect::<Vec<_>>().join(" ")
    };
    text.lines().map(words).filter(|line| !line.is_empty()).collect()
}

fn check(net: &Net<'_>, result: &Value, attachment: &Attachment) {
    net.with(json!({ "prevResult": result })).run("CHECK", attachment).silent();
}

fn default_routes(n: u8) -> Value {
    json!([{ "dst": "0.0.0.0/0", "gw": format!("10.{n}.0.1") },
           { "dst": "::/0", "gw": format!("fd0{n}::1") }])
}

#[test]
fn the_first_network_keeps_the_default_route() {
    let node = Node::new("node");
    let fakes = [1, 2].map(|n| ipam(n, json!([])));
    let gateway = json!({ "isDefaultGateway": true });
    let first = network(&node, &fakes[0], 1, gateway.clone());
    let second = network(&node, &fakes[1], 2, gateway);
    let pod = node.pod();
    let [eth0, eth1] = ["eth0", "eth1"].map(|name| pod.attachment(name));
    let result = first.add(&eth0);
    assert_eq!(result["routes"], default_routes(1));
    let mut other = second.add(&eth1);
    assert!(other["routes"].as_array().is_none_or(Vec::is_empty), "not its route: {other}");
    assert_eq!(other["ips"][0]["gateway"], "10.2.0.1");
    let whole = |n: u8| {
        node.assert_ping(&format!("10.{n}.0.2"));
        pod.assert_ping(&format!("10.{n}.0.1"));
        pod.assert_ping(&format!("fd0{n}::1"));
    };
    for _ in 0..2 {
        assert_eq!(defaults(&pod, "-4"), ["via 10.1.0.1 dev eth0"]);
        assert_eq!(defaults(&pod, "-6"), ["via fd01::1 dev eth0"]);
        whole(1);
        whole(2);
        check(&first, &result, &eth0);
        check(&second, &other, &eth1);
        second.del(&eth1);
        check(&first, &result, &eth0);
        whole(1);
        other = second.add(&eth1);
    }
    first.del(&eth0);
    assert!(defaults(&pod, "-4").is_empty() && defaults(&pod, "-6").is_empty());
    check(&second, &other, &eth1);
    whole(2);
    let back = first.add(&eth0);
    assert_eq!(back["routes"], default_routes(1), "nothing else has one now");
    check(&first, &back, &eth0);
}

#[test]
fn a_default_route_without_gateway_is_no_default_gateway() {
    let node = Node::new("node");
    let fakes = [1, 2].map(|n| ipam(n, json!([])));
    let first = network(&node, &fakes[0], 1, json!({ "isGateway": true }));
    let second = network(&node, &fakes[1], 2, json!({ "isDefaultGateway": true }));
    let pod = node.pod();
    let [eth0, eth1] = ["eth0", "eth1"].map(|name| pod.attachment(name));
    first.add(&eth0);
    pod.sh("ip route add default dev eth0");
    let result = second.add(&eth1);
    assert_eq!(result["routes"], default_routes(2));
    assert_eq!(defaults(&pod, "-4"), ["via 10.2.0.1 dev eth1"]);
    check(&second, &result, &eth1);
}

#[test]
fn default_routes_of_the_ipams_are_made_for_both_networks() {
    let node = Node::new("node");
    let plain = || json!([{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]);
    let fakes = [1, 2].map(|n| ipam(n, plain()));
    let pod = node.pod();
    for more in [json!({ "isGateway": true }), json!({ "isDefaultGateway": true })] {
        let nets = [1, 2].map(|n: u8| network(&node, &fakes[usize::from(n) - 1], n, more.clone()));
        let [eth0, eth1] = ["eth0", "eth1"].map(|name| pod.attachment(name));
        let results = [nets[0].add(&eth0), nets[1].add(&eth1)];
        // As upstream's plugins do it: the last one comes first.
        assert_eq!(defaults(&pod, "-4"), ["via 10.2.0.1 dev eth1", "via 10.1.0.1 dev eth0"]);
        let v6 = pod.sh("ip -6 route show default");
        assert!(v6.contains("via fd01::1 dev eth0") && v6.contains("via fd02::1 dev eth1"), "{v6}");
        for (n, attachment) in [&eth0, &eth1].into_iter().enumerate() {
            assert_eq!(results[n]["routes"], plain());
            check(&nets[n], &results[n], attachment);
        }
        nets[0].del(&eth0);
        check(&nets[1], &results[1], &eth1);
        node.assert_ping("10.2.0.2");
        let again = nets[0].add(&eth0);
        nets[1].del(&eth1);
        check(&nets[0], &again, &eth0);
        node.assert_ping("10.1.0.2");
        nets[0].del(&eth0);
    }
}
