//! Directories as upstream's host-local leaves them.

use std::time::Duration;

use super::*;
use crate::lock::NetworkLock;
use crate::store::memory::Memory;

/// Rows: F28
#[test]
fn both_formats_of_host_local_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("10.0.0.2", "c1\r\neth0");
    write("10.0.0.3", " c2 \r\n eth1 \n");
    write("10.0.0.4", "old");
    write("10.0.0.5", "");
    write("10.0.0.10", "\r\n");
    write("fd00::7", "c1\r\neth0");
    write("last_reserved_ip.0", "10.0.0.5");
    write("last_reserved_ip.1", "nonsense");
    write("lock", "");
    write("README", "c9\r\neth0");
    let found = read(dir.path(), 7).unwrap();
    let shown: Vec<_> = found
        .leases
        .iter()
        .map(|l| format!("{} {} {} {}", l.address, l.owner.container_id, l.owner.ifname, l.since))
        .collect();
    assert_eq!(
        shown,
        ["10.0.0.2 c1 eth0 7", "10.0.0.3 c2 eth1 7", "10.0.0.4 old  7", "fd00::7 c1 eth0 7"]
    );
    assert_eq!(found.cursors, BTreeMap::from([(0, "10.0.0.5".parse().unwrap())]));
    let ownerless: Vec<_> = found.ownerless.iter().map(ToString::to_string).collect();
    assert_eq!(ownerless, ["10.0.0.5", "10.0.0.10"]);

    let mut store = Memory::default();
    let taken = Lease {
        address: "10.0.0.3".parse().unwrap(),
        owner: owner("another\neth0").unwrap(),
        since: 0,
        boot_ms: 0,
    };
    store.commit(Change { lease: vec![taken], ..Change::default() }).unwrap();
    let first = merge(&mut store, found.clone(), "boot").unwrap();
    assert_eq!(first, Imported { taken: 3, known: 0, conflicts: 1 });
    let again = merge(&mut store, found, "boot").unwrap();
    assert_eq!(again, Imported { taken: 0, known: 3, conflicts: 1 });
    assert_eq!(store.state().boot, "boot");
    let address: IpAddr = "10.0.0.4".parse().unwrap();
    assert_eq!(store.owned(&owner("old\nany").unwrap()).unwrap(), [address]);
}

#[test]
fn upstreams_lock_is_respected() {
    let dir = tempfile::tempdir().unwrap();
    // A lock of ours stands for upstream's: both are flocks.
    let held = NetworkLock::acquire(dir.path(), "x", Duration::ZERO).unwrap();
    let error = lock::foreign(&dir.path().join(".x.lock"), Duration::ZERO).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    drop(held);
    assert!(lock::foreign(&dir.path().join(".x.lock"), Duration::ZERO).unwrap().is_some());
    assert!(lock::foreign(&dir.path().join("absent"), Duration::ZERO).unwrap().is_none());
}
