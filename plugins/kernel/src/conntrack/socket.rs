//! Exchanges of [`wire`] messages with the kernel.

use std::cell::Cell;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use super::wire::{self, Answer, Entry, Family, Filter};
use crate::clock::backoff;
use crate::retry::retry;
use crate::{Error, Result};

/// Deletions sent at once: their acknowledgements must fit into the socket's buffer.
const AT_ONCE: usize = 64;

/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// A netfilter netlink socket of the calling thread's namespace.
pub(super) struct Connection {
    socket: Socket,
    /// Of the last exchange: what is left of one that failed is not taken for an answer to the next.
    sequence: Cell<u32>,
}

impl Connection {
    /// `None`: this kernel has no netfilter netlink.
    pub(super) fn open() -> Result<Option<Self>> {
        match Socket::new(NETLINK_NETFILTER) {
            Ok(socket) => Ok(Some(Self { socket, sequence: Cell::new(0) })),
            Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => Ok(None),
            Err(source) => {
                Err(Error { action: "open a netfilter netlink socket".to_owned(), source })
            }
        }
    }

    /// Sends requests and reads until `ends` ends have come; how many of them were good. An end
    /// with `ENOENT` is not good, with any other error all fails once all ends are read.
    pub(super) fn exchange(
        &self,
        action: &str,
        requests: &[u8],
        ends: usize,
        mut each: impl FnMut(&[u8]),
    ) -> Result<usize> {
        /// The kernel fills at most 32 KiB at a time.
        const BUFFER: usize = 64 * 1024;
        let failed = |source| Error { action: action.to_owned(), source };
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        let mut requests = requests.to_owned();
        wire::number(&mut requests, sequence);
        self.socket.send_to(&requests, &SocketAddr::new(0, 0), 0).map_err(failed)?;
        let mut buffer = Vec::with_capacity(BUFFER);
        let (mut ended, mut good, mut failure) = (0, 0, None);
        while ended < ends {
            buffer.clear();
            self.socket.recv(&mut buffer, 0).map_err(failed)?;
            for answer in wire::answers(&buffer, sequence) {
                match answer {
                    Answer::Entry(payload) => each(payload),
                    Answer::End(errno) => {
                        ended += 1;
                        match errno {
                            0 => good += 1,
                            libc::ENOENT => {}
                            errno => failure = Some(errno),
                        }
                    }
                    Answer::Broken => return Err(Error::errno(action, libc::EBADMSG)),
                }
            }
        }
        match failure {
            Some(errno) => Err(Error::errno(action, errno)),
            None => Ok(good),
        }
    }

    /// The requests that delete the UDP entries of `family` that `doomed` picks. `filter` is what
    /// the kernel may leave out (since 5.8); older ones hand over all entries.
    pub(super) fn find(
        &self,
        action: &str,
        family: Family,
        filter: Filter,
        doomed: impl Fn(&Entry<'_>) -> bool,
    ) -> Result<Vec<Vec<u8>>> {
        let unknown = |error: &Error| matches!(error.raw(), Some(libc::EINVAL | libc::EOPNOTSUPP));
        let dump = |filter: Option<Filter>| {
            let request = wire::dump(family, filter);
            let once = || {
                let mut found = Vec::new();
                self.exchange(action, &request, 1, |payload| {
                    let entry = wire::entry(payload, wire::UDP).filter(&doomed);
                    found.extend(entry.map(|entry| wire::delete(family, &entry)));
                })?;
                Ok(found)
            };
            retry(once, |attempt| backoff(attempt, LONGEST_PAUSE))
        };
        match dump(Some(filter)) {
            // A kernel that knows CTA_FILTER in another form, or none of it.
            Err(error) if unknown(&error) => {}
            result => return result,
        }
        match dump(None) {
            // No such subsystem: conntrack is not there.
            Err(error) if unknown(&error) => Ok(Vec::new()),
            result => result,
        }
    }

    /// Sends what [`Self::find`] returned; how many of the entries were still there.
    pub(super) fn delete(&self, action: &str, requests: &[Vec<u8>]) -> Result<usize> {
        let mut deleted = 0;
        for some in requests.chunks(AT_ONCE) {
            // What a first attempt deleted does not count in the next.
            let once = || self.exchange(action, &some.concat(), some.len(), |_| {});
            deleted += retry(once, |attempt| backoff(attempt, LONGEST_PAUSE))?;
        }
        Ok(deleted)
    }
}
