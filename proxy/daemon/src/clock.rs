//! The daemon's only reads of the clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Now, for durations.
#[expect(clippy::disallowed_methods, reason = "the daemon's single clock read")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Now, since 1970.
#[expect(clippy::disallowed_methods, reason = "the daemon's single clock read")]
pub(crate) fn unix() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
