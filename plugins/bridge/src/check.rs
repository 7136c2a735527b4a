//! CHECK: whether what ADD made is still there (row C70). Changes nothing.

use causeway_host::Records;
use causeway_host::paths::kind;
use causeway_kernel::{AddressState, Link, LinkKind, Netlink, Netns, RouteSpec};
use cni_plugin::{CniResult, Code, Command, Error, Interface, Ip, Request};
use ipnetwork::IpNetwork;

use crate::config::{Checked, Mode};
use crate::ipam::Ipam;
use crate::record::{self, Record};
use crate::{del, fault, masq, node, plan, spoof};

/// Compares the attachment of `request` with its `prev_result`.
///
/// # Errors
/// The first difference.
pub(crate) fn check(request: &Request) -> Result<(), Error> {
    let config = Checked::of(request)?;
    let Some(before) = &request.prev_result else {
        return Err(Error::new(
            Code::InvalidConfig,
            "CHECK needs prevResult; call it with the result of ADD",
        ));
    };
    let netns_path = request.netns.as_deref().unwrap_or_default();
    let (place, attached) = attached(before, &request.attachment.ifname, netns_path)?;
    let netns = Netns::open(netns_path).map_err(fault::netns)?;
    if let Some(plugin) = config.ipam.as_deref() {
        Ipam { plugin, request }.ask(Command::Check)?;
    }
    let host = Netlink::open().map_err(fault::kernel)?;
    let inside = Netlink::open_in(&netns).map_err(fault::kernel)?;
    let container = container(&inside, attached)?;
    let host_end = host_end(&host, &container)?;
    let ips: Vec<Ip> = before
        .ips
        .iter()
        .filter(|ip| ip.interface.is_none_or(|index| index == place))
        .cloned()
        .collect();
    let addresses: Vec<IpNetwork> = ips.iter().map(|ip| ip.address).collect();
    addresses_present(&inside, &container, &addresses)?;
    routes_present(
        &inside,
        &container,
        plan::route_specs(&before.ips, &before.routes, container.index),
    )?;
    let leased = match config.mode {
        Mode::Bridge => {
            port(&host_end, &bridge(&host, &config, before)?, &config)?;
            addresses
        }
        Mode::Ptp => {
            // With the prefix lengths of their subnets, which no result tells.
            let leased = recorded(request, &config).map_or(addresses, |record| record.addresses);
            point_to_point(&host, &host_end, &ips)?;
            let base = plan::ptp::base_routes(&ips, &leased, container.index);
            routes_present(&inside, &container, base)?;
            leased
        }
    };
    rules(request, &config, &host_end, &container, &leased)
}

/// What ADD recorded.
fn recorded(request: &Request, config: &Checked) -> Option<Record> {
    del::read(&Records::new(&config.run_dir, kind::BRIDGE), &record::key(request))
}

/// The host's side of a link without a bridge: gateway addresses and routes to the container.
fn point_to_point(host: &Netlink, link: &Link, ips: &[Ip]) -> Result<(), Error> {
    let gateways: Vec<IpNetwork> =
        ips.iter().filter_map(|ip| ip.gateway).map(IpNetwork::from).collect();
    addresses_present(host, link, &gateways)?;
    let addresses: Vec<IpNetwork> = ips.iter().map(|ip| ip.address).collect();
    routes_present(host, link, plan::ptp::host_routes(&addresses, link.index))
}

fn differs(msg: String) -> Error {
    Error::new(Code::Internal, msg)
}

/// Place and value of the container's interface in `before`.
fn attached<'a>(
    before: &'a CniResult,
    ifname: &str,
    netns: &str,
) -> Result<(usize, &'a Interface), Error> {
    let mut named = before
        .interfaces
        .iter()
        .enumerate()
        .filter(|(_, interface)| interface.name == ifname && !interface.sandbox.is_empty());
    if let Some(found) = named.clone().find(|(_, interface)| interface.sandbox == netns) {
        return Ok(found);
    }
    Err(Error::new(
        Code::InvalidConfig,
        match named.next() {
            Some((_, other)) => format!(
                "prevResult: {ifname} is in sandbox {}, which is not CNI_NETNS {netns}",
                other.sandbox
            ),
            None => format!("prevResult has no interface {ifname} in sandbox {netns}"),
        },
    ))
}

fn bridge(host: &Netlink, config: &Checked, before: &CniResult) -> Result<Link, Error> {
    let name = &config.bridge;
    let link = host
        .link(name)
        .map_err(fault::kernel)?
        .ok_or_else(|| differs(format!("bridge {name} does not exist")))?;
    if !matches!(link.kind, LinkKind::Bridge { .. }) {
        return Err(differs(format!("{name} is not a bridge")));
    }
    let expected = before
        .interfaces
        .iter()
        .find(|interface| interface.name == *name && interface.sandbox.is_empty());
    same_mac(&link, expected.map_or("", |interface| interface.mac.as_str()))?;
    if link.promisc != config.promisc {
        return Err(differs(format!(
            "bridge {name}: promiscuous mode is {}, but promiscMode is {}",
            link.promisc, config.promisc
        )));
    }
    Ok(link)
}

fn container(inside: &Netlink, expected: &Interface) -> Result<Link, Error> {
    let name = &expected.name;
    let link = inside
        .link(name)
        .map_err(fault::kernel)?
        .ok_or_else(|| differs(format!("interface {name} does not exist in the container")))?;
    if link.kind != LinkKind::Veth {
        return Err(differs(format!("interface {name} in the container is not a veth")));
    }
    same_mac(&link, &expected.mac)?;
    Ok(link)
}

fn same_mac(link: &Link, expected: &str) -> Result<(), Error> {
    let mac = plan::mac_text(link.mac);
    if expected.is_empty() || mac.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    Err(differs(format!(
        "interface {}: address is {mac}, but prevResult has {expected}",
        link.name
    )))
}

/// The other end of the container's veth. Its address is not compared: the host may change it
/// after ADD (plugins PR 808).
fn host_end(host: &Netlink, container: &Link) -> Result<Link, Error> {
    let link = match container.peer_index {
        Some(index) => host.link_by_index(index).map_err(fault::kernel)?,
        None => None,
    };
    link.filter(|link| link.kind == LinkKind::Veth && link.peer_index == Some(container.index))
        .ok_or_else(|| differs(format!("no veth of the host is the peer of {}", container.name)))
}

fn port(link: &Link, bridge: &Link, config: &Checked) -> Result<(), Error> {
    if link.master != Some(bridge.index) {
        return Err(differs(format!("{} is not a port of bridge {}", link.name, bridge.name)));
    }
    let Some(port) = link.port else { return Ok(()) };
    let wanted = [
        ("hairpin mode", port.hairpin, config.port.hairpin),
        ("isolation", port.isolated, config.port.isolated),
    ];
    match wanted.into_iter().find(|(_, is, wanted)| is != wanted) {
        Some((what, is, wanted)) => Err(differs(format!(
            "port {}: {what} is {is}, but the configuration has {wanted}",
            link.name
        ))),
        None => Ok(()),
    }
}

fn addresses_present(inside: &Netlink, link: &Link, expected: &[IpNetwork]) -> Result<(), Error> {
    if expected.is_empty() {
        return Ok(());
    }
    let present = inside.addresses(link.index).map_err(fault::kernel)?;
    let is_there = |address: &IpNetwork| {
        present.iter().any(|state: &AddressState| state.address == *address && !state.dad_failed)
    };
    match expected.iter().find(|address| !is_there(address)) {
        Some(address) => Err(differs(format!("{} does not have {address}", link.name))),
        None => Ok(()),
    }
}

fn routes_present(netlink: &Netlink, link: &Link, wanted: Vec<RouteSpec>) -> Result<(), Error> {
    let mut tables: Vec<(Option<u32>, Vec<RouteSpec>)> = Vec::new();
    for expected in wanted {
        if !tables.iter().any(|(table, _)| *table == expected.table) {
            let routes = netlink.routes(link.index, expected.table);
            tables.push((expected.table, routes.map_err(fault::kernel)?));
        }
        let mut present =
            tables.iter().filter(|(table, _)| *table == expected.table).flat_map(|(_, all)| all);
        if !present.any(|route| expected.is_met_by(route)) {
            return Err(differs(format!("{}: route to {} is missing", link.name, expected.dst)));
        }
    }
    Ok(())
}

fn rules(
    request: &Request,
    config: &Checked,
    host_end: &Link,
    container: &Link,
    addresses: &[IpNetwork],
) -> Result<(), Error> {
    let key = &record::key(request);
    if config.ip_masq && config.ipam.is_some() {
        // As its ADD had it: the node may have joined a cluster since.
        let recorded = recorded(request, config).and_then(|record| record.masq_exclude);
        let exclude = match recorded.or_else(|| config.masq_exclude.clone()) {
            Some(exclude) => exclude,
            None => node::never_masqueraded(&config.run_dir)?,
        };
        masq::check(&masq::Masquerade {
            key,
            addresses,
            exclude: &exclude,
            run_dir: &config.run_dir,
            backend: config.masq_backend,
        })?;
    }
    match container.mac {
        Some(mac) if config.mac_spoof_check => spoof::check(key, &host_end.name, mac),
        Some(_) | None => Ok(()),
    }
}
