//! Announcing an attachment's addresses to its neighbours (DESIGN decision 13).

use crate::{LinkChange, Mac, Netlink, Result};

/// Sysctls that [`Netlink::announce`] needs on the interface, set before it comes up: with them
/// the kernel itself tells the neighbours when the link's address is set
/// (Documentation/networking/ip-sysctl.rst).
pub const ANNOUNCE_SYSCTLS: [&str; 2] =
    ["net/ipv4/conf/IFNAME/arp_notify", "net/ipv6/conf/IFNAME/ndisc_notify"];

impl Netlink {
    /// Has the kernel send a gratuitous ARP (RFC 5227, section 3) for each IPv4 address of the link
    /// and an unsolicited neighbour advertisement (RFC 4861, section 7.2.6) for each IPv6 address,
    /// by setting the address `mac` that the link has already. [`ANNOUNCE_SYSCTLS`] are to be 1.
    /// Call it once the bridge port forwards.
    ///
    /// A packet socket could send the same frames, but closing it waits for a grace period of the
    /// kernel, which is longer than all the rest of an ADD.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn announce(&self, index: u32, mac: Mac) -> Result<()> {
        self.change_link(index, &LinkChange { mac: Some(mac), ..LinkChange::default() })
    }
}

#[cfg(test)]
mod tests;
