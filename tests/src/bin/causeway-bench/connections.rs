//! New connections through the last of 10,000 services.
//!
//! A client sends one UDP packet from each of many ports, so that each is a new connection; its
//! way leads through a node to a server. The paths differ in the node's rules alone and take turns.

use std::net::{SocketAddr, UdpSocket};
use std::time::Instant;

use causeway_ruleset::plan::Plan;
use causeway_tests::Ns;

use crate::layouts;
use crate::report::middle;
use crate::services::{cluster, endpoint, facts, feed, loaded, vip};

const SERVICES: usize = 10_000;
const PORTS: u16 = 12_000;
const ROUNDS: usize = 15;
/// The only rule of the path that only tracks connections.
const TRACK: &str = "table ip peer {
    chain track { type filter hook prerouting priority 0; ct state new accept; }
    chain to { type nat hook prerouting priority -100; }
    chain from { type nat hook postrouting priority 100; }
}";

/// Runs the section.
pub(crate) fn run() {
    println!(
        "New connections a second through the last of {SERVICES} services (median of {ROUNDS}):"
    );
    let (index, keys) = cluster(SERVICES, 2, "UDP");
    let mut plan = Plan::new(facts());
    plan.update(&keys, &|key| index.resolve(key));
    let target = SocketAddr::new(vip(SERVICES - 1).parse().expect("an address"), 80);
    let plain = SocketAddr::new(endpoint(SERVICES - 1, 0).parse().expect("an address"), 8080);
    let track = Path::new(Ns::new("track"), plain);
    feed(&track.node, "nft", TRACK);
    // What translating an address costs by itself, whoever chooses it.
    let dnat = Path::new(Ns::new("dnat"), target);
    let rule = format!("udp dport 80 dnat to {}:8080", plain.ip());
    feed(&dnat.node, "nft", &TRACK.replace("priority -100;", &format!("priority -100; {rule};")));
    let (ours, _mirror, _client) = loaded(&plan);
    let ours = Path::new(ours, target);
    let nft = Path::new(Ns::new("kube-nft"), target);
    feed(&nft.node, "nft", &udp(&layouts::kube_proxy_nftables(SERVICES, 2)));
    let iptables = Path::new(Ns::new("kube-ipt"), target);
    feed(&iptables.node, "iptables-restore", &udp(&layouts::kube_proxy_iptables(SERVICES, 2)));
    let paths = [
        ("conntrack alone", track),
        ("conntrack and one DNAT rule", dnat),
        ("ours", ours),
        ("kube-proxy's nftables", nft),
        ("kube-proxy's iptables", iptables),
    ];
    let mut rates = vec![Vec::new(); paths.len()];
    for _ in 0..ROUNDS {
        for (rates, (_, path)) in rates.iter_mut().zip(&paths) {
            rates.push(path.round());
        }
    }
    let medians: Vec<f64> = rates.iter_mut().map(|rates| middle(rates)).collect();
    for ((name, _), rate) in paths.iter().zip(&medians) {
        println!("  {name}: {rate:.0}/s   {:.3} of conntrack alone", rate / medians[0]);
    }
    println!();
}

fn udp(text: &str) -> String {
    text.replace("tcp . 80", "udp . 80")
        .replace("l4proto tcp", "l4proto udp")
        .replace("-p tcp -m tcp", "-p udp -m udp")
}

struct Path {
    node: Ns,
    client: Ns,
    server: Ns,
    target: SocketAddr,
}

impl Path {
    fn new(node: Ns, target: SocketAddr) -> Self {
        let (client, server) = (Ns::new("from"), Ns::new("to"));
        for (name, ns, net) in [("east0", &client, "10.0.0"), ("west0", &server, "10.99.0")] {
            node.ip(&format!(
                "link add {name} type veth peer name eth0 netns {}\naddr add {net}.1/24 dev {name}\nlink set {name} up\n",
                ns.name()
            ));
            ns.ip(&format!(
                "addr add {net}.2/24 dev eth0\nlink set eth0 up\nroute add default via {net}.1\n"
            ));
        }
        node.set_sysctl("ipv4/ip_forward", "1");
        node.ip("route add 10.1.0.0/16 via 10.99.0.2\nroute add 10.2.0.0/16 via 10.99.0.2\n");
        for index in 0..2 {
            let address = endpoint(SERVICES - 1, index);
            server.ip(&format!("addr add {address}/32 dev lo\n"));
        }
        Self { node, client, server, target }
    }

    /// Connections a second of one round.
    fn round(&self) -> f64 {
        let sink = self.server.run(|| UdpSocket::bind("0.0.0.0:8080").expect("a port"));
        self.node.sh("conntrack -F 2>/dev/null");
        let sockets: Vec<UdpSocket> = self.client.run(|| {
            let own = |port| UdpSocket::bind(("10.0.0.2", port)).expect("a port");
            (20_000..20_000 + PORTS).map(own).collect()
        });
        // The neighbours are resolved before the clock runs.
        sockets[0].send_to(b"x", self.target).expect("a packet");
        sink.set_read_timeout(Some(std::time::Duration::from_secs(5)))
            .expect("a timeout above zero");
        sink.recv(&mut [0; 8]).expect("the path leads to the server");
        let started = Instant::now();
        for socket in &sockets[1..] {
            socket.send_to(b"x", self.target).expect("a packet");
        }
        f64::from(PORTS - 1) / started.elapsed().as_secs_f64()
    }
}
