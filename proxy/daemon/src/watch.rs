//! Directories and rules: an event whenever they may be others.

use std::io;

use causeway_nft::Monitor;
use causeway_source::DirWatch;
use tokio::io::unix::AsyncFd;

use crate::event::{Event, Events};

/// Sends what `event` makes for each batch of changes, until nobody receives any more. Inside a
/// tokio runtime.
///
/// # Errors
/// inotify fails.
pub(crate) async fn directory(
    watch: DirWatch,
    events: Events,
    event: fn() -> Event,
) -> io::Result<()> {
    // SAFETY: a watch keeps its descriptor until it is dropped.
    let mut watch = unsafe { AsyncFd::register(watch) }?;
    loop {
        watch.readable_mut().await?.clear_ready();
        if watch.get_mut().changed()? && events.send(event()).await.is_err() {
            return Ok(());
        }
    }
}

/// Sends [`Event::KernelChanged`] for each batch of changes that others make to our rules.
///
/// # Errors
/// The subscription fails.
pub(crate) async fn kernel(monitor: Monitor, events: Events) -> io::Result<()> {
    // SAFETY: a monitor keeps its descriptor until it is dropped.
    let mut monitor = unsafe { AsyncFd::register(monitor) }?;
    loop {
        monitor.readable_mut().await?.clear_ready();
        let change = monitor.get_mut().changes().map_err(io::Error::other)?;
        let Some(change) = change else { continue };
        let by =
            change.by.as_ref().map(|(name, pid)| format!("{name} ({pid})")).unwrap_or_default();
        tracing::debug!(by, lost = change.lost, "our rules were changed");
        if events.send(Event::KernelChanged { by: change.by }).await.is_err() {
            return Ok(());
        }
    }
}
