use std::fs::{self, File};

use super::*;

fn watched() -> (tempfile::TempDir, PathBuf, DirWatch) {
    let root = tempfile::tempdir().expect("a folder");
    let path = root.path().join("a/b");
    fs::create_dir_all(&path).expect("the folder");
    let watch = DirWatch::new(&path, |name| name.as_bytes().ends_with(b".x")).expect("a watch");
    (root, path, watch)
}

/// What happened so far is in the queue already: `changed` never waits.
#[track_caller]
fn assert_changed(watch: &mut DirWatch, expected: bool) {
    assert_eq!(watch.changed().expect("readable"), expected);
    assert!(!watch.changed().expect("readable"), "told twice");
}

#[test]
fn files_are_told_when_they_are_complete() {
    let (_root, path, mut watch) = watched();
    assert_changed(&mut watch, false);
    let mut file = File::create(path.join("1.x")).expect("a file");
    io::Write::write_all(&mut file, b"half").expect("written");
    assert_changed(&mut watch, false);
    drop(file);
    assert_changed(&mut watch, true);
    fs::write(path.join("1.tmp"), "").expect("written");
    assert_changed(&mut watch, false);
    fs::rename(path.join("1.tmp"), path.join("1.x")).expect("renamed");
    assert_changed(&mut watch, true);
    fs::rename(path.join("1.x"), path.join("1.gone")).expect("renamed");
    assert_changed(&mut watch, true);
    fs::hard_link(path.join("1.gone"), path.join("2.x")).expect("linked");
    assert_changed(&mut watch, true);
    std::os::unix::fs::symlink("1.gone", path.join("3.x")).expect("linked");
    assert_changed(&mut watch, true);
    fs::remove_file(path.join("3.x")).expect("removed");
    assert_changed(&mut watch, true);
}

#[test]
fn a_directory_may_come_and_go() {
    let root = tempfile::tempdir().expect("a folder");
    let path = root.path().join("a/b");
    let mut watch = DirWatch::new(&path, |_| true).expect("a watch");
    assert_changed(&mut watch, false);
    fs::create_dir(root.path().join("other")).expect("made");
    assert_changed(&mut watch, false);
    fs::create_dir(root.path().join("a")).expect("made");
    assert_changed(&mut watch, true);
    fs::create_dir(&path).expect("made");
    assert_changed(&mut watch, true);
    fs::write(path.join("1"), "").expect("written");
    assert_changed(&mut watch, true);
    fs::remove_dir_all(root.path().join("a")).expect("removed");
    assert_changed(&mut watch, true);
    // At once with all that is in it.
    fs::create_dir_all(&path).expect("made");
    fs::write(path.join("1"), "").expect("written");
    assert_changed(&mut watch, true);
    fs::write(path.join("2"), "").expect("written");
    assert_changed(&mut watch, true);
}

#[test]
fn a_directory_on_the_way_may_be_replaced() {
    let (root, path, mut watch) = watched();
    fs::create_dir_all(root.path().join("new/b")).expect("made");
    assert_changed(&mut watch, false);
    fs::rename(root.path().join("a"), root.path().join("old")).expect("renamed");
    assert_changed(&mut watch, true);
    fs::write(root.path().join("old/b/1.x"), "").expect("written");
    assert_changed(&mut watch, false);
    fs::rename(root.path().join("new"), root.path().join("a")).expect("renamed");
    assert_changed(&mut watch, true);
    fs::write(path.join("1.x"), "").expect("written");
    assert_changed(&mut watch, true);
}

#[test]
fn a_link_on_the_way_is_followed_and_may_be_turned() {
    let root = tempfile::tempdir().expect("a folder");
    let (one, two, link) =
        (root.path().join("one"), root.path().join("two"), root.path().join("link"));
    for folder in [&one, &two] {
        fs::create_dir(folder).expect("made");
    }
    std::os::unix::fs::symlink(&one, &link).expect("linked");
    let mut watch = DirWatch::new(&link, |_| true).expect("a watch");
    fs::write(one.join("1"), "").expect("written");
    assert_changed(&mut watch, true);
    std::os::unix::fs::symlink(&two, root.path().join("next")).expect("linked");
    fs::rename(root.path().join("next"), &link).expect("turned");
    assert_changed(&mut watch, true);
    fs::write(one.join("2"), "").expect("written");
    assert_changed(&mut watch, false);
    fs::write(two.join("2"), "").expect("written");
    assert_changed(&mut watch, true);
}

#[test]
fn more_than_the_queue_holds_counts_as_a_change() {
    let (_root, path, mut watch) = watched();
    let most = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("a limit");
    let most: u32 = most.trim().parse().expect("a number");
    for number in 0..=most / 4 {
        // Four events that differ from the one before; none concerns us.
        let file = path.join(format!("{number}.y"));
        fs::write(&file, "").expect("written");
        fs::rename(&file, path.join("y")).expect("renamed");
    }
    assert_changed(&mut watch, true);
    fs::write(path.join("1.x"), "").expect("written");
    assert_changed(&mut watch, true);
}
