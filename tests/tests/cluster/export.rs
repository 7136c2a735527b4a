//! What one store has, written into another one by `get` and `apply`.

use causeway_tests::cluster::{Cluster, Setup};
use causeway_tests::{Daemon, Finished, Lab, bins, finish};
use serde_json::Value;

/// A service of every shape, with and without selector, and what stands behind those without.
const WORLD: &str = r"
apiVersion: v1
kind: Service
metadata: { name: web, annotations: { causeway.io/balance: round-robin, note: '80: yes' }, labels: { tier: front } }
spec:
  type: NodePort
  clusterIP: 10.96.1.100
  selector: { app: web }
  sessionAffinity: ClientIP
  sessionAffinityConfig: { clientIP: { timeoutSeconds: 77 } }
  trafficDistribution: PreferSameNode
  ports: [{ name: http, port: 8080, targetPort: http, nodePort: 30080 }, { name: dns, port: 53, protocol: UDP }]
---
apiVersion: v1
kind: Service
metadata: { name: both, namespace: shop }
spec: { ipFamilyPolicy: RequireDualStack, selector: { app: web }, ports: [{ port: 80 }], internalTrafficPolicy: Local }
---
apiVersion: v1
kind: Service
metadata: { name: headless, namespace: shop }
spec: { clusterIP: None, selector: { app: web }, publishNotReadyAddresses: true }
---
apiVersion: v1
kind: Service
metadata: { name: out }
spec: { type: ExternalName, externalName: api.ipify.org }
---
apiVersion: v1
kind: Service
metadata: { name: lb }
spec:
  type: LoadBalancer
  selector: { app: web }
  externalTrafficPolicy: Local
  externalIPs: [192.0.2.77]
  loadBalancerSourceRanges: [203.0.113.0/24]
  ports: [{ port: 80, targetPort: 8080 }]
status: { loadBalancer: { ingress: [{ ip: 192.0.2.80, ipMode: VIP }] } }
---
apiVersion: v1
kind: Service
metadata: { name: db }
spec: { ipFamilyPolicy: RequireDualStack, ports: [{ name: sql, port: 5432 }] }
---
apiVersion: v1
kind: Endpoints
metadata: { name: db }
subsets:
- { ports: [{ name: sql, port: 5432 }], addresses: [{ ip: 192.0.2.9 }, { ip: '2001:db8::9' }], notReadyAddresses: [{ ip: 192.0.2.10 }] }
---
apiVersion: v1
kind: Service
metadata: { name: far }
spec: { ports: [{ port: 80 }] }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: far-1, labels: { kubernetes.io/service-name: far } }
addressType: IPv4
ports: [{ port: 8080, protocol: TCP }]
endpoints:
- { addresses: [192.0.2.20], conditions: { ready: true }, zone: a, nodeName: node1 }
- { addresses: [192.0.2.21], conditions: { ready: false, serving: true, terminating: true } }
";

const ALL: &str = "get services,endpointslices -A -o";

/// `causeway` with words split at spaces.
fn ctl(daemon: &Daemon<'_>, words: &str, stdin: &str) -> Finished {
    let mut command = daemon.node().command(bins::ours("causeway"));
    command.arg("--socket").arg(daemon.socket()).args(words.split_whitespace());
    finish(command, stdin.as_bytes())
}

/// The objects, without what each store says of its own: when it made them.
fn objects(daemon: &Daemon<'_>) -> Vec<Value> {
    let text = ctl(daemon, &format!("{ALL} json"), "").ok();
    let list: Value = serde_json::from_str(&text).expect("JSON");
    let mut items = list["items"].as_array().expect("a list").clone();
    for item in &mut items {
        item["metadata"].as_object_mut().expect("metadata").remove("creationTimestamp");
    }
    items
}

/// Writes what `from` has into `to`; every object must be reported so.
fn carry(from: &Daemon<'_>, to: &Daemon<'_>, format: &str, outcome: &str) {
    let exported = ctl(from, &format!("{ALL} {format}"), "").ok();
    let applied = ctl(to, "apply -f -", &exported);
    assert_eq!(applied.code(), 0, "{applied:?}");
    let said = String::from_utf8_lossy(&applied.stdout).into_owned();
    assert!(said.lines().all(|line| line.ends_with(outcome)), "{outcome}: {said}");
    assert_eq!(objects(to), objects(from), "{format}");
}

/// Rows: C-16
#[test]
fn all_objects_are_carried_from_one_store_to_another_and_back() {
    let lab = Lab::with_nodes(2);
    let cluster = Cluster::start(&lab, Setup { nodes: 1, ..Setup::default().dual() });
    let shared = &cluster.daemons[0];
    let cidrs = ["--service-cidr", "10.96.0.0/16,fd00:96::/112"];
    let single = Daemon::start_with(&lab.nodes[1], &cidrs);
    ctl(&single, "apply -f -", WORLD).ok();
    let before = objects(&single);
    assert_eq!(before.len(), 10, "seven services, three slices: {before:?}");

    carry(&single, shared, "json", "created");
    for format in ["json", "yaml"] {
        carry(&single, shared, format, "unchanged");
        carry(shared, &single, format, "unchanged");
    }
    assert_eq!(objects(&single), before);
    assert_eq!(cluster.etcd.keys("/causeway/v1/objects/service/").len(), 7);
    // `Endpoints` are still one document: another version of it replaces both slices.
    let other = "{apiVersion: v1, kind: Endpoints, metadata: {name: db}, \
                  subsets: [{ports: [{name: sql, port: 5432}], addresses: [{ip: 192.0.2.11}]}]}";
    let said = ctl(shared, "apply -f -", other).ok();
    assert_eq!(said, "endpoints/db configured\n");
    let slices = ctl(shared, "get endpointslices -o name", "").ok();
    assert_eq!(slices.lines().count(), 2, "{slices}");

    for service in ["web", "out", "lb", "db", "far"] {
        ctl(&single, &format!("delete service {service}"), "").ok();
    }
    ctl(&single, "delete service both headless -n shop", "").ok();
    carry(shared, &single, "yaml", "");
}
