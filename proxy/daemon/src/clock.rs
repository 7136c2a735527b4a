//! The daemon's only reads of the clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Now, for durations.
#[expect(clippy::disallowed_methods, reason = "the daemon's single clock read")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The pause after so many failures in a row: the first, doubled for each after it, up to the longest;
/// none after none.
pub(crate) fn pause((first, longest): (Duration, Duration), failures: u32) -> Duration {
    match failures.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => first.saturating_mul(1 << doublings.min(16)).min(longest),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let second = Duration::from_secs(1);
        let seconds = |failures| pause((second, 60 * second), failures).as_secs();
        assert_eq!([0, 1, 2, 3, 6, 7, u32::MAX].map(seconds), [0, 1, 2, 4, 32, 60, 60]);
    }
}
