//! Facts of this node, and `node.json`, which tells them to the plugins.

mod link;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use causeway_host::{NodeFile, paths};
use causeway_kernel::{Monitor, Netlink, wait_readable};
use causeway_ruleset::plan::NodePortAddresses;
use causeway_source::cluster::Known;
use ipnetwork::IpNetwork;

use crate::config::{NodePorts, OverlayKind, Settings, StoreKind};
use crate::files;
use crate::names;

/// What the daemon looked up of this node.
#[derive(Clone, Debug)]
pub(crate) struct NodeInfo {
    /// Name of the node.
    pub name: Arc<str>,
    /// `/proc/sys/kernel/random/boot_id`
    pub boot_id: String,
    /// Addresses that other nodes reach the node by, at most one per IP family.
    pub ips: Vec<IpAddr>,
    /// The next hops of its default routes.
    pub routers: Vec<IpAddr>,
    /// Where node ports answer.
    pub node_ports: NodePortAddresses,
    /// Why this node allocates no subnet of the cluster network, which nobody chose.
    pub refused: Option<String>,
}

/// Why the facts are not to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file of /proc.
    #[error("read {path}")]
    Read {
        /// The file.
        path: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No name.
    #[error("host name {0:?} is not a valid node name; set --node-name")]
    Name(String),
    /// rtnetlink.
    #[error("list this node's addresses")]
    Addresses(#[source] causeway_kernel::Error),
    /// `primary` without an address.
    #[error("--nodeport-addresses primary: this node has no address yet; set --node-ip")]
    NoAddress,
    /// An overlay without an address.
    #[error(
        "--overlay {overlay}: this node has no address that other nodes can reach; set --node-ip"
    )]
    Unreachable {
        /// Which.
        overlay: &'static str,
    },
    /// Plain routes without an address of the family.
    #[error(
        "--overlay host-gw: containers in {network} are reached through node addresses of the same \
         IP family, and this node has none; add one to --node-ip, or use --overlay vxlan"
    )]
    NoNextHop {
        /// The containers' network.
        network: IpNetwork,
    },
    /// The services' network contains the node.
    #[error(
        "--service-cidr: {network} contains this node's address {address}; choose one that does not"
    )]
    Overlap {
        /// The services' network.
        network: IpNetwork,
        /// The node's address.
        address: IpAddr,
    },
    /// The cluster network contains the link of the nodes.
    #[error(
        "--cluster-cidr: {} contains {}, the address of {}: containers would get addresses of the \
         nodes' network; choose a network that does not overlap it",
        .0.network, .0.address, .0.whose()
    )]
    Link(link::OverlappingNetwork),
    /// node.json cannot be written.
    #[error("write {path}")]
    Write {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// How often the addresses are looked at while there is none, beside when the kernel reports changes.
const ADDRESS_PERIOD: Duration = Duration::from_secs(1);

impl Error {
    /// Time may heal it: a machine that starts has no address at first.
    fn may_pass(&self) -> bool {
        matches!(self, Self::NoAddress | Self::Unreachable { .. } | Self::NoNextHop { .. })
    }
}

/// As [`facts`], after waiting for an address that the settings ask for. `waits` is told why, once
/// for each reason.
///
/// # Errors
/// See [`Error`].
pub(crate) fn await_facts(settings: &Settings, waits: impl Fn(&Error)) -> Result<NodeInfo, Error> {
    let mut said = String::new();
    loop {
        // Open before the addresses are read: whatever comes meanwhile is told.
        let netlink = Netlink::open().map_err(Error::Addresses)?;
        let monitor = Monitor::new(&netlink).map_err(Error::Addresses)?;
        let error = match facts(settings) {
            Err(error) if error.may_pass() => error,
            found => return found,
        };
        let text = error.to_string();
        if text != said {
            waits(&error);
            said = text;
        }
        wait_readable(&[monitor.as_fd()], ADDRESS_PERIOD).map_err(Error::Addresses)?;
    }
}

/// Looks the facts up. Not inside a tokio runtime: rtnetlink has one of its own.
///
/// # Errors
/// See [`Error`].
pub(crate) fn facts(settings: &Settings) -> Result<NodeInfo, Error> {
    let name = name(settings)?;
    let ips = match settings.node_ips.is_empty() {
        false => settings.node_ips.clone(),
        true => primary_addresses(&settings.cluster_cidrs).map_err(Error::Addresses)?,
    };
    for &network in &settings.service_cidrs {
        if let Some(&address) = ips.iter().find(|address| network.contains(**address)) {
            return Err(Error::Overlap { network, address });
        }
    }
    let routers = routers();
    let refused = match link::held(&settings.cluster_cidrs, &ips, &routers) {
        Some(held) if settings.cluster_chosen => return Err(Error::Link(held)),
        held => held.map(|held| held.refused()),
    };
    reachable(settings, &ips)?;
    if ips.is_empty() && settings.node_port_addresses == NodePorts::Primary {
        return Err(Error::NoAddress);
    }
    let node_ports = node_ports(settings, &ips);
    Ok(NodeInfo { name: name.into(), boot_id: boot_id()?, ips, routers, node_ports, refused })
}

/// The name of this node.
///
/// # Errors
/// No /proc; the host's name is none for a node.
pub(crate) fn name(settings: &Settings) -> Result<String, Error> {
    let name = match &settings.node_name {
        Some(name) => name.clone(),
        None => read("/proc/sys/kernel/hostname")?.to_lowercase(),
    };
    if name.is_empty() || name == "(none)" || name.contains('/') {
        return Err(Error::Name(name));
    }
    Ok(name)
}

/// Why a node that moved to these addresses allocates no subnet of the cluster network.
pub(crate) fn refused(settings: &Settings, ips: &[IpAddr]) -> Option<String> {
    let held = link::held(&settings.cluster_cidrs, ips, &routers())?;
    Some(match settings.cluster_chosen {
        true => Error::Link(held).to_string(),
        false => held.refused(),
    })
}

/// The next hops of the default routes. The kernel's answer takes less than a millisecond; the
/// connection must not be used inside the runtime.
fn routers() -> Vec<IpAddr> {
    let ask = || {
        let Ok(netlink) = Netlink::open() else { return Vec::new() };
        let outside = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()].map(outside);
        let way = |ip| netlink.way_to(ip).ok()?.gateway;
        outside.into_iter().filter_map(way).collect()
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(ask);
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Where node ports answer on a node with these addresses.
pub(crate) fn node_ports(settings: &Settings, ips: &[IpAddr]) -> NodePortAddresses {
    match &settings.node_port_addresses {
        NodePorts::Planned(addresses) => addresses.clone(),
        NodePorts::Primary => NodePortAddresses::In(only(ips)),
    }
}

/// An overlay needs an address of this node; plain routes need one of each family. A peers file has
/// addresses of its own.
fn reachable(settings: &Settings, ips: &[IpAddr]) -> Result<(), Error> {
    let overlay = settings.overlay;
    if overlay == OverlayKind::None || settings.peers_file.is_some() {
        return Ok(());
    }
    if ips.is_empty() {
        return Err(Error::Unreachable { overlay: overlay.name() });
    }
    let lacks = |network: &&IpNetwork| !ips.iter().any(|ip| ip.is_ipv4() == network.is_ipv4());
    match settings.cluster_cidrs.iter().find(lacks) {
        Some(&network) if overlay == OverlayKind::HostGw => Err(Error::NoNextHop { network }),
        Some(_) | None => Ok(()),
    }
}

/// Which boot this is.
///
/// # Errors
/// No /proc.
pub(crate) fn boot_id() -> Result<String, Error> {
    let path = "/proc/sys/kernel/random/boot_id";
    causeway_host::boot_id().map_err(|source| Error::Read { path, source })
}

fn read(path: &'static str) -> Result<String, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(source) => Err(Error::Read { path, source }),
    }
}

/// These addresses alone. A family without one gets an address that no packet has as its
/// destination: no network of a family would mean all of it.
fn only(ips: &[IpAddr]) -> Vec<IpNetwork> {
    let unspecified = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let missing =
        unspecified.into_iter().filter(|none| !ips.iter().any(|ip| ip.is_ipv4() == none.is_ipv4()));
    ips.iter().copied().chain(missing).map(IpNetwork::from).collect()
}

/// An address outside, of the same family: of documentation networks, to which nobody has routes of
/// their own.
pub(crate) fn outside(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::new(192, 0, 2, 1).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    }
}

/// The source address towards the outside, of each family; without a default route, the first
/// address there is. `cluster` are the networks of all containers: addresses in them that are not
/// those of the default route's device are gateways of containers and ends of the overlay, which
/// other nodes do not reach this one by.
///
/// # Errors
/// rtnetlink.
pub(crate) fn primary_addresses(cluster: &[IpNetwork]) -> causeway_kernel::Result<Vec<IpAddr>> {
    let outside = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()].map(outside);
    let netlink = Netlink::open()?;
    let mut addresses = Vec::new();
    for destination in outside {
        let own = |address: &IpAddr| !address.is_loopback() && !address.is_unspecified();
        let outer = |address: &IpAddr| !cluster.iter().any(|network| network.contains(*address));
        let source = match netlink.route_to(destination) {
            Ok((dev, source)) => source.filter(|source| {
                let carries = || netlink.link_of_address(*source).is_ok_and(|at| at == Some(dev));
                own(source) && (outer(source) || carries())
            }),
            // No route, no IPv6.
            Err(_) => None,
        };
        let first = || {
            let all = netlink.local_addresses(destination.is_ipv6()).unwrap_or_default();
            all.into_iter().find(|address| own(address) && outer(address))
        };
        addresses.extend(source.or_else(first));
    }
    Ok(addresses)
}

/// This node's subnets of the cluster network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SubnetSource {
    /// As the settings say; if they are silent, as before, or the second one.
    Own,
    /// As before: who gives them has not spoken yet.
    Before,
    /// These.
    Given(Vec<IpNetwork>),
    /// None, and why: containers get no address.
    Refused(String),
}

impl SubnetSource {
    /// What to say before anybody was asked.
    pub(crate) fn first(settings: &Settings, facts: &NodeInfo, known: &Known) -> Self {
        if let Some(why) = &facts.refused {
            return Self::Refused(why.clone());
        }
        match settings.store {
            // What a run without a store chose by itself may be another node's.
            StoreKind::Etcd if known.store.is_none() => Self::Refused(
                "the cluster store has not given this node a subnet yet; run `causeway status` to \
                 see whether it responds"
                    .to_owned(),
            ),
            StoreKind::Etcd => Self::Before,
            StoreKind::Embedded if settings.peers_file.is_some() => Self::Before,
            StoreKind::Embedded => Self::Own,
        }
    }
}

/// Writes `node.json` to the state directory and, from there, to the run directory. An overlay whose
/// `mtu` is not known yet has the one from before.
///
/// # Errors
/// One of them cannot be written.
pub(crate) fn publish(
    settings: &Settings,
    facts: &NodeInfo,
    parts: &SubnetSource,
    mtu: Option<u32>,
) -> Result<(), Error> {
    let durable = paths::node_file(&settings.state_dir);
    let known = known(settings);
    let (subnets, refused) = match parts {
        SubnetSource::Own => (subnets(settings, known.subnets.if_valid()), None),
        SubnetSource::Before => {
            (known.subnets.if_valid().unwrap_or_default(), known.refused.if_valid())
        }
        SubnetSource::Given(subnets) => (subnets.clone(), None),
        SubnetSource::Refused(why) => (Vec::new(), Some(why.clone())),
    };
    let earlier = known.overlay_mtu.if_valid().filter(|_| settings.overlay != OverlayKind::None);
    let file = NodeFile {
        node: facts.name.to_string().into(),
        subnets: Some(subnets).into(),
        refused: refused.into(),
        overlay_mtu: mtu.or(earlier).into(),
        dns: names::of_node(settings).into(),
        cluster: settings.cluster_cidrs.clone().into(),
        services: settings.service_cidrs.clone().into(),
    };
    for path in [&durable, &paths::node_file(&settings.run_dir)] {
        file.write(path)
            .map_err(|source| Error::Write { path: path.display().to_string(), source })?;
    }
    Ok(())
}

/// Parts of the cluster network that an earlier run had.
pub(crate) fn previous(settings: &Settings) -> Vec<IpNetwork> {
    known(settings).subnets.if_valid().unwrap_or_default()
}

fn known(settings: &Settings) -> NodeFile {
    NodeFile::read(&paths::node_file(&settings.state_dir)).ok().flatten().unwrap_or_default()
}

/// Which machine this is: `/etc/machine-id`; if that is absent, a random one kept in the state
/// directory.
///
/// # Errors
/// The one in the state directory cannot be written.
pub(crate) fn machine_id(settings: &Settings) -> Result<String, Error> {
    let kept = settings.state_dir.join("machine-id");
    for path in [Path::new("/etc/machine-id"), &kept] {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if text.trim().len() == 32 {
            return Ok(text.trim().to_owned());
        }
    }
    let random = read("/proc/sys/kernel/random/uuid")?.replace('-', "");
    files::replace(&kept, random.as_bytes(), 0o644)
        .map_err(|source| Error::Write { path: kept.display().to_string(), source })?;
    Ok(random)
}

/// The node's part of each cluster network: as asked for, as before, or the second one (the first
/// begins with the network's own address).
fn subnets(settings: &Settings, known: Option<Vec<IpNetwork>>) -> Vec<IpNetwork> {
    let known = known.unwrap_or_default();
    let choose = |cluster: &IpNetwork| {
        let like = |subnet: &&IpNetwork| {
            subnet.is_ipv4() == cluster.is_ipv4() && cluster.contains(subnet.ip())
        };
        let length = match cluster {
            IpNetwork::V4(cluster) => settings.node_subnet_len.max(cluster.prefix()),
            IpNetwork::V6(cluster) => 64.max(cluster.prefix()),
        };
        let asked = settings.node_subnets.iter().find(like);
        let before = known.iter().filter(|subnet| subnet.prefix() == length).find(like);
        asked.or(before).copied().unwrap_or_else(|| second(*cluster, length))
    };
    settings.cluster_cidrs.iter().map(choose).collect()
}

fn second(cluster: IpNetwork, length: u8) -> IpNetwork {
    if length == cluster.prefix() {
        return cluster;
    }
    let network = match cluster.network() {
        IpAddr::V4(address) => {
            let step = 1_u32.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((u32::from(address) | step).into())
        }
        IpAddr::V6(address) => {
            let step = 1_u128.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((u128::from(address) | step).into())
        }
    };
    IpNetwork::new(network, length).unwrap_or(cluster)
}

#[cfg(test)]
mod tests;
