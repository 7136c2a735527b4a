//! Directories, by inotify: an event whenever something in one is new, changed or gone. The
//! directory itself may come and go.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tokio::io::unix::AsyncFd;

use crate::event::{Event, Events};

/// A file was written and closed, came, or went. Not its creation: it is empty then.
const CONTENT: u32 = libc::IN_CLOSE_WRITE
    | libc::IN_MOVED_TO
    | libc::IN_MOVED_FROM
    | libc::IN_DELETE
    | libc::IN_CREATE;
/// The directory is gone from its place.
const ITSELF: u32 = libc::IN_DELETE_SELF | libc::IN_MOVE_SELF;

/// A watched directory.
#[derive(Debug)]
pub(crate) struct Watch {
    path: PathBuf,
    inotify: AsyncFd<OwnedFd>,
    /// The watch of the directory itself, where it exists.
    own: Option<i32>,
}

impl Watch {
    /// Watches from now on. Inside a tokio runtime.
    ///
    /// # Errors
    /// No inotify instance is to be had (`fs.inotify.max_user_instances`).
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        // SAFETY: takes flags, returns a descriptor.
        let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nothing else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: an owned descriptor stays the same until it is dropped.
        let inotify = unsafe { AsyncFd::register(fd) }?;
        let mut watch = Self { path: path.to_owned(), inotify, own: None };
        watch.arm();
        Ok(watch)
    }

    /// Sends what `event` makes for each batch of changes, until nobody receives any more.
    ///
    /// # Errors
    /// inotify fails.
    pub(crate) async fn run(mut self, events: Events, event: fn() -> Event) -> io::Result<()> {
        loop {
            let mut ready = self.inotify.readable().await?;
            let read = ready.try_io(|inotify| read(inotify.get_ref()));
            drop(ready);
            let Ok(read) = read else { continue };
            let lost = read?.into_iter().any(|(watch, mask)| {
                Some(watch) != self.own || mask & (ITSELF | libc::IN_IGNORED) != 0
            });
            if lost || self.own.is_none() {
                self.arm();
            }
            if events.send(event()).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Watches the directory, and those above it for its coming.
    fn arm(&mut self) {
        self.own = self.add(&self.path, CONTENT | ITSELF);
        if self.own.is_some() {
            return;
        }
        let above = self.path.ancestors().skip(1);
        let mask = libc::IN_CREATE | libc::IN_MOVED_TO | ITSELF;
        if above.map(|path| self.add(path, mask)).any(|watch| watch.is_some()) {
            // It may have come just now.
            self.own = self.add(&self.path, CONTENT | ITSELF);
        }
    }

    fn add(&self, path: &Path, mask: u32) -> Option<i32> {
        let path = CString::new(path.as_os_str().as_bytes()).ok()?;
        let inotify = self.inotify.get_ref().as_raw_fd();
        // SAFETY: an open descriptor and a string that outlives the call.
        let watch =
            unsafe { libc::inotify_add_watch(inotify, path.as_ptr(), mask | libc::IN_ONLYDIR) };
        (watch >= 0).then_some(watch)
    }
}

/// All events at hand: watch and mask.
fn read(inotify: &OwnedFd) -> io::Result<Vec<(i32, u32)>> {
    /// `inotify_event` without its name.
    const HEAD: usize = 16;
    let mut buffer = [0_u8; 8192];
    // SAFETY: the buffer is as long as said and lives through the call.
    let length =
        unsafe { libc::read(inotify.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
    let Ok(length) = usize::try_from(length) else { return Err(io::Error::last_os_error()) };
    let mut events = Vec::new();
    let mut rest = &buffer[..length];
    while let Some((head, tail)) = rest.split_at_checked(HEAD) {
        let word = |at: usize| [head[at], head[at + 1], head[at + 2], head[at + 3]];
        events.push((i32::from_ne_bytes(word(0)), u32::from_ne_bytes(word(4))));
        let name = usize::try_from(u32::from_ne_bytes(word(12))).unwrap_or(usize::MAX);
        rest = tail.get(name..).unwrap_or_default();
    }
    Ok(events)
}
