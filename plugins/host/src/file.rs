//! Files that are there whole or not at all, and the directories that they lie in.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// What a file must outlive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlives {
    /// Its writer, killed at any instant. Nothing is synced.
    Process,
    /// A power cut as well: file and directory are synced.
    Power,
}

/// Makes a directory and those above it of mode 0700, each if it is missing.
///
/// # Errors
/// Permissions, a file in the way.
pub fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Runs `create` in a directory that another process may remove while it is empty.
///
/// # Errors
/// Those of `create`; the folder cannot be made.
pub fn in_folder<T>(folder: &Path, create: impl Fn() -> io::Result<T>) -> io::Result<T> {
    /// Each further attempt needs another process to have removed the directory in between.
    const ATTEMPTS: u32 = 1000;
    let mut attempt = 1;
    loop {
        match create() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS => {
                match make_folder(folder) {
                    // It or its parent came and went while it was being made.
                    Err(error)
                        if matches!(
                            error.kind(),
                            io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists
                        ) => {}
                    result => result?,
                }
                attempt += 1;
            }
            result => return result,
        }
    }
}

/// Writes `content` to `temporary`, a file of `mode` beside `path`, and renames it to `path`. A
/// killed writer leaves the old file or the new one, and perhaps `temporary`; a failure leaves no
/// `temporary`.
///
/// # Errors
/// Disk full, permissions, no directory.
pub fn replace(
    path: &Path,
    temporary: &Path,
    content: &[u8],
    mode: u32,
    outlives: Outlives,
) -> io::Result<()> {
    let written = (|| {
        let mut options = OpenOptions::new();
        // Not `create_new`: a killed process may have left one.
        let mut file =
            options.write(true).create(true).truncate(true).mode(mode).open(temporary)?;
        file.write_all(content)?;
        if outlives == Outlives::Power {
            file.sync_all()?;
        }
        std::fs::rename(temporary, path)
    })();
    if written.is_err() {
        drop(std::fs::remove_file(temporary));
    }
    written?;
    match path.parent() {
        Some(folder) if outlives == Outlives::Power => File::open(folder)?.sync_all(),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_over_what_a_killed_writer_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, temporary) = (folder.path().join("a.json"), folder.path().join("a.tmp"));
        for outlives in [Outlives::Process, Outlives::Power] {
            std::fs::write(&temporary, "half of something longer").expect("written");
            replace(&path, &temporary, b"whole", 0o600, outlives).expect("written");
            assert_eq!(std::fs::read(&path).expect("there"), b"whole");
            assert!(!temporary.exists());
        }
    }

    #[test]
    fn a_failure_leaves_what_was_there_and_no_temporary_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, temporary) = (folder.path().join("a"), folder.path().join("a.tmp"));
        // A file cannot take the place of a folder.
        make_folder(&path).expect("a folder");
        replace(&path, &temporary, b"x", 0o600, Outlives::Process).expect_err("a folder");
        assert!(path.is_dir() && !temporary.exists());
    }

    #[test]
    fn folders_are_for_their_owner_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a/b/file");
        let parent = path.parent().expect("a parent");
        in_folder(parent, || File::create(&path)).expect("made");
        assert_eq!(parent.metadata().expect("there").permissions().mode() & 0o777, 0o700);
    }
}
