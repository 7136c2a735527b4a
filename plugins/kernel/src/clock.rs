//! The package's only reads of the clock and only pauses.

use std::time::{Duration, Instant};

/// The point in time at which waiting ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// `wait` from now.
    #[expect(clippy::disallowed_methods, reason = "the edge's clock read, for bounded waits")]
    pub(crate) fn after(wait: Duration) -> Self {
        Self(Instant::now() + wait)
    }

    /// Time left; zero once passed.
    #[expect(clippy::disallowed_methods, reason = "the edge's clock read, for bounded waits")]
    pub(crate) fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether no time is left.
    pub(crate) fn passed(self) -> bool {
        self.remaining().is_zero()
    }

    /// Time left for `poll(2)`, in milliseconds, rounded up so that waiting does not end early.
    pub(crate) fn poll_timeout(self) -> i32 {
        i32::try_from(self.remaining().as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
    }
}

/// Pauses before attempt `attempt` (from 1) of something another process makes fail for a moment:
/// 1, 2, 4 ... milliseconds, at most `limit`.
#[expect(clippy::disallowed_methods, reason = "nothing signals the end of a transient failure")]
pub(crate) fn backoff(attempt: u32, limit: Duration) {
    let pause = Duration::from_millis(1 << attempt.saturating_sub(1).min(10));
    std::thread::sleep(pause.min(limit));
}
