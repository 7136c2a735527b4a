//! Objects that all nodes share: written by any of them, by several at once, by their manifest
//! directories, and not while the store is away.

use std::collections::BTreeSet;
use std::thread;

use causeway_api::{AppliedOutcome, Error};
use causeway_tests::cluster::{Cluster, Setup, asked, in_rotation, named};
use causeway_tests::{Daemon, Lab};
use serde_json::{Value, json};

/// No overlay: what is shared does not depend on it.
fn start(lab: &Lab) -> Cluster<'_> {
    Cluster::start(lab, Setup { overlay: "none", ..Setup::default() })
}

/// A service without address and node port of its own.
fn plain(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "type": "NodePort", "selector": { "app": "cs-pod" },
                  "ports": [{ "port": 80, "targetPort": 80 }] } })
}

/// Address and node port of a service as a node has it.
fn got(daemon: &Daemon<'_>, name: &str) -> Option<(String, u64)> {
    let answer = daemon.request("GET", &format!("/v1/services/default/{name}"), b"").ok()?;
    let service: Value = serde_json::from_slice(&answer).expect("JSON");
    let address = service["spec"]["clusterIP"].as_str().expect("an address").to_owned();
    Some((address, service["spec"]["ports"][0]["nodePort"].as_u64().expect("a node port")))
}

fn services(daemon: &Daemon<'_>) -> usize {
    daemon.get("/v1/services")["items"].as_array().expect("a list").len()
}

/// Rows: S-30
#[test]
fn what_one_node_applies_all_have() {
    let lab = Lab::with_nodes(3);
    let cluster = Cluster::start(&lab, Setup::default());
    cluster.daemons[0].apply(&[plain("web")]);
    // Answered when this node has it: the other nodes learn it by themselves.
    let first = got(&cluster.daemons[0], "web").expect("there");
    cluster.everywhere("they have it", |daemon| got(daemon, "web").as_ref() == Some(&first));
    // One selector, containers of all nodes.
    let pods: Vec<_> = (0..3).map(|node| cluster.pod(node, "app:cs-pod")).collect();
    cluster.endpoints("web", 3);
    let ips: BTreeSet<&str> = pods.iter().map(|pod| pod.ip()).collect();
    for node in &lab.nodes {
        let seen: BTreeSet<String> =
            asked(node, &format!("{}:80", first.0), 40).into_iter().collect();
        assert_eq!(seen.iter().map(String::as_str).collect::<BTreeSet<_>>(), ips);
    }
    // Another node changes and deletes it.
    let mut other = plain("web");
    other["spec"]["ports"][0]["nodePort"] = json!(30999);
    cluster.daemons[1].apply(&[other]);
    cluster.everywhere("they have the change", |daemon| {
        got(daemon, "web") == Some((first.0.clone(), 30999))
    });
    let deleted = cluster.daemons[2].causeway(&["delete", "service", "web"]);
    assert_eq!(deleted.code(), 0, "{deleted:?}");
    cluster.everywhere("it is gone", |daemon| got(daemon, "web").is_none());
    // What it had is free again for whoever asks for it.
    cluster.daemons[0].apply(&[named("again", &first.0, 30999, &json!({}))]);
    let metrics = cluster.daemons[0].request("GET", "/metrics", b"").expect("metrics");
    let metrics = String::from_utf8(metrics).expect("text");
    for line in ["causeway_store_connected 1", "causeway_cluster_nodes{state=\"Ready\"} 3"] {
        assert!(metrics.lines().any(|one| one == line), "{line} is missing in\n{metrics}");
    }
}

#[test]
fn nodes_that_apply_at_once_give_nothing_twice() {
    const EACH: usize = 12;
    let lab = Lab::with_nodes(3);
    let cluster = start(&lab);
    thread::scope(|scope| {
        for (node, daemon) in cluster.daemons.iter().enumerate() {
            scope.spawn(move || {
                for number in 0..EACH {
                    // The service `same` is everybody's.
                    let own = plain(&format!("s{node}-{number}"));
                    daemon.apply(&[own, plain("same")]);
                }
            });
        }
    });
    let all = 3 * EACH + 1;
    cluster.everywhere("they have all", |daemon| services(daemon) == all);
    let list = cluster.daemons[0].get("/v1/services");
    let items = list["items"].as_array().expect("a list");
    let field = |path: &str| -> BTreeSet<String> {
        items.iter().map(|item| item.pointer(path).expect(path).to_string()).collect()
    };
    assert_eq!(field("/spec/clusterIP").len(), all);
    assert_eq!(field("/spec/ports/0/nodePort").len(), all);
    for daemon in &cluster.daemons[1..] {
        for item in items {
            let name = item["metadata"]["name"].as_str().expect("a name");
            assert_eq!(got(daemon, name), got(&cluster.daemons[0], name));
        }
    }
    // A given address or port that another node's service has is refused by its name.
    let (address, _) = got(&cluster.daemons[0], "s0-0").expect("there");
    let taken = cluster.daemons[1].try_apply(&[named("taken", &address, 30997, &json!({}))]);
    assert_eq!(taken.results[0].outcome, AppliedOutcome::Refused);
    let reason = &taken.results[0].refusal.as_ref().expect("why").reason;
    assert!(reason.contains("default/s0-0"), "{reason}");
}

#[test]
fn two_nodes_that_ask_for_one_node_port_at_once() {
    let lab = Lab::with_nodes(2);
    let cluster = start(&lab);
    let fixed = |name: &str| {
        let mut service = plain(name);
        service["spec"]["ports"][0]["nodePort"] = json!(30123);
        service
    };
    let ask = |node: usize| cluster.daemons[node].try_apply(&[fixed(&format!("from{node}"))]);
    let outcomes = thread::scope(|scope| {
        let both = [0, 1].map(|node| scope.spawn(move || ask(node)));
        both.map(|one| one.join().expect("answered").results[0].outcome)
    });
    let created = outcomes.iter().filter(|one| **one == AppliedOutcome::Created).count();
    let refused = outcomes.iter().filter(|one| **one == AppliedOutcome::Refused).count();
    assert_eq!((created, refused), (1, 1), "{outcomes:?}");
    cluster.everywhere("one has it", |daemon| services(daemon) == 1);
}

#[test]
fn manifests_of_several_nodes_are_one_set() {
    let lab = Lab::with_nodes(2);
    let cluster = start(&lab);
    let [first, second] = [&cluster.daemons[0], &cluster.daemons[1]];
    let text = |port: u16| named("file", "10.96.1.50", port, &json!({})).to_string();
    first.manifest("a.yaml", &text(30050));
    cluster.everywhere("it is there", |daemon| got(daemon, "file").is_some());
    // The same in another node's directory: nothing happens. Otherwise: a warning, theirs counts.
    second.manifest("b.yaml", &text(30050));
    second.manifest("b.yaml", &text(30051));
    second.until("a warning names node and file", || {
        let warnings = second.status().warnings;
        warnings.iter().any(|one| one.contains("a.yaml of the manifest directory of node node1"))
    });
    assert_eq!(got(second, "file"), Some(("10.96.1.50".to_owned(), 30050)));
    // The first one's ends: the second one's counts.
    std::fs::remove_file(first.manifests().join("a.yaml")).expect("removed");
    cluster.everywhere("the other one counts", |daemon| {
        got(daemon, "file") == Some(("10.96.1.50".to_owned(), 30051))
    });
    std::fs::remove_file(second.manifests().join("b.yaml")).expect("removed");
    cluster.everywhere("it is gone", |daemon| got(daemon, "file").is_none());
}

#[test]
fn while_the_store_is_away_changes_are_refused_with_the_remedy() {
    let lab = Lab::with_nodes(2);
    let mut cluster = start(&lab);
    cluster.daemons[0].apply(&[plain("web")]);
    let pod = cluster.pod(0, "app:cs-pod");
    cluster.endpoints("web", 1);
    cluster.etcd.kill();
    let [first, second] = [&cluster.daemons[0], &cluster.daemons[1]];
    first.until("it knows", || first.status().cluster.is_some_and(|store| !store.connected));
    let body = json!({ "objects": [plain("new")], "wait": true }).to_string();
    let refused = first.request("POST", "/v1/apply", body.as_bytes());
    let Err(Error::Refused { status: 503, problem }) = refused else { panic!("{refused:?}") };
    let text = format!("{}: {}", problem.message, problem.causes.join(": "));
    assert!(text.contains("the cluster store is unreachable for"), "{text}");
    assert!(text.contains("check the cluster store and retry"), "{text}");
    // What is on the node goes on, and manifests wait.
    let more = cluster.pod(0, "app:cs-pod");
    first.until("in rotation", || in_rotation(first, "web") == 2);
    cluster.remove(&pod);
    first.until("out of rotation", || in_rotation(first, "web") == 1);
    first.manifest("file.yaml", &plain("file").to_string());
    let since = |daemon: &Daemon<'_>| {
        let status = daemon.status();
        status.degraded.iter().any(|one| one.contains("unreachable for"))
    };
    assert!(since(first) && since(second));
    assert_eq!(got(first, "file"), None);
    cluster.etcd.again();
    cluster.everywhere("all is published", |daemon| {
        got(daemon, "file").is_some() && in_rotation(daemon, "web") == 1
    });
    cluster.everywhere("well", |daemon| daemon.status().degraded.is_empty());
    assert_eq!(got(&cluster.daemons[1], "new"), None, "it was refused");
    let (address, _) = got(&cluster.daemons[1], "web").expect("there");
    assert_eq!(asked(&lab.nodes[0], &format!("{address}:80"), 1), [more.ip()]);
}

/// Rows: C-05
#[test]
fn a_daemon_that_starts_without_the_store_serves_what_it_knew() {
    let lab = Lab::with_nodes(2);
    let mut cluster = Cluster::start(&lab, Setup::default());
    cluster.daemons[0].apply(&[plain("web")]);
    let pods = [cluster.pod(0, "app:cs-pod"), cluster.pod(1, "app:cs-pod")];
    cluster.endpoints("web", 2);
    let before = got(&cluster.daemons[1], "web");
    // A planned end: what it had to say was said.
    cluster.daemons[1].stop();
    cluster.etcd.kill();
    cluster.daemons[1].again();
    let second = &cluster.daemons[1];
    assert_eq!(got(second, "web"), before);
    assert_eq!(in_rotation(second, "web"), 2);
    let status = second.status();
    let away = status.degraded.iter().find(|one| one.contains("serving from the snapshot"));
    assert!(away.is_some(), "{:?}", status.degraded);
    let (address, _) = before.expect("there");
    let seen: BTreeSet<String> =
        asked(&lab.nodes[1], &format!("{address}:80"), 20).into_iter().collect();
    assert_eq!(seen, pods.iter().map(|pod| pod.ip().to_owned()).collect());
    cluster.etcd.again();
    cluster.everywhere("well", |daemon| daemon.status().degraded.is_empty());
    assert_eq!(in_rotation(&cluster.daemons[0], "web"), 2);
}

#[test]
fn a_wiped_store_is_filled_again_by_command() {
    let lab = Lab::with_nodes(2);
    let mut cluster = start(&lab);
    cluster.daemons[0].apply(&[plain("web"), plain("old")]);
    cluster.everywhere("they have both", |daemon| services(daemon) == 2);
    let before = got(&cluster.daemons[1], "web");
    cluster.etcd.wipe();
    cluster.everywhere("they hold both, and say so", |daemon| {
        let held = daemon.status().degraded;
        services(daemon) == 2
            && held.iter().any(|one| one.contains("causeway get services -A -o yaml"))
    });
    // The remedy, and the other one.
    let first = &cluster.daemons[0];
    let deleted = first.causeway(&["delete", "service", "old"]);
    assert_eq!(deleted.code(), 0, "{deleted:?}");
    let list = first.causeway(&["get", "services", "-A", "-o", "yaml"]);
    assert_eq!(list.code(), 0, "{list:?}");
    let file = first.manifests().with_file_name("services.yaml");
    std::fs::write(&file, &list.stdout).expect("written");
    let applied = first.causeway(&["apply", "-f", &file.display().to_string()]);
    assert_eq!(applied.code(), 0, "{applied:?}");
    cluster.everywhere("web is shared again", |daemon| got(daemon, "web") == before);
    first.until("nothing is held any more", || first.status().degraded.is_empty());
    // What one node deleted of its own copy, the other one still holds until told likewise.
    let second = &cluster.daemons[1];
    let deleted = second.causeway(&["delete", "service", "old"]);
    assert_eq!(deleted.code(), 0, "{deleted:?}");
    second.until("nothing is held there either", || second.status().degraded.is_empty());
}
