//! The overlay follows the peers; `node.json` and the cluster follow the overlay.

use super::Engine;
use crate::state::OverlayState;

impl Engine {
    /// Takes in how the overlay is: its address and MTU go to the cluster and to `node.json`.
    pub(super) fn take_overlay(&mut self, state: OverlayState) {
        self.state.overlay = Some(state);
        todo!("helper B")
    }

    /// Reads the peers file.
    pub(super) fn read_peers(&mut self) {
        todo!("helper B")
    }

    /// Tells the overlay of the peers and subnets that there are now. Costs nothing where these are
    /// what it was told before.
    pub(super) fn peers_changed(&mut self) {
        todo!("helper B")
    }
}
