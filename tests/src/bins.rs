//! Where the programs under test are, and a check that they are not stale.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The upstream plugins of Debian's package `containernetworking-plugins`.
pub const UPSTREAM: &str = "/usr/lib/cni";

/// The directory of this workspace's programs: two above the test binary in `deps/`.
pub fn dir() -> PathBuf {
    let exe = std::env::current_exe().expect("path of the test binary");
    let deps = exe.parent().expect("folder of the test binary");
    if deps.ends_with("deps") {
        deps.parent().expect("folder above deps").to_path_buf()
    } else {
        deps.to_path_buf()
    }
}

/// The top directory of the workspace.
pub fn workspace() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests folder is in the workspace").to_path_buf()
}

/// The path of a program of this workspace.
///
/// # Panics
/// When the program is missing or older than one of its sources.
pub fn ours(name: &str) -> PathBuf {
    const REMEDY: &str = "run: cargo build --workspace --bins";
    let path = dir().join(name);
    let built =
        modified(&path).unwrap_or_else(|| panic!("{} is not built; {REMEDY}", path.display()));
    let sources = path.with_extension("d");
    let list = std::fs::read_to_string(&sources)
        .unwrap_or_else(|e| panic!("read {}: {e}; {REMEDY}", sources.display()));
    let files = list.split_once(':').map_or("", |(_, files)| files);
    for source in files.split_whitespace().map(Path::new) {
        if modified(source).is_none_or(|changed| changed > built) {
            panic!("{} is older than {}; {REMEDY}", path.display(), source.display());
        }
    }
    path
}

/// The path of an upstream plugin.
///
/// # Panics
/// When Debian's package is not installed.
pub fn upstream(name: &str) -> PathBuf {
    let path = Path::new(UPSTREAM).join(name);
    assert!(path.exists(), "{} is missing; run: make deps", path.display());
    path
}

/// The path of a program that `make deps` builds: `cnitool` or `nerdctl`.
///
/// # Panics
/// When it is missing.
pub fn tool(name: &str) -> PathBuf {
    let path = workspace().join("target/tools/bin").join(name);
    assert!(path.exists(), "{} is missing; run: make deps", path.display());
    path
}

/// The programs `nft`: this system's, and the newest one that `make deps` finds.
///
/// # Panics
/// When the newest is missing.
pub fn nfts() -> [PathBuf; 2] {
    let newest = workspace().join("target/tools/nft-newest/nft");
    assert!(newest.exists(), "{} is missing; run: make deps", newest.display());
    [PathBuf::from("nft"), newest]
}

/// The path of a plugin: ours if its name says so, otherwise upstream's.
pub fn plugin(name: &str) -> PathBuf {
    if name.starts_with("causeway-") { ours(name) } else { upstream(name) }
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|meta| meta.modified()).ok()
}
