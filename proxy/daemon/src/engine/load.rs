//! An engine from what the disk holds (row 8: all of it is read before anything is programmed).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use causeway_api::Spool;
use causeway_model::{Event, Home, Index, Object};
use causeway_ruleset::plan::{self, Plan};
use causeway_source::{ManifestDir, Recovered, Store, Stored};

use super::holding::Holding;
use super::network::NetworkState;
use super::{Deadlines, Engine, Pending};
use crate::backend::Backend;
use crate::balancers::Balancers;
use crate::clock;
use crate::conditions::{Concern, Conditions};
use crate::config::{Settings, StoreKind};
use crate::followers::Followers;
use crate::forward::Forward;
use crate::left_out;
use crate::membership::Membership;
use crate::node::{self, NodeInfo};
use crate::notify::Notifier;
use crate::objects::writes::Writes;
use crate::objects::{self, Objects};
use crate::overlay::Overlay;
use crate::reconcile::Reconciler;
use crate::recorded;
use crate::schedule::Deadline;
use crate::serve::Front;
use crate::state::{ClusterState, Node, Progress, State};
use crate::sysctls::Sysctls;

/// What an engine is made of.
#[derive(Debug)]
pub(crate) struct EngineParts {
    /// Checked settings.
    pub settings: Settings,
    /// This node.
    pub facts: NodeInfo,
    /// Opened, not read.
    pub store: Store,
    /// Tried out.
    pub backend: Backend,
    /// The kernel tells of changes that others make.
    pub notifies: bool,
    /// Of the state directory.
    pub sysctls: Sysctls,
    /// Started, without orders; `None` without one.
    pub overlay: Option<Overlay>,
    /// Started; `None` if this node is alone.
    pub forward: Option<Forward>,
    /// Not started.
    pub front: Front,
    /// To systemd.
    pub notifier: Notifier,
    /// Which machine this is.
    pub machine_id: String,
}

impl Engine {
    /// Reads store, manifests and spool.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn load(parts: EngineParts) -> Result<Self, causeway_source::Error> {
        let EngineParts {
            settings,
            facts,
            store,
            backend,
            notifies,
            sysctls,
            overlay,
            forward,
            front,
            notifier,
            machine_id,
        } = parts;
        let now = clock::now();
        let previous = node::previous(&settings);
        let membership = Membership::new(
            Arc::clone(&facts.name),
            settings.endpoint_ttl,
            &settings.etcd_endpoints,
            unanswered(now),
        );
        let mut engine = Self {
            manifests: ManifestDir::new(&settings.manifest_dir),
            spool: Spool::new(&settings.spool()),
            objects: Objects::new(objects::pools(&settings, &facts)),
            state: first_state(settings, &facts, now),
            store,
            cluster: None,
            network: NetworkState::new(overlay, forward, previous),
            machine_id,
            membership,
            manifests_wait: false,
            writes: Writes::default(),
            facts,
            reconciler: Reconciler::new(backend, notifies, now),
            sysctls,
            followers: Followers::new(front.api()),
            names: None,
            holding: Holding::default(),
            front,
            liveness: None,
            seqs: BTreeMap::new(),
            pending: Pending::default(),
            deadlines: first_deadlines(now, notifier.watchdog().is_some()),
            notifier,
            written: 0,
            trim_pending: false,
        };
        engine.read_disk()?;
        engine.state.balancers.pools = engine.objects.pool_use();
        Ok(engine)
    }

    /// All that the disk holds, before any store is asked (rows C-05, O-67).
    fn read_disk(&mut self) -> Result<(), causeway_source::Error> {
        let published = self.state.node.labels.clone();
        let own = Event::NodeLabels { node: self.state.node.name.clone(), labels: Some(published) };
        // Nothing refers to it yet.
        self.state.index.apply(own);
        self.report_recovered();
        self.read_objects()?;
        if self.state.cluster.is_some() {
            self.read_snapshot()?;
        }
        self.read_containers()?;
        // What it read is in the index now.
        self.store.shrink()?;
        // Before any store answers, with what is known (row O-67).
        match self.state.settings.peers_file {
            Some(_) => self.read_peers(),
            None => self.peers_changed(),
        }
        self.pending.spool = true;
        self.pending.manifests = true;
        self.pending.node = true;
        Ok(())
    }

    /// Says what became of damaged files. `status` tells of those that were moved aside as long as
    /// they are there.
    fn report_recovered(&mut self) {
        match self.store.recovered().cloned() {
            Some(Recovered::Whole(text)) => self.warn(Concern::Store, vec![text]),
            Some(Recovered::Lost(text)) => tracing::error!("{text}"),
            None => {}
        }
    }

    fn read_objects(&mut self) -> Result<(), causeway_source::Error> {
        let (stored, damaged) = self.store.objects()?;
        if let Some(text) = undecodable(&damaged) {
            tracing::error!("{text}");
            self.state.conditions.set(Concern::StoredObjects, text);
        }
        let mut objects = Vec::with_capacity(stored.len());
        for Stored { object, origin } in stored {
            if let Object::Service(service) = &object {
                self.objects.claim(service);
            }
            self.comes_from((object.kind(), object.key().clone()), origin);
            objects.push(object);
        }
        tracing::info!(objects = objects.len(), "read the store");
        self.apply(Event::Reset(objects));
        Ok(())
    }

    /// Objects that did not decode may have been stored again.
    pub(super) fn look_for_undecodable(&mut self) {
        if self.state.conditions.has(&Concern::StoredObjects)
            && let Ok((_, damaged)) = self.store.objects()
        {
            self.state.conditions.update(Concern::StoredObjects, undecodable(&damaged));
        }
    }

    fn read_containers(&mut self) -> Result<(), causeway_source::Error> {
        let mut events = self.store.containers(&self.facts.boot_id)?;
        if self.store.recovered().is_some() {
            // What the store may have lost, the containers' own records tell.
            for event in recorded::events(&self.state.settings.run_dir, &self.facts.boot_id) {
                let known = events.iter().any(|known| known.key == event.key);
                if !known && event.record.is_some() {
                    self.store.put_container(&event)?;
                    events.push(event);
                }
            }
        }
        for event in events {
            self.seqs.insert(event.key, event.seq);
            if let Some(record) = event.record {
                self.front.look_up(&record.key.container_id);
                let node = Arc::clone(&self.facts.name);
                self.apply(Event::Attach { node, record });
            }
        }
        Ok(())
    }

    /// What planning knows of this node now.
    pub(super) fn planning(&self) -> plan::PlanContext {
        const ZONE: &str = "topology.kubernetes.io/zone";
        let zone = self.state.index.node_labels(&self.state.node.name).remove(ZONE);
        planning(&self.state.settings, &self.facts, zone)
    }
}

/// Names objects of this node's store that do not decode, with the remedy.
fn undecodable(damaged: &[String]) -> Option<String> {
    let all = damaged.join(", ");
    (!damaged.is_empty())
        .then(|| format!("stored objects that do not decode: {all}; apply them again"))
}

/// What answers are rendered from before anything is read.
fn first_state(settings: Settings, facts: &NodeInfo, now: Instant) -> State {
    State {
        plan: Plan::new(planning(&settings, facts, None)),
        node: Node {
            name: facts.name.to_string(),
            ips: facts.ips.clone(),
            labels: settings.node_labels.clone(),
            subnets: Vec::new(),
        },
        index: Index::at(Home {
            node: Arc::clone(&facts.name),
            networks: settings.cluster_cidrs.clone(),
            ..Home::default()
        }),
        host_ports: recorded::host_ports(&settings.run_dir),
        files: BTreeMap::new(),
        progress: Progress::new(now),
        peers: BTreeMap::new(),
        waiting: BTreeMap::new(),
        cluster: (settings.store == StoreKind::Etcd).then(|| unanswered(now)),
        overlay: None,
        balancers: Balancers::default(),
        announced: None,
        settings,
        conditions: Conditions::default(),
        names: None,
        left_out: left_out::LeftOutServices::default(),
    }
}

/// What a start has to do.
fn first_deadlines(now: Instant, watchdog: bool) -> Deadlines {
    Deadlines {
        alive: if watchdog { Deadline::at(now) } else { Deadline::default() },
        flush: Deadline::default(),
        trim: Deadline::default(),
        manifests: Deadline::default(),
        spool: Deadline::default(),
        balancers: Deadline::default(),
    }
}

/// The cluster store, which has not answered yet.
fn unanswered(now: Instant) -> ClusterState {
    ClusterState::new(Err((now, "it has not answered since causewayd started".to_owned())))
}

fn planning(settings: &Settings, facts: &NodeInfo, zone: Option<String>) -> plan::PlanContext {
    plan::PlanContext {
        node: facts.name.to_string(),
        zone,
        cluster_cidrs: settings.cluster_cidrs.clone(),
        service_cidrs: settings.service_cidrs.clone(),
        node_port_addresses: facts.node_ports.clone(),
        masquerade_all: settings.masquerade_all,
        node_ips: facts.ips.clone(),
        source_hash: match settings.backend {
            crate::config::BackendKind::Nftables => plan::SourceHash::Nftables,
            crate::config::BackendKind::Iptables => plan::SourceHash::Iptables,
        },
    }
}
