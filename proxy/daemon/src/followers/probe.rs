//! `causeway.io/health-check: tcp`: containers behind such services are connected to now and then;
//! one that does not take connections is not ready until it does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use causeway_model::{Container, EndpointKey, ObjectKey, Protocol};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::event::{Event, Events};
use crate::state::{Committed, State};

/// Time between two rounds.
const PERIOD: Duration = Duration::from_secs(2);
/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Rounds in a row that must fail before a container is taken out.
const FAILURES: u32 = 2;
/// Connections under way at a time.
const AT_ONCE: usize = 64;

/// Where each container is connected to: all of it must answer.
type Targets = BTreeMap<EndpointKey, BTreeSet<SocketAddr>>;

/// Knows who is to be probed.
#[derive(Debug)]
pub(crate) struct Probes {
    /// Addresses by service, for services that ask for probes.
    services: BTreeMap<ObjectKey, BTreeSet<SocketAddr>>,
    targets: watch::Sender<Targets>,
    /// Taken by the task once there is something to do.
    waiting: Option<(watch::Receiver<Targets>, Events)>,
}

impl Probes {
    /// Nobody is probed yet.
    pub(crate) fn new(events: Events) -> Self {
        let (targets, receiver) = watch::channel(Targets::new());
        Self { services: BTreeMap::new(), targets, waiting: Some((receiver, events)) }
    }

    /// Follows a commit.
    pub(crate) fn committed(&mut self, state: &State, commit: &Committed) {
        let mut concerned = !self.services.is_empty() && !commit.touched.containers.is_empty();
        for key in &commit.touched.services {
            let wanted = addresses(state, key);
            concerned |= wanted.is_some() || self.services.contains_key(key);
            match wanted {
                Some(addresses) => drop(self.services.insert(key.clone(), addresses)),
                None => drop(self.services.remove(key)),
            }
        }
        if !concerned {
            return;
        }
        let targets = self.targets_of(state);
        if let Some((receiver, events)) = self.waiting.take() {
            tokio::spawn(rounds(receiver, events));
        }
        self.targets.send_if_modified(|current| {
            let changed = *current != targets;
            *current = targets;
            changed
        });
    }

    fn targets_of(&self, state: &State) -> Targets {
        let wanted: BTreeSet<SocketAddr> = self.services.values().flatten().copied().collect();
        let mut targets = Targets::new();
        for (Container { record, .. }, _) in state.index.containers_of(&state.node.name) {
            let ours = record.ips.iter().flat_map(|ip| {
                let (from, to) = (SocketAddr::new(*ip, 0), SocketAddr::new(*ip, u16::MAX));
                wanted.range(from..=to).copied()
            });
            let ours: BTreeSet<SocketAddr> = ours.collect();
            if !ours.is_empty() {
                targets.insert(record.key.clone(), ours);
            }
        }
        targets
    }
}

/// Endpoints of the TCP ports of a service that asks for probes.
fn addresses(state: &State, key: &ObjectKey) -> Option<BTreeSet<SocketAddr>> {
    if !state.index.services().get(key)?.health_check {
        return None;
    }
    let resolved = state.index.resolve(key)?;
    let ports = resolved.service.ports.iter().zip(&resolved.ports);
    let tcp = ports.filter(|(port, _)| port.protocol == Protocol::Tcp);
    let endpoints = tcp.flat_map(|(_, found)| &found.endpoints);
    Some(endpoints.map(|one| SocketAddr::new(one.address, one.port)).collect())
}

/// Probes round after round, and tells the engine of changes.
async fn rounds(mut targets: watch::Receiver<Targets>, events: Events) {
    let mut failures: BTreeMap<EndpointKey, u32> = BTreeMap::new();
    let mut down: BTreeSet<EndpointKey> = BTreeSet::new();
    loop {
        let current = targets.borrow_and_update().clone();
        let answers = round(&current).await;
        let mut changed = Vec::new();
        // Nobody asks about them any more.
        down.retain(|key| {
            let kept = current.contains_key(key);
            if !kept {
                changed.push((key.clone(), true));
            }
            kept
        });
        failures.retain(|key, _| current.contains_key(key));
        for (key, answers) in answers {
            if answers {
                failures.remove(&key);
                if down.remove(&key) {
                    changed.push((key, true));
                }
                continue;
            }
            let count = failures.entry(key.clone()).or_default();
            *count += 1;
            if *count >= FAILURES && down.insert(key.clone()) {
                changed.push((key, false));
            }
        }
        for (key, healthy) in changed {
            tracing::info!(container = key.container_id, healthy, "probed");
            if events.send(Event::Health { key, healthy }).await.is_err() {
                return;
            }
        }
        if current.is_empty() {
            if targets.changed().await.is_err() {
                return;
            }
        } else {
            tokio::time::sleep(PERIOD).await;
        }
    }
}

/// Which containers answer, at all their addresses.
async fn round(targets: &Targets) -> BTreeMap<EndpointKey, bool> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut probes = JoinSet::new();
    for (key, addresses) in targets {
        for address in addresses {
            let (key, address, places) = (key.clone(), *address, Arc::clone(&places));
            probes.spawn(async move {
                let _place = places.acquire().await;
                let connecting = TcpStream::connect(address);
                let connected = tokio::time::timeout(PATIENCE, connecting).await;
                (key, matches!(connected, Ok(Ok(_))))
            });
        }
    }
    let mut answers = BTreeMap::new();
    while let Some(done) = probes.join_next().await {
        let Ok((key, answered)) = done else { continue };
        *answers.entry(key).or_insert(true) &= answered;
    }
    answers
}
