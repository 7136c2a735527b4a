//! Who has which load balancer address: decided by [`crate::objects`], stored here.

use causeway_model::allocate::Settled;

use super::Engine;
use crate::clock;
use crate::objects::writes::Asked;

impl Engine {
    /// Looks who has which load balancer address, if that may have to be otherwise, and stores it. With
    /// a cluster store that is up to one node.
    pub(super) fn settle_balancers(&mut self) {
        if self.deadlines.balancers.take(clock::now()) {
            self.objects.unsettle();
        }
        if !self.objects.is_unsettled() {
            return;
        }
        if self.state.cluster.is_some() {
            return self.settle_cluster();
        }
        let (staged, found) = self.stage().settle();
        self.wait(found.clone());
        if let Err(refused) = self.write(staged) {
            let causes = refused.problem.causes.join(": ");
            tracing::error!(causes, "load balancer addresses: {}", refused.problem.message);
            return;
        }
        self.objects.settled(&found, false);
    }

    /// Nothing is given before the whole list is read. What is to be other than it is comes back as a
    /// change.
    fn settle_cluster(&mut self) {
        if !self.membership.has_viewed() {
            return;
        }
        let found = self.objects.settle(&self.state);
        let owes = !found.changed.is_empty();
        self.objects.settled(&found, owes);
        self.wait(found);
        if owes && self.leads() && self.deadlines.balancers.due().is_none() {
            self.change_objects(Asked::Balancers, None);
        }
    }

    fn wait(&mut self, found: Settled) {
        for line in self.state.balancers.wait(found, self.objects.has_pools()) {
            tracing::warn!("{line}");
        }
    }

    /// Whether this node gives addresses to those that wait: the first one by name that lives. Two that
    /// both think so are told apart by the store.
    fn leads(&self) -> bool {
        let mut peers = self.state.peers.iter();
        !peers.any(|(name, peer)| peer.record.is_some() && **name < *self.state.node.name)
    }
}
