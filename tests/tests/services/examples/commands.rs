//! Every command of `causeway` against the real daemon.

use causeway_tests::{Daemon, Lab, Runtime, bins};
use serde_json::{Value, json};

use super::world::{World, with_backend};
use super::{CLUSTERIP, NODEPORT};

/// The words of each line.
#[track_caller]
fn table(world: &World<'_>, words: &str) -> Vec<Vec<String>> {
    let shown = world.ctl(words, "").ok();
    shown.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

/// A table without its last column, the age.
#[track_caller]
fn check(world: &World<'_>, words: &str, wanted: &[&str]) {
    let rows = table(world, words).into_iter().map(|mut row| {
        row.pop();
        row.join(" ")
    });
    assert_eq!(rows.collect::<Vec<_>>(), wanted, "{words}");
}

/// Rows: U-07, S-44
#[test]
fn get_shows_what_the_daemon_has() {
    with_backend("nftables", |world| {
        let nothing = world.ctl("get services", "");
        assert_eq!(nothing.stderr, b"No resources found in default namespace.\n", "{nothing:?}");
        let pods = ["pod1a", "pod1b"].map(|name| world.pod(name, "app:cs-pod"));
        world.apply(
            &format!("{}---\n{}", NODEPORT, CLUSTERIP.replace("http-server-svc", "second")),
            &["service/http-server-svc created", "service/second created"],
        );
        let vip = world.cluster_ip("http-server-svc");
        check(
            world,
            "get svc",
            &[
                "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S)",
                &format!("http-server-svc NodePort {vip} <none> 8080:30080/TCP"),
                "second ClusterIP 10.96.1.100 <none> 8080/TCP",
            ],
        );
        let both = format!("{}:80,{}:80", pods[0].address, pods[1].address);
        check(world, "get endpoints second", &["NAME ENDPOINTS", &format!("second {both}")]);
        check(
            world,
            "get pods -A",
            &[
                "NAMESPACE NAME READY STATUS RESTARTS",
                "default pod1a 1/1 Running 0",
                "default pod1b 1/1 Running 0",
            ],
        );
        let wide = table(world, "get pods pod1a -o wide");
        assert_eq!(wide[1][5..7], [pods[0].address.clone(), "node1".to_owned()], "{wide:?}");
        let node = table(world, "get nodes -o wide");
        assert_eq!((node[1][0].as_str(), node[1][1].as_str()), ("node1", "Ready"), "{node:?}");
        assert!(
            node[1].iter().any(|cell| cell.split(',').any(|ip| ip == "172.18.0.2")),
            "{node:?}"
        );
        let names = world.ctl("get svc,po -o name", "").ok();
        assert_eq!(names, "service/http-server-svc\nservice/second\npod/pod1a\npod/pod1b\n");
        let list = world.ctl("get pods -o json", "").ok();
        let list: Value = serde_json::from_str(&list).expect("JSON");
        assert_eq!(
            (list["kind"].as_str(), &list["items"][0]["spec"]["nodeName"]),
            (Some("List"), &Value::from("node1"))
        );
        assert_eq!(list["items"][1]["status"]["podIPs"][0]["ip"], pods[1].address);
        // What is shown as YAML is what there is.
        let yaml = world.ctl("get svc -o yaml", "").ok();
        world.apply(&yaml, &["service/http-server-svc unchanged", "service/second unchanged"]);
        let missing = world.ctl("get svc nope", "");
        assert_eq!(missing.code(), 1, "{missing:?}");
    });
}

/// Rows: U-07
#[test]
fn a_watch_shows_changes_as_they_come() {
    with_backend("nftables", |world| {
        world.apply(CLUSTERIP, &["service/http-server-svc created"]);
        let services = world.follow("get svc -w");
        let endpoints = world.follow("get ep -w");
        assert_eq!(services.next()[0], "NAME");
        assert_eq!(services.next()[..3], ["http-server-svc", "ClusterIP", "10.96.1.100"]);
        assert_eq!(endpoints.next()[0], "NAME");
        assert_eq!(endpoints.next()[..2], ["http-server-svc", "<none>"]);
        world.apply(&CLUSTERIP.replace("8080", "8081"), &["service/http-server-svc configured"]);
        assert_eq!(services.next()[4], "8081/TCP");
        let pod = world.pod("pod1a", "app:cs-pod");
        assert_eq!(endpoints.next()[1], format!("{}:80", pod.address));
        world.remove(pod);
        assert_eq!(endpoints.next()[1], "<none>");
        world.ctl("delete svc http-server-svc", "").ok();
        assert_eq!(services.next()[0], "http-server-svc");
    });
}

#[test]
fn a_document_that_the_daemon_refuses_leaves_the_rest() {
    with_backend("nftables", |world| {
        world.apply(NODEPORT, &["service/http-server-svc created"]);
        let taken = NODEPORT.replace("http-server-svc", "taken");
        let outside =
            CLUSTERIP.replace("http-server-svc", "outside").replace("10.96.1.100", "10.1.1.1");
        let finished = world.ctl("apply -f -", &format!("{taken}---\n{outside}"));
        assert_eq!(finished.code(), 1, "{finished:?}");
        assert_eq!(finished.stdout, b"service/outside created\n", "{finished:?}");
        let stderr = String::from_utf8_lossy(&finished.stderr).into_owned();
        for begin in [
            "<stdin>:11: Service default/taken: spec.ports[0].nodePort: 30080/TCP is allocated",
            "<stdin>:21: Service default/outside: warning: spec.clusterIP: 10.1.1.1 is outside",
        ] {
            assert!(stderr.lines().any(|line| line.starts_with(begin)), "{begin}: {stderr}");
        }
        let gone = world.ctl("delete -f - --ignore-not-found", &format!("{taken}---\n{outside}"));
        assert_eq!(gone.ok(), "service \"outside\" deleted\n");
    });
}

#[test]
fn status_describe_and_trace_say_what_is_and_why() {
    with_backend("nftables", |world| {
        world.apply(NODEPORT, &["service/http-server-svc created"]);
        let pod = world.pod("pod1a", "app:cs-pod");
        let status = world.ctl("status", "").ok();
        for line in
            ["Node:      node1", "Backend:   nftables", "Store:     embedded", "State:     OK"]
        {
            assert!(status.lines().any(|one| one == line), "{line}: {status}");
        }
        assert!(status.contains("1 container,") && status.contains("1 service\n"), "{status}");
        let described = world.ctl("describe service http-server-svc", "").ok();
        let endpoint = format!("{}:80", pod.address);
        let rows: Vec<Vec<&str>> =
            described.lines().map(|line| line.split_whitespace().collect()).collect();
        assert!(rows.contains(&vec!["Endpoints:", &endpoint]), "{described}");
        let row = vec![endpoint.as_str(), "ready", "yes", "default/pod1a", "node1"];
        assert!(rows.contains(&row), "{described}");
        for (words, code, end) in [
            (
                "trace 172.18.0.100 172.18.0.2:30080",
                0,
                format!("  {endpoint}, which sees the node as the client"),
            ),
            (
                "trace node http-server-svc",
                0,
                format!("  {endpoint}, which sees the node as the client"),
            ),
            (
                "trace pod1a http-server-svc:81",
                1,
                "rejected (default/http-server-svc): ICMP port unreachable".to_owned(),
            ),
            (
                "trace pod1a 203.0.113.10:80",
                0,
                "passes (no service): forwarded unchanged".to_owned(),
            ),
        ] {
            let traced = world.ctl(words, "");
            let shown = String::from_utf8_lossy(&traced.stdout).into_owned();
            assert_eq!(
                (traced.code(), shown.lines().last()),
                (code, Some(end.as_str())),
                "{traced:?}"
            );
        }
        world.remove(pod);
        let traced = world.ctl("trace node http-server-svc -o json", "");
        assert_eq!(traced.code(), 1, "{traced:?}");
        let json: Value = serde_json::from_slice(&traced.stdout).expect("JSON");
        assert_eq!(json["trace"]["outcome"], "reject");
        let tested = world.ctl("svc test http-server-svc --count 2", "");
        assert_eq!(tested.code(), 1, "{tested:?}");
        assert!(tested.stdout.starts_with(b"1: "), "{tested:?}");
    });
}

/// Rows: RD11
#[test]
fn leases_are_those_of_the_ipam_plugin() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let mut daemon = Daemon::start(node);
    let nothing = daemon.causeway(&["get", "leases"]);
    assert_eq!(nothing.stderr, b"No resources found\n", "{nothing:?}");
    // The daemon looks where the plugin keeps leases unless told otherwise.
    let mut list = node.conflist("leased", "10.0.9.0/24");
    list["plugins"][0]["ipam"].as_object_mut().expect("an object").remove("dataDir");
    let runtime = Runtime::new(node, list);
    let pod = node.pod();
    runtime.add_ok(&pod.attachment("eth0"));
    let shown = daemon.causeway(&["get", "leases"]).ok();
    let rows: Vec<Vec<&str>> = shown.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["ADDRESS", "NETWORK", "CONTAINER-ID", "IFNAME", "SINCE"]);
    assert_eq!(rows[1][..4], ["10.0.9.2", "leased", &pod.id, "eth0"], "{shown}");
    assert!(rows[1][4].ends_with('s'), "{shown}");
    let json = daemon.causeway(&["get", "lease", "10.0.9.2", "-o", "json"]).ok();
    let lease: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (&lease["containerID"], &lease["ifname"]),
        (&pod.id.as_str().into(), &"eth0".into())
    );
    // Nobody else has leases in the default folder: other tests name one of their own.
    leases_of_other_folders(&mut daemon);
    daemon.again();
    runtime.del_ok(&pod.attachment("eth0"));
    assert!(daemon.causeway(&["get", "leases"]).stdout.is_empty());
}

/// With a lease of 10.0.9.2 in the default directory. Stops the daemon.
fn leases_of_other_folders(daemon: &mut Daemon<'_>) {
    let node = daemon.node();
    let other = node.dir().join("other");
    let folders = [node.data_dir(), other.clone()];
    let runtimes: Vec<Runtime<'_>> = folders
        .iter()
        .enumerate()
        .map(|(number, folder)| {
            let mut list = node.conflist(&format!("n{number}"), &format!("10.0.{number}.0/24"));
            list["plugins"][0]["bridge"] = json!(format!("other{number}"));
            list["plugins"][0]["ipam"]["dataDir"] = json!(folder);
            Runtime::new(node, list)
        })
        .collect();
    let pods = [node.pod(), node.pod()];
    for (runtime, pod) in runtimes.iter().zip(&pods) {
        runtime.add_ok(&pod.attachment("eth0"));
    }
    let all = ["10.0.9.2", "10.0.0.2", "10.0.1.2"];
    let listed = |daemon: &Daemon<'_>| -> Vec<String> {
        let shown = daemon.causeway(&["get", "leases", "-o", "name"]).ok();
        shown.lines().map(|line| line.trim_start_matches("lease/").to_owned()).collect()
    };
    assert_eq!(listed(daemon), all);
    // Whoever starts later finds them as well.
    daemon.kill();
    daemon.again();
    assert_eq!(listed(daemon), all);
    let mut show = node.command(bins::ours("causeway-ipam"));
    show.arg("show").arg("--run-dir").arg(node.run_dir());
    let text = causeway_tests::finish(show, b"").ok();
    assert!(all.iter().all(|address| text.contains(address)), "{text}");
    runtimes[0].del_ok(&pods[0].attachment("eth0"));
    assert_eq!(listed(daemon), ["10.0.9.2", "10.0.1.2"]);
    daemon.stop();
    // What is removed with all are leases, in whatever directory, and nothing beside them.
    std::fs::write(other.join("theirs"), "").expect("written");
    let removed = Daemon::cleanup(node, &["--all", "--data-dir", "/nowhere"]).ok();
    assert!(removed.contains(&format!("removed leases in {}\n", other.display())), "{removed}");
    assert!(other.join("theirs").exists() && !other.join("n1").exists());
    assert!(!node.data_dir().exists() && !node.run_dir().join("data-dirs").exists());
}
