use std::os::fd::AsRawFd as _;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_lock_held_by_another_times_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a/b/lock");
    let held = FileLock::acquire(&path, SECOND).expect("free");
    let error = FileLock::acquire(&path, Duration::from_millis(20)).expect_err("held");
    assert_eq!(error.raw(), Some(libc::ETIMEDOUT));
    assert!(error.is_transient());
    drop(held);
    FileLock::acquire(&path, SECOND).expect("free again, the late waiter lets go");
}

#[test]
fn a_waiter_follows_the_path_to_a_new_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("lock");
    let first = FileLock::acquire(&path, SECOND).expect("free");
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| FileLock::acquire(&path, 10 * SECOND).expect("in the end"));
        // Whether the waiter opened the file before or after this, it must end up on the new one.
        std::fs::remove_file(&path).expect("removed");
        drop(first);
        let lock = waiter.join().expect("no panic");
        let held = FileLock::acquire(&path, Duration::from_millis(20));
        assert_eq!(held.expect_err("the waiter has it").raw(), Some(libc::ETIMEDOUT));
        drop(lock);
    });
}

#[test]
fn a_lock_dies_with_its_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("lock");
    drop(FileLock::acquire(&path, SECOND).expect("free"));
    let file = File::open(&path).expect("there");
    // SAFETY: the child calls only async-signal-safe functions.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above; the descriptor is open. Killed below.
        unsafe {
            libc::flock(file.as_raw_fd(), libc::LOCK_EX);
            loop {
                libc::pause();
            }
        }
    }
    drop(file);
    // SAFETY: our own child.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
    FileLock::acquire(&path, SECOND).expect("free");
}

/// Between fork and exec a program that another thread starts has all files of this one.
#[test]
fn a_lock_that_is_dropped_is_free_even_if_a_child_has_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("lock");
    let lock = FileLock::acquire(&path, SECOND).expect("free");
    let inherited = lock.try_clone().expect("another descriptor");
    assert!(FileLock::is_held(&path));
    drop(lock);
    assert!(!FileLock::is_held(&path));
    drop(FileLock::acquire(&path, Duration::ZERO).expect("free again"));
    drop(inherited);
}

/// A child that outlives us keeps what it works on (row F7).
#[test]
fn a_lock_that_is_shared_stays_with_the_child() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("lock");
    let lock = FileLock::acquire(&path, SECOND).expect("free");
    let lock = lock.share_with_children().expect("shared");
    let inherited = lock.try_clone().expect("another descriptor");
    drop(lock);
    FileLock::acquire(&path, Duration::ZERO).expect_err("the child has it");
    drop(inherited);
    drop(FileLock::acquire(&path, Duration::ZERO).expect("free"));
}
