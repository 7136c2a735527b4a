//! Who has an address on a segment, asked and announced (rows L-07, L-08, L-30 to L-32): the frames of
//! ARP and neighbour discovery, sockets that carry them, and the groups that an address belongs to.
//! Nothing here decides what is sent: `causewayd` does.

mod frame;
mod groups;
mod socket;

pub use frame::{ArpFrame, Frame, NdpFrame, NdpKind, solicited_node};
pub use groups::SolicitedGroups;
pub(crate) use socket::bind_to_link;
pub use socket::{FrameSocket, Protocol};

#[cfg(test)]
mod tests;
