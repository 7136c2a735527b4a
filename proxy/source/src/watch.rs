//! A directory that may be absent, come and go: inotify on it and on the directories above.
//!
//! Each directory on the way is watched for the next name, so that a directory that is made, moved
//! or replaced anywhere on the path is noticed. All watches are set again then.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A name in the directory comes, goes, or its content is complete.
const CONTENT: u32 = libc::IN_CLOSE_WRITE
    | libc::IN_MOVED_TO
    | libc::IN_MOVED_FROM
    | libc::IN_DELETE
    | libc::IN_CREATE
    | libc::IN_ATTRIB;
/// The way to the directory changes.
const WAY: u32 = libc::IN_CREATE | libc::IN_MOVED_TO | libc::IN_MOVED_FROM | libc::IN_DELETE;
/// The watched directory itself goes.
const ITSELF: u32 = libc::IN_DELETE_SELF | libc::IN_MOVE_SELF;
/// `struct inotify_event` without the name.
const HEADER: usize = 16;

/// Watches a directory. Readable ([`AsFd`], [`AsRawFd`], for `tokio::io::unix::AsyncFd`) when
/// [`DirWatch::changed`] has something to look at.
#[derive(Debug)]
pub struct DirWatch {
    inotify: File,
    path: PathBuf,
    /// Whether a name in the directory matters.
    concerns: fn(&OsStr) -> bool,
    watches: BTreeMap<i32, Watched>,
}

/// What a watch descriptor stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Watched {
    /// The directory.
    Content,
    /// A directory on the way, with the name that leads on.
    Way(OsString),
}

impl DirWatch {
    /// Watches `path` for names that `concerns` accepts.
    ///
    /// # Errors
    /// No inotify instance or watch is left (`fs.inotify.max_user_instances`, `max_user_watches`).
    pub fn new(path: &Path, concerns: fn(&OsStr) -> bool) -> io::Result<Self> {
        // SAFETY: takes flags.
        let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nothing else owns.
        let inotify = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        let path = std::path::absolute(path)?;
        let mut watch = Self { inotify, path, concerns, watches: BTreeMap::new() };
        watch.arm()?;
        Ok(watch)
    }

    /// Takes in what happened since the last call, without waiting. Whether the directory may hold
    /// something else now; then it is to be read again as a whole.
    ///
    /// # Errors
    /// See [`DirWatch::new`].
    pub fn changed(&mut self) -> io::Result<bool> {
        let (mut changed, mut lost) = (false, false);
        let mut buffer = [0; 16 * 1024];
        loop {
            let length = match self.inotify.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                length => length?,
            };
            for event in events(&buffer[..length]) {
                match self.judge(&event) {
                    Meaning::Nothing => {}
                    Meaning::Changed => changed = true,
                    Meaning::WayLost => lost = true,
                }
            }
        }
        if lost {
            self.arm()?;
        }
        Ok(changed || lost)
    }

    fn judge(&self, event: &Event<'_>) -> Meaning {
        if event.mask & libc::IN_Q_OVERFLOW != 0 {
            return Meaning::WayLost;
        }
        let Some(watched) = self.watches.get(&event.watch) else { return Meaning::Nothing };
        if event.mask & (ITSELF | libc::IN_IGNORED | libc::IN_UNMOUNT) != 0 {
            return Meaning::WayLost;
        }
        match watched {
            Watched::Way(next) if event.name == next => Meaning::WayLost,
            Watched::Content if (self.concerns)(event.name) && self.is_complete(event) => {
                Meaning::Changed
            }
            Watched::Way(_) | Watched::Content => Meaning::Nothing,
        }
    }

    /// A new file is written after it was made, and its closing is another event. Links are
    /// complete at once.
    fn is_complete(&self, event: &Event<'_>) -> bool {
        event.mask & libc::IN_CREATE == 0
            || std::fs::symlink_metadata(self.path.join(event.name))
                .is_ok_and(|found| !found.is_file() || found.nlink() > 1)
    }

    /// Sets all watches again, from the root on: whatever comes to be on the way meanwhile is seen
    /// by the watch above it.
    fn arm(&mut self) -> io::Result<()> {
        for watch in std::mem::take(&mut self.watches).into_keys() {
            // SAFETY: takes two numbers. One that is gone by itself is an error that says so.
            unsafe { libc::inotify_rm_watch(self.inotify.as_raw_fd(), watch) };
        }
        let mut folders: Vec<&Path> = self.path.ancestors().collect();
        folders.reverse();
        let mut watches = BTreeMap::new();
        for (place, folder) in folders.iter().enumerate() {
            let (watched, mask) = match folders.get(place + 1) {
                Some(next) => (Watched::Way(next.file_name().unwrap_or_default().into()), WAY),
                None => (Watched::Content, CONTENT),
            };
            match self.add(folder, mask | ITSELF) {
                Ok(watch) => drop(watches.insert(watch, watched)),
                Err(error) if is_absence(&error) => break,
                Err(error) => return Err(error),
            }
        }
        self.watches = watches;
        Ok(())
    }

    fn add(&self, folder: &Path, mask: u32) -> io::Result<i32> {
        let name = CString::new(folder.as_os_str().as_bytes())?;
        let mask = mask | libc::IN_ONLYDIR | libc::IN_MASK_ADD;
        // SAFETY: a terminated name that lives through the call.
        let watch =
            unsafe { libc::inotify_add_watch(self.inotify.as_raw_fd(), name.as_ptr(), mask) };
        if watch < 0 { Err(io::Error::last_os_error()) } else { Ok(watch) }
    }
}

impl AsFd for DirWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

impl AsRawFd for DirWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.inotify.as_raw_fd()
    }
}

enum Meaning {
    Nothing,
    Changed,
    /// Watches no longer are where they should be.
    WayLost,
}

struct Event<'a> {
    watch: i32,
    mask: u32,
    name: &'a OsStr,
}

/// The events that one `read` gave.
fn events(mut bytes: &[u8]) -> impl Iterator<Item = Event<'_>> {
    std::iter::from_fn(move || {
        let word = |at: usize| -> Option<[u8; 4]> { bytes.get(at..at + 4)?.try_into().ok() };
        let watch = i32::from_ne_bytes(word(0)?);
        let mask = u32::from_ne_bytes(word(4)?);
        let length = usize::try_from(u32::from_ne_bytes(word(12)?)).ok()?;
        let name = bytes.get(HEADER..HEADER.checked_add(length)?)?;
        bytes = &bytes[HEADER + length..];
        // Padded with zeros.
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        Some(Event { watch, mask, name: OsStr::from_bytes(&name[..end]) })
    })
}

/// The directory, or one above it, is not there (any more).
fn is_absence(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP))
}

#[cfg(test)]
mod tests;
