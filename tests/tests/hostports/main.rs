//! Host ports, with packets: by nftables and, alike, by iptables.

mod closing;
mod iptables;
mod lifecycle;
mod localhost;
mod refusal;
mod rules;
mod traffic;
mod turns;

use causeway_tests::{Attachment, Cni, Lab, Node, Ns, Outcome, Pod, Runtime};
use serde_json::{Value, json};

const NODE: &str = "172.18.0.2";
const NODE6: &str = "fd00:172:18::2";

/// A lab with one node, and networks of upstream's bridge and host-local with our host ports.
struct World {
    lab: Lab,
}

impl World {
    fn new() -> Self {
        Self { lab: Lab::one_node() }
    }

    fn node(&self) -> &Node {
        &self.lab.nodes[0]
    }

    /// Network `name` on 10.`number`.0.0/24 and fd00:`number`::/64; `extra` goes into our plugin's
    /// configuration.
    fn runtime(&self, name: &str, number: u8, extra: Value) -> Runtime<'_> {
        let service = merged(service(self.node()), extra);
        Runtime::new(self.node(), network(self.node(), name, number, service))
    }
}

fn service(node: &Node) -> Value {
    json!({ "type": "causeway-service", "runDir": node.run_dir(),
            "capabilities": { "portMappings": true } })
}

fn merged(mut object: Value, extra: Value) -> Value {
    let members = object.as_object_mut().expect("an object");
    members.extend(extra.as_object().cloned().unwrap_or_default());
    object
}

fn network(node: &Node, name: &str, number: u8, ports: Value) -> Value {
    json!({ "cniVersion": "1.0.0", "name": name, "plugins": [
        { "type": "bridge", "bridge": format!("hp{number}"), "isDefaultGateway": true,
          "ipMasq": false, "hairpinMode": true,
          "ipam": { "type": "host-local", "dataDir": node.data_dir(),
                    "ranges": [[{ "subnet": format!("10.{number}.0.0/24") }],
                               [{ "subnet": format!("fd00:{number}::/64") }]] } },
        ports ] })
}

fn tcp(host: u16, container: u16) -> Value {
    json!({ "hostPort": host, "containerPort": container, "protocol": "tcp" })
}

fn udp(host: u16, container: u16) -> Value {
    json!({ "hostPort": host, "containerPort": container, "protocol": "udp" })
}

fn at(host_ip: &str, mapping: Value) -> Value {
    merged(mapping, json!({ "hostIP": host_ip }))
}

fn attachment(pod: &Pod, mappings: Value) -> Attachment {
    pod.attachment("eth0").runtime_config(json!({ "portMappings": mappings }))
}

/// The address of family `index` (0: IPv4, 1: IPv6) in a result.
fn address(result: &Value, index: usize) -> String {
    let text = result["ips"][index]["address"].as_str().expect("an address").to_owned();
    text.split_once('/').expect("a prefix").0.to_owned()
}

/// Waits until IPv6 addresses are usable: upstream's bridge leaves duplicate address detection on.
fn settle(ns: &Ns) {
    ns.sh("for i in $(seq 50); do
             ip -6 addr show tentative | grep -q . || exit 0; sleep 0.1
           done; exit 1");
}

/// The error object of an ADD that must fail.
fn refused(outcome: Result<Value, Outcome>) -> Value {
    outcome.expect_err("ADD must fail").error()
}

/// The error object of a run that must fail.
fn refused_run(outcome: Outcome) -> Value {
    outcome.error()
}

/// Our plugin alone, with `prevResult` of one container address.
fn alone<'a>(node: &'a Node, command: &str, extra: Value, attachment: &Attachment) -> Cni<'a> {
    let config = merged(
        json!({ "cniVersion": "1.1.0", "name": "alone", "type": "causeway-service",
                "runDir": node.run_dir(),
                "prevResult": previous(attachment, "10.99.0.2/24") }),
        extra,
    );
    Cni::new(node, "causeway-service", command, &config).attachment(attachment)
}

fn previous(attachment: &Attachment, address: &str) -> Value {
    json!({ "cniVersion": "1.1.0",
            "interfaces": [{ "name": attachment.ifname, "sandbox": attachment.netns }],
            "ips": [{ "address": address, "interface": 0 }] })
}

fn mappings(list: Value) -> Value {
    json!({ "runtimeConfig": { "portMappings": list } })
}

/// Records and bookkeeping; lock files stay.
fn state_files(node: &Node) -> String {
    node.sh(&format!("find {} -type f ! -name '*.lock'", node.run_dir().display()))
}

/// Elements of a set or map of our table, one per line.
fn elements(node: &Node, set: &str) -> Vec<String> {
    let script = format!("nft list {} inet causeway_hostport {set}", kind(set));
    let text = node.try_sh(&script);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    let Some((_, list)) = text.split_once("elements = {") else { return Vec::new() };
    let list = list.split_once('}').map_or(list, |(list, _)| list);
    list.split(",\n").map(|element| element.trim().to_owned()).collect()
}

fn kind(set: &str) -> &'static str {
    if set.starts_with("any") || set.starts_with("addr") { "map" } else { "set" }
}
