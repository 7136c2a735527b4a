//! When something that is done again and again is due next: its period, the least pause between two
//! times, and the pause after failures. Pure: whoever asks gives the time.

use std::time::{Duration, Instant};

/// The pause after failures in a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    /// After the first failure; it doubles with every further one.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
}

impl Backoff {
    /// The pause after so many failures in a row; none after none.
    pub(crate) fn pause(self, failures: u32) -> Duration {
        match failures.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => self.first.saturating_mul(1 << doublings.min(16)).min(self.longest),
        }
    }
}

/// The least pause between two times, by how long the first one took: what is expensive is not to take
/// all of a processor, however often there is a reason for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gap {
    /// So many times as long as it took.
    pub times: u32,
    /// The shortest pause.
    pub shortest: Duration,
    /// The longest pause.
    pub longest: Duration,
}

impl Gap {
    /// The pause after something that took so long.
    pub(crate) fn after(self, took: Duration) -> Duration {
        took.saturating_mul(self.times).clamp(self.shortest, self.longest)
    }
}

/// How often something is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// It is done this often though nothing has happened; `None`: only if there is a reason.
    pub period: Option<Duration>,
    /// The least pause before it is done because something has happened.
    pub gap: Gap,
}

/// When something is done next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    pace: Pace,
    due: Option<Instant>,
    earliest: Instant,
}

impl Schedule {
    /// Due at once, for the first time.
    pub(crate) fn at_once(pace: Pace, now: Instant) -> Self {
        Self { pace, due: Some(now), earliest: now }
    }

    /// Due when its period is over.
    pub(crate) fn later(pace: Pace, now: Instant) -> Self {
        Self { pace, due: pace.period.map(|period| now + period), earliest: now }
    }

    /// When it is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// How long it is until then.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        self.due.map_or(Duration::MAX, |due| due.saturating_duration_since(now))
    }

    /// Whether it is due.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Not before this is it done because something has happened.
    pub(crate) fn earliest(&self) -> Instant {
        self.earliest
    }

    /// There is a reason for it from `at` on, which can wait for the least pause.
    pub(crate) fn wanted(&mut self, at: Instant) {
        let soon = at.max(self.earliest);
        self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
    }

    /// There is a reason for it: after the least pause, whatever was due before.
    pub(crate) fn wanted_at_earliest(&mut self) {
        self.due = Some(self.earliest);
    }

    /// It is due at this time, whatever was due before.
    pub(crate) fn set(&mut self, at: Instant) {
        self.due = Some(at);
    }

    /// It was done, and took so long.
    pub(crate) fn done(&mut self, took: Duration, now: Instant) {
        self.due = self.pace.period.map(|period| now + period);
        self.earliest = now + self.pace.gap.after(took);
    }

    /// Whatever happens, it is not done before this.
    pub(crate) fn hold_off(&mut self, until: Instant) {
        self.earliest = self.earliest.max(until);
    }

    /// It is due at this time and, whatever happens, not before.
    pub(crate) fn set_and_hold_off(&mut self, at: Instant) {
        (self.due, self.earliest) = (Some(at), at);
    }
}

/// Something that is done once at its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// At this time.
    pub(crate) fn at(at: Instant) -> Self {
        Self(Some(at))
    }

    /// It is due at this time, whatever was due before.
    pub(crate) fn set(&mut self, at: Instant) {
        self.0 = Some(at);
    }

    /// It is due at this time, unless it is due at another one.
    pub(crate) fn set_if_unset(&mut self, at: Instant) {
        self.0.get_or_insert(at);
    }

    /// It is not due any more.
    pub(crate) fn clear(&mut self) {
        self.0 = None;
    }

    /// When it is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.0
    }

    /// Whether it is due. Then it is done with.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.0.take_if(|at| *at <= now).is_some()
    }
}

/// Something that is tried until it succeeds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Retry {
    failures: u32,
    next: Option<Instant>,
}

impl Retry {
    /// The first attempt is at this time.
    pub(crate) fn at(at: Instant) -> Self {
        Self { failures: 0, next: Some(at) }
    }

    /// Not due after so many failures: [`Retry::failed`] says when it is.
    pub(crate) fn after(failures: u32) -> Self {
        Self { failures, next: None }
    }

    /// When the next attempt is; `None`: it succeeded.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.next
    }

    /// Failures in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// An attempt failed. Returns the pause before the next one.
    pub(crate) fn failed(&mut self, backoff: Backoff, now: Instant) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let pause = backoff.pause(self.failures);
        self.next = Some(now + pause);
        pause
    }

    /// The next attempt is at once: it is a different one.
    pub(crate) fn again(&mut self, now: Instant) {
        self.next = Some(now);
    }
}

#[cfg(test)]
mod tests;
