use std::ffi::CString;
use std::os::unix::fs::PermissionsExt as _;

use causeway_model::{EndpointRecord, Labels, manifest};
use serde_json::json;

use super::*;
use crate::Origin;

fn key(id: &str) -> EndpointKey {
    EndpointKey { network: "net".into(), container_id: id.into(), ifname: "eth0".into() }
}

pub(super) fn event(id: &str, seq: u64, boot: &str) -> EndpointEvent {
    let record = EndpointRecord {
        key: key(id),
        netns: Some("/run/netns/x".into()),
        ips: vec!["10.0.1.2".parse().expect("an address")],
        labels: Labels::from([("app".to_owned(), "web".to_owned())]),
        created: 1,
    };
    EndpointEvent { key: key(id), seq, boot_id: boot.into(), record: Some(record) }
}

pub(super) fn service(name: &str, port: u16) -> Stored {
    let document = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": "default", "labels": { "a": "b" } },
        "spec": {
            "clusterIP": "10.96.0.7", "selector": { "app": "web" },
            "ports": [{ "port": port, "targetPort": "http", "protocol": "TCP" }],
        },
    });
    let mut objects = manifest::from_json(&document).expect("a service");
    Stored { object: objects.remove(0), origin: Origin::Api }
}

fn id(stored: &Stored) -> (ObjectKind, ObjectKey) {
    (stored.object.kind(), stored.object.key().clone())
}

#[track_caller]
fn objects(store: &Store) -> Vec<Stored> {
    let (objects, unreadable) = store.objects().expect("readable");
    assert!(unreadable.is_empty(), "{unreadable:?}");
    objects
}

#[test]
fn objects_are_there_again_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let (a, b) = (service("a", 80), service("b", 81));
    let b = Stored { origin: Origin::Manifest("b.yaml".into()), ..b };
    {
        let store = Store::open(folder.path()).expect("opened");
        assert_eq!(objects(&store), []);
        store.write(&[a.clone(), b.clone(), service("c", 82)], &[]).expect("written");
        store.write(&[], &[id(&service("c", 82))]).expect("written");
        assert_eq!(objects(&store), [a.clone(), b.clone()]);
    }
    let store = Store::open(folder.path()).expect("opened");
    assert_eq!(objects(&store), [a, b.clone()]);
    let moved = Stored { origin: Origin::Api, ..b };
    store.write(std::slice::from_ref(&moved), &[id(&service("a", 80))]).expect("written");
    assert_eq!(objects(&store), [moved]);
}

#[test]
fn an_object_that_is_not_understood_stays_and_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("opened");
    store.write(&[service("a", 80)], &[]).expect("written");
    let bad = |key: &[u8], value: &str| {
        store.with("write", |db| db.insert(key, value)).expect("written");
    };
    bad(b"osdefault\0old", "{}");
    bad(b"on\0node", "not JSON");
    let (objects, unreadable) = store.objects().expect("readable");
    assert_eq!(objects, [service("a", 80)]);
    assert_eq!(unreadable.len(), 2);
    assert!(unreadable[0].starts_with("node node: "), "{unreadable:?}");
    assert!(unreadable[1].starts_with("service default/old: "), "{unreadable:?}");
    assert_eq!(store.objects().expect("readable").1.len(), 2);
}

#[test]
fn containers_are_those_of_this_boot() {
    let folder = tempfile::tempdir().expect("a folder");
    {
        let store = Store::open(folder.path()).expect("opened");
        let events = [
            event("a", 1, "old"),
            event("b", 2, "new"),
            event("b", 3, "new"),
            event("c", 4, "new"),
        ];
        for event in events {
            store.put_container(&event).expect("stored");
        }
        store.delete_container(&key("c")).expect("deleted");
        store.flush().expect("flushed");
    }
    let store = Store::open(folder.path()).expect("opened");
    assert_eq!(store.containers("new").expect("readable"), [event("b", 3, "new")]);
    assert_eq!(store.containers("old").expect("readable"), []);
    assert_eq!(objects(&store), []);
}

#[test]
fn a_second_opener_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("opened");
    let error = Store::open(folder.path()).expect_err("refused");
    assert_eq!(error.source.kind(), io::ErrorKind::WouldBlock);
    let pid = format!("another causewayd (process {})", std::process::id());
    assert!(error.action.contains(&pid), "{error}");
    drop(store);
    drop(Store::open(folder.path()).expect("opened"));
}

#[test]
fn it_is_roots_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let _store = Store::open(&folder.path().join("state")).expect("opened");
    let mode = |path: &str| {
        folder.path().join(path).metadata().expect("there").permissions().mode() & 0o777
    };
    assert_eq!(
        [mode("state"), mode("state/store"), mode("state/store.lock")],
        [0o700, 0o700, 0o600]
    );
}

/// A daemon that does not start serves no one: it starts over, and says where the files are.
#[track_caller]
fn assert_moved_aside(folder: &Path, number: u32) {
    let store = Store::open(folder).expect("opened");
    let Some(Recovered::Lost(text)) = store.recovered() else {
        panic!("{:?}", store.recovered());
    };
    let aside = folder.join(format!("store.damaged-{number}"));
    assert!(text.contains(&aside.display().to_string()) && aside.is_dir(), "{text}");
    assert_eq!(lost_stores(folder).last(), Some(&aside));
    assert_eq!(objects(&store), []);
    store.write(&[service("new", 80)], &[]).expect("written");
    drop(store);
    let store = Store::open(folder).expect("opened");
    assert_eq!(store.recovered(), None);
    assert_eq!(objects(&store), [service("new", 80)]);
    assert!(!folder.join("store.retry").exists());
}

fn snapshots(store: &Path) -> Vec<PathBuf> {
    let paths = store.read_dir().expect("a folder").map(|entry| entry.expect("an entry").path());
    let is_snapshot = |path: &PathBuf| {
        path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"snap."))
    };
    paths.filter(is_snapshot).collect()
}

/// A store of 49 writes with a snapshot.
fn written(folder: &Path) {
    {
        let store = Store::open(folder).expect("opened");
        for number in 1..50 {
            store.write(&[service("a", number)], &[]).expect("written");
        }
        store.put_container(&event("c", 1, "boot")).expect("stored");
    }
    // Opening writes a snapshot.
    drop(Store::open(folder).expect("opened"));
    assert_eq!(snapshots(&folder.join("store")).len(), 1);
}

/// Rows: RC5
#[test]
fn a_damaged_snapshot_costs_nothing() {
    let damages: [fn(&mut Vec<u8>); 4] = [
        Vec::clear,
        |bytes| *bytes = vec![0x5a; 300],
        |bytes| bytes[5] ^= 1,
        |bytes| bytes.truncate(20),
    ];
    for damage in damages {
        let folder = tempfile::tempdir().expect("a folder");
        written(folder.path());
        let snapshot = snapshots(&folder.path().join("store")).remove(0);
        let mut bytes = std::fs::read(&snapshot).expect("readable");
        damage(&mut bytes);
        std::fs::write(&snapshot, bytes).expect("written");
        for recovered in [true, false] {
            let store = Store::open(folder.path()).expect("opened");
            let whole = matches!(store.recovered(), Some(Recovered::Whole(_)));
            assert_eq!(whole, recovered, "{:?}", store.recovered());
            assert_eq!(objects(&store), [service("a", 49)]);
            assert_eq!(store.containers("boot").expect("readable").len(), 1);
        }
        assert!(lost_stores(folder.path()).is_empty());
    }
}

/// Files that sled itself finds to be of no use.
///
/// Rows: RC5
#[test]
fn a_snapshot_of_another_store_and_damaged_settings_cost_nothing() {
    let (folder, other) = (tempfile::tempdir(), tempfile::tempdir());
    let (folder, other) = (folder.expect("a folder"), other.expect("a folder"));
    written(folder.path());
    {
        let store = Store::open(other.path()).expect("opened");
        for number in 1..9000 {
            store.put_container(&event(&number.to_string(), 1, "boot")).expect("stored");
        }
    }
    drop(Store::open(other.path()).expect("opened"));
    let from = snapshots(&other.path().join("store")).remove(0);
    let to = snapshots(&folder.path().join("store")).remove(0);
    std::fs::copy(from, to).expect("copied");
    {
        let store = Store::open(folder.path()).expect("opened");
        assert!(matches!(store.recovered(), Some(Recovered::Whole(_))), "{:?}", store.recovered());
        assert_eq!(objects(&store), [service("a", 49)]);
    }
    std::fs::write(folder.path().join("store/conf"), "nonsense").expect("written");
    assert_eq!(objects(&Store::open(folder.path()).expect("opened")), [service("a", 49)]);
    assert!(lost_stores(folder.path()).is_empty());
}

/// Rows: RC5
#[test]
fn what_is_damaged_beyond_that_is_moved_aside() {
    let damages: [fn(&Path); 3] = [
        |store| std::fs::write(store.join("db"), vec![0x5a; 1 << 20]).expect("written"),
        |store| {
            let log = std::fs::OpenOptions::new().write(true).open(store.join("db"));
            log.expect("the log").set_len(0).expect("cut");
            for path in snapshots(store) {
                std::fs::remove_file(path).expect("removed");
            }
        },
        |store| std::fs::remove_file(store.join("db")).expect("removed"),
    ];
    for damage in damages {
        let folder = tempfile::tempdir().expect("a folder");
        for number in 1..3 {
            written(folder.path());
            damage(&folder.path().join("store"));
            assert_moved_aside(folder.path(), number);
        }
    }
}

#[test]
fn a_full_disk_is_named_and_passes() {
    let folder = tempfile::tempdir().expect("a folder");
    let mount = |folder: &Path, flags| {
        let name = CString::new(folder.as_os_str().as_encoded_bytes()).expect("no zero");
        // SAFETY: terminated strings that live through the call.
        let mounted = unsafe {
            let kind = c"tmpfs".as_ptr();
            libc::mount(kind, name.as_ptr(), kind, flags, c"size=6m".as_ptr().cast())
        };
        assert_eq!(mounted, 0, "{}", io::Error::last_os_error());
        name
    };
    let name = mount(folder.path(), 0);
    let store = Store::open(folder.path()).expect("opened");
    store.write(&[service("a", 80)], &[]).expect("written");
    std::fs::write(folder.path().join("other"), vec![0; 9 << 19]).expect("written");
    let error = store.write(&[service("b", 80)], &[]).expect_err("full");
    let said = disk_trouble(folder.path()).unwrap_or_default();
    let wanted = format!("the disk of {} is full (", folder.path().display());
    assert!(said.starts_with(&wanted), "{said}");
    assert_eq!(error.source.raw_os_error(), Some(libc::ENOSPC), "{error:?}");
    let place = folder.path().join("store");
    assert!(error.action.contains(&place.display().to_string()), "{error}");
    assert_eq!(
        store.put_container(&event("a", 1, "x")).map_err(|e| e.source.raw_os_error()),
        Err(Some(libc::ENOSPC))
    );
    assert_eq!(objects(&store), [service("a", 80)]);
    std::fs::remove_file(folder.path().join("other")).expect("removed");
    assert_eq!(disk_trouble(folder.path()), None);
    store.write(&[service("b", 80)], &[]).expect("written");
    assert_eq!(objects(&store), [service("a", 80), service("b", 80)]);
    drop(store);
    // What the kernel makes of a disk that fails.
    let failed = tempfile::tempdir().expect("a folder");
    let failed_name = mount(failed.path(), libc::MS_RDONLY);
    let wanted = format!("the disk of {} is read-only", failed.path().display());
    assert_eq!(disk_trouble(failed.path()), Some(wanted));
    for name in [name, failed_name] {
        // SAFETY: a terminated string that lives through the call.
        unsafe { libc::umount2(name.as_ptr(), libc::MNT_DETACH) };
    }
}

#[test]
fn after_a_failure_it_is_opened_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("opened");
    store.write(&[service("a", 80)], &[]).expect("written");
    let failed: Result<(), Error> =
        store.with("write", |_| Err(sled::Error::Io(io::Error::from_raw_os_error(libc::EIO))));
    assert_eq!(failed.expect_err("failed").source.raw_os_error(), Some(libc::EIO));
    assert!(store.db.borrow().is_none());
    store.write(&[service("b", 80)], &[]).expect("written");
    assert_eq!(objects(&store), [service("a", 80), service("b", 80)]);
}

#[test]
fn what_gives_memory_back_holds_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("opened");
    store.write(&[service("a", 80)], &[]).expect("written");
    store.put_container(&event("c1", 1, "boot")).expect("stored");
    for _ in 0..100 {
        store.shrink().expect("open again");
    }
    assert_eq!(objects(&store), [service("a", 80)]);
    assert_eq!(store.containers("boot").expect("readable").len(), 1);
    store.write(&[service("b", 81)], &[]).expect("written");
    assert_eq!(objects(&store).len(), 2);
}
