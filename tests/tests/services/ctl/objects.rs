//! Objects that the daemon may have.

use std::process::Command;
use std::sync::LazyLock;

use causeway_tests::finish;
use serde_json::{Value, json};

/// The time two days ago as Kubernetes writes it; an age of `2d` for an hour. The same for all
/// objects of a run.
fn two_days_ago() -> &'static str {
    static TIME: LazyLock<String> = LazyLock::new(|| {
        let mut date = Command::new("date");
        date.args(["-u", "-d", "2 days ago", "+%Y-%m-%dT%H:%M:%SZ"]);
        finish(date, b"").ok().trim().to_owned()
    });
    &TIME
}

fn metadata(name: &str) -> Value {
    json!({"name": name, "namespace": "default", "creationTimestamp": two_days_ago()})
}

/// The tutorial's service.
pub(crate) fn web() -> Value {
    let mut metadata = metadata("web");
    metadata["annotations"] = json!({"note": "80: yes"});
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata,
        "spec": {"type": "NodePort", "clusterIP": "10.96.1.100", "clusterIPs": ["10.96.1.100"],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None",
            "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Cluster",
            "selector": {"app": "cs-pod"},
            "ports": [{"protocol": "TCP", "port": 8080, "targetPort": 80, "nodePort": 30080}]}})
}

/// Endpoints of the service.
pub(crate) fn endpoints() -> Value {
    let addresses: Vec<Value> = (2..6).map(|n| json!({"ip": format!("10.0.1.{n}")})).collect();
    json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata("web"),
        "subsets": [{"addresses": addresses, "ports": [{"port": 80, "protocol": "TCP"}]}]})
}

/// A slice of another service.
pub(crate) fn slice() -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": metadata("db-1"), "addressType": "IPv4",
        "ports": [{"port": 5432, "protocol": "TCP"}], "endpoints": [{"addresses": ["192.0.2.9"]}]})
}

/// A container.
pub(crate) fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata("pod1a"),
        "spec": {"nodeName": "n1"}, "status": {"phase": "Running", "podIP": "10.0.1.2",
            "podIPs": [{"ip": "10.0.1.2"}], "conditions": [{"type": "Ready", "status": "True"}]}})
}

/// A node.
pub(crate) fn node() -> Value {
    json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "n1", "creationTimestamp": two_days_ago()},
        "status": {"addresses": [{"type": "InternalIP", "address": "172.18.0.2"}],
            "conditions": [{"type": "Ready", "status": "True"}]}})
}

/// An address in use.
pub(crate) fn lease() -> Value {
    json!({"address": "10.0.1.2", "network": "causeway", "containerID": "c1", "ifname": "eth0",
        "since": two_days_ago()})
}

/// Status of a daemon without a problem.
pub(crate) fn status() -> Value {
    json!({"version": "0.1.0", "node": "n1", "uptime": 200, "backend": "nftables",
        "store": "embedded", "counts": {"servicePorts": 1, "containers": 3}, "synced": 5,
        "events": {"syncs": 4}, "degraded": [], "warnings": ["UDP port 30080 is bound by pid 7"]})
}

/// Status of a daemon with one.
pub(crate) fn bad_status() -> Value {
    let mut status = status();
    status["synced"] = Value::Null;
    status["degraded"] = json!(["table ip causeway_services: EPERM; run causewayd as root"]);
    status
}

/// Status of a node among others, one of which does not respond.
pub(crate) fn cluster_status() -> Value {
    let mut status = status();
    status["store"] = json!("etcd");
    status["cluster"] = json!({"endpoints": ["http://172.18.0.10:2379"], "connected": true,
        "revision": 8841, "heldObjects": 0});
    status["subnets"] = json!([{"subnet": "10.0.1.0/24", "lease": "leased"}]);
    status["overlay"] = json!({"kind": "vxlan id 1 port 8472", "underlay": "eth0", "mtu": 1450,
        "vtep": "0e:1a:00:00:00:01", "repairs": 2});
    status["peers"] = json!([
        {"name": "n2", "state": "Ready", "subnets": ["10.0.2.0/24"], "ips": ["172.18.0.3"],
            "vtep": "0e:1a:00:00:00:02", "mtu": 1450, "version": "0.1.0", "age": 7200},
        {"name": "n3", "state": "NotReady", "subnets": [], "ips": ["172.18.0.4", "fd00:172:18::4"],
            "problem": "no heartbeat from its causewayd"}]);
    status["warnings"] = json!(["node n3: no heartbeat from its causewayd"]);
    status
}

/// Status of the same node when the store is away and its subnet another's.
pub(crate) fn cut_off_status() -> Value {
    let mut status = cluster_status();
    status["cluster"] = json!({"endpoints": ["http://172.18.0.10:2379"], "connected": false,
        "away": 192, "reason": "connection refused", "revision": 8841,
        "heldNodes": ["n2", "n3"], "heldObjects": 4});
    status["subnets"] = json!([
        {"subnet": "10.0.1.0/24", "lease": "leased", "expires": 86208},
        {"subnet": "fd00:10:1::/64", "lease": "lost", "owner": "n9"}]);
    status["overlay"]["failure"] = json!("no route to the other nodes");
    status["degraded"] = json!(["store: etcd does not answer (connection refused)"]);
    status
}

/// What describes the service.
pub(crate) fn description() -> Value {
    let endpoint = |n: u8, state: &str, in_rotation: bool| {
        json!({"address": format!("10.0.1.{n}"), "port": 80, "state": state,
            "inRotation": in_rotation, "pod": format!("default/pod{n}"), "node": "n1"})
    };
    json!({"service": web(), "remarks": ["10.96.1.100 is outside the service CIDR"],
        "ports": [{"name": "", "protocol": "TCP",
            "endpoints": [endpoint(2, "ready", true), endpoint(3, "not ready", false)]}]})
}
