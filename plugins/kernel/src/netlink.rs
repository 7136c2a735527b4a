//! An rtnetlink connection to one namespace. Methods are grouped by object in `link.rs`,
//! `route.rs` and `neigh.rs`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::time::Duration;

use futures_util::StreamExt;
use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    NlasIterator, parse_string,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, TokioSocket};
use rtnetlink::Handle;
use tokio::runtime::{Builder, Runtime};

use crate::clock::backoff;
use crate::retry::retry;
use crate::{Error, Netns, Result};

/// `NLM_F_DUMP_INTR` (linux/netlink.h): the dump is inconsistent.
const NLM_F_DUMP_INTR: u16 = 0x10;

/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// The kernel answers inside `sendmsg`; this only ends waiting for an answer that the decoder had
/// to drop.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// An rtnetlink connection to one network namespace. Not `Send`: it owns its runtime. Its methods
/// must not be called from inside another tokio runtime's tasks.
pub struct Netlink {
    runtime: Runtime,
    handle: Handle,
    /// The connection's socket, kept to find its namespace again.
    socket: OwnedFd,
    /// Keeps the type on its thread: `block_on` drives the connection.
    _not_send: std::marker::PhantomData<*const ()>,
}

impl AsRawFd for Netlink {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Netlink {
    /// A connection to the namespace of the calling thread.
    ///
    /// # Errors
    /// The socket could not be made.
    pub fn open() -> Result<Self> {
        Self::from_socket(Socket::new(NETLINK_ROUTE)).map_err(open_error)
    }

    /// A connection to `netns`.
    ///
    /// # Errors
    /// The namespace could not be entered, or the socket not be made.
    pub fn open_in(netns: &Netns) -> Result<Self> {
        Self::from_socket(netns.run(|| Socket::new(NETLINK_ROUTE))?).map_err(open_error)
    }

    fn from_socket(socket: io::Result<Socket>) -> io::Result<Self> {
        let socket = socket?;
        // Both are missing on old kernels, and then only cost filtering and error texts.
        drop(socket.set_netlink_get_strict_chk(true));
        drop(socket.set_ext_ack(true));
        drop(socket.set_cap_ack(true));
        let kept = socket.as_fd().try_clone_to_owned()?;
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let handle = {
            let _guard = runtime.enter();
            // SAFETY: the descriptor is a netlink socket whose ownership moves.
            let socket = unsafe { TokioSocket::from_raw_fd(socket.into_raw_fd()) };
            let (mut connection, handle, _) = rtnetlink::from_socket(socket);
            // The end of a dump carries NLM_F_DUMP_INTR too.
            connection.set_forward_done(true);
            // So that the end of the connection cannot be taken for success.
            connection.set_forward_ack(true);
            runtime.spawn(connection);
            handle
        };
        Ok(Self { runtime, handle, socket: kept, _not_send: std::marker::PhantomData })
    }

    /// One object: the first answer, or the error.
    pub(crate) fn get(
        &self,
        action: String,
        message: RouteNetlinkMessage,
    ) -> Result<RouteNetlinkMessage> {
        let mut answers = self.request(&action, &message, NLM_F_REQUEST)?;
        if answers.is_empty() {
            return Err(Error { action, source: io::ErrorKind::UnexpectedEof.into() });
        }
        Ok(answers.swap_remove(0))
    }

    /// All objects; interrupted dumps are repeated.
    pub(crate) fn dump(
        &self,
        action: &str,
        message: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        self.request(action, message, NLM_F_REQUEST | NLM_F_DUMP)
    }

    /// A change, acknowledged. `flags` come on top of request and acknowledgement.
    pub(crate) fn change(
        &self,
        action: &str,
        message: &RouteNetlinkMessage,
        flags: u16,
    ) -> Result<()> {
        self.request(action, message, NLM_F_REQUEST | NLM_F_ACK | flags).map(drop)
    }

    /// The namespace of this connection.
    pub(crate) fn netns(&self) -> io::Result<Netns> {
        Netns::of_socket(self.socket.as_fd())
    }

    fn request(
        &self,
        action: &str,
        message: &RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        retry(
            || self.request_once(action, message.clone(), flags),
            |attempt| backoff(attempt, LONGEST_PAUSE),
        )
    }

    fn request_once(
        &self,
        action: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        let mut handle = self.handle.clone();
        let exchange = async move {
            let Ok(mut answers) = handle.request(request) else {
                return Err(Error::errno(action, libc::EPIPE));
            };
            let multipart = flags & NLM_F_DUMP == NLM_F_DUMP || flags & NLM_F_ACK != 0;
            let mut complete = false;
            let mut collected = Vec::new();
            while let Some(answer) = answers.next().await {
                if answer.header.flags & NLM_F_DUMP_INTR != 0 {
                    return Err(Error::errno(format!("{action} (interrupted)"), libc::EINTR));
                }
                match answer.payload {
                    NetlinkPayload::InnerMessage(inner) => {
                        collected.push(inner);
                        complete |= !multipart;
                    }
                    NetlinkPayload::Error(error) => match error.code {
                        Some(code) => return Err(kernel_error(action, code.get(), &error)),
                        None => complete = true,
                    },
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(Error::errno(action, -done.code));
                    }
                    NetlinkPayload::Overrun(_) => {
                        return Err(Error::errno(action, libc::ENOBUFS));
                    }
                    NetlinkPayload::Done(_) => complete = true,
                    NetlinkPayload::Noop => {}
                    // The enum is open: an unknown control message carries nothing for us.
                    _ => {}
                }
            }
            // The connection's task ends, and with it the answers, when its socket fails.
            if complete { Ok(collected) } else { Err(Error::errno(action, libc::EPIPE)) }
        };
        self.runtime.block_on(async move {
            match tokio::time::timeout(ANSWER_TIMEOUT, exchange).await {
                Ok(result) => result,
                Err(_) => Err(Error::errno(action, libc::ETIMEDOUT)),
            }
        })
    }
}

impl std::fmt::Debug for Netlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Netlink").field("socket", &self.socket.as_raw_fd()).finish_non_exhaustive()
    }
}

fn open_error(source: io::Error) -> Error {
    Error { action: "open an rtnetlink socket".to_owned(), source }
}

/// An error with the kernel's own explanation, if it gave one (`NLMSGERR_ATTR_MSG`).
fn kernel_error(action: &str, code: i32, error: &ErrorMessage) -> Error {
    let errno = code.saturating_abs();
    match extended_message(&error.header) {
        Some(text) => Error::errno(format!("{action} ({text})"), errno),
        None => Error::errno(action, errno),
    }
}

/// The text among the attributes behind the capped request header (`NETLINK_CAP_ACK`).
fn extended_message(after_code: &[u8]) -> Option<String> {
    /// `NLMSGERR_ATTR_MSG` (linux/netlink.h).
    const NLMSGERR_ATTR_MSG: u16 = 1;
    let attributes = after_code.get(16..)?;
    NlasIterator::new(attributes)
        .filter_map(|attribute| attribute.ok())
        .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)
        .and_then(|attribute| parse_string(attribute.value()).ok())
        .filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
