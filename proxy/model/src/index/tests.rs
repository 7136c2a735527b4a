mod pods;

use std::net::IpAddr;

use super::*;
use crate::{Endpoint, LabelSet, manifest};

/// Documents and containers as text: `NAME@NODE ADDRESS,.. LABEL=VALUE..`.
fn index(documents: &str, containers: &[&str]) -> Index {
    let mut index = Index::default();
    index.apply(Event::Reset(objects(documents)));
    for container in containers {
        index.apply(attach(container));
    }
    index
}

fn objects(documents: &str) -> Vec<Object> {
    manifest::parse(documents)
        .into_iter()
        .flat_map(|document| document.objects.unwrap_or_else(|refusal| panic!("{refusal}")))
        .collect()
}

fn attach(text: &str) -> Event {
    let mut words = text.split(' ');
    let (name, node) = words.next().unwrap().split_once('@').unwrap();
    let ips: Vec<IpAddr> = words.next().unwrap().split(',').map(|ip| ip.parse().unwrap()).collect();
    let labels = words.map(|word| {
        let (key, value) = word.split_once('=').unwrap();
        (key.to_owned(), value.to_owned())
    });
    let record = EndpointRecord {
        key: container(name),
        netns: None,
        ips,
        labels: labels.collect(),
        created: 0,
    };
    Event::Attach { node: node.into(), record }
}

fn container(name: &str) -> EndpointKey {
    EndpointKey { network: "n".into(), container_id: name.into(), ifname: "eth0".into() }
}

fn detach(node: &str, name: &str) -> Event {
    Event::Detach { node: node.into(), key: container(name) }
}

fn health(name: &str, healthy: bool) -> Event {
    Event::Health { node: "n1".into(), key: container(name), healthy }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("default", name)
}

/// Endpoints port by port; what is not ready carries `!`, what is terminating `~`.
fn check(index: &Index, name: &str, ports: &[&str]) {
    let show = |e: &Endpoint| {
        let mark = match (e.ready, e.terminating) {
            (true, _) => "",
            (false, false) => "!",
            (false, true) => "~",
        };
        format!("{}:{}{mark}", e.address, e.port)
    };
    let resolved = index.resolve(&key(name)).unwrap();
    let is: Vec<_> = resolved
        .ports
        .iter()
        .map(|port| port.endpoints.iter().map(show).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(is, ports);
}

const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: http}
  - {name: admin, port: 81, targetPort: 9000}
";

const SLICE: &str = "
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8000}, {name: admin, port: 9000}, {name: other, port: 1}]
endpoints:
- {addresses: [10.0.9.1, 10.0.9.2]}
- {addresses: [10.0.1.1], conditions: {ready: false, serving: true, terminating: true}}
";

/// Rows: P5
#[test]
fn a_named_port_is_each_containers_own() {
    let index = index(
        WEB,
        &[
            "a@n1 10.0.1.1 app=web port.causeway.io/http=8080",
            "b@n1 10.0.1.2 app=web port.causeway.io/http=8081",
            "c@n1 10.0.1.3 app=web",
            "d@n1 10.0.1.4 app=web port.causeway.io/http=none",
            "e@n1 10.0.1.5 app=web port.causeway.io/http=0",
            "f@n1 10.0.1.6 app=other port.causeway.io/http=8080",
        ],
    );
    let all = "10.0.1.1:9000 10.0.1.2:9000 10.0.1.3:9000 10.0.1.4:9000 10.0.1.5:9000";
    check(&index, "web", &["10.0.1.1:8080 10.0.1.2:8081", all]);
}

/// Rows: P4
#[test]
fn addresses_of_families_that_a_service_has_not_are_left_out() {
    let containers = ["a@n1 10.0.1.1,fd00::1 app=web"];
    for (families, wanted) in [
        ("", "10.0.1.1:9000 [fd00::1]:9000"),
        ("  ipFamilies: [IPv4]\n", "10.0.1.1:9000"),
        ("  ipFamilies: [IPv6]\n", "[fd00::1]:9000"),
        ("  ipFamilies: [IPv6, IPv4]\n", "10.0.1.1:9000 [fd00::1]:9000"),
    ] {
        let wanted = wanted.replace(['[', ']'], "");
        check(&index(&format!("{WEB}{families}"), &containers), "web", &["", &wanted]);
    }
}

/// Rows: P5, P6, P7
#[test]
fn containers_and_slices_of_a_service_are_merged() {
    let more = "
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-2, labels: {kubernetes.io/service-name: web}}
addressType: IPv6
ports: [{name: http, port: 8000}]
endpoints: [{addresses: ['fd00::1']}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-3, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8000}, {name: admin, port: 9000, protocol: UDP}]
endpoints: [{addresses: [10.0.9.2, 10.0.9.3]}]
---
apiVersion: v1
kind: Endpoints
metadata: {name: web}
subsets:
- addresses: [{ip: 10.0.9.4}]
  notReadyAddresses: [{ip: 10.0.9.5}]
  ports: [{name: admin, port: 9001}]
- addresses: [{ip: 10.0.9.4}]
  ports: [{name: admin, port: 9002}, {name: http, port: 8001}]
";
    let index = index(
        &format!("{WEB}{SLICE}{more}"),
        &["a@n1 10.0.1.1,fd00::9 app=web port.causeway.io/http=8080"],
    );
    check(
        &index,
        "web",
        &[
            "10.0.1.1:8000~ 10.0.1.1:8080 10.0.9.1:8000 10.0.9.2:8000 10.0.9.3:8000 10.0.9.4:8001 \
             fd00::1:8000 fd00::9:8080",
            // 10.0.1.1:9000 is a ready container, whatever the slice says of it.
            "10.0.1.1:9000 10.0.9.1:9000 10.0.9.2:9000 10.0.9.4:9001 10.0.9.4:9002 10.0.9.5:9001! \
             fd00::9:9000",
        ],
    );
}

/// Rows: P3
#[test]
fn one_number_with_two_protocols_is_two_ports() {
    let text = "
apiVersion: v1
kind: Service
metadata: {name: dns}
spec:
  ports:
  - {name: dns, port: 53, protocol: UDP}
  - {name: dns-tcp, port: 53}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: dns-1, labels: {kubernetes.io/service-name: dns}}
addressType: IPv4
ports: [{name: dns, port: 5353, protocol: UDP}, {name: dns-tcp, port: 5354}]
endpoints: [{addresses: [10.0.9.1]}]
";
    check(&index(text, &[]), "dns", &["10.0.9.1:5353", "10.0.9.1:5354"]);
}

/// Rows: P1, P2
#[test]
fn services_without_rules_are_known_as_such() {
    let text = |spec: &str, labels: &str| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: web, labels: {{{labels}}}}}, spec: \
             {{{spec}}}}}"
        )
    };
    let proxied = |spec: &str, labels: &str| match &objects(&text(spec, labels))[..] {
        [Object::Service(service)] => service.is_proxied(),
        other => panic!("{other:?}"),
    };
    assert!(proxied("ports: [{port: 80}]", ""));
    assert!(!proxied("clusterIP: None", ""));
    assert!(!proxied("type: ExternalName, externalName: example.com", ""));
    for value in ["''", "other"] {
        let label = format!("service.kubernetes.io/service-proxy-name: {value}");
        assert!(!proxied("ports: [{port: 80}]", &label));
    }
    // The label comes and goes.
    let mut index = index(&text("ports: [{port: 80}]", ""), &[]);
    for label in ["service.kubernetes.io/service-proxy-name: x", ""] {
        let changed = text("ports: [{port: 80}]", label);
        let changes = index.apply(Event::Apply(objects(&changed).remove(0)));
        assert_eq!(changes.services.into_iter().collect::<Vec<_>>(), [key("web")]);
        assert_eq!(index.services()[&key("web")].is_proxied(), label.is_empty());
    }
}

/// Rows: P2
#[test]
fn headless_slices_serve_names_only() {
    let slice =
        SLICE.replace("service-name: web", "service-name: web, service.kubernetes.io/headless: ''");
    check(&index(&format!("{WEB}{slice}"), &[]), "web", &["", ""]);
    let headless = format!("{WEB}  clusterIP: None\n{slice}");
    let index = index(&headless, &[]);
    assert_eq!(index.resolve(&key("web")).unwrap().ports[1].endpoints.len(), 3);
}

/// Rows: P65
#[test]
fn health_counts_where_it_is_asked_for_and_not_where_all_are_published() {
    let checked =
        WEB.replace("{name: web}", "{name: checked, annotations: {causeway.io/health-check: tcp}}");
    let published = checked.replace("checked", "published") + "  publishNotReadyAddresses: true\n";
    let mut index = index(
        &format!("{WEB}---{checked}---{published}"),
        &["a@n1 10.0.1.1 app=web port.causeway.io/http=8080"],
    );
    let changes = index.apply(health("a", false));
    assert!(!changes.services.contains(&key("web")));
    assert!(changes.services.contains(&key("checked")));
    check(&index, "web", &["10.0.1.1:8080", "10.0.1.1:9000"]);
    check(&index, "checked", &["10.0.1.1:8080!", "10.0.1.1:9000!"]);
    check(&index, "published", &["10.0.1.1:8080", "10.0.1.1:9000"]);
    let resolved = index.resolve(&key("published")).unwrap();
    assert!(!resolved.ports[0].endpoints[0].serving);
    assert!(index.apply(health("x", true)).services.is_empty());
    index.apply(attach("a@n1 10.0.1.1 app=web port.causeway.io/http=8080 tier=x"));
    check(&index, "checked", &["10.0.1.1:8080!", "10.0.1.1:9000!"]);
    index.apply(attach("a@n1 10.0.1.2 app=web port.causeway.io/http=8080"));
    check(&index, "checked", &["10.0.1.2:8080", "10.0.1.2:9000"]);
    index.apply(health("a", false));
    check(&index, "checked", &["10.0.1.2:8080!", "10.0.1.2:9000!"]);
    index.apply(attach("a@n1 10.0.1.1 app=web port.causeway.io/http=8080"));
    check(&index, "checked", &["10.0.1.1:8080", "10.0.1.1:9000"]);
}

#[test]
fn what_is_known_of_a_container_is_said_of_its_endpoint() {
    let mut index = index(
        WEB,
        &["a@n1 10.0.1.1 app=web causeway.io/pod-name=web-0 causeway.io/pod-namespace=default"],
    );
    let node = "{apiVersion: v1, kind: Node, metadata: {name: n1, labels: \
                {topology.kubernetes.io/zone: z1}}}";
    let changes = index.apply(Event::Apply(objects(node).remove(0)));
    assert!(changes.services.contains(&key("web")) && changes.nodes.contains("n1"));
    let endpoint = index.resolve(&key("web")).unwrap().ports[1].endpoints[0].clone();
    assert_eq!(endpoint.pod.as_deref(), Some(&key("web-0")));
    assert_eq!(endpoint.hostname.as_deref(), Some("web-0"));
    assert_eq!((endpoint.node.as_deref(), endpoint.zone.as_deref()), (Some("n1"), Some("z1")));

    // In another namespace it is none of this service's business.
    let moved = "a@n1 10.0.1.1 app=web causeway.io/pod-namespace=shop";
    assert!(index.apply(attach(moved)).services.contains(&key("web")));
    check(&index, "web", &["", ""]);
    assert!(index.apply(detach("n1", "a")).services.is_empty());
}

#[test]
fn nodes_have_containers_of_their_own_whatever_their_names() {
    let mut index = index(
        WEB,
        &[
            "a@n1 10.0.1.1 app=web",
            "a@n2 10.0.2.1 app=web",
            "b@n2 10.0.2.2 app=web",
            "c@n2 10.0.2.3",
        ],
    );
    check(&index, "web", &["", "10.0.1.1:9000 10.0.2.1:9000 10.0.2.2:9000"]);
    assert_eq!((index.container_count(), index.containers().count()), (4, 4));
    let (one, healthy) = index.container("n2", &container("a")).expect("attached");
    assert_eq!(
        (&*one.node, one.record.ips[0].to_string().as_str(), healthy),
        ("n2", "10.0.2.1", true)
    );
    // What is said of one concerns no other.
    index.apply(Event::Health { node: "n2".into(), key: container("a"), healthy: false });
    assert!(index.container("n1", &container("a")).expect("attached").1);
    assert!(!index.container("n2", &container("a")).expect("attached").1);
    assert!(index.apply(detach("n3", "a")).services.is_empty());
    assert!(index.apply(detach("n1", "b")).services.is_empty());
    assert!(index.apply(detach("n1", "a")).services.contains(&key("web")));
    assert_eq!(index.containers_of("n1").count(), 0);
    check(&index, "web", &["", "10.0.2.1:9000 10.0.2.2:9000"]);
    // A node goes with everything on it.
    assert!(index.apply(Event::NodeGone("n1".into())).services.is_empty());
    assert!(index.apply(Event::NodeGone("n2".into())).services.contains(&key("web")));
    check(&index, "web", &["", ""]);
    assert_eq!((index.container_count(), index.containers().count()), (0, 0));
    // And comes back.
    index.apply(attach("a@n2 10.0.2.1 app=web"));
    check(&index, "web", &["", "10.0.2.1:9000"]);
    assert!(index.container("n2", &container("a")).expect("attached").1);
}

#[test]
fn containers_get_the_hints_that_the_distribution_asks_for() {
    let hints = |distribution: &str| {
        let spec = format!("{WEB}  trafficDistribution: {distribution}\n");
        let mut index = index(&spec, &["a@n1 10.0.1.1 app=web", "b@n2 10.0.2.1 app=web"]);
        let labels = [("topology.kubernetes.io/zone".to_owned(), "z1".to_owned())].into();
        index.apply(Event::NodeLabels { node: "n1".to_owned(), labels: Some(labels) });
        let endpoints = index.resolve(&key("web")).expect("a service").ports[1].endpoints.clone();
        let text = |names: &[Box<str>]| names.join(",");
        let hints = endpoints.iter().map(|endpoint| match endpoint.hints.as_deref() {
            Some(hints) => format!("{}/{}", text(&hints.for_nodes), text(&hints.for_zones)),
            None => "none".to_owned(),
        });
        hints.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(hints("PreferSameNode"), "n1/z1 n2/");
    assert_eq!(hints("PreferSameZone"), "/z1 /");
    assert_eq!(hints("PreferClose"), "/z1 /");
    assert_eq!(hints("null"), "none none");
}

#[test]
fn what_a_node_says_of_its_labels_lies_under_its_document() {
    let mut index = index(WEB, &["a@n1 10.0.1.1 app=web", "b@n2 10.0.2.1"]);
    let labels = |text: &str| {
        let pairs = text.split(' ').map(|word| word.split_once('=').expect("a pair"));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect::<Labels>()
    };
    let said = |node: &str, text: Option<&str>| Event::NodeLabels {
        node: node.to_owned(),
        labels: text.map(labels),
    };
    let zone = |index: &Index| {
        let resolved = index.resolve(&key("web")).expect("a service");
        resolved.ports[1].endpoints[0].zone.as_deref().map(str::to_owned)
    };
    let concerned = |changes: &Changes| {
        (changes.nodes.iter().cloned().collect::<Vec<_>>().join(" "), changes.services.len())
    };
    let mut tell = |event| {
        let changes = index.apply(event);
        (concerned(&changes), zone(&index))
    };
    let node = "{apiVersion: v1, kind: Node, metadata: {name: n1, labels: \
                {topology.kubernetes.io/zone: z9, a: document}}}";
    let first = said("n1", Some("topology.kubernetes.io/zone=z1 a=node b=node"));
    let z = |name: &str| Some(name.to_owned());
    let (n1, none) = ("n1".to_owned(), String::new());
    assert_eq!(tell(first.clone()), ((n1.clone(), 1), z("z1")));
    assert_eq!(tell(first.clone()), ((none.clone(), 0), z("z1")));
    assert_eq!(tell(said("n2", Some("topology.kubernetes.io/zone=z2"))).0.1, 0);
    assert_eq!(tell(Event::Apply(objects(node).remove(0))), ((n1.clone(), 1), z("z9")));
    // Under the document: no zone becomes another.
    let moved = said("n1", Some("topology.kubernetes.io/zone=z3 b=node"));
    assert_eq!(tell(moved), ((n1.clone(), 0), z("z9")));
    // A node that is gone keeps its labels until they are said to be gone.
    assert_eq!(tell(Event::Delete(ObjectKind::Node, ObjectKey::new("", "n1"))).1, z("z3"));
    assert_eq!(tell(Event::Apply(objects(node).remove(0))), ((n1.clone(), 1), z("z9")));
    let all = index.node_labels("n1");
    assert_eq!(all, labels("topology.kubernetes.io/zone=z9 a=document b=node"));
    index.apply(said("n1", None));
    assert_eq!(index.node_labels("n1"), labels("topology.kubernetes.io/zone=z9 a=document"));
    index.apply(Event::Delete(ObjectKind::Node, ObjectKey::new("", "n1")));
    assert!(index.node_labels("n1").is_empty() && zone(&index).is_none());
    assert!(index.apply(said("n1", None)).nodes.is_empty());
}

/// A slice that comes to another service, and services that come and go while the slice stays.
#[test]
fn slices_wait_for_their_service() {
    let mut index = index(SLICE, &[]);
    assert!(index.resolve(&key("web")).is_none());
    let changes = index.apply(Event::Apply(objects(WEB).remove(0)));
    assert!(changes.services.contains(&key("web")));
    check(
        &index,
        "web",
        &[
            "10.0.1.1:8000~ 10.0.9.1:8000 10.0.9.2:8000",
            "10.0.1.1:9000~ 10.0.9.1:9000 10.0.9.2:9000",
        ],
    );
    assert_eq!(index.slices_of(&key("web")).count(), 1);
    index.apply(Event::Delete(ObjectKind::EndpointSlice, key("web-1")));
    check(&index, "web", &["", ""]);
    assert_eq!(index.slices_of(&key("web")).count(), 0);
    let changes = index.apply(Event::Delete(ObjectKind::Service, key("web")));
    assert!(changes.services.contains(&key("web")));
}

#[test]
fn labels_keep_whatever_is_in_them() {
    let pairs = [("b", ""), ("a", "1:2\u{0}é"), ("", "x"), ("b", "last")];
    let set: LabelSet = pairs.into_iter().collect();
    let all: Vec<_> = set.iter().collect();
    assert_eq!(all, [("", "x"), ("a", "1:2\u{0}é"), ("b", "last")]);
    assert_eq!((set.len(), set.get("b"), set.get("c")), (3, Some("last"), None));
    assert_eq!(set.to_map().into_iter().collect::<LabelSet>(), set);
    assert!(LabelSet::default().is_empty());
}

/// Rows: RD4
#[test]
fn a_headless_service_without_ports_has_addresses() {
    const HEADLESS: &str = "
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.9]}, {addresses: [10.0.0.8], conditions: {ready: false}}]
---
apiVersion: v1
kind: Service
metadata: {name: other}
spec: {type: ExternalName, externalName: db.example.com, selector: {app: db}}
";
    let containers =
        ["a@n1 10.0.0.2,fd00::2 app=db", "b@n1 10.0.0.3 app=db", "c@n1 10.0.0.4 app=x"];
    let index = index(HEADLESS, &containers);
    check(&index, "db", &["10.0.0.2:0 10.0.0.3:0 10.0.0.8:0! 10.0.0.9:0 fd00::2:0"]);
    check(&index, "other", &[]);
}

/// Rows: RB6
#[test]
fn a_network_outside_the_cluster_networks_counts_on_its_own_node() {
    let containers = [
        "a@n1 10.0.1.2 app=web",
        "b@n1 10.4.0.2 app=web",
        "c@n2 10.0.2.2 app=web",
        "d@n2 10.4.0.2 app=web",
        "e@n2 10.4.0.3,fd00:2::3 app=web",
    ];
    let seen_by = |node: &str| {
        let networks = vec!["10.0.0.0/16".parse().expect("a network")];
        let mut index = Index::at(Home { node: node.into(), networks, ..Home::default() });
        for object in objects(WEB) {
            index.apply(Event::Apply(object));
        }
        for text in containers {
            index.apply(attach(text));
        }
        index
    };
    let of = |node: &str| {
        let index = seen_by(node);
        let resolved = index.resolve(&key("web")).expect("it is there");
        let endpoints = resolved.ports[1].endpoints.iter();
        endpoints.map(|one| one.address.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(of("n1"), ["10.0.1.2", "10.0.2.2", "10.4.0.2", "fd00:2::3"]);
    assert_eq!(of("n2"), ["10.0.1.2", "10.0.2.2", "10.4.0.2", "10.4.0.3", "fd00:2::3"]);
    assert_eq!(of("n3"), ["10.0.1.2", "10.0.2.2", "fd00:2::3"]);
    let away = |node: &str| {
        let away = seen_by(node).out_of_reach(&key("web")).into_iter();
        away.map(|(node, ip)| format!("{ip}@{node}")).collect::<Vec<_>>()
    };
    assert_eq!(away("n1"), ["10.4.0.2@n2", "10.4.0.3@n2"]);
    assert_eq!(away("n2"), ["10.4.0.2@n1"]);
}

/// Rows: RH6
#[test]
fn what_is_over_the_limits_is_left_out_by_name_and_the_rest_stays() {
    let ports = |count: u16| -> String {
        (1..=count).map(|number| format!("{{ name: p{number}, port: {number} }},")).collect()
    };
    let web = |count| {
        format!(
            "{{ apiVersion: v1, kind: Service, metadata: {{ name: web }}, \
             spec: {{ clusterIP: 10.96.0.1, selector: {{ app: web }}, ports: [{}] }} }}\n",
            ports(count)
        )
    };
    let slice = |name: &str, count: u16, addresses: std::ops::Range<u16>| {
        let addresses = addresses.map(|number| format!("{{ addresses: [10.1.1.{number}] }},"));
        format!(
            "---\n{{ apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, \
             metadata: {{ name: {name}, labels: {{ kubernetes.io/service-name: web }} }}, \
             ports: [{}], endpoints: [{}] }}\n",
            ports(count),
            addresses.collect::<String>()
        )
    };
    let texts = [web(10_000), slice("a", 10_000, 0..60), slice("b", 10_000, 60..100)];
    let mut index = index(&texts.concat(), &["c1@n1 10.0.0.1 app=web"]);
    let resolved = index.resolve(&key("web")).unwrap();
    let left_out = &resolved.left_out;
    // Containers first, then slices by name.
    assert_eq!(resolved.ports[9999].endpoints.len(), 61);
    let excess = Excess::Ways(1_010_000);
    assert_eq!(left_out.slices, [(key("b"), excess)]);
    assert_eq!((&left_out.service, &left_out.containers), (&None, &None));

    // A smaller one has room.
    index.apply(Event::Apply(objects(&slice("c", 9999, 60..99)).remove(0)));
    let resolved = index.resolve(&key("web")).unwrap();
    assert_eq!(resolved.ports[0].endpoints.len(), 100);
    assert_eq!(resolved.ports[9999].endpoints.len(), 61);

    index.apply(Event::Apply(objects(&web(10_001)).remove(0)));
    let resolved = index.resolve(&key("web")).unwrap();
    assert_eq!(resolved.left_out.service, Some(Excess::Ports(10_001)));
    assert!(resolved.ports.iter().all(|port| port.endpoints.is_empty()));
}
