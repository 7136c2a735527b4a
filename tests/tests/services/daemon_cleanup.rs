//! `causewayd cleanup`: everything goes, nothing else does.

use causeway_tests::{Daemon, Lab, Node, Runtime, Snapshot};
use serde_json::json;

use super::daemon_start::{service, slice};

/// All of /proc/sys/net that the daemon may touch.
fn sysctls(node: &Node) -> String {
    node.sh("sysctl -a 2>/dev/null | grep -E \
             'ip_forward |all.forwarding|route_localnet|bridge-nf-call' | grep -v '\\.cw0\\.' || true")
}

fn lines(finished: causeway_tests::Finished) -> Vec<String> {
    finished.ok().lines().map(str::to_owned).collect()
}

/// Rows: P95, S-39
#[test]
fn cleanup_leaves_the_node_as_it_was_any_number_of_times() {
    for backend in ["nftables", "iptables"] {
        let lab = Lab::one_node();
        let node = &lab.nodes[0];
        node.sh("nft add table inet others '{ chain input { type filter hook input priority 0; tcp dport 9999 drop; }; }'");
        // Whoever uses iptables for the first time leaves its empty tables behind, and on a machine
        // without /etc/machine-id the one that the daemon makes stays with the store.
        Daemon::start_with(node, &["--backend", backend]).stop();
        Daemon::cleanup(node, &[]).ok();
        let (rules, snapshot, before) = (node.nft(), Snapshot::take(node), sysctls(node));
        let mut daemon = Daemon::start_with(node, &["--backend", backend]);
        daemon.apply(&[service("web"), slice("web", &["10.0.1.2"])]);
        assert_ne!(sysctls(node), before, "the daemon changed something");
        let refused = Daemon::cleanup(node, &[]);
        assert_eq!(refused.code(), 1, "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("another causewayd is running"));
        daemon.stop();
        let kept = node.nft();
        let dry = lines(Daemon::cleanup(node, &["--dry-run"]));
        assert_eq!(node.nft(), kept, "a dry run changes nothing");
        let first = lines(Daemon::cleanup(node, &[]));
        causeway_tests::say(&format!("{backend}:\n  {}", first.join("\n  ")));
        let wet: Vec<String> = dry
            .iter()
            .map(|line| {
                line.replace("would remove", "removed").replace("would restore", "restored")
            })
            .collect();
        assert_eq!(wet, first);
        assert!(first.len() > 3, "{first:?}");
        for _ in 0..2 {
            assert_eq!(node.nft(), rules, "{backend}");
            assert_eq!(sysctls(node), before, "{backend}");
            snapshot.assert_same(&Snapshot::take(node));
            assert_eq!(lines(Daemon::cleanup(node, &[])), ["removed 0 items"]);
        }
        // What was applied is still there for the next start.
        daemon.again();
        assert_eq!(daemon.count("services"), 1);
    }
}

/// A host that forwards IPv6 would lose the default route that its router advertises.
#[test]
fn an_advertised_default_route_is_kept() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    node.ip("link add other type bridge\n\
             route add ::/0 via fd00:172:18::1 dev eth0 proto ra metric 512\n");
    let accept = |device: &str| node.sysctl(&format!("ipv6/conf/{device}/accept_ra"));
    assert_eq!((accept("eth0").as_str(), accept("other").as_str()), ("1", "1"));
    let mut daemon = Daemon::start_with(node, &["--service-cidr", "10.96.0.0/16,fd00:96::/112"]);
    assert_eq!(node.sysctl("ipv6/conf/all/forwarding"), "1");
    assert_eq!((accept("eth0").as_str(), accept("other").as_str()), ("2", "1"));
    daemon.stop();
    Daemon::cleanup(node, &[]).ok();
    assert_eq!((accept("eth0").as_str(), accept("other").as_str()), ("1", "1"));
    assert_eq!(node.sysctl("ipv6/conf/all/forwarding"), "0");
}

#[test]
fn cleanup_of_all_removes_attachments_and_nothing_of_others() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    node.ip("link add other type bridge\nlink add theirs type veth peer name theirs1\n\
             link set theirs master other\nlink set other up\n");
    let data = node.data_dir().display().to_string();
    let all = ["--all", "--data-dir", &data];
    // Done once before: whatever nftables makes for itself is there then.
    let (rules, snapshot, before) = (node.nft(), Snapshot::take(node), sysctls(node));
    for stopped in [true, false] {
        let mut daemon = Daemon::start(node);
        let runtime = Runtime::new(node, node.conflist("blue", "10.0.1.0/24"));
        let pods = [node.pod(), node.pod()];
        for (number, pod) in pods.iter().enumerate() {
            let ports = json!({ "portMappings": [
                { "hostPort": 8080 + number, "containerPort": 80, "protocol": "tcp" } ] });
            runtime.add_ok(&pod.attachment("eth0").runtime_config(ports));
        }
        if stopped {
            runtime.del_ok(&pods[0].attachment("eth0"));
        }
        daemon.stop();
        let removed = lines(Daemon::cleanup(node, &all));
        causeway_tests::say(&removed.join("\n"));
        assert!(!node.data_dir().exists(), "leases");
        std::fs::create_dir(node.data_dir()).expect("a folder as at first");
        assert!(removed.iter().any(|line| line == "removed bridge cw0"), "{removed:?}");
        for _ in 0..2 {
            assert_eq!(node.nft(), rules);
            assert_eq!(sysctls(node), before);
            snapshot.assert_same(&Snapshot::take(node));
            let again = lines(Daemon::cleanup(node, &["--all", "--data-dir", "/nowhere"]));
            assert_eq!(again, ["removed 0 items"]);
        }
    }
}

#[test]
fn cleanup_of_all_removes_host_ports_that_iptables_carries() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let mut list = node.conflist("blue", "10.0.1.0/24");
    list["plugins"][1]["backend"] = json!("iptables");
    let runtime = Runtime::new(node, list);
    let pod = node.pod();
    let ports = json!({ "portMappings": [
        { "hostPort": 8080, "containerPort": 80, "protocol": "tcp" } ] });
    runtime.add_ok(&pod.attachment("eth0").runtime_config(ports));
    let chains = || node.sh("iptables-save | grep -c CNI-DN- || true").trim().to_owned();
    assert_ne!(chains(), "0");
    let data = node.data_dir().display().to_string();
    let removed = lines(Daemon::cleanup(node, &["--all", "--data-dir", &data]));
    assert!(removed.iter().any(|line| line.contains("iptables chain CNI-DN-")), "{removed:?}");
    assert_eq!(chains(), "0", "{}", node.iptables());
}

#[test]
fn cleanup_leaves_forwarding_to_containers_that_stay() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let forwarding = || node.sysctl("ipv4/ip_forward");
    assert_eq!(forwarding(), "0", "as on a fresh machine");
    let mut daemon = Daemon::start(node);
    assert_eq!(forwarding(), "1");
    let runtime = Runtime::new(node, node.conflist("blue", "10.0.1.0/24"));
    let pod = node.pod();
    let attachment = pod.attachment("eth0");
    runtime.add_ok(&attachment);
    daemon.stop();
    for _ in 0..2 {
        let dry = lines(Daemon::cleanup(node, &["--dry-run"]));
        let kept = "kept sysctl net/ipv4/ip_forward (containers are attached)";
        for said in [dry, lines(Daemon::cleanup(node, &[]))] {
            assert!(said.iter().any(|line| line == kept), "{said:?}");
            assert!(!said.iter().any(|line| line.contains("ip_forward:")), "{said:?}");
        }
        assert_eq!(forwarding(), "1");
        pod.assert_ping(Lab::INTERNET);
    }
    // What it was is not forgotten: with the last container gone it is put back.
    runtime.del_ok(&attachment);
    let last = lines(Daemon::cleanup(node, &[]));
    assert!(
        last.iter().any(|line| line == "restored sysctl net/ipv4/ip_forward: 1 -> 0"),
        "{last:?}"
    );
    assert_eq!(forwarding(), "0");
    assert_eq!(lines(Daemon::cleanup(node, &[])), ["removed 0 items"]);
}

/// What another main plugin attached has a record of `causeway-service` alone, of kind endpoint.
///
/// Rows: RC9
#[test]
fn cleanup_counts_containers_that_another_main_plugin_attached() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let forwarding = || node.sysctl("ipv4/ip_forward");
    let mut daemon = Daemon::start(node);
    let mut list = node.conflist("theirs", "10.0.1.0/24");
    list["cniVersion"] = json!("1.0.0");
    list["plugins"][0] = json!({ "type": "ptp", "ipam": { "type": "host-local",
        "dataDir": node.data_dir(), "subnet": "10.0.1.0/24" } });
    let runtime = Runtime::new(node, list);
    let pod = node.pod();
    let attachment = pod.attachment("eth0");
    runtime.add_ok(&attachment);
    assert_eq!(daemon.count("containers"), 1);
    daemon.stop();
    let kept = "kept sysctl net/ipv4/ip_forward (containers are attached)";
    for said in [lines(Daemon::cleanup(node, &["--dry-run"])), lines(Daemon::cleanup(node, &[]))] {
        assert!(said.iter().any(|line| line == kept), "{said:?}");
    }
    assert_eq!(forwarding(), "1");
    let data = node.data_dir().display().to_string();
    let all = lines(Daemon::cleanup(node, &["--all", "--dry-run", "--data-dir", &data]));
    assert!(all.iter().any(|line| line == "would remove 1 attachment record"), "{all:?}");
    runtime.del_ok(&attachment);
    let last = lines(Daemon::cleanup(node, &[]));
    assert!(last.iter().any(|line| line.ends_with("net/ipv4/ip_forward: 1 -> 0")), "{last:?}");
    assert_eq!(forwarding(), "0");
}

/// `"subnet": "auto"` needs `node.json`, and the containers' addresses are of the subnets in it.
#[test]
fn cleanup_leaves_the_nodes_subnets_to_containers_that_stay() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let data = node.data_dir().display().to_string();
    let start = || {
        Daemon::start_with(node, &["--cluster-cidr", "10.0.0.0/16", "--node-subnet", "10.0.1.0/24"])
    };
    let facts = [node.run_dir().join("node.json"), node.dir().join("state/node.json")];
    let texts = || facts.each_ref().map(|path| std::fs::read_to_string(path).ok());
    start().stop();
    let told = texts();
    assert!(told.iter().flatten().all(|text| text.contains("10.0.1.0/24")), "{told:?}");
    let runtime = Runtime::new(node, node.conflist("blue", "auto"));
    let (pod, new) = (node.pod(), node.pod());
    let attachment = pod.attachment("eth0");
    runtime.add_ok(&attachment);
    for _ in 0..2 {
        for said in
            [lines(Daemon::cleanup(node, &["--dry-run"])), lines(Daemon::cleanup(node, &[]))]
        {
            for path in facts.iter().filter(|path| path.exists()) {
                let kept = format!("kept {} (containers are attached)", path.display());
                assert!(said.contains(&kept), "{said:?}");
            }
            assert!(
                !said.iter().any(|line| line.contains("emove") && line.contains("node.json")),
                "{said:?}"
            );
        }
        assert_eq!(texts(), told);
        runtime.add_ok(&new.attachment("eth0"));
        runtime.del_ok(&new.attachment("eth0"));
    }
    // With the last container gone they are the daemon's alone, as before.
    runtime.del_ok(&attachment);
    let last = lines(Daemon::cleanup(node, &[]));
    let removed = format!("removed {}", facts[0].display());
    assert!(last.contains(&removed), "{last:?}");
    assert_eq!(texts(), [None, None]);
    // And all means all.
    start().stop();
    runtime.add_ok(&attachment);
    let lock = node.run_dir().join("gateways.lock");
    assert!(lock.exists(), "the bridge plugin's lock for changes of gateways");
    let all = lines(Daemon::cleanup(node, &["--all", "--data-dir", &data]));
    assert!(all.contains(&removed), "{all:?}");
    assert_eq!(texts(), [None, None]);
    assert!(!lock.exists());
    assert!(!all.iter().any(|line| line.starts_with("kept")), "{all:?}");
}
