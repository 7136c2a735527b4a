//! Objects at and above every limit beside a good one: the good one's rules come, a restart is
//! ready, memory is bounded.

use causeway_model::manifest;
use causeway_source::{Origin, Store, Stored};
use causeway_tests::traffic::Server;
use causeway_tests::{Daemon, Lab, Node};
use serde_json::{Value, json};

const VIP: &str = "10.96.0.10";
/// What a daemon of a debug build may have taken, KiB.
const MEMORY: u64 = 512 << 10;

fn service(name: &str, address: &str, ports: usize, external: usize) -> Value {
    let port = |number: usize| json!({ "name": format!("p{number}"), "port": number });
    let outside = |number: usize| format!("203.0.{}.{}", number >> 8, number & 255);
    let ports: Vec<Value> = (80..80 + ports).map(port).collect();
    let outside: Vec<String> = (1..=external).map(outside).collect();
    json!({ "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": name, "namespace": "default" },
            "spec": { "clusterIP": address, "clusterIPs": [address], "ports": ports,
                      "externalIPs": outside } })
}

/// A slice of the first ports of a service, to port 8001 of so many addresses.
fn slice(name: &str, service: &str, ports: usize, addresses: &[String]) -> Value {
    let port = |number: usize| json!({ "name": format!("p{number}"), "port": 8001 });
    let ports: Vec<Value> = (80..80 + ports).map(port).collect();
    let each = addresses.len().div_ceil(1000).max(1);
    let endpoints = addresses.chunks(each).map(|some| json!({ "addresses": some }));
    json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "name": name, "namespace": "default",
                          "labels": { "kubernetes.io/service-name": service } },
            "ports": ports, "endpoints": endpoints.collect::<Vec<_>>() })
}

fn addresses(count: usize) -> Vec<String> {
    let address =
        |number: usize| format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255);
    (1 << 16..(1 << 16) + count).map(address).collect()
}

/// As a build without limits stored it.
fn store(node: &Node, objects: &[Value]) {
    let stored = |object: &Value| {
        let object = manifest::from_json(object).unwrap_or_else(|e| panic!("{e}")).remove(0);
        Stored { object, origin: Origin::Api }
    };
    let stored: Vec<Stored> = objects.iter().map(stored).collect();
    let store = Store::open(&node.dir().join("state")).expect("a store");
    store.write(&stored, &[]).expect("written");
    store.flush().expect("flushed");
}

/// The most that a daemon has taken, KiB.
fn peak(daemon: &Daemon<'_>) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid()));
    let status = status.expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no peak: {status}"))
}

/// What is at the limits of a backend, and what is above them with what `status` says of it.
fn poison(backend: &str) -> (Vec<Value>, Vec<(Value, &'static str)>) {
    let at = |name: &str, address: &str, endpoints: usize| {
        let slice = slice(&format!("{name}-1"), name, 1, &addresses(endpoints));
        [service(name, address, 1, 0), slice]
    };
    let ways = |name: &str, address: &str, endpoints: usize| {
        let slice = slice(&format!("{name}-1"), name, 1000, &addresses(endpoints));
        [service(name, address, 1000, 0), slice]
    };
    let mut fine = vec![service("ports", "10.96.0.21", 10_000, 0)];
    let mut above = vec![
        (service("large", "10.96.0.22", 10_001, 0), "default/large: has no rules"),
        (service("square", "10.96.0.23", 1000, 1000), "default/square: has no rules"),
    ];
    if backend == "nftables" {
        fine.extend(at("many", "10.96.0.24", 65_535));
        fine.extend(ways("ways", "10.96.0.25", 50));
        let more = slice("many-2", "many", 1, &["10.9.9.9".to_owned()]);
        above.push((more, "default/many: endpointslice many-2 is left out"));
        let [service, slice] = ways("cube", "10.96.0.26", 1001);
        above.extend([(service, ""), (slice, "default/cube: endpointslice cube-1 is left out")]);
    } else {
        fine.extend(at("many", "10.96.0.24", 5000));
        let [service, slice] = at("more", "10.96.0.25", 10_001);
        above.extend([(service, ""), (slice, "default/more: has no rules: port p80 (80)")]);
    }
    (fine, above)
}

/// Of a store as a build without limits left it, and of one that another program wrote.
///
/// Rows: RH6
#[test]
fn a_poison_object_keeps_nothing_else_out() {
    for backend in ["nftables", "iptables"] {
        let lab = Lab::one_node();
        let node = &lab.nodes[0];
        let _server = Server::tcp(&lab.client, "good", &format!("{}:8001", Lab::CLIENT));
        let good = slice("good-1", "good", 1, &[Lab::CLIENT.to_owned()]);
        let (fine, above) = poison(backend);
        let mut objects = vec![service("good", VIP, 1, 0), good];
        objects.extend(fine);
        objects.extend(above.iter().map(|(object, _)| object.clone()));
        store(node, &objects);
        let mut daemon = Daemon::start_with(node, &["--backend", backend]);
        for kills in 0..2 {
            let degraded = daemon.status().degraded.join("\n");
            for (_, text) in &above {
                assert!(degraded.contains(text), "{backend}: {text}: {degraded}");
            }
            assert!(!degraded.contains("default/ports") && !degraded.contains("default/ways"));
            assert_eq!(node.tcp(&format!("{VIP}:80")).expect("an answer").hostname, "good");
            let peak = peak(&daemon);
            assert!(peak < MEMORY, "{backend}: {} MiB", peak >> 10);
            if kills == 0 {
                daemon.kill();
                daemon.again();
            }
        }
        // What is above the limits is refused, and the rest of a request taken.
        let tried = daemon.try_apply(&[
            service("later", "10.96.0.11", 1, 0),
            service("larger", "10.96.0.12", 10_001, 0),
            slice("later-1", "later", 1, &[Lab::CLIENT.to_owned()]),
        ]);
        let refused: Vec<_> = tried.results.iter().filter(|one| one.refusal.is_some()).collect();
        assert!(refused.len() == 1 && refused[0].name == "larger", "{tried:?}");
        assert_eq!(node.tcp("10.96.0.11:80").expect("an answer").hostname, "good");
        // And it can be deleted.
        daemon.request("DELETE", "/v1/services/default/large", b"").expect("deleted");
        let degraded = daemon.status().degraded.join("\n");
        assert!(!degraded.contains("default/large"), "{degraded}");
    }
}

/// The body that a user of the socket sent: 36 KB that stand for twelve million.
///
/// Rows: RH6
#[test]
fn a_small_body_that_multiplies_is_refused_before_it_is_stored() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let mut daemon = Daemon::start(node);
    let objects =
        [slice("bomb-1", "bomb", 240, &addresses(200)), service("bomb", "10.96.0.30", 240, 249)];
    assert!(objects.iter().map(|object| object.to_string().len()).sum::<usize>() < 40_000);
    let tried = daemon.try_apply(&objects);
    let refusal = tried.results[1].refusal.as_ref().expect("refused");
    assert!(refusal.reason.contains("multiply to 12000000"), "{refusal:?}");
    assert_eq!(daemon.count("services"), 0);
    daemon.manifest(
        "bomb.json",
        &json!({ "apiVersion": "v1", "kind": "List", "items": objects }).to_string(),
    );
    let named =
        |daemon: &Daemon<'_>| daemon.status().degraded.join("\n").contains("multiply to 12000000");
    daemon.until("it is named", || named(&daemon));
    daemon.kill();
    daemon.again();
    daemon.until("it is named again", || named(&daemon));
    let peak = peak(&daemon);
    assert!(peak < MEMORY, "{} MiB", peak >> 10);
}
