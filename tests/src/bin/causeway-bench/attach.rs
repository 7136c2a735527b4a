//! Attaching containers. The peer is upstream's chain (`bridge`, `host-local`, `portmap` with
//! iptables) from Debian's package; the floor is what the kernel alone needs for the same
//! attachment, asked in-process.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use causeway_kernel::{BridgeSpec, Netlink, Netns, VethSpec};
use causeway_tests::{Node, Pod, bins};
use serde_json::{Value, json};

use crate::report::{median, ms, rate, report};

const ROUNDS: usize = 100;
const PODS_AT_ONCE: usize = 60;
const IN_FLIGHT: usize = 16;
const LEASES: u32 = 60_000;

/// Runs the section.
pub(crate) fn run() {
    versions();
    // Containers and nodes live to the end: the kernel takes namespaces down in the background, and
    // links are slow to remove meanwhile.
    drop((one_at_a_time(), at_once(), full_pool()));
}

/// One side of a comparison: a chain of plugins on a node of its own.
struct Side {
    node: Node,
    chain: Vec<(PathBuf, Value)>,
}

impl Side {
    fn ours(label: &str) -> Self {
        let node = Node::new(label);
        let (run, data) = (node.run_dir(), node.data_dir());
        let network = json!({
            "bridge": "br0", "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true,
            "runDir": run,
            "ipam": { "type": "causeway-ipam", "dataDir": data, "runDir": run,
                      "ranges": [[{ "subnet": "10.20.0.0/15" }]] }
        });
        let ports = json!({ "runDir": run });
        let chain =
            vec![(bins::ours("causeway-bridge"), network), (bins::ours("causeway-service"), ports)];
        bins::ours("causeway-ipam");
        Self { node, chain }
    }

    fn upstream(label: &str) -> Self {
        let node = Node::new(label);
        let network = json!({
            "bridge": "br0", "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true,
            "ipam": { "type": "host-local", "dataDir": node.data_dir(),
                      "ranges": [[{ "subnet": "10.20.0.0/15" }]] }
        });
        let chain = vec![
            (bins::upstream("bridge"), network),
            (bins::upstream("portmap"), json!({ "backend": "iptables" })),
        ];
        bins::upstream("host-local");
        Self { node, chain }
    }

    /// ADD of the whole chain with one host port. Returns the result and the time of the programs.
    fn add(&self, pod: &Pod, port: usize) -> (Value, Duration) {
        let mut previous = Value::Null;
        let mut spent = Duration::ZERO;
        for (program, config) in &self.chain {
            let config = entry(config, port, &previous);
            let (stdout, took) = self.run(program, "ADD", pod, &config);
            spent += took;
            previous = serde_json::from_slice(&stdout).expect("a result");
        }
        (previous, spent)
    }

    /// DEL of the whole chain, in reverse order.
    fn del(&self, pod: &Pod, port: usize, result: &Value) -> Duration {
        let back = self.chain.iter().rev();
        back.map(|(program, config)| self.run(program, "DEL", pod, &entry(config, port, result)).1)
            .sum()
    }

    fn run(&self, program: &Path, command: &str, pod: &Pod, config: &Value) -> (Vec<u8>, Duration) {
        let mut process = self.node.command(program);
        process
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &pod.id)
            .env("CNI_NETNS", pod.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", self.node.cni_path());
        timed(process, config.to_string().as_bytes())
    }
}

fn entry(config: &Value, port: usize, previous: &Value) -> Value {
    let mut config = config.clone();
    config["cniVersion"] = json!("1.0.0");
    config["name"] = json!("bench");
    config["runtimeConfig"] = json!({ "portMappings": [
        { "hostPort": port, "containerPort": 80, "protocol": "tcp" } ] });
    if !previous.is_null() {
        config["prevResult"] = previous.clone();
    }
    config
}

fn timed(mut process: Command, stdin: &[u8]) -> (Vec<u8>, Duration) {
    process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let started = Instant::now();
    let mut child = process.spawn().expect("start a plugin");
    // VERSION ends without reading its stdin, and closes the pipe.
    drop(child.stdin.take().expect("a pipe").write_all(stdin));
    let output = child.wait_with_output().expect("wait for a plugin");
    let took = started.elapsed();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{process:?}: {text}");
    (output.stdout, took)
}

fn versions() {
    println!("VERSION, one process (median of {ROUNDS}):");
    let node = Node::new("version");
    for (ours, upstream) in [
        ("causeway-bridge", "bridge"),
        ("causeway-ipam", "host-local"),
        ("causeway-service", "portmap"),
    ] {
        let [ours_times, peer_times] = [bins::ours(ours), bins::upstream(upstream)].map(|path| {
            let one = || {
                let mut process = node.command(&path);
                process.env("CNI_COMMAND", "VERSION");
                timed(process, b"{}").1
            };
            (0..ROUNDS).map(|_| one()).collect::<Vec<_>>()
        });
        report(ours, upstream, &ours_times, &peer_times);
    }
    println!();
}

fn one_at_a_time() -> impl Sized {
    println!("Chain of bridge, IPAM and one host port, {ROUNDS} containers one after another:");
    let (ours, peer) = (Side::ours("ours"), Side::upstream("peer"));
    let mut add = [Vec::new(), Vec::new()];
    let mut del = [Vec::new(), Vec::new()];
    // Made beforehand: what the kernel still has to do for a new namespace would be waited for too.
    let pods: Vec<[Pod; 2]> =
        (0..ROUNDS).map(|_| [&ours, &peer].map(|side| side.node.pod())).collect();
    for (round, pods) in pods.iter().enumerate() {
        for (index, side) in [&ours, &peer].into_iter().enumerate() {
            let (result, took) = side.add(&pods[index], 10_000 + round);
            add[index].push(took);
            del[index].push(side.del(&pods[index], 10_000 + round, &result));
        }
    }
    report("ADD", "upstream", &add[0], &add[1]);
    report("DEL", "upstream", &del[0], &del[1]);
    let floor = floor();
    println!();
    (ours, peer, pods, floor)
}

/// The link work of ADD and DEL alone: a veth on a bridge with its peer inside a namespace.
fn floor() -> impl Sized {
    let node = Node::new("floor");
    let (mut add, mut del, mut pods) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let pod = node.pod();
        let (made, removed) = node.run(|| kernel_alone(pod.path()));
        add.push(made);
        del.push(removed);
        pods.push(pod);
    }
    println!(
        "  {:<18} {:>8} median   (the kernel alone: one veth on a bridge)",
        "floor of ADD",
        ms(median(&mut add))
    );
    println!(
        "  {:<18} {:>8} median   (the kernel alone: removing that veth)",
        "floor of DEL",
        ms(median(&mut del))
    );
    (node, pods)
}

fn kernel_alone(pod: &Path) -> (Duration, Duration) {
    let host = Netlink::open().expect("netlink");
    let bridge = match host.link("br0").expect("query br0") {
        Some(bridge) => bridge,
        None => host
            .add_bridge(&BridgeSpec { name: "br0", mtu: None, mac: None, vlan_filtering: false })
            .expect("make br0"),
    };
    let netns = Netns::open(&pod.display().to_string()).expect("open the namespace");
    let spec = VethSpec {
        name: "vfloor",
        master: Some(bridge.index),
        mtu: None,
        alias: "floor",
        peer_name: "eth0",
        peer_mac: None,
        peer_netns: &netns,
        up: true,
    };
    let started = Instant::now();
    host.add_veth(&spec).expect("make the veth");
    let made = started.elapsed();
    let link = host.link("vfloor").expect("query the veth").expect("it is there");
    let started = Instant::now();
    host.delete_link(link.index).expect("remove the veth");
    (made, started.elapsed())
}

fn at_once() -> impl Sized {
    println!("{PODS_AT_ONCE} containers, {IN_FLIGHT} in flight:");
    let (ours, peer) = (Side::ours("ours60"), Side::upstream("peer60"));
    let kept = [ours, peer].map(|side| (storm(&side), side));
    let [((ours_add, ours_del, _), _), ((peer_add, peer_del, _), _)] = &kept;
    rate("ADD", *ours_add, *peer_add);
    rate("DEL", *ours_del, *peer_del);
    println!();
    kept
}

fn storm(side: &Side) -> (f64, f64, Vec<Pod>) {
    // The bridge and the base of the rules exist on a node that is in use.
    let first = side.node.pod();
    let (result, _) = side.add(&first, 9_999);
    let pods: Vec<Pod> = (0..PODS_AT_ONCE).map(|_| side.node.pod()).collect();
    let results: Vec<Mutex<Value>> = pods.iter().map(|_| Mutex::default()).collect();
    let add = in_flight(|index| {
        let (result, _) = side.add(&pods[index], 20_000 + index);
        *results[index].lock().expect("no panic under the lock") = result;
    });
    let del = in_flight(|index| {
        let result = results[index].lock().expect("no panic under the lock").clone();
        side.del(&pods[index], 20_000 + index, &result);
    });
    side.del(&first, 9_999, &result);
    (add, del, pods)
}

/// Runs `work` for every container with so many threads, and returns how many a second.
fn in_flight(work: impl Fn(usize) + Sync) -> f64 {
    let next = AtomicUsize::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..IN_FLIGHT {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= PODS_AT_ONCE {
                        return;
                    }
                    work(index);
                }
            });
        }
    });
    let count = u32::try_from(PODS_AT_ONCE).expect("a small number");
    f64::from(count) / started.elapsed().as_secs_f64()
}

fn full_pool() -> impl Sized {
    println!("ADD of the chain with {LEASES} leases taken:");
    let empty = [Side::ours("empty"), Side::upstream("pempty")];
    let full = [Side::ours("full"), Side::upstream("pfull")];
    let files = full[1].node.data_dir().join("bench");
    std::fs::create_dir_all(&files).expect("a folder of leases");
    for number in 0..LEASES {
        let address = std::net::Ipv4Addr::from(0x0a14_0002 + number);
        let content = format!("taken{number}\r\neth0");
        std::fs::write(files.join(address.to_string()), content).expect("a lease");
    }
    let last = std::net::Ipv4Addr::from(0x0a14_0002 + LEASES - 1);
    std::fs::write(files.join("last_reserved_ip.0"), last.to_string()).expect("the last lease");
    import(&full[0].node, &files);
    let mut pods = Vec::new();
    for (index, name) in ["ours", "upstream"].into_iter().enumerate() {
        let [mut none, mut all] = [&empty[index], &full[index]].map(|side| {
            let one = |round| {
                let pod = side.node.pod();
                let (result, took) = side.add(&pod, 10_000 + round);
                side.del(&pod, 10_000 + round, &result);
                pods.push(pod);
                took
            };
            (0..ROUNDS / 2).map(one).collect::<Vec<_>>()
        });
        let (none, all) = (median(&mut none), median(&mut all));
        let factor = all.as_secs_f64() / none.as_secs_f64();
        println!(
            "  {name:<18} {:>8} at 0, {:>8} at {LEASES}: {factor:.2} times",
            ms(none),
            ms(all)
        );
    }
    (empty, full, pods)
}

fn import(node: &Node, files: &Path) {
    let mut process = node.command(bins::ours("causeway-ipam"));
    process.arg("import").arg(files).arg("--data-dir").arg(node.data_dir());
    process.args(["--network", "bench"]);
    timed(process, b"");
}
