//! The overlay follows the peers; `node.json` and the cluster follow the overlay.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use causeway_model::{MacAddress, Peer};
use causeway_source::cluster::{Command, Reach, Subnets};
use ipnetwork::IpNetwork;

use super::Engine;
use crate::clock;
use crate::conditions::Concern;
use crate::config::OverlayKind;
use crate::forward::Forward;
use crate::log;
use crate::membership::waiting;
use crate::node::{self, Parts};
use crate::overlay::{Orders, Overlay};
use crate::peers::{self, Entry};
use crate::state::{OverlayState, State};

/// So many nodes that something is wrong with are named.
const SHOWN: usize = 20;

/// This node among the others.
#[derive(Debug, Default)]
pub(super) struct Neighbourhood {
    /// The thread; `None` without an overlay.
    overlay: Option<Overlay>,
    /// Who looks at others' rules; `None` where this node is alone.
    forward: Option<Forward>,
    /// This node's addresses, as that was told last.
    followed: Vec<IpAddr>,
    /// What the overlay was told last.
    ordered: Option<Orders>,
    /// What the peers file says of this node.
    own: Option<Entry>,
    /// The peers file has been read once.
    read: bool,
    /// What `node.json` says.
    published: Option<(Parts, Option<u32>)>,
    /// What the cluster was told.
    reach: Option<Reach>,
    /// Addresses of the store's names.
    pub(super) store: BTreeSet<IpAddr>,
    /// When what others bring about was said in the log.
    pub(super) said: log::Said,
    /// What is left out, as it was said.
    pub(super) left_out: BTreeSet<String>,
}

impl Neighbourhood {
    /// Nobody has been told anything.
    pub(super) fn new(overlay: Option<Overlay>, forward: Option<Forward>) -> Self {
        Self { overlay, forward, ..Self::default() }
    }
}

impl Engine {
    /// Takes in how the overlay is: its address and MTU go to the cluster and to `node.json`.
    pub(super) fn take_overlay(&mut self, state: OverlayState) {
        let before = self.state.overlay.replace(state);
        let Some(state) = &self.state.overlay else { return };
        let before = before.map(|before| before.problems).unwrap_or_default();
        let changed = before.iter().chain(&state.problems).filter(|(name, why)| {
            before.get(*name) != Some(why) || state.problems.get(*name) != Some(why)
        });
        self.pending.touched.nodes.extend(changed.map(|(name, _)| name.clone()));
        self.describe_overlay();
        self.say_reach();
        self.publish_node();
    }

    /// Says in `State::conditions` what is wrong with the overlay.
    pub(super) fn describe_overlay(&mut self) {
        let Some(state) = &self.state.overlay else { return };
        let lasts = |name: &String| !matches!(self.state.waiting.get(name), Some(Some(_)));
        let problems = state.problems.iter().filter(|(name, _)| lasts(name));
        let problems = problems.map(|(name, why)| format!("node {name}: {why}"));
        let named =
            log::lines(problems, SHOWN, |more| format!("{more} more nodes have such trouble"));
        let wrong = state.failure.iter().cloned().chain(named).collect();
        self.degrade(Concern::Overlay, wrong);
    }

    /// This node moved to these addresses: the other nodes, the plugins and the rules are to know
    /// (row O-62).
    pub(super) fn take_addresses(&mut self, ips: Vec<IpAddr>) {
        if ips == self.facts.ips {
            return;
        }
        let (before, now) = (log::addresses(&self.facts.ips), log::addresses(&ips));
        tracing::warn!(before, now, "this node has other addresses");
        self.facts.node_ports = node::node_ports(&self.state.settings, &ips);
        self.state.node.ips.clone_from(&ips);
        self.facts.ips = ips;
        self.facts.refused = node::refused(&self.state.settings, &self.facts.ips);
        self.say_refused();
        self.pools = super::load::pools(&self.state.settings, &self.facts);
        self.pending.node = true;
        self.publish_self();
        self.peers_changed();
    }

    /// Says why this node deals no part of the cluster network. That keeps a node among others from
    /// its work; a node alone may have no use for a part.
    pub(crate) fn say_refused(&mut self) {
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

    /// Reads the peers file. What it said last goes on where it is wrong now.
    pub(super) fn read_peers(&mut self) {
        let Some(path) = self.state.settings.peers_file.clone() else { return };
        let entries = match peers::read(&path, &self.state.settings.cluster_cidrs) {
            Ok(entries) => entries,
            Err(error) => {
                let stays = match self.neighbourhood.read {
                    true => "its last content counts",
                    false => "what there is of an overlay stays",
                };
                self.degrade(Concern::PeersFile, vec![format!("{error}; {stays}")]);
                return self.peers_changed();
            }
        };
        self.neighbourhood.read = true;
        let name = self.state.node.name.clone();
        let (own, others): (Vec<Entry>, Vec<Entry>) =
            entries.into_iter().partition(|entry| entry.name == name);
        match own.into_iter().next() {
            Some(own) => {
                self.neighbourhood.own = Some(own);
                self.degrade(Concern::PeersFile, Vec::new());
            }
            None => {
                self.degrade(Concern::PeersFile, vec![missing(&path.display().to_string(), &name)])
            }
        }
        let vxlan = self.vtep_id();
        let peers = others.into_iter().map(|entry| (entry.name.clone(), peer(entry, vxlan)));
        self.set_peers(peers.collect());
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
                tracing::error!(node = name, "it has joined and not published its subnet");
            }
        }
        self.describe_overlay();
    }

    /// Tells the overlay of the peers and subnets that there are now, and the plugins of the
    /// subnets. Costs nothing where these are what was told before.
    pub(super) fn peers_changed(&mut self) {
        let vxlan = self.state.settings.overlay == OverlayKind::Vxlan;
        let State { waiting, peers, .. } = &mut self.state;
        *waiting = waiting::follow(waiting, peers, vxlan, clock::now());
        self.say_reach();
        self.publish_node();
        self.guard();
        let ips = self.own_ips();
        if let Some(forward) = &self.neighbourhood.forward
            && self.neighbourhood.followed != ips
        {
            forward.follow(ips.clone());
            self.neighbourhood.followed.clone_from(&ips);
        }
        let Some(overlay) = &self.neighbourhood.overlay else { return };
        let own = &self.state.node.name;
        let orders = Orders {
            node: own.clone(),
            ips,
            subnets: self.own_subnets(),
            peers: self.state.peers.values().filter(|peer| peer.name != *own).cloned().collect(),
            complete: match self.state.settings.peers_file {
                Some(_) => self.neighbourhood.read,
                None => self.membership.has_viewed() || !self.state.peers.is_empty(),
            },
        };
        if self.neighbourhood.ordered.as_ref() != Some(&orders) {
            overlay.order(orders.clone());
            self.neighbourhood.ordered = Some(orders);
        }
    }

    /// This node's addresses: the peers file knows better than a look at the default route.
    fn own_ips(&self) -> Vec<IpAddr> {
        match &self.neighbourhood.own {
            Some(own) => own.ips.clone(),
            None => self.state.node.ips.clone(),
        }
    }

    /// This node's parts of the cluster network.
    fn own_subnets(&self) -> Vec<IpNetwork> {
        match self.parts() {
            Parts::Given(subnets) => subnets,
            Parts::Refused(_) => Vec::new(),
            Parts::Own | Parts::Before => node::previous(&self.state.settings),
        }
    }

    fn parts(&self) -> Parts {
        let settings = &self.state.settings;
        if let Some(why) = &self.facts.refused {
            return Parts::Refused(why.clone());
        }
        if let Some(cluster) = &self.state.cluster {
            return match &cluster.subnets {
                None => Parts::Before,
                Some(Subnets::Held(subnets)) => Parts::Given(subnets.clone()),
                Some(none) => Parts::Refused(none.refused().unwrap_or_default()),
            };
        }
        let Some(path) = &settings.peers_file else { return Parts::Own };
        match &self.neighbourhood.own {
            Some(own) => Parts::Given(own.subnets.clone()),
            None if !node::previous(settings).is_empty() => Parts::Before,
            None => Parts::Refused(missing(&path.display().to_string(), &self.state.node.name)),
        }
    }

    /// Writes `node.json` where it would say something else.
    fn publish_node(&mut self) {
        let mtu = self.state.overlay.as_ref().map(|overlay| overlay.mtu).filter(|mtu| *mtu > 0);
        let wanted = (self.parts(), mtu);
        if self.neighbourhood.published.as_ref() == Some(&wanted) {
            return;
        }
        match node::publish(&self.state.settings, &self.facts, &wanted.0, wanted.1) {
            Ok(()) => {
                self.neighbourhood.published = Some(wanted);
                self.degrade(Concern::NodeFile, Vec::new());
            }
            Err(error) => self.degrade(Concern::NodeFile, vec![causeway_api::chain(&error)]),
        }
        self.state.node.subnets = self.own_subnets();
        self.state.node.ips = self.own_ips();
        self.pending.touched.nodes.insert(self.state.node.name.clone());
    }

    /// Tells the cluster how this node is reached. With an overlay, not before that has looked: the
    /// first word makes the store write our subnets.
    fn say_reach(&mut self) {
        let Some(cluster) = &self.cluster else { return };
        let overlay = self.state.overlay.as_ref();
        let early = self.neighbourhood.overlay.is_some() && overlay.is_none();
        // The store gives a subnet to whoever says how it is reached.
        if early || self.facts.refused.is_some() {
            return;
        }
        let reach = Reach {
            ips: self.own_ips(),
            vtep: self.vtep_id().map(|id| MacAddress::of_vtep(&self.state.node.name, id)),
            mtu: overlay.map(|overlay| overlay.mtu).filter(|mtu| *mtu > 0),
        };
        if self.neighbourhood.reach.as_ref() != Some(&reach) {
            cluster.send(Command::Reach(reach.clone()));
            self.neighbourhood.reach = Some(reach);
        }
    }

    /// VNI of the nodes' vxlan devices.
    fn vtep_id(&self) -> Option<u32> {
        let settings = &self.state.settings;
        (settings.overlay == OverlayKind::Vxlan).then_some(settings.vxlan_id)
    }

    /// Keeps what is wrong for `status`, says what is new of it.
    fn degrade(&mut self, concern: Concern, problems: Vec<String>) {
        for problem in self.state.conditions.set_lines(concern.clone(), problems) {
            tracing::error!("{concern}: {problem}");
        }
    }
}

fn missing(path: &str, name: &str) -> String {
    format!(
        "{path}: no [[node]] has the name of this node, {name:?}; add it, or give the name that is \
         meant with --node-name"
    )
}

/// A node of the peers file. The address of its vxlan device follows from its name.
fn peer(entry: Entry, vxlan: Option<u32>) -> Peer {
    Peer {
        vtep: vxlan.map(|id| MacAddress::of_vtep(&entry.name, id)),
        name: entry.name,
        ips: entry.ips,
        subnets: entry.subnets,
        mtu: None,
        record: None,
        since: 0,
    }
}
