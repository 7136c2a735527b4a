//! Services by example, as the README shows them: manifests applied by `causeway`, containers
//! attached by CNI, real packets, the real daemon, both backends.

mod balancers;
mod commands;
mod world;

use std::io;

use causeway_tests::traffic::Server;
use causeway_tests::{Lab, Ns};
use world::{Container, NODE, World, on_both_backends, on_both_backends_with};

/// The tutorial's manifest, as it stands.
const NODEPORT: &str = include_str!("../../../conf/nodeport.yaml");

/// The tutorial's other one.
const CLUSTERIP: &str = "apiVersion: v1
kind: Service
metadata:
  name: http-server-svc
spec:
  type: ClusterIP
  clusterIP: 10.96.1.100
  ports:
    - protocol: TCP
      port: 8080
      targetPort: 80
  selector:
    app: cs-pod
";

/// Names that answer to so many new connections, in order.
#[track_caller]
fn answers(from: &Ns, to: &str, count: usize) -> Vec<String> {
    let mut names = Vec::new();
    for number in 1..=count {
        match from.tcp(to) {
            Ok(answer) => names.push(answer.hostname),
            Err(error) => panic!("{to} from {}, connection {number}: {error}", from.name()),
        }
    }
    names
}

/// All of `names` answer within 64 connections, and nobody else. One of three misses so many
/// random draws once in 10^11 runs.
#[track_caller]
fn reaches(from: &Ns, to: &str, names: &[&str]) {
    let mut got = answers(from, to, 64);
    got.sort();
    got.dedup();
    assert_eq!(got, names, "{to} from {}", from.name());
}

/// A new connection is refused at once, not left without an answer.
#[track_caller]
fn refused(from: &Ns, to: &str) {
    let error = from.tcp(to).expect_err("a refusal");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{to} from {}", from.name());
}

/// Rows: P9, P11, P17, P20, P23, P42, U-08, S-44
#[test]
fn nodeport_of_the_tutorial() {
    on_both_backends(|world| {
        world.apply(NODEPORT, &["service/http-server-svc created"]);
        world.apply(NODEPORT, &["service/http-server-svc unchanged"]);
        let vip = format!("{}:8080", world.cluster_ip("http-server-svc"));
        let mut pods = ["pod1a", "pod1b", "pod1c"].map(|name| Some(world.pod(name, "app:cs-pod")));
        let other = world.pod("other", "app:else");
        let ports = world.ctl("get svc http-server-svc", "").ok();
        assert!(ports.contains(" NodePort ") && ports.contains("8080:30080/TCP"), "{ports}");
        let all = ["pod1a", "pod1b", "pod1c"];
        let first = pods[0].as_ref().expect("attached");
        reaches(&other.ns, &vip, &all);
        // A pod among its own endpoints reaches itself, too.
        reaches(&first.ns, &vip, &all);
        reaches(world.node(), &vip, &all);
        for address in [NODE, "127.0.0.1", "10.0.1.1"] {
            reaches(world.node(), &format!("{address}:30080"), &all);
        }
        reaches(&world.lab.client, &format!("{NODE}:30080"), &all);
        let seen = other.ns.tcp(&vip).expect("an answer").peer.ip();
        assert_eq!(seen.to_string(), other.address, "the source of a pod is kept");
        let containers: Vec<&Container> = pods.iter().flatten().collect();
        world.svc_test(&containers);
        // The one that goes is out of rotation when DEL returns.
        world.remove(pods[1].take().expect("attached"));
        for from in [&*other.ns, world.node()] {
            reaches(from, &vip, &["pod1a", "pod1c"]);
        }
        reaches(&world.lab.client, &format!("{NODE}:30080"), &["pod1a", "pod1c"]);
        let containers: Vec<&Container> = pods.iter().flatten().collect();
        world.svc_test(&containers);
        assert_eq!(
            world.ctl("delete svc http-server-svc", "").ok(),
            "service \"http-server-svc\" deleted\n"
        );
        refused(&world.lab.client, &format!("{NODE}:30080"));
    });
}

/// Rows: P9, P12, P23
#[test]
fn clusterip_with_a_given_address() {
    on_both_backends(|world| {
        let vip = "10.96.1.100:8080";
        let client = world.pod("client", "app:else");
        world.apply(CLUSTERIP, &["service/http-server-svc created"]);
        // Nobody serves yet: refused, and the command line says why.
        refused(&client.ns, vip);
        refused(world.node(), vip);
        let trace = world.ctl("trace client http-server-svc:8080", "");
        assert_eq!(trace.code(), 1, "{trace:?}");
        let described = world.ctl("describe service http-server-svc", "").ok();
        assert!(
            described.contains("no attached container has the labels app=cs-pod"),
            "{described}"
        );
        let server = world.pod("server", "app:cs-pod");
        reaches(&client.ns, vip, &["server"]);
        reaches(world.node(), vip, &["server"]);
        let trace = world.ctl("trace client http-server-svc:8080", "").ok();
        assert!(trace.contains(&format!("{}:80", server.address)), "{trace}");
        world.remove(server);
        refused(&client.ns, vip);
    });
}

/// Rows: P54, P55, U-07
#[test]
fn loadbalancer_with_given_addresses() {
    on_both_backends(|world| {
        let pending = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  type: LoadBalancer\n  \
                       selector: {app: web}\n  ports: [{port: 80}]\n";
        world.apply(pending, &["service/web created"]);
        assert_eq!(world.column("web", "EXTERNAL-IP"), "<pending>");
        let given = format!(
            "{pending}  externalIPs: [198.51.100.7]\nstatus:\n  loadBalancer:\n    ingress: [{{ip: 198.51.100.8}}]\n"
        );
        world.apply(&given, &["service/web configured"]);
        assert_eq!(world.column("web", "EXTERNAL-IP"), "198.51.100.8,198.51.100.7");
        let _web = [world.pod("web1", "app:web"), world.pod("web2", "app:web")];
        let inside = world.pod("inside", "app:else");
        // What an upstream router would have.
        world.lab.client.ip(&format!("route add 198.51.100.0/24 via {NODE}\n"));
        for address in ["198.51.100.7:80", "198.51.100.8:80"] {
            for from in [&world.lab.client, &*inside.ns, world.node()] {
                reaches(from, address, &["web1", "web2"]);
            }
        }
    });
}

/// Rows: P1, U-07
#[test]
fn externalname_and_headless_are_names_not_rules() {
    on_both_backends(|world| {
        let _db = world.pod("db1", "app:db");
        let before = world.rules();
        world.apply(
            "apiVersion: v1\nkind: Service\nmetadata: {name: outside}\nspec: {type: ExternalName, externalName: db.example.org}\n\
             ---\napiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec: {clusterIP: None, selector: {app: db}, ports: [{port: 5432}]}\n",
            &["service/outside created", "service/db created"],
        );
        assert_eq!(world.column("outside", "EXTERNAL-IP"), "db.example.org");
        assert_eq!(world.column("outside", "CLUSTER-IP"), "<none>");
        assert_eq!(world.column("db", "CLUSTER-IP"), "None");
        let endpoints = world.ctl("get endpoints db", "").ok();
        assert!(endpoints.contains(":5432"), "{endpoints}");
        assert_eq!(world.rules(), before);
    });
}

/// Rows: P5, P7
#[test]
fn slices_without_a_selector_point_anywhere() {
    on_both_backends(|world| {
        let _server =
            Server::tcp(&world.lab.internet, "outside", &format!("{}:5432", Lab::INTERNET));
        let inside = world.pod("inside", "app:else");
        world.apply(
            &format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: db}}\nspec: {{clusterIP: 10.96.1.5, ports: [{{name: sql, port: 5432}}]}}\n\
                 ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: db-1\n  \
                 labels: {{kubernetes.io/service-name: db}}\naddressType: IPv4\nports: [{{name: sql, port: 5432, protocol: TCP}}]\n\
                 endpoints: [{{addresses: [{}]}}]\n",
                Lab::INTERNET
            ),
            &["service/db created", "endpointslice.discovery.k8s.io/db-1 created"],
        );
        for from in [&*inside.ns, world.node()] {
            reaches(from, "10.96.1.5:5432", &["outside"]);
        }
        let deleted = world.ctl("delete endpointslice db-1", "").ok();
        assert_eq!(deleted, "endpointslice.discovery.k8s.io \"db-1\" deleted\n");
        refused(&inside.ns, "10.96.1.5:5432");
        // The older kind does the same.
        world.apply(
            &format!(
                "apiVersion: v1\nkind: Endpoints\nmetadata: {{name: db}}\nsubsets: [{{ports: [{{name: sql, port: 5432}}], \
                 addresses: [{{ip: {}}}]}}]\n",
                Lab::INTERNET
            ),
            &["endpoints/db created"],
        );
        reaches(&inside.ns, "10.96.1.5:5432", &["outside"]);
        assert_eq!(world.ctl("delete ep db", "").ok(), "endpoints \"db\" deleted\n");
        refused(&inside.ns, "10.96.1.5:5432");
    });
}

/// Rows: S-22
#[test]
fn round_robin_goes_in_the_order_of_addresses() {
    on_both_backends(|world| {
        let pods = ["a", "b", "c", "d"].map(|name| world.pod(name, "app:cs-pod"));
        let inside = world.pod("inside", "app:else");
        let annotated = CLUSTERIP.replace(
            "  name: http-server-svc\n",
            "  name: http-server-svc\n  annotations: {causeway.io/balance: round-robin}\n",
        );
        world.apply(&annotated, &["service/http-server-svc created"]);
        let turn = ["a", "b", "c", "d"];
        assert_eq!(answers(&inside.ns, "10.96.1.100:8080", 8), [turn, turn].concat());
        let shown = world.ctl("svc test http-server-svc --count 4 --from inside", "").ok();
        let lines: Vec<String> =
            (1..).zip(&pods).map(|(number, pod)| format!("{number}: {}\n", pod.address)).collect();
        assert!(shown.starts_with(&lines.concat()), "{shown}");
    });
}

/// Rows: P3, P4, P9, P10, P42
#[test]
fn one_service_has_several_ports_and_both_families() {
    on_both_backends(|world| {
        let _pods = ["a", "b"].map(|name| world.pod(name, "app:web"));
        let inside = world.pod("inside", "app:else");
        let yaml = "apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  clusterIPs: [10.96.1.9, 'fd00:96::9']
  selector: {app: web}
  ports:
  - {name: http, port: 8080, targetPort: 80, nodePort: 30080}
  - {name: admin, port: 8081, targetPort: 81, nodePort: 30081}
  - {name: dns, port: 8080, targetPort: 53, protocol: UDP, nodePort: 30080}
";
        world.apply(yaml, &["service/web created"]);
        assert_eq!(world.column("web", "PORT(S)"), "8080:30080/TCP,8081:30081/TCP,8080:30080/UDP");
        let client = &world.lab.client;
        for (vip, node) in [("10.96.1.9", NODE), ("[fd00:96::9]", "[fd00:172:18::2]")] {
            for port in [8080, 8081] {
                reaches(&inside.ns, &format!("{vip}:{port}"), &["a", "b"]);
                reaches(world.node(), &format!("{vip}:{port}"), &["a", "b"]);
            }
            for port in [30080, 30081] {
                reaches(client, &format!("{node}:{port}"), &["a", "b"]);
            }
            for (from, to) in
                [(&*inside.ns, format!("{vip}:8080")), (client, format!("{node}:30080"))]
            {
                let answer = from.udp(&to).unwrap_or_else(|e| panic!("udp {to}: {e}"));
                assert!(["a", "b"].contains(&answer.hostname.as_str()), "{answer:?}");
            }
        }
    });
}

/// Two nodes with the same selector: each finds its own containers and gets those of the other by
/// a slice.
///
/// Rows: S-30, S-34, S-35
#[test]
fn two_nodes_share_a_service() {
    for backend in ["nftables", "iptables"] {
        eprintln!("backend {backend}");
        let lab = Lab::two_nodes();
        lab.nodes[0].ip("route add 10.0.2.0/24 via 172.18.0.3\n");
        lab.nodes[1].ip("route add 10.0.1.0/24 via 172.18.0.2\n");
        let worlds = [0, 1].map(|index| World::start(&lab, index, backend));
        let pods = [0, 1].map(|index| {
            ["a", "b"]
                .map(|name| worlds[index].pod(&format!("pod{}{name}", index + 1), "app:cs-pod"))
        });
        for (world, [a, b]) in worlds.iter().zip([&pods[1], &pods[0]]) {
            let slice = format!(
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: others\n  \
                 labels: {{kubernetes.io/service-name: http-server-svc}}\naddressType: IPv4\n\
                 ports: [{{port: 80}}]\nendpoints: [{{addresses: [{}]}}, {{addresses: [{}]}}]\n",
                a.address, b.address
            );
            let yaml = format!("{NODEPORT}  clusterIP: 10.96.1.100\n{slice}");
            let others = "endpointslice.discovery.k8s.io/others created";
            world.apply(&yaml, &["service/http-server-svc created", others]);
        }
        let all = ["pod1a", "pod1b", "pod2a", "pod2b"];
        let _outside = Server::tcp(&lab.internet, "outside", &format!("{}:30080", Lab::INTERNET));
        for (world, own) in worlds.iter().zip(&pods) {
            for from in [&*own[0].ns, world.node()] {
                reaches(from, "10.96.1.100:8080", &all);
            }
            for node in [0, 1] {
                reaches(world.node(), &format!("{}:30080", Lab::node_address(node)), &all);
            }
            // A port of other machines is not ours.
            reaches(&own[0].ns, &format!("{}:30080", Lab::INTERNET), &["outside"]);
        }
        for node in [0, 1] {
            reaches(&lab.client, &format!("{}:30080", Lab::node_address(node)), &all);
        }
        // Between containers the source is kept, on the same node and on the other.
        for _ in 0..16 {
            let answer = pods[0][0].ns.tcp("10.96.1.100:8080").expect("an answer");
            if answer.hostname != "pod1a" {
                assert_eq!(answer.peer.ip().to_string(), pods[0][0].address, "{answer:?}");
            }
        }
    }
}
