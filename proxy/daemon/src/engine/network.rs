//! The overlay follows the peers; `node.json` and the cluster follow the overlay.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use causeway_model::Peer;
use causeway_source::cluster::Command;
use ipnetwork::IpNetwork;

use super::Engine;
use crate::clock;
use crate::conditions::Concern;
use crate::config::OverlayKind;
use crate::forward::Forward;
use crate::log;
use crate::membership::{Membership, waiting};
use crate::network::{self, Network, NetworkContext};
use crate::node;
use crate::objects;
use crate::overlay::Overlay;
use crate::peers;
use crate::state::{OverlayState, State};

/// This node among the others: whoever is told of it.
#[derive(Debug, Default)]
pub(super) struct NetworkState {
    /// The thread; `None` without an overlay.
    overlay: Option<Overlay>,
    /// Who looks at others' rules; `None` if this node is alone.
    forward: Option<Forward>,
    /// What they are told.
    wanted: Network,
    /// Subnets of `node.json` as it is on disk.
    previous: Vec<IpNetwork>,
    /// Addresses of the store's names.
    pub(super) store: BTreeSet<IpAddr>,
    /// When what others bring about was said in the log.
    pub(super) said: log::Said,
    /// What is left out, as it was said.
    pub(super) left_out: BTreeSet<String>,
}

impl NetworkState {
    /// Nobody has been told anything. `previous` are the subnets of `node.json` as it is on disk.
    pub(super) fn new(
        overlay: Option<Overlay>,
        forward: Option<Forward>,
        previous: Vec<IpNetwork>,
    ) -> Self {
        let wanted = Network::new(overlay.is_some());
        Self { overlay, forward, wanted, previous, ..Self::default() }
    }
}

impl Engine {
    /// Takes in how the overlay is: its address and MTU go to the cluster and to `node.json`.
    pub(super) fn on_overlay(&mut self, state: OverlayState) {
        let before = self.state.overlay.replace(state);
        let Some(state) = &self.state.overlay else { return };
        let before = before.map(|before| before.problems).unwrap_or_default();
        let changed = before.iter().chain(&state.problems).filter(|(name, why)| {
            before.get(*name) != Some(why) || state.problems.get(*name) != Some(why)
        });
        self.pending.touched.nodes.extend(changed.map(|(name, _)| name.clone()));
        self.report_overlay();
        self.publish_reach();
        self.publish_node();
    }

    /// Says in `State::conditions` what is wrong with the overlay.
    pub(super) fn report_overlay(&mut self) {
        if let Some(problems) = network::problems(&self.state) {
            self.degrade(Concern::Overlay, problems);
        }
    }

    /// This node moved to these addresses: the other nodes, the plugins and the rules are to know
    /// (row O-62).
    pub(super) fn on_addresses(&mut self, ips: Vec<IpAddr>) {
        if ips == self.facts.ips {
            return;
        }
        let (before, now) = (log::addresses(&self.facts.ips), log::addresses(&ips));
        tracing::warn!(before, now, "this node has other addresses");
        self.facts.node_ports = node::node_ports(&self.state.settings, &ips);
        self.state.node.ips.clone_from(&ips);
        self.facts.ips = ips;
        self.facts.refused = node::refused(&self.state.settings, &self.facts.ips);
        self.report_refused();
        self.objects.pools = objects::pools(&self.state.settings, &self.facts);
        self.pending.node = true;
        self.publish_self();
        self.peers_changed();
    }

    /// Says why this node deals no part of the cluster network. That keeps a node among others from
    /// its work; a node alone may have no use for a part.
    pub(crate) fn report_refused(&mut self) {
        let refused: Vec<String> = self.facts.refused.iter().cloned().collect();
        let settings = &self.state.settings;
        let alone = self.state.cluster.is_none() && settings.peers_file.is_none();
        if alone && !settings.cluster_chosen {
            // The address may have moved since.
            self.warn_instead(Concern::ClusterNetwork, refused);
        } else {
            self.degrade(Concern::ClusterNetwork, refused);
        }
    }

    /// Reads the peers file.
    pub(super) fn read_peers(&mut self) {
        let Some(path) = self.state.settings.peers_file.clone() else { return };
        let entries = peers::read(&path, &self.state.settings.cluster_cidrs);
        let read = self.network.wanted.on_peers(&path, entries, &self.state);
        self.degrade(Concern::PeersFile, read.problem.into_iter().collect());
        match read.peers {
            Some(peers) => self.set_peers(peers),
            None => self.peers_changed(),
        }
    }

    /// The other nodes are these.
    pub(super) fn set_peers(&mut self, peers: BTreeMap<String, Peer>) {
        let before = std::mem::replace(&mut self.state.peers, peers);
        let now = &self.state.peers;
        let changed =
            before.keys().chain(now.keys()).filter(|name| before.get(*name) != now.get(*name));
        self.pending.touched.nodes.extend(changed.cloned());
        self.peers_changed();
    }

    /// Nodes that have joined and not said for too long how they are reached are a problem.
    pub(super) fn end_waiting(&mut self) {
        let over = waiting::end(&mut self.state.waiting, clock::now());
        if over.is_empty() {
            return;
        }
        if self.state.overlay.is_none() {
            for name in over {
                tracing::error!(node = name, "the node joined but has not published its subnet");
            }
        }
        self.report_overlay();
    }

    /// Tells the overlay of the peers and subnets that there are now, and the plugins of the
    /// subnets. Costs nothing if these are what was told before.
    pub(super) fn peers_changed(&mut self) {
        let vxlan = self.state.settings.overlay == OverlayKind::Vxlan;
        let State { waiting, peers, .. } = &mut self.state;
        *waiting = waiting::follow(waiting, peers, vxlan, clock::now());
        self.publish_reach();
        self.publish_node();
        self.guard();
        if let Some(forward) = &self.network.forward
            && let Some(ips) = self.network.wanted.followed(&self.state)
        {
            forward.follow(ips);
        }
        if let Some(overlay) = &self.network.overlay
            && let Some(target) = self.network.wanted.overlay_target(context(
                &self.state,
                &self.facts,
                &self.membership,
                &self.network.previous,
            ))
        {
            overlay.set_target(target);
        }
    }

    /// Writes `node.json` if it would say something else.
    fn publish_node(&mut self) {
        let network = &mut self.network.wanted;
        let Some(wanted) = network.node_file(context(
            &self.state,
            &self.facts,
            &self.membership,
            &self.network.previous,
        )) else {
            return;
        };
        let published = node::publish(&self.state.settings, &self.facts, &wanted.0, wanted.1);
        self.network.previous = node::previous(&self.state.settings);
        self.state.node.subnets = network::own_subnets(&wanted.0, &self.network.previous);
        self.state.node.ips = network.own_ips(&self.state);
        match published {
            Ok(()) => {
                network.on_node_file(wanted);
                self.degrade(Concern::NodeFile, Vec::new());
            }
            Err(error) => self.degrade(Concern::NodeFile, vec![causeway_api::chain(&error)]),
        }
        self.pending.touched.nodes.insert(self.state.node.name.clone());
    }

    /// Tells the cluster how this node is reached.
    fn publish_reach(&mut self) {
        let Some(cluster) = &self.cluster else { return };
        if let Some(reach) = self.network.wanted.reach(context(
            &self.state,
            &self.facts,
            &self.membership,
            &self.network.previous,
        )) {
            cluster.send(Command::Reach(reach));
        }
    }

    /// Keeps what is wrong for `status`, says what is new of it.
    fn degrade(&mut self, concern: Concern, problems: Vec<String>) {
        for problem in self.state.conditions.set_lines(concern.clone(), problems) {
            tracing::error!("{concern}: {problem}");
        }
    }
}

/// What the wanted network follows from.
fn context<'a>(
    state: &'a State,
    facts: &'a node::NodeInfo,
    membership: &Membership,
    previous: &'a [IpNetwork],
) -> NetworkContext<'a> {
    NetworkContext {
        state,
        refused: facts.refused.as_deref(),
        has_viewed: membership.has_viewed(),
        previous,
    }
}
