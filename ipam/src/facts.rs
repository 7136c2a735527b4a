//! What is read from the machine: clock, boot id, files that other programs write. Everything here
//! is an argument to the rest.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use causeway_host::paths::kind;
use causeway_host::{NodeFile, RecordKey, Records, boot_id, boot_time};
use cni_plugin::{Code, Dns, Error};
use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde_json::Value;

use crate::allocator::Now;
use crate::range::canonical;
use crate::store::{Lease, Owner};

/// The moment this is called.
pub(crate) fn now() -> Now {
    #[expect(clippy::disallowed_methods, reason = "the edge's single clock read")]
    let unix = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let boot_ms = boot_time().as_millis();
    Now {
        unix,
        boot_ms: u64::try_from(boot_ms).unwrap_or(u64::MAX),
        boot: boot_id().unwrap_or_default(),
    }
}

/// The node's subnets, from the daemon's file.
///
/// # Errors
/// Code 11 while the file is absent or names none, with the daemon's reason (`subnetRefused`) if
/// it gives one; 6 when it does not decode, 5 when it cannot be read.
pub(crate) fn node_subnets(path: &Path) -> Result<Vec<IpNetwork>, Error> {
    let shown = path.display();
    let failed = |error: io::Error| {
        if error.kind() == io::ErrorKind::InvalidData {
            return undecodable(path, &error.to_string());
        }
        Error::caused(Code::Io, format!("read {shown}"), &error)
    };
    let file = NodeFile::read(path).map_err(failed)?;
    let Some(file) = file else {
        return Err(without_subnet(None).details(format!("{shown} does not exist")));
    };
    match file.subnets.get().map_err(failed)? {
        Some(subnets) if !subnets.is_empty() => Ok(subnets),
        Some(_) => {
            let none = without_subnet(file.refused.if_valid());
            Err(none.details(format!("{shown} lists no subnet")))
        }
        None => Err(undecodable(path, "`subnets` is absent")),
    }
}

fn undecodable(path: &Path, why: &str) -> Error {
    let msg = format!("{} does not contain the node's subnets", path.display());
    Error::new(Code::Decode, msg).details(why)
}

/// Why the node has no subnet: the daemon says, or has not got one yet.
fn without_subnet(refused: Option<String>) -> Error {
    let msg = match refused.filter(|why| !why.is_empty()) {
        Some(why) => format!("the node has no subnet for \"subnet\": \"auto\": {why}"),
        None => "the node has no subnet yet: \"subnet\": \"auto\" waits for causewayd".to_owned(),
    };
    Error::new(Code::TryAgainLater, msg)
}

/// `resolvConf` as name service settings: the file's `nameserver`, `domain`, `search`, `options`.
///
/// # Errors
/// Code 5 when the file cannot be read.
pub(crate) fn resolv_conf(path: &Path) -> Result<Dns, Error> {
    let text = std::fs::read(path).map_err(|error| {
        Error::caused(Code::Io, format!("read ipam.resolvConf {}", path.display()), &error)
    })?;
    Ok(parse_resolv_conf(&String::from_utf8_lossy(&text)))
}

fn parse_resolv_conf(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let Some(keyword) = words.next() else { continue };
        match keyword.as_str() {
            "nameserver" => dns.nameservers.extend(words.next()),
            "domain" => dns.domain = words.next().unwrap_or(dns.domain),
            "search" => dns.search.extend(words),
            "options" => dns.options.extend(words),
            _ => {}
        }
    }
    dns
}

/// What a record of the bridge plugin says, as far as it concerns leases.
#[derive(Deserialize)]
struct Attached {
    /// `10.0.1.2/16`
    #[serde(default)]
    addresses: Vec<Value>,
}

/// The addresses of the network's live attachments, from the records of the bridge plugin. What
/// cannot be read is left out: a record is a help here, not a condition.
pub(crate) fn attached(run_dir: &Path, network: &str) -> Vec<Lease> {
    let of_network = records(run_dir).into_iter().filter(|(key, _)| key.network == network);
    let mut leases: Vec<Lease> =
        of_network.flat_map(|(key, record)| record_leases(key, &record)).collect();
    leases.sort_unstable_by_key(|lease| lease.address);
    leases.dedup_by_key(|lease| lease.address);
    leases
}

/// The networks that have live attachments, from the same records.
pub(crate) fn attached_networks(run_dir: &Path) -> BTreeSet<String> {
    records(run_dir).into_iter().map(|(key, _)| key.network).collect()
}

fn records(run_dir: &Path) -> Vec<(RecordKey, Attached)> {
    Records::new(run_dir, kind::BRIDGE).readable_in_part()
}

fn record_leases(key: RecordKey, record: &Attached) -> Vec<Lease> {
    let owner = Owner { container_id: key.container_id, ifname: key.ifname };
    let addresses = record.addresses.iter();
    addresses
        .filter_map(|address| address.as_str()?.parse::<IpNetwork>().ok())
        .map(|network| canonical(network.ip()))
        .map(|address: IpAddr| Lease { address, owner: owner.clone(), since: 0, boot_ms: 0 })
        .collect()
}

#[cfg(test)]
mod tests;
