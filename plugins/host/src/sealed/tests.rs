//! Locks and seals on real files.

use super::*;

fn lock(path: &Path) -> SealedLock {
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(false).open(path);
    let lock = FileLock::try_take(file.expect("a file")).expect("no error");
    SealedLock::new(lock.expect("not taken"))
}

#[test]
fn a_seal_is_what_was_written_or_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("lock");
    let held = lock(&path);
    assert_eq!(held.seal(), None);
    held.write_seal(41);
    held.write_seal(42);
    assert_eq!(held.seal(), Some(42));
    assert_eq!(SealedLock::holder(&path), Some(std::process::id()));
    drop(held);
    let mut bytes = std::fs::read(&path).expect("a file");
    bytes[20] ^= 1;
    std::fs::write(&path, &bytes).expect("written");
    assert_eq!(lock(&path).seal(), None);
}

/// Byte for byte: what lies on the disks of nodes.
#[test]
fn the_form_on_disk_is_the_published_one() {
    const WRITTEN: &str = "12345          \n00000000000000000042 4ee7e60b\n";
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("lock");
    std::fs::write(&path, WRITTEN).expect("written");
    assert_eq!(SealedLock::holder(&path), Some(12345));
    let held = lock(&path);
    assert_eq!(held.seal(), Some(42));
    held.write_seal(42);
    let expected = format!("{:<15}\n{}", std::process::id(), &WRITTEN[16..]);
    assert_eq!(std::fs::read_to_string(&path).expect("a file"), expected);
    assert_eq!(SealedLock::END, expected.len() as u64);
}

#[test]
fn damaged_and_unfinished_files_are_cleared_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let content = b"content";
    let mut whole = content.to_vec();
    whole.extend(content.len().to_le_bytes());
    whole.extend(crc32fast::hash(content).to_le_bytes());
    std::fs::write(path("snap.1"), &whole).expect("written");
    std::fs::write(path("snap.2"), "torn").expect("written");
    std::fs::write(path("snap.3.generating"), "torn").expect("written");
    std::fs::write(path("conf"), "settings").expect("written");
    assert!(exists(folder.path()) && !log(folder.path()).exists());
    let aside = put_damaged_snapshots_aside(folder.path()).expect("in order");
    assert_eq!(aside, Some(path("damaged-snap.2")));
    assert_eq!(snapshots(folder.path()), [path("snap.1")]);
    remove_unfinished(folder.path()).expect("in order");
    assert!(!path("snap.3.generating").exists() && !path("conf").exists());
    std::fs::write(log(folder.path()), "log").expect("written");
    std::fs::write(path("conf"), "settings").expect("written");
    remove_unfinished(folder.path()).expect("in order");
    assert!(path("conf").exists() && exists(folder.path()));
}
