//! Exchanges of [`wire`] messages with the kernel.

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use super::wire::{self, Answer};
use crate::{Error, Result};

/// A netfilter netlink socket of the calling thread's namespace.
pub(super) struct Connection {
    socket: Socket,
}

impl Connection {
    /// `None`: this kernel has no netfilter netlink.
    pub(super) fn open() -> Result<Option<Self>> {
        match Socket::new(NETLINK_NETFILTER) {
            Ok(socket) => Ok(Some(Self { socket })),
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
        self.socket.send_to(requests, &SocketAddr::new(0, 0), 0).map_err(failed)?;
        let mut buffer = Vec::with_capacity(BUFFER);
        let (mut ended, mut good, mut failure) = (0, 0, None);
        while ended < ends {
            buffer.clear();
            self.socket.recv(&mut buffer, 0).map_err(failed)?;
            for answer in wire::answers(&buffer) {
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
}
