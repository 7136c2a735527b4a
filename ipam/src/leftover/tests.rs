use std::fs;
use std::net::IpAddr;

use super::*;
use crate::allocator::{self, Ask, Now};
use crate::config::Place;
use crate::range::{Pool, Range, Span};
use crate::repair;
use crate::session::{self, Patience};
use crate::store::{Owner, Store};

fn now() -> Now {
    Now { unix: 1_000_000, boot_ms: 1, boot: "boot".into() }
}

fn place(dir: &Path, network: &str) -> Place {
    Place {
        network: network.into(),
        data_dir: dir.to_owned(),
        run_dir: dir.join("run"),
        ..Place::default()
    }
}

fn with<T: Send + 'static>(
    dir: &Path,
    network: &str,
    work: impl FnOnce(&mut dyn Store) -> T + Send + 'static,
) -> T {
    let work = move |store: &mut dyn Store| Ok::<_, crate::store::Error>(work(store));
    session::with_store(&place(dir, network), Patience::USUAL, &now(), work).unwrap()
}

fn owner() -> Owner {
    Owner { container_id: "c".into(), ifname: "eth0".into() }
}

fn add(dir: &Path, network: &str) -> IpAddr {
    let subnet = "10.0.0.0/24".parse().unwrap();
    let range = Range { subnet, span: Span::of(subnet), gateway: "10.0.0.1".parse().unwrap() };
    let pools = [Pool::new(vec![range], &[])];
    with(dir, network, move |store| {
        let (owner, now) = (owner(), now());
        let ask = Ask {
            pools: &pools,
            requested: &[],
            owner: &owner,
            reuse_delay: Duration::ZERO,
            now: &now,
            elsewhere: &|_| None,
        };
        allocator::allocate(store, &ask).unwrap()[0].address
    })
}

fn del(dir: &Path, network: &str, reuse_delay: Duration) {
    with(dir, network, move |store| {
        allocator::release(store, &owner(), reuse_delay, &now()).unwrap();
    });
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = dir
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

/// Rows: RB10
#[test]
fn a_network_whose_last_lease_goes_leaves_a_few_bytes_and_its_position() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(add(dir.path(), "net").to_string(), "10.0.0.2");
    // A record that the DEL under way removes last: no address is leased for it again.
    let record = dir.path().join("run/attachments/bridge/net");
    fs::create_dir_all(&record).unwrap();
    let key = r#"{"network":"net","container_id":"c","ifname":"eth0"}"#;
    let text = format!(r#"{{"key":{key},"record":{{"addresses":["10.0.0.2/24"]}}}}"#);
    fs::write(record.join("c.json"), text).unwrap();
    del(dir.path(), "net", Duration::ZERO);
    assert_eq!(names(dir.path()), [".net.lock", "run"]);
    let size = NetworkLock::path(dir.path(), "net").metadata().unwrap().len();
    assert!(size < 400, "{size}");
    assert_eq!(add(dir.path(), "net").to_string(), "10.0.0.3");
    assert_eq!(with(dir.path(), "net", |store| store.leases().unwrap().len()), 1);
}

/// A process may be killed once the files are there again.
///
/// Rows: RB10
#[test]
fn files_that_were_made_anew_and_not_written_are_in_order() {
    let dir = tempfile::tempdir().unwrap();
    add(dir.path(), "net");
    del(dir.path(), "net", Duration::ZERO);
    with(dir.path(), "net", |_| ());
    assert_eq!(names(dir.path()), [".net.lock", "net"]);
    let order = repair::repair(dir.path(), &dir.path().join("run"), "net", &now()).unwrap();
    assert_eq!(order, repair::Repaired::InOrder(0));
    assert_eq!(add(dir.path(), "net").to_string(), "10.0.0.3");
}

/// A process that is killed after its commit and before the number of it is recorded.
///
/// Rows: RB10
#[test]
fn a_lease_that_a_killed_process_wrote_is_not_swept_away() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        add(dir.path(), "net");
        del(dir.path(), "net", Duration::ZERO);
    }
    let path = NetworkLock::path(dir.path(), "net");
    let sealed = fs::read(&path).unwrap();
    add(dir.path(), "net");
    let mut killed = fs::read(&path).unwrap();
    // The seal alone is as before: 30 bytes from the 16th on.
    killed[16..46].copy_from_slice(&sealed[16..46]);
    fs::write(&path, killed).unwrap();
    let lock = fs::File::options().write(true).open(&path).unwrap();
    lock.set_modified(UNIX_EPOCH).unwrap();
    add(dir.path(), "other");
    del(dir.path(), "other", Duration::ZERO);
    assert_eq!(with(dir.path(), "net", |store| store.leases().unwrap().len()), 1);
}

/// Rows: RB10
#[test]
fn addresses_that_rest_keep_their_store() {
    let dir = tempfile::tempdir().unwrap();
    add(dir.path(), "net");
    del(dir.path(), "net", Duration::from_secs(60));
    assert_eq!(names(dir.path()), [".net.lock", "net"]);
    let state = with(dir.path(), "net", |store| store.state().clone());
    assert_eq!((state.leases, state.boot.as_str()), (0, "boot"));
}

/// Rows: RB10
#[test]
fn a_network_that_goes_on_keeps_its_database_until_it_is_quiet() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        add(dir.path(), "net");
        del(dir.path(), "net", Duration::ZERO);
    }
    add(dir.path(), "used");
    assert_eq!(names(dir.path()), [".net.lock", ".used.lock", "net", "used"]);
    let lock = fs::File::options().write(true).open(NetworkLock::path(dir.path(), "net")).unwrap();
    let age = |seconds| UNIX_EPOCH + Duration::from_secs(now().unix - seconds);
    for (quiet, left) in [(QUIET - 1, 3), (QUIET, 2)] {
        lock.set_modified(age(quiet)).unwrap();
        add(dir.path(), "other");
        del(dir.path(), "other", Duration::ZERO);
        add(dir.path(), "other");
        let stores = disk::networks(dir.path()).unwrap();
        assert_eq!(stores.len(), left, "{stores:?}");
        del(dir.path(), "other", Duration::ZERO);
    }
    assert_eq!(add(dir.path(), "net").to_string(), "10.0.0.5");
    // One with leases stays, however long nobody used it.
    let lock = fs::File::options().write(true).open(NetworkLock::path(dir.path(), "used")).unwrap();
    lock.set_modified(age(10 * QUIET)).unwrap();
    add(dir.path(), "last");
    del(dir.path(), "last", Duration::ZERO);
    assert_eq!(with(dir.path(), "used", |store| store.leases().unwrap().len()), 1);
}
