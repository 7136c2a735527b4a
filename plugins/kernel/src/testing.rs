//! Namespaces for tests. Needs root: a test that cannot have its namespace fails.

use std::net::IpAddr;

use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::{Mac, Netlink, Netns};

/// Moves the test's thread into a new network namespace. The thread ends with the test, and the
/// namespace with the thread.
pub(crate) fn enter() -> Netlink {
    // SAFETY: unshare changes this thread only.
    let done = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(done, 0, "these tests need root: {}", std::io::Error::last_os_error());
    Netlink::open().expect("a netlink socket in the new namespace")
}

/// Another new network namespace.
pub(crate) fn other() -> Netns {
    std::thread::scope(|scope| {
        let made = scope.spawn(|| {
            // SAFETY: unshare changes this thread only.
            let done = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            assert_eq!(done, 0, "these tests need root: {}", std::io::Error::last_os_error());
            Netns::current().expect("the new namespace")
        });
        made.join().expect("a new namespace")
    })
}

/// A directory that goes with the test.
pub(crate) struct Folder(pub(crate) std::path::PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNTER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNTER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("causeway-kernel-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Adds a neighbour entry in state STALE.
pub(crate) fn stale_neighbour(netlink: &Netlink, index: u32, address: IpAddr, mac: Mac) {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Stale;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    let message = RouteNetlinkMessage::NewNeighbour(message);
    netlink.change("add a neighbour", &message, NLM_F_CREATE).expect("a neighbour");
}

/// Neighbour entries of a link with their hardware addresses.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library's enum grows with the kernel")]
pub(crate) fn neighbours(netlink: &Netlink, index: u32) -> Vec<(IpAddr, Mac)> {
    let message = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
    let answers = netlink.dump("list neighbours", &message).expect("a dump");
    let mut found = Vec::new();
    for answer in answers {
        let RouteNetlinkMessage::NewNeighbour(message) = answer else { continue };
        let mut address = None;
        let mut mac = None;
        for attribute in message.attributes {
            if let NeighbourAttribute::Destination(to) = &attribute {
                address = match to {
                    NeighbourAddress::Inet(to) => Some(IpAddr::V4(*to)),
                    NeighbourAddress::Inet6(to) => Some(IpAddr::V6(*to)),
                    _ => None,
                };
            }
            if let NeighbourAttribute::LinkLayerAddress(bytes) = attribute {
                mac = <[u8; 6]>::try_from(bytes).ok().map(Mac);
            }
        }
        if message.header.ifindex == index {
            found.extend(address.zip(mac));
        }
    }
    found
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}
