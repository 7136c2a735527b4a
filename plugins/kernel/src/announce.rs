//! Announcing an attachment's addresses to its neighbours (DESIGN decision 13).

use std::net::IpAddr;

use crate::{Mac, Netns, Result};

/// Sends a gratuitous ARP (IPv4) or an unsolicited neighbour advertisement (IPv6) for each address
/// from `ifname` inside `netns`. Call it once the bridge port forwards.
///
/// # Errors
/// The packet socket could not be made or written.
pub fn announce(netns: &Netns, ifname: &str, mac: Mac, addresses: &[IpAddr]) -> Result<()> {
    let _ = (netns, ifname, mac, addresses);
    todo!()
}
