//! Namespaces for tests. Needs root: a test that cannot have its namespace fails.

use crate::{Netlink, Netns};

/// Moves the test's thread into a new network namespace. The thread ends with the test, and the
/// namespace with the thread.
pub(crate) fn enter() -> Netlink {
    // SAFETY: unshare changes this thread only.
    let done = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(done, 0, "these tests need root: {}", std::io::Error::last_os_error());
    Netlink::open().expect("a netlink socket in the new namespace")
}

/// Another new network namespace.
pub(crate) fn other() -> Netns {
    std::thread::scope(|scope| {
        let made = scope.spawn(|| {
            // SAFETY: unshare changes this thread only.
            let done = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            assert_eq!(done, 0, "these tests need root: {}", std::io::Error::last_os_error());
            Netns::current().expect("the new namespace")
        });
        made.join().expect("a new namespace")
    })
}

/// A folder that goes with the test.
pub(crate) struct Folder(pub(crate) std::path::PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNTER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNTER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("causeway-kernel-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
