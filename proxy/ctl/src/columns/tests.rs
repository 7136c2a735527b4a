use serde_json::json;

use super::*;

/// 100 seconds after all that is created here.
const NOW: u64 = 1_795_372_922 + 100;
const CREATED: &str = "2026-11-22T18:42:02Z";

fn check(kind: Kind, object: &Value, wanted: &[&str]) {
    let (titles, row) = (header(kind, true), cells(kind, object, true, NOW));
    assert_eq!(row, wanted, "{object}");
    assert_eq!(titles.len(), row.len(), "{titles:?}");
    assert!(cells(kind, object, false, NOW).len() <= row.len());
}

/// A service's wide row but for its age.
fn check_service(spec: Value, ingress: Value, wanted: [&str; 6]) {
    let object = json!({"metadata": {"name": "web", "creationTimestamp": CREATED}, "spec": spec,
        "status": {"loadBalancer": {"ingress": ingress}}});
    let [name, kind, cluster_ip, external_ip, ports, selector] = wanted;
    check(Kind::Service, &object, &[name, kind, cluster_ip, external_ip, ports, "100s", selector]);
}

/// Rows: U-07
#[test]
fn services_have_kubectls_words_and_placeholders() {
    check_service(
        json!({"type": "NodePort", "clusterIP": "10.96.1.100", "clusterIPs": ["10.96.1.100"],
            "ports": [{"protocol": "TCP", "port": 8080, "targetPort": 80, "nodePort": 30080}],
            "selector": {"app": "cs-pod"}}),
        Value::Null,
        ["web", "NodePort", "10.96.1.100", "<none>", "8080:30080/TCP", "app=cs-pod"],
    );
    check_service(
        json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"],
            "selector": {"b": "2", "a": "1"}}),
        json!([]),
        ["web", "ClusterIP", "None", "<none>", "<none>", "a=1,b=2"],
    );
    check_service(
        json!({"type": "ExternalName", "externalName": "db.example.org"}),
        Value::Null,
        ["web", "ExternalName", "<none>", "db.example.org", "<none>", "<none>"],
    );
    let balanced = json!({"type": "LoadBalancer", "clusterIPs": ["10.96.0.7", "fd00::7"],
        "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "nodePort": 31000}]});
    let ports = "53/UDP,53:31000/TCP";
    check_service(
        balanced.clone(),
        Value::Null,
        ["web", "LoadBalancer", "10.96.0.7", "<pending>", ports, "<none>"],
    );
    check_service(
        balanced.clone(),
        json!([{"ip": "192.0.2.7"}, {"hostname": "lb.example.org"}, {"ip": "192.0.2.7"}]),
        ["web", "LoadBalancer", "10.96.0.7", "192.0.2.7,lb.example.org", ports, "<none>"],
    );
    let mut own = balanced;
    own["externalIPs"] = json!(["198.51.100.1"]);
    check_service(
        own.clone(),
        Value::Null,
        ["web", "LoadBalancer", "10.96.0.7", "198.51.100.1", ports, "<none>"],
    );
    check_service(
        own,
        json!([{"ip": "192.0.2.7"}]),
        ["web", "LoadBalancer", "10.96.0.7", "192.0.2.7,198.51.100.1", ports, "<none>"],
    );
}

/// Rows: U-07
#[test]
fn endpoints_and_slices_show_the_first_few() {
    let object = |subsets: Value| json!({"metadata": {"name": "web"}, "subsets": subsets});
    let ips = |ips: &[&str]| ips.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>();
    check(Kind::Endpoints, &object(json!(null)), &["web", "<none>", "<unknown>"]);
    check(
        Kind::Endpoints,
        &object(json!([{"addresses": ips(&["10.0.1.2", "fd00::2"]), "ports": [{"port": 80}]}])),
        &["web", "10.0.1.2:80,[fd00::2]:80", "<unknown>"],
    );
    check(
        Kind::Endpoints,
        &object(json!([{"addresses": ips(&["10.0.1.2", "10.0.1.3"]),
            "ports": [{"port": 80}, {"port": 81}]}, {"addresses": ips(&["10.0.1.4"])}])),
        &["web", "10.0.1.2:80,10.0.1.3:80,10.0.1.2:81 + 2 more...", "<unknown>"],
    );
    let slice = |ports: Value, endpoints: Value| {
        json!({"metadata": {"name": "web-1", "creationTimestamp": CREATED}, "addressType": "IPv4",
            "ports": ports, "endpoints": endpoints})
    };
    check(
        Kind::EndpointSlice,
        &slice(json!([]), json!([])),
        &["web-1", "IPv4", "<unset>", "<unset>", "100s"],
    );
    let four: Vec<Value> = (1..5).map(|n| json!({"addresses": [format!("10.0.1.{n}")]})).collect();
    check(
        Kind::EndpointSlice,
        &slice(json!([{"port": 80}, {"name": "any"}, {}]), json!(four)),
        &["web-1", "IPv4", "80,any,*", "10.0.1.1,10.0.1.2,10.0.1.3 + 1 more...", "100s"],
    );
}

/// Rows: S-44
#[test]
fn pods_nodes_and_leases_have_their_columns() {
    check(
        Kind::Pod,
        &json!({"metadata": {"name": "pod1a", "creationTimestamp": CREATED}, "spec": {"nodeName": "n1"},
            "status": {"podIPs": [{"ip": "10.0.1.2"}], "phase": "Running"}}),
        &["pod1a", "1/1", "Running", "0", "100s", "10.0.1.2", "n1", "<none>", "<none>"],
    );
    check(
        Kind::Pod,
        &json!({"metadata": {"name": "p", "deletionTimestamp": CREATED},
            "status": {"conditions": [{"type": "Ready", "status": "False"}]}}),
        &["p", "0/1", "Terminating", "0", "<unknown>", "<none>", "<none>", "<none>", "<none>"],
    );
    check(
        Kind::Node,
        &json!({"metadata": {"name": "n1", "labels": {"node-role.kubernetes.io/edge": ""}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "nodeInfo": {"kubeletVersion": "v0.1.0"},
                "addresses": [{"type": "InternalIP", "address": "172.18.0.2"}]}}),
        &[
            "n1",
            "Ready",
            "edge",
            "<unknown>",
            "v0.1.0",
            "172.18.0.2",
            "<none>",
            "<none>",
            "<none>",
            "<none>",
        ],
    );
    let lease = |since: Value| {
        json!({"address": "10.0.1.2", "network": "causeway", "containerID": "c1",
            "ifname": "eth0", "since": since})
    };
    for since in [json!(NOW - 7), json!("2026-11-22T18:43:35Z")] {
        check(Kind::Lease, &lease(since), &["10.0.1.2", "causeway", "c1", "eth0", "7s"]);
    }
    let repaired = ["10.0.1.2", "causeway", "c1", "eth0", "<unknown>"];
    check(Kind::Lease, &lease(json!(0)), &repaired);
}

/// Rows: U-07, O-60
#[test]
fn nodes_show_where_their_containers_are_and_what_is_wrong() {
    let node = |ready: &str, unreachable: Value| {
        json!({
            "metadata": {"name": "n2", "creationTimestamp": CREATED, "annotations": {
                "causeway.io/vtep-mac": "0e:1a:00:00:00:02", "causeway.io/overlay-mtu": "1450"}},
            "spec": {"podCIDR": "10.0.2.0/24", "podCIDRs": ["10.0.2.0/24", "fd00:10:2::/64"]},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "172.18.0.3"},
                    {"type": "InternalIP", "address": "fd00:172:18::3"},
                    {"type": "Hostname", "address": "n2"}],
                "conditions": [{"type": "Ready", "status": ready, "message": "no heartbeat"},
                    {"type": "NetworkUnavailable", "status": unreachable, "message": "same IP"}],
                "nodeInfo": {"causewaydVersion": "0.1.0"}}})
    };
    for (ready, unreachable, word, problem) in [
        ("True", json!(null), "Ready", "same IP"),
        ("True", json!("False"), "Ready", "<none>"),
        ("False", json!("False"), "NotReady", "no heartbeat"),
        ("Unknown", json!("True"), "Unknown", "same IP"),
    ] {
        let wanted = [
            "n2",
            word,
            "<none>",
            "100s",
            "0.1.0",
            "172.18.0.3,fd00:172:18::3",
            "10.0.2.0/24,fd00:10:2::/64",
            "0e:1a:00:00:00:02",
            "1450",
            problem,
        ];
        check(Kind::Node, &node(ready, unreachable), &wanted);
    }
    let titles = header(Kind::Node, false);
    assert_eq!(titles, ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]);
}

/// Objects that are not what they should be make odd rows, never a failure.
#[test]
fn anything_has_a_row() {
    for kind in Kind::ALL {
        for object in [json!(null), json!([]), json!({"metadata": 3, "spec": [], "status": "x"})] {
            assert_eq!(cells(kind, &object, true, NOW).len(), header(kind, true).len());
        }
    }
}
