//! The guard of 127.0.0.0/8 on the node's links. `route_localnet` is on for all of them while node
//! ports answer at localhost, and the rules that keep other hosts out go with `nft flush ruleset`:
//! these guards stay, also beside a daemon that was stopped.
//!
//! It is a thread because the kernel takes its time to make one.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use causeway_kernel::{
    Error, Interest, Link, LinkKind, Monitor, Netlink, Result, Sysctl, wait_readable,
};
use causeway_ruleset::plan::NodePortAddresses;

use crate::event::{Event, Events};
use crate::log;

/// How often links are looked at though nothing is reported, and to notice the daemon's end.
const PERIOD: Duration = Duration::from_secs(10);
/// Links are looked at this often at most: listing them takes the lock that attaching needs, and the
/// rules guard what is new.
const GAP: Duration = Duration::from_secs(1);
/// So many links without a guard are named.
const NAMED: usize = 5;
const LOOPBACK: &str = "lo";

/// Guards the links that there are, at a start before anything is sent: the kernel takes no guard
/// into a link that is up without dropping what is sent at that moment. The thread of [`start`] names
/// those that take none.
pub(crate) fn begin(node_ports: &NodePortAddresses) {
    if *node_ports == NodePortAddresses::All {
        drop(Netlink::open().and_then(|netlink| guard(&netlink, &mut SeenLinks::new())));
    }
}

/// Starts the thread, which ends with the engine, if node ports answer at localhost. The rules
/// that mark replies are in the kernel.
///
/// # Errors
/// No thread is left.
pub(crate) fn start(node_ports: &NodePortAddresses, events: Events) -> io::Result<()> {
    if *node_ports != NodePortAddresses::All {
        return Ok(());
    }
    let thread = std::thread::Builder::new().name("localhost".to_owned());
    thread.spawn(move || run(&events)).map(drop)
}

fn run(events: &Events) {
    let mut said = None;
    while !events.is_closed() {
        if let Err(error) = follow(events, &mut said) {
            say(events, &mut said, Some(unguarded("all links", &error)));
            drop(wait_readable(&[], PERIOD));
        }
    }
}

fn follow(events: &Events, said: &mut Option<String>) -> Result<()> {
    let netlink = Netlink::open()?;
    let mut monitor = Monitor::of_links(&netlink)?;
    let mut seen = SeenLinks::new();
    while !events.is_closed() {
        guard(&netlink, &mut seen)?;
        say(events, said, describe(&seen));
        wait_readable(&[monitor.as_fd()], PERIOD)?;
        wait_readable(&[], GAP)?;
        monitor.changed(&Interest::default())?;
    }
    Ok(())
}

fn say(events: &Events, said: &mut Option<String>, text: Option<String>) {
    if *said != text {
        drop(events.blocking_send(Event::Unguarded(text.clone())));
        *said = text;
    }
}

/// Links by index: of those that take no guard, name and why.
type SeenLinks = BTreeMap<u32, Option<(String, Error)>>;

/// Guards the links that were not `seen`. One that takes none is not asked again: that may make the
/// kernel look for modules.
fn guard(netlink: &Netlink, seen: &mut SeenLinks) -> Result<()> {
    let links = netlink.links()?;
    let wanted = wanted(&links);
    seen.retain(|index, _| wanted.contains(index));
    for link in links.into_iter().filter(|link| wanted.contains(&link.index)) {
        let Entry::Vacant(new) = seen.entry(link.index) else { continue };
        let refused = netlink.guard_localhost(link.index).err();
        // One that went meanwhile needs none.
        let refused = refused.filter(|error| error.raw() != Some(libc::ENODEV));
        new.insert(refused.map(|error| (link.name, error)));
    }
    Ok(())
}

/// What to say of the links that take no guard, in words of bounded length however many there are.
fn describe(seen: &SeenLinks) -> Option<String> {
    let refused = || seen.values().flatten();
    let (_, error) = refused().next()?;
    let names = log::few(refused().map(|(name, _)| name), NAMED);
    let links = if refused().count() > NAMED { format!("{names} links") } else { names };
    Some(unguarded(&links, error))
}

fn unguarded(links: &str, error: &Error) -> String {
    format!(
        "on {links}, only rules protect 127.0.0.0/8, and another process may flush them: {error}: \
         {}; load the kernel modules sch_ingress and cls_bpf",
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

/// Takes the guards away, for `cleanup`; if `route_localnet` is on for a link, its attachments
/// need one.
///
/// # Errors
/// Links or settings could not be read, or a guard not be removed.
pub(crate) fn remove() -> Result<()> {
    let (netlink, here) = (Netlink::open()?, Sysctl { netns: None });
    for link in netlink.links()? {
        let key = format!("net/ipv4/conf/{}/route_localnet", link.name);
        if here.read(&key)?.as_deref() != Some("1") {
            netlink.remove_guard(link.index)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
