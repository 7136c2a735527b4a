//! What the daemon serves and looks after, with real packets: UDP flows, tests of services, health
//! and metrics.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use causeway_api::SvcTestAnswer;
use causeway_tests::traffic::Server;
use causeway_tests::{Daemon, Lab, Node, Ns, Pod, Runtime};
use serde_json::{Value, json};

const PODS: [&str; 3] = ["10.0.1.2", "10.0.1.3", "10.0.1.4"];
const NODE: &str = "172.18.0.2";
/// For tests that count flows: the name server's own questions are some, too.
const NO_NAMES: &[&str] = &["--dns-listen=off"];

/// Three containers on a bridge, without any events of theirs.
fn pods(node: &Node) -> Vec<Pod> {
    let network = json!({ "cniVersion": "1.0.0", "name": "causeway", "plugins": [
        { "type": "causeway-bridge", "bridge": "cw0", "isDefaultGateway": true, "hairpinMode": true,
          "runDir": node.run_dir(),
          "ipam": { "type": "causeway-ipam", "dataDir": node.data_dir(), "runDir": node.run_dir(),
                    "ranges": [[{ "subnet": "10.0.1.0/24" }]] } }] });
    let runtime = Runtime::new(node, network);
    let pods: Vec<Pod> = PODS.iter().map(|_| node.pod()).collect();
    for (pod, address) in pods.iter().zip(PODS) {
        let result = runtime.add_ok(&pod.attachment("eth0"));
        assert_eq!(result["ips"][0]["address"], format!("{address}/24"));
    }
    pods
}

fn udp_service(vip: &str, node_port: u16) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "dns" },
            "spec": { "type": "NodePort", "clusterIP": vip,
                      "ports": [{ "port": 53, "protocol": "UDP", "nodePort": node_port }] } })
}

/// Its endpoints, all of one port.
fn endpoints(port: u16, addresses: &[&str]) -> Value {
    let endpoints: Vec<Value> =
        addresses.iter().map(|address| json!({ "addresses": [address] })).collect();
    json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": "dns-1", "labels": { "kubernetes.io/service-name": "dns" } },
            "addressType": "IPv4", "ports": [{ "name": "", "port": port, "protocol": "UDP" }],
            "endpoints": endpoints })
}

/// A client that keeps one socket, as resolvers and media senders do.
struct Steady(UdpSocket);

impl Steady {
    fn new(ns: &Ns, to: &str) -> Self {
        let socket = ns.run(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout above zero");
        socket.connect(to).expect("a route");
        Self(socket)
    }

    /// Who answers the next datagram.
    fn ask(&self) -> io::Result<String> {
        self.0.send(b"x\n")?;
        let mut buffer = [0; 256];
        let length = self.0.recv(&mut buffer)?;
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        Ok(text.split_whitespace().next().unwrap_or_default().replace("HOSTNAME:", ""))
    }

    /// Asks on until this one answers; the flow before must have been forgotten for that.
    fn until(&self, daemon: &Daemon<'_>, wanted: &str) {
        daemon.until(wanted, || self.ask().is_ok_and(|who| who == wanted));
    }
}

/// Conntrack entries of UDP to port 53 or the node port, by id.
fn flows(node: &Node) -> Vec<String> {
    let all = node.sh("conntrack -L -p udp -o id 2>/dev/null || true");
    let ours =
        all.lines().filter(|line| line.contains("dport=53 ") || line.contains("dport=30053 "));
    let id = |line: &str| line.split(" id=").nth(1).map(str::to_owned);
    ours.map(|line| id(line).unwrap_or_else(|| panic!("no id: {line}"))).collect()
}

/// Rows: P72, P73, P74, P75, P79
#[test]
fn a_steady_udp_client_follows_the_service() {
    // Outside the service network: packets leave before there are rules, and make entries.
    const VIP: &str = "172.30.0.53";
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let pods = pods(node);
    node.ip(&format!("route add 172.30.0.0/24 via {}\n", Lab::CLIENT));
    let servers = [(1, 5301, "one"), (2, 5301, "two"), (2, 5302, "moved")];
    let _servers = servers
        .map(|(pod, port, name)| Server::udp(&pods[pod], name, &format!("{}:{port}", PODS[pod])));
    let daemon = Daemon::start_with(node, NO_NAMES);
    for to in [format!("{VIP}:53"), format!("{NODE}:30053")] {
        let ns: &Ns = if to.starts_with(NODE) { &lab.client } else { &pods[0] };
        let client = Steady::new(ns, &to);
        let before = client.ask();
        if to.starts_with(VIP) {
            assert!(before.is_err(), "{before:?}");
            assert_eq!(flows(node).len(), 1, "an entry without translation");
        }
        daemon.apply(&[udp_service(VIP, 30053), endpoints(5301, &[PODS[1]])]);
        client.until(&daemon, "one");
        daemon.apply(&[endpoints(5301, &[PODS[2]])]);
        client.until(&daemon, "two");
        daemon.apply(&[endpoints(5302, &[PODS[2]])]);
        client.until(&daemon, "moved");
        daemon.apply(&[endpoints(5302, &[])]);
        daemon.until("refused", || {
            client.ask().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        });
        daemon.apply(&[endpoints(5301, &[PODS[1]])]);
        client.until(&daemon, "one");
        daemon.request("DELETE", "/v1/services/default/dns", b"").expect("delete the service");
        daemon.until("no flow is left", || flows(node).is_empty());
        daemon
            .request("DELETE", "/v1/endpointslices/default/dns-1", b"")
            .expect("delete the slice");
    }
    let metrics = String::from_utf8(daemon.request("GET", "/metrics", b"").expect("metrics"));
    let metrics = metrics.expect("text");
    let line = metrics.lines().find(|line| line.contains("reconciler_deleted_entries_total "));
    let deleted: u64 =
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("a count");
    assert!(deleted >= 8, "{deleted}");
}

/// Rows: P78, P80
#[test]
fn a_restart_forgets_no_flow_that_is_right() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let pods = pods(node);
    let _server = Server::udp(&pods[1], "one", &format!("{}:5301", PODS[1]));
    let mut daemon = Daemon::start_with(node, NO_NAMES);
    daemon.apply(&[udp_service("10.96.0.53", 30053), endpoints(5301, &[PODS[1]])]);
    // A container's flow to a host outside, on a port of the node port's number.
    let _outside = Server::udp(&lab.client, "outside", &format!("{}:30053", Lab::CLIENT));
    let mut clients = vec![(Steady::new(&pods[0], "10.96.0.53:53"), "one")];
    clients.push((Steady::new(&lab.client, &format!("{NODE}:30053")), "one"));
    clients.push((Steady::new(node, &format!("{}:30053", Lab::CLIENT)), "outside"));
    for (client, wanted) in &clients {
        assert_eq!(client.ask().expect("an answer"), *wanted);
    }
    let before = flows(node);
    assert_eq!(before.len(), 3, "{before:?}");
    daemon.stop();
    daemon.again();
    daemon.kill();
    daemon.again();
    // A change of other endpoints reconciles everything of the service once more.
    daemon.apply(&[endpoints(5301, &[PODS[1], PODS[2]])]);
    let count = || {
        let metrics = daemon.request("GET", "/metrics", b"").expect("metrics");
        let metrics = String::from_utf8(metrics).expect("text");
        let name = "conntrack_reconciler_sync_duration_seconds_count ";
        let line = metrics.lines().find_map(|line| line.split_once(name));
        line.map_or(0, |(_, count)| count.parse::<u64>().expect("a count"))
    };
    daemon.until("conntrack is reconciled", || count() >= 2);
    assert_eq!(flows(node), before);
}

/// Rows: P75
#[test]
fn flows_of_a_service_that_went_while_no_daemon_ran_are_forgotten() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let pods = pods(node);
    let _server = Server::udp(&pods[1], "one", &format!("{}:5301", PODS[1]));
    let mut daemon = Daemon::start_with(node, NO_NAMES);
    daemon.apply(&[udp_service("10.96.0.53", 30053), endpoints(5301, &[PODS[1]])]);
    let client = Steady::new(&pods[0], "10.96.0.53:53");
    assert_eq!(client.ask().expect("an answer"), "one");
    daemon.kill();
    std::fs::remove_dir_all(node.dir().join("state")).expect("lose the store");
    daemon.again();
    daemon.until("no flow is left", || flows(node).is_empty());
    client.ask().expect_err("nobody serves the address");
}

/// What a test of the service `web` answers, line by line.
fn svc_test(daemon: &Daemon<'_>, request: &Value) -> Vec<SvcTestAnswer> {
    let answer = daemon.request("POST", "/v1/svc-test", request.to_string().as_bytes());
    let answer = answer.unwrap_or_else(|e| panic!("{request}: {e}\n{}", daemon.log()));
    let text = String::from_utf8(answer).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("an answer")).collect()
}

#[test]
fn a_test_of_a_service_tells_which_endpoints_answer() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let pods = pods(node);
    let daemon = Daemon::start(node);
    let _tcp = [1, 2].map(|n| Server::tcp(&pods[n], "tcp", &format!("{}:8001", PODS[n])));
    let _udp = [1, 2].map(|n| Server::udp(&pods[n], "udp", &format!("{}:8001", PODS[n])));
    let ports = json!([{ "name": "http", "port": 80, "targetPort": 8001 },
                       { "name": "dns", "port": 53, "targetPort": 8001, "protocol": "UDP" },
                       { "name": "none", "port": 81, "targetPort": 9 }]);
    let annotations = json!({ "causeway.io/balance": "round-robin" });
    let slices = json!([{ "name": "http", "port": 8001 },
                        { "name": "dns", "port": 8001, "protocol": "UDP" }]);
    daemon.apply(&[
        json!({ "apiVersion": "v1", "kind": "Service",
                "metadata": { "name": "web", "annotations": annotations },
                "spec": { "clusterIP": "10.96.0.10", "ports": ports } }),
        json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": { "name": "web-1", "labels": { "kubernetes.io/service-name": "web" } },
                "addressType": "IPv4", "ports": slices,
                "endpoints": [{ "addresses": [PODS[1]] }, { "addresses": [PODS[2]] }] }),
    ]);
    // The container that a test can begin in.
    let key = json!({ "network": "causeway", "containerID": "c0", "ifname": "eth0" });
    let record = json!({ "network": "causeway", "containerID": "c0", "ifname": "eth0",
        "netns": pods[0].path(), "ips": [PODS[0]], "created": 1,
        "labels": { "causeway.io/pod-name": "client", "causeway.io/pod-namespace": "default" } });
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot id");
    let event = json!({ "key": key, "seq": 1, "bootId": boot.trim(), "record": record });
    daemon.request("PUT", "/v1/events", event.to_string().as_bytes()).expect("an event");
    for (from, port) in [("node", "http"), ("client", "http"), ("node", "dns"), ("client", "53")] {
        let request = json!({ "namespace": "default", "name": "web", "port": port, "count": 4,
                              "from": from });
        let answers = svc_test(&daemon, &request);
        assert_eq!(answers.len(), 4, "{answers:?}");
        let who = |answer: &SvcTestAnswer| {
            assert_eq!(answer.error, None, "{from} {port}: {answer:?}");
            answer.address.expect("an address").to_string()
        };
        let all: BTreeSet<String> = answers.iter().map(who).collect();
        assert_eq!(all, [PODS[1], PODS[2]].map(str::to_owned).into(), "{from} {port}");
    }
    let request = json!({ "namespace": "default", "name": "web", "port": "none", "count": 1,
                          "from": "client" });
    let answers = svc_test(&daemon, &request);
    assert_eq!((answers[0].address, answers[0].error.as_deref()), (None, Some("refused")));
    let shown = daemon.causeway(&["svc", "test", "web", "--count", "2"]).ok();
    assert!(shown.contains(PODS[1]) && shown.contains(PODS[2]), "{shown}");
}

/// An HTTP request: status and the rest.
fn http(from: &Ns, url: &str) -> (u16, String) {
    let script = format!("curl -s -i --max-time 5 {url} || echo exit $?");
    let text = from.sh(&script);
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, text)
}

/// Rows: P83, P85, P86, P87
#[test]
fn health_and_metrics_answer_where_they_should_and_nowhere_else() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let pods = pods(node);
    let daemon = Daemon::start_with(node, &["--nodeport-addresses", "primary"]);
    for (url, wanted) in [
        ("127.0.0.1:10249/metrics", "kubeproxy_sync_proxy_rules_duration_seconds"),
        ("127.0.0.1:10249/proxyMode", "nftables"),
        ("127.0.0.1:10249/healthz", "\"healthy\":true"),
        ("127.0.0.1:10256/healthz", "\"nodeEligible\":true"),
        ("127.0.0.1:10256/livez", "\"healthy\":true"),
        ("127.0.0.1:10256/readyz", "\"healthy\":true"),
    ] {
        let (status, text) = http(node, url);
        assert!(status == 200 && text.contains(wanted), "{url}: {text}");
    }
    // Load balancers come from outside.
    assert_eq!(http(&lab.client, "172.18.0.2:10256/healthz").0, 200);
    assert_eq!(http(&lab.client, "172.18.0.2:10256/metrics").0, 404);
    // An endpoint on this node's own loopback would open the metrics to everybody.
    let service = |name: &str| {
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
                "spec": { "type": "NodePort", "ports": [{ "port": 80 }] } })
    };
    let to = |name: &str, address: &str| {
        json!({ "apiVersion": "v1", "kind": "Endpoints", "metadata": { "name": name },
                "subsets": [{ "addresses": [{ "ip": address }], "ports": [{ "port": 10249 }] }] })
    };
    let tried = daemon.try_apply(&[service("own"), to("own", "127.0.0.1")]);
    let refusal = tried.results[1].refusal.as_ref();
    assert!(refusal.is_some_and(|why| why.field.contains("ip")), "{tried:?}");
    daemon.apply(&[service("node"), to("node", NODE)]);
    let object = daemon.get("/v1/services/default/node");
    let vip = object["spec"]["clusterIP"].as_str().expect("an address").to_owned();
    let port = object["spec"]["ports"][0]["nodePort"].as_u64().expect("a node port");
    for url in [
        format!("{NODE}:10249/metrics"),
        format!("{vip}/metrics"),
        format!("{NODE}:{port}/metrics"),
    ] {
        for from in [&*pods[0], &lab.client] {
            let (status, text) = http(from, &url);
            assert_eq!(status, 0, "{url}: {text}");
        }
    }
    health_check_port(&lab, &daemon);
}

fn health_check_port(lab: &Lab, daemon: &Daemon<'_>) {
    let balanced = |port: u16| {
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "lb" },
                "spec": { "type": "LoadBalancer", "externalTrafficPolicy": "Local",
                          "healthCheckNodePort": port, "ports": [{ "port": 80 }] } })
    };
    let endpoint = |node: &str| {
        json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": { "name": "lb-1", "labels": { "kubernetes.io/service-name": "lb" } },
                "addressType": "IPv4", "ports": [{ "name": "", "port": 80 }],
                "endpoints": [{ "addresses": [PODS[1]], "nodeName": node }] })
    };
    daemon.apply(&[balanced(31234), endpoint("elsewhere")]);
    let (status, text) = http(&lab.client, "172.18.0.2:31234/");
    assert!(status == 503 && text.contains("\"localEndpoints\":0"), "{text}");
    daemon.apply(&[endpoint("node1")]);
    let (status, text) = http(&lab.client, "172.18.0.2:31234/");
    assert!(status == 200 && text.contains("\"localEndpoints\":1"), "{text}");
    // Node ports are not served on localhost here, nor is this.
    assert_eq!(http(&lab.nodes[0], "127.0.0.1:31234/").0, 0);
    daemon.apply(&[balanced(31235)]);
    assert_eq!(http(&lab.client, "172.18.0.2:31235/").0, 200);
    daemon.until("the old port is closed", || http(&lab.client, "172.18.0.2:31234/").0 == 0);
    daemon.request("DELETE", "/v1/services/default/lb", b"").expect("delete the service");
    daemon.until("the port is closed", || http(&lab.client, "172.18.0.2:31235/").0 == 0);
}

/// Connections that send a little and then nothing.
fn slow(from: &Ns, to: &str, count: usize) -> Vec<TcpStream> {
    let open = |_| {
        let mut stream = from.run(|| TcpStream::connect(to)).ok()?;
        // It may be closed by then.
        drop(stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-"));
        Some(stream)
    };
    (0..count).filter_map(open).collect()
}

/// Load balancers and probers behind one address, all of which connect before the first asks.
///
/// Rows: RH8
#[test]
fn many_who_probe_from_one_address_are_all_answered() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let _daemon = Daemon::start_with(node, &[]);
    let to = format!("{NODE}:10256");
    let open = |_| lab.client.run(|| TcpStream::connect(&to)).expect("a connection");
    let mut streams: Vec<TcpStream> = (0..100).map(open).collect();
    for (number, stream) in streams.iter_mut().enumerate() {
        let asked = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        asked.unwrap_or_else(|e| panic!("prober {number}: {e}"));
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        stream
            .set_read_timeout(Some(causeway_tests::traffic::PATIENCE))
            .expect("a timeout above zero");
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        read.unwrap_or_else(|e| panic!("prober {number}: {e}"));
        assert!(answer.starts_with("HTTP/1.1 200"), "prober {number}: {answer}");
    }
}

/// Rows: RH8
#[test]
fn slow_connections_of_one_container_shut_nobody_out() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let pods = pods(node);
    let daemon = Daemon::start_with(node, &["--metrics-listen", "0.0.0.0:10249"]);
    daemon.apply(&[
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "lb" },
                "spec": { "type": "LoadBalancer", "externalTrafficPolicy": "Local",
                          "healthCheckNodePort": 31234, "ports": [{ "port": 80 }] } }),
        json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": { "name": "lb-1", "labels": { "kubernetes.io/service-name": "lb" } },
                "addressType": "IPv4", "ports": [{ "name": "", "port": 80 }],
                "endpoints": [{ "addresses": [PODS[1]], "nodeName": "node1" }] }),
    ]);
    let urls = ["10256/healthz", "10249/metrics", "31234/"];
    let ask = |from: &Ns, url: &str| {
        let text = from.sh(&format!("curl -s -i --max-time 2 {NODE}:{url} || echo exit $?"));
        assert!(text.starts_with("HTTP/1.1 200"), "{url}: {text}");
        let head = text.to_ascii_lowercase();
        assert!(head.contains("connection: close"), "{url}: {text}");
    };
    let mut held = Vec::new();
    for url in urls {
        let port = url.split('/').next().unwrap_or_default();
        held.extend(slow(&pods[0], &format!("{NODE}:{port}"), 150));
    }
    assert!(held.len() >= 3 * 80, "{}", held.len());
    for url in urls {
        // Others, and the container itself.
        ask(&lab.client, url);
        ask(&pods[0], url);
    }
    // The daemon has let the oldest go; the rest end by themselves.
    let open = || {
        node.sh(
            "ss -Htn state established '( sport = :10256 or sport = :10249 or sport = :31234 )'",
        )
    };
    assert!(open().lines().count() <= 256, "{}", open());
    daemon.until("no head came in time", || open().is_empty());
    drop(held);
}
