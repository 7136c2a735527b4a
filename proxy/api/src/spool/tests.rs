use std::os::unix::fs::PermissionsExt as _;

use causeway_model::{EndpointRecord, Labels};

use super::*;

fn key(id: &str) -> EndpointKey {
    EndpointKey { network: "net".into(), container_id: id.into(), ifname: "eth0".into() }
}

fn event(id: &str, seq: u64, add: bool) -> EndpointEvent {
    let record = add.then(|| EndpointRecord {
        key: key(id),
        netns: None,
        ips: vec!["10.0.1.2".parse().expect("an address")],
        labels: Labels::new(),
        created: 1,
    });
    EndpointEvent { key: key(id), seq, boot_id: "boot".into(), record }
}

fn spool() -> (tempfile::TempDir, Spool) {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = Spool::new(&folder.path().join("causeway/spool"));
    (folder, spool)
}

/// Files below the spool, relative, ordered.
fn files(spool: &Spool) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![spool.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let inside = path.strip_prefix(spool.path()).expect("below the spool");
                found.push(inside.display().to_string());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn the_last_event_of_each_container_comes_in_order() {
    let (_folder, spool) = spool();
    assert!(!spool.was_read());
    for event in [event("a", 5, true), event("b", 3, true), event("a", 9, false)] {
        spool.put(&event).expect("written");
    }
    assert_eq!(files(&spool).len(), 2);
    assert_eq!(spool.get(&key("b")).expect("readable"), Some(event("b", 3, true)));
    let (events, bad) = spool.events().expect("readable");
    assert_eq!(events, [event("b", 3, true), event("a", 9, false)]);
    assert!(bad.is_empty());
    assert!(spool.was_read());
    // Until they are removed they come again: the daemon may have been killed in between.
    assert_eq!(spool.events().expect("readable").0.len(), 2);
    for event in events {
        spool.remove(&event).expect("removed");
    }
    assert_eq!(files(&spool), [""; 0]);
    assert_eq!(spool.events().expect("readable").0, []);
}

#[test]
fn it_is_roots_alone() {
    let (_folder, spool) = spool();
    spool.put(&event("a", 1, true)).expect("written");
    let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(spool.path()), 0o700);
    assert_eq!(mode(&spool.path().join(&files(&spool)[0])), 0o600);
}

#[test]
fn an_event_is_either_withdrawn_or_taken_over() {
    let (_folder, spool) = spool();
    assert!(!spool.withdraw(&key("a")).expect("nothing there"));
    spool.put(&event("a", 1, true)).expect("written");
    assert!(spool.withdraw(&key("a")).expect("withdrawn"));
    assert_eq!(spool.events().expect("readable").0, []);
    spool.put(&event("a", 2, true)).expect("written");
    assert_eq!(spool.events().expect("readable").0.len(), 1);
    assert!(!spool.withdraw(&key("a")).expect("taken over"));
}

#[test]
fn a_newer_event_survives_the_removal_of_an_older_one() {
    let (_folder, spool) = spool();
    let (old, new) = (event("a", 1, true), event("a", 2, false));
    spool.put(&old).expect("written");
    assert_eq!(spool.events().expect("readable").0, std::slice::from_ref(&old));
    spool.put(&new).expect("written");
    spool.remove(&old).expect("removed");
    assert_eq!(spool.events().expect("readable").0, std::slice::from_ref(&new));
    // The same if the newer one was taken over before the older one is done.
    spool.put(&old).expect("written");
    spool.events().expect("readable");
    spool.put(&new).expect("written");
    spool.events().expect("readable");
    spool.remove(&old).expect("removed");
    assert_eq!(spool.events().expect("readable").0, [new]);
}

#[test]
fn damaged_files_go_aside_and_keep_none_of_the_others() {
    let (_folder, spool) = spool();
    spool.put(&event("a", 1, true)).expect("written");
    for (name, text) in [("x.json", "{"), ("y.json", "{\"seq\":1}"), ("z.txt", "not ours")] {
        std::fs::write(spool.path().join(name), text).expect("written");
    }
    let (events, bad) = spool.events().expect("readable");
    assert_eq!(events.len(), 1);
    assert_eq!(bad, ["x.json", "y.json"]);
    assert_eq!(spool.events().expect("readable").1, [""; 0]);
    let left = files(&spool);
    assert!(left.contains(&"claimed/x.json.bad".to_owned()), "{left:?}");
    assert!(left.contains(&"z.txt".to_owned()), "{left:?}");
}

#[test]
fn what_killed_writers_leave_goes_and_harms_nobody() {
    let (_folder, spool) = spool();
    spool.put(&event("a", 1, true)).expect("written");
    let temporary = spool.file(&key("a")).with_extension(TEMPORARY);
    std::fs::write(&temporary, "half of an ev").expect("written");
    // Over it: the next one of the same container.
    spool.put(&event("a", 2, true)).expect("written");
    assert!(!temporary.exists());
    // And one that never comes back.
    std::fs::write(&temporary, "half of an ev").expect("written");
    let writer = File::open(spool.path()).expect("the folder");
    writer.lock_shared().expect("a writer at work");
    assert_eq!(spool.events().expect("readable").0, [event("a", 2, true)]);
    assert!(temporary.exists(), "its writer may still be at work");
    drop(writer);
    spool.events().expect("readable");
    assert!(!temporary.exists());
    std::fs::write(&temporary, "half of an ev").expect("written");
    assert!(!spool.withdraw(&key("a")).expect("nothing"));
    assert!(!temporary.exists());
}

#[test]
fn names_tell_containers_apart_and_stay_in_the_folder() {
    let long = "x".repeat(300);
    let mut names = std::collections::BTreeSet::new();
    for network in ["net", "..", "a/b", "a_b", &long] {
        for id in ["", "c", "../../etc", &format!("{long}1"), &format!("{long}2")] {
            for ifname in ["eth0", "e\n0", "."] {
                let key = EndpointKey {
                    network: network.to_owned(),
                    container_id: id.to_owned(),
                    ifname: ifname.to_owned(),
                };
                let name = file_name(&key);
                assert!(!name.contains('/') && !name.starts_with("..") && name.len() <= 255);
                assert!(names.insert(name), "{key:?}");
            }
        }
    }
    assert_eq!(names.len(), 75);
}

#[test]
fn a_full_or_forbidden_place_is_an_error_and_leaves_nothing() {
    let (folder, _) = spool();
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("written");
    let spool = Spool::new(&file.join("spool"));
    assert!(spool.put(&event("a", 1, true)).is_err());
    assert!(spool.events().is_err());
    let full = Spool::new(Path::new("/proc/self/spool"));
    assert!(full.put(&event("a", 1, true)).is_err());
}
