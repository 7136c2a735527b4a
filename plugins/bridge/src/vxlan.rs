//! The layer-2 overlay: a vxlan device as a port of the bridge.
//!
//! What has no known destination goes to a multicast group, or as one copy to each peer (head-end
//! replication: one all-zero FDB entry per peer); addresses are learned from what comes back.

use std::collections::BTreeSet;
use std::net::IpAddr;

use causeway_kernel::{FdbEntry, Link, LinkChange, Mac, Netlink};
use cni_plugin::{Code, Error};

mod config;
mod decide;
#[cfg(test)]
mod tests;
mod underlay;

pub(crate) use config::{Flood, RawVxlan, VxlanConfig, check};
pub(crate) use underlay::Underlay;

use decide::{Change, Target, VxlanAction};

/// How often to look again after another process changed the device. Each time means that one got
/// on, so this bounds starvation only.
const TRIES: usize = 16;

/// The vxlan device as a port of `bridge`, made or repaired. Safe to call from many processes at
/// once.
///
/// # Errors
/// Code 7 if `mtu` does not fit through the tunnel or a device is in the way, naming attribute, both values and the remedy; 5 and 11
/// for the kernel's refusals.
pub(crate) fn ensure(
    netlink: &Netlink,
    wanted: &VxlanConfig,
    underlay: &Underlay,
    bridge: &Link,
    mtu: u32,
) -> Result<Link, Error> {
    underlay.check_mtu(wanted, mtu)?;
    let addresses = netlink.addresses(underlay.dev.index).map_err(|e| failed(&e))?;
    let attributes = underlay.attributes(wanted, &addresses)?;
    let mut locals: Vec<IpAddr> = addresses.iter().map(|state| state.address.ip()).collect();
    locals.extend(wanted.local);
    let target = Target { wanted, bridge, mtu, attributes, locals };
    let link = settle(netlink, &target)?;
    if let Flood::Peers(peers) = &wanted.flood {
        let others = peers.iter().filter(|peer| !target.locals.contains(peer));
        flood_to(netlink, link.index, others.copied().collect())?;
    }
    Ok(link)
}

/// Looks and acts until the device is as it has to be.
fn settle(netlink: &Netlink, target: &Target<'_>) -> Result<Link, Error> {
    let mut lost = None;
    for _ in 0..TRIES {
        let step = match netlink.link(&target.wanted.name).map_err(|e| failed(&e))? {
            None => create(netlink, target)?,
            Some(link) => match target.decide(&link) {
                VxlanAction::Fine => return Ok(link),
                VxlanAction::Change(change) => apply(netlink, target, link.index, change),
                VxlanAction::Recreate => netlink.delete_link(link.index),
                VxlanAction::Enslaved(master) => return Err(enslaved(netlink, target, master)),
                VxlanAction::Refuse(error) => return Err(error),
            },
        };
        match step {
            Ok(()) => {}
            // Another process made it, or recreates it: look again.
            Err(e) if e.is_exists() || e.is_not_found() || e.is_transient() => lost = Some(e),
            Err(e) => return Err(failed(&e)),
        }
    }
    let name = &target.wanted.name;
    let msg = format!("vxlan: other processes keep changing device {name}; try again");
    Err(match lost {
        Some(e) => Error::caused(Code::TryAgainLater, msg, &e),
        None => Error::new(Code::TryAgainLater, msg),
    })
}

/// Makes the device. It is marked and set up in a second message, which its next judge repeats if
/// we are killed before it.
fn create(netlink: &Netlink, target: &Target<'_>) -> Result<causeway_kernel::Result<()>, Error> {
    let links = netlink.links().map_err(|e| failed(&e))?;
    if let Some(conflict) = target.conflict(&links) {
        return Err(conflict);
    }
    let (name, bridge) = (&target.wanted.name, target.bridge.index);
    let made = netlink.add_vxlan(name, Some(target.mtu), Some(bridge), &target.attributes);
    Ok(made.and_then(|link| {
        let change = Change { up: true, mark: true, ..Change::default() };
        apply(netlink, target, link.index, change)
    }))
}

/// Changes the device in place. The mark goes first: what is up is marked.
fn apply(
    netlink: &Netlink,
    target: &Target<'_>,
    index: u32,
    change: Change,
) -> causeway_kernel::Result<()> {
    if change.mark {
        netlink.set_alias(&target.wanted.name, &decide::alias(&target.wanted.network))?;
    }
    let change = LinkChange {
        up: change.up.then_some(true),
        mtu: change.mtu,
        master: change.master,
        ..LinkChange::default()
    };
    netlink.change_link(index, &change)
}

fn enslaved(netlink: &Netlink, target: &Target<'_>, master: u32) -> Error {
    match netlink.link_by_index(master) {
        Ok(Some(master)) => target.enslaved(&master.name),
        _ => target.enslaved(&format!("of index {master}")),
    }
}

/// Makes the flood list exactly `peers`.
fn flood_to(netlink: &Netlink, index: u32, peers: BTreeSet<IpAddr>) -> Result<(), Error> {
    let flood = |dst| FdbEntry { mac: Mac([0; 6]), dst };
    let present: BTreeSet<IpAddr> = netlink
        .fdb(index)
        .map_err(|e| failed(&e))?
        .into_iter()
        .filter(|entry| entry.mac == Mac([0; 6]))
        .map(|entry| entry.dst)
        .collect();
    for new in peers.difference(&present) {
        netlink.append_fdb(index, &flood(*new)).map_err(|e| failed(&e))?;
    }
    for stale in present.difference(&peers) {
        netlink.delete_fdb(index, &flood(*stale)).map_err(|e| failed(&e))?;
    }
    Ok(())
}

/// The CNI error for a refusal of the kernel.
fn failed(error: &causeway_kernel::Error) -> Error {
    if error.is_transient() {
        return Error::caused(Code::TryAgainLater, "vxlan: the kernel is busy; try again", error);
    }
    if error.raw() == Some(libc::EOPNOTSUPP) {
        return Error::caused(
            Code::Io,
            "vxlan: this kernel does not support vxlan; load the module vxlan",
            error,
        );
    }
    Error::caused(Code::Io, "vxlan: the kernel refused the device", error)
}
