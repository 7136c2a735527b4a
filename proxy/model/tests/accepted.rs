//! Documents that are accepted: what each field comes to. And large ones that must do no harm.

use causeway_model::manifest::{Document, parse};
use causeway_model::{
    Balance, EndpointSlice, Ingress, IpFamily, IpFamilyPolicy, Node, Object, Service, ServiceType,
    TargetPort, TrafficDistribution, TrafficPolicy,
};

fn objects(text: &str) -> Vec<Object> {
    let objects = |document: Document| {
        assert_eq!((&*document.warnings, &*document.unknown), (&[][..], &[][..]));
        document.objects.unwrap_or_else(|refusal| panic!("{}", refusal.at("text")))
    };
    parse(text).into_iter().flat_map(objects).collect()
}

fn service(spec: &str) -> Service {
    let text = format!("apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\n{spec}");
    match objects(&text).as_slice() {
        [Object::Service(service)] => service.clone(),
        other => panic!("{other:?}"),
    }
}

fn slices(text: &str) -> Vec<EndpointSlice> {
    let slice = |object| match object {
        Object::EndpointSlice(slice) => slice,
        Object::Service(_) | Object::Node(_) => panic!("{object:?}"),
    };
    objects(text).into_iter().map(slice).collect()
}

#[test]
fn what_is_not_said_is_as_in_kubernetes() {
    let service = service("spec: {ports: [{port: 80}]}");
    assert_eq!(*service.key.namespace, *"default");
    assert_eq!(service.service_type, ServiceType::ClusterIp);
    assert_eq!(service.ports[0].target, TargetPort::Number(80));
    assert_eq!(service.ports[0].protocol.name(), "TCP");
    assert_eq!(service.affinity, None);
    assert_eq!(service.internal_policy, TrafficPolicy::Cluster);
    assert_eq!(service.external_policy, TrafficPolicy::Cluster);
    assert_eq!(service.ip_family_policy, IpFamilyPolicy::SingleStack);
    assert_eq!(service.balance, Balance::Random);
    assert!(service.allocate_node_ports && !service.publish_not_ready && !service.headless);
}

/// Rows: P54, P55, P56, P98
#[test]
fn addresses_from_outside_are_read_with_their_modes() {
    let service = service(
        "spec:
  type: LoadBalancer
  allocateLoadBalancerNodePorts: false
  externalIPs: [192.0.2.1, 'fd00::1']
  loadBalancerSourceRanges: [10.0.0.0/8, 'fd00::/64']
  loadBalancerIP: 192.0.2.9
  ports: [{port: 80}]
status:
  loadBalancer:
    ingress:
    - ip: 192.0.2.2
    - ip: 192.0.2.3
      ipMode: VIP
    - ip: 192.0.2.4
      ipMode: Proxy
    - hostname: lb.example.com
",
    );
    assert_eq!(service.external_ips.len(), 2);
    assert_eq!(service.source_ranges.len(), 2);
    assert!(!service.allocate_node_ports);
    let ip = |last, proxy| Ingress { ip: Some([192, 0, 2, last].into()), hostname: None, proxy };
    let name = Ingress { ip: None, hostname: Some("lb.example.com".into()), proxy: false };
    assert_eq!(*service.ingress, [ip(2, false), ip(3, false), ip(4, true), name]);
}

/// Rows: P65
#[test]
fn policies_affinity_and_publishing_are_read() {
    let service = service(
        "spec:
  type: NodePort
  externalTrafficPolicy: Local
  internalTrafficPolicy: Local
  publishNotReadyAddresses: true
  sessionAffinity: ClientIP
  trafficDistribution: PreferClose
  ipFamilies: [IPv6, IPv4]
  ports: [{port: 80, nodePort: 0, targetPort: 0}]
",
    );
    assert_eq!(service.external_policy, TrafficPolicy::Local);
    assert_eq!(service.internal_policy, TrafficPolicy::Local);
    assert!(service.publish_not_ready);
    assert_eq!(service.affinity, Some(10_800));
    assert_eq!(service.traffic_distribution, Some(TrafficDistribution::PreferClose));
    assert_eq!(service.ip_families, [IpFamily::V6, IpFamily::V4]);
    assert_eq!(service.ip_family_policy, IpFamilyPolicy::RequireDualStack);
    assert_eq!(
        (service.ports[0].node_port, &service.ports[0].target),
        (None, &TargetPort::Number(80))
    );
}

/// Rows: P65, P68
#[test]
fn conditions_and_hints_of_slices_are_read() {
    let slices = slices(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 80}, {name: all}]
endpoints:
- addresses: [10.0.0.1]
- addresses: [10.0.0.2]
  conditions: {ready: false}
- addresses: [10.0.0.3]
  conditions: {ready: false, serving: true, terminating: true}
  zone: z1
  hints: {forZones: [{name: z1}, {name: z2}], forNodes: [{name: n1}]}
- addresses: [10.0.0.4]
  conditions: {ready: null}
",
    );
    let conditions: Vec<_> =
        slices[0].endpoints.iter().map(|one| (one.ready, one.serving, one.terminating)).collect();
    let ready = (true, true, false);
    assert_eq!(conditions, [ready, (false, false, false), (false, true, true), ready]);
    let hints = slices[0].endpoints[2].hints.as_deref().expect("hints");
    assert_eq!(
        (&*hints.for_zones, &*hints.for_nodes),
        (&["z1".into(), "z2".into()][..], &["n1".into()][..])
    );
    assert_eq!((slices[0].ports[0].port, slices[0].ports[1].port), (Some(80), None));
    assert_eq!(slices[0].service(), Some("web"));
}

#[test]
fn endpoints_become_slices_by_subset_and_family() {
    let slices = slices(
        "apiVersion: v1
kind: Endpoints
metadata: {name: db, namespace: shop}
subsets:
- addresses: [{ip: 10.0.0.1, nodeName: n1, targetRef: {kind: Pod, name: db-0}}, {ip: 'fd00::1'}]
  notReadyAddresses: [{ip: 10.0.0.2}]
  ports: [{port: 5432}]
- addresses: [{ip: 10.0.0.1}]
  ports: [{name: metrics, port: 9187}]
",
    );
    let shown: Vec<_> = slices
        .iter()
        .map(|slice| {
            assert!(slice.from_endpoints() && slice.service() == Some("db"));
            let ready: Vec<_> = slice.endpoints.iter().map(|one| one.ready).collect();
            (slice.key.to_string(), slice.family, slice.ports[0].port, ready)
        })
        .collect();
    let name = |number| format!("shop/db.endpoints.{number}");
    assert_eq!(
        shown,
        [
            (name(0), IpFamily::V4, Some(5432), vec![true, false]),
            (name(1), IpFamily::V6, Some(5432), vec![true]),
            (name(2), IpFamily::V4, Some(9187), vec![true]),
        ]
    );
    let pod = slices[0].endpoints[0].target.as_deref().map(ToString::to_string);
    assert_eq!(pod.as_deref(), Some("shop/db-0"));
}

#[test]
fn nodes_have_labels_and_addresses() {
    let text = "apiVersion: v1
kind: Node
metadata: {name: node1.example, labels: {topology.kubernetes.io/zone: z1}}
status:
  addresses: [{type: Hostname, address: node1}, {type: InternalIP, address: 192.0.2.1}]
";
    let [Object::Node(Node { key, labels, addresses, .. })] = &objects(text)[..] else {
        panic!("no node")
    };
    assert_eq!(key.to_string(), "node1.example");
    assert_eq!(labels.get("topology.kubernetes.io/zone"), Some("z1"));
    assert_eq!(**addresses, [std::net::IpAddr::from([192, 0, 2, 1])]);
}

/// Aliases, merge keys, tags, comments, a byte order mark, line ends of Windows, JSON with tabs.
#[test]
fn all_of_yaml_that_people_use_is_read() {
    let text = "\u{feff}# mine\r
---\r
x-common: &common {app: web}\r
apiVersion: v1\r
kind: 'Service'\r
metadata:\r
  name: !!str web # a comment\r
  annotations: {text: |\r
  }\r
";
    assert!(parse(text)[0].objects.is_err(), "a block scalar in braces");
    let text = "\u{feff}# mine\r
---\r
apiVersion: v1\r
kind: 'Service'\r
metadata:\r
  name: !!str web # a comment\r
  labels: &common {app: web, on: \"yes\", number: '1'}\r
  annotations:\r
    text: >-\r
      two\r
      lines\r
    nothing: \r
spec:\r
  selector: {<<: *common, app: \"db\"}\r
  ports:\r
  - {port: 0x50, targetPort: http}\r
...\r
---\r
";
    let [Object::Service(service)] = &objects(text)[..] else { panic!("no service") };
    assert_eq!(service.annotations.get("text"), Some("two lines"));
    assert_eq!(service.annotations.get("nothing"), Some(""));
    let selector: Vec<_> = service.selector.iter().collect();
    assert_eq!(selector, [("app", "db"), ("number", "1"), ("on", "yes")]);
    assert_eq!(service.ports[0].port, 80);
    let json = "{\n\t\"apiVersion\": \"v1\",\t\"kind\": \"Service\",\n\t\"metadata\": {\"name\": \"web\"},\n\t\
                \"spec\": {\"ports\": [{\"port\": 80, \"appProtocol\": \"example.com\\/x\"}]}\n}\n";
    assert_eq!(objects(json).len(), 1);
}

/// Much of what makes some parser slow, or deep.
#[test]
fn a_heap_of_anything_does_no_harm() {
    let many = |text: &str| text.repeat((1 << 18) / text.len());
    let keys: String = (0..20_000).map(|number| format!("key-{number}: x\n")).collect();
    let merges = format!("a: &a {{x: y}}\nb: {{{}}}\n", "<<: *a, ".repeat(25_000));
    let anchors: String =
        (0..12_000).map(|number| format!("- &a{number} x\n- *a{number}\n")).collect();
    let inputs = [
        many("["),
        many("{"),
        many("{a: "),
        many("- "),
        many("? "),
        many("a: "),
        many("&a "),
        many("!!str "),
        many("---\n"),
        many("--- [\n"),
        many("a:\n"),
        many("\""),
        many("'a' "),
        many("|\n"),
        many("#"),
        many("\n"),
        many("\t"),
        many("a"),
        many("a "),
        many("%A b\n"),
        many("*a "),
        many("<<: "),
        many("[],"),
        many("\\"),
        many("\u{0}"),
        many("é"),
        many("- a\n"),
        many("{},"),
        format!("\"{}\"", many("\\u0041")),
        keys,
        merges,
        anchors,
        format!("apiVersion: v1\nkind: List\nitems:\n{}", many("- {}\n")),
    ];
    for text in inputs {
        let start: String = text.chars().take(20).collect();
        assert!(parse(&text).len() <= text.len(), "{start}");
    }
}

/// Every field of Kubernetes 1.37 is known, whether it is read or not.
/// Rows: RB9
#[test]
fn all_that_kubernetes_writes_is_known() {
    let text = include_str!("known.yaml");
    let documents = parse(text);
    assert_eq!(documents.len(), 4);
    for document in documents {
        assert_eq!((&*document.unknown, &*document.warnings), (&[][..], &[][..]));
        assert!(document.objects.is_ok(), "{document:?}");
    }
}

/// Rows: RD7
#[test]
fn an_empty_list_map_or_text_counts_as_unset() {
    let bare = service("spec: {ports: [{port: 80}]}");
    let empty = service(
        "spec:
  type: ClusterIP
  clusterIPs: []
  externalIPs: []
  externalName: ''
  ipFamilies: []
  loadBalancerClass: ''
  loadBalancerIP: ''
  loadBalancerSourceRanges: []
  selector: {}
  sessionAffinityConfig: {}
  ports: [{port: 80}]
status: {loadBalancer: {ingress: []}}
",
    );
    assert_eq!(empty, bare);
    let name = service(
        "spec: {type: ExternalName, externalName: a.example.com, clusterIPs: [], ipFamilies: [], \
         loadBalancerSourceRanges: []}",
    );
    assert_eq!(name.misplaced, None);
}

/// Rows: RB9
#[test]
fn each_field_has_its_line() {
    let text = "apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: 10.96.0.1
  ports:
  - port: 80
    nodePort: 30080
  - {port: 81, name: b}
";
    let document = &parse(text)[0];
    for (field, line) in [
        ("spec.clusterIP", 5),
        ("spec.ports[0].nodePort", 8),
        ("spec.ports[1].nodePort", 9),
        ("spec.ports[10].nodePort", 6),
        ("spec.healthCheckNodePort", 4),
        ("metadata.name", 1),
        ("", 1),
    ] {
        assert_eq!(document.line_of(field), line, "{field}");
    }
}
