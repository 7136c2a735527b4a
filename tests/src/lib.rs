//! Namespace lab, scenarios, conformance, fault runs, benchmarks, tidy.
//!
//! Every test binary is started by `tests/enter` in namespaces of its own. Inside, a [`Lab`] holds
//! a switch, [`Node`]s, an outside client and an "internet" host, each a network namespace; a
//! [`Pod`] is a container's namespace. [`Cni`] runs one plugin once, [`Runtime`] plays libcni over
//! a conflist, [`Snapshot`] compares the state of a node, [`traffic`] sends packets. Whatever does
//! not work panics with the command and its output: a test that cannot run has failed.
#![expect(
    clippy::disallowed_methods,
    reason = "the harness runs programs by name, reads the environment and keeps deadlines"
)]

pub mod bins;
pub mod cluster;
mod cni;
mod containerd;
mod daemon;
mod dns;
mod etcd;
pub mod executable;
mod fake_daemon;
mod fake_ipam;
mod lab;
mod node;
mod ns;
mod observe;
mod random;
mod router;
mod run;
mod runtime;
pub mod steady;
pub mod traffic;
pub mod vm;

pub use cni::{Cni, Outcome, Running};
pub use containerd::{Causewayd, Cri, Foreground, Machine, Podman};
pub use daemon::Daemon;
pub use dns::{Dig, DigAnswer, Dnsmasq};
pub use etcd::Etcd;
pub use fake_daemon::{FakeDaemon, Manner};
pub use fake_ipam::{BridgeNet, FakeIpam};
pub use lab::Lab;
pub use node::{Attachment, Node, Pod};
pub use ns::Ns;
pub use observe::Snapshot;
pub use random::Random;
pub use run::{DEADLINE, Finished, finish};
pub use runtime::Runtime;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A number no other call in this process got, for names and paths.
pub fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Writes a line past the capture of the test harness: counts belong to the log of a run that
/// passed.
pub fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").expect("write to stderr");
}

/// A directory that is removed with its content on drop.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// Makes a new empty directory whose name starts with `label`.
    pub fn new(label: &str) -> Self {
        // `/run` belongs to this test binary alone, so a number is enough to be unique.
        assert_entered();
        let name = format!("{label}-{}", unique());
        let path = Path::new("/run/causeway-tests").join(name);
        std::fs::create_dir_all(&path).unwrap_or_else(|e| panic!("mkdir {}: {e}", path.display()));
        Self(path)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("remove {}: {error}", self.0.display());
        }
    }
}

/// Panics unless this process was started by `tests/enter`.
pub fn assert_entered() {
    assert!(
        std::env::var("CAUSEWAY_TEST_ENTERED").is_ok(),
        "this test binary was not started by tests/enter and would touch the host: \
         start it by `cargo test`, or as `tests/enter PATH/deps/BINARY`"
    );
}
