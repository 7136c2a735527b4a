//! Whether a silent watch is alive. Pure.
//!
//! A watch is asked how far it is, and what it answers is a sign of life. etcd 3.6 owes no answer to
//! a watch from a revision that the store has not reached, which is so as long as nobody writes. So
//! silence that lasts is a question to the store: at which revision is it? One that the watch has
//! come to means that nothing is missing, which is as good as a word of the watch. Of a later one
//! the watch has to say something soon.

use std::time::Duration;

use tokio::time::Instant;

/// How often the watch is asked, and how long it has to say something when the store has gone on.
const PROGRESS: Duration = Duration::from_secs(5);
/// Silence after which the store is asked.
const LONG: Duration = Duration::from_secs(10);

/// When the watch said something, and what has been asked since.
#[derive(Clone, Debug)]
pub(super) struct Silence {
    heard: Instant,
    /// When the watch is to be asked next.
    ask: Instant,
    /// The watch has been asked since.
    asked: bool,
    /// The store was found to have gone on then.
    behind: Option<Instant>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// Nothing until [`Silence::next`].
    Wait,
    /// Ask the watch how far it is.
    AskWatch,
    /// Ask the store at which revision it is, for [`Silence::store_is_at`].
    AskStore,
    /// The watch is dead: it was silent for so long.
    GiveUp(Duration),
}

impl Silence {
    /// Of a watch that was just made.
    pub(super) fn new(now: Instant) -> Self {
        Self { heard: now, ask: now + PROGRESS, asked: false, behind: None }
    }

    /// The watch said something.
    pub(super) fn heard(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// Nobody listened to the watch until now.
    pub(super) fn excuse(&mut self, now: Instant) {
        (self.heard, self.behind) = (now, None);
    }

    /// When to ask for what is due.
    pub(super) fn next(&self) -> Instant {
        match self.behind {
            Some(since) => self.ask.min(since + PROGRESS),
            None if self.asked => self.ask.min(self.heard + LONG),
            None => self.ask,
        }
    }

    /// What is due. It counts as done.
    pub(super) fn due(&mut self, now: Instant) -> Duty {
        match self.behind {
            Some(since) if now >= since + PROGRESS => {
                return Duty::GiveUp(now.saturating_duration_since(self.heard));
            }
            None if self.asked && now >= self.heard + LONG => return Duty::AskStore,
            Some(_) | None => {}
        }
        if now < self.ask {
            return Duty::Wait;
        }
        (self.ask, self.asked) = (now + PROGRESS, true);
        Duty::AskWatch
    }

    /// The store said that it is at the revision `store`; the watch has come to `ours`. Whether the
    /// watch is to be asked once more: what it was asked before, it may have been free to ignore.
    pub(super) fn store_is_at(&mut self, now: Instant, store: i64, ours: i64) -> bool {
        if store <= ours {
            self.heard(now);
            return false;
        }
        (self.behind, self.ask) = (Some(now), now + PROGRESS);
        true
    }
}

#[cfg(test)]
mod tests;
