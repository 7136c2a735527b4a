//! From Kubernetes documents to what becomes of packets.

use causeway_model::{
    EndpointKey, EndpointRecord, Event, Index, Labels, ObjectKey, ObjectKind, manifest,
};
use causeway_ruleset::plan::Plan;
use causeway_ruleset::testing::{facts, flows};

/// The facts of documents, and the plan kept up to date with each.
struct World {
    index: Index,
    plan: Plan,
}

impl World {
    fn of(documents: &str) -> Self {
        let mut world = Self { index: Index::default(), plan: Plan::new(facts()) };
        world.apply(documents);
        world
    }

    fn apply(&mut self, documents: &str) {
        for document in manifest::parse(documents) {
            let objects = document.objects.unwrap_or_else(|refusal| panic!("{refusal}"));
            objects.into_iter().for_each(|object| self.event(Event::Apply(object)));
        }
    }

    fn event(&mut self, event: Event) {
        let changes = self.index.apply(event);
        let index = &self.index;
        self.plan.update(&changes.services, &|key| index.resolve(key));
    }
}

const WEB: &str = "
apiVersion: v1
kind: Service
metadata: { name: web, namespace: default }
spec:
  type: NodePort
  clusterIP: 172.30.0.1
  ports:
    - { name: http, port: 80, targetPort: web, nodePort: 30001 }
    - { name: admin, port: 81, targetPort: 9000, nodePort: 30002 }
    - { name: dns, port: 80, protocol: UDP, targetPort: 53, nodePort: 30001 }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: web-1, namespace: default, labels: { kubernetes.io/service-name: web } }
addressType: IPv4
ports:
  - { name: http, port: 8080 }
  - { name: admin, port: 9000 }
endpoints:
  - { addresses: [10.0.1.2, 10.0.1.3], nodeName: n1 }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: web-2, namespace: default, labels: { kubernetes.io/service-name: web } }
addressType: IPv4
ports:
  - { name: http, port: 8081 }
  - { name: dns, protocol: UDP, port: 5353 }
endpoints:
  - { addresses: [10.0.1.3], nodeName: n1, conditions: { ready: true } }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: web-3, namespace: default, labels: { kubernetes.io/service-name: web } }
addressType: IPv4
ports:
  - { name: http, port: 8080 }
endpoints:
  - { addresses: [10.0.1.2], nodeName: n1, conditions: { ready: false } }
  - { addresses: [10.0.2.2], nodeName: n2 }
";

/// Rows: P3, P5, P6, P7, P10
#[test]
fn slices_of_a_service_are_one_list_of_endpoints_for_each_port() {
    let world = World::of(WEB);
    flows(
        &world.plan,
        "10.0.9.9 -> 172.30.0.1:80/tcp => 10.0.1.2:8080 10.0.1.3:8080 10.0.1.3:8081 10.0.2.2:8080
         10.0.9.9 -> 172.30.0.1:81/tcp => 10.0.1.2:9000 10.0.1.3:9000
         10.0.9.9 -> 172.30.0.1:80/udp => 10.0.1.3:5353
         node -> 192.168.0.1:30001/udp => 10.0.1.3:5353 masq
         node -> 192.168.0.1:30002/tcp => 10.0.1.2:9000 masq 10.0.1.3:9000 masq",
    );
}

/// Rows: P16
#[test]
fn slices_that_go_take_their_endpoints_along() {
    let mut world = World::of(WEB);
    for name in ["web-1", "web-2"] {
        let key = ObjectKey::new("default", name);
        world.event(Event::Delete(ObjectKind::EndpointSlice, key));
    }
    flows(
        &world.plan,
        "10.0.9.9 -> 172.30.0.1:80/tcp => 10.0.2.2:8080
         10.0.9.9 -> 172.30.0.1:81/tcp => reject
         10.0.9.9 -> 172.30.0.1:80/udp => reject",
    );
    world.event(Event::Reset(Vec::new()));
    flows(&world.plan, "10.0.9.9 -> 172.30.0.1:80/tcp => drop");
    assert!(world.plan.services.is_empty());
}

const SELECTED: &str = "
apiVersion: v1
kind: Service
metadata: { name: pods, namespace: default }
spec:
  clusterIPs: [172.30.0.2, 'fd00:30::2']
  ipFamilyPolicy: RequireDualStack
  internalTrafficPolicy: Local
  selector: { app: web }
  ports: [{ port: 80, targetPort: http }]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: pods-1, namespace: default, labels: { kubernetes.io/service-name: pods } }
addressType: IPv4
ports: [{ port: 8080 }]
endpoints: [{ addresses: [10.0.2.2], nodeName: n2 }]
";

fn container(id: &str, ips: &[&str], port: &str) -> Event {
    let key = EndpointKey {
        network: "net".to_owned(),
        container_id: id.to_owned(),
        ifname: "eth0".to_owned(),
    };
    let labels = [("app", "web"), ("port.causeway.io/http", port)];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let record = EndpointRecord {
        key,
        netns: None,
        ips: ips.iter().map(|ip| ip.parse().expect("an address")).collect(),
        labels: Labels::from(labels),
        created: 0,
    };
    Event::Attach { node: "n1".into(), record }
}

/// Rows: P4, P5, P17, P39
#[test]
fn containers_serve_from_attach_to_detach() {
    let mut world = World::of(SELECTED);
    flows(
        &world.plan,
        "10.0.9.9     -> 172.30.0.2:80/tcp   => drop
         fd00:10::9:9 -> [fd00:30::2]:80/tcp => reject",
    );
    world.event(container("one", &["10.0.1.2", "fd00:10:0:1::2"], "8080"));
    world.event(container("two", &["10.0.1.3"], "9090"));
    flows(
        &world.plan,
        "10.0.9.9     -> 172.30.0.2:80/tcp   => 10.0.1.2:8080 10.0.1.3:9090
         10.0.1.3     -> 172.30.0.2:80/tcp   => 10.0.1.2:8080 10.0.1.3:9090 masq
         fd00:10::9:9 -> [fd00:30::2]:80/tcp => [fd00:10:0:1::2]:8080",
    );
    let one = EndpointKey {
        network: "net".to_owned(),
        container_id: "one".to_owned(),
        ifname: "eth0".to_owned(),
    };
    world.event(Event::Detach { node: "n1".into(), key: one });
    flows(
        &world.plan,
        "10.0.9.9     -> 172.30.0.2:80/tcp   => 10.0.1.3:9090
         fd00:10::9:9 -> [fd00:30::2]:80/tcp => reject",
    );
}
