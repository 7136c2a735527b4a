//! The guard of 127.0.0.0/8 on the node's links. `route_localnet` is on for all of them while node
//! ports answer at localhost, and the rules that keep others out go with `nft flush ruleset`: these
//! guards stay, also beside a daemon that was stopped.
//!
//! It is a thread because the kernel takes its time to make one.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use causeway_kernel::{
    Error, Interest, Link, LinkKind, Monitor, Netlink, Result, Sysctl, wait_readable,
};
use causeway_ruleset::plan::NodePortAddresses;

use crate::event::{Event, Events};

/// How often links are looked at though nothing is told of them, and to notice the daemon's end.
const PERIOD: Duration = Duration::from_secs(10);
/// Links are looked at this often at most: listing them takes the lock that attaching needs, and the
/// rules guard what is new.
const GAP: Duration = Duration::from_secs(1);
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
            drop(events.blocking_send(Event::Unguarded(unguarded("all links", &error))));
        }
    };
    thread.spawn(work).map(drop)
}

fn run(events: &Events) -> Result<()> {
    let netlink = Netlink::open()?;
    let mut monitor = Monitor::of_links(&netlink)?;
    let mut seen = BTreeSet::new();
    while !events.is_closed() {
        if let Some(text) = guard(&netlink, &mut seen)? {
            drop(events.blocking_send(Event::Unguarded(text)));
        }
        wait_readable(&[monitor.as_fd()], PERIOD)?;
        wait_readable(&[], GAP)?;
        monitor.changed(&Interest::default())?;
    }
    Ok(())
}

/// Guards the links that were not `seen`. Returns what to say of those that take no guard.
fn guard(netlink: &Netlink, seen: &mut BTreeSet<u32>) -> Result<Option<String>> {
    let links = netlink.links()?;
    let wanted = wanted(&links);
    seen.retain(|index| wanted.contains(index));
    let mut refused = None;
    for link in links.iter().filter(|link| wanted.contains(&link.index)) {
        if !seen.insert(link.index) {
            continue;
        }
        match netlink.guard_localhost(link.index) {
            Ok(()) => {}
            // It went meanwhile.
            Err(error) if error.raw() == Some(libc::ENODEV) => {}
            Err(error) => {
                let (names, _) = refused.get_or_insert_with(|| (Vec::new(), error));
                names.push(link.name.clone());
            }
        }
    }
    Ok(refused.map(|(names, error)| unguarded(&names.join(", "), &error)))
}

fn unguarded(links: &str, error: &Error) -> String {
    format!(
        "on {links} rules alone keep others out of 127.0.0.0/8, which another process may flush: \
         {error}: {}; load the kernel modules sch_ingress and cls_bpf",
        error.source
    )
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
