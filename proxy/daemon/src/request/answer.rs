//! What questions are answered with, before it is rendered.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use causeway_dns::{Asker, Name, RecordType};
use causeway_model::{EndpointSlice, HeldRecord, Labels, MacAddress, Protocol, Resolved, Service};
use ipnetwork::IpNetwork;
use tokio::sync::mpsc;

/// Kinds of objects that are listed from the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `v1 Service`
    Services,
    /// `v1 Endpoints`, computed
    Endpoints,
    /// `discovery.k8s.io/v1 EndpointSlice`
    EndpointSlices,
    /// `v1 Pod`, of attached containers
    Pods,
    /// `v1 Node`
    Nodes,
}

/// An object that is not rendered yet.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Service(Arc<Service>),
    Endpoints(Resolved),
    Slice(Arc<EndpointSlice>),
    Pod(Pod),
    Node(Box<NodeView>),
}

/// A container and all its attachments, as a pod.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    /// Name of its node.
    pub node: Arc<str>,
    /// Attachments, the one that stands for the pod first; at least one.
    pub records: Vec<Arc<HeldRecord>>,
    /// It answers probes, or is not probed.
    pub healthy: bool,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeView {
    /// Name.
    pub name: String,
    /// Addresses that other nodes reach it by.
    pub ips: Vec<IpAddr>,
    /// Its subnets of the cluster network.
    pub subnets: Vec<IpNetwork>,
    /// Address of its vxlan device.
    pub vtep: Option<MacAddress>,
    /// MTU of its overlay.
    pub mtu: Option<u32>,
    /// Labels: its own, and those of its document over them.
    pub labels: Labels,
    /// When its document or, without one, its daemon began; seconds since 1970.
    pub created: Option<u64>,
    /// Whether it lives.
    pub ready: Ready,
    /// Why it is taken to do so or not, in one word.
    pub reason: &'static str,
    /// The same in a sentence.
    pub message: String,
    /// Version of its daemon.
    pub version: Option<String>,
    /// `/etc/machine-id`
    pub machine_id: Option<String>,
    /// Which boot it is.
    pub boot_id: Option<String>,
    /// Why its containers cannot be reached, with the remedy.
    pub problem: Option<String>,
}

/// Whether a node lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    /// Its daemon runs.
    Yes,
    /// It does not respond.
    No,
    /// That is not known.
    Unknown,
}

/// Whether services are kept up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    /// No change has waited for too long.
    pub healthy: bool,
    /// This node is not about to be deleted: load balancers may send it new connections.
    pub eligible: bool,
    /// Last time that the rules were committed or found to be right, seconds since 1970.
    pub updated: Option<u64>,
    /// Now, likewise.
    pub now: u64,
    /// Families that are served.
    pub families: Vec<&'static str>,
}

/// What is to be done, with all names resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prepared {
    pub to: SocketAddr,
    pub protocol: Protocol,
    pub count: u32,
    /// Path of the pod's network namespace; `None`: from this node.
    pub netns: Option<String>,
}

/// What a resolver asks one after the other until one is answered.
#[derive(Clone, Debug)]
pub(crate) struct Questions {
    /// Type of the records.
    pub record_type: RecordType,
    /// Whole names, each with why it is answered as it will be.
    pub names: Vec<(Name, String)>,
    /// Who answers.
    pub asker: Asker,
}

/// The lines of a follower.
#[derive(Debug)]
pub(crate) struct Lines {
    pub lines: mpsc::Receiver<String>,
    pub waiting: Arc<AtomicUsize>,
}
