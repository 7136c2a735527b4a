//! What other writers put into the store: it harms no node, service or route of another node.

use std::time::Duration;

use causeway_tests::cluster::{Cluster, Placed, Setup, all_ping, asked, named, service, until};
use causeway_tests::traffic::Server;
use causeway_tests::{Daemon, Etcd, Lab, Ns};
use serde_json::{Value, json};

const VIP: &str = "10.96.1.100:8080";
const SERVICE: &str = "http-server-svc";
const NODE1: &str = "172.18.0.2";
const NODE2: &str = "172.18.0.3";

/// Does something on both backends, with two nodes, a container on each, a service of both, and a
/// program on localhost of each node at the port of the containers.
fn on_both_backends(test: impl Fn(&Cluster<'_>, &[Placed])) {
    for backend in ["nftables", "iptables"] {
        causeway_tests::say(&format!("--backend {backend}"));
        let lab = Lab::two_nodes();
        let setup = Setup::default().flag("--backend", backend);
        let cluster = Cluster::start(&lab, setup);
        let pods = [cluster.pod(0, "app:cs-pod"), cluster.pod(1, "app:cs-pod")];
        let local = lab.nodes.iter().map(|node| Server::tcp(node, "localhost", "127.0.0.1:80"));
        let _local: Vec<Server> = local.collect();
        cluster.daemons[0].apply(&[service("10.96.1.100", &json!({}))]);
        cluster.endpoints(SERVICE, 2);
        test(&cluster, &pods);
    }
}

/// A container of a node, as its record in the store.
fn put_container(etcd: &Etcd, node: &str, id: &str, ips: &Value) {
    let record = json!({ "network": "pods", "containerID": id, "ifname": "eth0", "ips": ips,
        "labels": { "app": "cs-pod" }, "created": 1 });
    let value = json!({ "record": record, "healthy": true }).to_string();
    etcd.put(&format!("/causeway/v1/containers/{node}/pods/{id}/eth0"), value.as_bytes());
}

fn put_object(etcd: &Etcd, kind: &str, document: &Value) {
    let name = document["metadata"]["name"].as_str().expect("a name");
    let value = json!({ "created": 1, "object": document }).to_string();
    etcd.put(&format!("/causeway/v1/objects/{kind}/default/{name}"), value.as_bytes());
}

fn put_node(etcd: &Etcd, name: &str, ip: &str, subnet: &str) {
    let identity = json!({ "node": name, "machineId": "f00" });
    let mut node = json!({ "bootId": "b", "ips": [ip], "labels": {}, "version": "0", "started": 1,
        "config": "" });
    let mut part = json!({ "subnet": subnet, "ips": [ip] });
    for record in [&mut node, &mut part] {
        for (key, value) in identity.as_object().expect("an object") {
            record[key] = value.clone();
        }
    }
    etcd.put(&format!("/causeway/v1/subnets/{}", subnet.replace('/', "-")), text(&part).as_bytes());
    etcd.put(&format!("/causeway/v1/nodes/{name}"), text(&node).as_bytes());
}

fn text(value: &Value) -> String {
    value.to_string()
}

fn names(daemon: &Daemon<'_>, what: &str) -> bool {
    daemon.status().degraded.iter().any(|line| line.contains(what))
}

/// The service's containers answer, in turn, and nobody else does.
fn well(cluster: &Cluster<'_>, pods: &[Placed]) {
    let ips: Vec<&str> = pods.iter().map(Placed::ip).collect();
    let clients: [&Ns; 3] = [&cluster.lab.nodes[0], &cluster.lab.nodes[1], &pods[0]];
    for client in clients {
        let mut seen = asked(client, VIP, 8);
        seen.sort();
        seen.dedup();
        assert_eq!(seen, ips, "from {}", client.name());
    }
}

/// Rows: RH1
#[test]
fn records_of_containers_that_lie_lead_nowhere() {
    on_both_backends(|cluster, pods| {
        let etcd = &cluster.etcd;
        put_node(etcd, "liar", "172.18.0.66", "10.0.66.0/24");
        cluster.everywhere("the liar is a node", |daemon| daemon.status().peers.len() == 2);
        let refused = [
            "127.0.0.1",
            "127.3.2.1",
            "0.0.0.0",
            "169.254.169.254",
            "224.0.0.9",
            "255.255.255.255",
            "::ffff:127.0.0.1",
            "::1",
            "fe80::7",
            NODE1,
            NODE2,
            Etcd::ADDRESS,
            "172.18.0.66",
            "10.0.1.0",
            "10.0.2.255",
            "10.0.66.0",
        ];
        for (number, ip) in refused.iter().enumerate() {
            put_container(etcd, "liar", &format!("evil{number}"), &json!([ip]));
        }
        // Of a node of which nothing else is known, too.
        put_container(etcd, "ghost", "evil", &json!(["127.0.0.1", "::1"]));
        put_container(etcd, "ghost", "other", &json!([pods[0].ip().replace(".1.2", ".1.78")]));
        // These may be, for that node alone: not inside of its part.
        put_container(etcd, "liar", "private", &json!(["10.4.0.9"]));
        put_container(etcd, "liar", "neighbour", &json!([pods[1].ip().replace(".2.2", ".2.77")]));
        put_container(etcd, "liar", "nobody", &json!(["10.0.99.9"]));
        for ip in refused {
            cluster.everywhere("the address is named", |daemon| {
                names(daemon, &format!("its address {ip} is "))
            });
        }
        // What its part holds is taken: the last one is seen, so all are.
        put_container(etcd, "liar", "last", &json!(["10.0.66.6"]));
        cluster.endpoints(SERVICE, 3);
        etcd.ctl(&["del", "/causeway/v1/containers/liar/pods/last/eth0"]).ok();
        cluster.endpoints(SERVICE, 2);
        well(cluster, pods);
        let status = cluster.daemons[0].causeway(&["status"]);
        assert_eq!(status.code(), 1, "{status:?}");
        etcd.ctl(&["del", "--prefix", "/causeway/v1/containers/liar/"]).ok();
        etcd.ctl(&["del", "--prefix", "/causeway/v1/containers/ghost/"]).ok();
        cluster.everywhere("nothing is named", |daemon| !names(daemon, "not used as an endpoint"));
    });
}

/// Etcd may start there later.
fn no_health_check_listens_where_nodes_live(cluster: &Cluster<'_>) {
    let balanced = json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 2380 });
    let service = named("evil-5", "10.96.1.106", 30096, &balanced);
    put_object(&cluster.etcd, "service", &service);
    let what = "health check port of service default/evil-5: not opened: 2380/TCP is used by";
    cluster.everywhere("it is named", |daemon| {
        daemon.status().warnings.iter().any(|line| line.contains(what))
    });
    assert_eq!(cluster.lab.nodes[0].sh("ss -Hltn 'sport = :2380'"), "");
    cluster.daemons[1].causeway(&["delete", "service", "evil-5"]).ok();
}

/// On apply each is refused by name.
fn services_on_what_nodes_live_on_are_refused(daemon: &Daemon<'_>) {
    let refused = |address: &str, more: &Value| {
        let applied = daemon.try_apply(&[named("bad", address, 30090, more)]);
        let refusal = applied.results[0].refusal.clone().expect("refused");
        format!("{}: {}", refusal.field, refusal.reason)
    };
    for (address, whose) in
        [(NODE1, "this node, node1"), (NODE2, "node node2"), (Etcd::ADDRESS, "the cluster store")]
    {
        let why = refused(address, &json!({}));
        assert!(why.starts_with("spec.clusterIP: ") && why.contains(whose), "{why}");
    }
    for (address, port) in
        [(NODE2, 22), (NODE1, 6443), (NODE2, 10250), (Etcd::ADDRESS, 2379), (NODE1, 10256)]
    {
        let ports = json!([{ "port": port, "targetPort": 80 }]);
        let why = refused("10.96.1.101", &json!({ "externalIPs": [address], "ports": ports }));
        let named = why.starts_with("spec.externalIPs[0]: ");
        assert!(named && why.contains("would become unreachable"), "{why}");
    }
}

/// Rows: RH3
#[test]
fn no_service_takes_what_nodes_live_on() {
    on_both_backends(|cluster, pods| {
        let (etcd, daemons) = (&cluster.etcd, &cluster.daemons);
        // An open store is a thing to know of and no problem.
        let status = daemons[0].causeway(&["status"]).ok();
        assert!(status.contains("the store is reached over http and without a user"), "{status}");
        let _ssh: Vec<Server> =
            cluster.lab.nodes.iter().map(|node| Server::tcp(node, "ssh", "0.0.0.0:22")).collect();
        services_on_what_nodes_live_on_are_refused(&daemons[0]);
        // What other writers put into the store is left out, by name, and the rest of it is not.
        let evil = [("evil-1", NODE1), ("evil-2", NODE2), ("evil-3", Etcd::ADDRESS)];
        for (name, address) in evil {
            put_object(
                etcd,
                "service",
                &named(
                    name,
                    address,
                    30091,
                    &json!({ "type": "ClusterIP", "ports": [{ "port": 2379, "targetPort": 80 }] }),
                ),
            );
        }
        let outside = json!({ "externalIPs": [Etcd::ADDRESS, NODE1, NODE2],
            "ports": [{ "name": "a", "port": 22, "targetPort": 80, "nodePort": 22 },
                      { "name": "b", "port": 2379, "targetPort": 80 },
                      { "name": "c", "port": 8081, "targetPort": 80 }] });
        put_object(etcd, "service", &named("evil-4", "10.96.1.104", 30094, &outside));
        no_health_check_listens_where_nodes_live(cluster);
        for name in ["evil-1", "evil-2", "evil-3", "evil-4"] {
            cluster.everywhere("it is named", |daemon| {
                names(daemon, &format!("service default/{name}: "))
            });
        }
        let address = |to: &str| until_answer(&cluster.lab.nodes[0], to);
        assert_eq!(address(&format!("{NODE2}:22")).hostname, "ssh");
        assert_eq!(address(&format!("{NODE1}:22")).hostname, "ssh");
        assert_eq!(pods[0].tcp(&format!("{NODE2}:22")).expect("an answer").hostname, "ssh");
        assert_eq!(
            cluster.lab.client.tcp(&format!("{NODE2}:22")).expect("an answer").hostname,
            "ssh"
        );
        // Other ports of these addresses are the service's.
        let legal = cluster.lab.client.tcp(&format!("{NODE1}:8081")).expect("an answer");
        assert!(pods.iter().any(|pod| pod.ip() == legal.ip.to_string()), "{legal:?}");
        let trace = daemons[0].causeway(&["trace", "node", &format!("{NODE2}:22")]);
        let claims = "Service default/evil-4 claims";
        assert!(format!("{trace:?}").contains(claims), "{trace:?}");
        // The store is still there for all: new ones come, bad ones can be deleted.
        daemons[1].apply(&[named("second", "10.96.1.105", 30095, &json!({}))]);
        cluster.endpoints("second", 2);
        for name in ["evil-1", "evil-2", "evil-3", "evil-4"] {
            daemons[1].causeway(&["delete", "service", name]).ok();
        }
        cluster.everywhere("nothing is named", |daemon| !names(daemon, "is left out"));
        well(cluster, pods);
    });
}

/// Values that are none of any kind of key.
fn wrong() -> Vec<Vec<u8>> {
    let texts =
        ["null", "[]", "{}", "\"text\"", "17", "-1e400", "{\"node\":7}", "{\"ips\":", "\u{0}"];
    let deep = [vec![b'['; 100_000], vec![b'{'; 3]].concat();
    let bytes = vec![0xff, 0xfe, 0x00, 0xc3];
    let long = format!("\"{}\"", "x".repeat(1 << 20)).into_bytes();
    texts.map(|text| text.as_bytes().to_vec()).into_iter().chain([deep, bytes, long]).collect()
}

/// Writes of one kind of key: what stands behind `/causeway/v1/`, and the value.
type Writes = Vec<(String, Vec<u8>)>;

fn nodes(pods: &[Placed]) -> Writes {
    let big = "x".repeat(1 << 20);
    let record = |name: &str, ips: &Value, labels: &Value| {
        let record = json!({ "node": name, "machineId": "f00", "bootId": "b", "ips": ips,
            "labels": labels, "version": "0", "started": 1, "config": "" });
        (format!("nodes/{name}"), text(&record).into_bytes())
    };
    let mut all: Writes =
        (0..).zip(wrong()).map(|(n, value)| (format!("nodes/w{n}"), value)).collect();
    let none = json!({});
    for (number, ip) in [
        "127.0.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "169.254.1.1",
        "224.0.0.1",
        "::1",
        "fe80::1",
        "::ffff:172.18.0.2",
        NODE1,
        Etcd::ADDRESS,
        "10.96.1.100",
        pods[0].ip(),
        "10.0.2.0",
    ]
    .iter()
    .enumerate()
    {
        all.push(record(&format!("s{number}"), &json!([ip]), &none));
    }
    all.push(record("many", &json!(vec!["172.18.0.77"; 10_000]), &none));
    all.push(record("labels", &json!(["172.18.0.78"]), &json!({ "big": big })));
    let name = "n".repeat(60_000);
    all.push(record(&name, &json!(["172.18.0.79"]), &none));
    let (_, other) = record("else", &json!([]), &none);
    all.push(("nodes/mismatch".to_owned(), other));
    all.push(("nodes/%00%0A".to_owned(), b"{}".to_vec()));
    all
}

fn subnets() -> Writes {
    let record = |subnet: &str, ips: &Value| {
        let record = json!({ "subnet": subnet, "node": "liar", "machineId": "f00", "ips": ips,
            "vtep": "01:00:5e:00:00:01", "mtu": 0 });
        (format!("subnets/{}", subnet.replace('/', "-")), text(&record).into_bytes())
    };
    let odd = [
        "10.0.0.0/16",
        "10.0.0.0/17",
        "10.0.2.0/25",
        "10.0.2.2/32",
        "0.0.0.0/0",
        "172.18.0.0/24",
        "127.0.0.0/8",
        "10.96.0.0/16",
        "10.0.0.0/23",
        "fd00:10::/48",
        "fd00:10::/63",
        "fd00:10:0:2::/65",
        "::/0",
        "fd00:10:0:2::2/128",
    ];
    let mut all: Writes =
        odd.iter().map(|subnet| record(subnet, &json!(["172.18.0.66"]))).collect();
    for (number, ip) in
        ["127.0.0.1", NODE1, NODE2, Etcd::ADDRESS, "224.0.0.1", "::ffff:1.2.3.4"].iter().enumerate()
    {
        all.push(record(&format!("10.0.{}.0/24", 100 + number), &json!([ip])));
    }
    let wrong = (0..).zip(wrong());
    all.extend(wrong.map(|(n, value)| (format!("subnets/10.0.{}.0-24", 120 + n), value)));
    for key in ["10.0.9.9-24", "10.0.9.0-33", "10.0.9.0-", "-", "x-24", "10.0.9.0/24"] {
        all.push((format!("subnets/{key}"), b"{}".to_vec()));
    }
    all
}

fn reservations() -> Writes {
    let odd = [
        "10.0.0.0-8",
        "10.0.0.0-17",
        "0.0.0.0-0",
        "10.0.3.3-32",
        "fd00::-32",
        "fd00:10::-48",
        "::-0",
        "fd00:10:0:3::3-128",
        "10.0.9.9-24",
        "x",
    ];
    let mut all: Writes =
        odd.map(|key| (format!("reservations/{key}"), b"why not".to_vec())).into();
    let wrong = (0..).zip(wrong());
    all.extend(wrong.map(|(n, value)| (format!("reservations/10.0.{}.0-24", 120 + n), value)));
    all
}

fn containers() -> Writes {
    let key = |id: &str| format!("containers/ghost/pods/{id}/eth0");
    let record = |id: &str, ips: &Value, labels: &Value| {
        let record = json!({ "network": "pods", "containerID": id, "ifname": "eth0", "ips": ips,
            "labels": labels, "created": 1 });
        let value = json!({ "record": record, "healthy": true });
        (key(id), text(&value).into_bytes())
    };
    let ours = json!({ "app": "cs-pod" });
    let mut all: Writes =
        (0..).zip(wrong()).map(|(n, value)| (key(&format!("w{n}")), value)).collect();
    for (number, ip) in [
        "127.0.0.1",
        "::1",
        "0.0.0.0",
        "::ffff:127.0.0.1",
        NODE1,
        NODE2,
        Etcd::ADDRESS,
        "172.30.0.1",
        "10.0.1.0",
    ]
    .iter()
    .enumerate()
    {
        all.push(record(&format!("s{number}"), &json!([ip]), &ours));
    }
    let many = [vec!["127.0.0.1"; 20_000], vec!["::1"; 20_000]].concat();
    all.push(record("many", &json!(many), &ours));
    let big = "x".repeat(1 << 20);
    all.push(record("value", &json!(["127.0.0.1"]), &json!({ "app": "cs-pod", "big": big })));
    all.push(record("key", &json!(["127.0.0.1"]), &json!({ "app": "cs-pod", big.as_str(): "" })));
    let (_, other) = record("else", &json!(["10.0.1.99"]), &ours);
    all.push((key("mismatch"), other));
    all.push(("containers/ghost".to_owned(), b"{}".to_vec()));
    all.push(("containers/ghost/a/b/c/d".to_owned(), b"{}".to_vec()));
    all
}

fn objects(pods: &[Placed]) -> Writes {
    let key = |kind: &str, name: &str| format!("objects/{kind}/default/{name}");
    let put = |kind: &str, name: &str, object: &Value| {
        (key(kind, name), text(&json!({ "created": 1, "object": object })).into_bytes())
    };
    let mut all = Writes::new();
    for kind in ["service", "endpointslice", "node", "other"] {
        all.extend((0..).zip(wrong()).map(|(n, value)| (key(kind, &format!("w{n}")), value)));
    }
    for (number, ip) in [
        "127.0.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "169.254.169.254",
        NODE1,
        NODE2,
        Etcd::ADDRESS,
        "10.0.1.0",
        "::ffff:10.96.1.1",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("s{number}");
        let spec = json!({ "type": "ClusterIP", "ports": [{ "port": 2379, "targetPort": 80 }] });
        all.push(put("service", &name, &named(&name, ip, 0, &spec)));
        // The service's own slice, with endpoints that are none.
        let slice = json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": format!("x{number}"), "labels": { "kubernetes.io/service-name": SERVICE } },
            "addressType": "IPv4", "ports": [{ "name": "", "port": 80 }],
            "endpoints": [{ "addresses": ["127.0.0.1"] }] });
        all.push(put("endpointslice", &format!("x{number}"), &slice));
    }
    let taken = json!({ "externalIPs": [pods[0].ip(), NODE1], "ports": [{ "port": 22, "targetPort": 80, "nodePort": 22 }] });
    all.push(put("service", "taken", &named("taken", "10.96.1.200", 0, &taken)));
    let mut big = named("big", "10.96.1.201", 30701, &json!({}));
    big["metadata"]["annotations"] = json!({ "big": "x".repeat(1 << 20) });
    all.push(put("service", "big", &big));
    all.push(put("service", "mismatch", &named("else", "10.96.1.202", 30702, &json!({}))));
    all
}

fn rest() -> Writes {
    let mut all = Writes::new();
    for claim in ["address/10.96.1.100", "port/tcp/30080", "address/x", "", "port/tcp/99999"] {
        all.push((format!("claims/{claim}"), "x".repeat(1 << 20).into_bytes()));
    }
    for key in ["", "x", "x/y", "nodes", "nodes/", "config/x", "objects/service/x", "%zz/\u{1f600}"]
    {
        all.push((key.to_owned(), b"\xff\x00".to_vec()));
    }
    all
}

/// Routes of the overlay to the parts that nodes have.
fn routes(node: &Ns) -> Vec<String> {
    let all = node.sh("ip route show proto 197; ip -6 route show proto 197");
    let ours = ["10.0.1.0/24", "10.0.2.0/24", "fd00:10:0:1::/64", "fd00:10:0:2::/64"];
    let known = |line: &&str| ours.iter().any(|part| line.starts_with(&format!("{part} ")));
    all.lines().filter(known).map(|line| line.trim().to_owned()).collect()
}

/// Everybody has taken in all that was written before, and all that there was works as before.
fn goes_on(cluster: &Cluster<'_>, pods: &[Placed], kind: (u8, &str), before: &[Vec<String>]) {
    let (number, kind) = kind;
    let marker = format!("after-{kind}");
    let address = format!("10.96.2.{number}");
    let spec = json!({ "type": "ClusterIP", "ports": [{ "port": 80, "targetPort": 80 }] });
    put_object(&cluster.etcd, "service", &named(&marker, &address, 0, &spec));
    cluster.endpoints(&marker, pods.len());
    as_before(cluster, pods, kind, before);
}

/// Answers come at once, and all that there was works as before.
fn as_before(cluster: &Cluster<'_>, pods: &[Placed], kind: &str, before: &[Vec<String>]) {
    const AT_ONCE: Duration = Duration::from_secs(1);
    for daemon in &cluster.daemons {
        for path in ["/v1/status", "/v1/services", "/v1/nodes", "/v1/pods", "/v1/endpoints"] {
            let mut answer = Vec::new();
            let took = until(path, || {
                answer = daemon.request("GET", path, b"").expect("an answer");
                true
            });
            assert!(took < AT_ONCE, "{kind}: {path} took {took:?}, {} bytes", answer.len());
            if path == "/v1/status" {
                assert!(answer.len() < 1 << 18, "{kind}: a status of {} bytes", answer.len());
            }
        }
    }
    let routes: Vec<Vec<String>> = cluster.lab.nodes.iter().map(|node| routes(node)).collect();
    assert_eq!(routes, before, "{kind}");
    all_ping(pods);
    well(cluster, pods);
    for node in &cluster.lab.nodes {
        assert_eq!(node.tcp("127.0.0.1:80").expect("an answer").hostname, "localhost");
    }
}

/// Rows: RH1, RH3
#[test]
fn nothing_that_is_written_stops_what_there_was() {
    for backend in ["nftables", "iptables"] {
        causeway_tests::say(&format!("--backend {backend}"));
        let lab = Lab::two_nodes();
        let mut cluster = Cluster::start(&lab, Setup::default().dual().flag("--backend", backend));
        let pods = [cluster.pod(0, "app:cs-pod"), cluster.pod(1, "app:cs-pod")];
        let local = lab.nodes.iter().map(|node| Server::tcp(node, "localhost", "127.0.0.1:80"));
        let _local: Vec<Server> = local.collect();
        cluster.daemons[0].apply(&[service("10.96.1.100", &json!({}))]);
        cluster.endpoints(SERVICE, 2);
        let before: Vec<Vec<String>> = lab.nodes.iter().map(|node| routes(node)).collect();
        assert!(before.iter().all(|routes| routes.len() == 2), "{before:?}");
        let kinds = [
            ("nodes", nodes(&pods)),
            ("subnets", subnets()),
            ("reservations", reservations()),
            ("containers", containers()),
            ("objects", objects(&pods)),
            ("rest", rest()),
        ];
        let mut written = Vec::new();
        for (number, (kind, writes)) in (1..).zip(kinds) {
            let put = |(key, value)| (format!("/causeway/v1/{key}"), Some(value));
            let puts: Vec<_> = writes.into_iter().map(put).collect();
            cluster.etcd.write(&puts);
            written.extend(puts.into_iter().map(|(key, _)| (key, None)));
            goes_on(&cluster, &pods, (number, kind), &before);
        }
        // A start reads all of that at once.
        cluster.daemons[0].kill();
        cluster.daemons[0].again();
        cluster.daemons[0].until("the store answers", || {
            cluster.daemons[0].status().cluster.is_some_and(|store| store.connected)
        });
        goes_on(&cluster, &pods, (101, "start"), &before);
        if backend == "nftables" {
            settings_are_damaged(&cluster, &pods, &before);
        }
        cluster.etcd.write(&written);
        goes_on(&cluster, &pods, (102, "end"), &before);
        cluster.everywhere("all is well", |daemon| daemon.status().degraded.is_empty());
    }
}

/// Whoever looks at the settings of the cluster stays out until they are whole again.
fn settings_are_damaged(cluster: &Cluster<'_>, pods: &[Placed], before: &[Vec<String>]) {
    const CONFIG: &str = "/causeway/v1/config";
    let config = cluster.etcd.get(CONFIG).expect("the settings of the cluster");
    cluster.etcd.put(CONFIG, b"[]");
    cluster.everywhere("it stays out", |daemon| names(daemon, "cluster settings in the store"));
    as_before(cluster, pods, "settings", before);
    cluster.etcd.put(CONFIG, config.as_bytes());
    cluster.everywhere("it is back", |daemon| !names(daemon, "cluster settings in the store"));
}

fn until_answer(from: &Ns, to: &str) -> causeway_tests::traffic::Answer {
    from.tcp(to).unwrap_or_else(|error| panic!("{to}: {error}"))
}
