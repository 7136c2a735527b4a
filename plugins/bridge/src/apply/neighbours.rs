//! Addresses in use by the host and by neighbours on the bridge, checked before a container gets
//! one.
//!
//! The IPAM plugin knows leases, this one knows the bridge and its ports. If a port is not ours (a
//! container of another plugin, a network card), a neighbour behind it may have an address that no
//! lease names, so neighbours are asked. An address that is in use goes back to the IPAM plugin,
//! which is asked for another one. On a bridge of ours alone nothing is sent and nothing waited for.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use causeway_host::paths;
use causeway_kernel::{Link, Mac};
use causeway_ruleset::name;
use cni_plugin::{CniResult, Code, Error};
use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use super::{AddContext, Links, subnet_change};
use crate::collision::Host;
use crate::config;
use crate::fault;
use crate::ipam::{Ipam, with_ipam};

/// How long neighbours have to answer. RFC 5227 waits for seconds; who is on a bridge of this host or
/// on the link of its card answers within milliseconds.
const WAIT: Duration = Duration::from_millis(200);
/// So many addresses in use are skipped. Each costs two calls of the IPAM plugin.
const TRIES: usize = 64;
/// Destinations that have no routes of their own (RFC 7600, RFC 3849): they show the default route.
const OUTSIDE: [&str; 2] = ["192.0.0.8", "2001:db8:0:ffff::1"];

impl AddContext<'_> {
    /// What the host has beside this network's own links.
    pub(super) fn host_facts(&self) -> Result<Host, Error> {
        let addresses = self.host.all_addresses().map_err(fault::kernel)?;
        let mut own = Vec::new();
        let names = [Some(self.config.bridge.clone()), self.gateway_link_name()];
        for name in names.into_iter().flatten().filter(|name| !name.is_empty()) {
            own.extend(self.host.link(&name).map_err(fault::kernel)?.map(|link| link.index));
        }
        let outside = OUTSIDE.iter().filter_map(|text| text.parse().ok());
        // No route, no IPv6.
        let ways = outside.filter_map(|there: IpAddr| self.host.way_to(there).ok());
        let routers = ways.filter_map(|way| Some((way.dev, way.gateway?))).collect();
        Ok(Host::new(addresses, routers, &own))
    }

    /// Refuses what collides with the host. A bridge of ours that nobody is on, which a configuration
    /// with another bridge left behind, is in nobody's way.
    pub(super) fn check_collision(&self, host: Host, leased: &CniResult) -> Result<(), Error> {
        let check = |host: &Host| host.check(self.config.mode, self.config.gateway, leased);
        let Err(error) = check(&host) else { return Ok(()) };
        let mut idle = Vec::new();
        for (index, _) in &host.addresses {
            let link = self.host.link_by_index(*index).map_err(fault::kernel)?;
            idle.extend(
                link.filter(|link| subnet_change::is_ours(link) && !link.carrier).map(|_| *index),
            );
        }
        if idle.is_empty() {
            return Err(error);
        }
        check(&Host::new(host.addresses, host.routers, &idle))
    }

    /// Whether the bridge has ports that are not ours.
    pub(super) fn has_foreign_ports(&self, bridge: &Link) -> Result<bool, Error> {
        let ports = self.host.ports(bridge.index).map_err(fault::kernel)?;
        Ok(ports.iter().any(|port| !is_ours(port, &bridge.name)))
    }

    /// The IPAM plugin's answer with addresses that no neighbour has.
    pub(super) fn unused(
        &self,
        ipam: &Ipam<'_>,
        links: &Links,
        mut leased: CniResult,
    ) -> Result<CniResult, Error> {
        let (Some(bridge), Some(own)) = (&links.bridge, links.container.mac) else {
            return Ok(leased);
        };
        // A DHCP client asks by itself.
        if !links.foreign_ports || ipam.plugin == "dhcp" || self.config.container_down {
            return Ok(leased);
        }
        self.forwarding(links.host.index)?;
        let mut used = Vec::new();
        loop {
            let addresses: Vec<IpAddr> = leased.ips.iter().map(|ip| ip.address.ip()).collect();
            let Some((address, holder)) = self.ask(links, own, &addresses)? else {
                return Ok(leased);
            };
            if self.requested(address) || used.contains(&address) {
                return Err(in_use(address, holder, &bridge.name));
            }
            used.push(address);
            if used.len() == TRIES {
                let msg = format!(
                    "{TRIES} addresses from {} to {address} are in use by neighbours on bridge {}; \
                     exclude them in ipam",
                    used[0], bridge.name
                );
                return Err(Error::new(Code::TryAgainLater, msg));
            }
            fault::warn(&format!(
                "{address} is in use by {holder} on bridge {}; taking another address",
                bridge.name
            ));
            ipam.del()?;
            let request = with_ipam(ipam.request, |ipam| exclude(ipam, &used));
            leased = Ipam { plugin: ipam.plugin, request: &request }.add()?;
        }
    }

    /// A neighbour that has one of `addresses`. Those that a container got in this boot are not asked
    /// for again.
    fn ask(
        &self,
        links: &Links,
        own: Mac,
        addresses: &[IpAddr],
    ) -> Result<Option<(IpAddr, Mac)>, Error> {
        let mut new = addresses.to_vec();
        new.retain(|address| !self.probed().join(address.to_string()).exists());
        if new.is_empty() {
            return Ok(None);
        }
        let holder = self.netns.holder(links.container.index, own, &new, WAIT);
        holder.map_err(fault::kernel)
    }

    /// Remembers that neighbours had none of `addresses`. What is not remembered is asked for again.
    pub(super) fn remember_unused(&self, addresses: &[IpNetwork]) {
        let folder = self.probed();
        if std::fs::create_dir_all(&folder).is_ok() {
            for address in addresses {
                drop(std::fs::File::create(folder.join(address.ip().to_string())));
            }
        }
    }

    fn probed(&self) -> PathBuf {
        paths::probed(&self.config.run_dir).join(&self.config.bridge)
    }

    /// Whether the runtime asked for just this address.
    fn requested(&self, address: IpAddr) -> bool {
        let lists = [&["runtimeConfig", "ips"][..], &["args", "cni", "ips"]];
        let listed = lists.iter().filter_map(|path| self.request.raw_get(path)?.as_array());
        let listed = listed.flatten().filter_map(Value::as_str);
        let named = self.request.args.pairs.get("IP").map(String::as_str);
        let mut all = listed.chain(named).filter_map(|text| text.split('/').next());
        all.any(|text| text.trim().parse() == Ok(address))
    }
}

/// Whether we made the port: a host end, a vxlan device, or a vlan's gateway.
fn is_ours(port: &Link, bridge: &str) -> bool {
    let Some(alias) = port.alias.as_deref() else { return false };
    let network = alias.split_once(' ').and_then(|(_, rest)| rest.split_once('/'));
    let owned =
        network.is_some_and(|(network, _)| alias.starts_with(&name::owner_network_prefix(network)));
    let vlan = alias.strip_prefix(bridge).and_then(|rest| rest.strip_prefix('.'));
    owned
        || alias.starts_with(paths::VXLAN_ALIAS)
        || alias == paths::BRIDGE_ALIAS
        || vlan.is_some_and(|vlan| {
            vlan.parse().is_ok_and(|vlan| config::gateway_link(bridge, vlan) == alias)
        })
}

/// Adds `used` to the addresses that `ipam` never gives.
fn exclude(ipam: &mut serde_json::Map<String, Value>, used: &[IpAddr]) {
    let sent = ipam.keys().find(|key| key.eq_ignore_ascii_case("exclude")).cloned();
    let list = ipam.entry(sent.as_deref().unwrap_or("exclude")).or_insert_with(|| json!([]));
    if let Value::Array(list) = list {
        list.extend(used.iter().map(|address| json!(address)));
    }
}

fn in_use(address: IpAddr, holder: Mac, bridge: &str) -> Error {
    let msg = format!(
        "requested IP address {address} is in use by {holder} on bridge {bridge}; ask for another one"
    );
    Error::new(Code::AddressUnavailable, msg)
}
