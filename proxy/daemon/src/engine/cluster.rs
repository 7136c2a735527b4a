//! What the cluster store says, and what this node says to it.

use causeway_source::cluster::Report;

use super::Engine;

impl Engine {
    /// Takes in what the store says.
    pub(super) fn take_report(&mut self, report: Report) {
        drop(report);
        todo!("helper D2")
    }
}
