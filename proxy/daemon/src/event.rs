//! The events of the daemon's loop.

use std::collections::BTreeSet;
use std::net::IpAddr;

use causeway_dns::Problems;
use causeway_model::{EndpointKey, Labels};
use tokio::sync::mpsc;

use crate::conditions::Concern;
use crate::request::Request;
use crate::state::{AnnounceState, NameAddresses, OverlayState};

/// An event. All of them come through one channel, in order.
#[derive(Debug)]
pub(crate) enum Event {
    /// A client asks something.
    Request(Request),
    /// The spool directory has changed.
    Spool,
    /// The manifest directory has changed, or SIGHUP came.
    Manifests,
    /// Another process has changed rules that may be ours.
    KernelChanged {
        /// Name and id of the process, if the kernel reported it.
        by: Option<(String, u32)>,
    },
    /// What containerd knows of a container, merged over the labels of its record.
    Labels {
        /// Containers of this id, whatever the network.
        container_id: String,
        /// The container's own labels.
        labels: Labels,
    },
    /// A container answers probes, or does not any more.
    Health {
        /// The container.
        key: EndpointKey,
        /// Whether it answers.
        healthy: bool,
    },
    /// The cluster store reports something.
    Cluster(causeway_source::cluster::Report),
    /// The overlay thread reports its state.
    Overlay(OverlayState),
    /// How it is with the addresses that this node announces.
    Announced(AnnounceState),
    /// This node has other addresses than those known to the other nodes, at most one per IP
    /// family.
    Addresses(Vec<IpAddr>),
    /// Which traffic between containers of several nodes the rules of other programs drop, with
    /// what allows it; nothing any more if empty.
    Forward(Vec<String>),
    /// Rules of attachments that are missing, or why that cannot be told; nothing any more if empty.
    Attachments(Vec<String>),
    /// The container of an attachment is gone without DEL.
    Dead {
        /// The attachment.
        key: EndpointKey,
        /// `seq` of the event of its ADD: a later ADD is not meant. 0: it is not known.
        seq: u64,
    },
    /// Attachments that are gone without DEL and own something still, in words; all of them.
    DeadAttachments(Vec<String>),
    /// Attachments whose MTU is larger than that of the path to other nodes, in words; all of them.
    OldMtu(Vec<String>),
    /// Links whose guard of 127.0.0.0/8 goes with the rules, in words: all there are.
    Unguarded(Option<String>),
    /// Where containers find the name server.
    NameAddresses(NameAddresses),
    /// What does not work of the name server; all of it.
    NameProblems(Problems),
    /// The peers file has changed.
    Peers,
    /// Something does not work, with the remedy; `None`: it works again.
    Condition {
        /// What it is about.
        concern: Concern,
        /// What `status` says.
        text: Option<String>,
    },
    /// The store's names lead to these addresses.
    StoreAddresses(BTreeSet<IpAddr>),
    /// The kernel has the settings of bridges that it lacked.
    BridgeSettings,
    /// SIGTERM or SIGINT: end at once, rules stay.
    Stop,
}

/// Sends events to the engine.
pub(crate) type Events = mpsc::Sender<Event>;
