//! Containers of real runtimes behind services: labels that users give them make endpoints.

use std::collections::BTreeSet;

use causeway_tests::{Lab, Machine, Ns};
use serde_json::{Value, json};

const VIP: &str = "10.96.1.100:8080";
const NODE_PORT: &str = "172.18.0.2:30080";

/// The tutorial's network and service: nothing in the conflist names labels.
fn prepare(machine: &Machine<'_>) {
    machine.network(&json!({ "cniVersion": "1.0.0", "name": "causeway", "plugins": [
        { "type": "causeway-bridge", "bridge": "cw0", "isDefaultGateway": true, "ipMasq": true,
          "hairpinMode": true,
          "ipam": { "type": "causeway-ipam", "ranges": [[{ "subnet": "10.0.1.0/24" }]] } },
        { "type": "causeway-service", "capabilities": { "portMappings": true } } ] }));
    let folder = machine.path("/etc/causeway/manifests");
    std::fs::create_dir_all(&folder).expect("make the manifest directory");
    let service = json!({ "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "http-server-svc" },
        "spec": { "type": "NodePort", "clusterIP": "10.96.1.100", "selector": { "app": "cs-pod" },
                  "ports": [{ "port": 8080, "targetPort": 80, "nodePort": 30080 }] } });
    std::fs::write(folder.join("nodeport.json"), service.to_string()).expect("write the manifest");
}

const DAEMON: [&str; 4] = ["--service-cidr", "10.96.0.0/16", "--cluster-cidr", "10.0.0.0/16"];

/// A `get` of the command line in JSON.
fn get(machine: &Machine<'_>, what: &[&str]) -> Value {
    let text = machine.causeway(&[&["get"], what, &["-o", "json"]].concat()).ok();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("get {what:?}: {e}: {text}"))
}

/// Addresses of the service's endpoints.
fn endpoints(machine: &Machine<'_>) -> BTreeSet<String> {
    let object = get(machine, &["endpoints", "http-server-svc"]);
    let subsets = object["subsets"].as_array().cloned().unwrap_or_default();
    let addresses = subsets
        .iter()
        .flat_map(|subset| subset["addresses"].as_array().cloned().unwrap_or_default());
    addresses.map(|address| address["ip"].as_str().expect("an address").to_owned()).collect()
}

/// Who answers, over a few connections.
fn answering(from: &Ns, to: &str) -> BTreeSet<String> {
    let ask = |_| from.tcp(to).unwrap_or_else(|e| panic!("no answer from {to}: {e}")).ip;
    (0..48).map(ask).map(|ip| ip.to_string()).collect()
}

#[test]
fn nerdctl_containers_are_endpoints_by_their_labels() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let machine = Machine::start(node);
    prepare(&machine);
    let _daemon = machine.causewayd(&DAEMON);
    assert_eq!(endpoints(&machine), BTreeSet::new());
    for name in ["web1", "web2", "web3"] {
        machine.run(name, &["--label", "app=cs-pod", "--net", "causeway"]);
    }
    machine.run("other", &["--label", "app=other", "--net", "causeway"]);
    let wanted: BTreeSet<String> =
        ["web1", "web2", "web3"].map(|name| machine.address(name)).into();
    assert_eq!(wanted.len(), 3);
    assert_eq!(endpoints(&machine), wanted);
    assert_eq!(answering(node, VIP), wanted);
    assert_eq!(answering(&lab.client, NODE_PORT), wanted);
    // They go by the names that users gave them.
    let trace = machine.causeway(&["trace", "web1", "http-server-svc"]).ok();
    assert!(trace.contains(&machine.address("web3")), "{trace}");
    let gone = machine.address("web2");
    machine.nerdctl(&["rm", "-f", "web2"]).ok();
    // It is out before the command returns.
    let left: BTreeSet<String> = wanted.iter().filter(|ip| **ip != gone).cloned().collect();
    assert_eq!(endpoints(&machine), left);
    assert_eq!(answering(&lab.client, NODE_PORT), left);
    let pods = get(&machine, &["pods"]);
    assert_eq!(pods["items"].as_array().expect("items").len(), 3, "{pods}");
    let leases = get(&machine, &["leases"]);
    assert_eq!(leases["items"].as_array().expect("items").len(), 3, "{leases}");
    let lease = &leases["items"][0];
    for field in ["address", "network", "containerID", "ifname", "since"] {
        assert!(lease[field].is_string(), "{field}: {lease}");
    }
}

/// The events wait in the spool; labels are looked up when the daemon takes them.
#[test]
fn containers_started_without_the_daemon_are_endpoints_once_it_runs() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let machine = Machine::start(node);
    prepare(&machine);
    machine.run("web1", &["--label", "app=cs-pod", "--net", "causeway"]);
    let daemon = machine.causewayd(&DAEMON);
    let wanted: BTreeSet<String> = [machine.address("web1")].into();
    let found = (0..200).map(|_| endpoints(&machine)).find(|found| !found.is_empty());
    assert_eq!(found.unwrap_or_default(), wanted);
    assert_eq!(answering(node, VIP), wanted);
    // The next one adopts them, though containerd is away.
    drop(daemon);
    machine.kill_containerd();
    let _daemon = machine.causewayd(&DAEMON);
    assert_eq!(endpoints(&machine), wanted);
    assert_eq!(answering(node, VIP), wanted);
    machine.start_containerd();
}

#[test]
fn ctr_containers_are_endpoints_by_their_labels() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let machine = Machine::start(node);
    prepare(&machine);
    let _daemon = machine.causewayd(&DAEMON);
    let client = machine.ctr_run_labelled("c1", &["app=cs-pod", "tier=front"]);
    let found = endpoints(&machine);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(answering(node, VIP), found);
    let pods = get(&machine, &["pods"]);
    assert_eq!(pods["items"][0]["metadata"]["labels"]["tier"], "front", "{pods}");
    machine.ctr(&["task", "kill", "c1"]).ok();
    client.wait();
    assert_eq!(endpoints(&machine), BTreeSet::new());
}
