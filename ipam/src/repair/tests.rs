//! Stores damaged in every way that comes to mind.

use std::fs;

use proptest::prelude::*;

use super::*;
use crate::config::Place;
use crate::store::{Owner, State};

fn now() -> Now {
    Now { unix: 1, boot_ms: 1, boot: "boot".into() }
}

fn place(dir: &Path) -> Place {
    Place {
        network: "net".into(),
        data_dir: dir.to_owned(),
        run_dir: dir.join("run"),
        ..Place::default()
    }
}

fn owner(n: u32) -> Owner {
    Owner {
        container_id: format!("container-{n}-{}", "0123456789abcdef".repeat(3)),
        ifname: "eth0".into(),
    }
}

/// A store with `count` leases, given in several sessions, some released again.
fn filled(dir: &Path, count: u32) -> Vec<Lease> {
    for session in 0..4 {
        session::with_store(&place(dir), Patience::USUAL, &now(), move |store| {
            for n in (session * count / 4)..((session + 1) * count / 4) {
                let address = std::net::Ipv4Addr::from(0x0a00_0002 + n * 3).into();
                let lease = Lease { address, owner: owner(n), since: 5, boot_ms: 6 };
                store.commit(Change { lease: vec![lease], ..Change::default() })?;
            }
            Ok::<_, Error>(())
        })
        .unwrap();
    }
    leases(dir).unwrap()
}

fn leases(dir: &Path) -> Result<Vec<Lease>, Error> {
    session::with_store(&place(dir), Patience::USUAL, &now(), |store| store.leases())
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = dir
        .join("net")
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    files.sort_unstable();
    files
}

fn record(dir: &Path, container_id: &str, address: &str) {
    let folder = dir.join("run/attachments/bridge/net");
    fs::create_dir_all(&folder).unwrap();
    let record = serde_json::json!({
        "key": { "network": "net", "container_id": container_id, "ifname": "eth0" },
        "record": { "addresses": [address] },
    });
    fs::write(folder.join(format!("{container_id}-eth0.json")), record.to_string()).unwrap();
}

/// A damaged store is refused, or it holds what it held: never less without a word.
fn refused_or_whole(dir: &Path, whole: &[Lease], what: &str) {
    match leases(dir) {
        Ok(found) => assert_eq!(found, whole, "{what}"),
        Err(Error::Damaged { .. }) => {}
        Err(other) => panic!("{what}: {other}"),
    }
}

/// Copies the files of a store, so that each case damages the same one.
fn clone_of(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_files(dir, copy.path()).unwrap();
    copy
}

/// Rows: F25
#[test]
fn a_file_cut_anywhere_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let whole = filled(dir.path(), 120);
    for file in files(dir.path()) {
        let length = fs::metadata(&file).unwrap().len();
        for part in 0..12 {
            let copy = clone_of(dir.path());
            let cut = copy.path().join("net").join(file.file_name().unwrap());
            let left = length * part / 12;
            fs::File::options().write(true).open(&cut).unwrap().set_len(left).unwrap();
            refused_or_whole(copy.path(), &whole, &format!("{} of {}", left, cut.display()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Rows: F25
    #[test]
    fn flipped_bits_are_refused_or_harmless(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0_u8..8), 1..6),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let whole = filled(dir.path(), 60);
        let files = files(dir.path());
        for (file, at, bit) in &flips {
            let file = file.get(&files);
            let mut bytes = fs::read(file).unwrap();
            // Most of a log's segment is empty: hit what is written.
            let written = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
            let at = at.index(written);
            bytes[at] ^= 1 << bit;
            fs::write(file, bytes).unwrap();
        }
        // sled keeps the files of a failed open locked as long as its process lives.
        refused_or_whole(clone_of(dir.path()).path(), &whole, &format!("{flips:?}"));
        let outcome = repair(dir.path(), &dir.path().join("run"), "net", &now());
        prop_assert!(outcome.is_ok(), "{outcome:?}");
        prop_assert!(leases(dir.path()).is_ok());
    }
}

/// Rows: F25
#[test]
fn garbage_and_other_versions_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 20);
    for name in ["db", "conf"] {
        let copy = clone_of(dir.path());
        let file = files(copy.path())
            .into_iter()
            .find(|file| file.file_name().unwrap().to_str().unwrap().starts_with(name))
            .unwrap();
        fs::write(&file, "not what sled wrote\n".repeat(5000)).unwrap();
        let error = leases(copy.path()).expect_err(name);
        assert!(matches!(error, Error::Damaged { .. }), "{name}: {error}");
    }
    // A store of another network, as after a directory was renamed.
    let copy = clone_of(dir.path());
    fs::rename(copy.path().join("net"), copy.path().join("other")).unwrap();
    let other = Place { network: "other".into(), ..place(copy.path()) };
    let found = session::with_store(&other, Patience::USUAL, &now(), |store| store.leases());
    let Err(Error::Damaged { path, source }) = found else { panic!("{found:?}") };
    assert_eq!(path, copy.path().join("other").display().to_string());
    assert_eq!(source.to_string(), "the store of network net");
}

/// Rows: F25
#[test]
fn an_older_copy_of_the_files_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 20);
    let older = clone_of(dir.path());
    filled_more(dir.path());
    fs::remove_dir_all(dir.path().join("net")).unwrap();
    copy_files_new(&older.path().join("net"), &dir.path().join("net"));
    let Err(Error::Damaged { source, .. }) = leases(dir.path()) else { panic!("accepted") };
    assert_eq!(source.to_string(), "the last 1 changes are lost");
}

fn filled_more(dir: &Path) {
    session::with_store(&place(dir), Patience::USUAL, &now(), |store| {
        store.commit(Change { free: vec!["10.0.0.2".parse().unwrap()], ..Change::default() })
    })
    .unwrap();
}

fn copy_files_new(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    copy_files(from, to).unwrap();
}

/// Rows: F24
#[test]
fn a_wiped_store_starts_with_the_attachments_on_record() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 20);
    record(dir.path(), "alive", "10.0.0.9/24");
    for wipe in ["net", "."] {
        fs::remove_dir_all(dir.path().join(wipe).join("blobs")).ok();
        for file in files(dir.path()) {
            fs::remove_file(file).unwrap();
        }
        let found = leases(dir.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].owner.container_id, "alive");
        // What is written then is not taken for an old copy.
        filled_more(dir.path());
        assert_eq!(leases(dir.path()).unwrap().len(), 1);
    }
}

/// Rows: F25
#[test]
fn repair_keeps_what_is_readable_and_leaves_the_rest_alone() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    let whole = filled(dir.path(), 400);
    let count = whole.len() as u64;
    let fix = || repair(dir.path(), &run_dir, "net", &now()).unwrap();
    assert_eq!(fix(), Repaired::InOrder(count));
    assert_eq!(leases(dir.path()).unwrap(), whole);

    // The snapshot is lost to garbage; the log has everything.
    let snapshot = files(dir.path()).pop().unwrap();
    fs::write(&snapshot, "x".repeat(100)).unwrap();
    record(dir.path(), "alive", "10.9.9.9/8");
    let Repaired::Rebuilt { leases: kept, aside, .. } = fix() else { panic!("intact") };
    let found = leases(dir.path()).unwrap();
    assert_eq!(found.len(), kept);
    assert!(found.iter().any(|lease| lease.owner.container_id == "alive"));
    assert_eq!(&found[..whole.len()], whole);
    assert!(aside.join("db").exists());
    assert_eq!(fix(), Repaired::InOrder(count + 1));

    // Nothing is left but the records.
    for file in files(dir.path()) {
        fs::write(file, "y".repeat(10_000)).unwrap();
    }
    assert!(leases(dir.path()).is_err());
    let Repaired::Rebuilt { leases: kept, .. } = fix() else { panic!("intact") };
    assert_eq!(kept, 1);
    let hidden: Vec<_> = dir
        .path()
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("repair"))
        .collect();
    assert_eq!(hidden, [""; 0]);
    assert_eq!(disk::networks(dir.path()).unwrap(), ["net"]);
}

#[test]
fn a_record_that_contradicts_another_is_found() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 20);
    let db = disk::open_files(&dir.path().join("net"), disk::CLOSE_WAIT).unwrap();
    let lease = db.iter().keys().flatten().find(|key| key.starts_with(b"l")).unwrap();
    db.remove(lease).unwrap();
    drop(db);
    let state: State = session::with_store(&place(dir.path()), Patience::USUAL, &now(), |store| {
        Ok::<_, Error>(store.state().clone())
    })
    .unwrap();
    assert_eq!(state.leases, 20);
    let Repaired::Rebuilt { damage, .. } =
        repair(dir.path(), &dir.path().join("run"), "net", &now()).unwrap()
    else {
        panic!("intact")
    };
    assert!(damage.contains("marked as taken without a record"), "{damage}");
}

/// A new store in its place would hand out addresses that are in use.
#[test]
fn a_snapshot_without_its_log_is_damage_finished_or_not() {
    for ending in ["", ".generating"] {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), 40);
        for path in files(dir.path()) {
            let name = path.file_name().unwrap().to_str().unwrap();
            match name.starts_with("snap.") {
                true => fs::rename(&path, path.with_file_name(format!("{name}{ending}"))).unwrap(),
                false => fs::remove_file(path).unwrap(),
            }
        }
        assert!(session::exists(&place(dir.path())), "{ending:?}");
        assert_eq!(disk::networks(dir.path()).unwrap(), ["net"], "{ending:?}");
        let found = leases(dir.path());
        assert!(matches!(found, Err(Error::Damaged { .. })), "{ending:?}: {found:?}");
    }
}

/// The log holds all that the snapshot tells: a store is not lost for a file that a crash, or a
/// full disk, left empty.
///
/// Rows: RC5
#[test]
fn a_damaged_snapshot_costs_nothing() {
    let damages: [fn(&Path); 3] = [
        |snapshot| fs::write(snapshot, "").unwrap(),
        |snapshot| fs::write(snapshot, [0x5a; 300]).unwrap(),
        |snapshot| {
            let mut bytes = fs::read(snapshot).unwrap();
            bytes[0] ^= 1;
            fs::write(snapshot, bytes).unwrap();
        },
    ];
    for damage in damages {
        let dir = tempfile::tempdir().unwrap();
        let before = filled(dir.path(), 40);
        let is_snapshot = |path: &PathBuf| path.to_string_lossy().contains("/snap.");
        let snapshots: Vec<PathBuf> = files(dir.path()).into_iter().filter(is_snapshot).collect();
        assert_eq!(snapshots.len(), 1, "{snapshots:?}");
        damage(&snapshots[0]);
        assert_eq!(leases(dir.path()).unwrap(), before);
    }
    // Cut short as well, the log does not know the last writes: that is damage as before.
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 40);
    for path in files(dir.path()) {
        match path.file_name().unwrap().to_str().unwrap() {
            "db" => fs::File::options().write(true).open(path).unwrap().set_len(600).unwrap(),
            name if name.starts_with("snap.") => fs::write(path, "").unwrap(),
            _ => {}
        }
    }
    assert!(matches!(leases(dir.path()), Err(Error::Damaged { .. })));
}
