//! Where containers find the name server: the gateways of this node's networks, and the service
//! addresses that every node answers itself.
//!
//! A thread looks whenever links or addresses change. Which addresses are gateways says the records of
//! attachments (invariant I2): other addresses of a bridge belong to the host, or to its LAN.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use causeway_bridge::record::Record;
use causeway_host::Records;
use causeway_host::paths::kind;
use causeway_kernel::{Interest, Monitor, Netlink, wait_readable};
use causeway_ruleset::{TableId, TableState, untracked};
use ipnetwork::IpNetwork;
use rustix::event::{EventfdFlags, eventfd};

use crate::clock;
use crate::config::{DnsListen, Settings};
use crate::event::{Event, Events};
use crate::state::NameAddresses;
use crate::tables::{self, Tables};

use super::PORT;

/// How often it looks though nothing is known to have changed, and reads the records of attachments.
const PERIOD: Duration = Duration::from_secs(2);
/// Changes come in bursts: those of so long are one.
const GATHER: Duration = Duration::from_millis(20);

/// `proto` of the local routes; those to other nodes have another one, and lead somewhere.
const LOCAL_PROTOCOL: u8 = 198;

/// What the thread is told.
#[derive(Debug)]
pub(super) struct NameOrders {
    /// The service addresses to answer; `None` before that is known: they stay as they are.
    vips: Mutex<Option<BTreeSet<IpAddr>>>,
    /// Readable when they are others.
    changed: OwnedFd,
}

impl NameOrders {
    /// These are this node's from now on.
    pub(super) fn answer(&self, vips: BTreeSet<IpAddr>) {
        let mut wanted = self.vips.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted.as_ref() != Some(&vips) {
            *wanted = Some(vips);
            // It looks within its period anyway.
            rustix::io::write(&self.changed, &1_u64.to_ne_bytes()).ok();
        }
    }

    fn take(&self) -> Option<BTreeSet<IpAddr>> {
        // Nothing to read is nothing new.
        rustix::io::read(&self.changed, &mut [0; 8]).ok();
        self.vips.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Starts the thread. It answers with [`Event::NameAddresses`] whenever it finds something other
/// than before, and ends with the engine.
///
/// # Errors
/// No thread or no descriptor is left.
pub(super) fn start(settings: &Settings, events: Events) -> io::Result<Arc<NameOrders>> {
    let changed = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let orders = Arc::new(NameOrders { vips: Mutex::new(None), changed });
    let look = AddressLook {
        run_dir: settings.run_dir.clone(),
        cluster: settings.cluster_cidrs.clone(),
        listen: settings.dns.listen.clone(),
        addresses: Vec::new(),
        read: None,
        gateways: BTreeSet::new(),
        containers: BTreeSet::new(),
    };
    let thread = std::thread::Builder::new().name("names".to_owned());
    let own = Arc::clone(&orders);
    thread.spawn(move || run(look, &own, &events))?;
    Ok(orders)
}

fn run(mut look: AddressLook, orders: &NameOrders, events: &Events) {
    let (mut said, mut complained) = (None, None);
    let mut tables = Tables::new("conntrack remembers each question for a name");
    let mut monitor = None;
    while !events.is_closed() {
        if monitor.is_none() {
            // Open before it looks: what changes meanwhile is told. Without one it looks now and then.
            monitor = Netlink::open().and_then(|netlink| Monitor::of_addresses(&netlink)).ok();
        }
        let found = look.look(orders.take().as_ref());
        let kept = match &found {
            Ok(found) => tables.keep(look.untracked(found)).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = &kept
            && complained.as_ref() != Some(error)
        {
            tracing::warn!("where names are answered: {error}");
        }
        complained = kept.err();
        if let Ok(found) = found
            && said.as_ref() != Some(&found)
        {
            said = Some(found.clone());
            if events.blocking_send(Event::NameAddresses(found)).is_err() {
                return;
            }
        }
        if !wait(&mut monitor, orders) {
            monitor = None;
        }
    }
}

/// Until something may have changed. `false`: the monitor reports nothing any more.
fn wait(monitor: &mut Option<Monitor>, orders: &NameOrders) -> bool {
    let Some(monitor) = monitor else {
        return wait_readable(&[orders.changed.as_fd()], PERIOD).is_ok();
    };
    let heard = wait_readable(&[monitor.as_fd(), orders.changed.as_fd()], PERIOD);
    drop(wait_readable(&[], GATHER));
    heard.is_ok() && monitor.changed(&Interest::default()).is_ok()
}

/// What is looked at, and what was found before.
#[derive(Debug)]
struct AddressLook {
    run_dir: PathBuf,
    cluster: Vec<IpNetwork>,
    listen: DnsListen,
    addresses: Vec<(u32, IpNetwork)>,
    read: Option<Instant>,
    /// Of records, as long as the node has the address: the last attachment may be gone.
    gateways: BTreeSet<IpAddr>,
    containers: BTreeSet<IpAddr>,
}

impl AddressLook {
    /// Brings the local routes to `wanted`, and finds the gateways among the node's addresses.
    fn look(
        &mut self,
        wanted: Option<&BTreeSet<IpAddr>>,
    ) -> causeway_kernel::Result<NameAddresses> {
        let netlink = Netlink::open()?;
        let (vips, failure) = keep_routes(&netlink, wanted)?;
        let all = netlink.all_addresses()?;
        let now = clock::now();
        // Records are many and change with each container; the node's addresses seldom.
        if all != self.addresses || self.read.is_none_or(|read| now >= read + PERIOD) {
            self.read_records(&all)?;
            (self.read, self.addresses) = (Some(now), all);
        }
        let addresses = || self.addresses.iter().map(|(_, address)| *address);
        let gateways: BTreeSet<IpNetwork> =
            addresses().filter(|address| self.gateways.contains(&address.ip())).collect();
        let admitted = |ip: &&IpAddr| {
            gateways.iter().chain(&self.cluster).any(|network| network.contains(**ip))
        };
        Ok(NameAddresses {
            vips,
            failure,
            own: addresses().map(|address| address.ip()).collect(),
            containers: self.containers.iter().filter(|ip| !admitted(ip)).copied().collect(),
            gateways,
        })
    }

    fn read_records(&mut self, all: &[(u32, IpNetwork)]) -> causeway_kernel::Result<()> {
        let records = Records::new(&self.run_dir, kind::BRIDGE).readable::<Record>()?;
        let own: BTreeSet<IpAddr> = all.iter().map(|(_, address)| address.ip()).collect();
        self.gateways.retain(|ip| own.contains(ip));
        let named = records.iter().flat_map(|(_, record)| &record.gateways);
        self.gateways.extend(named.map(IpNetwork::ip));
        let containers = records.iter().flat_map(|(_, record)| &record.addresses);
        self.containers = containers.map(IpNetwork::ip).collect();
        Ok(())
    }

    /// The tables that keep questions out of conntrack.
    fn untracked(&self, found: &NameAddresses) -> [(TableId, Option<TableState>); 2] {
        let at = match &self.listen {
            DnsListen::Off => Vec::new(),
            DnsListen::Auto => {
                found.gateways.iter().map(IpNetwork::ip).chain(found.vips.iter().copied()).collect()
            }
            DnsListen::At(addresses) => {
                addresses.iter().filter(|at| at.port() == PORT).map(|at| at.ip()).collect()
            }
        };
        [false, true].map(|ipv6| {
            let servers = at.iter().copied().filter(|ip: &IpAddr| ip.is_ipv6() == ipv6).collect();
            (untracked::table(ipv6), untracked::state(ipv6, &servers))
        })
    }
}

/// Those of `wanted` that are this node's now, and why others are not.
fn keep_routes(
    netlink: &Netlink,
    wanted: Option<&BTreeSet<IpAddr>>,
) -> causeway_kernel::Result<(BTreeSet<IpAddr>, Option<String>)> {
    let there: BTreeSet<IpAddr> = netlink.local_routes(LOCAL_PROTOCOL)?.into_iter().collect();
    let Some(wanted) = wanted else { return Ok((there, None)) };
    for address in there.difference(wanted) {
        netlink.delete_local_route(*address, LOCAL_PROTOCOL)?;
    }
    let mut kept: BTreeSet<IpAddr> = there.intersection(wanted).copied().collect();
    let mut failure = None;
    for address in wanted.difference(&there) {
        match netlink.add_local_route(*address, LOCAL_PROTOCOL) {
            Ok(()) => drop(kept.insert(*address)),
            Err(error) if error.raw() == Some(libc::EEXIST) => {
                failure = Some(format!(
                    "names are not answered at {address}: it is an address of a link of this node; \
                     remove it there, or choose --dns-vip"
                ));
            }
            Err(error) => {
                failure = Some(format!("names are not answered at {address}: {error}"));
            }
        }
    }
    Ok((kept, failure))
}

/// Takes the service addresses and rules of earlier runs off this node; returns what it removed.
///
/// # Errors
/// rtnetlink.
pub(crate) fn leave(dry_run: bool) -> causeway_kernel::Result<Vec<String>> {
    let netlink = Netlink::open()?;
    let mut removed = Vec::new();
    for address in netlink.local_routes(LOCAL_PROTOCOL)? {
        if !dry_run {
            netlink.delete_local_route(address, LOCAL_PROTOCOL)?;
        }
        removed.push(format!("local route to {address}"));
    }
    removed.extend(tables::remove([false, true].map(untracked::table), dry_run));
    Ok(removed)
}
