//! Retries of what fails for a moment (row F41).

use crate::Result;

/// How often something is tried before its transient failure is reported.
pub(crate) const ATTEMPTS: u32 = 8;

/// Runs `attempt` until it succeeds or fails for good, at most [`ATTEMPTS`] times. Between two
/// attempts it runs `pause` with the number of the one that failed, from 1.
///
/// # Errors
/// The first error that is not transient, or that of the last attempt.
pub(crate) fn retry<T>(
    mut attempt: impl FnMut() -> Result<T>,
    mut pause: impl FnMut(u32),
) -> Result<T> {
    for number in 1..ATTEMPTS {
        match attempt() {
            Err(error) if error.is_transient() => pause(number),
            result => return result,
        }
    }
    attempt()
}

#[cfg(test)]
mod tests;
