//! Which boot this is, the time since it, and the ends of bounded waits.

use std::io;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Which boot this is, without a newline.
///
/// # Errors
/// No /proc.
pub fn boot_id() -> io::Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(text.trim().to_owned())
}

/// `CLOCK_BOOTTIME`: goes on through jumps of the wall clock and through suspend.
pub fn boot_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

/// The point in time at which waiting ends.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// `wait` from now.
    #[expect(clippy::disallowed_methods, reason = "the edge's clock read, for bounded waits")]
    pub fn after(wait: Duration) -> Self {
        Self(Instant::now() + wait)
    }

    /// Time left; zero once passed.
    #[expect(clippy::disallowed_methods, reason = "the edge's clock read, for bounded waits")]
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether no time is left.
    pub fn passed(self) -> bool {
        self.remaining().is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_has_a_name_and_its_clock_goes_on() {
        assert_eq!(boot_id().expect("a boot id").len(), 36);
        let first = boot_time();
        assert!(first > Duration::ZERO && boot_time() >= first);
    }
}
