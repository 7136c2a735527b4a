//! Addresses that are in use and in no lease: neighbours on the bridge, the host, its router.

use causeway_tests::{Cni, Node, Pod, Runtime, finish};
use serde_json::{Value, json};

/// A network of both families on `cw0`.
fn conflist(node: &Node, ranges: Value) -> Value {
    let mut list = node.conflist("net", "10.0.1.0/24");
    let ipam = &mut list["plugins"][0]["ipam"];
    if let Some(ipam) = ipam.as_object_mut() {
        ipam.remove("subnet");
    }
    ipam["ranges"] = ranges;
    list
}

fn addresses(result: &Value) -> Vec<&str> {
    let ips = result["ips"].as_array().expect("addresses");
    ips.iter().filter_map(|ip| ip["address"].as_str()).collect()
}

/// A container of nobody on `cw0`.
fn stranger(node: &Node, pod: &Pod, port: &str, addresses: &[&str]) {
    node.ip(&format!("link add {port} type veth peer name eth0 netns {}\n", pod.name()));
    node.ip(&format!("link set {port} master cw0 up\n"));
    pod.ip("link set eth0 up\n");
    for address in addresses {
        let nodad = if address.contains(':') { " nodad" } else { "" };
        pod.ip(&format!("addr add {address} dev eth0{nodad}\n"));
    }
}

/// Rows: RB4
#[test]
fn an_address_that_a_neighbour_has_is_passed_over() {
    let node = Node::new("node");
    let ranges = json!([[{ "subnet": "10.0.1.0/24" }], [{ "subnet": "fd00:10::/64" }]]);
    let runtime = Runtime::new(&node, conflist(&node, ranges));
    let pods = [node.pod(), node.pod(), node.pod(), node.pod()];
    let first = runtime.add_ok(&pods[0].attachment("eth0"));
    assert_eq!(addresses(&first), ["10.0.1.2/24", "fd00:10::2/64"]);
    stranger(&node, &pods[1], "old1", &["10.0.1.3/24", "10.0.1.5/24", "fd00:10::5/64"]);
    // One of each family is taken from both pools at once; what is in use goes back with the other.
    let second = runtime.add_ok(&pods[2].attachment("eth0"));
    assert_eq!(addresses(&second), ["10.0.1.4/24", "fd00:10::4/64"]);
    node.assert_ping("10.0.1.4");
    let asked = pods[3].attachment("eth0").args("IgnoreUnknown=1;IP=10.0.1.5");
    let refused = runtime.add(&asked).expect_err("it is in use").error();
    assert_eq!(refused["code"], 101, "{refused}");
    let msg = refused["msg"].as_str().expect("a message");
    assert!(msg.starts_with("requested IP address 10.0.1.5 is in use by "), "{msg}");
    let third = runtime.add_ok(&pods[3].attachment("eth0"));
    assert_eq!(addresses(&third), ["10.0.1.6/24", "fd00:10::6/64"]);
}

/// No packet is sent and nothing is waited for: there is no packet socket.
///
/// Rows: RB4
#[test]
fn a_bridge_of_ours_alone_asks_nobody() {
    let node = Node::new("node");
    let runtime = Runtime::new(&node, conflist(&node, json!([[{ "subnet": "10.0.1.0/24" }]])));
    let pods = [node.pod(), node.pod(), node.pod()];
    runtime.add_ok(&pods[0].attachment("eth0"));
    let traced = |pod: &Pod| {
        let attachment = pod.attachment("eth0");
        let plugin = runtime.plugins().next().expect("the main plugin");
        let config = runtime.config(plugin, &attachment, &Value::Null);
        let call = Cni::new(&node, "causeway-bridge", "ADD", &config).attachment(&attachment);
        let trace = node.dir().join("trace");
        let mut tracer = node.command("strace");
        tracer.args(["-f", "-e", "trace=socket", "-o"]).arg(&trace);
        let call = call.command();
        tracer.arg(call.get_program()).args(call.get_args());
        for (name, value) in call.get_envs() {
            tracer.env(name, value.expect("set"));
        }
        finish(tracer, config.to_string().as_bytes()).ok();
        std::fs::read_to_string(&trace).expect("strace wrote its file")
    };
    let alone = traced(&pods[1]);
    assert!(alone.contains("AF_NETLINK") && !alone.contains("AF_PACKET"), "{alone}");
    node.ip("link add port0 type veth peer name wire\nlink set port0 master cw0 up\n");
    let shared = traced(&pods[2]);
    assert!(shared.contains("AF_PACKET"), "{shared}");
}

/// Rows: RD2
#[test]
fn a_range_with_an_address_of_the_host_is_refused() {
    let node = Node::new("node");
    node.ip("link add eth0 type veth peer name wire\nlink set wire up\nlink set eth0 up\naddr add 192.0.2.9/24 dev eth0\n\
         route add default via 192.0.2.1\n");
    for (range, part) in [
        (
            json!({ "subnet": "192.0.2.0/23" }),
            "ipam.ranges: 192.0.2.1-192.0.3.254 contains 192.0.2.",
        ),
        (
            json!({ "subnet": "192.0.0.0/16", "rangeStart": "192.0.2.100", "gateway": "192.0.2.1" }),
            "has 192.0.2.1 as the gateway: the router of this node",
        ),
        (
            json!({ "subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100", "gateway": "192.0.2.50" }),
            "this node has 192.0.2.9/24 on another link",
        ),
    ] {
        let runtime = Runtime::new(&node, conflist(&node, json!([[range]])));
        let pod = node.pod();
        let refused = runtime.add(&pod.attachment("eth0")).expect_err("refused").error();
        assert_eq!(refused["code"], 7, "{refused}");
        assert!(refused["msg"].as_str().is_some_and(|msg| msg.contains(part)), "{refused}");
        assert!(pod.link("eth0").is_none());
    }
    // Apart from the host's addresses, in a wider subnet that other nodes share.
    let range = json!({ "subnet": "192.0.0.0/16", "rangeStart": "192.0.5.2" });
    let runtime = Runtime::new(&node, conflist(&node, json!([[range]])));
    let pods = [node.pod(), node.pod()];
    for pod in &pods {
        runtime.add_ok(&pod.attachment("eth0"));
    }
}
