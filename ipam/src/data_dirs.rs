//! Which directories hold leases: the default one, and those that configurations name. An ADD notes
//! the latter in `<runDir>/data-dirs`, so that lists, repairs and cleanups of the node find all
//! leases.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use causeway_host::file::{self, Outlives};
use causeway_host::paths;

use crate::config::DATA_DIR;
use crate::lock::NetworkLock;
use crate::{auto, disk};

/// Notes a directory that is not the default one, once. It serves lists alone, so that an ADD goes
/// on without it.
pub(crate) fn note(run_dir: &Path, data_dir: &Path) {
    if data_dir == Path::new(DATA_DIR) {
        return;
    }
    let text = data_dir.as_os_str().as_bytes();
    let folder = paths::data_dirs(run_dir);
    let path = folder.join(format!("{:08x}", crc32fast::hash(text)));
    if path.exists() {
        return;
    }
    let part = folder.join(format!(".{}", std::process::id()));
    let written = fs::create_dir_all(&folder)
        .and_then(|()| file::replace(&path, &part, text, 0o666, Outlives::Process));
    drop(written);
}

/// The directories with leases of this node: the default one first, and those that ADD has noted
/// below `run_dir`.
pub(crate) fn data_dirs(run_dir: &Path) -> Vec<PathBuf> {
    let mut all = vec![PathBuf::from(DATA_DIR)];
    all.extend(noted_data_dirs(run_dir));
    all
}

/// Removes all leases in a directory, and the directory when nothing else is in it. Its absence is
/// fine.
///
/// # Errors
/// Permissions.
pub fn remove_leases(data_dir: &Path) -> io::Result<()> {
    let absent = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let networks = match disk::networks(data_dir) {
        Err(error) if absent(&error) => return Ok(()),
        networks => networks?,
    };
    for network in networks {
        fs::remove_dir_all(data_dir.join(network))?;
    }
    for entry in data_dir.read_dir()? {
        let path = entry?.path();
        if is_leftover(&path) {
            let removed =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed?;
        }
    }
    match fs::remove_dir(data_dir) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        removed => removed,
    }
}

/// Whether a store has left it: locks, damaged files that were put aside, who has the node's
/// subnets.
fn is_leftover(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let Some(rest) = name.strip_prefix('.') else { return false };
    let of_repair = |word: &str| path.is_dir() && rest.contains(word);
    NetworkLock::is_lock(name)
        || auto::is_file(name)
        || of_repair(".damaged-")
        || of_repair(".repair-")
}

/// The directories with leases that ADD has noted below `run_dir`, without the default one.
pub fn noted_data_dirs(run_dir: &Path) -> BTreeSet<PathBuf> {
    let entries = paths::data_dirs(run_dir).read_dir().into_iter().flatten().flatten();
    let noted = entries.filter(|entry| !entry.file_name().as_bytes().starts_with(b"."));
    let texts = noted.filter_map(|entry| fs::read(entry.path()).ok());
    let paths = texts.map(|text| PathBuf::from(std::ffi::OsString::from_vec(text)));
    paths.filter(|path| path.is_absolute() && path != Path::new(DATA_DIR)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: RD11
    #[test]
    fn folders_are_noted_once_and_the_default_one_needs_no_note() {
        let run = tempfile::tempdir().expect("a folder");
        let dirs = || data_dirs(run.path());
        assert_eq!(dirs(), [Path::new(DATA_DIR)]);
        note(run.path(), Path::new(DATA_DIR));
        assert!(!paths::data_dirs(run.path()).exists());
        for _ in 0..2 {
            note(run.path(), Path::new("/srv/b"));
            note(run.path(), Path::new("/srv/a"));
        }
        assert_eq!(dirs(), [Path::new(DATA_DIR), Path::new("/srv/a"), Path::new("/srv/b")]);
        assert_eq!(paths::data_dirs(run.path()).read_dir().expect("a folder").count(), 2);
        // What a killed process leaves, and what another program wrote.
        fs::write(paths::data_dirs(run.path()).join(".77"), "/srv/c").expect("written");
        fs::write(paths::data_dirs(run.path()).join("x"), "no path").expect("written");
        assert_eq!(dirs().len(), 3);
    }

    /// Rows: RD11
    #[test]
    fn leases_are_removed_and_nothing_else_in_their_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        remove_leases(&data).expect("nothing to do");
        fs::create_dir_all(data.join("net")).expect("made");
        fs::create_dir_all(data.join(".net.damaged-1-1")).expect("made");
        for name in ["net/db", ".net.lock", ".auto", ".auto.lock"] {
            fs::write(data.join(name), "").expect("written");
        }
        for name in ["10.0.0.2", ".hidden", "other.lock"] {
            fs::write(data.join(name), "").expect("written");
        }
        fs::create_dir_all(data.join("folder")).expect("made");
        remove_leases(&data).expect("removed");
        let left = data.read_dir().expect("a folder").map(|entry| entry.expect("one").file_name());
        let left: BTreeSet<_> = left.collect();
        assert_eq!(left, ["10.0.0.2", ".hidden", "other.lock", "folder"].map(Into::into).into());
        for name in ["10.0.0.2", ".hidden", "other.lock"] {
            fs::remove_file(data.join(name)).expect("removed");
        }
        fs::remove_dir(data.join("folder")).expect("removed");
        remove_leases(&data).expect("removed");
        assert!(!data.exists());
    }
}
