//! Locks on real files.

use super::*;

#[test]
fn a_second_taker_is_told_who_has_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let first = NetworkLock::acquire(dir.path(), "net", Duration::ZERO).unwrap();
    for wait in [Duration::ZERO, Duration::from_millis(20)] {
        let error = NetworkLock::acquire(dir.path(), "net", wait).unwrap_err();
        let expected = format!(
            "lease store {}/net is locked by process {}",
            dir.path().display(),
            std::process::id()
        );
        assert_eq!(error.to_string(), expected);
    }
    drop(NetworkLock::acquire(dir.path(), "other", Duration::ZERO).unwrap());
    drop(first);
    drop(NetworkLock::acquire(dir.path(), "net", Duration::from_secs(5)).unwrap());
}

/// Between fork and exec a program that another thread starts has all files of this one.
#[test]
fn a_lock_that_is_dropped_is_free_even_if_a_child_has_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let acquire = || NetworkLock::acquire(dir.path(), "net", Duration::ZERO);
    let lock = acquire().unwrap();
    let inherited = lock.file.try_clone().unwrap();
    assert!(matches!(acquire(), Err(Error::Locked { .. })));
    drop(lock);
    drop(acquire().unwrap());
    drop(inherited);
}
