use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn key(network: &str, container_id: &str, ifname: &str) -> RecordKey {
    RecordKey {
        network: network.to_owned(),
        container_id: container_id.to_owned(),
        ifname: ifname.to_owned(),
    }
}

fn files(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for path in listing(folder) {
        let path = path.expect("a folder");
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.file_name().expect("a name").to_string_lossy().into_owned());
        }
    }
    found
}

#[test]
fn a_record_is_written_read_replaced_and_removed() {
    let run = tempfile::tempdir().expect("a folder");
    let records = Records::new(run.path(), "bridge");
    let key = key("net", "id", "eth0");
    assert_eq!(records.read::<u32>(&key).expect("absence is fine"), None);
    records.remove(&key).expect("absence is fine");
    assert!(records.is_empty().expect("nothing there"));
    let lock = records.lock(&key, SECOND).expect("the lock");
    records.write(&key, &1).expect("written");
    records.write(&key, &2).expect("replaced");
    assert_eq!(records.read::<u32>(&key).expect("readable"), Some(2));
    assert!(!records.is_empty().expect("one there"));
    let names: Vec<String> = files(run.path()).into_iter().collect();
    assert_eq!(names, ["id:eth0.json", "id:eth0.lock"]);
    let folder = run.path().join("attachments/bridge/net");
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(mode(&folder.join("id:eth0.json")), 0o600);
    records.remove(&key).expect("removed");
    drop(lock);
    assert!(!folder.exists());
    assert!(records.is_empty().expect("nothing there"));
}

/// A key of one attachment never names another's file.
#[test]
fn keys_and_files_are_one_to_one() {
    let run = tempfile::tempdir().expect("a folder");
    let records = Records::new(run.path(), "bridge");
    let long = "x".repeat(300);
    let keys = [
        key("net", "a-b", "c"),
        key("net", "a", "b-c"),
        key("net", "a:b", "c"),
        key("net", "a", "b:c"),
        key("net", "..", "/"),
        key("net", &long, "eth0"),
        key("net", &long, "eth1"),
        key("net", "", ""),
    ];
    for (number, key) in keys.iter().enumerate() {
        records.write(key, &number).expect("written");
    }
    records.write(&key("..", "a", "c"), &99).expect("written");
    for (number, key) in keys.iter().enumerate() {
        assert_eq!(records.read::<usize>(key).expect("readable"), Some(number), "{key:?}");
    }
    let (found, errors) = records.list("net").expect("a list");
    assert!(errors.is_empty(), "{errors:?}");
    let mut sorted = keys.to_vec();
    sorted.sort();
    assert_eq!(found, sorted);
    assert_eq!(records.list("..").expect("a list").0.len(), 1);
    assert!(run.path().join("attachments/bridge").is_dir());
    assert!(files(run.path()).iter().all(|name| name.len() <= 255));
}

#[test]
fn listing_passes_over_damage_and_clears_what_the_dead_left() {
    let run = tempfile::tempdir().expect("a folder");
    let records = Records::new(run.path(), "bridge");
    assert_eq!(records.list("net").expect("absence is fine").0, []);
    records.write(&key("net", "id", "eth0"), &1).expect("written");
    let folder = run.path().join("attachments/bridge/net");
    std::fs::write(folder.join("broken.json"), b"{").expect("written");
    // Killed while it wrote: nobody holds the lock.
    std::fs::write(folder.join("killed:eth0.tmp"), b"{").expect("written");
    let at_work = records.lock(&key("net", "busy", "eth0"), SECOND).expect("the lock");
    std::fs::write(folder.join("busy:eth0.tmp"), b"{").expect("written");
    let (keys, errors) = records.list("net").expect("a list");
    assert_eq!(keys, [key("net", "id", "eth0")]);
    assert_eq!(errors.len(), 1);
    assert!(errors[0].action.contains("broken.json"), "{errors:?}");
    assert!(files(run.path()).contains("busy:eth0.tmp"));
    assert!(!files(run.path()).contains("killed:eth0"));
    drop(at_work);
    // What the next owner of the name removes takes the temporary file along.
    records.remove(&key("net", "busy", "eth0")).expect("removed");
    assert!(!files(run.path()).contains("busy:eth0"));
}

#[test]
fn a_damaged_record_is_known_by_its_name() {
    let run = tempfile::tempdir().expect("a folder");
    let records = Records::new(run.path(), "bridge");
    let keys = [key("n.et", ".a", "é:%"), key("n.et", "a-b_c.D", "eth0")];
    for key in &keys {
        records.write(key, &1).expect("written");
    }
    for name in files(run.path()).iter().filter(|name| name.ends_with(".json")) {
        std::fs::write(run.path().join("attachments/bridge/n.et").join(name), b"{")
            .expect("written");
    }
    let (found, errors) = records.list("n.et").expect("a list");
    assert_eq!((found.as_slice(), errors.len()), (keys.as_slice(), 0));
    let long = key("n.et", &"x".repeat(300), "eth0");
    records.write(&long, &1).expect("written");
    for name in files(run.path()).iter().filter(|name| name.contains('~')) {
        std::fs::write(run.path().join("attachments/bridge/n.et").join(name), b"{")
            .expect("written");
    }
    let (found, errors) = records.list("n.et").expect("a list");
    assert_eq!((found.as_slice(), errors.len()), (keys.as_slice(), 1));
}

/// Directories and lock files come and go under many threads, and exclusion holds.
#[test]
fn a_hundred_at_once_neither_fail_nor_overlap() {
    let run = tempfile::tempdir().expect("a folder");
    let records = Records::new(run.path(), "bridge");
    std::thread::scope(|scope| {
        for n in 0..100 {
            let records = &records;
            scope.spawn(move || {
                // Ten share an attachment.
                let key = key("net", &format!("id{}", n % 10), "eth0");
                for _ in 0..5 {
                    let lock = records.lock(&key, 60 * SECOND).expect("the lock");
                    assert_eq!(records.read::<u32>(&key).expect("readable"), None, "overlap");
                    records.write(&key, &n).expect("written");
                    records.remove(&key).expect("removed");
                    drop(lock);
                }
            });
        }
    });
    assert!(files(run.path()).is_empty(), "{:?}", files(run.path()));
}

/// What lies on disks: another value would hide the records of the build before.
#[test]
fn names_that_are_shortened_never_change() {
    let name = shorten("x".repeat(300), ".json");
    assert_eq!(name.len(), 255);
    assert!(name.ends_with("x~0ca87c95ae2960615decdb050f1a92bd.json"), "{name}");
}
