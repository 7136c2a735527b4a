//! A kernel, a fake or that of a namespace, and a run directory for one test.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use causeway_host::RecordKey;
use causeway_nft::{Client, Fake};
use causeway_ruleset::{Batch, Op, TableId, text};

/// A run directory, removed on drop, and rules.
pub(crate) struct Host {
    run_dir: PathBuf,
    /// `None`: the rules of the calling thread's namespace.
    fake: Option<Fake>,
}

impl Host {
    /// Rules in memory: needs no rights.
    pub(crate) fn fake() -> Self {
        Self::new(Some(Fake::default()))
    }

    /// Moves the calling thread, and those it starts from now on, into a new network namespace.
    pub(crate) fn enter() -> Self {
        assert!(
            std::env::var_os("CAUSEWAY_TEST_ENTERED").is_some(),
            "start this test by `cargo test`, which runs it below tests/enter"
        );
        // SAFETY: unshare takes flags only; a test has its thread to itself.
        let done = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(done, 0, "unshare(CLONE_NEWNET): {}", std::io::Error::last_os_error());
        Self::new(None)
    }

    fn new(fake: Option<Fake>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("causeway-bridge-{}-{number}", std::process::id());
        let run_dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&run_dir).expect("a run directory");
        Self { run_dir, fake }
    }

    pub(crate) fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    pub(crate) fn client(&self) -> Client {
        match &self.fake {
            Some(fake) => Client::of_fake(fake),
            None => Client::open().expect("nf_tables"),
        }
    }

    /// The table in nft's words; empty when it is absent.
    pub(crate) fn table(&self, id: &TableId) -> String {
        let state = self.client().table(id).expect("the table");
        state.map(|state| text::table(id, &state)).unwrap_or_default()
    }

    /// What another process does to the rules.
    pub(crate) fn meddle(&self, ops: Vec<Op>) {
        self.client().commit(&Batch { ops, generation: None }).expect("a transaction");
    }

    /// The kernel, to have it refuse something or let another process come between.
    pub(crate) fn kernel(&self) -> &Fake {
        self.fake.as_ref().expect("a fake")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.run_dir).expect("the run directory");
    }
}

pub(crate) fn key(network: &str, container_id: &str) -> RecordKey {
    RecordKey {
        network: network.to_owned(),
        container_id: container_id.to_owned(),
        ifname: "eth0".to_owned(),
    }
}
