//! Containers that are gone without DEL: out of services, named, freed; by the daemon, and without
//! one by the next ADD.

use std::collections::BTreeSet;

use causeway_tests::{Attachment, Daemon, Lab, Node, Pod, Runtime};
use serde_json::{Value, json};

const SUBNET: &str = "10.0.1.0/24";
/// Gateway and five addresses.
const SMALL: &str = "10.0.1.0/29";
const NETWORK: &str = "dead";
const QUICK: [&str; 2] = ["--dead-grace", "2s"];

/// The rules of plugins by either backend.
fn conflists(node: &Node) -> [Value; 2] {
    let nftables = node.conflist(NETWORK, SUBNET);
    let mut iptables = nftables.clone();
    iptables["plugins"][0]["ipMasqBackend"] = json!("iptables");
    iptables["plugins"][1]["backend"] = json!("iptables");
    [nftables, iptables]
}

/// A container of `web` with a host port.
fn web(pod: &Pod, host_port: u16) -> Attachment {
    let ports = json!([{ "hostPort": host_port, "containerPort": 80, "protocol": "tcp" }]);
    let attachment = pod.attachment("eth0").args("IgnoreUnknown=1;CAUSEWAY_LABELS=app:web");
    attachment.runtime_config(json!({ "portMappings": ports }))
}

fn address(result: &Value) -> String {
    let address = result["ips"][0]["address"].as_str().expect("an address");
    address.split('/').next().expect("a part").to_owned()
}

fn service() -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" },
            "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80 }] } })
}

/// A daemon that frees soon and has the service, and a runtime.
fn serving(node: &Node) -> (Daemon<'_>, Runtime<'_>) {
    let daemon = Daemon::start_with(node, &QUICK);
    daemon.apply(&[service()]);
    (daemon, Runtime::new(node, node.conflist(NETWORK, SUBNET)))
}

/// Addresses of the service's endpoints.
fn endpoints(daemon: &Daemon<'_>) -> BTreeSet<String> {
    let object = daemon.get("/v1/endpoints/default/web");
    let subsets = object["subsets"].as_array().into_iter().flatten();
    let addresses = subsets.flat_map(|subset| subset["addresses"].as_array().into_iter().flatten());
    addresses.map(|address| address["ip"].as_str().expect("an address").to_owned()).collect()
}

/// Addresses that are leased.
fn leased(node: &Node) -> BTreeSet<String> {
    let address = |lease: &Value| lease["address"].as_str().expect("an address").to_owned();
    node.leases().iter().map(address).collect()
}

/// Waits until the kernel has removed the links of namespaces that are gone.
fn until_links(node: &Node, count: usize) {
    let veths = || node.link_names().iter().filter(|name| name.starts_with("veth")).count();
    causeway_tests::cluster::until("the links are gone", || veths() == count);
}

/// Files of records that name a container.
fn records(node: &Node, id: &str) -> Vec<String> {
    let found = node.sh(&format!("find {}/attachments -name '{id}*'", node.run_dir().display()));
    found.lines().map(str::to_owned).collect()
}

/// Whether status names a container.
fn names(daemon: &Daemon<'_>, id: &str) -> bool {
    daemon
        .status()
        .warnings
        .iter()
        .any(|warning| warning.contains(&format!("container {id} (eth0 of network {NETWORK}")))
}

/// Out of its services, then named, then free, with the rules of both plugins; its neighbour stays
/// as it is, and the same container can be attached and detached as ever.
///
/// Rows: RB1
#[test]
fn a_crashed_container_leaves_its_services_and_is_freed() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    for list in conflists(node) {
        let daemon = Daemon::start_with(node, &QUICK);
        daemon.apply(&[service()]);
        let runtime = Runtime::new(node, list);
        let (alive, crashed) = (node.pod(), node.pod());
        let alive = (web(&alive, 8001), alive);
        let stays = address(&runtime.add_ok(&alive.0));
        let attachment = web(&crashed, 8002);
        let goes = address(&runtime.add_ok(&attachment));
        assert_eq!(endpoints(&daemon), [stays.clone(), goes.clone()].into());
        let id = crashed.id.clone();
        drop(crashed);
        daemon.until("it is out", || endpoints(&daemon) == [stays.clone()].into());
        daemon.until("it is named", || names(&daemon, &id));
        // Nobody gets the address at once.
        assert!(leased(node).contains(&goes));
        daemon.until("it is free", || leased(node) == [stays.clone()].into());
        daemon.until("no record is left", || records(node, &id).is_empty());
        daemon.until("it is named no longer", || !names(&daemon, &id));
        let rules = node.rules();
        assert!(!rules.contains(&goes), "{rules}");
        assert!(rules.contains(&stays), "{rules}");
        runtime.check(&alive.0).unwrap_or_else(|outcome| panic!("{}", outcome.describe()));

        // A runtime that comes late, and the same container once more.
        runtime.del_ok(&attachment);
        let again = node.pod();
        let attachment = attachment.netns(&again.path().display().to_string());
        let back = address(&runtime.add_ok(&attachment));
        assert_eq!(endpoints(&daemon), [stays.clone(), back].into());
        runtime.del_ok(&attachment);
        runtime.del_ok(&alive.0);
        assert!(leased(node).is_empty());
    }
}

/// While the rules cannot be removed the address stays leased, and status says why.
///
/// Rows: RB1
#[test]
fn an_address_stays_leased_while_rules_name_it() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let daemon = Daemon::start_with(node, &QUICK);
    let runtime = Runtime::new(node, node.conflist(NETWORK, SUBNET));
    let pod = node.pod();
    let goes = address(&runtime.add_ok(&web(&pod, 8001)));
    let id = pod.id.clone();
    let held = std::fs::File::create(node.run_dir().join("rules.lock")).expect("a lock file");
    held.lock().expect("the lock");
    drop(pod);
    let says = |daemon: &Daemon<'_>, what: &str| {
        daemon.status().warnings.iter().any(|one| one.contains(&id) && one.contains(what))
    };
    daemon.until("it says why", || says(&daemon, "cannot be freed yet"));
    assert!(leased(node).contains(&goes));
    assert!(node.rules().contains(&goes));
    drop(held);
    daemon.until("it is free", || leased(node).is_empty());
    assert!(!node.rules().contains(&goes));
}

/// What died while no daemon ran is out when one is ready to be asked, and free after the grace.
///
/// Rows: RB1
#[test]
fn a_start_finds_what_died_before() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let (mut daemon, runtime) = serving(node);
    let (alive, crashed) = (node.pod(), node.pod());
    let stays = address(&runtime.add_ok(&web(&alive, 8001)));
    runtime.add_ok(&web(&crashed, 8002));
    daemon.stop();
    drop(crashed);
    daemon.again();
    daemon.until("it is out", || endpoints(&daemon) == [stays.clone()].into());
    daemon.until("it is free", || leased(node) == [stays.clone()].into());
}

/// An interface that is deleted takes the container out of its services. Its address is not
/// freed while its namespace lives, whatever the grace.
///
/// Rows: RB1
#[test]
fn a_container_that_lives_without_its_link_keeps_its_lease() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let (daemon, runtime) = serving(node);
    let (cut, crashed) = (node.pod(), node.pod());
    let attachment = web(&cut, 8001);
    let keeps = address(&runtime.add_ok(&attachment));
    cut.ip("link delete eth0");
    daemon.until("it is out", || endpoints(&daemon).is_empty());
    daemon.until("it is named", || names(&daemon, &cut.id));
    runtime.add_ok(&web(&crashed, 8002));
    drop(crashed);
    // That one is freed after the whole grace, which the other has had by then, too.
    daemon.until("the dead one is free", || leased(node) == [keeps.clone()].into());
    assert!(names(&daemon, &cut.id));
    runtime.del_ok(&attachment);
    assert!(leased(node).is_empty());
    daemon.until("it is named no longer", || !names(&daemon, &cut.id));
}

/// Behind another main plugin the namespace alone tells, and nothing of that plugin is touched.
///
/// Rows: RB1
#[test]
fn a_container_of_another_main_plugin_is_judged_by_its_namespace() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let daemon = Daemon::start_with(node, &QUICK);
    daemon.apply(&[service()]);
    let mut list = node.conflist(NETWORK, SUBNET);
    list["cniVersion"] = json!("1.0.0");
    list["plugins"][0] = json!({ "type": "ptp", "ipam": { "type": "host-local",
        "dataDir": node.data_dir().join("upstream"), "ranges": [[{ "subnet": SUBNET }]] } });
    let runtime = Runtime::new(node, list);
    let (alive, crashed) = (node.pod(), node.pod());
    let stays = address(&runtime.add_ok(&web(&alive, 8001)));
    let goes = address(&runtime.add_ok(&web(&crashed, 8002)));
    assert_eq!(endpoints(&daemon), [stays.clone(), goes.clone()].into());
    let id = crashed.id.clone();
    drop(crashed);
    daemon.until("it is out", || endpoints(&daemon) == [stays.clone()].into());
    daemon.until("its host port is free", || records(node, &id).is_empty());
    let rules = node.rules();
    assert!(!rules.contains(&goes) && rules.contains(&stays), "{rules}");
}

/// ADD of the chained plugin fails, the runtime sends no DEL: all goes with the namespace, without
/// any grace.
///
/// Rows: RB2
#[test]
fn what_a_refused_chain_left_goes_with_its_namespace() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    for list in conflists(node) {
        // The grace is a minute.
        let daemon = Daemon::start_with(node, &[]);
        let runtime = Runtime::new(node, list);
        let (first, refused) = (node.pod(), node.pod());
        let first = (web(&first, 8001), first);
        let stays = address(&runtime.add_ok(&first.0));
        let refusal = runtime.add(&web(&refused, 8001)).expect_err("the port is taken");
        assert_eq!(refusal.error_code(), 102);
        assert_eq!(leased(node).len(), 2);
        let id = refused.id.clone();
        drop(refused);
        daemon.until("it is free", || leased(node) == [stays.clone()].into());
        daemon.until("no record is left", || records(node, &id).is_empty());
        let rules = node.rules();
        assert!(!rules.contains(&id[..id.len().min(12)]), "{rules}");
        runtime.del_ok(&first.0);
    }
}

/// The same without a daemon: the next ADD of the network frees it.
///
/// Rows: RB2
#[test]
fn the_next_add_frees_what_refused_chains_left() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    for mut list in conflists(node) {
        list["plugins"][0]["ipam"]["ranges"] = json!([[{ "subnet": SMALL }]]);
        let runtime = Runtime::new(node, list);
        let first = node.pod();
        let first = (web(&first, 8001), first);
        let stays = address(&runtime.add_ok(&first.0));
        for _ in 0..8 {
            let refused = node.pod();
            let refusal = runtime.add(&web(&refused, 8001)).expect_err("the port is taken");
            assert_eq!(refusal.error_code(), 102, "{}", refusal.describe());
        }
        until_links(node, 1);
        let next = node.pod();
        let next = (web(&next, 8002), next);
        let got = address(&runtime.add_ok(&next.0));
        assert_eq!(leased(node), [stays, got].into());
        runtime.check(&first.0).unwrap_or_else(|outcome| panic!("{}", outcome.describe()));
        runtime.del_ok(&next.0);
        runtime.del_ok(&first.0);
    }
}

/// A refused container that lives on keeps what it has: the runtime may send DEL yet.
///
/// Rows: RB2
#[test]
fn a_refused_container_that_lives_is_left_alone() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let runtime = Runtime::new(node, node.conflist(NETWORK, SUBNET));
    let (first, refused, next) = (node.pod(), node.pod(), node.pod());
    runtime.add_ok(&web(&first, 8001));
    let attachment = web(&refused, 8001);
    runtime.add(&attachment).expect_err("the port is taken");
    runtime.add_ok(&web(&next, 8003));
    assert_eq!(leased(node).len(), 3);
    runtime.del_ok(&attachment);
    assert_eq!(leased(node).len(), 2);
    assert!(records(node, &refused.id).is_empty());
}

/// Without a daemon, an ADD that finds no address left frees the dead, rules and leases, and no one
/// else.
///
/// Rows: RB1
#[test]
fn an_add_that_finds_no_address_frees_the_dead() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    for mut list in conflists(node) {
        list["plugins"][0]["ipam"]["ranges"] = json!([[{ "subnet": SMALL }]]);
        let runtime = Runtime::new(node, list);
        let mut pods: Vec<(Attachment, Pod)> = Vec::new();
        for port in 8001..=8005 {
            let pod = node.pod();
            let attachment = web(&pod, port);
            runtime.add_ok(&attachment);
            pods.push((attachment, pod));
        }
        let full = node.pod();
        let refusal = runtime.add(&web(&full, 8010)).expect_err("all of them live");
        assert_eq!(refusal.error_code(), 100, "{}", refusal.describe());
        let crashed = pods.split_off(3);
        let gone: Vec<String> = crashed.iter().map(|(one, _)| one.id.clone()).collect();
        drop(crashed);
        until_links(node, 3);
        runtime.add_ok(&web(&full, 8010));
        assert_eq!(leased(node).len(), 4);
        for id in gone {
            assert!(records(node, &id).is_empty(), "{id}");
            let rules = node.rules();
            assert!(!rules.contains(&format!("/{id}/")) && !rules.contains(&id), "{rules}");
        }
        for (attachment, _) in &pods {
            runtime.check(attachment).unwrap_or_else(|outcome| panic!("{}", outcome.describe()));
            runtime.del_ok(attachment);
        }
        runtime.del_ok(&web(&full, 8010));
        assert!(leased(node).is_empty());
    }
}

/// Upstream's host-local says that no address is left in words of its own.
///
/// Rows: RB1
#[test]
fn an_add_frees_the_dead_of_another_ipam_plugin() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let mut list = node.conflist(NETWORK, SMALL);
    list["cniVersion"] = json!("1.0.0");
    list["plugins"][0]["ipam"] = json!({ "type": "host-local",
        "dataDir": node.data_dir().join("upstream"), "ranges": [[{ "subnet": SMALL }]] });
    let runtime = Runtime::new(node, list);
    for port in 8001..=8005 {
        let crashed = node.pod();
        runtime.add_ok(&web(&crashed, port));
    }
    until_links(node, 0);
    let next = node.pod();
    runtime.add_ok(&web(&next, 8001));
    // The daemon asks the plugin, too.
    let daemon = Daemon::start_with(node, &QUICK);
    let id = next.id.clone();
    drop(next);
    daemon.until("no record is left", || records(node, &id).is_empty());
    let files =
        node.sh(&format!("ls {}", node.data_dir().join("upstream").join(NETWORK).display()));
    assert!(!files.contains("10.0.1."), "{files}");
}

/// A node that is a container starts again within one boot: `/run` is another one. What is gone
/// leaves services and leases; what lives beside a wiped run directory keeps all.
///
/// Rows: RC6
#[test]
fn another_run_directory_within_a_boot_keeps_the_living_alone() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let (mut daemon, runtime) = serving(node);
    let (alive, crashed) = (node.pod(), node.pod());
    let stays = address(&runtime.add_ok(&web(&alive, 8001)));
    let goes = address(&runtime.add_ok(&web(&crashed, 8002)));
    daemon.stop();
    drop(crashed);
    let wiped = |what: &str| node.sh(&format!("rm -rf {}/{what}", node.run_dir().display()));
    wiped("*");
    daemon.again();
    daemon.until("the dead one is out", || endpoints(&daemon) == [stays.clone()].into());
    daemon.until("its rules are gone", || !node.rules().contains(&goes));
    assert!(node.rules().contains(&stays));
    // Its lease ends with the first ADD of its network, which knows where leases are kept.
    let next = node.pod();
    let got = address(&runtime.add_ok(&web(&next, 8003)));
    assert_eq!(leased(node), [stays.clone(), got.clone()].into());

    // Beside the living alone.
    daemon.stop();
    wiped("*");
    daemon.again();
    let third = node.pod();
    let more = address(&runtime.add_ok(&web(&third, 8004)));
    assert_eq!(leased(node), [stays.clone(), got.clone(), more.clone()].into());
    assert_eq!(endpoints(&daemon), [stays, got, more].into());
}
