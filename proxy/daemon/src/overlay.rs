//! The thread that keeps the overlay: looks at the kernel whenever it is told of other peers, when
//! links, routes or neighbours change, and every ten seconds; puts right what differs (rows O-11 to
//! O-15).
//!
//! It is a thread because rtnetlink blocks. It decides nothing: [`causeway_overlay::plan`] does.

use std::net::IpAddr;

use causeway_model::Peer;
use ipnetwork::IpNetwork;

use crate::config::Settings;
use crate::event::Events;

/// What the engine tells the thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    /// Name of this node.
    pub node: String,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Its parts of the cluster network.
    pub subnets: Vec<IpNetwork>,
    /// The other nodes.
    pub peers: Vec<Peer>,
}

/// The engine's end.
#[derive(Debug)]
pub(crate) struct Overlay;

impl Overlay {
    /// Starts the thread. It answers with [`crate::event::Event::Overlay`] whenever something is
    /// other than it said before. When this value is dropped it ends and leaves everything in place.
    pub(crate) fn start(settings: &Settings, events: Events) -> Self {
        let _ = (settings, events);
        todo!("helper B")
    }

    /// Tells it what there is now.
    pub(crate) fn order(&self, orders: Orders) {
        let _ = orders;
        todo!("helper B")
    }
}
