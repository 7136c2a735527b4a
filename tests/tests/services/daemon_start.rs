//! Starts, restarts and stops of the daemon: what is read, kept, refused.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use causeway_api::AppliedOutcome;
use causeway_tests::{Daemon, Lab, Node, bins};
use serde_json::{Value, json};

/// A service with a node port, without a selector.
pub(crate) fn service(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
            "spec": { "type": "NodePort", "ports": [{ "port": 8080, "targetPort": 8001 }] } })
}

/// Its endpoints.
pub(crate) fn slice(name: &str, addresses: &[&str]) -> Value {
    let endpoints: Vec<Value> =
        addresses.iter().map(|address| json!({ "addresses": [address] })).collect();
    json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": format!("{name}-1"),
                          "labels": { "kubernetes.io/service-name": name } },
            "addressType": "IPv4", "ports": [{ "name": "", "port": 8001 }],
            "endpoints": endpoints })
}

/// The cluster address and the node port (0 without one) of a service.
pub(crate) fn address(daemon: &Daemon<'_>, name: &str) -> (String, u64) {
    let service = daemon.get(&format!("/v1/services/default/{name}"));
    let address = service["spec"]["clusterIP"].as_str().expect("a cluster address").to_owned();
    (address, service["spec"]["ports"][0]["nodePort"].as_u64().unwrap_or(0))
}

/// The rules of everybody but us.
pub(crate) fn foreign(node: &Node) -> String {
    let all = node.nft();
    let mut ours = false;
    let mut kept = String::new();
    for line in all.lines() {
        ours |= line.starts_with("table ")
            && ["causeway_services", "causeway_names"].iter().any(|name| line.contains(name));
        if !ours {
            kept += line;
            kept += "\n";
        }
        ours &= line != "}";
    }
    kept
}

/// Our rules, word by word and in order, whatever order the kernel lists elements in.
pub(crate) fn ours(node: &Node) -> Vec<String> {
    let text = node.sh(
        "set +e; nft list table ip causeway_services 2>&1; nft list table ip6 causeway_services 2>&1
         iptables-save 2>&1 | grep -v '^#'; ip6tables-save 2>&1 | grep -v '^#'; true",
    );
    let mut words: Vec<String> = text
        .lines()
        .flat_map(|line| match line.starts_with([':', '-']) {
            // Chains have counters.
            true => vec![line.split(" [").next().unwrap_or(line).to_owned()],
            false => line.split([',', ' ', '\t']).map(str::to_owned).collect(),
        })
        .collect();
    words.sort();
    words
}

/// Rows: RD12
#[test]
fn networks_without_room_are_refused_by_field_value_and_remedy() {
    let lab = Lab::one_node();
    for (flag, network) in [("--service-cidr", "10.96.0.5/32"), ("--cluster-cidr", "10.1.0.0/31")] {
        let refused = Daemon::refused(&lab.nodes[0], &[flag, network]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        let wanted =
            format!("{flag}: \"{network}\": is too small; choose a network of /30 or wider");
        assert!(refused.code() == 2 && said.contains(&wanted), "{refused:?}");
    }
}

/// Rows: P8, S-33
#[test]
fn objects_and_what_was_allocated_outlive_the_daemon() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let mut daemon = Daemon::start(node);
    let applied = daemon.apply(&[service("web"), slice("web", &["10.0.1.2"])]);
    assert!(applied.results.iter().all(|one| one.outcome == AppliedOutcome::Created));
    let before = address(&daemon, "web");
    assert!((30000..=32767).contains(&before.1), "{before:?}");
    let text = node.nft();
    assert!(text.contains(" : 10.0.1.2") && text.contains(&before.0), "{text}");
    let rules = ours(node);
    let unchanged = daemon.apply(&[service("web"), slice("web", &["10.0.1.2"])]);
    assert!(unchanged.results.iter().all(|one| one.outcome == AppliedOutcome::Unchanged));
    daemon.stop();
    assert_eq!(ours(node), rules, "the rules stay");
    daemon.again();
    assert_eq!(address(&daemon, "web"), before);
    assert_eq!(ours(node), rules, "the rules are adopted");
    daemon.kill();
    daemon.again();
    assert_eq!(address(&daemon, "web"), before);
    assert_eq!(ours(node), rules);
    // Its port is taken.
    let mut other = service("other");
    other["spec"]["ports"][0]["nodePort"] = json!(before.1);
    let refused = daemon.try_apply(&[other, service("third")]);
    assert_eq!(refused.results[0].outcome, AppliedOutcome::Refused, "{refused:?}");
    assert_eq!(refused.results[1].outcome, AppliedOutcome::Created, "{refused:?}");
    // A process listens there: it is said.
    let server = causeway_tests::traffic::Server::tcp(node, "host", "0.0.0.0:31999");
    let mut shadowing = service("shadowing");
    shadowing["spec"]["ports"][0]["nodePort"] = json!(31999);
    let warned = daemon.apply(&[shadowing]);
    assert!(
        warned.results[0].warnings[0].contains("node port 31999/TCP shadows a local listener"),
        "{warned:?}"
    );
    drop(server);
    let request = daemon.request("DELETE", "/v1/services/default/web", b"");
    request.expect("delete a service");
    assert!(!node.nft().contains(&format!("{} .", before.0)));
}

/// All there is on disk is read before anything is programmed, and programmed at once.
///
/// Rows: P8, P91
#[test]
fn a_start_programs_everything_in_one_transaction() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let mut daemon = Daemon::start(node);
    for number in 0..20 {
        let name = format!("s{number}");
        daemon.apply(&[service(&name), slice(&name, &["10.0.1.2", "10.0.1.3"])]);
    }
    daemon.stop();
    let complete = ours(node);
    node.sh("nft delete table ip causeway_services; nft delete table ip6 causeway_services");
    daemon.again();
    assert_eq!(ours(node), complete);
    assert_eq!((daemon.count("syncs"), daemon.count("fullSyncs")), (1, 1));
    daemon.stop();
    daemon.manifest("more.yaml", &service("more").to_string());
    daemon.again();
    assert_eq!((daemon.count("syncs"), daemon.count("fullSyncs")), (1, 1));
    assert!(node.nft().contains(&address(&daemon, "more").0));
    // Another zone may choose other endpoints everywhere.
    daemon.apply(&[json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node1",
        "labels": { "topology.kubernetes.io/zone": "b" } } })]);
    assert_eq!(daemon.count("fullSyncs"), 2);
}

#[test]
fn the_socket_is_roots_alone_and_a_stale_one_is_replaced() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let mut daemon = Daemon::start(node);
    let mode = |path| std::fs::metadata(path).expect("a socket").permissions().mode() & 0o777;
    assert_eq!(mode(daemon.socket()), 0o600);
    let second = Daemon::refused(node, &[]);
    assert_eq!(second.code(), 1, "{second:?}");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("another causewayd is running with"), "{said}");
    assert_eq!(daemon.status().node, "node1");
    daemon.kill();
    assert!(daemon.socket().exists(), "a killed one leaves its socket");
    daemon.again();
    assert_eq!(mode(daemon.socket()), 0o600);
    daemon.stop();
    assert!(!daemon.socket().exists());
}

#[test]
fn node_json_is_there_and_keeps_its_subnet() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let read = || -> Value {
        let text = std::fs::read(node.run_dir().join("node.json")).expect("node.json");
        serde_json::from_slice(&text).expect("JSON")
    };
    let wanted = json!({ "node": "node1", "subnets": ["10.0.1.0/24"],
                         "clusterCIDRs": ["10.0.0.0/16"], "serviceCIDRs": ["10.96.0.0/16"],
                         "dns": { "domain": "cluster.local", "gateways": true,
                                  "servers": ["10.96.0.10"] } });
    let mut daemon = Daemon::start(node);
    assert_eq!(read(), wanted);
    daemon.stop();
    drop(daemon);
    let mut daemon = Daemon::start_with(node, &["--node-subnet", "10.0.7.0/24"]);
    assert_eq!(read()["subnets"], json!(["10.0.7.0/24"]));
    daemon.stop();
    drop(daemon);
    let _daemon = Daemon::start(node);
    assert_eq!(read()["subnets"], json!(["10.0.7.0/24"]), "from its own durable copy");
}

#[test]
fn wrong_settings_end_the_start_before_anything_is_done() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let check = |arguments: &[&str], code: i32, wanted: &str| {
        let ended = Daemon::refused(node, arguments);
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.code(), code, "{ended:?}");
        assert!(said.contains(wanted), "{said}");
    };
    check(&["--store", "etcd"], 2, "--store: \"etcd\": needs --etcd-endpoints");
    check(&["--overlay", "vxlan"], 2, "--overlay: \"vxlan\": needs --store etcd or --peers-file");
    check(&["--service-cidr", "172.18.0.0/16"], 1, "contains this node's address 172.18.0.2");
    let holds = "--cluster-cidr: 172.18.0.0/16 contains 172.18.0.2, the address of this node";
    check(&["--cluster-cidr", "172.18.0.0/16"], 1, holds);
    check(&["--config", "/nowhere/x.toml"], 2, "read /nowhere/x.toml");
    assert_eq!(node.nft(), "");
    let mut command = node.command(bins::ours("causewayd"));
    command.env("CAUSEWAY_BACKEND", "ipvs");
    let ended = causeway_tests::finish(command, b"");
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(said.contains("CAUSEWAY_BACKEND: \"ipvs\": neither nftables nor iptables"), "{said}");
}

/// Rows: RD2
#[test]
fn a_default_network_that_holds_the_node_is_dealt_to_nobody() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    node.sh("ip addr add 10.0.7.7/24 dev eth0");
    let daemon = Daemon::start_with(node, &["--node-ip", "10.0.7.7"]);
    let text = std::fs::read_to_string(node.run_dir().join("node.json")).expect("node.json");
    let told: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(told["subnets"], json!([]));
    let why =
        "the default of --cluster-cidr, 10.0.0.0/16, holds 10.0.7.7, the address of this node";
    assert!(told["subnetRefused"].as_str().is_some_and(|said| said.contains(why)), "{told}");
    let status = daemon.get("/v1/status").to_string();
    assert!(status.contains(why), "{status}");
    // Services are served all the same.
    daemon.apply(&[json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" },
        "spec": { "ports": [{ "port": 80 }] },
    })]);
    assert!(node.nft().contains("10.96."), "{}", node.nft());
}

/// Rows: P97
#[test]
fn a_start_that_can_not_use_the_kernel_says_so() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    // Without CAP_NET_ADMIN.
    let program = bins::ours("causewayd");
    let ended = node.try_sh(&format!(
        "setpriv --bounding-set=-net_admin --inh-caps=-net_admin {} --node-name node1 \
         --run-dir {run} --state-dir {state} --manifest-dir {state}/m",
        program.display(),
        run = node.run_dir().display(),
        state = node.dir().join("state").display(),
    ));
    assert_eq!(ended.code(), 1, "{ended:?}");
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(said.contains("nftables cannot be used: CAP_NET_ADMIN is missing"), "{said}");
}

/// A machine that starts has no address at first.
///
/// Rows: RA5
#[test]
fn a_daemon_waits_for_the_address_that_its_settings_ask_for() {
    let node = Node::new("node");
    let mut command = node.command(bins::ours("causewayd"));
    command.args(["--node-name", "node1", "--nodeport-addresses", "primary"]);
    command.arg("--run-dir").arg(node.run_dir());
    command.arg("--state-dir").arg(node.dir().join("state"));
    command.arg("--manifest-dir").arg(node.dir().join("manifests"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("start causewayd");
    let mut log = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let mut until = |wanted: &str| {
        let mut seen = Vec::new();
        while !seen.last().is_some_and(|line: &String| line.contains(wanted)) {
            let line = log.next().unwrap_or_else(|| panic!("no {wanted:?} in {seen:#?}"));
            seen.push(line.expect("UTF-8"));
        }
    };
    until("waiting for the address");
    node.ip("link add eth0 type bridge\nlink set eth0 up\naddr add 172.18.0.2/24 dev eth0");
    until("the rules are in the kernel");
    child.kill().expect("kill causewayd");
    child.wait().expect("wait for causewayd");
}
