//! What overlay, plugins, cluster and the watch of other rules are to know of this node among the
//! others: each is told if it is not what it was told last. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use causeway_model::{MacAddress, Peer};
use causeway_source::cluster::{Reach, Subnets};
use ipnetwork::IpNetwork;

use crate::config::{OverlayKind, Settings};
use crate::log;
use crate::node::SubnetSource;
use crate::overlay::OverlayTarget;
use crate::peers::{self, Entry};
use crate::state::State;

/// So many nodes that something is wrong with are named.
const SHOWN: usize = 20;

/// What is wanted, and what was told last.
#[derive(Debug, Default)]
pub(crate) struct Network {
    /// What the peers file says of this node.
    own: Option<Entry>,
    /// The peers file has been read once.
    has_read: bool,
    /// What the overlay was told.
    target: Option<OverlayTarget>,
    /// What `node.json` says: parts of the cluster network, and MTU.
    node_file: Option<(SubnetSource, Option<u32>)>,
    /// What the cluster was told.
    reach: Option<Reach>,
    /// Addresses that the watch of other rules was told.
    followed: Option<Vec<IpAddr>>,
    /// An overlay is kept.
    has_overlay: bool,
}

/// What it follows from.
#[derive(Clone, Copy)]
pub(crate) struct NetworkContext<'a> {
    /// Settings, cluster, peers and overlay.
    pub state: &'a State,
    /// Why this node allocates no subnet.
    pub refused: Option<&'a str>,
    /// The cluster store has said what there is.
    pub has_viewed: bool,
    /// Subnets of `node.json` as it is on disk.
    pub previous: &'a [IpNetwork],
}

/// What the peers file means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PeersRead {
    /// The other nodes; `None`: those of before.
    pub peers: Option<BTreeMap<String, Peer>>,
    /// What is wrong with it.
    pub problem: Option<String>,
}

impl Network {
    /// Nobody has been told anything.
    pub(crate) fn new(has_overlay: bool) -> Self {
        Self { has_overlay, ..Self::default() }
    }

    /// This node's addresses: the peers file knows better than a look at the default route.
    pub(crate) fn own_ips(&self, state: &State) -> Vec<IpAddr> {
        match &self.own {
            Some(own) => own.ips.clone(),
            None => state.node.ips.clone(),
        }
    }

    fn parts(&self, context: NetworkContext<'_>) -> SubnetSource {
        let NetworkContext { state, refused, previous, .. } = context;
        if let Some(why) = refused {
            return SubnetSource::Refused(why.to_owned());
        }
        if let Some(cluster) = &state.cluster {
            return match &cluster.subnets {
                None => SubnetSource::Before,
                Some(Subnets::Held(subnets)) => SubnetSource::Given(subnets.clone()),
                Some(none) => SubnetSource::Refused(none.refused().unwrap_or_default()),
            };
        }
        let Some(path) = &state.settings.peers_file else { return SubnetSource::Own };
        match &self.own {
            Some(own) => SubnetSource::Given(own.subnets.clone()),
            None if !previous.is_empty() => SubnetSource::Before,
            None => SubnetSource::Refused(missing(&path.display().to_string(), &state.node.name)),
        }
    }

    /// Takes in the peers file at `path`. What it said last goes on if it is wrong now.
    pub(crate) fn on_peers(
        &mut self,
        path: &Path,
        entries: Result<Vec<Entry>, peers::Error>,
        state: &State,
    ) -> PeersRead {
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) => {
                let stays = match self.has_read {
                    true => "its last content counts",
                    false => "what there is of an overlay stays",
                };
                return PeersRead { peers: None, problem: Some(format!("{error}; {stays}")) };
            }
        };
        self.has_read = true;
        let name = &state.node.name;
        let (own, others): (Vec<Entry>, Vec<Entry>) =
            entries.into_iter().partition(|entry| entry.name == *name);
        let own = own.into_iter().next();
        let problem = own.is_none().then(|| missing(&path.display().to_string(), name));
        self.own = own.or(self.own.take());
        let vxlan = vtep_id(&state.settings);
        let peers = others.into_iter().map(|entry| (entry.name.clone(), peer(entry, vxlan)));
        PeersRead { peers: Some(peers.collect()), problem }
    }

    /// How this node is reached, for the cluster. With an overlay, not before that has looked: the
    /// first word makes the store write our subnets.
    pub(crate) fn reach(&mut self, context: NetworkContext<'_>) -> Option<Reach> {
        let state = context.state;
        let overlay = state.overlay.as_ref();
        let early = self.has_overlay && overlay.is_none();
        // The store gives a subnet to whoever says how it is reached.
        if early || context.refused.is_some() {
            return None;
        }
        let reach = Reach {
            ips: self.own_ips(state),
            vtep: vtep_id(&state.settings).map(|id| MacAddress::of_vtep(&state.node.name, id)),
            mtu: mtu(state),
        };
        told(&mut self.reach, reach)
    }

    /// What `node.json` is to say, if it is not what it says.
    pub(crate) fn node_file(
        &self,
        context: NetworkContext<'_>,
    ) -> Option<(SubnetSource, Option<u32>)> {
        let wanted = (self.parts(context), mtu(context.state));
        (self.node_file.as_ref() != Some(&wanted)).then_some(wanted)
    }

    /// `node.json` says so now.
    pub(crate) fn on_node_file(&mut self, written: (SubnetSource, Option<u32>)) {
        self.node_file = Some(written);
    }

    /// Addresses of this node, for the watch of other rules.
    pub(crate) fn followed(&mut self, state: &State) -> Option<Vec<IpAddr>> {
        let ips = self.own_ips(state);
        told(&mut self.followed, ips)
    }

    /// Peers and subnets, for the overlay.
    pub(crate) fn overlay_target(&mut self, context: NetworkContext<'_>) -> Option<OverlayTarget> {
        let state = context.state;
        let own = &state.node.name;
        let target = OverlayTarget {
            node: own.clone(),
            ips: self.own_ips(state),
            subnets: own_subnets(&self.parts(context), context.previous),
            peers: state.peers.values().filter(|peer| peer.name != *own).cloned().collect(),
            complete: match state.settings.peers_file {
                Some(_) => self.has_read,
                None => context.has_viewed || !state.peers.is_empty(),
            },
        };
        told(&mut self.target, target)
    }
}

/// This node's parts of the cluster network; `previous` are those of `node.json` as it is on disk.
pub(crate) fn own_subnets(parts: &SubnetSource, previous: &[IpNetwork]) -> Vec<IpNetwork> {
    match parts {
        SubnetSource::Given(subnets) => subnets.clone(),
        SubnetSource::Refused(_) => Vec::new(),
        SubnetSource::Own | SubnetSource::Before => previous.to_vec(),
    }
}

/// What is wrong with the overlay, a line each. Of nodes that have a moment nothing is.
pub(crate) fn problems(state: &State) -> Option<Vec<String>> {
    let overlay = state.overlay.as_ref()?;
    let lasts = |name: &String| !matches!(state.waiting.get(name), Some(Some(_)));
    let problems = overlay.problems.iter().filter(|(name, _)| lasts(name));
    let problems = problems.map(|(name, why)| format!("node {name}: {why}"));
    let named = log::lines(problems, SHOWN, |more| format!("{more} more nodes have such trouble"));
    Some(overlay.failure.iter().cloned().chain(named).collect())
}

/// VNI of the nodes' vxlan devices.
fn vtep_id(settings: &Settings) -> Option<u32> {
    (settings.overlay == OverlayKind::Vxlan).then_some(settings.vxlan_id)
}

fn mtu(state: &State) -> Option<u32> {
    state.overlay.as_ref().map(|overlay| overlay.mtu).filter(|mtu| *mtu > 0)
}

/// What is wanted, if it is not what was told last.
fn told<T: Clone + PartialEq>(last: &mut Option<T>, wanted: T) -> Option<T> {
    if last.as_ref() == Some(&wanted) {
        return None;
    }
    *last = Some(wanted.clone());
    Some(wanted)
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

#[cfg(test)]
mod tests;
