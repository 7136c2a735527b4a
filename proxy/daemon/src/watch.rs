//! Directories: an event whenever one may hold something else.

use std::io;

use causeway_source::DirWatch;
use tokio::io::unix::AsyncFd;

use crate::event::{Event, Events};

/// Sends what `event` makes for each batch of changes, until nobody receives any more. Inside a
/// tokio runtime.
///
/// # Errors
/// inotify fails.
pub(crate) async fn run(watch: DirWatch, events: Events, event: fn() -> Event) -> io::Result<()> {
    // SAFETY: a watch keeps its descriptor until it is dropped.
    let mut watch = unsafe { AsyncFd::register(watch) }?;
    loop {
        watch.readable_mut().await?.clear_ready();
        if watch.get_mut().changed()? && events.send(event()).await.is_err() {
            return Ok(());
        }
    }
}
