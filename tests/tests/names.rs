//! Names: what containers, the node and others resolve, with real packets and clients.

use causeway_tests::{Attachment, Daemon, Dig, Dnsmasq, Lab, Node, Pod, Runtime};
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
    let (daemon, runtime) = (Daemon::start(node), Runtime::new(node, network(node)));
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

/// Three listeners and three kinds of clients: each answer comes from the address that was asked.
#[test]
fn names_are_answered_at_the_gateway_and_at_the_service_address() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let (daemon, runtime) = (Daemon::start(node), Runtime::new(node, network(node)));
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
