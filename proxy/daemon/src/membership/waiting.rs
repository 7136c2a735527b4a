//! Nodes that have joined and not said yet how their containers are reached. At a join that takes a
//! moment: it is shown at once, and is a problem if it lasts (row O-47).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use causeway_model::Peer;

/// How long it may last.
const GRACE: Duration = Duration::from_secs(10);

/// Such nodes, and until when that is no problem; `None`: it is one.
pub(crate) type Waiting = BTreeMap<String, Option<Instant>>;

/// Those of the peers that there are now. `vxlan`: the overlay is one.
pub(crate) fn follow(
    before: &Waiting,
    peers: &BTreeMap<String, Peer>,
    vxlan: bool,
    now: Instant,
) -> Waiting {
    let awaited = peers.values().filter(|peer| is_awaited(peer, vxlan));
    let until = |peer: &Peer| before.get(&peer.name).copied().unwrap_or(Some(now + GRACE));
    awaited.map(|peer| (peer.name.clone(), until(peer))).collect()
}

/// When one has lasted for too long.
pub(crate) fn due(waiting: &Waiting) -> Option<Instant> {
    waiting.values().flatten().min().copied()
}

/// Nodes of which it has lasted for too long by now, each named once.
pub(crate) fn end(waiting: &mut Waiting, now: Instant) -> Vec<String> {
    let over = |until: &mut Option<Instant>| until.take_if(|until| *until <= now).is_some();
    waiting.iter_mut().filter_map(|(name, until)| over(until).then(|| name.clone())).collect()
}

fn is_awaited(peer: &Peer, vxlan: bool) -> bool {
    peer.subnets.is_empty() || peer.ips.is_empty() || (vxlan && peer.vtep.is_none())
}
