//! `discovery.k8s.io/v1 EndpointSlice`, and `v1 Endpoints`, which become slices.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::{EndpointSlice, Hints, IpFamily, ObjectKey, SliceEndpoint, SlicePort};

use super::meta::{self, Meta, each, port, read, refuse, required};
use super::service::protocol;
use super::syntax;
use super::tree::{Checked, Field};

/// Kubernetes' limits for one slice.
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_HINTS: usize = 8;
/// How many ports all slices of an `Endpoints` have together: each slice has those of its subset.
const MAX_COPIED: usize = 100_000;

/// A `discovery.k8s.io/v1 EndpointSlice`.
pub(super) fn slice(root: &Field<'_>) -> Checked<EndpointSlice> {
    let meta = meta::meta(root, syntax::dns_subdomain)?;
    let field = root.get("addressType");
    let family = match field.required_text()? {
        "IPv4" => IpFamily::V4,
        "IPv6" => IpFamily::V6,
        "FQDN" => return refuse(&field, "FQDN slices are not supported: use IPv4 or IPv6"),
        other => return refuse(&field, format!("{other:?} is not one of IPv4, IPv6")),
    };
    let ports = ports(&root.get("ports"))?;
    let field = root.get("endpoints");
    let endpoints = each(&field, |item| {
        item.map()?;
        endpoint(item, family, &meta.key)
    })?;
    if endpoints.len() > MAX_ENDPOINTS {
        return refuse(
            &field,
            format!("has {} elements, and the limit is {MAX_ENDPOINTS}", endpoints.len()),
        );
    }
    Ok(EndpointSlice {
        key: meta.key,
        created: meta.created,
        labels: meta.labels,
        family,
        ports,
        endpoints,
    })
}

fn ports(field: &Field<'_>) -> Checked<Box<[SlicePort]>> {
    let mut names = BTreeSet::new();
    let ports = each(field, |item| {
        let name = item.get("name");
        let one = SlicePort {
            name: read(&name, |text| syntax::dns_label(text).map(|()| Box::from(text)))?
                .unwrap_or_default(),
            protocol: protocol(&item.get("protocol"))?,
            port: port(&item.get("port"))?,
        };
        if !names.insert(one.name.clone()) {
            return refuse(&name, format!("{:?} is already the name of another port", one.name));
        }
        Ok(one)
    })?;
    if ports.len() > MAX_PORTS {
        return refuse(
            field,
            format!("has {} elements, and the limit is {MAX_PORTS}", ports.len()),
        );
    }
    Ok(ports)
}

fn endpoint(item: &Field<'_>, family: IpFamily, key: &ObjectKey) -> Checked<SliceEndpoint> {
    let field = item.get("addresses");
    let addresses = each(&field, |item| {
        let address = required(item, syntax::unicast)?;
        if IpFamily::of(address) != family {
            return refuse(item, format!("{address} does not match the slice's addressType"));
        }
        Ok(address)
    })?;
    if !(1..=MAX_ADDRESSES).contains(&addresses.len()) {
        return refuse(&field, format!("needs 1 to {MAX_ADDRESSES} addresses"));
    }
    let conditions = item.get("conditions");
    let condition = |name| conditions.get(name).boolean();
    let ready = condition("ready")?.unwrap_or(true);
    Ok(SliceEndpoint {
        addresses,
        ready,
        serving: condition("serving")?.unwrap_or(ready),
        terminating: condition("terminating")?.unwrap_or(false),
        hostname: read(&item.get("hostname"), |text| {
            syntax::dns_label(text).map(|()| Arc::from(text))
        })?,
        node: read(&item.get("nodeName"), |text| {
            syntax::dns_subdomain(text).map(|()| Arc::from(text))
        })?,
        zone: read(&item.get("zone"), |text| syntax::label_value(text).map(|()| Arc::from(text)))?,
        hints: hints(&item.get("hints"))?,
        target: target(&item.get("targetRef"), key)?,
    })
}

fn hints(field: &Field<'_>) -> Checked<Option<Arc<Hints>>> {
    let names = |name: &str, rule: meta::Rule| {
        let field = field.get(name);
        let names = each(&field, |item| {
            required(&item.get("name"), |text| rule(text).map(|()| Box::from(text)))
        })?;
        if names.len() > MAX_HINTS {
            return refuse(
                &field,
                format!("has {} elements, and the limit is {MAX_HINTS}", names.len()),
            );
        }
        Ok(names)
    };
    let for_nodes = names("forNodes", syntax::dns_subdomain)?;
    let for_zones = names("forZones", syntax::label_value)?;
    let none = for_nodes.is_empty() && for_zones.is_empty();
    Ok((!none).then(|| Arc::new(Hints { for_nodes, for_zones })))
}

/// The pod that an endpoint is; other kinds of things are of no use here.
fn target(field: &Field<'_>, key: &ObjectKey) -> Checked<Option<Arc<ObjectKey>>> {
    let kind = field.get("kind").text()?;
    let Some(name) = field.get("name").text()?.filter(|_| kind.is_none_or(|kind| kind == "Pod"))
    else {
        return Ok(None);
    };
    let namespace = match field.get("namespace").text()? {
        Some(namespace) => namespace.into(),
        None => Arc::clone(&key.namespace),
    };
    Ok(Some(Arc::new(ObjectKey::new(namespace, name))))
}

/// A `v1 Endpoints`: a slice for every subset and family, named `NAME.endpoints.N`.
pub(super) fn endpoints(root: &Field<'_>) -> Checked<Vec<EndpointSlice>> {
    let meta = meta::meta(root, syntax::dns_1035)?;
    let (mut slices, mut copied) = (Vec::new(), 0);
    for subset in root.get("subsets").items()? {
        let ports = ports(&subset.get("ports"))?;
        let mut endpoints = Vec::new();
        for (name, ready) in [("addresses", true), ("notReadyAddresses", false)] {
            for item in subset.get(name).items()? {
                endpoints.push(address(&item, ready, &meta.key)?);
            }
        }
        for family in [IpFamily::V4, IpFamily::V6] {
            let of_family = |one: &&SliceEndpoint| IpFamily::of(one.addresses[0]) == family;
            let chosen: Vec<_> = endpoints.iter().filter(of_family).cloned().collect();
            copied += chosen.len().div_ceil(MAX_ENDPOINTS) * ports.len();
            if copied > MAX_COPIED {
                let reason = format!(
                    "has too many ports for its addresses: at most {MAX_COPIED} per \
                     {MAX_ENDPOINTS} addresses, over all subsets"
                );
                return refuse(&subset.get("ports"), reason);
            }
            for part in chosen.chunks(MAX_ENDPOINTS) {
                slices.push(part_of(&meta, slices.len(), (family, &ports, part)));
            }
        }
    }
    if slices.is_empty() {
        // So that there is something to store, list and delete.
        slices.push(part_of(&meta, 0, (IpFamily::V4, &[], &[])));
    }
    Ok(slices)
}

fn part_of(
    meta: &Meta,
    number: usize,
    (family, ports, endpoints): (IpFamily, &[SlicePort], &[SliceEndpoint]),
) -> EndpointSlice {
    let name = &meta.key.name;
    let mut labels = meta.labels.to_map();
    let own = [
        (EndpointSlice::SERVICE_NAME, &**name),
        (EndpointSlice::MANAGED_BY, EndpointSlice::FROM_ENDPOINTS),
    ];
    labels.extend(own.map(|(key, value)| (key.to_owned(), value.to_owned())));
    EndpointSlice {
        key: ObjectKey::new(Arc::clone(&meta.key.namespace), format!("{name}.endpoints.{number}")),
        created: meta.created,
        labels: labels.into_iter().collect(),
        family,
        ports: ports.into(),
        endpoints: endpoints.into(),
    }
}

fn address(item: &Field<'_>, ready: bool, key: &ObjectKey) -> Checked<SliceEndpoint> {
    let address: IpAddr = required(&item.get("ip"), syntax::unicast)?;
    Ok(SliceEndpoint {
        ready,
        serving: ready,
        hostname: read(&item.get("hostname"), |text| {
            syntax::dns_label(text).map(|()| Arc::from(text))
        })?,
        node: read(&item.get("nodeName"), |text| {
            syntax::dns_subdomain(text).map(|()| Arc::from(text))
        })?,
        target: target(&item.get("targetRef"), key)?,
        ..SliceEndpoint::ready(address)
    })
}
