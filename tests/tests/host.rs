//! The host's own connectivity: whatever containers, services, flushes and reloads come, what the
//! host had by itself goes on, and nobody gets further into it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;

use causeway_tests::cluster::until;
use causeway_tests::traffic::{IMPATIENCE, PATIENCE, Server};
use causeway_tests::{Daemon, Lab, Node, Ns, Runtime, say};
use serde_json::{Value, json};

const NODE: &str = "172.18.0.2";
const NODE6: &str = "fd00:172:18::2";

fn ports(host_port: u16) -> Value {
    json!({ "portMappings": [
        { "hostPort": host_port, "containerPort": 80, "protocol": "tcp" } ] })
}

/// The next hop of the default route that a router advertised.
fn advertised(host: &Ns) -> Option<String> {
    let routes = host.ip_json("-6 route show default proto ra");
    routes.first().and_then(|route| route["gateway"].as_str().map(str::to_owned))
}

/// The node has its IPv6 default route from the lab's router alone.
fn by_advertisement(lab: &Lab) {
    let node = &lab.nodes[0];
    node.ip("route del ::/0\n");
    lab.switch.advertise("sw0", 1800);
    until("the advertised route", || advertised(node).is_some());
}

/// The plugins turn forwarding of IPv6 on with the first container; the host's own route stays, and
/// what its router says later counts.
///
/// Rows: RH5
#[test]
fn the_first_ipv6_container_leaves_the_advertised_route() {
    for mode in ["bridge", "ptp"] {
        let lab = Lab::one_node();
        let node = &lab.nodes[0];
        by_advertisement(&lab);
        node.ip("link add other type bridge\n");
        let accept = |link: &str| node.sysctl(&format!("ipv6/conf/{link}/accept_ra"));
        let mut list = node.conflist("blue", "fd00:10::/64");
        if mode == "ptp" {
            let bridged = list["plugins"][0].as_object_mut().expect("an object");
            bridged.retain(|key, _| key != "bridge" && key != "hairpinMode");
            bridged.insert("mode".to_owned(), json!("ptp"));
        }
        let runtime = Runtime::new(node, list);
        let pod = node.pod();
        let result = runtime.add_ok(&pod.attachment("eth0"));
        assert_eq!(node.sysctl("ipv6/conf/all/forwarding"), "1", "{mode}");
        assert!(advertised(node).is_some(), "{mode}: the route is gone");
        assert_eq!((accept("eth0").as_str(), accept("other").as_str()), ("2", "1"), "{mode}");
        let made = if mode == "bridge" { 0..2 } else { 0..1 };
        for place in made {
            let link = result["interfaces"][place]["name"].as_str().expect("a link");
            assert_eq!(accept(link), "0", "{mode}: {link}");
        }

        lab.switch.advertise("sw0", 0);
        until("the router withdrew", || advertised(node).is_none());
        lab.switch.advertise("sw0", 1800);
        until("the router is back", || advertised(node).is_some());
        node.assert_ping(Lab::INTERNET6);
        // A container is no router.
        pod.advertise("eth0", 1800);
        pod.assert_ping("fd00:10::1");
        let routes = node.ip_json("-6 route show default");
        assert!(routes.iter().all(|route| route["dev"] == "eth0"), "{mode}: {routes:?}");
    }
}

/// A service that keeps its connections, as ssh does.
fn echo(ns: &Ns, address: &str) {
    let listener = ns.run(|| TcpListener::bind(address)).expect("listen");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || drop(std::io::copy(&mut &stream, &mut &stream)));
        }
    });
}

fn session(ns: &Ns, to: &str) -> TcpStream {
    let stream = ns.run(|| TcpStream::connect(to)).unwrap_or_else(|e| panic!("{to}: {e}"));
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    stream
}

/// A machine on a bridge that is none of ours, at 10.77.0.`last`.
fn guest(node: &Node, last: u8) -> Ns {
    let guest = Ns::new("guest");
    node.ip(&format!(
        "link add tap{last} type veth peer name eth0 netns {}\nlink set tap{last} master other up\n",
        guest.name()
    ));
    guest.ip(&format!(
        "addr add 10.77.0.{last}/24 dev eth0\nlink set eth0 up\nroute add default via 10.77.0.1\n"
    ));
    guest
}

/// A host as it is before Causeway comes, and whoever watches it.
struct Host {
    lab: Lab,
    guests: [Ns; 2],
    attacker: Ns,
    sessions: [TcpStream; 2],
    /// They end with the host.
    _servers: [Server; 3],
}

impl Host {
    fn new() -> Self {
        let lab = Lab::one_node();
        let node = &lab.nodes[0];
        by_advertisement(&lab);
        node.ip("link add other type bridge\naddr add 10.77.0.1/24 dev other\nlink set other up\n");
        let (guests, attacker) = ([guest(node, 2), guest(node, 3)], guest(node, 4));
        attacker.aim_at_localhost_of("10.77.0.1");
        lab.client.aim_at_localhost_of(NODE);
        let servers = [
            Server::tcp(node, "ssh", "[::]:2222"),
            Server::tcp(node, "private", "127.0.0.1:9000"),
            Server::tcp(node, "private6", "[::1]:9000"),
        ];
        echo(node, "[::]:2223");
        let sessions = [format!("{NODE}:2223"), format!("[{NODE6}]:2223")];
        let sessions = sessions.map(|to| session(&lab.client, &to));
        Self { guests, attacker, sessions, _servers: servers, lab }
    }

    fn node(&self) -> &Node {
        &self.lab.nodes[0]
    }

    /// All that the host had at first; `containers` try to get further.
    fn check(&self, stage: &str, containers: &[&Ns]) {
        for mut session in &self.sessions {
            session.write_all(stage.as_bytes()).unwrap_or_else(|e| panic!("{stage}: {e}"));
            let mut answer = vec![0; stage.len()];
            session.read_exact(&mut answer).unwrap_or_else(|e| panic!("{stage}: a session: {e}"));
        }
        let (client, node) = (&self.lab.client, self.node());
        let reached = |who: &Ns, to: &str| {
            let answer = who.tcp(to).unwrap_or_else(|e| panic!("{stage}: {to}: {e}"));
            answer.hostname
        };
        assert_eq!(reached(client, &format!("{NODE}:2222")), "ssh");
        assert_eq!(reached(client, &format!("[{NODE6}]:2222")), "ssh");
        assert_eq!(reached(&self.guests[0], "10.77.0.1:2222"), "ssh");
        assert_eq!(reached(node, "127.0.0.1:9000"), "private");
        assert_eq!(reached(node, "[::1]:9000"), "private6");
        self.guests[0].assert_ping("10.77.0.3");
        self.check_closed(stage, containers);
        self.check_router(stage);
    }

    /// What listens on loopback is nobody else's.
    fn check_closed(&self, stage: &str, containers: &[&Ns]) {
        let closed = |who: &Ns, to: &str| who.tcp_within(to, IMPATIENCE).is_err();
        assert!(closed(&self.lab.client, &format!("{NODE}:9000")), "{stage}");
        let others = [("another machine", &self.lab.client), ("a guest", &self.attacker)];
        let containers = containers.iter().map(|one| ("a container", *one));
        // All at once: each waits for an answer that is not to come.
        std::thread::scope(|scope| {
            for (who, attacker) in containers.chain(others) {
                scope.spawn(move || {
                    let closed = closed(attacker, "127.0.0.1:9000");
                    assert!(closed, "{stage}: {who} reaches 127.0.0.1");
                });
            }
        });
    }

    /// The route that the host has by advertisement, and that further advertisements count.
    fn check_router(&self, stage: &str) {
        let node = self.node();
        assert!(advertised(node).is_some(), "{stage}: the advertised route is gone");
        self.lab.switch.advertise("sw0", 0);
        until("the router withdrew", || advertised(node).is_none());
        self.lab.switch.advertise("sw0", 1800);
        until("the router is back", || advertised(node).is_some());
        node.assert_ping(Lab::INTERNET6);
        node.assert_ping(Lab::INTERNET);
        assert_eq!(node.sysctl("ipv6/conf/other/accept_ra"), "1", "{stage}");
    }
}

/// Debian's own file, which begins so.
fn nftables_conf(node: &Node) -> PathBuf {
    let path = node.dir().join("nftables.conf");
    let text = "#!/usr/sbin/nft -f\n\nflush ruleset\n\ntable inet filter {\n\
                chain input { type filter hook input priority filter; }\n\
                chain forward { type filter hook forward priority filter; }\n\
                chain output { type filter hook output priority filter; }\n}\n";
    std::fs::write(&path, text).expect("write");
    path
}

fn service(node_port: u16) -> [Value; 2] {
    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" },
        "spec": { "type": "NodePort",
                  "ports": [{ "port": 80, "nodePort": node_port }] } });
    let slice = json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": "web-1", "labels": { "kubernetes.io/service-name": "web" } },
        "addressType": "IPv4", "ports": [{ "name": "", "port": 80 }],
        "endpoints": [{ "addresses": ["10.0.1.2"] }] });
    [service, slice]
}

/// Whatever comes and goes, on both backends: the host's own routes, sessions and services stay, and
/// what listens on loopback is the host's alone.
///
/// Rows: RH4, RH5
#[test]
fn the_host_keeps_what_it_had() {
    std::thread::scope(|scope| {
        for backend in ["nftables", "iptables"] {
            scope.spawn(move || keeps_what_it_had(backend));
        }
    });
}

fn keeps_what_it_had(backend: &str) {
    let host = Host::new();
    let node = host.node();
    let says = |stage: &str| format!("{backend}: {stage}");
    host.check(&says("at first"), &[]);
    let network = |name: &str, subnet: &str, bridge: &str| {
        let mut list = node.conflist(name, subnet);
        list["plugins"][0]["bridge"] = json!(bridge);
        list["plugins"][1]["backend"] = json!(backend);
        Runtime::new(node, list)
    };
    let blue = network("blue", "10.0.1.0/24", "cw0");
    let red = network("red", "fd00:10::/64", "cw1");
    let [web, attacker, six] = [node.pod(), node.pod(), node.pod()];
    let _web = Server::tcp(&web, "web", "0.0.0.0:80");
    blue.add_ok(&web.attachment("eth0").runtime_config(ports(8080)));
    blue.add_ok(&attacker.attachment("eth0"));
    attacker.aim_at_localhost_of("10.0.1.1");
    host.check(&says("after the first IPv4 container"), &[&attacker]);
    red.add_ok(&six.attachment("eth0"));
    host.check(&says("after the first IPv6 container"), &[&attacker]);

    let serves = |port: u16| {
        let from: [(&Ns, &str); 2] = [(&host.guests[1], NODE), (node, "127.0.0.1")];
        from.iter().all(|(who, at)| who.tcp(&format!("{at}:{port}")).is_ok())
    };
    let both = || serves(8080) && serves(30080);
    let mut daemon = Daemon::start_with(node, &["--backend", backend]);
    daemon.apply(&service(30080));
    assert!(both(), "{backend}: a host port and a node port");
    host.check(&says("with a daemon"), &[&attacker]);

    let conf = nftables_conf(node);
    for change in ["nft flush ruleset".to_owned(), format!("nft -f {}", conf.display())] {
        node.sh(&change);
        let took = daemon.until("the rules are back", both);
        say(&format!("{backend}: {change}: back after {took:?}"));
        host.check(&says(&change), &[&attacker]);
    }

    daemon.stop();
    host.check(&says("with a stopped daemon"), &[&attacker]);
    node.sh("nft flush ruleset");
    host.check(&says("flushed beside a stopped daemon"), &[&attacker]);

    for (runtime, pod) in [(&blue, &web), (&blue, &attacker), (&red, &six)] {
        runtime.del_ok(&pod.attachment("eth0"));
    }
    Daemon::cleanup(node, &["--all", "--data-dir", &node.data_dir().display().to_string()]).ok();
    host.check(&says("after cleanup"), &[]);
    assert!(node.link("other").is_some() && node.link("cw0").is_none(), "{backend}");
    assert_eq!(node.sh("tc qdisc show | grep clsact || true"), "", "{backend}");
}

/// The daemon leaves `route_localnet` on when it stops: a link that comes later has a guard that a
/// flush does not take, too.
///
/// Rows: RH4
#[test]
fn a_container_that_comes_beside_a_stopped_daemon_gets_no_further() {
    for mode in ["bridge", "ptp"] {
        let lab = Lab::one_node();
        let node = &lab.nodes[0];
        let _private = Server::tcp(node, "private", "127.0.0.1:9000");
        Daemon::start(node).stop();
        assert_eq!(node.sysctl("ipv4/conf/all/route_localnet"), "1");
        let mut list = node.conflist("blue", "10.0.1.0/24");
        if mode == "ptp" {
            let bridged = list["plugins"][0].as_object_mut().expect("an object");
            bridged.retain(|key, _| key != "bridge" && key != "hairpinMode");
            bridged.insert("mode".to_owned(), json!("ptp"));
        }
        let runtime = Runtime::new(node, list);
        let attacker = node.pod();
        let result = runtime.add_ok(&attacker.attachment("eth0"));
        attacker.aim_at_localhost_of("10.0.1.1");
        node.sh("nft flush ruleset");
        let reaches = || attacker.tcp_within("127.0.0.1:9000", IMPATIENCE).is_ok();
        assert!(!reaches(), "{mode}");
        // Without the guard it does: the test is able to fail.
        let link = result["interfaces"][0]["name"].as_str().expect("a link");
        node.sh(&format!("tc qdisc del dev {link} clsact"));
        assert!(reaches(), "{mode}: without the guard of {link}");
        runtime.del_ok(&attacker.attachment("eth0"));
    }
}

/// What a rule of another process, or a record that should not be there, makes of a destination: the
/// guard behind it lets nobody in, and connections from 127.0.0.1 go on.
///
/// Rows: RH1
#[test]
fn no_translation_leads_to_localhost() {
    for (backend, open) in [
        ("nftables", "nft flush chain ip causeway_services translated"),
        ("iptables", "iptables -F CW-FIREWALL"),
    ] {
        let lab = Lab::one_node();
        let node = &lab.nodes[0];
        let web = node.pod();
        Runtime::new(node, node.conflist("blue", "10.0.1.0/24")).add_ok(&web.attachment("eth0"));
        let _web = Server::tcp(&web, "web", "0.0.0.0:80");
        let _private = Server::tcp(node, "private", "127.0.0.1:9000");
        node.sh("nft 'table ip others {
                   chain prerouting {
                     type nat hook prerouting priority -110;
                     ip daddr 172.18.0.2 tcp dport 9999 dnat to 127.0.0.1:9000
                   }
                 }'");
        let mut daemon = Daemon::start_with(node, &["--backend", backend]);
        daemon.apply(&service(30080));
        let reaches = || lab.client.tcp_within(&format!("{NODE}:9999"), IMPATIENCE).is_ok();
        assert!(!reaches(), "{backend}");
        assert!(node.tcp("127.0.0.1:30080").is_ok(), "{backend}: a node port by localhost");
        assert!(lab.client.tcp(&format!("{NODE}:30080")).is_ok(), "{backend}: a node port");

        // Without the guard it does: the test is able to fail.
        daemon.stop();
        node.sh(open);
        assert!(reaches(), "{backend}: the translation itself");
    }
}

/// A link that takes no guard, here because its place is taken: `status` names it, the others have one.
///
/// Rows: RH4
#[test]
fn a_link_without_a_guard_is_named() {
    let node = Node::new("node");
    node.ip("link add full type veth peer name full1\nlink add free type veth peer name free1\n");
    node.sh(
        "tc qdisc add dev full clsact && tc filter add dev full ingress pref 197 protocol ipv6 \
             bpf da bytecode '1,6 0 0 4294967295'",
    );
    let mut daemon = Daemon::start(&node);
    let said = || daemon.status().warnings.into_iter().find(|line| line.starts_with("localhost: "));
    daemon.until("it is named", || said().is_some());
    let said = said().unwrap_or_default();
    assert!(said.contains("on full, only rules protect") && said.contains("cls_bpf"), "{said}");
    daemon.until("the others are guarded", || {
        node.sh("tc filter show dev free ingress").contains("pref 197 bpf")
    });
    assert!(daemon.status().degraded.is_empty(), "{:?}", daemon.status());
    node.ip("link del full\n");
    let named = || daemon.status().warnings.iter().any(|line| line.starts_with("localhost: "));
    daemon.until("it is named no more", || !named());
    daemon.stop();
}
