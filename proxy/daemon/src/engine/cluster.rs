//! The connection to the cluster store: what this node says to it, and the effects of what it says.

mod publish;

use std::time::Duration;

use causeway_model::{ClusterConfig, EndpointKey, Event as Fact, NodeIdentity};
use causeway_source::cluster::{Change, Cluster, ClusterSettings, Command, Known, Report};
use ipnetwork::IpNetwork;
use tokio::sync::mpsc;

use super::Engine;
use crate::clock;
use crate::conditions::{self, Concern};
use crate::config::Settings;
use crate::event::{Event, Events};
use crate::membership::{Effect, LocalState, LogRule, Membership};

/// Reports that wait for the engine before the task does.
const QUEUE: usize = 64;
/// How long a planned end waits for the task.
const FAREWELL: Duration = Duration::from_secs(3);

impl Engine {
    /// Connects to the cluster store, if there is to be one. Inside the runtime, once what the
    /// disk holds is in the kernel (rows C-05, O-67).
    pub(crate) fn start_cluster(&mut self, events: Events, previous: Vec<IpNetwork>) {
        if self.state.cluster.is_none() {
            return;
        }
        let (sender, mut reports) = mpsc::channel(QUEUE);
        self.join(Cluster::start(self.cluster_settings(previous), sender));
        let endpoints = self.state.settings.etcd_endpoints.clone();
        tokio::spawn(super::guard::look_up(endpoints, events.clone()));
        tokio::spawn(async move {
            while let Some(report) = reports.recv().await {
                if events.send(Event::Cluster(report)).await.is_err() {
                    return;
                }
            }
        });
    }

    /// A planned end: what is on its way to the store gets there, if that answers. Nothing is
    /// given up.
    pub(crate) async fn leave(&mut self) {
        let Some(cluster) = self.cluster.take() else { return };
        cluster.send(Command::Stop);
        if tokio::time::timeout(FAREWELL, cluster.ended()).await.is_err() {
            tracing::warn!("the cluster store has not taken all that this node had to say");
        }
    }

    /// Speaks to a cluster from now on: says what this node is and has.
    pub(super) fn join(&mut self, cluster: Cluster) {
        self.cluster = Some(cluster);
        self.publish_self();
        self.publish_all_containers();
        self.peers_changed();
    }

    fn cluster_settings(&self, previous: Vec<IpNetwork>) -> ClusterSettings {
        let (settings, known) = (&self.state.settings, self.membership.known());
        ClusterSettings {
            asked: settings.node_subnets.clone(),
            // What a run without a store chose by itself may be another node's.
            previous: if known.store.is_some() { previous } else { Vec::new() },
            known: known.clone(),
            ..cluster_settings(settings, self.identity())
        }
    }

    fn identity(&self) -> NodeIdentity {
        NodeIdentity { node: self.facts.name.to_string(), machine_id: self.machine_id.clone() }
    }

    /// What an earlier run left.
    ///
    /// # Errors
    /// The snapshot cannot be read.
    pub(super) fn read_snapshot(&mut self) -> Result<(), causeway_source::Error> {
        let (view, known) = self.store.cluster()?;
        self.ask_membership(|membership, local| {
            membership.on_snapshot(view, known, local, clock::now())
        });
        Ok(())
    }

    /// Takes in what the store says.
    pub(super) fn on_report(&mut self, report: Report) {
        if self.state.cluster.is_none() {
            return;
        }
        if let Report::Written { id, result } = report {
            return self.on_written(id, result);
        }
        self.ask_membership(|membership, local| membership.on_report(report, local, clock::now()));
    }

    /// Gives up what has been in doubt for long enough.
    pub(super) fn end_grace(&mut self) {
        if self.state.cluster.is_some() {
            self.ask_membership(|membership, local| membership.on_time(local, clock::now()));
        }
    }

    /// Once no container needs a subnet that another node took, this node may take another one.
    pub(super) fn look_for_another_subnet(&mut self) {
        self.ask_membership(|membership, local| {
            membership.another_subnet(local).into_iter().collect()
        });
    }

    /// Says in `State::conditions` how long the store has been away: for whoever asks now.
    pub(super) fn report_connection(&mut self) {
        if self.state.cluster.is_some() {
            let effect = self.membership.describe_connection(clock::now());
            self.carry_out(effect);
        }
    }

    /// Asks what is to be done, and does it.
    pub(super) fn ask_membership(
        &mut self,
        ask: impl FnOnce(&mut Membership, LocalState<'_>) -> Vec<Effect>,
    ) {
        let local = LocalState {
            index: &self.state.index,
            peers: &self.state.peers,
            files: &self.state.files,
            elsewhere: &self.objects.elsewhere,
        };
        let effects = ask(&mut self.membership, local);
        if let Some(cluster) = &mut self.state.cluster {
            cluster.clone_from(self.membership.cluster());
        }
        for effect in effects {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Adopt { changes, on_disk } => self.adopt_changes(changes, on_disk),
            Effect::KeepKnown(known) => self.keep_known(&known),
            Effect::Peers(peers) => {
                self.set_peers(peers);
                // It may be up to this node now.
                self.objects.unsettle_owed();
            }
            Effect::TouchNodes(names) => self.pending.touched.nodes.extend(names),
            Effect::SubnetsChanged => self.peers_changed(),
            Effect::Publish(command) => self.publish(command),
            Effect::Condition(concern, text, rule) => self.set_condition(concern, text, rule),
            Effect::Listed => {
                // What the store listed is on this node's disk, in the place of what did not decode.
                self.state.conditions.clear(&Concern::StoredObjects);
                self.pending.manifests = true;
                self.trim_pending = true;
            }
            Effect::StoreIsBack => {
                self.objects.unsettle();
                if std::mem::take(&mut self.manifests_wait) {
                    self.pending.manifests = true;
                }
            }
            Effect::WritesMayGoOn => {
                self.refuse_writes();
                self.advance_writes();
            }
            Effect::RevisionSeen => self.seen_writes(),
        }
    }

    /// Keeps a condition, and says it by the rule.
    fn set_condition(&mut self, concern: Concern, text: Option<String>, rule: LogRule) {
        use conditions::Change::{Appeared, Changed};
        let change = self.state.conditions.update(concern.clone(), text.clone());
        let Some(text) = text else { return };
        let is_due = match rule {
            LogRule::Never => false,
            LogRule::Appeared | LogRule::AppearedPaced => change == Appeared,
            LogRule::Changed => matches!(change, Appeared | Changed),
            LogRule::Paced => true,
        };
        let paced = matches!(rule, LogRule::Paced | LogRule::AppearedPaced);
        if is_due && (!paced || self.network.said.may(concern, clock::now())) {
            tracing::error!("{text}");
        }
    }

    /// Brings facts of the cluster into the index, and into the snapshot on disk.
    fn adopt_changes(&mut self, changes: Vec<Change>, on_disk: bool) {
        let (mut put, mut gone) = (Vec::new(), Vec::new());
        for change in &changes {
            match change {
                Change::Node(record) => {
                    let node = record.identity.node.clone();
                    if node != *self.facts.name {
                        let labels = Some(record.labels.clone());
                        self.apply(Fact::NodeLabels { node, labels });
                    }
                }
                Change::NodeGone(name) => self.adopt_end_of(name),
                Change::Container(node, container) => {
                    let record = &container.record;
                    let home = self.state.index.home();
                    self.pending.left_out |=
                        record.ips.iter().any(|ip| home.refusal(node, *ip).is_some());
                    let (key, healthy) = (record.key.clone(), container.healthy);
                    let attach =
                        Fact::Attach { node: node.as_str().into(), record: record.clone() };
                    self.adopt_container(attach, &key);
                    let node = node.as_str().into();
                    self.adopt_container(Fact::Health { node, key: key.clone(), healthy }, &key);
                }
                Change::ContainerGone(node, key) => {
                    let node = node.as_str().into();
                    self.adopt_container(Fact::Detach { node, key: key.clone() }, key);
                }
                Change::Object(stored) => put.push(stored.clone()),
                Change::ObjectGone(kind, key) => gone.push((*kind, key.clone())),
                Change::Subnet(_) | Change::SubnetGone(_) => {}
            }
        }
        self.adopt_objects(put, gone);
        if !changes.is_empty() && !on_disk {
            self.written += changes.len();
            let kept = self.store.write_cluster(&changes);
            self.snapshot_kept(kept);
        }
    }

    fn adopt_end_of(&mut self, name: &str) {
        let of_node = self.state.index.containers_of(name);
        let keys: Vec<EndpointKey> = of_node.map(|(one, _)| one.record.key.clone()).collect();
        self.pending.touched.containers.extend(keys);
        if name != &*self.facts.name {
            self.apply(Fact::NodeGone(name.to_owned()));
            self.apply(Fact::NodeLabels { node: name.to_owned(), labels: None });
        }
    }

    fn adopt_container(&mut self, fact: Fact, key: &EndpointKey) {
        self.state.progress.endpoint_changes += 1;
        self.pending.touched.containers.insert(key.clone());
        self.apply(fact);
    }

    /// What the next run is to know, on disk.
    fn keep_known(&mut self, known: &Known) {
        let kept = self.store.set_known(known);
        self.snapshot_kept(kept);
    }

    /// Says whether the snapshot is written.
    fn snapshot_kept(&mut self, kept: Result<(), causeway_source::Error>) {
        match kept {
            Ok(()) => {
                self.state.conditions.clear(&Concern::Snapshot);
                let at = clock::now() + super::FLUSH_PERIOD;
                self.deadlines.flush.set_if_unset(at);
            }
            Err(error) => {
                let text = causeway_api::chain(&error);
                tracing::error!(error = text, "write the snapshot of the cluster");
                self.state.conditions.set(Concern::Snapshot, text);
            }
        }
    }
}

/// The cluster store of `settings`, for a node that asks for nothing and knows nothing.
pub(crate) fn cluster_settings(settings: &Settings, identity: NodeIdentity) -> ClusterSettings {
    ClusterSettings {
        endpoints: settings.etcd_endpoints.clone(),
        prefix: settings.etcd_prefix.clone(),
        tls: settings.etcd_tls.clone(),
        user: settings.etcd_user.clone(),
        endpoint_ttl: settings.endpoint_ttl,
        subnet_ttl: settings.subnet_ttl,
        identity,
        config: cluster_config(settings),
        asked: Vec::new(),
        previous: Vec::new(),
        known: Known::default(),
    }
}

/// What all nodes must agree on, as this node has it.
fn cluster_config(settings: &Settings) -> ClusterConfig {
    ClusterConfig {
        schema: ClusterConfig::SCHEMA,
        cluster_cidrs: settings.cluster_cidrs.clone(),
        service_cidrs: settings.service_cidrs.clone(),
        node_subnet_len: settings.node_subnet_len,
        node_ports: settings.node_port_range,
        overlay: settings.overlay.name().to_owned(),
        vxlan_id: settings.vxlan_id,
        vxlan_port: settings.vxlan_port,
    }
}

#[cfg(test)]
mod tests;
