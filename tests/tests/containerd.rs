//! containerd with `ctr` and `nerdctl` as users of the plugins, with real containers.

use std::collections::BTreeSet;

use causeway_tests::{Lab, Machine, Ns};
use serde_json::{Value, json};

const OURS: [&str; 3] = ["causeway-bridge", "causeway-ipam", "causeway-service"];
const UPSTREAM: [&str; 3] = ["bridge", "host-local", "portmap"];

/// A network as users write it, with every path at its default, in 10.`subnet`.0.0/24.
fn network(name: &str, types: [&str; 3], subnet: u8) -> Value {
    let [main, ipam, ports] = types;
    json!({ "cniVersion": "1.0.0", "name": name, "plugins": [
        { "type": main, "bridge": format!("br-{name}"), "isDefaultGateway": true, "ipMasq": true,
          "hairpinMode": true,
          "ipam": { "type": ipam, "ranges": [[{ "subnet": format!("10.{subnet}.0.0/24") }]] } },
        { "type": ports, "capabilities": { "portMappings": true } } ] })
}

/// Who answers at `to`, by its address.
fn ask(from: &Ns, to: &str) -> String {
    let answer = from.tcp(to).unwrap_or_else(|e| panic!("no answer from {to}: {e}"));
    answer.ip.to_string()
}

fn assert_nothing_left(machine: &Machine<'_>) {
    assert_eq!(machine.residue(), [""; 0]);
}

/// The others judge our plugins by this machine; here it is judged by upstream's.
#[test]
fn the_machine_works_with_upstream_plugins() {
    let lab = Lab::one_node();
    let machine = Machine::start(&lab.nodes[0]);
    machine.network(&network("upnet", UPSTREAM, 70));
    machine.run("web1", &["--net", "upnet", "-p", "8080:80"]);
    assert_eq!(ask(&lab.client, "172.18.0.2:8080"), "10.70.0.2");
    machine.remove(&["web1"]);
    let residue = machine.residue().join("\n");
    assert!(residue.contains("10.70.0.2"), "upstream's bridge leaves its masquerade: {residue:?}");
    let client = machine.ctr_run("ctr1");
    assert_eq!(ask(&lab.nodes[0], "10.70.0.3:80"), "10.70.0.3");
    machine.ctr(&["task", "kill", "ctr1"]).ok();
    client.wait();
}

/// Rows: C48, C88
#[test]
fn ctr_attaches_a_container_and_detaches_it_when_it_ends() {
    let lab = Lab::one_node();
    let machine = Machine::start(&lab.nodes[0]);
    machine.network(&network("cwnet", OURS, 71));
    for _ in 0..2 {
        let client = machine.ctr_run("ctr1");
        let leases = machine.leases();
        assert_eq!(leases.len(), 1, "{leases:?}");
        let ip = leases[0]["address"].as_str().expect("an address");
        assert_eq!(ask(&lab.nodes[0], &format!("{ip}:80")), ip);
        machine.ctr(&["task", "kill", "ctr1"]).ok();
        client.wait();
        assert_nothing_left(&machine);
    }
}

/// nerdctl sends `HostPort`, `ContainerPort`, `Protocol`, and DEL before ADD and with no netns.
///
/// Rows: C20, C24, C63, C66
#[test]
fn nerdctl_runs_stops_starts_and_removes_a_container_with_a_host_port() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let machine = Machine::start(node);
    machine.network(&network("cwnet", OURS, 71));
    machine.run("web1", &["--net", "cwnet", "-p", "8080:80", "-p", "8080:80/udp"]);
    let serves = || {
        let ip = machine.address("web1");
        let udp = lab.client.udp("172.18.0.2:8080").expect("an answer by UDP");
        assert_eq!(udp.ip.to_string(), ip);
        assert_eq!(ask(&lab.client, "172.18.0.2:8080"), ip);
        assert_eq!(ask(node, "172.18.0.2:8080"), ip);
        assert_eq!(ask(node, "127.0.0.1:8080"), ip);
        let inspected = machine.inspect("web1");
        assert_eq!(inspected["NetworkSettings"]["IPAddress"], ip.as_str());
    };
    serves();
    machine.nerdctl(&["stop", "web1"]).ok();
    assert_nothing_left(&machine);
    assert!(lab.client.tcp("172.18.0.2:8080").is_err(), "the host port is closed");
    machine.start_again("web1");
    serves();
    machine.restart("web1");
    serves();
    machine.nerdctl(&["kill", "web1"]).ok();
    machine.remove(&["web1"]);
    assert_nothing_left(&machine);
    machine.run("web2", &["--net", "cwnet", "-p", "8080:80"]);
    machine.remove(&["web2"]);
    assert_nothing_left(&machine);
}

/// nerdctl takes `--ip` and `--mac-address` only for a network whose type is `bridge` by name.
///
/// Rows: C24
#[test]
fn nerdctl_asks_for_an_address_and_for_an_ethernet_address() {
    let lab = Lab::one_node();
    let machine = Machine::start(&lab.nodes[0]);
    machine.replace_upstream();
    let mut list = network("cwnet", UPSTREAM, 71);
    list["plugins"][0]["capabilities"] = json!({ "ips": true });
    let subnets = ["10.71.0.0/24", "fd00:71::/64"];
    list["plugins"][0]["ipam"]["ranges"] = json!(subnets.map(|net| [json!({ "subnet": net })]));
    machine.network(&list);
    let mac = "02:00:00:aa:bb:cc";
    let wanted = ["--net", "cwnet", "--ip", "10.71.0.77", "--mac-address", mac];
    let wanted = [&wanted[..], &["--ip6", "fd00:71::77"]].concat();
    machine.run("web1", &wanted);
    for (to, ip) in [("10.71.0.77:80", "10.71.0.77"), ("[fd00:71::77]:80", "fd00:71::77")] {
        assert_eq!(ask(&lab.nodes[0], to), ip);
    }
    assert_eq!(machine.inspect("web1")["NetworkSettings"]["MacAddress"], mac);
    let neighbour = lab.nodes[0].sh("ip neigh show 10.71.0.77");
    assert!(neighbour.contains(mac), "{neighbour}");

    let refused = machine.try_run("web2", &["--net", "cwnet", "--ip", "10.71.0.77"]);
    assert!(!refused.status.success(), "the address is taken: {}", refused.describe());
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(text.contains("10.71.0.77") && text.contains("failed (add)"), "{text}");
    machine.remove(&["web2"]);
    assert_eq!(ask(&lab.nodes[0], "10.71.0.77:80"), "10.71.0.77", "the first one keeps it");
    machine.nerdctl(&["stop", "web1"]).ok();
    machine.start_again("web1");
    assert_eq!(machine.address("web1"), "10.71.0.77", "free for it to have again");
    machine.remove(&["web1"]);
    assert_nothing_left(&machine);
}

/// Rows: C62
#[test]
fn nerdctl_attaches_a_container_to_several_networks() {
    let lab = Lab::one_node();
    let machine = Machine::start(&lab.nodes[0]);
    let mut second = network("cwtwo", OURS, 72);
    // One default route per container: the second network names what it leads to.
    second["plugins"][0]["isDefaultGateway"] = json!(false);
    second["plugins"][0]["isGateway"] = json!(true);
    machine.network(&network("cwone", OURS, 71));
    machine.network(&second);
    let both = ["--net", "cwone", "--net", "cwtwo"];
    machine.run("web1", &[&both[..], &["-p", "8080:80"]].concat());
    for ip in ["10.71.0.2", "10.72.0.2"] {
        assert_eq!(ask(&lab.nodes[0], &format!("{ip}:80")), ip);
    }
    assert_eq!(ask(&lab.client, "172.18.0.2:8080").split_at(3).0, "10.");
    machine.nerdctl(&["stop", "web1"]).ok();
    assert_nothing_left(&machine);
    machine.start_again("web1");
    assert_eq!(machine.leases().len(), 2);
    machine.remove(&["web1"]);
    assert_nothing_left(&machine);
}

/// Rows: F44
#[test]
fn nerdctl_tells_its_user_that_a_host_port_is_taken() {
    let lab = Lab::one_node();
    let machine = Machine::start(&lab.nodes[0]);
    machine.network(&network("cwnet", OURS, 71));
    machine.run("web1", &["--net", "cwnet", "-p", "8080:80"]);
    let first = machine.address("web1");
    let refused = machine.try_run("web2", &["--net", "cwnet", "-p", "8080:80"]);
    assert!(!refused.status.success(), "{}", refused.describe());
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(text.contains("host port") && text.contains("8080"), "{text}");
    assert_eq!(ask(&lab.client, "172.18.0.2:8080"), first);
    machine.remove(&["web1"]);
    // The address of the refused container waits for its DEL, which nerdctl sends before an ADD.
    machine.start_again("web2");
    assert_eq!(ask(&lab.client, "172.18.0.2:8080"), machine.address("web2"));
    machine.remove(&["web2"]);
    assert_nothing_left(&machine);
}

/// Rows: F8
#[test]
fn containers_outlive_a_killed_containerd_and_are_cleaned_up_after_it() {
    let lab = Lab::one_node();
    let machine = Machine::start(&lab.nodes[0]);
    machine.network(&network("cwnet", OURS, 71));
    machine.run("web1", &["--net", "cwnet", "-p", "8080:80"]);
    machine.run("web2", &["--net", "cwnet", "-p", "8081:80"]);
    let ips = ["web1", "web2"].map(|name| machine.address(name));
    machine.kill_containerd();
    assert_eq!(ask(&lab.client, "172.18.0.2:8080"), ips[0]);
    machine.start_containerd();
    assert_eq!(ask(&lab.client, "172.18.0.2:8080"), ips[0]);
    machine.nerdctl(&["stop", "web1"]).ok();
    assert_eq!(ask(&lab.client, "172.18.0.2:8081"), ips[1], "the other one is left alone");
    machine.start_again("web1");
    assert_eq!(ask(&lab.client, "172.18.0.2:8080"), machine.address("web1"));
    machine.remove(&["web1", "web2"]);
    assert_nothing_left(&machine);
}

/// Rows: C78
#[test]
fn ten_containers_are_started_and_removed_at_once() {
    const COUNT: u16 = 10;
    let lab = Lab::one_node();
    let machine = Machine::start(&lab.nodes[0]);
    machine.network(&network("cwnet", OURS, 71));
    let all: Vec<(String, String)> =
        (0..COUNT).map(|n| (format!("web{n}"), format!("{}:80", 8000 + n))).collect();
    std::thread::scope(|scope| {
        for (name, port) in &all {
            scope.spawn(|| machine.run(name, &["--net", "cwnet", "-p", port]));
        }
    });
    let answers: BTreeSet<String> =
        (0..COUNT).map(|n| ask(&lab.client, &format!("172.18.0.2:{}", 8000 + n))).collect();
    assert_eq!(answers.len(), usize::from(COUNT), "{answers:?}");
    std::thread::scope(|scope| {
        for (name, _) in &all {
            scope.spawn(|| machine.remove(&[name]));
        }
    });
    assert_nothing_left(&machine);
}

/// nerdctl chooses a host port by `--dports` in the chain `CNI-HOSTPORT-DNAT`.
#[test]
fn nerdctl_sees_the_host_ports_of_the_iptables_backend() {
    let lab = Lab::one_node();
    let machine = Machine::start(&lab.nodes[0]);
    let mut list = network("cwnet", OURS, 71);
    list["plugins"][1]["backend"] = json!("iptables");
    machine.network(&list);
    for (name, port) in [("web1", 49153), ("web2", 49154)] {
        machine.run(name, &["--net", "cwnet", "-p", "80"]);
        let shown = machine.nerdctl(&["port", name]).ok();
        assert_eq!(shown, format!("80/tcp -> 0.0.0.0:{port}\n"));
        let ip = machine.address(name);
        assert_eq!(ask(&lab.client, &format!("172.18.0.2:{port}")), ip);
        assert_eq!(ask(&lab.nodes[0], &format!("127.0.0.1:{port}")), ip);
    }
    machine.nerdctl(&["stop", "web1"]).ok();
    let rules = lab.nodes[0].iptables();
    assert!(!rules.contains("49153") && rules.contains("49154"), "{rules}");
    machine.remove(&["web1", "web2"]);
    assert_nothing_left(&machine);
}

/// The list nerdctl writes for `nerdctl network create`, with our types in it.
///
/// Rows: C21, C55
#[test]
fn our_plugins_take_their_places_in_the_list_that_nerdctl_writes() {
    let lab = Lab::one_node();
    let machine = Machine::start(&lab.nodes[0]);
    machine.nerdctl(&["network", "create", "--subnet", "10.73.0.0/24", "written"]).ok();
    let found = machine.sh("find /etc/cni/net.d -name nerdctl-written.conflist");
    let path = machine.path(found.trim());
    let text = std::fs::read_to_string(&path).expect("the list that nerdctl wrote");
    let mut list: Value = serde_json::from_str(&text).expect("JSON");
    let plugins = list["plugins"].as_array_mut().expect("plugins");
    let types: Vec<&str> = plugins.iter().filter_map(|plugin| plugin["type"].as_str()).collect();
    assert_eq!(types, ["bridge", "portmap", "firewall", "tuning"]);
    plugins[0]["type"] = json!("causeway-bridge");
    plugins[0]["ipam"]["type"] = json!("causeway-ipam");
    plugins[1]["type"] = json!("causeway-service");
    std::fs::write(&path, list.to_string()).expect("write the list");

    machine.run("web1", &["--net", "written", "-p", "8080:80"]);
    let ip = machine.address("web1");
    assert!(ip.starts_with("10.73.0."), "{ip}");
    assert_eq!(ask(&lab.client, "172.18.0.2:8080"), ip);
    machine.nerdctl(&["stop", "web1"]).ok();
    assert_nothing_left(&machine);
    machine.remove(&["web1"]);
}

/// nerdctl's own network, as it is, on our plugins under upstream's names.
///
/// Rows: C21
#[test]
fn our_plugins_replace_upstreams_under_their_names() {
    let lab = Lab::one_node();
    let machine = Machine::start(&lab.nodes[0]);
    machine.replace_upstream();
    machine.run("web1", &["-p", "8080:80"]);
    assert_eq!(machine.leases().len(), 1);
    let ip = machine.address("web1");
    assert_eq!(ask(&lab.client, "172.18.0.2:8080"), ip);
    assert_eq!(ask(&lab.nodes[0], "127.0.0.1:8080"), ip);
    machine.nerdctl(&["stop", "web1"]).ok();
    assert_nothing_left(&machine);
    machine.remove(&["web1"]);
}

/// Containers of upstream's plugins run while ours are put in their place.
///
/// Rows: F28
#[test]
fn containers_of_upstreams_plugins_are_stopped_and_started_by_ours() {
    let lab = Lab::one_node();
    let machine = Machine::start(&lab.nodes[0]);
    machine.network(&network("net", UPSTREAM, 71));
    machine.run("web1", &["--net", "net", "-p", "8080:80"]);
    machine.run("web2", &["--net", "net", "-p", "8081:80"]);
    machine.replace_upstream();
    machine.nerdctl(&["stop", "web1"]).ok();
    assert!(lab.client.tcp("172.18.0.2:8080").is_err(), "the host port is closed");
    machine.start_again("web1");
    let ip = machine.address("web1");
    assert_ne!(ip, machine.address("web2"), "upstream's lease is honoured");
    assert_eq!(ask(&lab.client, "172.18.0.2:8080"), ip);
    assert_eq!(ask(&lab.client, "172.18.0.2:8081"), machine.address("web2"));
    machine.remove(&["web1", "web2"]);
    // Its leases were taken over; the files are host-local's. Its veth goes with the container's
    // namespace, which the kernel takes down in its own time.
    let mut residue = machine.residue();
    residue.retain(|line| !line.starts_with("/var/lib/cni/networks/") && !line.contains("veth"));
    assert_eq!(residue, [""; 0]);
}
