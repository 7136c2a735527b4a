//! What `causeway-service` tells the daemon about a container.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{LabelSet, Labels, ObjectKey};

/// Identity of an attachment: network, container, interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointKey {
    /// Name of the network.
    pub network: String,
    /// Container id.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Interface in the container.
    pub ifname: String,
}

/// An attached container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointRecord {
    /// Identity.
    #[serde(flatten)]
    pub key: EndpointKey,
    /// Path of the container's network namespace at ADD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// Addresses of the interface.
    pub ips: Vec<IpAddr>,
    /// Merged labels (DESIGN 5.1) without those that the daemon looks up in containerd.
    pub labels: Labels,
    /// Time of ADD, seconds since 1970.
    pub created: u64,
}

/// An [`EndpointRecord`] in half the memory, for the containers of many nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldRecord {
    /// Identity.
    pub key: EndpointKey,
    /// Path of the container's network namespace at ADD.
    pub netns: Option<String>,
    /// Addresses of the interface.
    pub ips: Box<[IpAddr]>,
    /// Labels.
    pub labels: LabelSet,
    /// Time of ADD, seconds since 1970.
    pub created: u64,
}

/// What happened to an attachment. Among events of one key the highest `seq` of a boot counts, in
/// whatever order they arrive; so a repeated or late one does nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointEvent {
    /// Identity.
    pub key: EndpointKey,
    /// Nanoseconds of `CLOCK_BOOTTIME`, taken under the attachment's lock.
    pub seq: u64,
    /// `/proc/sys/kernel/random/boot_id`: what another boot left is gone.
    pub boot_id: String,
    /// The record after an ADD, `None` after a DEL.
    pub record: Option<EndpointRecord>,
}

impl EndpointRecord {
    /// Label that names the pod.
    pub const POD_NAME: &'static str = "causeway.io/pod-name";
    /// Label of the pod's namespace.
    pub const POD_NAMESPACE: &'static str = "causeway.io/pod-namespace";
    /// Label of the network.
    pub const NETWORK: &'static str = "causeway.io/network";
    /// Prefix of labels that name container ports.
    pub const PORT_PREFIX: &'static str = "port.causeway.io/";

    /// Namespace and name of the pod, from its labels; without them `default` and the container id.
    pub fn pod(&self) -> ObjectKey {
        pod(&self.key, |name| self.labels.get(name).map(String::as_str))
    }
}

impl HeldRecord {
    /// As [`EndpointRecord::pod`].
    pub fn pod(&self) -> ObjectKey {
        pod(&self.key, |name| self.labels.get(name))
    }

    /// The first address of each family: a pod has one of each at most.
    pub fn ips_by_family(&self) -> impl Iterator<Item = IpAddr> {
        let first = |v4: bool| self.ips.iter().find(|ip| ip.is_ipv4() == v4).copied();
        let begins = self.ips.first().is_none_or(IpAddr::is_ipv4);
        [first(begins), first(!begins)].into_iter().flatten()
    }

    /// As it was said.
    pub fn to_record(&self) -> EndpointRecord {
        EndpointRecord {
            key: self.key.clone(),
            netns: self.netns.clone(),
            ips: self.ips.to_vec(),
            labels: self.labels.to_map(),
            created: self.created,
        }
    }
}

impl From<EndpointRecord> for HeldRecord {
    fn from(record: EndpointRecord) -> Self {
        let EndpointRecord { mut key, netns, ips, labels, created } = record;
        for text in [&mut key.network, &mut key.container_id, &mut key.ifname] {
            text.shrink_to_fit();
        }
        let labels = labels.iter().collect();
        Self { key, netns, ips: ips.into(), labels, created }
    }
}

impl PartialEq<EndpointRecord> for HeldRecord {
    fn eq(&self, other: &EndpointRecord) -> bool {
        let labels = other.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        self.key == other.key
            && self.netns == other.netns
            && *self.ips == *other.ips
            && self.labels.iter().eq(labels)
            && self.created == other.created
    }
}

fn pod<'a>(key: &'a EndpointKey, label: impl Fn(&str) -> Option<&'a str>) -> ObjectKey {
    let label = |name: &str| label(name).filter(|value| !value.is_empty());
    ObjectKey::new(
        label(EndpointRecord::POD_NAMESPACE).unwrap_or("default"),
        label(EndpointRecord::POD_NAME).unwrap_or(&key.container_id),
    )
}
