//! Which boot this is, the time since it, and the ends of bounded waits.

use std::io;
use std::time::{Duration, Instant};

/// Which boot this is, without a newline.
///
/// # Errors
/// No /proc.
pub fn boot_id() -> io::Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(text.trim().to_owned())
}

/// `CLOCK_BOOTTIME`: goes on through jumps of the wall clock and through suspend.
///
/// # Errors
/// The kernel has no such clock.
pub fn boot_time() -> io::Result<Duration> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a timespec that lives through the call, which writes to nothing else.
    if unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    Ok(Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default()))
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

    /// Time left for `poll(2)`, in milliseconds, rounded up so that waiting does not end early.
    pub fn poll_timeout(self) -> i32 {
        i32::try_from(self.remaining().as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_has_a_name_and_its_clock_goes_on() {
        assert_eq!(boot_id().expect("a boot id").len(), 36);
        let first = boot_time().expect("a clock");
        assert!(first > Duration::ZERO && boot_time().expect("a clock") >= first);
    }
}
