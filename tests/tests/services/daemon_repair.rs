//! Restarts under traffic, changes by other processes, transactions that fail.

use std::io::Write;
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use causeway_tests::traffic::{PATIENCE, Server};
use causeway_tests::{Daemon, Lab, Node, Ns, Pod, Runtime};
use serde_json::json;

use super::daemon_start::{address, foreign, ours, service, slice};

const BACKENDS: [&str; 2] = ["nftables", "iptables"];

/// Two containers with servers, behind the service `web`.
struct Web {
    _pods: Vec<Pod>,
    _servers: Vec<Server>,
    addresses: Vec<String>,
}

impl Web {
    fn new(node: &Node) -> Self {
        let runtime = Runtime::new(node, node.conflist("blue", "10.0.1.0/24"));
        let pods: Vec<Pod> = (0..2).map(|_| node.pod()).collect();
        let mut addresses = Vec::new();
        let mut servers = Vec::new();
        for pod in &pods {
            let result = runtime.add_ok(&pod.attachment("eth0"));
            let address = result["ips"][0]["address"].as_str().expect("an address");
            let address = address.split_once('/').expect("a length").0.to_owned();
            servers.push(Server::tcp(pod, &pod.id, &format!("{address}:8001")));
            addresses.push(address);
        }
        Self { _pods: pods, _servers: servers, addresses }
    }

    fn apply(&self, daemon: &Daemon<'_>) -> (String, u64) {
        let addresses: Vec<&str> = self.addresses.iter().map(String::as_str).collect();
        daemon.apply(&[service("web"), slice("web", &addresses)]);
        address(daemon, "web")
    }
}

/// A connection a millisecond from `ns` to `to` while `work` runs; how many there were, and what
/// failed.
fn under_traffic(ns: &Ns, to: &str, work: impl FnOnce()) -> (usize, Vec<String>) {
    let to: std::net::SocketAddr = to.parse().expect("an address");
    let (stop, stopped) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let load = scope.spawn(move || {
            ns.run(move || {
                let (mut count, mut failures) = (0, Vec::new());
                let millisecond = Duration::from_millis(1);
                while stopped.recv_timeout(millisecond) == Err(mpsc::RecvTimeoutError::Timeout) {
                    count += 1;
                    let done = TcpStream::connect_timeout(&to, PATIENCE)
                        .and_then(|mut stream| stream.write_all(b"x\n"));
                    failures.extend(done.err().map(|error| error.to_string()));
                }
                (count, failures)
            })
        });
        work();
        drop(stop);
        load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Rows: P94
#[test]
fn no_connection_fails_over_restart_and_kill() {
    for backend in BACKENDS {
        let lab = Lab::one_node();
        let node = &lab.nodes[0];
        node.sh("nft add table inet others '{ chain input { type filter hook input priority 0; \
                 tcp dport 9999 drop; }; }'");
        let web = Web::new(node);
        let mut daemon = Daemon::start_with(node, &["--backend", backend]);
        let (vip, port) = web.apply(&daemon);
        let before = foreign(node);
        let rules = ours(node);
        let restarts = std::cell::RefCell::new(&mut daemon);
        let check = |ns: &Ns, to: &str| {
            let (count, failures) = under_traffic(ns, to, || {
                let mut daemon = restarts.borrow_mut();
                for _ in 0..3 {
                    daemon.stop();
                    daemon.again();
                    daemon.kill();
                    daemon.again();
                }
            });
            causeway_tests::say(&format!(
                "{backend}: {count} connections to {to} over 3 restarts and 3 kills: {} failed",
                failures.len()
            ));
            assert_eq!(failures, Vec::<String>::new());
            assert!(count > 20, "{count} connections");
        };
        check(node, &format!("{vip}:8080"));
        check(&lab.client, &format!("172.18.0.2:{port}"));
        if backend == "nftables" {
            assert_eq!(foreign(node), before, "tables of others");
        }
        assert_eq!(ours(node), rules, "{backend}: adopted rules");
        assert_eq!(daemon.count("repairs"), 0);
    }
}

/// Rows: P89, P90
#[test]
fn a_burst_is_one_transaction_and_a_change_touches_little() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let daemon = Daemon::start(node);
    daemon.apply(&[service("web"), slice("web", &["10.0.1.2"])]);
    let (full, syncs) = (daemon.count("fullSyncs"), daemon.count("syncs"));
    daemon.apply(&[slice("web", &["10.0.1.3"])]);
    assert_eq!((daemon.count("fullSyncs"), daemon.count("syncs")), (full, syncs + 1));
    // They wait together while the daemon cannot answer.
    daemon.signal(libc::SIGSTOP);
    std::thread::scope(|scope| {
        let daemon = &daemon;
        let requests: Vec<_> = (0..40)
            .map(|number| {
                scope.spawn(move || {
                    daemon.apply(&[
                        slice(&format!("s{number}"), &["10.0.1.2"]),
                        service(&format!("s{number}")),
                    ]);
                })
            })
            .collect();
        daemon.until("40 connections wait", || {
            let listener = node.sh(&format!("ss -xlH src {}", daemon.socket().display()));
            let queue = listener.split_whitespace().nth(2).and_then(|count| count.parse().ok());
            queue.is_some_and(|count: usize| count >= 40)
        });
        daemon.signal(libc::SIGCONT);
        for request in requests {
            request.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    let more = daemon.count("syncs") - syncs - 1;
    causeway_tests::say(&format!("40 requests at once: {more} transactions"));
    assert!((1..=20).contains(&more), "{more} transactions for 40 requests");
    assert_eq!(daemon.count("fullSyncs"), full);
}

/// Rows: P93
#[test]
fn what_others_remove_is_back_within_a_second() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    node.sh(
        "nft add table inet others '{ set ours { type ipv4_addr; elements = { 10.9.9.9 }; }; }'",
    );
    for (backend, breaks) in [
        (
            "nftables",
            &[
                "nft delete table ip causeway_services",
                "nft flush table ip causeway_services",
                "nft flush set ip causeway_services cluster-ips",
                "nft flush map ip causeway_services endpoints",
                "nft add element ip causeway_services cluster-ips '{ 10.96.77.77 }'",
                "nft delete table ip6 causeway_services",
                "nft insert rule ip causeway_services services accept",
                "nft delete table ip causeway_services; nft delete table ip6 causeway_services",
            ][..],
        ),
        (
            "iptables",
            &[
                "iptables -t nat -F",
                "iptables -t nat -F CW-SERVICES",
                "iptables -t nat -D PREROUTING 1",
                "iptables -F; iptables -X",
            ][..],
        ),
    ] {
        let mut daemon = Daemon::start_with(node, &["--backend", backend]);
        daemon.apply(&[service("web"), slice("web", &["10.0.1.2", "10.0.1.3"])]);
        let before = foreign(node);
        let rules = ours(node);
        for (number, script) in breaks.iter().enumerate() {
            let repairs = daemon.count("repairs");
            node.sh(script);
            let took = daemon.until(script, || ours(node) == rules);
            causeway_tests::say(&format!(
                "{backend}: {script}: repaired after {} ms",
                took.as_millis()
            ));
            assert!(took < Duration::from_secs(1), "{script}: {took:?}");
            daemon.until("it is counted", || daemon.count("repairs") > repairs || number == 99);
        }
        if backend == "nftables" {
            assert_eq!(foreign(node), before, "tables of others");
        }
        let repairs = daemon.count("repairs");
        node.sh("nft add element inet others ours '{ 10.9.9.10 }'; nft delete element inet others ours '{ 10.9.9.10 }'");
        assert_eq!(
            daemon.count("repairs"),
            repairs,
            "changes of other tables are no matter of ours"
        );
        daemon.stop();
    }
}

/// During a large change the daemon does not listen to the kernel (it would cost more than the change),
/// and misses nothing all the same.
///
/// Rows: RC12
#[test]
fn what_others_remove_during_a_large_change_is_back_too() {
    const PORTS: u16 = 1200;
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let ports: Vec<_> =
        (1..=PORTS).map(|port| json!({ "name": format!("p{port}"), "port": port })).collect();
    let mut many = service("many");
    many["spec"] = json!({ "clusterIP": "10.96.1.1", "ports": ports });
    for (backend, breaks) in [
        ("nftables", "nft flush map ip causeway_services endpoints"),
        ("iptables", "iptables -t nat -F CW-SERVICES"),
    ] {
        let mut daemon = Daemon::start_with(node, &["--backend", backend]);
        let to = |address: &str| {
            let mut slice = slice("many", &[address]);
            slice["ports"] = json!(ports);
            slice
        };
        daemon.apply(&[many.clone(), to("10.0.1.2")]);
        let rules = ours(node);
        for address in ["10.0.1.3", "10.0.1.4", "10.0.1.2"] {
            std::thread::scope(|scope| {
                scope.spawn(|| daemon.apply(&[to(address)]));
                node.sh(&format!("for number in 1 2 3 4; do {breaks}; done"));
            });
        }
        daemon.until("the rules are whole", || ours(node) == rules);
        daemon.stop();
    }
}

/// One daemon per network namespace, whatever directories it uses.
///
/// Rows: RB7
#[test]
fn a_second_daemon_in_the_network_namespace_is_refused_by_name() {
    for backend in BACKENDS {
        let lab = Lab::one_node();
        let node = &lab.nodes[0];
        let mut daemon = Daemon::start_with(node, &["--backend", backend]);
        daemon.apply(&[service("web"), slice("web", &["10.0.1.2"])]);
        let rules = ours(node);
        let folder = node.dir().join("second");
        let path = |name: &str| folder.join(name).display().to_string();
        let (run, state) = (path("run"), path("state"));
        let program = causeway_tests::bins::ours("causewayd");
        let second = |action: &[&str]| {
            let mut command = node.command(&program);
            command.args(action).args(["--run-dir", &run, "--state-dir", &state]);
            causeway_tests::finish(command, b"")
        };
        let refused = second(&["--node-name", "two", "--backend", backend]);
        assert_eq!(refused.code(), 1, "{refused:?}");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        let wanted = format!("another causewayd (process {})", daemon.pid());
        assert!(said.contains(&wanted), "{said}");
        // It would take the running one's rules away.
        let refused = second(&["cleanup"]);
        assert_eq!(refused.code(), 1, "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains(&wanted), "{refused:?}");
        assert_eq!((ours(node), daemon.count("repairs")), (rules, 0));
        // Killed, it leaves nothing that is in the next one's way.
        daemon.kill();
        let cleaned = second(&["cleanup"]);
        assert_eq!(cleaned.code(), 0, "{cleaned:?}");
        daemon.again();
    }
}

/// The name of the lock is everybody's, so whoever squats it is named.
///
/// Rows: RB7
#[test]
fn another_programs_lock_is_refused_with_its_process() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let socket = node.run(|| {
        let address = SocketAddr::from_abstract_name("causewayd").expect("a name");
        UnixDatagram::bind_addr(&address).expect("free")
    });
    let refused = Daemon::refused(node, &[]);
    assert_eq!(refused.code(), 1, "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    let wanted = format!("process {} (", std::process::id());
    assert!(said.contains(&wanted) && said.contains("@causewayd"), "{said}");
    drop(socket);
    drop(Daemon::start(node));
}

/// Rows: RB7
#[test]
fn a_program_that_keeps_changing_our_rules_is_met_after_pauses_and_named() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    for (backend, script) in [
        ("nftables", "nft delete table ip causeway_services"),
        ("iptables", "iptables -t nat -F CW-SERVICES"),
    ] {
        let mut daemon = Daemon::start_with(node, &["--backend", backend]);
        daemon.apply(&[service("web"), slice("web", &["10.0.1.2"])]);
        let rules = ours(node);
        assert_eq!(daemon.status().degraded, Vec::<String>::new());
        let contested = || {
            let degraded = daemon.status().degraded;
            degraded.into_iter().find(|text| text.starts_with("repairs: "))
        };
        while contested().is_none() {
            node.sh(script);
            daemon.until("it is restored", || ours(node) == rules);
            assert!(daemon.count("repairs") < 40, "it is never said");
        }
        let said = contested().expect("just now");
        assert!(said.contains("keeps changing the service rules"), "{said}");
        assert!(said.contains("after a pause of 1 s"), "{said}");
        if backend == "nftables" {
            assert!(said.contains("nft (process "), "{said}");
        }
        node.sh(script);
        daemon.until("it is restored after a pause", || ours(node) == rules);
        daemon.until("the next pause is longer", || {
            contested().is_some_and(|said| said.contains("after a pause of 2 s"))
        });
        // A user's change does not wait.
        node.sh(script);
        daemon.apply(&[slice("web", &["10.0.1.3"])]);
        assert!(ours(node).join(" ").contains("10.0.1.3"));
        daemon.stop();
    }
}

/// Rows: P91, P92
#[test]
fn a_refused_transaction_is_tried_again_as_a_whole() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let daemon = Daemon::start(node);
    daemon.apply(&[service("web"), slice("web", &["10.0.1.2"])]);
    // The kernel refuses everybody else a table that a process owns. One transaction: the daemon
    // repairs at once.
    let mut command = node.command("nft");
    command.arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut owner = command.spawn().expect("start nft");
    let mut input = owner.stdin.take().expect("a pipe");
    input
        .write_all(
            b"delete table ip causeway_services; add table ip causeway_services { flags owner; }\n",
        )
        .expect("tell nft");
    daemon.until("it fails", || {
        daemon.status().degraded.iter().any(|text| text.contains("write the service tables"))
    });
    let body = json!({ "objects": [slice("web", &["10.0.1.3"])], "wait": true });
    let refused = daemon.request("POST", "/v1/apply", body.to_string().as_bytes());
    let refused = refused.expect_err("not in the kernel");
    assert!(refused.to_string().contains("stored, but not in this node's kernel yet"), "{refused}");
    assert!(daemon.request("GET", "/v1/status", b"").is_ok(), "it goes on");
    drop(input);
    owner.wait().expect("the end of nft");
    daemon.until("all is well again", || daemon.status().degraded.is_empty());
    assert!(node.nft().contains(" : 10.0.1.3"), "{}", node.nft());
    assert!(daemon.count("failures") > 0);
}

/// Rows: P96
#[test]
fn the_other_backends_rules_go_at_a_start() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    for (backend, wanted, unwanted) in [
        ("nftables", "causeway_services", "CW-"),
        ("iptables", "CW-", "causeway_services"),
        ("nftables", "causeway_services", "CW-"),
    ] {
        let mut daemon = Daemon::start_with(node, &["--backend", backend]);
        daemon.apply(&[service("web"), slice("web", &["10.0.1.2"])]);
        let rules = node.nft();
        assert!(rules.contains(wanted) && !rules.contains(unwanted), "{backend}: {rules}");
        daemon.stop();
    }
}
