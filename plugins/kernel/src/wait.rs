//! Waiting for descriptors.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::{Error, Result};

/// Waits until one of `polled` is ready, or `timeout` is over, or a signal comes. How many are.
///
/// # Errors
/// `poll` fails.
pub(crate) fn poll(polled: &mut [PollFd<'_>], timeout: Duration) -> io::Result<usize> {
    // One that is too long for the kernel is for ever.
    let timeout = Timespec::try_from(timeout).ok();
    match rustix::event::poll(polled, timeout.as_ref()) {
        Err(Errno::INTR) => {
            polled.iter_mut().for_each(PollFd::clear_revents);
            Ok(0)
        }
        ready => Ok(ready?),
    }
}

/// Waits until one of `files` is readable or at its end, or `timeout` is over, or a signal comes.
///
/// # Errors
/// `poll` fails.
pub fn wait_readable(files: &[BorrowedFd<'_>], timeout: Duration) -> Result<()> {
    let polled = files.iter().map(|file| PollFd::from_borrowed_fd(*file, PollFlags::IN));
    let mut polled: Vec<PollFd<'_>> = polled.collect();
    match poll(&mut polled, timeout) {
        Ok(_) => Ok(()),
        Err(source) => Err(Error { action: "wait for changes".to_owned(), source }),
    }
}
