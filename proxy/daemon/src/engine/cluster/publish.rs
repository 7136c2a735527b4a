//! What this node wants to be in the store of itself: desired state, said after it is on this node's
//! disk. The task brings it there whenever the store answers (rows C-02, C-03).

use std::mem;

use causeway_model::{EndpointKey, EndpointRecord, HeldRecord, NodeRecord};
use causeway_source::cluster::{Command, Container};

use super::super::Engine;
use super::cluster_config;
use crate::clock;

impl Engine {
    /// Says something to the task, if there is one.
    pub(in super::super) fn publish(&self, command: Command) {
        if let Some(cluster) = &self.cluster {
            cluster.send(command);
        }
    }

    /// What this node is.
    pub(in super::super) fn publish_self(&self) {
        let running = clock::now().saturating_duration_since(self.state.progress.started);
        self.publish(Command::Node(NodeRecord {
            identity: self.identity(),
            boot_id: self.facts.boot_id.clone(),
            ips: self.facts.ips.clone(),
            labels: self.state.node.labels.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: clock::unix().saturating_sub(running).as_secs(),
            config: cluster_config(&self.state.settings).digest(),
            created: 0,
        }));
    }

    /// All containers of this node, and no others.
    pub(super) fn publish_all_containers(&mut self) {
        self.pending.publish.clear();
        let own = self.state.index.containers_of(&self.facts.name);
        let containers = own.map(|(one, healthy)| for_others(&one.record, healthy)).collect();
        self.publish(Command::Containers(containers));
    }

    /// Containers of this node that are on disk now, or gone from it.
    pub(in super::super) fn publish_containers(&mut self) {
        let changed = mem::take(&mut self.pending.publish);
        if self.cluster.is_none() {
            return;
        }
        for key in changed {
            let container = self.published(&key);
            let gone = container.is_none();
            self.publish(Command::Container(key, container));
            if gone {
                self.look_for_another_subnet();
            }
        }
    }

    fn published(&self, key: &EndpointKey) -> Option<Container> {
        let (one, healthy) = self.state.index.container(&self.facts.name, key)?;
        Some(for_others(&one.record, healthy))
    }
}

/// A container as all nodes see it: the path of its namespace means nothing on another one.
fn for_others(record: &HeldRecord, healthy: bool) -> Container {
    let record = EndpointRecord { netns: None, ..record.to_record() };
    Container { record, healthy }
}
