//! The daemon's only reads of the clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Now, for durations.
#[expect(clippy::disallowed_methods, reason = "the daemon's single clock read")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A duration for people: `3m12s`, `2h5m`.
pub(crate) fn words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{}s", seconds % 60),
        _ => format!("{hours}h{}m", minutes % 60),
    }
}

/// Now, since 1970.
#[expect(clippy::disallowed_methods, reason = "the daemon's single clock read")]
pub(crate) fn unix() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
