//! The guard of 127.0.0.0/8 on the node's links. `route_localnet` is on for all of them while node
//! ports answer at localhost, and the rules that keep others out go with `nft flush ruleset`: these
//! guards stay, also beside a daemon that was stopped.
//!
//! It is a thread because the kernel takes its time to make one.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use causeway_kernel::{Interest, Link, LinkKind, Monitor, Netlink, Result, Sysctl, wait_readable};
use causeway_ruleset::plan::NodePortAddresses;

use crate::event::Events;

/// How often links are looked at though nothing is told of them, and to notice the daemon's end.
const PERIOD: Duration = Duration::from_secs(10);
/// Many links that come at once are looked at once.
const GAP: Duration = Duration::from_millis(200);
const LOOPBACK: &str = "lo";

/// Starts the thread, which ends with the engine, where node ports answer at localhost. The rules
/// that mark replies are in the kernel.
///
/// # Errors
/// No thread is left.
pub(crate) fn start(node_ports: &NodePortAddresses, events: Events) -> io::Result<()> {
    if *node_ports != NodePortAddresses::All {
        return Ok(());
    }
    let thread = std::thread::Builder::new().name("localhost".to_owned());
    let work = move || {
        if let Err(error) = run(&events) {
            tracing::warn!(
                error = %error,
                cause = %error.source,
                "guard 127.0.0.0/8 on links; rules alone do, which another process may flush for a \
                 moment: load the kernel modules sch_ingress and cls_bpf"
            );
        }
    };
    thread.spawn(work).map(drop)
}

fn run(events: &Events) -> Result<()> {
    let netlink = Netlink::open()?;
    let mut monitor = Monitor::of_links(&netlink)?;
    let mut guarded = BTreeSet::new();
    while !events.is_closed() {
        guard(&netlink, &mut guarded)?;
        wait_readable(&[monitor.as_fd()], PERIOD)?;
        wait_readable(&[], GAP)?;
        monitor.changed(&Interest::default())?;
    }
    Ok(())
}

/// Guards what is not.
fn guard(netlink: &Netlink, guarded: &mut BTreeSet<u32>) -> Result<()> {
    let wanted = wanted(&netlink.links()?);
    guarded.retain(|index| wanted.contains(index));
    for index in wanted {
        if guarded.contains(&index) {
            continue;
        }
        match netlink.guard_localhost(index) {
            Ok(()) => drop(guarded.insert(index)),
            // It went meanwhile.
            Err(error) if error.raw() == Some(libc::ENODEV) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The links by which packets come to this node itself: what a port takes in comes by its bridge,
/// and one of a VRF by itself.
fn wanted(links: &[Link]) -> BTreeSet<u32> {
    let is_vrf = |index: u32| {
        let vrf = LinkKind::Other("vrf".to_owned());
        links.iter().any(|link| link.index == index && link.kind == vrf)
    };
    let comes_in = |link: &&Link| link.name != LOOPBACK && link.master.is_none_or(is_vrf);
    links.iter().filter(comes_in).map(|link| link.index).collect()
}

/// Takes the guards away, for `cleanup`; where `route_localnet` is on for a link, its attachments
/// need one.
///
/// # Errors
/// Links or settings could not be read, or a guard not be removed.
pub(crate) fn remove() -> Result<()> {
    let (netlink, here) = (Netlink::open()?, Sysctl { netns: None });
    for link in netlink.links()? {
        let key = format!("net/ipv4/conf/{}/route_localnet", link.name);
        if here.read(&key)?.as_deref() != Some("1") {
            netlink.unguard_localhost(link.index)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
