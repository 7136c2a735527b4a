//! `GET /v1/status`

mod many;

use std::collections::BTreeMap;

use causeway_api::{PoolStatus, Status};
use causeway_model::allocate::PoolUse;

use super::nodes;
use crate::clock;
use crate::guard;
use crate::host_ports;
use crate::sharing;
use crate::state::State;

/// State of the daemon. `more` are problems that the state does not know of.
pub(crate) fn status(state: &State, more: &BTreeMap<String, String>) -> Status {
    let progress = &state.progress;
    let nodes = nodes::all(state);
    let now = clock::now();
    let more = more
        .iter()
        .flat_map(|(concern, what)| what.lines().map(move |line| format!("{concern}: {line}")));
    let events = [
        ("syncs", progress.syncs),
        ("fullSyncs", progress.full_syncs),
        ("failures", progress.failures),
        ("repairs", progress.repairs),
        ("serviceChanges", progress.service_changes),
        ("endpointChanges", progress.endpoint_changes),
    ];
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: state.node.name.clone(),
        uptime: now.saturating_duration_since(progress.started).as_secs(),
        backend: state.settings.backend.name().to_owned(),
        store: state.settings.store.name().to_owned(),
        counts: counts(state),
        synced: progress.synced.map(|synced| now.saturating_duration_since(synced).as_secs()),
        events: events.map(|(name, count)| (name.to_owned(), count)).into(),
        cluster: state.cluster.as_ref().map(|cluster| many::cluster(state, cluster)),
        subnets: many::subnets(state),
        overlay: state.overlay.as_ref().map(many::overlay),
        names: state.names.as_ref().map(|names| names.status.clone()),
        degraded: state
            .conditions
            .degraded()
            .chain(more)
            .chain(many::degraded(state, &nodes))
            .chain(guard::left_out(state))
            .collect(),
        warnings: state
            .conditions
            .warnings()
            .chain(many::warnings(state, &nodes))
            .chain(sharing::all(&state.plan))
            .chain(host_ports::all(&state.plan))
            .chain(state.balancers.all())
            .collect(),
        peers: many::peers(state, &nodes),
        pools: state.balancers.pools.iter().map(pool).collect(),
    }
}

fn pool(pool: &PoolUse) -> PoolStatus {
    let (size, used) = (u64::try_from(pool.size).unwrap_or(u64::MAX), pool.used as u64);
    PoolStatus { name: pool.name.clone(), used, free: size.saturating_sub(used) }
}

/// How many there are of what.
pub(crate) fn counts(state: &State) -> BTreeMap<String, u64> {
    let ports = state.plan.services.values().flat_map(|service| service.ports.iter());
    let (mut service_ports, mut endpoints) = (0, 0);
    for port in ports {
        service_ports += 1;
        endpoints += port.cluster.len();
    }
    let counts = [
        ("services", state.index.services().len()),
        ("servicePorts", service_ports),
        ("endpoints", endpoints),
        ("endpointSlices", state.index.slices().len()),
        ("containers", state.index.container_count()),
    ];
    counts.map(|(name, count)| (name.to_owned(), count as u64)).into()
}
