//! Nodes that have joined and not said yet how their containers are reached. At a join that takes a
//! moment: it is shown at once, and a trouble where it lasts (row O-47).

use std::mem;
use std::time::{Duration, Instant};

use causeway_model::Peer;

use super::Engine;
use crate::clock;
use crate::config::OverlayKind;

/// How long it may last.
const GRACE: Duration = Duration::from_secs(10);

impl Engine {
    /// Follows the peers.
    pub(super) fn follow_waiting(&mut self) {
        let vxlan = self.state.settings.overlay == OverlayKind::Vxlan;
        let (before, until) = (mem::take(&mut self.state.waiting), clock::now() + GRACE);
        let awaited = self.state.peers.values().filter(|peer| is_awaited(peer, vxlan));
        self.state.waiting = awaited
            .map(|peer| (peer.name.clone(), before.get(&peer.name).copied().unwrap_or(Some(until))))
            .collect();
    }

    /// When one has lasted for too long.
    pub(super) fn waiting_due(&self) -> Option<Instant> {
        self.state.waiting.values().flatten().min().copied()
    }

    /// What has lasted for too long is a trouble.
    pub(super) fn end_waiting(&mut self) {
        let now = clock::now();
        if self.waiting_due().is_none_or(|due| due > now) {
            return;
        }
        for (name, until) in &mut self.state.waiting {
            if until.take_if(|until| *until <= now).is_some() && self.state.overlay.is_none() {
                tracing::error!(node = name, "it has joined and not published its subnet");
            }
        }
        self.describe_overlay();
    }
}

fn is_awaited(peer: &Peer, vxlan: bool) -> bool {
    peer.subnets.is_empty() || peer.ips.is_empty() || (vxlan && peer.vtep.is_none())
}
