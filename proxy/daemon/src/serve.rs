//! Everything that answers or follows: HTTP router and rendering, watches, health and metrics,
//! health check node ports, conntrack repair, probes, labels from containerd.

use tokio::net::UnixListener;

use crate::config::Settings;
use crate::event::Events;
use crate::state::{Committed, State};

/// A question about the state, with the place for the answer.
#[derive(Debug)]
pub(crate) enum Query {}

/// Owned by the engine, on its thread; tasks that it spawns send events.
#[derive(Debug)]
pub(crate) struct Front {
    events: Events,
}

impl Front {
    /// Nothing runs yet.
    pub(crate) fn new(events: Events, _settings: &Settings) -> Self {
        Self { events }
    }

    /// Starts to answer on the socket, which is bound (root alone) and listens, and on the TCP
    /// listeners of the settings. A listener that can not be bound is one of `state.degraded`.
    /// Called once, inside the runtime, after the first commit.
    pub(crate) fn start(&mut self, _socket: UnixListener, _state: &mut State) {}

    /// Answers a question. What takes long is spawned.
    pub(crate) fn answer(&mut self, _state: &State, query: Query) {
        match query {}
    }

    /// The kernel holds the plan: follow it (watches, conntrack, health check node ports, probes,
    /// metrics). Not called for commits that changed nothing at all.
    pub(crate) fn synced(&mut self, _state: &mut State, _commit: &Committed) {}

    /// A transaction failed; it will be tried again.
    pub(crate) fn failed(&mut self, _state: &State) {}

    /// Asks containerd for the labels of a container that came otherwise than by `PUT /v1/events`;
    /// [`crate::event::Event::Labels`] brings them.
    pub(crate) fn look_up(&mut self, _container_id: &str) {}
}
