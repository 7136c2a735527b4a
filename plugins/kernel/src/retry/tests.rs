use std::cell::RefCell;

use crate::Error;

use super::*;

/// What `errno(n)` makes of attempt `n` (from 1) in the end, and the pauses on the way.
fn outcome(errno: impl Fn(u32) -> Option<i32>) -> (Result<u32>, Vec<u32>) {
    let pauses = RefCell::new(Vec::new());
    let mut number = 0;
    let attempt = || {
        number += 1;
        match errno(number) {
            Some(errno) => Err(Error::errno(format!("attempt {number}"), errno)),
            None => Ok(number),
        }
    };
    let result = retry(attempt, |number| pauses.borrow_mut().push(number));
    (result, pauses.into_inner())
}

/// Rows: F41
#[test]
fn what_fails_for_a_moment_is_tried_again() {
    let errors = [libc::EINTR, libc::ENOBUFS, libc::EBUSY, libc::EAGAIN];
    let (result, pauses) = outcome(|number| errors.get(number as usize - 1).copied());
    assert_eq!(result.expect("the fifth attempt"), 5);
    assert_eq!(pauses, [1, 2, 3, 4]);
    let (result, pauses) = outcome(|number| (number < ATTEMPTS).then_some(libc::EBUSY));
    assert_eq!(result.expect("the last attempt"), ATTEMPTS);
    assert_eq!(pauses, (1..ATTEMPTS).collect::<Vec<_>>());
}

/// Rows: F41
#[test]
fn what_goes_on_failing_is_reported_as_transient() {
    for errno in [libc::EINTR, libc::ENOBUFS, libc::EBUSY, libc::EAGAIN] {
        let (result, pauses) = outcome(|_| Some(errno));
        let error = result.expect_err("it never succeeds");
        assert!(error.is_transient());
        assert_eq!((error.raw(), error.action), (Some(errno), format!("attempt {ATTEMPTS}")));
        assert_eq!(pauses, (1..ATTEMPTS).collect::<Vec<_>>());
    }
}

/// Rows: F41
#[test]
fn any_other_failure_is_reported_at_once() {
    for errno in [libc::EEXIST, libc::ENODEV, libc::EPERM, libc::EINVAL] {
        let (result, pauses) = outcome(|_| Some(errno));
        let error = result.expect_err("it fails");
        assert!(!error.is_transient());
        assert_eq!((error.raw(), error.action), (Some(errno), "attempt 1".to_owned()));
        assert_eq!(pauses, Vec::<u32>::new());
        let (result, pauses) =
            outcome(|number| Some(if number == 1 { libc::EBUSY } else { errno }));
        assert_eq!(result.expect_err("it fails").action, "attempt 2");
        assert_eq!(pauses, [1]);
    }
}
