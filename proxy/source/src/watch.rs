//! A directory that may be absent, come and go: inotify on it and on the directories above.
//!
//! Each directory on the way is watched for the next name, so that a directory that is made, moved
//! or replaced anywhere on the path is noticed. All watches are set again then.

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, Event, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// A name in the directory comes, goes, or its content is complete.
const CONTENT: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::ATTRIB);
/// The way to the directory changes.
const WAY: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::DELETE);
/// The watched directory itself goes.
const ITSELF: WatchFlags = WatchFlags::DELETE_SELF.union(WatchFlags::MOVE_SELF);
/// A watch is or may be gone.
const GONE: ReadFlags = ReadFlags::DELETE_SELF
    .union(ReadFlags::MOVE_SELF)
    .union(ReadFlags::IGNORED)
    .union(ReadFlags::UNMOUNT);

/// Watches a directory. Readable ([`AsFd`], [`AsRawFd`], for `tokio::io::unix::AsyncFd`) when
/// [`DirWatch::changed`] has something to look at.
#[derive(Debug)]
pub struct DirWatch {
    inotify: OwnedFd,
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
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
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
        let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => match self.judge(&event) {
                    Meaning::Nothing => {}
                    Meaning::Changed => changed = true,
                    Meaning::WayLost => lost = true,
                },
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if lost {
            self.arm()?;
        }
        Ok(changed || lost)
    }

    fn judge(&self, event: &Event<'_>) -> Meaning {
        if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
            return Meaning::WayLost;
        }
        let Some(watched) = self.watches.get(&event.wd()) else { return Meaning::Nothing };
        if event.events().intersects(GONE) {
            return Meaning::WayLost;
        }
        let name = OsStr::from_bytes(event.file_name().map(CStr::to_bytes).unwrap_or_default());
        match watched {
            Watched::Way(next) if name == next => Meaning::WayLost,
            Watched::Content if (self.concerns)(name) && self.is_complete(event, name) => {
                Meaning::Changed
            }
            Watched::Way(_) | Watched::Content => Meaning::Nothing,
        }
    }

    /// A new file is written after it was made, and its closing is another event. Links are
    /// complete at once.
    fn is_complete(&self, event: &Event<'_>, name: &OsStr) -> bool {
        !event.events().contains(ReadFlags::CREATE)
            || std::fs::symlink_metadata(self.path.join(name))
                .is_ok_and(|found| !found.is_file() || found.nlink() > 1)
    }

    /// Sets all watches again, from the root on: whatever comes to be on the way meanwhile is seen
    /// by the watch above it.
    fn arm(&mut self) -> io::Result<()> {
        for watch in std::mem::take(&mut self.watches).into_keys() {
            // One that is gone by itself is an error that says so.
            inotify::remove_watch(&self.inotify, watch).ok();
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

    fn add(&self, folder: &Path, mask: WatchFlags) -> io::Result<i32> {
        let mask = mask | WatchFlags::ONLYDIR | WatchFlags::MASK_ADD;
        Ok(inotify::add_watch(&self.inotify, folder, mask)?)
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

/// The directory, or one above it, is not there (any more).
fn is_absence(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP))
}

#[cfg(test)]
mod tests;
