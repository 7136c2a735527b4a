//! Routes that routers advertised by IPv6, on a host that begins to forward.
//!
//! The kernel drops them then, and takes no further ones, unless `accept_ra` of their link is 2
//! (`__rt6_purge_dflt_routers` and `ipv6_accept_ra` in net/ipv6): the host's own default route would
//! be gone for good.

use std::collections::BTreeSet;

use crate::{Netlink, Result, Sysctl};

/// Forwarding of IPv6.
pub const FORWARD_V6: &str = "net/ipv6/conf/all/forwarding";
/// `RTPROT_RA` (linux/rtnetlink.h)
const ROUTES_ADVERTISED: u8 = 9;
/// What aliases of bridges and tunnels begin with that we made.
const OURS: &str = "causeway ";

/// The sysctls that have to be 2 before the host forwards IPv6. Links without such a route are left
/// alone, and so is what we made: a container could advertise itself.
///
/// # Errors
/// Routes, links or settings could not be read.
pub fn accept_ra_before_forwarding(netlink: &Netlink) -> Result<Vec<String>> {
    let here = Sysctl { netns: None };
    let routes = netlink.routes_of(ROUTES_ADVERTISED)?;
    let mut keys = Vec::new();
    for index in routes.iter().map(|route| route.dev).collect::<BTreeSet<_>>() {
        let Some(link) = netlink.link_by_index(index)? else { continue };
        if link.alias.is_some_and(|alias| alias.starts_with(OURS)) {
            continue;
        }
        let key = format!("net/ipv6/conf/{}/accept_ra", link.name);
        if here.read(&key)?.as_deref() == Some("1") {
            keys.push(key);
        }
    }
    Ok(keys)
}
