//! The network in company: beside foreign rules, foreign plugins, host processes, and many at once.

use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use causeway_tests::traffic::{Answer, Server};
use causeway_tests::{Attachment, Lab, Node, Pod, Runtime, Snapshot};
use serde_json::{Value, json};

const SUBNET: &str = "10.66.0.0/24";

fn port(host_port: u16, protocol: &str) -> Value {
    json!({ "portMappings": [
        { "hostPort": host_port, "containerPort": 80, "protocol": protocol } ] })
}

fn address(result: &Value) -> String {
    let text = result["ips"][0]["address"].as_str().expect("an address");
    text.split('/').next().expect("an address before the prefix").to_owned()
}

/// Rows: C73, C74, F39
#[test]
fn i2_only_our_own_objects_are_touched() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    node.sh("
        nft add table inet mine
        nft 'add chain inet mine masq { type nat hook postrouting priority 100; }'
        nft 'add rule inet mine masq ip saddr 192.0.2.0/24 masquerade comment \"causeway/pod1/eth0\"'
        nft add table ip causeway_masq
        nft 'add chain ip causeway_masq postrouting'
        nft 'add rule ip causeway_masq postrouting counter accept'
        iptables -t nat -N CNI-HOSTPORT-DNAT
        iptables -t nat -A POSTROUTING -s 192.0.2.0/24 -j MASQUERADE
        ip link add foreign0 type bridge
        ip addr add 192.0.2.1/24 dev foreign0
        ip link add veth00000001 type veth peer name veth00000002
        ip link set veth00000001 alias 'not ours' up
        ip route add 198.18.0.0/15 via 172.18.0.1
        ip neigh add 172.18.0.77 lladdr 02:00:00:00:00:77 dev eth0 nud permanent
    ");
    let before = Snapshot::of(node);
    let runtime = Runtime::new(node, node.conflist("causeway", SUBNET));
    let pod = node.pod();
    let attachment = pod.attachment("eth0").runtime_config(port(8080, "tcp"));
    for _ in 0..2 {
        runtime.add_ok(&attachment);
        runtime.check(&attachment).expect("CHECK");
        assert_nothing_lost(&before, &Snapshot::of(node));
        runtime.del_ok(&attachment);
    }
    runtime.add_ok(&attachment);
    runtime.gc(&[]).expect("GC");
    node.sh("ip link del cw0");
    before.assert_same(&Snapshot::of(node));
}

fn assert_nothing_lost(before: &Snapshot, now: &Snapshot) {
    let diff = before.diff(now);
    assert!(!diff.lines().any(|line| line.starts_with("  - ")), "{diff}");
}

/// Two nodes with another past and equal attachments have equal rules, byte by byte.
#[test]
fn i6_equal_attachments_give_equal_rules() {
    let lab = Lab::two_nodes();
    let pods = [(); 3].map(|()| lab.nodes[0].pod());
    let texts = [[0, 1, 2], [2, 0, 1]].into_iter().zip(&lab.nodes).map(|(order, node)| {
        let mut list = node.conflist("causeway", SUBNET);
        list["plugins"][0]["capabilities"] = json!({ "ips": true });
        let runtime = Runtime::new(node, list);
        let attachment = |index: usize| {
            let host_port = 8080 + u16::try_from(index).expect("small");
            let wanted = json!({ "ips": [format!("10.66.0.{}/24", 10 + index)],
                "portMappings": port(host_port, "tcp")["portMappings"] });
            pods[index].attachment("eth0").runtime_config(wanted)
        };
        for index in order {
            runtime.add_ok(&attachment(index));
        }
        if order[0] == 2 {
            runtime.del_ok(&attachment(1));
            runtime.add_ok(&attachment(1));
        }
        let text = node.nft();
        for index in order {
            runtime.del_ok(&attachment(index));
        }
        text
    });
    let texts: Vec<_> = texts.collect();
    assert!(texts[0].contains("10.66.0.12"), "{}", texts[0]);
    assert_eq!(texts[0], texts[1]);
}

/// Rows: C75, C78
#[test]
fn add_del_and_gc_run_at_once_without_a_lock_outside() {
    const COUNT: usize = 12;
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let runtime = Runtime::new(node, node.conflist("causeway", SUBNET));
    let pods: Vec<Pod> = (0..COUNT).map(|_| node.pod()).collect();
    let attachments: Vec<Attachment> = (8000..)
        .zip(&pods)
        .map(|(host_port, pod)| pod.attachment("eth0").runtime_config(port(host_port, "tcp")))
        .collect();
    let valid: Vec<&Attachment> = attachments.iter().collect();
    std::thread::scope(|scope| {
        for attachment in &attachments {
            scope.spawn(|| {
                runtime.add_ok(attachment);
                runtime.del_ok(attachment);
                runtime.add_ok(attachment);
            });
        }
        for _ in 0..3 {
            scope.spawn(|| runtime.gc(&valid).expect("GC beside ADD and DEL"));
        }
    });
    let mut seen = std::collections::BTreeSet::new();
    for (attachment, pod) in attachments.iter().zip(&pods) {
        runtime.check(attachment).expect("whole");
        let ip = address(&runtime.result(attachment).expect("a result"));
        pod.assert_ping("10.66.0.1");
        assert!(seen.insert(ip), "an address was given twice");
    }
    std::thread::scope(|scope| {
        for attachment in &attachments {
            scope.spawn(|| runtime.del_ok(attachment));
        }
    });
    assert!(!node.nft().contains("causeway"), "{}", node.nft());
}

/// Rows: C76, C77
#[test]
fn status_waits_for_nobody_and_tells_of_exhaustion_unless_told_not_to() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let mut list = node.conflist("causeway", SUBNET);
    list["plugins"][0]["ipam"]["ranges"][0][0]["rangeEnd"] = json!("10.66.0.2");
    let runtime = Runtime::new(node, list.clone());
    runtime.status().expect("free addresses");
    let pod = node.pod();
    runtime.add_ok(&pod.attachment("eth0"));
    assert_eq!(runtime.status().expect_err("no address left").error_code(), 50);
    let mut quiet = list.clone();
    quiet["plugins"][0]["ipam"]["statusIgnoresExhaustion"] = json!(true);
    Runtime::new(node, quiet).status().expect("told to ignore exhaustion");

    let locks = node.sh(&format!("find {} -name '*.lock'", node.dir().display()));
    assert!(!locks.is_empty(), "there are lock files");
    let held: Vec<File> = locks.lines().map(|path| File::open(path).expect("a lock")).collect();
    for file in &held {
        // SAFETY: the descriptor is open.
        assert_eq!(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }, 0);
    }
    runtime.status().expect("a busy store is no reason to be NotReady");
    drop(held);
    runtime.del_ok(&pod.attachment("eth0"));
}

/// Rows: C30
#[test]
fn an_unknown_container_is_no_reason_to_spare_the_del() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let runtime = Runtime::new(node, node.conflist("causeway", SUBNET));
    let pod = node.pod();
    let attachment = pod.attachment("eth0");
    runtime.del_ok(&attachment);
    runtime.add_ok(&attachment);
    let result = runtime.result(&attachment).expect("a result");
    runtime.del_ok(&attachment);
    runtime.remember(&attachment, result);
    let failed = runtime.check(&attachment).expect_err("nothing is attached");
    assert_ne!(failed.error_code(), 3, "{}", failed.describe());
}

/// Rows: C84
#[test]
fn addresses_serve_foreign_plugins_and_foreign_addresses_serve_us() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let ours = node.conflist("causeway", SUBNET)["plugins"][0]["ipam"].clone();
    for (main, extra) in [
        ("bridge", json!({ "bridge": "up0", "isGateway": true })),
        ("ptp", json!({})),
        ("macvlan", json!({ "master": "eth0" })),
    ] {
        let mut plugin = extra;
        plugin["type"] = json!(main);
        plugin["ipam"] = ours.clone();
        round_trip(node, main, plugin, "10.66.0.");
    }
    for ipam in [
        json!({ "type": "host-local", "dataDir": node.data_dir(), "subnet": "10.68.0.0/24" }),
        json!({ "type": "static", "addresses": [{ "address": "10.68.0.9/24" }] }),
    ] {
        let mut plugin = node.conflist("foreign", SUBNET)["plugins"][0].clone();
        plugin["bridge"] = json!("cw8");
        plugin["ipam"] = ipam;
        plugin["isDefaultGateway"] = json!(false);
        round_trip(node, "foreign", plugin, "10.68.0.");
    }
}

fn round_trip(node: &Node, name: &str, plugin: Value, prefix: &str) {
    let list = json!({ "cniVersion": "1.0.0", "name": name, "plugins": [plugin] });
    let runtime = Runtime::new(node, list);
    let pod = node.pod();
    let attachment = pod.attachment("eth0");
    let result = runtime.add_ok(&attachment);
    assert!(address(&result).starts_with(prefix), "{name}: {result}");
    assert!(pod.addresses("eth0")[0].starts_with(prefix), "{name}");
    runtime.check(&attachment).unwrap_or_else(|e| panic!("{name}: CHECK: {}", e.describe()));
    runtime.del_ok(&attachment);
    let again = address(&runtime.add_ok(&attachment));
    runtime.del_ok(&attachment);
    assert!(again.starts_with(prefix), "{name}: the lease was released");
}

/// Rows: F44
#[test]
fn a_host_port_is_captured_wholly_or_not_at_all() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let runtime = Runtime::new(node, node.conflist("causeway", SUBNET));
    let pod = node.pod();
    let _process = Server::tcp(node, "process", "0.0.0.0:8080");
    let ask = || {
        [lab.client.tcp("172.18.0.2:8080"), node.tcp("172.18.0.2:8080"), node.tcp("127.0.0.1:8080")]
            .map(|answer| answer.expect("an answer").hostname)
    };
    assert_eq!(ask(), ["process"; 3]);
    let attachment = pod.attachment("eth0").runtime_config(port(8080, "tcp"));
    let ip = address(&runtime.add_ok(&attachment));
    let _web = Server::tcp(&pod, "pod", &format!("{ip}:80"));
    assert_eq!(ask(), ["pod"; 3], "the container has the port from everywhere");

    let second = node.pod();
    let clash = second.attachment("eth0").runtime_config(port(8080, "tcp"));
    let failed = runtime.add(&clash).expect_err("another container has the port");
    assert_eq!(failed.error_code(), 102, "{}", failed.describe());
    runtime.del_ok(&clash);
    assert_eq!(ask(), ["pod"; 3], "the first container keeps it");
    runtime.del_ok(&attachment);
    assert_eq!(ask(), ["process"; 3], "and gives it back");
}

/// Rows: F45
#[test]
#[expect(clippy::disallowed_methods, reason = "the row is about one second")]
fn a_udp_client_that_keeps_sending_reaches_the_next_container() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let runtime = Runtime::new(node, node.conflist("causeway", SUBNET));
    let socket = lab.client.run(|| UdpSocket::bind("0.0.0.0:5000")).expect("a socket");
    socket.connect("172.18.0.2:8080").expect("an address");
    socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
    let wait_for = |name: &str| {
        let start = Instant::now();
        let mut buffer = [0; 512];
        while start.elapsed() < Duration::from_secs(1) {
            // Refused while nobody listens: that is what the client keeps sending through.
            drop(socket.send(b"hello"));
            let Ok(length) = socket.recv(&mut buffer) else { continue };
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if Answer::parse(&text).expect("an answer").hostname == name {
                return;
            }
        }
        panic!("{name} did not get the client's packets within a second");
    };
    let run = |name: &str| {
        let pod = node.pod();
        let attachment = pod.attachment("eth0").runtime_config(port(8080, "udp"));
        let ip = address(&runtime.add_ok(&attachment));
        let server = Server::udp(&pod, name, &format!("{ip}:80"));
        wait_for(name);
        (pod, attachment, server)
    };
    let (_first, attachment, server) = run("first");
    drop(server);
    runtime.del_ok(&attachment);
    drop(socket.send(b"into the gap"));
    let (_second, attachment, _server) = run("second");
    runtime.del_ok(&attachment);
}

/// Rows: F52
#[test]
fn without_the_daemon_containers_come_and_go() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let list = node.conflist("causeway", SUBNET);
    let runtime = Runtime::new(node, list.clone());
    let pod = node.pod();
    let attachment = pod.attachment("eth0").runtime_config(port(8080, "tcp"));
    runtime.status().expect("the daemon is not needed");
    runtime.add_ok(&attachment);
    runtime.check(&attachment).expect("CHECK");
    runtime.del_ok(&attachment);

    let mut needed = list;
    needed["plugins"][1]["requireDaemon"] = json!(true);
    let strict = Runtime::new(node, needed);
    assert!([50, 51].contains(&strict.status().expect_err("no daemon").error_code()));
    assert_eq!(strict.add(&attachment).expect_err("no daemon").error_code(), 104);
    strict.del_ok(&attachment);
}
