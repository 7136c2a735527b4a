//! The lab's etcd does what scenarios ask of it.

use causeway_tests::{Etcd, Lab};

#[test]
fn etcd_is_killed_paused_compacted_wiped_and_restored() {
    let lab = Lab::with_nodes(1);
    let mut etcd = Etcd::start(&lab);
    etcd.ctl(&["put", "a", "1"]).ok();
    let backup = etcd.snapshot();
    etcd.ctl(&["put", "a", "2"]).ok();
    let newest = etcd.revision();
    etcd.compact();
    etcd.kill();
    etcd.again();
    assert_eq!(etcd.get("a").as_deref(), Some("2"));
    etcd.pause();
    let health = etcd.ctl(&["--command-timeout", "500ms", "endpoint", "health"]);
    assert!(!health.status.success(), "{health:?}");
    etcd.resume();
    etcd.until("it answers", |etcd| etcd.ctl(&["endpoint", "health"]).status.success());
    etcd.restore(&backup);
    assert_eq!(etcd.get("a").as_deref(), Some("1"));
    assert!(etcd.revision() < newest);
    etcd.wipe();
    assert_eq!(etcd.keys(""), Vec::<String>::new());

    lab.nodes[0].assert_ping(Etcd::ADDRESS);
    lab.nodes[0].assert_ping(Etcd::ADDRESS6);
    lab.split(&["port0"], &[Etcd::PORT]);
    assert!(!lab.nodes[0].ping(Etcd::ADDRESS));
    lab.nodes[0].assert_ping(Lab::CLIENT);
    lab.heal();
    lab.nodes[0].assert_ping(Etcd::ADDRESS);
}

#[test]
fn etcd_behind_tls_wants_a_certificate() {
    let lab = Lab::with_nodes(1);
    let etcd = Etcd::start_tls(&lab);
    etcd.ctl(&["put", "a", "1"]).ok();
    let bare = lab.nodes[0].try_sh(&format!(
        "ETCDCTL_API=3 etcdctl --endpoints {} --cacert {} --command-timeout 2s get a",
        etcd.url(),
        etcd.certificate("ca.pem").display()
    ));
    assert!(!bare.status.success(), "{bare:?}");
}
