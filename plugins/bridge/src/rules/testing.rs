//! A namespace and a run directory for one test.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use causeway_kernel::RecordKey;
use causeway_nft::Client;
use causeway_ruleset::{Batch, Op, TableId, text};

/// A run directory, removed on drop.
pub(crate) struct Host(PathBuf);

impl Host {
    /// Moves the calling thread, and those it starts from now on, into a new network namespace.
    pub(crate) fn enter() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        assert!(
            std::env::var_os("CAUSEWAY_TEST_ENTERED").is_some(),
            "start this test by `cargo test`, which runs it below tests/enter"
        );
        // SAFETY: unshare takes flags only; a test has its thread to itself.
        let done = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(done, 0, "unshare(CLONE_NEWNET): {}", std::io::Error::last_os_error());
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/run/causeway-bridge-{number}"));
        std::fs::create_dir_all(&path).expect("a run directory");
        Self(path)
    }

    pub(crate) fn run_dir(&self) -> &Path {
        &self.0
    }

    /// The table in nft's words; empty when it is absent.
    pub(crate) fn table(&self, id: &TableId) -> String {
        let mut client = Client::open().expect("nf_tables");
        let state = client.table(id).expect("the table");
        state.map(|state| text::table(id, &state)).unwrap_or_default()
    }

    /// What another process does to the rules.
    pub(crate) fn meddle(&self, ops: Vec<Op>) {
        let mut client = Client::open().expect("nf_tables");
        client.commit(&Batch { ops, generation: None }).expect("a transaction");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("the run directory");
    }
}

pub(crate) fn key(network: &str, container_id: &str) -> RecordKey {
    RecordKey {
        network: network.to_owned(),
        container_id: container_id.to_owned(),
        ifname: "eth0".to_owned(),
    }
}
