//! The cluster store: what the nodes share over etcd.
//!
//! One task owns the connection. It takes [`Command`]s, which say what this node wants to be there,
//! and sends [`Report`]s, which say what the store holds; it decides nothing about services. What
//! this node publishes is desired state: after any loss of connection, lease or store it is brought
//! there again, so nothing waits in a queue and nothing is sent in a wrong order (rows C-02, C-03).
//!
//! | key below `PREFIX/v1/` | value | lease | written by |
//! |---|---|---|---|
//! | `config` | [`ClusterConfig`] and a random id of the store | - | the first node |
//! | `nodes/NAME` | [`NodeRecord`] | short | that node |
//! | `containers/NODE/NETWORK/CONTAINER/IFNAME` | [`Container`] | short | that node |
//! | `subnets/10.0.1.0-24` | [`SubnetRecord`] | long | its owner, by comparing the owner |
//! | `reservations/10.0.1.0-24` | text: why | - | the operator; nobody gets it unasked |
//! | `objects/KIND/NAMESPACE/NAME` | [`Stored`] | - | any node, by comparing revisions |
//! | `claims/KIND/..` | owner `NAMESPACE/NAME` of a cluster address, node port or load balancer address | - | with the object, in one transaction |

mod config;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod keys;
mod listing;
mod publish;
mod registry;
mod removal;
mod session;
mod silence;
mod state;
mod store;
mod task;
mod value;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use causeway_model::{
    ClusterConfig, EndpointKey, EndpointRecord, MacAddress, NodeIdentity, NodeRecord, ObjectKey,
    ObjectKind, SubnetRecord,
};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::Stored;

pub use removal::{Removal, leave};

/// How to reach the store and who we are.
#[derive(Clone, Debug)]
pub struct ClusterSettings {
    /// `http://HOST:PORT` or `https://HOST:PORT`, tried in turn.
    pub endpoints: Vec<String>,
    /// What all keys begin with, like `/causeway`; without a slash at its end.
    pub prefix: String,
    /// For `https`.
    pub tls: Tls,
    /// User and password, if etcd asks for them.
    pub user: Option<(String, Secret)>,
    /// How long nodes and containers outlive the last word of their node (C-13).
    pub endpoint_ttl: Duration,
    /// How long a subnet does.
    pub subnet_ttl: Duration,
    /// Who we are.
    pub identity: NodeIdentity,
    /// What we run with.
    pub config: ClusterConfig,
    /// Subnets that the operator asks for, at most one per IP family: these or none.
    pub asked: Vec<IpNetwork>,
    /// Subnets that this node had: these first, if nobody else has them (O-34).
    pub previous: Vec<IpNetwork>,
    /// What an earlier run knew.
    pub known: Known,
}

/// A text that nobody is shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("(hidden)")
    }
}

/// Files in PEM for TLS; all may be absent: the system's authorities, no certificate of our own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Authorities that sign the servers' certificates.
    pub ca: Option<PathBuf>,
    /// Our certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// What a run leaves for the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Known {
    /// Random id of the store; another one: the store was wiped (C-10).
    pub store: Option<String>,
    /// Newest revision seen; an older one: the store was restored from a backup (C-11).
    pub revision: i64,
    /// The short lease, used on while it lasts (O-42).
    pub lease: Option<i64>,
    /// Objects that the store had lost are held: what is missing in it the next time was not deleted
    /// there either (C-10).
    pub lost: bool,
}

/// A container of a node, for all nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// As its node's plugin reported it, labels of containerd merged.
    pub record: EndpointRecord,
    /// Whether it answers its node's probes; `true` without probing.
    pub healthy: bool,
}

/// How other nodes reach this node's containers: goes into the records of its subnets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Addresses of the node, at most one per IP family.
    pub ips: Vec<IpAddr>,
    /// Of the vxlan device.
    pub vtep: Option<MacAddress>,
    /// Of the overlay.
    pub mtu: Option<u32>,
}

/// What this node wants.
#[derive(Clone, Debug)]
pub enum Command {
    /// What the node says of itself, instead of what it said before.
    Node(NodeRecord),
    /// How it is reached, instead of what was said before. Subnets are written from the first on.
    Reach(Reach),
    /// All its containers: others of this node go.
    Containers(Vec<Container>),
    /// One container is new, changed (`Some`) or gone.
    Container(EndpointKey, Option<Container>),
    /// Objects to write. Answered by [`Report::Written`].
    Write(Write),
    /// The node whose subnet was lost has no container there any more: it may take another one.
    TakeAnotherSubnet,
    /// A planned end: gives nothing up, sends what is waiting.
    Stop,
}

/// Objects to write, all or nothing as far as the store's limits of a transaction allow (a service
/// always goes with its claims).
#[derive(Clone, Debug, Default)]
pub struct Write {
    /// For [`Report::Written`].
    pub id: u64,
    /// Revision that the decision was made at ([`Report::Reset`], [`Report::Changed`]): an object
    /// written since by anybody is a conflict.
    pub seen: i64,
    /// Objects to put, each with what its former version claimed.
    pub put: Vec<(Stored, Vec<String>)>,
    /// Objects to delete, each with what it claimed.
    pub delete: Vec<(ObjectKind, ObjectKey, Vec<String>)>,
    /// Nodes to take out, which are gone: refused for one that lives.
    pub nodes: Vec<String>,
}

/// Why a write was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Another node wrote first: look again once the revision has been seen, decide again.
    #[error("another node wrote at revision {0}")]
    Conflict(i64),
    /// The store does not answer. Whether it was done is unknown.
    #[error("the cluster store is unreachable: {0}")]
    Away(String),
    /// It is not to be: an address that another object has, a node that lives.
    #[error("the cluster store refused: {0}")]
    Refused(String),
    /// The store takes nothing of the kind from this node: no right to write, no space.
    #[error("the cluster store refused: {0}")]
    Denied(String),
}

/// Everything there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Nodes that live, this one among them.
    pub nodes: BTreeMap<String, NodeRecord>,
    /// Subnets that nodes have.
    pub subnets: BTreeMap<IpNetwork, SubnetRecord>,
    /// Containers of the other nodes, by node.
    pub containers: Vec<(String, Container)>,
    /// Objects.
    pub objects: Vec<Stored>,
    /// Keys that do not decode or do not count, with why (C-14).
    pub unreadable: BTreeMap<String, String>,
}

/// A key that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each says what it is about")]
pub enum Change {
    Node(NodeRecord),
    NodeGone(String),
    Subnet(SubnetRecord),
    SubnetGone(IpNetwork),
    Container(String, Container),
    ContainerGone(String, EndpointKey),
    Object(Stored),
    ObjectGone(ObjectKind, ObjectKey),
}

/// What is there, and what became of what was wanted.
#[derive(Clone, Debug)]
pub enum Report {
    /// All there is, after a connection, a compaction or a loss of the watch.
    Reset {
        /// Everything.
        view: View,
        /// Id of the store and revision of the view.
        known: Known,
        /// The store is the one known before: what is missing was deleted. `false`: it was wiped or
        /// restored, and what is missing may have been lost (C-10, C-11).
        same: bool,
    },
    /// What changed since, in order, and the revision until which that is all.
    Changed {
        /// The changes. Own containers are not among them.
        changes: Vec<Change>,
        /// Newest revision.
        revision: i64,
    },
    /// [`View::unreadable`] has changed. Not sent for each key: they are gathered.
    Unreadable(BTreeMap<String, String>),
    /// Answer to [`Command::Write`]: the revision it was written at.
    Written {
        /// [`Write::id`]
        id: u64,
        /// Seen by this node when [`Report::Changed`] has reached the revision.
        result: Result<i64, WriteError>,
    },
    /// The store answers, or does not any more and why. Sent on change.
    Connection(Result<(), String>),
    /// The short lease, to be kept for the next run.
    Lease(i64),
    /// Subnets of this node.
    Subnets(Subnets),
    /// Why the store takes no objects of this node, or `None` (again). In words, with the remedy.
    Denied(Option<String>),
    /// What keeps this node out of the cluster or `None` (again): another configuration, a living
    /// node of the same name, keys of a newer version. In words, with the remedy.
    Excluded(Option<String>),
}

/// The subnets of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subnets {
    /// It has these.
    Held(Vec<IpNetwork>),
    /// It has none: asked for one that another has, or none is free. In words, with the remedy.
    None(String),
    /// Another took what it had while it was away (O-38).
    Lost {
        /// Which.
        subnet: IpNetwork,
        /// Who has it now.
        owner: NodeIdentity,
    },
}

/// The task's end of the commands.
#[derive(Clone, Debug)]
pub struct Cluster {
    commands: mpsc::UnboundedSender<Command>,
}

impl Subnets {
    /// Why this node has none, with the remedy; `None`: it has some.
    pub fn refused(&self) -> Option<String> {
        match self {
            Self::Held(_) => None,
            Self::None(why) => Some(why.clone()),
            Self::Lost { subnet, owner: NodeIdentity { node, machine_id } } => Some(format!(
                "node {node} (machine {machine_id}) took {subnet} while this node was away: other \
                 nodes cannot reach this node's containers in it, and new containers get no \
                 address; remove the containers, then this node takes another subnet on its own"
            )),
        }
    }
}

impl Cluster {
    /// Starts the task inside a tokio runtime. It ends when either side is dropped. It never gives
    /// up: the first report may be that the store does not answer.
    pub fn start(settings: ClusterSettings, reports: mpsc::Sender<Report>) -> Self {
        let (commands, receiver) = mpsc::unbounded_channel();
        // It ends by itself.
        drop(tokio::spawn(task::run(settings, receiver, reports)));
        Self { commands }
    }

    /// Without a task: whoever has the other end takes the commands (tests do).
    pub fn over(commands: mpsc::UnboundedSender<Command>) -> Self {
        Self { commands }
    }

    /// Waits until the task has ended.
    pub async fn ended(&self) {
        self.commands.closed().await;
    }

    /// Says what this node wants.
    pub fn send(&self, command: Command) {
        // The task ends with the daemon only.
        drop(self.commands.send(command));
    }
}

/// Keys of the standard library's hash are random.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
