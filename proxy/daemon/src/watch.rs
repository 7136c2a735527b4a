//! Directories and rules: an event whenever they may have changed. What cannot be watched is looked
//! at every two seconds instead, and watched again as soon as that works.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use causeway_nft::{Change, Monitor};
use causeway_source::DirWatch;
use tokio::io::unix::AsyncFd;

use crate::conditions::Concern;
use crate::event::{Event, Events};

/// How often what cannot be watched is looked at, and watching is retried.
const POLL: Duration = Duration::from_secs(2);

/// Something that becomes readable when there may have been a change.
pub(crate) trait Watch: AsRawFd {
    /// What it reports of a change.
    type Change: Send;

    /// Takes in what happened, without waiting. `None`: nothing is other than before.
    ///
    /// # Errors
    /// It reports no more changes.
    fn changed(&mut self) -> io::Result<Option<Self::Change>>;
}

impl Watch for DirWatch {
    type Change = ();

    fn changed(&mut self) -> io::Result<Option<()>> {
        Ok(DirWatch::changed(self)?.then_some(()))
    }
}

impl Watch for Monitor {
    type Change = Change;

    fn changed(&mut self) -> io::Result<Option<Change>> {
        let change = self.changes().map_err(io::Error::other)?;
        if let Some(Change { by, lost }) = &change {
            tracing::debug!(by = by.as_ref().map(|(name, _)| name), lost, "our rules were changed");
        }
        Ok(change)
    }
}

/// What is watched, and what follows.
#[derive(Debug)]
pub(crate) struct Watched<Arm, C> {
    /// What does not work while it cannot be watched.
    pub concern: Concern,
    /// Why that matters, and the remedy: follows the error in `status`.
    pub remedy: &'static str,
    /// Begins to watch.
    pub arm: Arm,
    /// Sent for each batch of changes; of `None` when it is looked at without a change being told.
    pub event: fn(Option<C>) -> Event,
}

impl<Arm, W> Watched<Arm, W::Change>
where
    Arm: Fn() -> io::Result<W> + Send + Sync + 'static,
    W: Watch + Send + 'static,
    W::Change: 'static,
{
    /// Begins to watch before it returns, and goes on until nobody receives events any more. Inside a
    /// tokio runtime.
    pub(crate) fn spawn(self, events: Events) {
        let first = (self.arm)();
        // Its end is the daemon's: nobody receives any more.
        tokio::spawn(async move { self.keep(first, &events, POLL).await });
    }

    /// `None`: nobody receives.
    async fn keep(self, first: io::Result<W>, events: &Events, poll: Duration) -> Option<()> {
        let mut watch = first;
        let mut failed = false;
        loop {
            let error = match watch {
                Ok(watch) => {
                    if failed {
                        self.say(events, None).await?;
                        failed = false;
                        // What happened before it was watched.
                        events.send((self.event)(None)).await.ok()?;
                    }
                    follow(watch, events, self.event).await?
                }
                Err(error) => error,
            };
            if !failed {
                self.say(events, Some(&error)).await?;
                failed = true;
            }
            tokio::time::sleep(poll).await;
            events.send((self.event)(None)).await.ok()?;
            watch = (self.arm)();
        }
    }

    async fn say(&self, events: &Events, error: Option<&io::Error>) -> Option<()> {
        let text = error.map(|error| format!("{error}; {}", self.remedy));
        let condition = Event::Condition { concern: self.concern.clone(), text };
        events.send(condition).await.ok()
    }
}

/// Sends `event` for each batch of changes. Returns why there will be none; `None` when nobody
/// receives any more.
async fn follow<W: Watch>(
    watch: W,
    events: &Events,
    event: fn(Option<W::Change>) -> Event,
) -> Option<io::Error> {
    // SAFETY: a watch keeps its descriptor until it is dropped.
    let mut watch = match unsafe { AsyncFd::register(watch) } {
        Ok(watch) => watch,
        Err(error) => return Some(error.into()),
    };
    loop {
        match watch.readable_mut().await {
            Ok(mut ready) => ready.clear_ready(),
            Err(error) => return Some(error),
        }
        match watch.get_mut().changed() {
            Ok(None) => {}
            Ok(change) => events.send(event(change)).await.ok()?,
            Err(error) => return Some(error),
        }
    }
}

#[cfg(test)]
mod tests;
