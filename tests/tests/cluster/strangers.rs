//! Who is no node of the cluster sends nothing to containers by way of the overlay.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use causeway_model::MacAddress;
use causeway_tests::cluster::{Cluster, Placed, Setup, all_ping};
use causeway_tests::traffic::PATIENCE;
use causeway_tests::{Lab, Ns};

/// A container's port that says nothing back.
const PORT: u16 = 9;

/// Sends a word from an address.
fn send(from: &Ns, own: &str, to: SocketAddr, word: &str) {
    let socket = from.run(|| UdpSocket::bind((own, 0))).expect("a socket");
    socket.send_to(word.as_bytes(), to).expect("sent");
}

/// The next word that comes.
fn word(socket: &UdpSocket) -> String {
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).expect("a word");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

/// A vxlan of another number at the same port, between the node and a machine that is none, as a
/// network's configuration makes it (`vxlan.peers`, `vxlan.port`): it is none of the overlay's.
fn another_vxlan_of_the_port(lab: &Lab) {
    let make = |at: &Ns, own: u8, to: &str| {
        at.sh(&format!(
            "ip link add vx7 type vxlan id 7 remote {to} dstport 8472 dev eth0
             ip addr add 10.99.0.{own}/24 dev vx7
             ip link set vx7 up"
        ));
    };
    make(&lab.nodes[0], 1, Lab::CLIENT);
    make(&lab.client, 2, "172.18.0.2");
    lab.client.assert_ping("10.99.0.1");
    lab.nodes[0].assert_ping("10.99.0.2");
}

/// The table is there.
fn guarded(node: &Ns) -> bool {
    node.try_sh("nft list table ip causeway_overlay").status.success()
}

/// Rows: RH12
#[test]
fn the_overlays_port_takes_packets_from_nodes_alone() {
    for backend in ["nftables", "iptables"] {
        causeway_tests::say(&format!("--backend {backend}"));
        let lab = Lab::with_nodes(3);
        let setup = Setup { nodes: 2, ..Setup::default().flag("--backend", backend) };
        let mut cluster = Cluster::start(&lab, setup);
        let mut pods: Vec<Placed> = [cluster.pod(0, ""), cluster.pod(1, "")].into();
        let node = &lab.nodes[0];
        let to: SocketAddr = format!("{}:{PORT}", pods[0].ip()).parse().expect("an address");
        let socket = pods[0].run(|| UdpSocket::bind(to)).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");

        // A tunnel of the same number and port to a node, by a host on its network.
        let mac = MacAddress::of_vtep("node1", 1);
        lab.client.sh(&format!(
            "ip link add vx0 type vxlan id 1 remote 172.18.0.2 dstport 8472 dev eth0
             ip addr add 10.0.99.9/32 dev vx0
             ip link set vx0 up
             ip route add 10.0.1.0/24 via 10.0.1.0 dev vx0 onlink
             ip neigh add 10.0.1.0 lladdr {mac} dev vx0 nud permanent"
        ));
        let stranger = |word: &str| send(&lab.client, "10.0.99.9", to, word);
        let friend = |pods: &[Placed], word: &str| send(&pods[1], pods[1].ip(), to, word);
        // What is sent first comes first.
        let dropped = |pods: &[Placed]| {
            stranger("stranger");
            friend(pods, "friend");
            assert_eq!(word(&socket), "friend");
        };
        assert!(guarded(node));
        dropped(&pods);
        another_vxlan_of_the_port(&lab);
        // Without the rule it comes.
        cluster.daemons[0].signal(libc::SIGSTOP);
        node.sh("nft delete table ip causeway_overlay");
        stranger("let in");
        assert_eq!(word(&socket), "let in");
        cluster.daemons[0].signal(libc::SIGCONT);
        cluster.daemons[0].until("the table is back", || guarded(node));
        // The rule comes back by itself, long before the daemon compares everything, which it does
        // every ten seconds.
        let mut took = Duration::ZERO;
        for removal in ["delete table ip causeway_overlay", "flush ruleset", "flush ruleset"] {
            node.sh(&format!("nft {removal}"));
            took += cluster.daemons[0].until("the table is back", || guarded(node));
        }
        assert!(took < Duration::from_secs(9), "three times, back after {took:?}");
        dropped(&pods);
        // Whoever joins is a node; a node that starts again stays one.
        cluster.join();
        cluster.settled();
        pods.push(cluster.pod(2, ""));
        all_ping(&pods);
        cluster.daemons[0].kill();
        all_ping(&pods);
        dropped(&pods);
        cluster.daemons[0].again();
        all_ping(&pods);
        dropped(&pods);
        cluster.daemons[0].stop();
        let cleaned = causeway_tests::Daemon::cleanup(node, &[]).ok();
        assert!(cleaned.contains("nftables table ip causeway_overlay"), "{cleaned}");
        assert!(!guarded(node));
    }
}
