//! Facts in, rules out: store, allocator, index, plan and backend, and the one loop over events.
//!
//! A change on an idle node is committed at once. What comes while a commit runs is taken together
//! with whatever else is ready, planned once and committed once; answers follow the commit.

mod balancers;
mod cluster;
mod commit;
mod containers;
mod guard;
mod holding;
mod load;
mod names;
mod network;
mod objects;
mod writes;

pub(crate) use cluster::cluster_settings;
pub(crate) use load::EngineParts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use causeway_api::{Applied, Spool};
use causeway_model::{Changes, EndpointEvent, EndpointKey, Event as Fact, ObjectKey};
use causeway_source::cluster::Cluster;
use causeway_source::{ManifestDir, Store};
use tokio::net::UnixListener;
use tokio::sync::mpsc;

use crate::clock;
use crate::conditions::{Change, Concern};
use crate::event::Event;
use crate::followers::Followers;
use crate::liveness::Liveness;
use crate::membership::Membership;
use crate::names::Names;
use crate::node::NodeInfo;
use crate::notify::Notifier;
use crate::objects::Objects;
use crate::objects::writes::{Asked, Writes};
use crate::reconcile::Reconciler;
use crate::request::{Query, Refused, Reply, Request};
use crate::schedule::Deadline;
use crate::serve::Front;
use crate::state::{State, Touched};
use crate::sysctls::Sysctls;

/// How many events are taken for one commit at most.
const BURST: usize = 4096;
/// After so many written objects the store gives memory back.
const MANY_WRITTEN: usize = 20_000;
/// What a kill may take of the snapshot of the cluster, which the store tells again.
const FLUSH_PERIOD: Duration = Duration::from_secs(1);

/// Owns everything; nothing is shared.
#[derive(Debug)]
pub(crate) struct Engine {
    /// What answers are rendered from.
    pub state: State,
    store: Store,
    facts: NodeInfo,
    objects: Objects,
    manifests: ManifestDir,
    spool: Spool,
    /// The task that keeps the connection to the cluster store; `None` without one, and before it
    /// is started.
    cluster: Option<Cluster>,
    /// The overlay and what others were told of this node.
    network: network::NetworkState,
    /// `/etc/machine-id` or what stands for it.
    machine_id: String,
    membership: Membership,
    /// The manifest directory is to be read when the store is back.
    manifests_wait: bool,
    writes: Writes,
    reconciler: Reconciler,
    sysctls: Sysctls,
    front: Front,
    followers: Followers,
    /// The name server; `None` before it is started, and if it is switched off.
    names: Option<Names>,
    holding: holding::Holding,
    /// The thread that looks whether containers live; `None` before it is started.
    liveness: Option<Liveness>,
    notifier: Notifier,
    /// Highest `seq` of each attachment, gone ones among them.
    seqs: BTreeMap<EndpointKey, u64>,
    pending: Pending,
    deadlines: Deadlines,
    /// Objects and containers written since the store gave memory back.
    written: usize,
    /// Much was listed or written: what that took is free soon.
    trim_pending: bool,
}

/// What was taken since the last commit.
#[derive(Debug, Default)]
struct Pending {
    touched: Touched,
    /// The spool directory has changed.
    spool: bool,
    /// The manifest directory has changed.
    manifests: bool,
    /// Labels of this node may be others.
    node: bool,
    /// Services or containers may be left out.
    left_out: bool,
    /// Containers of this node that the cluster is to be told of.
    publish: BTreeSet<EndpointKey>,
    waiting: Vec<CommitWaiter>,
    queries: Vec<Query>,
    /// Events of the spool, to be removed there.
    spooled: Vec<EndpointEvent>,
}

/// Whoever waits for a commit.
#[derive(Debug)]
enum CommitWaiter {
    /// Of the pod, when one was attached: answered with what there is to know of it.
    Event(Option<ObjectKey>, Reply<Vec<String>>),
    Applied(Applied, Reply<Applied>),
}

/// What waits for its time.
#[derive(Debug)]
struct Deadlines {
    /// Next word to systemd's watchdog.
    alive: Deadline,
    /// The snapshot of the cluster has been written to, and is to be on disk by then.
    flush: Deadline,
    /// Free memory is to be given back.
    trim: Deadline,
    /// The cluster store refused what the manifest directory has: next attempt.
    manifests: Deadline,
    /// The store did not take an event of the spool: next attempt.
    spool: Deadline,
    /// The cluster store refused load balancer addresses: next attempt.
    balancers: Deadline,
}

impl Engine {
    /// Takes events until [`Event::Stop`].
    pub(crate) async fn run(&mut self, mut events: mpsc::Receiver<Event>) {
        loop {
            let wait = self.next_due().saturating_duration_since(clock::now());
            let first = match tokio::time::timeout(wait, events.recv()).await {
                Ok(Some(event)) => Some(event),
                Ok(None) => break,
                Err(_) => None,
            };
            let mut stop = first.is_some_and(|event| self.on_event(event));
            // Requests whose bytes are there already become events now.
            tokio::task::yield_now().await;
            for _ in 0..BURST {
                let Ok(event) = events.try_recv() else { break };
                stop |= self.on_event(event);
            }
            if stop {
                break;
            }
            self.commit();
        }
        self.stop();
    }

    /// Begins to answer at a socket. Inside the runtime.
    pub(crate) fn start_front(&mut self, socket: UnixListener) {
        self.front.start(socket, &mut self.state);
    }

    /// Keeps warnings for `status`, and says them.
    pub(crate) fn warn(&mut self, concern: Concern, warnings: Vec<String>) {
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        self.state.conditions.warn(concern, warnings);
    }

    /// Links come and go: that there are some is said once.
    fn on_unguarded(&mut self, text: Option<String>) {
        let text = text.into_iter().collect();
        match self.state.conditions.has_warned(&Concern::Localhost) {
            true => drop(self.state.conditions.set_warnings(Concern::Localhost, text)),
            false => self.warn(Concern::Localhost, text),
        }
    }

    /// In the place of what was to know of it before.
    fn warn_instead(&mut self, concern: Concern, warnings: Vec<String>) {
        self.state.conditions.take_warnings(&concern);
        self.warn(concern, warnings);
    }

    /// Takes an event in. `true`: end.
    fn on_event(&mut self, event: Event) -> bool {
        match event {
            Event::Request(request) => self.on_request(request),
            Event::Spool => self.pending.spool = true,
            Event::Unguarded(text) => self.on_unguarded(text),
            Event::Manifests => self.pending.manifests = true,
            Event::KernelChanged { by } => self.reconciler.on_change(by),
            Event::Labels { container_id, labels } => self.on_labels(&container_id, &labels),
            Event::Health { key, healthy } => {
                let node = Arc::clone(&self.facts.name);
                self.pending.publish.insert(key.clone());
                self.apply(Fact::Health { node, key, healthy });
            }
            Event::Cluster(report) => self.on_report(report),
            Event::Overlay(state) => self.on_overlay(state),
            Event::Announced(state) => self.on_announced(state),
            Event::Addresses(ips) => self.on_addresses(ips),
            Event::Forward(found) => self.on_forward(&found),
            Event::Attachments(missing) => self.on_attachments(&missing),
            Event::Dead { key, seq } => self.on_dead(key, seq),
            Event::DeadAttachments(named) => self.report_dead(named),
            Event::OldMtu(named) => self.warn_instead(Concern::Mtu, named),
            Event::NameAddresses(found) => self.on_name_addresses(found),
            Event::NameProblems(problems) => self.on_name_problems(problems),
            Event::Peers => self.read_peers(),
            Event::Condition { concern, text } => self.on_condition(concern, text),
            Event::BridgeSettings => drop(self.set_bridge()),
            Event::StoreAddresses(ips) => self.on_store_addresses(ips),
            Event::Stop => return true,
        }
        false
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::Event { event, labels, reply } => {
                let pod = event.record.as_ref().map(causeway_model::EndpointRecord::pod);
                match self.on_container_event(event, &labels) {
                    Ok(()) => self.pending.waiting.push(CommitWaiter::Event(pod, reply)),
                    Err(refused) => drop(reply.send(Err(refused))),
                }
            }
            Request::Apply { apply, reply } => {
                self.change_objects(Asked::Apply(apply), Some(reply));
            }
            Request::Delete { targets, reply } => {
                self.change_objects(Asked::Delete(targets), Some(reply));
            }
            Request::Query(query) => self.pending.queries.push(query),
        }
    }

    fn answer_later(
        &mut self,
        applied: Result<Applied, Refused>,
        wait: bool,
        reply: Reply<Applied>,
    ) {
        match applied {
            Ok(applied) if wait => self.pending.waiting.push(CommitWaiter::Applied(applied, reply)),
            applied => drop(reply.send(applied)),
        }
    }

    /// Has replies between two ports of one bridge pass conntrack. `false`: the kernel cannot, yet.
    pub(crate) fn set_bridge(&mut self) -> bool {
        let problem = self.sysctls.bridge().err();
        let can = problem.is_none();
        self.on_condition(Concern::Bridge, problem);
        can
    }

    /// Something does not work, or does again.
    fn on_condition(&mut self, concern: Concern, text: Option<String>) {
        if let Some(text) = &text {
            tracing::error!("{concern}: {text}");
        }
        if self.state.conditions.update(concern.clone(), text) == Change::Cleared {
            tracing::info!("{concern}: works again");
        }
    }

    /// Others' rules drop what containers of several nodes send each other, or do not any more.
    fn on_forward(&mut self, found: &[String]) {
        for text in found {
            tracing::error!("{text}");
        }
        let text = (!found.is_empty()).then(|| found.join("; "));
        if self.state.conditions.update(Concern::Forward, text) == Change::Cleared {
            tracing::info!("no rules of other programs drop traffic between nodes any more");
        }
    }

    /// Rules of attachments are missing, or are there again.
    fn on_attachments(&mut self, missing: &[String]) {
        /// As many are named.
        const NAMED: usize = 5;
        if missing.is_empty() {
            if self.state.conditions.clear(&Concern::Attachments) == Change::Cleared {
                tracing::info!("the rules of all attachments are in place again");
            }
            return;
        }
        let mut text = missing[..missing.len().min(NAMED)].join("; ");
        if missing.len() > NAMED {
            text.push_str(&format!("; and {} more", missing.len() - NAMED));
        }
        let text = format!("rules that another process removed are being written again: {text}");
        tracing::warn!("{text}");
        self.state.conditions.set(Concern::Attachments, text);
    }

    /// Takes a fact into the index, and notes what it concerned.
    fn apply(&mut self, fact: Fact) {
        let changes = self.state.index.apply(fact);
        self.note(changes);
    }

    /// Notes what a fact concerned.
    fn note(&mut self, changes: Changes) {
        self.pending.node |= changes.nodes.contains(&self.state.node.name);
        self.pending.touched.services.extend(changes.services);
        self.pending.touched.nodes.extend(changes.nodes);
        if self.state.progress.behind.is_none() && !self.pending.touched.services.is_empty() {
            self.state.progress.behind = Some(clock::now());
        }
    }

    fn stop(&mut self) {
        self.notifier.say("STOPPING=1");
        if let Err(error) = self.store.flush() {
            tracing::error!(error = %error, "flush the store");
        }
        drop(std::fs::remove_file(self.state.settings.socket()));
        tracing::info!("stopped; the rules stay");
    }
}
