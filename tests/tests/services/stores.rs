//! Two stores, two locks: that of the addresses, which plugins open for a moment, and that of the
//! daemon, which is open as long as it runs.
#![expect(clippy::disallowed_methods, reason = "how long plugins wait is what is tested")]

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use causeway_tests::{Daemon, Lab, Runtime};

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
