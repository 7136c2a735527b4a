//! The manifest directory: files of Kubernetes documents, watched.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use causeway_model::manifest::{self, Document, Refusal};

use crate::DirWatch;

/// The `*.yaml`, `*.yml` and `*.json` files of a directory, in order of their names. Hidden files
/// and what editors leave beside (`.a.yaml.swp`, `a.yaml~`, `#a.yaml#`) are not among them.
#[derive(Debug)]
pub struct ManifestDir {
    path: PathBuf,
}

/// The directory's content at one time.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// Documents by file name. A file that cannot be read counts as one refused document.
    pub files: BTreeMap<String, Vec<Document>>,
    /// Files that are being written at this moment and so are not among `files`: what they held
    /// still counts. The watch says when they are complete.
    pub busy: BTreeSet<String>,
}

impl ManifestDir {
    /// A directory; it may be absent, and come and go.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Watches the directory. Take the watch before the first scan.
    ///
    /// # Errors
    /// See [`DirWatch::new`].
    pub fn watch(&self) -> io::Result<DirWatch> {
        // Mounted volumes of Kubernetes change all files at once by renaming the link `..data`.
        DirWatch::new(&self.path, |name| is_manifest(name) || name == "..data")
    }

    /// Reads all files. An absent directory holds none; one that cannot be read counts as a refused
    /// document of the file `.`.
    pub fn scan(&self) -> Scan {
        let mut scan = Scan::default();
        let names = match self.names() {
            Ok(names) => names,
            Err(error) if is_absence(&error) => return scan,
            Err(error) => {
                scan.files.insert(".".to_owned(), vec![unreadable(&error)]);
                return scan;
            }
        };
        for name in names {
            match read(&self.path.join(&name)) {
                Ok(Content::Text(text)) => drop(scan.files.insert(name, manifest::parse(&text))),
                Ok(Content::Busy) => drop(scan.busy.insert(name)),
                Ok(Content::NoFile) => {}
                // Removed since the directory was read, or a link to nothing.
                Err(error) if is_absence(&error) => {}
                Err(error) => drop(scan.files.insert(name, vec![unreadable(&error)])),
            }
        }
        scan
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            if is_manifest(&name) {
                names.push(name.to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }
}

/// Whether a file of this name is read. Names that are not UTF-8 are not.
fn is_manifest(name: &OsStr) -> bool {
    let Some(name) = name.to_str().filter(|name| !name.starts_with(['.', '#'])) else {
        return false;
    };
    let ending = Path::new(name).extension().and_then(OsStr::to_str);
    matches!(ending, Some("yaml" | "yml" | "json"))
}

enum Content {
    Text(String),
    /// A process has it open for writing.
    Busy,
    /// A directory.
    NoFile,
}

fn read(path: &Path) -> io::Result<Content> {
    // A pipe of that name must not stop us.
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Ok(Content::NoFile);
    }
    if !kind.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let Some(lease) = Lease::take(&file) else { return Ok(Content::Busy) };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    drop(lease);
    let text = String::from_utf8(bytes);
    text.map(Content::Text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Keeps writers out while a file is read: `cp` over a file or an editor that writes in place would
/// show us half of it.
struct Lease(Option<i32>);

/// `asm-generic/fcntl.h`
const F_SETSIG: libc::c_int = 10;

impl Lease {
    /// `None`: a writer is at work. A file system without leases gives one that does nothing.
    fn take(file: &File) -> Option<Self> {
        let fd = file.as_raw_fd();
        // A writer that arrives is announced by a signal, which would be SIGIO and end us; SIGURG
        // is ignored unless asked for. The writer itself waits until the file was read.
        // SAFETY: the descriptor is open; the commands take numbers.
        let taken = unsafe {
            if libc::fcntl(fd, F_SETSIG, libc::SIGURG) < 0 {
                return Some(Self(None));
            }
            libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK)
        };
        match io::Error::last_os_error().raw_os_error() {
            _ if taken == 0 => Some(Self(Some(fd))),
            Some(libc::EAGAIN) => None,
            _ => Some(Self(None)),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(fd) = self.0 {
            // SAFETY: the number of a file that outlives the lease; the command takes a number. Should
            // the file be closed by then, the lease is gone and this is an error that says so.
            unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) };
        }
    }
}

fn unreadable(error: &io::Error) -> Document {
    let refusal = Refusal {
        line: 1,
        kind: "document".to_owned(),
        object: String::new(),
        field: "file".to_owned(),
        reason: format!("it cannot be read: {error}"),
    };
    Document::refused(refusal)
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests;
