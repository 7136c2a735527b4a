//! Atomically written files.

use std::io;
use std::path::Path;

use causeway_host::file::{self, Outlives};

/// Writes a file of `mode` under another name, on disk, and renames it.
///
/// # Errors
/// Disk full, permissions.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    file::replace(path, &path.with_file_name(name), content, mode, Outlives::Power)
}

/// Removes a file, or a directory with its content. Its absence is fine.
///
/// # Errors
/// Permissions.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
