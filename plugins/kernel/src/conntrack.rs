//! Conntrack entries.

mod lookup;
mod message;
mod reconcile;
mod socket;
#[cfg(test)]
mod tests;
mod wire;

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::NetfilterMessage;
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use crate::clock::backoff;
use crate::{Error, Result};

pub use self::lookup::answered_by;
pub use self::reconcile::{NodePortAddresses, UdpFrontend, UdpFrontendAt, reconcile_udp};

use self::message::{Family, Flow};

/// Which UDP flows of the calling thread's namespace to forget: original destination port and,
/// if given, original destination address (a host port's side), or reply source address and
/// port (the container's side).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowFilter {
    /// Flows to a host port, of the address' family if there is one; `None` any address of
    /// either family.
    HostPort {
        /// Original destination address.
        address: Option<IpAddr>,
        /// Restricts `address: None` to one family (true: IPv6).
        ipv6: bool,
        /// Original destination port.
        port: u16,
    },
    /// Flows that were translated to this container address and port.
    Container {
        /// Reply source address.
        address: IpAddr,
        /// Reply source port.
        port: u16,
    },
}

/// A connection to conntrack of the calling thread's namespace.
pub struct UdpFlows {
    connection: Connection,
}

impl UdpFlows {
    /// Connects. `None`: a host without conntrack, which has no flows.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn open() -> Result<Option<Self>> {
        Ok(Connection::open()?.map(|connection| Self { connection }))
    }

    /// Deletes matching UDP entries and returns how many.
    ///
    /// The kernel (since 5.8) picks the entries of one or two filters by its own; with more, or an
    /// older kernel, all UDP entries are read once and picked here.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn delete(&self, filters: &[FlowFilter]) -> Result<usize> {
        let mut doomed = Vec::new();
        for family in Family::BOTH {
            let ours: Vec<&FlowFilter> =
                filters.iter().filter(|filter| filter.concerns(family)).collect();
            match ours.as_slice() {
                [] => {}
                [one] => doomed.extend(self.connection.flows(family, Some(one))?),
                _ => doomed.extend(self.connection.flows(family, None)?),
            }
            doomed.retain(|flow: &Flow| {
                flow.family != family || ours.iter().any(|filter| filter.matches(flow))
            });
        }
        let mut deleted = 0;
        for flow in &doomed {
            deleted += usize::from(self.connection.delete(flow)?);
        }
        Ok(deleted)
    }
}

impl FlowFilter {
    fn concerns(&self, family: Family) -> bool {
        match self {
            Self::HostPort { address: None, ipv6, .. } => *ipv6 == (family == Family::V6),
            Self::HostPort { address: Some(address), .. } | Self::Container { address, .. } => {
                address.is_ipv6() == (family == Family::V6)
            }
        }
    }

    fn matches(&self, flow: &Flow) -> bool {
        match self {
            Self::HostPort { address, port, .. } => {
                flow.original.destination_port == Some(*port)
                    && address.is_none_or(|ip| flow.original.destination == Some(ip))
            }
            Self::Container { address, port } => {
                flow.reply.source == Some(*address) && flow.reply.source_port == Some(*port)
            }
        }
    }
}

/// A netfilter netlink socket of the calling thread's namespace.
struct Connection {
    socket: Socket,
}

impl Connection {
    /// `None`: this kernel has no netfilter netlink.
    fn open() -> Result<Option<Self>> {
        match Socket::new(NETLINK_NETFILTER) {
            Ok(socket) => Ok(Some(Self { socket })),
            Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => Ok(None),
            Err(source) => {
                Err(Error { action: "open a netfilter netlink socket".to_owned(), source })
            }
        }
    }

    /// UDP entries of `family`, as far as the kernel can tell those of `filter`.
    fn flows(&self, family: Family, filter: Option<&FlowFilter>) -> Result<Vec<Flow>> {
        match self.dump(family, filter) {
            // A kernel that knows CTA_FILTER in another form, or none of it.
            Err(error) if matches!(error.raw(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {}
            result => return result,
        }
        match self.dump_all(family) {
            // No such subsystem: conntrack is not there.
            Err(error) if matches!(error.raw(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
                Ok(Vec::new())
            }
            result => result,
        }
    }

    fn dump(&self, family: Family, filter: Option<&FlowFilter>) -> Result<Vec<Flow>> {
        let request = message::dump(family, filter);
        let answers = self.request(&request, NLM_F_REQUEST | NLM_F_DUMP)?;
        Ok(answers.iter().filter_map(|answer| Flow::decode(family, answer)).collect())
    }

    fn dump_all(&self, family: Family) -> Result<Vec<Flow>> {
        let answers = self.request(&message::dump_all(family), NLM_F_REQUEST | NLM_F_DUMP)?;
        Ok(answers.iter().filter_map(|answer| Flow::decode(family, answer)).collect())
    }

    /// Whether it was still there.
    fn delete(&self, flow: &Flow) -> Result<bool> {
        match self.request(&flow.delete_message(), NLM_F_REQUEST | NLM_F_ACK) {
            Ok(_) => Ok(true),
            Err(error) if error.raw() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn request(&self, message: &NetfilterMessage, flags: u16) -> Result<Vec<NetfilterMessage>> {
        const ATTEMPTS: u32 = 8;
        let mut attempt = 1;
        loop {
            match self.request_once(message, flags) {
                Err(error) if error.is_transient() && attempt < ATTEMPTS => {
                    backoff(attempt, std::time::Duration::from_millis(50));
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    fn request_once(
        &self,
        message: &NetfilterMessage,
        flags: u16,
    ) -> Result<Vec<NetfilterMessage>> {
        const ACTION: &str = "delete UDP flows from conntrack";
        let failed = |source| Error { action: ACTION.to_owned(), source };
        let mut request = NetlinkMessage::from(message.clone());
        request.header.flags = flags;
        request.header.sequence_number = 1;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).map_err(failed)?;
        let mut collected = Vec::new();
        let mut interrupted = false;
        loop {
            let (datagram, _) = self.socket.recv_from_full().map_err(failed)?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<NetfilterMessage>::deserialize(rest)
                    .map_err(|error| failed(std::io::Error::other(error)))?;
                let length = usize::try_from(answer.header.length).unwrap_or(usize::MAX);
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                /// `NLM_F_DUMP_INTR` (linux/netlink.h).
                const NLM_F_DUMP_INTR: u16 = 0x10;
                interrupted |=
                    flags & NLM_F_DUMP == NLM_F_DUMP && answer.header.flags & NLM_F_DUMP_INTR != 0;
                match answer.payload {
                    NetlinkPayload::InnerMessage(inner) => collected.push(inner),
                    NetlinkPayload::Error(error) => {
                        return match error.code {
                            None => Ok(collected),
                            Some(code) => Err(Error::errno(ACTION, code.get().saturating_abs())),
                        };
                    }
                    NetlinkPayload::Done(_) if interrupted => {
                        return Err(Error::errno(ACTION, libc::EINTR));
                    }
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(Error::errno(ACTION, -done.code));
                    }
                    NetlinkPayload::Done(_) => return Ok(collected),
                    NetlinkPayload::Noop => {}
                    NetlinkPayload::Overrun(_) => {
                        return Err(Error::errno(ACTION, libc::ENOBUFS));
                    }
                    // The enum is open: an unknown control message carries nothing for us.
                    _ => {}
                }
            }
        }
    }
}
