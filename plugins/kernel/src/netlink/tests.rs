use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressMessage;

use crate::testing::enter;
use crate::{AddressSpec, VethSpec};

use super::*;

/// A veth pair whose ends are both in `netns`.
fn add_pair(netlink: &Netlink, netns: &Netns, name: &str, peer: &str) {
    let spec = VethSpec {
        name,
        master: None,
        mtu: None,
        alias: "",
        peer_name: peer,
        peer_mac: None,
        peer_netns: netns,
        up: false,
    };
    netlink.add_veth(&spec).expect("a veth");
}

/// Pairs that stay, so many that no dump of the links fits one message.
const PAIRS: u16 = 40;
/// Addresses that stay on the first of them, for the same reason.
const ADDRESSES: u16 = 700;

fn address(text: &str) -> AddressSpec {
    AddressSpec { address: text.parse().expect("an address"), nodad: true }
}

fn furnish(netlink: &Netlink, netns: &Netns) -> u32 {
    for pair in 0..PAIRS {
        add_pair(netlink, netns, &format!("a{pair}"), &format!("b{pair}"));
    }
    let index = netlink.link("a0").expect("a query").expect("it is there").index;
    for host in 0..ADDRESSES {
        let text = format!("10.1.{}.{}/16", host / 250, 1 + host % 250);
        netlink.add_address(index, &address(&text)).expect("an address");
    }
    index
}

/// Raises the flag when it goes, on a failure too.
struct Raise<'a>(&'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A pair comes and goes, with an address.
fn come_and_go(netlink: &Netlink, netns: &Netns) {
    add_pair(netlink, netns, "come", "go");
    let link = netlink.link("come").expect("a query").expect("it is there");
    netlink.add_address(link.index, &address("10.2.0.1/24")).expect("an address");
    netlink.delete_link(link.index).expect("a pair to delete");
}

fn assert_whole(netlink: &Netlink, index: u32) {
    let links = netlink.links().expect("a dump").into_iter().map(|link| link.name);
    let (mut passing, stay): (Vec<_>, Vec<_>) =
        links.partition(|name| ["come", "go"].contains(&name.as_str()));
    passing.sort();
    assert!(passing.is_empty() || passing == ["come", "go"], "{passing:?}");
    let distinct: BTreeSet<_> = stay.iter().collect();
    let there = 1 + 2 * usize::from(PAIRS);
    assert_eq!((distinct.len(), stay.len()), (there, there), "{stay:?}");
    let there = usize::from(ADDRESSES);
    let of_link = netlink.addresses(index).expect("a dump").into_iter();
    let of_link: Vec<_> = of_link.map(|state| state.address.ip()).collect();
    let distinct: BTreeSet<_> = of_link.iter().collect();
    assert_eq!((distinct.len(), of_link.len()), (there, there));
    let mut all = netlink.local_addresses(false).expect("a dump");
    all.retain(|address| of_link.contains(address));
    assert_eq!(all, of_link);
}

/// A dump of all addresses that is not repeated. The kernel marks no dump of one link's addresses.
fn one_dump(netlink: &Netlink) -> Result<Vec<RouteNetlinkMessage>> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    let message = RouteNetlinkMessage::GetAddress(message);
    netlink.request_once("list addresses", message, NLM_F_REQUEST | NLM_F_DUMP)
}

/// Rows: F41
#[test]
fn dumps_beside_changes_are_whole() {
    let netlink = enter();
    let netns = Netns::current().expect("the namespace");
    let index = furnish(&netlink, &netns);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let changes = scope.spawn(|| {
            let netlink = Netlink::open_in(&netns).expect("a connection");
            let mut rounds = 0;
            while !over.load(Ordering::Relaxed) && rounds < 20_000 {
                come_and_go(&netlink, &netns);
                rounds += 1;
            }
            rounds
        });
        let end = Raise(&over);
        for _ in 0..300 {
            assert_whole(&netlink, index);
        }
        // So many dumps are not all spared: the kernel marks one sooner or later.
        let marked = (0..5000).find_map(|_| one_dump(&netlink).err());
        assert_eq!(marked.expect("an interrupted dump").raw(), Some(libc::EINTR));
        drop(end);
        assert!(changes.join().expect("the changes") > 0);
    });
}
