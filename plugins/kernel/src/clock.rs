//! The package's only pauses, and the ends of its waits.

use std::time::Duration;

pub(crate) use causeway_host::Deadline;

/// Pauses before attempt `attempt` (from 1) of something another process makes fail for a moment:
/// 1, 2, 4 ... milliseconds, at most `limit`.
#[expect(clippy::disallowed_methods, reason = "nothing signals the end of a transient failure")]
pub(crate) fn backoff(attempt: u32, limit: Duration) {
    let pause = Duration::from_millis(1 << attempt.saturating_sub(1).min(10));
    std::thread::sleep(pause.min(limit));
}
