//! Attachments whose MTU is larger than that of the path to other nodes: the MTU of the underlay was lowered
//! while they run, and an interface in a container keeps what it was made with (row O-11).
//!
//! The thread looks; [`larger`] is pure.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use causeway_bridge::record::Record;
use causeway_host::paths::kind;
use causeway_host::{NodeFile, Records, paths};
use causeway_kernel::{Interest, Link, LinkKind, Monitor, Netlink, wait_readable};
use ipnetwork::IpNetwork;

use crate::clock;
use crate::config::Settings;
use crate::event::{Event, Events};
use crate::log;

/// How often it looks though no link is known to have changed.
const PERIOD: Duration = Duration::from_secs(5);
/// Changes of links come in bursts: they are gathered for so long, and for so many times as long as
/// the last look took.
const GATHER: (Duration, u32) = (Duration::from_millis(200), 20);
/// So many are named.
const NAMED: usize = 20;

/// An attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Attached {
    /// `NETWORK/CONTAINER/INTERFACE`
    name: String,
    addresses: Vec<IpAddr>,
    /// Empty if there is none.
    bridge: String,
    mtu: u32,
}

/// What the ways to other nodes carry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Limits {
    cluster: Vec<IpNetwork>,
    /// Of the cluster networks, over the overlay.
    overlay: Option<u32>,
    /// Of bridges with a vxlan device as a port.
    bridges: BTreeMap<String, u32>,
}

/// Starts the thread. It answers with [`Event::OldMtu`] whenever it finds something other than before,
/// and ends with the engine.
///
/// # Errors
/// No thread is left.
pub(crate) fn start(settings: &Settings, events: Events) -> io::Result<()> {
    let (run_dir, cluster) = (settings.run_dir.clone(), settings.cluster_cidrs.clone());
    let thread = std::thread::Builder::new().name("mtu".to_owned());
    thread.spawn(move || run(&run_dir, &cluster, &events)).map(drop)
}

fn run(run_dir: &Path, cluster: &[IpNetwork], events: &Events) {
    let mut monitor = None;
    let mut said = Vec::new();
    while !events.is_closed() {
        let began = clock::now();
        match look(run_dir, cluster) {
            Ok(found) if found != said => {
                said.clone_from(&found);
                if events.blocking_send(Event::OldMtu(found)).is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(error = %error, "read the MTU of attachments"),
        }
        if monitor.is_none() {
            // Without one it is looked at now and then.
            monitor = Netlink::open().and_then(|netlink| Monitor::of_links(&netlink)).ok();
        }
        let took = clock::now().saturating_duration_since(began);
        if !wait(&mut monitor, (took * GATHER.1).clamp(GATHER.0, PERIOD)) {
            monitor = None;
        }
    }
}

/// Until a link may have changed. `false`: the monitor reports nothing any more.
fn wait(monitor: &mut Option<Monitor>, gather: Duration) -> bool {
    let Some(monitor) = monitor else {
        return wait_readable(&[], PERIOD).is_ok();
    };
    let heard = wait_readable(&[monitor.as_fd()], PERIOD);
    drop(wait_readable(&[], gather));
    heard.is_ok() && monitor.changed(&Interest::default()).is_ok()
}

fn look(run_dir: &Path, cluster: &[IpNetwork]) -> causeway_kernel::Result<Vec<String>> {
    let records = Records::new(run_dir, kind::BRIDGE).readable::<Record>()?;
    if records.is_empty() {
        return Ok(Vec::new());
    }
    let links = Netlink::open()?.links()?;
    let by_name: BTreeMap<&str, &Link> =
        links.iter().map(|link| (link.name.as_str(), link)).collect();
    let attached = records.into_iter().filter_map(|(key, record)| {
        let link = by_name.get(record.host_ifname.as_str())?;
        Some(Attached {
            name: format!("{}/{}/{}", key.network, key.container_id, key.ifname),
            addresses: record.addresses.iter().map(IpNetwork::ip).collect(),
            bridge: record.bridge,
            mtu: link.mtu,
        })
    });
    let attached: Vec<Attached> = attached.collect();
    let limits =
        Limits { cluster: cluster.to_vec(), overlay: overlay(run_dir), bridges: bridges(&links) };
    Ok(larger(&attached, &limits))
}

/// What a new attachment would get of the overlay.
fn overlay(run_dir: &Path) -> Option<u32> {
    NodeFile::read(&paths::node_file(run_dir)).ok()??.overlay_mtu.if_valid()
}

/// What bridges carry whose ports lead to other nodes by vxlan.
fn bridges(links: &[Link]) -> BTreeMap<String, u32> {
    let by_index: BTreeMap<u32, &Link> = links.iter().map(|link| (link.index, link)).collect();
    let of_port = |port: &Link| {
        let LinkKind::Vxlan(vxlan) = &port.kind else { return None };
        let bridge = by_index.get(&port.master?)?;
        let underlay = by_index.get(&vxlan.dev?)?;
        let ipv6 = vxlan.local.or(vxlan.group).is_some_and(|outer| outer.is_ipv6());
        let header = if ipv6 { 70 } else { 50 };
        Some((bridge.name.clone(), underlay.mtu.saturating_sub(header)))
    };
    let mut least: BTreeMap<String, u32> = BTreeMap::new();
    for (bridge, mtu) in links.iter().filter_map(of_port) {
        let known = least.entry(bridge).or_insert(mtu);
        *known = mtu.min(*known);
    }
    least
}

/// Those whose MTU is more than what their way carries, with the remedy.
fn larger(attached: &[Attached], limits: &Limits) -> Vec<String> {
    let limit = |one: &Attached| {
        let of_cluster = |ip: &IpAddr| limits.cluster.iter().any(|net| net.contains(*ip));
        let overlay = limits.overlay.filter(|_| one.addresses.iter().any(of_cluster));
        let bridge = limits.bridges.get(&one.bridge).copied();
        overlay.into_iter().chain(bridge).min().filter(|limit| *limit < one.mtu)
    };
    let mut named: Vec<String> = attached
        .iter()
        .filter_map(|one| {
            let limit = limit(one)?;
            Some(format!(
                "attachment {} has MTU {}, but the path to other nodes has {limit}: larger packets \
                 are dropped or fragmented; restart the container, or lower the MTU of its \
                 interface and of the host end",
                one.name, one.mtu
            ))
        })
        .collect();
    named.sort();
    log::lines(named.into_iter(), NAMED, |more| {
        format!("{more} more attachments have an MTU above that of the path")
    })
}

#[cfg(test)]
mod tests;
