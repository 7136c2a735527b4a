//! cnitool over lists in which our plugins and upstream's stand side by side.

use std::path::{Path, PathBuf};

use causeway_tests::traffic::Server;
use causeway_tests::{Finished, Lab, Node, Pod, Snapshot, TempDir, bins, finish};
use serde_json::{Value, json};

/// cnitool with one network on one node. libcni keeps its results in `/var/lib/cni`, which belongs to
/// this test binary, so that each test has a network of another name.
struct Cnitool<'a> {
    node: &'a Node,
    name: String,
    folder: TempDir,
}

impl<'a> Cnitool<'a> {
    fn new(node: &'a Node, list: &Value) -> Self {
        let name = list["name"].as_str().expect("a network has a name").to_owned();
        let cnitool = Self { node, name, folder: TempDir::new("cnitool") };
        cnitool.configure(list);
        cnitool
    }

    fn configure(&self, list: &Value) {
        let path = self.folder.path().join("net.conflist");
        std::fs::write(path, list.to_string()).expect("write the network");
    }

    fn run(&self, verb: &str, netns: &Path) -> Finished {
        let mut command = self.node.command(bins::tool("cnitool"));
        command.args([verb, &self.name]).arg(netns);
        command.env("NETCONFPATH", self.folder.path()).env("CNI_PATH", self.node.cni_path());
        let port = json!({ "HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp" });
        command.env("CAP_ARGS", json!({ "portMappings": [port] }).to_string());
        finish(command, b"")
    }

    fn add(&self, pod: &Pod) -> String {
        let result: Value = serde_json::from_str(&self.run("add", pod.path()).ok()).expect("JSON");
        let address = result["ips"][0]["address"].as_str().expect("an address");
        address.split_once('/').expect("a prefix").0.to_owned()
    }

    /// CHECK after ADD passes, the host port works; after DEL the node is as before.
    fn round_trip(&self, lab: &Lab, before: &Snapshot) {
        let pod = self.node.pod();
        let ip = self.add(&pod);
        self.run("check", pod.path()).ok();
        self.assert_served(lab, &pod, &ip);
        self.run("del", pod.path()).ok();
        before.assert_same(&Snapshot::take(self.node));
    }

    /// The container is reached by its host port, and reaches the internet.
    fn assert_served(&self, lab: &Lab, pod: &Pod, ip: &str) {
        let _server = Server::tcp(pod, "pod", "0.0.0.0:80");
        let answer = lab.client.tcp("172.18.0.2:8080").expect("an answer by the host port");
        assert_eq!(answer.ip.to_string(), ip, "{}", self.name);
        pod.assert_ping(Lab::INTERNET);
    }
}

fn list(node: &Node, name: &str, change: impl FnOnce(&mut Vec<Value>)) -> Value {
    let mut list = node.conflist(name, "10.66.0.0/24");
    list["cniVersion"] = json!("1.0.0");
    change(list["plugins"].as_array_mut().expect("plugins"));
    list
}

/// What stays by design, of ours and of upstream's, is there before the comparison.
fn used(cnitool: &Cnitool<'_>) -> Snapshot {
    let first = cnitool.node.pod();
    cnitool.add(&first);
    cnitool.run("del", first.path()).ok();
    Snapshot::take(cnitool.node)
}

/// Rows: C72
#[test]
fn upstreams_firewall_and_tuning_work_after_our_plugins() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let mac = "02:00:00:00:00:99";
    let list = list(node, "after", |plugins| {
        plugins.push(json!({ "type": "firewall" }));
        plugins.push(json!({ "type": "tuning", "mac": mac,
            "sysctl": { "net.ipv4.conf.eth0.arp_filter": "1" } }));
    });
    let cnitool = Cnitool::new(node, &list);
    let before = used(&cnitool);
    let pod = node.pod();
    cnitool.add(&pod);
    cnitool.run("check", pod.path()).ok();
    assert_eq!(pod.link("eth0").expect("eth0")["address"], mac);
    cnitool.run("del", pod.path()).ok();
    cnitool.round_trip(&lab, &before);
}

/// Without CHECK: that of Debian's portmap fails wherever a container has no IPv6 address, after
/// upstream's bridge as well.
#[test]
fn upstreams_portmap_works_after_our_bridge() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let list = list(node, "portmap", |plugins| {
        plugins[1] = json!({ "type": "portmap", "capabilities": { "portMappings": true } });
    });
    let cnitool = Cnitool::new(node, &list);
    let before = used(&cnitool);
    let pod = node.pod();
    let ip = cnitool.add(&pod);
    cnitool.assert_served(&lab, &pod, &ip);
    cnitool.run("del", pod.path()).ok();
    before.assert_same(&Snapshot::take(node));
}

/// Rows: C84
#[test]
fn our_service_works_after_upstreams_bridge_and_before_upstreams_firewall() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let list = list(node, "between", |plugins| {
        plugins[0]["type"] = json!("bridge");
        plugins.push(json!({ "type": "firewall" }));
    });
    let cnitool = Cnitool::new(node, &list);
    let before = used(&cnitool);
    cnitool.round_trip(&lab, &before);
}

/// Rows: C70, C72
#[test]
fn check_fails_once_something_is_missing() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    for (name, tampering) in [
        ("tampered-address", "ip -n POD addr del IP/24 dev eth0"),
        ("tampered-route", "ip -n POD route del default"),
        ("tampered-port", "ip link set HOST nomaster"),
        ("tampered-rules", "nft delete table inet causeway_hostport"),
        ("tampered-masquerade", "nft delete table inet causeway_masq"),
    ] {
        let cnitool = Cnitool::new(node, &list(node, name, |_| {}));
        let pod = node.pod();
        let ip = cnitool.add(&pod);
        cnitool.run("check", pod.path()).ok();
        let script = tampering.replace("POD", pod.name()).replace("IP", &ip);
        node.sh(&script.replace("HOST", &host_end(node)));
        let checked = cnitool.run("check", pod.path());
        assert!(!checked.status.success(), "{name}: {}", checked.describe());
        cnitool.run("del", pod.path()).ok();
        assert!(pod.link("eth0").is_none(), "{name}");
    }
}

fn host_end(node: &Node) -> String {
    let links = node.links();
    let mut ports = links.iter().filter(|link| link["master"] == "cw0");
    let name = ports.next().expect("a port of the bridge")["ifname"].as_str();
    name.expect("a link has a name").to_owned()
}

/// Rows: C73
#[test]
fn cnitool_gc_frees_what_belonged_to_a_namespace_that_vanished() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let cnitool = Cnitool::new(node, &list(node, "vanished", |_| {}));
    let version = |version: &str| {
        let mut list = list(node, "vanished", |_| {});
        list["cniVersion"] = json!(version);
        cnitool.configure(&list);
    };
    version("1.1.0");
    let before = used(&cnitool);
    let gone: PathBuf = {
        let pod = node.pod();
        cnitool.add(&pod);
        pod.path().to_owned()
    };
    assert!(!gone.exists());
    assert_ne!(before, Snapshot::take(node));
    cnitool.run("status", &gone).ok();
    // DELs for its whole cache, then GC without the list of attachments to keep.
    let refused = cnitool.run("gc", &gone);
    assert!(!refused.status.success(), "{}", refused.describe());
    assert!(refused.describe().contains("cni.dev/valid-attachments"), "{}", refused.describe());
    before.assert_same(&Snapshot::take(node));
    // The address, the port and the name are free for the next one.
    cnitool.round_trip(&lab, &before);
}

/// Rows: C86
#[test]
fn a_list_can_switch_check_and_gc_off() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    for off in [json!(true), json!("true")] {
        let mut list = list(node, "switched", |_| {});
        list["cniVersion"] = json!("1.1.0");
        list["disableCheck"] = off.clone();
        list["disableGC"] = off;
        let cnitool = Cnitool::new(node, &list);
        let pod = node.pod();
        let ip = cnitool.add(&pod);
        node.sh("nft delete table inet causeway_hostport");
        cnitool.run("check", pod.path()).ok();
        cnitool.run("gc", Path::new("/run/netns/none")).ok();
        assert_eq!(pod.addresses("eth0"), [format!("{ip}/24")], "GC is off");
        cnitool.run("del", pod.path()).ok();
    }
}

/// The node's administrator changes the list while containers run.
///
/// Rows: F28
#[test]
fn attachments_of_upstream_are_removed_by_ours() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let ours = list(node, "switch", |_| {});
    let upstream = list(node, "switch", |plugins| {
        plugins[0]["type"] = json!("bridge");
        plugins[0]["ipam"]["type"] = json!("host-local");
        plugins[1]["type"] = json!("portmap");
    });
    let cnitool = Cnitool::new(node, &upstream);
    used(&cnitool);
    let before = node.iptables();
    let pod = node.pod();
    cnitool.add(&pod);
    cnitool.configure(&ours);
    cnitool.run("del", pod.path()).ok();
    assert!(pod.link("eth0").is_none());
    assert_eq!(node.iptables(), before);
    cnitool.round_trip(&lab, &used(&cnitool));
}
