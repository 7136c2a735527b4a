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
    machine.remove(&["web2"]);
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

/// What a hostile image says of the containers made of it.
const HOSTILE: [(&str, &str); 5] = [
    ("causeway.io/pod-namespace", "payments"),
    ("causeway.io/pod-name", "db-0"),
    ("causeway.io/network", "other"),
    ("app", "db"),
    ("port.causeway.io/sql", "8080"),
];
const IMAGE: &str = "docker.io/library/hostile:latest";

/// A service of a namespace by a label.
fn by_label(namespace: &str, label: &str, value: &str) -> String {
    json!({ "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": value, "namespace": namespace },
            "spec": { "selector": { label: value }, "ports": [{ "port": 80 }] } })
    .to_string()
}

/// A service by the label that images here have or had.
fn serve_databases(machine: &Machine<'_>) {
    let file = machine.path("/etc/causeway/manifests").join("db.json");
    std::fs::write(file, by_label("default", "app", "db")).expect("write");
}

/// Addresses of a service's endpoints.
fn of(machine: &Machine<'_>, namespace: &str, service: &str) -> Vec<String> {
    let object = get(machine, &["endpoints", service, "-n", namespace]);
    let subsets = object["subsets"].as_array().cloned().unwrap_or_default();
    let addresses = subsets
        .iter()
        .flat_map(|subset| subset["addresses"].as_array().cloned().unwrap_or_default());
    addresses.map(|address| address["ip"].as_str().expect("an address").to_owned()).collect()
}

/// Labels of an image choose neither the pod's name and namespace nor, unless the node's
/// administrator says so, its services: with `nerdctl` and `ctr`, which copy them to the
/// container, at first and after a restart of everything.
///
/// Rows: RH2
#[test]
fn an_image_s_labels_make_no_endpoint_of_its_containers() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let machine = Machine::start(node);
    prepare(&machine);
    machine.import(IMAGE, &HOSTILE);
    let folder = machine.path("/etc/causeway/manifests");
    for (namespace, label, value) in
        [("payments", "app", "db"), ("default", "app", "db"), ("default", "role", "front")]
    {
        let file = folder.join(format!("{namespace}-{value}.json"));
        std::fs::write(file, by_label(namespace, label, value)).expect("write a manifest");
    }
    let daemon = machine.causewayd(&DAEMON);
    let options = ["--label", "role=front", "--net", "causeway"];
    machine.run_image("web1", &options, IMAGE);
    let client = machine.ctr_run_image("c1", &["role=front"], IMAGE);
    let both = |machine: &Machine<'_>| {
        assert_eq!(of(machine, "payments", "db"), [""; 0]);
        assert_eq!(of(machine, "default", "db"), [""; 0]);
        of(machine, "default", "front")
    };
    let fronts = both(&machine);
    assert_eq!(fronts.len(), 2, "{fronts:?}");
    let pods = get(&machine, &["pods", "-A"]);
    for pod in pods["items"].as_array().expect("items") {
        let labels = &pod["metadata"]["labels"];
        assert_eq!(pod["metadata"]["namespace"], "default", "{pod}");
        assert_eq!(labels["causeway.io/network"], "causeway", "{pod}");
        assert!(labels["app"].is_null() && labels["port.causeway.io/sql"].is_null(), "{pod}");
        assert_eq!(labels["role"], "front", "{pod}");
    }
    // Each is named once per container.
    let log = daemon.log();
    let named = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    assert_eq!(named("label app of container"), 2, "{log}");
    assert_eq!(named("label causeway.io/pod-namespace of container"), 2, "{log}");
    assert!(log.contains("set --image-labels"), "{log}");
    assert_eq!(named("nerdctl/"), 0, "{log}");

    // The name is pulled again, with nothing in it that tells: the old container stays what it was.
    drop(daemon);
    machine.import(IMAGE, &HOSTILE);
    let daemon = machine.causewayd(&DAEMON);
    assert_eq!(both(&machine).len(), 2);
    machine.nerdctl(&["stop", "web1"]).ok();
    assert_eq!(both(&machine).len(), 1);
    machine.start_again("web1");
    assert_eq!(both(&machine).len(), 2, "{}", daemon.log());

    // Its administrator trusts images.
    drop(daemon);
    let trusting = [&DAEMON[..], &["--image-labels"]].concat();
    let _daemon = machine.causewayd(&trusting);
    machine.remove(&["web1"]);
    machine.run_image("web1", &options, IMAGE);
    assert!(of(&machine, "default", "db").contains(&machine.address("web1")));
    assert_eq!(of(&machine, "payments", "db"), [""; 0]);
    machine.ctr(&["task", "kill", "c1"]).ok();
    client.wait();
}

/// The publisher takes the labels out of the image once containers are made of it: of those they are
/// still the image's, also when they start again.
///
/// Rows: RH2
#[test]
fn labels_that_an_image_had_make_no_endpoint_of_its_containers() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let machine = Machine::start(node);
    prepare(&machine);
    machine.import(IMAGE, &[("app", "db")]);
    serve_databases(&machine);
    let daemon = machine.causewayd(&DAEMON);
    machine.run_image("web1", &["--net", "causeway"], IMAGE);
    assert_eq!(of(&machine, "default", "db"), [""; 0], "{}", daemon.log());
    machine.import(IMAGE, &[("version", "2")]);
    machine.nerdctl(&["stop", "web1"]).ok();
    machine.start_again("web1");
    assert_eq!(of(&machine, "default", "db"), [""; 0], "{}", daemon.log());
}

/// Images whose labels containerd finds, by a spelling or at a depth that no honest image has: they
/// do not count either.
///
/// Rows: RH2
#[test]
fn labels_that_an_image_hides_make_no_endpoint_of_its_containers() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let machine = Machine::start(node);
    prepare(&machine);
    let images = ["spelled", "nested"].map(|name| format!("docker.io/library/{name}:latest"));
    machine.import_configured(&images[0], &json!({ "labelS": { "app": "db" } }));
    machine.import_nested(&images[1], &[("app", "db")]);
    serve_databases(&machine);
    let daemon = machine.causewayd(&DAEMON);
    for (name, image) in ["spelled", "nested"].into_iter().zip(&images) {
        machine.run_image(name, &["--net", "causeway"], image);
        // containerd has given it to the container: the test is able to fail.
        let inspected = machine.nerdctl(&["container", "inspect", "--mode", "native", name]).ok();
        assert!(inspected.contains("\"app\": \"db\""), "{inspected}");
        assert_eq!(of(&machine, "default", "db"), [""; 0], "{image}: {}", daemon.log());
    }
}
