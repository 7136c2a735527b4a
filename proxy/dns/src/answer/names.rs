//! Names that are answered, put together without detours.

use std::net::IpAddr;

use hickory_proto::rr::Name;
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use crate::zone::{Host, ServiceNames, Zone};

/// A name of labels; `None` if one is longer than 63 bytes, or all are than 255.
pub(super) fn of<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Option<Name> {
    let mut bytes = [0; 256];
    let mut at = 0;
    for label in labels {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?;
        bytes.get_mut(at + 1..at + 1 + label.len())?.copy_from_slice(label);
        bytes[at] = length;
        at += 1 + label.len();
    }
    let bytes = bytes.get(..=at)?;
    Name::read(&mut BinDecoder::new(bytes)).ok()
}

/// A name below the domain.
pub(super) fn below(zone: &Zone, labels: &[&str]) -> Option<Name> {
    of(labels.iter().map(|label| label.as_bytes()).chain(zone.settings().domain.iter()))
}

/// The name of a service.
pub(super) fn service(zone: &Zone, names: &ServiceNames) -> Option<Name> {
    below(zone, &[&names.key().name, &names.key().namespace, "svc"])
}

/// The name of an endpoint of a service.
pub(super) fn host(zone: &Zone, names: &ServiceNames, host: &Host) -> Option<Name> {
    let key = names.key();
    match &host.hostname {
        Some(hostname) => below(zone, &[hostname, &key.name, &key.namespace, "svc"]),
        None => below(zone, &[&dashed(host.address), &key.name, &key.namespace, "svc"]),
    }
}

/// What an ExternalName stands for; `None` if that cannot be a name in DNS.
pub(super) fn external(names: &ServiceNames) -> Option<Name> {
    let text = names.external_name()?;
    let text = text.strip_suffix('.').unwrap_or(text);
    of(text.split('.').map(str::as_bytes))
}

/// The label of an address: `10-0-1-2`, `5678-abcd--1` (row D-06).
pub(super) fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

/// The address that a label says, if it is written as [`dashed`] writes it or, for names of pods, in
/// another way that addresses are written.
pub(super) fn undashed(label: &str) -> Option<IpAddr> {
    if let Ok(v4) = label.replace('-', ".").parse() {
        return Some(IpAddr::V4(v4));
    }
    label.replace('-', ":").parse().ok().map(IpAddr::V6)
}
