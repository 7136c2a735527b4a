//! The shipped networks, as they are, under the runtimes of Debian 12: containerd 1.6.20 by `ctr` and
//! as kubelet uses it, podman 4.3, and behind Debian's own chained plugins.

use causeway_tests::{Cri, Lab, Machine, Ns, Podman, bins};
use serde_json::{Value, json};

/// The network of one node, and those of the other set-ups in plugins/README.md that one node can try alone.
const SHIPPED: [&str; 3] =
    ["10-causeway.conflist", "20-causeway-vxlan-node1.conflist", "10-causeway-cluster.conflist"];

fn assert_nothing_left(machine: &Machine<'_>) {
    assert_eq!(residue(machine), [""; 0]);
}

/// What attachments have left; the vxlan device stays with its bridge.
fn residue(machine: &Machine<'_>) -> Vec<String> {
    let mut residue = machine.residue();
    // The daemon makes this table when it is ready, as its own.
    residue.retain(|line| !line.contains("cwvx") && !line.contains("causeway_names"));
    residue
}

fn assert_answers(from: &Ns, to: &str, ip: &str) {
    let answer = from.tcp(to).unwrap_or_else(|e| panic!("no answer from {to}: {e}"));
    assert_eq!(answer.ip.to_string(), ip);
}

/// The address of the only lease.
fn leased(machine: &Machine<'_>) -> String {
    let leases = machine.leases();
    assert_eq!(leases.len(), 1, "{leases:?}");
    leases[0]["address"].as_str().expect("an address").to_owned()
}

/// Reads a list of the directory `conf` and changes it.
fn changed(file: &str, change: impl FnOnce(&mut Value)) -> Value {
    let path = bins::workspace().join("conf").join(file);
    let text = std::fs::read_to_string(&path).expect("a shipped list");
    let mut list: Value = serde_json::from_str(&text).expect("JSON");
    change(&mut list);
    list
}

fn chain(list: &mut Value, plugins: &[Value]) {
    list["plugins"].as_array_mut().expect("plugins").extend_from_slice(plugins);
}

/// Rows: RA3, RA7
#[test]
fn ctr_runs_containers_in_each_shipped_network() {
    for file in SHIPPED {
        let lab = Lab::one_node();
        let machine = Machine::start(&lab.nodes[0]);
        machine.shipped_network(file);
        // `"subnet": "auto"` is what the daemon has for this node.
        let _daemon = file.contains("cluster").then(|| machine.causewayd(&[]));
        let before = residue(&machine);
        let client = machine.ctr_run("ctr1");
        let ip = leased(&machine);
        assert_answers(&lab.nodes[0], &format!("{ip}:80"), &ip);
        machine.ctr(&["task", "kill", "ctr1"]).ok();
        client.wait();
        assert_eq!(residue(&machine), before, "{file}");
    }
}

/// kubelet's way: the runtime service of containerd, which reads `/etc/cni/net.d` by itself.
///
/// Rows: RA3
#[test]
fn kubernetes_runtime_service_starts_sandboxes_in_the_shipped_network() {
    let lab = Lab::one_node();
    let cri = Cri::start(&lab.nodes[0], |machine| machine.shipped_network(SHIPPED[0]));
    let id = cri.run_sandbox("pod1", 8080).unwrap_or_else(|e| panic!("{e}"));
    let ip = cri.address(&id);
    assert_eq!(ip, leased(cri.machine()));
    assert_answers(&lab.client, "172.18.0.2:8080", &ip);
    cri.remove_sandbox(&id);
    assert_nothing_left(cri.machine());
}

/// What plugins/README.md says of version 1.1.0: these runtimes refuse a result of it, nerdctl takes it. A
/// list that names both versions is taken at its lower one.
///
/// Rows: RA3, RA7
#[test]
fn runtimes_of_debian_12_refuse_results_of_version_1_1() {
    const REFUSAL: &str = "unsupported CNI result version \"1.1.0\"";
    let lab = Lab::one_node();
    let list = |change: fn(&mut Value)| changed(SHIPPED[0], change);
    let raised = list(|list| list["cniVersion"] = json!("1.1.0"));
    let both = list(|list| list["cniVersions"] = json!(["1.0.0", "1.1.0"]));
    let cri = Cri::start(&lab.nodes[0], |machine| machine.network(&raised));
    let refused = cri.run_sandbox("pod1", 8080).expect_err("the result is refused");
    assert!(refused.contains(REFUSAL), "{refused}");
    let machine = cri.machine();
    let by_nerdctl = machine.try_run("pod0", &["--network", "causeway"]);
    assert!(by_nerdctl.status.success(), "its library is newer: {}", by_nerdctl.describe());
    let podman = Podman::on(machine);
    let run = ["run", "--rm", "--network", "causeway", Machine::IMAGE];
    let refused = podman.finish(&run);
    assert!(refused.describe().contains(REFUSAL), "{}", refused.describe());
    machine.network(&both);
    let client = podman.run("pod2", &["--network", "causeway", "--publish", "8080:80"]);
    let answer = lab.client.tcp("172.18.0.2:8080").expect("an answer by the host port");
    assert!(answer.ip.to_string().starts_with("10.0.1."), "{answer:?}");
    podman.finish(&["kill", "pod2"]).ok();
    drop(client);
}

/// Rows: RA7
#[test]
fn podman_runs_containers_in_the_shipped_network() {
    let lab = Lab::one_node();
    let machine = Machine::start(&lab.nodes[0]);
    machine.shipped_network(SHIPPED[0]);
    let podman = Podman::on(&machine);
    let client = podman.run("pod1", &["--network", "causeway", "--publish", "8080:80"]);
    let ip = leased(&machine);
    assert_answers(&lab.client, "172.18.0.2:8080", &ip);
    podman.finish(&["rm", "--force", "--time", "0", "pod1"]).ok();
    drop(client);
    assert_nothing_left(&machine);
}

/// Debian's plugins stop at version 1.0.0, each of them.
///
/// Rows: RA7
#[test]
fn debians_plugins_stand_behind_the_shipped_ones() {
    let lab = Lab::one_node();
    let machine = Machine::start(&lab.nodes[0]);
    let mac = "02:00:00:00:00:99";
    machine.network(&changed(SHIPPED[0], |list| {
        let sysctl = json!({ "net.ipv4.conf.eth0.arp_filter": "1" });
        let tuning = json!({ "type": "tuning", "mac": mac, "sysctl": sysctl });
        let rate = 1_000_000_000;
        let bandwidth = json!({ "type": "bandwidth", "ingressRate": rate, "ingressBurst": rate,
            "egressRate": rate, "egressBurst": rate });
        chain(list, &[tuning, bandwidth, json!({ "type": "firewall" })]);
    }));
    let client = machine.ctr_run("ctr1");
    let ip = leased(&machine);
    assert_answers(&lab.nodes[0], &format!("{ip}:80"), &ip);
    let neighbour = lab.nodes[0].sh(&format!("ip neigh show {ip}"));
    assert!(neighbour.contains(mac), "{neighbour}");
    machine.ctr(&["task", "kill", "ctr1"]).ok();
    client.wait();
    assert_nothing_left(&machine);
}

/// podman's plugin for names, behind ours.
///
/// Rows: RA7
#[test]
fn dnsname_tells_the_names_of_containers_of_the_shipped_network() {
    let lab = Lab::one_node();
    let machine = Machine::start(&lab.nodes[0]);
    machine.network(&changed(SHIPPED[0], |list| {
        let capabilities = json!({ "aliases": true });
        let names = json!({ "type": "dnsname", "domainName": "dns.podman",
            "capabilities": capabilities });
        chain(list, &[names]);
    }));
    let podman = Podman::on(&machine);
    let client = podman.run("pod1", &["--network", "causeway"]);
    let ip = leased(&machine);
    let hosts = machine.sh("cat /run/containers/cni/dnsname/causeway/addnhosts");
    assert!(hosts.lines().any(|line| line.starts_with(&ip) && line.contains("pod1")), "{hosts}");
    podman.finish(&["rm", "--force", "--time", "0", "pod1"]).ok();
    drop(client);
    assert_nothing_left(&machine);
}

/// The example that a reader copies is the shipped file.
///
/// Rows: RA3
#[test]
fn the_page_about_plugins_shows_the_shipped_network() {
    let page = bins::workspace().join("plugins/README.md");
    let page = std::fs::read_to_string(page).expect("the page about plugins");
    let blocks = page.split("```json\n").skip(1).map(|rest| rest.split("```").next());
    let lists = blocks.filter_map(|text| serde_json::from_str::<Value>(text?).ok());
    let lists: Vec<Value> = lists.filter(|list| list.get("plugins").is_some()).collect();
    assert!(lists.contains(&changed(SHIPPED[0], |_| {})), "{lists:?}");
    assert!(lists.iter().all(|list| list["cniVersion"] == "1.0.0"), "{lists:?}");
    for file in SHIPPED {
        assert_eq!(changed(file, |_| {})["cniVersion"], "1.0.0", "{file}");
    }
}
