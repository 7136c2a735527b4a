//! Two stores, two locks: that of the addresses, which plugins open for a moment, and that of the
//! daemon, which is open as long as it runs.
#![expect(clippy::disallowed_methods, reason = "how long plugins wait is what is tested")]

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use causeway_tests::{Daemon, Lab, Runtime};

use serde_json::json;

use super::daemon_start::service;

/// What a reopen may take at most.
const LIMIT: Duration = Duration::from_secs(2);

/// Rows: C-01
#[test]
fn plugins_and_daemon_do_not_wait_for_each_other() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let runtime = Runtime::new(node, node.conflist("blue", "10.0.1.0/24"));
    let pods: Vec<_> = (0..12).map(|_| node.pod()).collect();
    let attach = || {
        let started = Instant::now();
        for pod in &pods {
            runtime.add_ok(&pod.attachment("eth0"));
        }
        assert_eq!(node.leases().len(), pods.len());
        started.elapsed()
    };
    let detach = || pods.iter().for_each(|pod| runtime.del_ok(&pod.attachment("eth0")));
    let mut daemon = Daemon::start(node);
    let up = attach();
    daemon.until("it knows all", || daemon.count("containers") == 12);
    let refused = Daemon::refused(node, &[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.code() == 1 && said.contains("another causewayd"), "{refused:?}");
    daemon.kill();
    detach();
    let down = attach();
    for took in [up, down] {
        assert!(took < LIMIT * 12, "{took:?}");
    }
    // A store that was open a moment ago opens again, by either of them.
    for _ in 0..5 {
        let started = Instant::now();
        daemon.again();
        assert!(started.elapsed() < LIMIT, "{:?}", started.elapsed());
        daemon.until("it knows all", || daemon.count("containers") == 12);
        daemon.kill();
    }
    for round in 0..50 {
        let started = Instant::now();
        let pod = &pods[round % pods.len()];
        runtime.del_ok(&pod.attachment("eth0"));
        runtime.add_ok(&pod.attachment("eth0"));
        assert!(started.elapsed() < LIMIT, "round {round}: {:?}", started.elapsed());
    }
    assert_eq!(node.leases().len(), 12);
}

/// sled lets go of its files a moment after its process said that they are closed.
///
/// Rows: C-01
#[test]
fn addresses_are_had_as_soon_as_a_former_opener_lets_go() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let runtime = Runtime::new(node, node.conflist("blue", "10.0.1.0/24"));
    let pods = [node.pod(), node.pod()];
    runtime.add_ok(&pods[0].attachment("eth0"));
    let path = node.data_dir().join("blue/db");
    let held = std::fs::File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    // SAFETY: flock takes no pointer, and the descriptor is open.
    assert_eq!(unsafe { libc::flock(held.as_raw_fd(), libc::LOCK_EX) }, 0);
    let pause = Duration::from_millis(500);
    let took = std::thread::scope(|scope| {
        let adding = scope.spawn(|| {
            let started = Instant::now();
            runtime.add_ok(&pods[1].attachment("eth0"));
            started.elapsed()
        });
        let started = Instant::now();
        while started.elapsed() < pause {
            assert!(!adding.is_finished(), "nobody opens what another one has");
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(held);
        adding.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    assert!(took < LIMIT, "{took:?}");
    assert_eq!(node.leases().len(), 2);
}

/// Rows: RC9
#[test]
fn a_full_state_disk_is_in_status_and_passes() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let state = node.dir().join("state");
    std::fs::create_dir(&state).expect("a folder");
    node.sh(&format!("mount -t tmpfs -o size=8m,mode=700 small {}", state.display()));
    let mut daemon = Daemon::start(node);
    daemon.apply(&[service("before")]);
    assert_eq!(daemon.status().degraded, [""; 0]);
    node.sh(&format!(
        "head -c $(( $(stat -f -c '%a * %S' {0}) - 1024 * 1024 )) /dev/zero >{0}/other",
        state.display()
    ));
    let status = daemon.causeway(&["status"]);
    assert_eq!(status.code(), 1, "{status:?}");
    let wanted = format!("state-dir: the disk of {} is full (10", state.display());
    let degraded = daemon.status().degraded;
    assert!(degraded.len() == 1 && degraded[0].starts_with(&wanted), "{degraded:?}");
    assert!(degraded[0].ends_with("free some space"), "{degraded:?}");
    // What it refuses, and what it does not know yet, comes with the room.
    let body = json!({ "objects": [service("refused")], "wait": true }).to_string();
    let refused = daemon.request("POST", "/v1/apply", body.as_bytes());
    assert!(
        refused.as_ref().is_err_and(|e| format!("{e:?}").contains("status: 503")),
        "{refused:?}"
    );
    let runtime = Runtime::new(node, node.conflist("blue", "10.0.1.0/24"));
    let pod = node.pod();
    runtime.add_ok(&pod.attachment("eth0"));
    assert_eq!(daemon.count("containers"), 0);
    std::fs::remove_file(state.join("other")).expect("removed");
    assert_eq!(daemon.status().degraded, [""; 0]);
    daemon.until("it takes the container", || daemon.count("containers") == 1);
    daemon.apply(&[service("after")]);
    daemon.stop();
    node.sh(&format!("umount -l {}", state.display()));
}
