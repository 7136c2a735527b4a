//! Names: what containers, the node and others resolve, with real packets and clients.

use causeway_tests::{Attachment, Daemon, Dig, Dnsmasq, Etcd, Lab, Node, Pod, Runtime};
use serde_json::{Value, json};

/// The gateway of the containers.
const GATEWAY: &str = "10.0.1.1";
/// The service address that answers names.
const VIP: &str = "10.96.0.10";
/// The lab's host outside.
const OUTSIDE: &str = "203.0.113.10";

fn network(node: &Node) -> Value {
    node.conflist("causeway", "10.0.1.0/24")
}

/// The daemon with its defaults, and a runtime for its network.
fn started(node: &Node) -> (Daemon<'_>, Runtime<'_>) {
    (Daemon::start(node), Runtime::new(node, network(node)))
}

/// A container of a namespace with these labels (`app:web`).
fn labelled(pod: &Pod, namespace: &str, labels: &str) -> Attachment {
    pod.attachment("eth0").args(&format!(
        "IgnoreUnknown=1;K8S_POD_NAME=web-0;K8S_POD_NAMESPACE={namespace};CAUSEWAY_LABELS={labels}"
    ))
}

fn service(name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name }, "spec": spec })
}

fn web() -> Value {
    service(
        "web",
        json!({ "clusterIP": "10.96.0.80", "selector": { "app": "web" },
                "ports": [{ "name": "http", "port": 80 }] }),
    )
}

/// The tutorial's client finds the service by its short name: nameserver, search list and options
/// come with the container's result.
///
/// Rows: D-24
#[test]
fn a_container_finds_services_by_short_names() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let (daemon, runtime) = started(node);
    let pod = node.pod();
    let result = runtime.add_ok(&labelled(&pod, "shop", "app:web"));
    let search = ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local"];
    let expected = json!({ "nameservers": [GATEWAY], "search": search, "options": ["ndots:5"] });
    assert_eq!(result["dns"], expected);
    let mut elsewhere = web();
    elsewhere["metadata"]["namespace"] = json!("shop");
    elsewhere["spec"]["clusterIP"] = json!("10.96.0.81");
    daemon.apply(&[web(), elsewhere]);
    // What a runtime writes into the container.
    let conf = node.dir().join("resolv.conf");
    let text = format!("nameserver {GATEWAY}\nsearch {}\noptions ndots:5\n", search.join(" "));
    std::fs::write(&conf, text).expect("write resolv.conf");
    for (name, address) in [
        ("web", "10.96.0.81"),
        ("web.default", "10.96.0.80"),
        ("web.default.svc", "10.96.0.80"),
        ("web.default.svc.cluster.local", "10.96.0.80"),
        ("web.default.svc.cluster.local.", "10.96.0.80"),
    ] {
        // A mount namespace of its own; getent is glibc's resolver.
        let script = format!(
            "unshare --mount sh -c 'mount --bind {} /etc/resolv.conf && getent ahostsv4 {name}'",
            conf.display()
        );
        let found = pod.sh(&script);
        assert_eq!(found.split_whitespace().next(), Some(address), "{name}: {found}");
    }
}

/// Container and node ask both addresses over both transports: each answer comes from the address that
/// was asked, nothing remembers the question, and no other address of the node is taken.
///
/// Rows: D-20, S-42
#[test]
fn names_are_answered_at_the_gateway_and_at_the_service_address() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let (daemon, runtime) = started(node);
    let pod = node.pod();
    runtime.add_ok(&pod.attachment("eth0"));
    daemon.apply(&[web()]);
    let name = "web.default.svc.cluster.local A";
    for server in [GATEWAY, VIP] {
        daemon.until("it answers", || !Dig::at(&pod, server).ask(name).code.is_empty());
    }
    node.sh("conntrack -F 2>/dev/null");
    for (who, ns) in [("container", &*pod), ("node", &**node)] {
        for server in [GATEWAY, VIP] {
            for transport in ["", "+tcp"] {
                let answer = Dig::at(ns, server).with(transport).ask(name);
                assert_eq!(answer.code, "NOERROR", "{who} {server} {transport}: {}", answer.text);
                let line = "web.default.svc.cluster.local. 5 IN A 10.96.0.80";
                assert_eq!(answer.answers, [line], "{who} {server} {transport}");
                assert_eq!(answer.flags, "qr aa rd ra");
            }
        }
    }
    let listed = daemon.causeway(&["get", "services", "-A"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let row = listed.lines().find(|line| line.contains("kube-dns")).expect("a row");
    let row: Vec<&str> = row.split_whitespace().collect();
    let expected = ["kube-system", "kube-dns", "ClusterIP", VIP, "<none>", "53/UDP,53/TCP"];
    assert_eq!(row[..6], expected, "{listed}");
    let sockets = node.sh("ss -Hlntu sport = :53");
    let mut taken: Vec<&str> =
        sockets.lines().filter_map(|line| line.split_whitespace().nth(4)).collect();
    taken.sort_unstable();
    taken.dedup();
    assert_eq!(taken, [format!("{GATEWAY}:53"), format!("{VIP}:53")], "{sockets}");
    let tracked = node.sh("conntrack -L 2>/dev/null || true");
    let ours = |line: &&str| {
        line.contains("port=53 ")
            && [GATEWAY, VIP].iter().any(|ip| line.contains(&format!("={ip} ")))
    };
    assert_eq!(tracked.lines().find(ours), None, "a question is remembered");
    // A stranger is refused, and nobody's resolver is used for it.
    let refused = Dig::at(&lab.client, &Lab::node_address(0)).ask(name);
    assert_eq!(refused.code, "", "nobody listens there: {}", refused.text);
}

/// The tutorial's ExternalName, through a stand-in for the outside's name server.
///
/// Rows: S-41
#[test]
fn an_external_name_is_a_cname_before_what_it_leads_to() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let addresses = ["104.26.12.205", "104.26.13.205", "172.67.74.152"];
    let names = addresses.map(|one| format!("--host-record=api.ipify.org,{one}"));
    let _outside = Dnsmasq::start(&lab.internet, OUTSIDE, &names.each_ref().map(String::as_str));
    let upstream = format!("--dns-upstream={OUTSIDE}");
    let daemon = Daemon::start_with(node, &[&upstream]);
    let runtime = Runtime::new(node, network(node));
    let pod = node.pod();
    runtime.add_ok(&pod.attachment("eth0"));
    daemon.apply(&[
        service(
            "my-ip-service",
            json!({ "type": "ExternalName", "externalName": "api.ipify.org" }),
        ),
        service("gone", json!({ "type": "ExternalName", "externalName": "gone.example.org" })),
    ]);
    let dig = Dig::at(&pod, GATEWAY);
    daemon.until("it answers", || !dig.ask("cluster.local SOA").code.is_empty());
    let answer = dig.ask("my-ip-service.default.svc.cluster.local A");
    let first = "my-ip-service.default.svc.cluster.local. 5 IN CNAME api.ipify.org.";
    assert_eq!(answer.answers.first().map(String::as_str), Some(first), "{}", answer.text);
    assert_eq!(dig.data("my-ip-service.default.svc.cluster.local A").len(), 4);
    let found = dig.addresses("my-ip-service.default.svc.cluster.local A");
    assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), addresses);
    // A dead target is the CNAME alone, in bounded time.
    let answer = dig.ask("gone.default.svc.cluster.local A");
    assert_eq!(answer.answers.len(), 1, "{}", answer.text);
    assert_eq!(dig.addresses("api.ipify.org A").len(), 3, "forwarded");
}

/// A node of both families answers at a service address of each; domain and TTL are as they were set.
///
/// Rows: D-17
#[test]
fn both_families_have_a_service_address() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let networks =
        ["--service-cidr=10.96.0.0/16,fd00:96::/112", "--dns-domain=corp.example", "--dns-ttl=30"];
    let (daemon, runtime) =
        (Daemon::start_with(node, &networks), Runtime::new(node, network(node)));
    let pod = node.pod();
    let result = runtime.add_ok(&pod.attachment("eth0"));
    assert_eq!(result["dns"]["search"][0], "default.svc.corp.example");
    daemon.apply(&[web()]);
    let ask = |server: &str, question: &str| Dig::at(node, server).ask(question);
    for server in [VIP, "fd00:96::a"] {
        daemon.until("it answers", || !ask(server, "corp.example SOA").code.is_empty());
        let found = ask(server, "web.default.svc.corp.example A");
        assert_eq!(found.code, "NOERROR", "{server}: {}", found.text);
        let line = "web.default.svc.corp.example. 30 IN A 10.96.0.80";
        assert_eq!(found.answers, [line], "{server}: {}", found.text);
        let denied = ask(server, "nothing.default.svc.corp.example A");
        assert_eq!((denied.code.as_str(), denied.authority.len()), ("NXDOMAIN", 1));
    }
    daemon.until("all is well", || daemon.status().degraded.is_empty());
    let status = daemon.status().names.expect("a name server");
    let servers: Vec<String> = status.servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["10.96.0.10:53", "[fd00:96::a]:53", "10.0.1.1:53"]);
}

/// `causeway dns` shows what a container would be answered, and why.
#[test]
fn the_command_line_says_what_is_answered_and_why() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let (daemon, runtime) = started(node);
    let pod = node.pod();
    runtime.add_ok(&labelled(&pod, "default", "app:web"));
    daemon.apply(&[web()]);
    let text = |words: &[&str], code: i32| {
        let run = daemon.causeway(words);
        assert_eq!(run.code(), code, "{run:?}");
        String::from_utf8_lossy(&run.stdout).into_owned()
    };
    assert_eq!(
        text(&["dns", "web", "--from", "web-0"], 0),
        "web.default.svc.cluster.local. 5 IN A 10.96.0.80\n  service default/web has this address\n"
    );
    let missing = text(&["dns", "db.default.svc.cluster.local", "AAAA"], 1);
    assert!(
        missing.starts_with("db.default.svc.cluster.local. AAAA: NXDOMAIN\n")
            && missing.contains("there is no service db in namespace default"),
        "{missing}"
    );
    assert!(text(&["dns", "--host"], 0).contains("resolvectl dns causeway-names 10.96.0.10"));
    let metrics = daemon.request("GET", "/metrics", b"").expect("metrics");
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    let line = "coredns_dns_responses_total{rcode=\"NXDOMAIN\"} 1";
    assert!(metrics.lines().any(|one| one == line), "{metrics}");
}

/// A service that was given the address of the name server keeps it, and that is said.
#[test]
fn a_service_with_the_address_of_the_name_server_keeps_it() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let daemon = Daemon::start(node);
    let ask = || Dig::at(node, VIP).ask("cluster.local SOA").code;
    daemon.until("it answers", || ask() == "NOERROR");
    let mut taker = web();
    taker["spec"]["clusterIP"] = json!(VIP);
    daemon.apply(&[taker]);
    daemon.until("it is left to the service", || ask().is_empty());
    let warnings = daemon.status().warnings;
    assert!(warnings.iter().any(|one| one.contains("choose --dns-vip")), "{warnings:?}");
    daemon.request("DELETE", "/v1/services/default/web", b"").expect("deleted");
    daemon.until("it answers again", || ask() == "NOERROR");
    drop(daemon);
    let cleaned = Daemon::cleanup(node, &[]);
    assert_eq!(cleaned.code(), 0, "{cleaned:?}");
    assert_eq!(node.sh("ip route show table local proto 198"), "");
    assert_eq!(node.sh("nft list tables | grep causeway || true"), "");
}

/// glibc asks for A and AAAA at once, from one socket: none of a hundred lookups waits for a second
/// attempt, which it makes after five seconds.
///
/// Rows: D-34
#[test]
fn two_questions_from_one_socket_do_not_lose_one_another() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let (daemon, runtime) = started(node);
    let pod = node.pod();
    runtime.add_ok(&pod.attachment("eth0"));
    daemon.apply(&[web()]);
    let conf = node.dir().join("resolv.conf");
    for server in [GATEWAY, VIP] {
        daemon.until("it answers", || !Dig::at(&pod, server).ask("cluster.local").code.is_empty());
        std::fs::write(&conf, format!("nameserver {server}\n")).expect("write resolv.conf");
        let lookups = pod.sh(&format!(
            "unshare --mount sh -ec 'mount --bind {} /etc/resolv.conf
             for n in $(seq 100); do
               timeout 3 getent ahosts web.default.svc.cluster.local | head -n 1
             done'",
            conf.display()
        ));
        let found = lookups.lines().filter(|line| line.starts_with("10.96.0.80 ")).count();
        assert_eq!(found, 100, "{server}: {lookups}");
    }
}

/// While etcd is away names go on, over a restart too; a node that has never heard of the store's
/// services says neither yes nor no.
#[test]
fn names_go_on_while_the_store_is_away() {
    let lab = Lab::two_nodes();
    let mut etcd = Etcd::start(&lab);
    let store = ["--store=etcd", &format!("--etcd-endpoints={}", etcd.url())].map(str::to_owned);
    let store: Vec<&str> = store.iter().map(String::as_str).collect();
    let mut daemon = Daemon::start_with(&lab.nodes[0], &store);
    let ask = |node: &Node| Dig::at(node, VIP).ask("web.default.svc.cluster.local A");
    daemon.until("it is connected", || daemon.status().cluster.is_some_and(|one| one.connected));
    daemon.apply(&[web()]);
    daemon.until("it answers", || ask(&lab.nodes[0]).answers.len() == 1);
    etcd.kill();
    assert_eq!(ask(&lab.nodes[0]).answers.len(), 1);
    daemon.stop();
    daemon.again();
    daemon.until("it answers", || ask(&lab.nodes[0]).answers.len() == 1);
    let never = [&store[..], &["--node-name", "node2"]].concat();
    let other = Daemon::start_with(&lab.nodes[1], &never);
    other.until("it says that it does not know", || ask(&lab.nodes[1]).code == "SERVFAIL");
    etcd.again();
    other.until("it answers", || ask(&lab.nodes[1]).answers.len() == 1);
}
