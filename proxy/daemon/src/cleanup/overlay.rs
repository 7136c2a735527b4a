//! The overlay: its devices with all that is on them, and its routes.

use std::collections::BTreeSet;

use causeway_kernel::{Netlink, Result};
use causeway_overlay::ROUTE_PROTOCOL;

use crate::overlay::is_ours;

/// Removes them, or only says which there are. Says what.
///
/// # Errors
/// rtnetlink.
pub(super) fn remove(dry_run: bool) -> Result<Vec<String>> {
    let netlink = Netlink::open()?;
    let links = netlink.links()?;
    // Several next hops are one route.
    let mut removed = BTreeSet::new();
    for route in netlink.routes_of(ROUTE_PROTOCOL)? {
        let by = links.iter().find(|link| link.index == route.dev);
        let by = by.map_or_else(|| route.dev.to_string(), |link| link.name.clone());
        removed.insert(format!("route {} dev {by}", route.dst));
        if !dry_run {
            netlink.delete_route(&route)?;
        }
    }
    let mut removed: Vec<String> = removed.into_iter().collect();
    for link in links.iter().filter(|link| is_ours(link)) {
        removed.push(format!("link {}", link.name));
        if !dry_run {
            netlink.delete_link(link.index)?;
        }
    }
    Ok(removed)
}
