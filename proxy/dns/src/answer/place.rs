//! What stands at a name: found from its end, label by label.

use std::net::IpAddr;
use std::ops::Range;

use hickory_proto::rr::Name;

use super::names::{dashed, undashed};
use crate::zone::{PodRecords, ServiceNames, Zone};

/// A name of ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found<'a> {
    pub(super) place: Place<'a>,
    /// How many labels of the name, counted from its end, are its zone: the owner of SOA and NS.
    pub(super) apex: usize,
}

/// What stands at a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place<'a> {
    /// Nothing: NXDOMAIN.
    Missing,
    /// Nothing, but something below it, or what it has is of another kind: NODATA (row D-15).
    Empty,
    /// A zone begins.
    Apex,
    /// The version of the specification (row D-01).
    Version,
    /// The name server itself.
    NameServer,
    /// An address that the name says.
    Address(IpAddr),
    /// A service with cluster addresses, or a headless one with all its hosts.
    Service(&'a ServiceNames),
    /// A port of a service.
    Port(&'a ServiceNames, usize),
    /// Hosts of a headless service by their name: those of a host name, and the one of an address.
    Hosts(&'a ServiceNames, Range<usize>, Option<usize>),
    /// Hosts of a headless service in one topology zone.
    Zonal(&'a ServiceNames, String),
    /// An ExternalName.
    Alias(&'a ServiceNames),
    /// Names of an address.
    Reverse(IpAddr),
}

/// What stands at a name of the domain.
pub(super) fn find<'a>(zone: &'a Zone, name: &Name) -> Found<'a> {
    let apex = zone.settings().domain.iter().len();
    let mut labels = name.iter().rev().skip(apex);
    let place = below_domain(zone, &mut labels).unwrap_or(Place::Missing);
    Found { place, apex }
}

/// `None` if nothing stands there.
fn below_domain<'a, 'n>(
    zone: &'a Zone,
    labels: &mut impl Iterator<Item = &'n [u8]>,
) -> Option<Place<'a>> {
    let is = |label: &[u8], word: &str| label.eq_ignore_ascii_case(word.as_bytes());
    match labels.next() {
        None => Some(Place::Apex),
        Some(label) if is(label, "svc") => below_svc(zone, labels),
        Some(label) if is(label, "pod") => below_pod(zone, labels),
        Some(label) if is(label, "dns-version") => only(labels, Place::Version),
        Some(label) if is(label, "dns") => match labels.next() {
            None => Some(Place::Empty),
            Some(label) if is(label, "ns") => only(labels, Place::NameServer),
            Some(_) => None,
        },
        Some(_) => None,
    }
}

/// A place that has none below it.
fn only<'a, 'n>(
    labels: &mut impl Iterator<Item = &'n [u8]>,
    place: Place<'a>,
) -> Option<Place<'a>> {
    labels.next().is_none().then_some(place)
}

fn below_svc<'a, 'n>(
    zone: &'a Zone,
    labels: &mut impl Iterator<Item = &'n [u8]>,
) -> Option<Place<'a>> {
    let Some(namespace) = labels.next() else { return Some(Place::Empty) };
    let (mut buffer, mut other) = ([0; 63], [0; 63]);
    let namespace = lower(namespace, &mut buffer)?;
    let Some(name) = labels.next() else {
        return zone.has_namespace(namespace).then_some(Place::Empty);
    };
    let service = zone.service(namespace, lower(name, &mut other)?)?;
    if service.is_external() {
        return only(labels, Place::Alias(service));
    }
    below_service(zone, service, labels)
}

fn below_service<'a, 'n>(
    zone: &Zone,
    service: &'a ServiceNames,
    labels: &mut impl Iterator<Item = &'n [u8]>,
) -> Option<Place<'a>> {
    let empty = service.is_headless() && service.hosts().is_empty();
    let Some(label) = labels.next() else {
        return (!empty).then_some(Place::Service(service));
    };
    let mut buffer = [0; 63];
    let label = lower(label, &mut buffer)?;
    if label == "_zone" && zone.settings().zonal && service.is_headless() {
        return zonal(service, labels);
    }
    if empty {
        return None;
    }
    let Some(protocol) = label.strip_prefix('_') else {
        return only(labels, host(service, label)?);
    };
    let has_protocol = |index: usize| {
        let port = &service.ports()[index];
        port.protocol.name().eq_ignore_ascii_case(protocol) && !port.name.is_empty()
    };
    let mut ports = (0..service.ports().len()).filter(|index| has_protocol(*index));
    let Some(label) = labels.next() else { return ports.next().map(|_| Place::Empty) };
    let mut buffer = [0; 63];
    let name = lower(label, &mut buffer)?.strip_prefix('_')?;
    let port = ports.find(|index| &*service.ports()[*index].name == name)?;
    // A headless service's port that no endpoint has leads nowhere.
    let dead = service.is_headless() && service.hosts_of_port(port).is_empty();
    if dead { None } else { only(labels, Place::Port(service, port)) }
}

/// Row D-06.
fn host<'a>(service: &'a ServiceNames, label: &str) -> Option<Place<'a>> {
    let by_name = service.hosts_by_name(label);
    let address = undashed(label).filter(|address| dashed(*address) == label);
    let by_address = address.and_then(|address| service.host_by_address(address));
    let found = !by_name.is_empty() || by_address.is_some();
    found.then_some(Place::Hosts(service, by_name, by_address))
}

/// `ZONE.pin._zone` and `ZONE.prefer._zone`; a zone may have dots (row D-22b).
fn zonal<'a, 'n>(
    service: &'a ServiceNames,
    labels: &mut impl Iterator<Item = &'n [u8]>,
) -> Option<Place<'a>> {
    let Some(label) = labels.next() else { return Some(Place::Empty) };
    let prefer = label.eq_ignore_ascii_case(b"prefer");
    if !prefer && !label.eq_ignore_ascii_case(b"pin") {
        return None;
    }
    let mut topology = String::new();
    for label in labels {
        let dot = if topology.is_empty() { "" } else { "." };
        topology = format!("{}{dot}{topology}", str::from_utf8(label).ok()?.to_ascii_lowercase());
    }
    if topology.is_empty() {
        return Some(Place::Empty);
    }
    let there = service.hosts().iter().any(|host| in_zone(host.zone.as_deref(), &topology));
    match (there, prefer) {
        (true, _) => Some(Place::Zonal(service, topology)),
        (false, false) => Some(Place::Empty),
        (false, true) => (!service.hosts().is_empty()).then_some(Place::Service(service)),
    }
}

/// Whether a host's topology zone is the one that was asked for, in whatever case.
pub(super) fn in_zone(zone: Option<&str>, asked: &str) -> bool {
    zone.is_some_and(|zone| zone.eq_ignore_ascii_case(asked))
}

/// Row D-18.
fn below_pod<'a, 'n>(
    zone: &'a Zone,
    labels: &mut impl Iterator<Item = &'n [u8]>,
) -> Option<Place<'a>> {
    let Some(namespace) = labels.next() else { return Some(Place::Empty) };
    let mode = zone.settings().pods;
    let mut buffer = [0; 63];
    let namespace = lower(namespace, &mut buffer)?;
    if mode == PodRecords::Disabled || !zone.has_namespace(namespace) {
        return None;
    }
    let Some(label) = labels.next() else { return Some(Place::Empty) };
    let mut buffer = [0; 63];
    let address = undashed(lower(label, &mut buffer)?)?;
    if mode == PodRecords::Verified && !zone.has_pod(namespace, address) {
        return None;
    }
    only(labels, Place::Address(address))
}

/// A label in lower case; `None` if it is not text.
fn lower<'b>(label: &[u8], buffer: &'b mut [u8; 63]) -> Option<&'b str> {
    let buffer = buffer.get_mut(..label.len())?;
    buffer.copy_from_slice(label);
    buffer.make_ascii_lowercase();
    str::from_utf8(buffer).ok()
}
