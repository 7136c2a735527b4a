//! Where containers find the name server: the addresses of this node's bridges, and the service
//! addresses that every node answers itself.
//!
//! A thread looks whenever links or addresses change. What bridges are ours follows from the records
//! of attachments (invariant I2).

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use causeway_bridge::record::Record;
use causeway_host::Records;
use causeway_host::paths::kind;
use causeway_kernel::{Interest, Link, Monitor, Netlink, wait_readable};
use causeway_overlay::ROUTE_PROTOCOL;
use causeway_ruleset::{TableId, TableState, untracked};
use ipnetwork::IpNetwork;

use crate::config::Settings;
use crate::event::{Event, Events};
use crate::tables::{self, Tables};

/// How often it looks though nothing is known to have changed.
const PERIOD: Duration = Duration::from_secs(2);
/// Changes come in bursts: those of so long are one.
const GATHER: Duration = Duration::from_millis(20);

/// The service addresses to answer, as the engine last said.
pub(super) type Vips = Arc<Mutex<BTreeSet<IpAddr>>>;

/// What there is to listen at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NameAddresses {
    /// Addresses of bridges, which are gateways of containers, with the networks of these.
    pub gateways: BTreeSet<IpNetwork>,
    /// Service addresses that are this node's.
    pub vips: BTreeSet<IpAddr>,
    /// All addresses of this node.
    pub own: BTreeSet<IpAddr>,
}

/// Starts the thread. It answers with [`Event::NameAddresses`] whenever it finds something other
/// than before, and ends with the engine.
///
/// # Errors
/// No thread is left.
pub(super) fn start(settings: &Settings, vips: Vips, events: Events) -> io::Result<()> {
    let run_dir = settings.run_dir.clone();
    let thread = std::thread::Builder::new().name("names".to_owned());
    thread.spawn(move || run(&run_dir, &vips, &events)).map(drop)
}

fn run(run_dir: &Path, vips: &Vips, events: &Events) {
    let mut said = None;
    let mut tables = Tables::new("conntrack remembers each question for a name");
    let mut own = BTreeSet::new();
    let mut monitor = None;
    while !events.is_closed() {
        if monitor.is_none() {
            // Open before it looks: what changes meanwhile is told. Without one it looks now and then.
            monitor = Netlink::open().and_then(|netlink| Monitor::of_addresses(&netlink)).ok();
        }
        let wanted = vips.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let found = look(run_dir, &wanted, &mut own);
        if let Ok(found) = &found
            && let Err(error) = tables.keep(untracked(found))
        {
            tracing::warn!(error = %error, "keep questions for names out of conntrack");
        }
        match found {
            Ok(found) if said.as_ref() != Some(&found) => {
                said = Some(found.clone());
                if events.blocking_send(Event::NameAddresses(found)).is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(error = %error, "look where names are to be answered"),
        }
        if !wait(&mut monitor) {
            monitor = None;
        }
    }
}

/// Until something may have changed. `false`: the monitor reports nothing any more.
fn wait(monitor: &mut Option<Monitor>) -> bool {
    let Some(monitor) = monitor else {
        return wait_readable(&[], PERIOD).is_ok();
    };
    let heard = wait_readable(&[monitor.as_fd()], PERIOD);
    drop(wait_readable(&[], GATHER));
    heard.is_ok() && monitor.changed(&Interest::default()).is_ok()
}

/// Brings the local routes to `wanted`, and reads the addresses of bridges. `own` remembers by index
/// which bridges are ours: records of their attachments may be gone.
fn look(
    run_dir: &Path,
    wanted: &BTreeSet<IpAddr>,
    own: &mut BTreeSet<u32>,
) -> causeway_kernel::Result<NameAddresses> {
    let netlink = Netlink::open()?;
    let vips = keep_routes(&netlink, wanted)?;
    let links = netlink.links()?;
    let bridges: Vec<&Link> = links.iter().filter(|link| link.is_bridge()).collect();
    own.retain(|index| bridges.iter().any(|bridge| bridge.index == *index));
    if bridges.iter().any(|bridge| !own.contains(&bridge.index)) {
        let records = Records::new(run_dir, kind::BRIDGE).readable::<Record>()?;
        let named: BTreeSet<&str> =
            records.iter().map(|(_, record)| record.bridge.as_str()).collect();
        let ours = bridges.iter().filter(|bridge| named.contains(bridge.name.as_str()));
        own.extend(ours.map(|bridge| bridge.index));
    }
    let all = netlink.all_addresses()?;
    let gateways = all.iter().filter(|(index, _)| own.contains(index));
    Ok(NameAddresses {
        gateways: gateways.map(|(_, address)| *address).collect(),
        vips,
        own: all.iter().map(|(_, address)| address.ip()).collect(),
    })
}

/// Those of `wanted` that are this node's now. A family that the kernel lacks has none.
fn keep_routes(
    netlink: &Netlink,
    wanted: &BTreeSet<IpAddr>,
) -> causeway_kernel::Result<BTreeSet<IpAddr>> {
    let there: BTreeSet<IpAddr> = netlink.local_routes(ROUTE_PROTOCOL)?.into_iter().collect();
    for address in there.difference(wanted) {
        netlink.delete_local_route(*address, ROUTE_PROTOCOL)?;
    }
    let mut kept = BTreeSet::new();
    for address in wanted {
        let added = match there.contains(address) {
            true => Ok(()),
            false => netlink.add_local_route(*address, ROUTE_PROTOCOL),
        };
        match added {
            Ok(()) => drop(kept.insert(*address)),
            Err(error) => tracing::debug!(error = %error, "answer for a service address"),
        }
    }
    Ok(kept)
}

/// The tables that keep questions out of conntrack.
fn untracked(found: &NameAddresses) -> [(TableId, Option<TableState>); 2] {
    [false, true].map(|ipv6| {
        let gateways = found.gateways.iter().map(IpNetwork::ip);
        let all = gateways.chain(found.vips.iter().copied());
        let servers = all.filter(|ip| ip.is_ipv6() == ipv6).collect();
        (untracked::table(ipv6), untracked::state(ipv6, &servers))
    })
}

/// Takes the service addresses and rules of earlier runs off this node; returns what it removed.
///
/// # Errors
/// rtnetlink.
pub(crate) fn leave(dry_run: bool) -> causeway_kernel::Result<Vec<String>> {
    let netlink = Netlink::open()?;
    let mut removed = Vec::new();
    for address in netlink.local_routes(ROUTE_PROTOCOL)? {
        if !dry_run {
            netlink.delete_local_route(address, ROUTE_PROTOCOL)?;
        }
        removed.push(format!("local route to {address}"));
    }
    removed.extend(tables::remove([false, true].map(untracked::table), dry_run));
    Ok(removed)
}
