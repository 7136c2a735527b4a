//! Between nodes: the overlay of causewayd against the same devices made by hand with `ip`.
//!
//! All labs attach their containers by our plugins; in one the daemon makes the overlay from a peers
//! file and holds its service rules, in the others `ip` and `bridge` make the same device, neighbours,
//! FDB entries and routes, without a daemon and with one that holds its service rules alone. Rounds
//! take turns.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use causeway_tests::{Cni, DEADLINE, Daemon, Lab, Node, Pod};
use serde_json::json;

use crate::report::middle;

const ROUNDS: usize = 21;
const BYTES: usize = 192 << 20;
const CHUNK: usize = 256 << 10;
const CONNECTIONS: usize = 2_000;

/// Runs the section.
pub(crate) fn run() {
    println!(
        "Between two nodes, causewayd's overlay against the same devices made with `ip`, alone"
    );
    println!(
        "and beside the same service rules (a daemon without overlay); medians of {ROUNDS} rounds,"
    );
    println!("TCP of {} MiB a round, {CONNECTIONS} connections:", BYTES >> 20);
    for mode in ["vxlan", "host-gw"] {
        let labs = [Lab::two_nodes(), Lab::two_nodes(), Lab::two_nodes()];
        let [ours, hand, ruled] = &labs;
        let mut daemons = Vec::new();
        for (lab, overlay) in [(ours, mode), (ruled, "none")] {
            for (index, node) in lab.nodes.iter().enumerate() {
                daemons.push(daemon(node, index, overlay));
            }
        }
        by_hand(hand, mode);
        by_hand(ruled, mode);
        let pairs = labs.each_ref().map(Pair::attach);
        let (mut rates, mut connects) = ([vec![], vec![], vec![]], [vec![], vec![], vec![]]);
        let ends = pairs.each_ref().map(Pair::until_reached);
        for _ in 0..ROUNDS {
            for (side, (pair, end)) in pairs.iter().zip(ends).enumerate() {
                rates[side].push(pair.throughput(end));
                connects[side].push(pair.connections(end));
            }
        }
        let [a, b, c] = rates.each_mut().map(|rates| middle(rates));
        println!(
            "  {mode:<8} throughput {:>6.2} Gbit/s   by hand {:.2}: {:.3}   with the rules {:.2}: {:.3}",
            a / 1e9,
            b / 1e9,
            a / b,
            c / 1e9,
            a / c
        );
        let [a, b, c] = connects.each_mut().map(|rates| middle(rates));
        println!(
            "  {mode:<8} connections {a:>6.0}/s      by hand {b:.0}: {:.3}   with the rules {c:.0}: {:.3}",
            a / b,
            a / c
        );
    }
    port_guard();
    println!();
}

/// What it costs that the port takes packets from nodes alone: the same devices with that rule and
/// without it, in turn; the daemons' work is done.
fn port_guard() {
    let lab = Lab::two_nodes();
    let mut daemons: Vec<Daemon<'_>> =
        lab.nodes.iter().enumerate().map(|(index, node)| daemon(node, index, "vxlan")).collect();
    let pair = Pair::attach(&lab);
    let end = pair.until_reached();
    daemons.iter_mut().for_each(Daemon::kill);
    let table = "table ip causeway_overlay";
    let listed = |node: &Node| node.sh(&format!("nft list {table}"));
    let rules: Vec<String> = lab.nodes.iter().map(listed).collect();
    let measure = |with: bool| {
        for (node, rules) in lab.nodes.iter().zip(&rules) {
            node.sh(&match with {
                true => format!("nft -f - <<'END'\nadd {table}\ndelete {table}\n{rules}\nEND"),
                false => format!("nft add {table}; nft delete {table}"),
            });
        }
        [pair.throughput(end), pair.connections(end)]
    };
    let (mut rates, mut connects) = (vec![], vec![]);
    for round in 0..ROUNDS {
        // Who comes first takes turns.
        let with_first = round % 2 == 0;
        let [first, second] = [with_first, !with_first].map(&measure);
        let (with, without) = if with_first { (first, second) } else { (second, first) };
        rates.push(with[0] / without[0]);
        connects.push(with[1] / without[1]);
    }
    println!(
        "  vxlan with its port's rule, of the same without: throughput {:.3}, connections {:.3}",
        middle(&mut rates),
        middle(&mut connects)
    );
}

fn daemon<'a>(node: &'a Node, index: usize, mode: &str) -> Daemon<'a> {
    let peers = node.dir().join("peers.toml");
    let text: String = (0..2)
        .map(|n| {
            let address = Lab::node_address(n);
            format!(
                "[[node]]\nname = \"n{n}\"\nip = \"{address}\"\nsubnet = \"10.0.{}.0/24\"\n",
                n + 1
            )
        })
        .collect();
    std::fs::write(&peers, text).expect("write the peers file");
    let peers = peers.display().to_string();
    let name = format!("n{index}");
    if mode == "none" {
        return Daemon::start_with(node, &["--node-name", &name]);
    }
    Daemon::start_with(node, &["--node-name", &name, "--overlay", mode, "--peers-file", &peers])
}

/// What the daemon makes, by `ip`.
fn by_hand(lab: &Lab, mode: &str) {
    for (index, node) in lab.nodes.iter().enumerate() {
        let (own, peer) = (index + 1, 2 - index);
        let (here, there) = (Lab::node_address(index), Lab::node_address(1 - index));
        node.set_sysctl("ipv4/ip_forward", "1");
        if mode == "host-gw" {
            node.ip(&format!("route add 10.0.{peer}.0/24 via {there} dev eth0\n"));
            continue;
        }
        node.ip(&format!(
            "link add ov0 address 02:00:00:00:00:0{own} type vxlan id 1 local {here} dev eth0 dstport 8472 nolearning\n\
             addr add 10.0.{own}.0/32 dev ov0\n\
             link set ov0 mtu 1450 up\n\
             neigh replace 10.0.{peer}.0 lladdr 02:00:00:00:00:0{peer} dev ov0 nud permanent\n"
        ));
        node.sh(&format!(
            "bridge fdb replace 02:00:00:00:00:0{peer} dev ov0 self dst {there} permanent"
        ));
        node.ip(&format!("route add 10.0.{peer}.0/24 via 10.0.{peer}.0 dev ov0 onlink\n"));
    }
}

/// A container on each of two nodes.
struct Pair {
    pods: Vec<Pod>,
}

impl Pair {
    fn attach(lab: &Lab) -> Self {
        let mode_mtu = |node: &Node| {
            let vxlan = node
                .link_names()
                .iter()
                .any(|name| name.starts_with("ov") || name.starts_with("cwov"));
            if vxlan { 1450 } else { 1500 }
        };
        let attach = |(index, node): (usize, &Node)| {
            let config = json!({
                "cniVersion": "1.1.0", "name": "net", "bridge": "cw0", "isDefaultGateway": true,
                "ipMasq": true, "ipMasqExclude": ["10.0.0.0/16"], "hairpinMode": true,
                "mtu": mode_mtu(node), "runDir": node.run_dir(),
                "ipam": { "type": "causeway-ipam", "dataDir": node.data_dir(), "runDir": node.run_dir(),
                          "ranges": [[{ "subnet": format!("10.0.{}.0/24", index + 1) }]] }
            });
            let pod = node.pod();
            Cni::new(node, "causeway-bridge", "ADD", &config)
                .attachment(&pod.attachment("eth0"))
                .run()
                .json();
            pod
        };
        Self { pods: lab.nodes.iter().enumerate().map(attach).collect() }
    }

    /// Waits until the overlay carries packets; returns where the second container listens.
    fn until_reached(&self) -> SocketAddr {
        let end = SocketAddr::from((Ipv4Addr::new(10, 0, 2, 2), 5001));
        let limit = Instant::now() + DEADLINE;
        while !self.pods[0].ping("10.0.2.2") {
            assert!(Instant::now() < limit, "10.0.2.2 is not reached");
        }
        end
    }

    /// Bits a second of one transfer.
    fn throughput(&self, end: SocketAddr) -> f64 {
        let listener = self.pods[1].run(|| TcpListener::bind(end).expect("a port"));
        let mut sender = self.pods[0].run(|| TcpStream::connect(end).expect("a connection"));
        let (mut receiver, _) = listener.accept().expect("a connection");
        let started = Instant::now();
        let writer = std::thread::spawn(move || {
            let chunk = vec![0x5a; CHUNK];
            for _ in 0..BYTES / CHUNK {
                sender.write_all(&chunk).expect("the connection lasts");
            }
        });
        let mut buffer = vec![0; CHUNK];
        let mut received = 0;
        while received < BYTES {
            let length = receiver.read(&mut buffer).expect("the connection lasts");
            assert_ne!(length, 0, "the connection ended after {received} bytes");
            received += length;
        }
        let took = started.elapsed();
        writer.join().expect("the writer ends");
        received as f64 * 8.0 / took.as_secs_f64()
    }

    /// Connections a second, one after the other. Each is taken before the next is made: a queue
    /// that fills would drop a SYN, and the second until its repetition would be what is measured.
    fn connections(&self, end: SocketAddr) -> f64 {
        let listener = self.pods[1].run(|| TcpListener::bind(end).expect("a port"));
        let took = self.pods[0].run(|| {
            let started = Instant::now();
            for _ in 0..CONNECTIONS {
                let stream = TcpStream::connect_timeout(&end, DEADLINE).expect("a connection");
                reset_at_close(&stream);
                let (taken, _) = listener.accept().expect("a connection");
                // Ours first: its reset leaves nothing to the side that would wait.
                drop(stream);
                drop(taken);
            }
            started.elapsed()
        });
        CONNECTIONS as f64 / took.max(Duration::from_nanos(1)).as_secs_f64()
    }
}

/// No `TIME_WAIT`: thousands of them would fill the ports.
fn reset_at_close(stream: &TcpStream) {
    use std::os::fd::AsRawFd as _;
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let size = u32::try_from(size_of::<libc::linger>()).expect("a small structure");
    // SAFETY: the descriptor is open and the option is a `linger` of that size.
    let set = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size,
        )
    };
    assert_eq!(set, 0, "SO_LINGER");
}
