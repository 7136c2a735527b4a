//! What the plugins made: found by the marks they set and the records they keep.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use causeway_host::paths::{self, BRIDGE_ALIAS, VXLAN_ALIAS, kind};
use causeway_host::{RecordKey, Records};
use causeway_kernel::{Link, LinkKind, Netlink, Sysctl};
use causeway_nft::Client;
use causeway_ruleset::{Batch, Family, Op, TableId, name};
use serde_json::Value;

use super::Done;
use crate::backend;
use crate::files;

/// Kinds of records.
const KINDS: [&str; 3] = [kind::BRIDGE, kind::SERVICE, kind::ENDPOINT];

/// Why something is left.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Links.
    #[error("remove links")]
    Links(#[from] causeway_kernel::Error),
    /// Tables of nftables.
    #[error("remove tables")]
    Tables(#[from] causeway_nft::Error),
    /// Chains of iptables.
    #[error("remove chains of host ports")]
    Chains(#[from] backend::Error),
    /// Files.
    #[error("remove {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Whether a container is attached, as far as can be told: what cannot be read may be one.
pub(super) fn exist(run_dir: &Path) -> bool {
    KINDS.iter().any(|kind| !Records::new(run_dir, kind).is_empty().unwrap_or(false))
}

/// Removes attachments and their traces, or only lists them.
///
/// # Errors
/// See [`Error`].
pub(super) fn remove(run_dir: &Path, data_dir: &Path, dry_run: bool) -> Result<Vec<Done>, Error> {
    let records = records(run_dir);
    let mut removed = chains(&records, dry_run)?;
    removed.extend(links(&records, dry_run)?);
    removed.extend(tables(dry_run)?);
    let mut done: Vec<Done> = removed.into_iter().map(Done::Removed).collect();
    done.extend(localnet(run_dir, dry_run)?.into_iter().map(Done::Restored));
    done.extend(leases(run_dir, data_dir, dry_run)?.into_iter().map(Done::Removed));
    for (path, what) in [
        (
            paths::attachments(run_dir),
            match records.len() {
                1 => "1 attachment record".to_owned(),
                count => format!("{count} attachment records"),
            },
        ),
        (paths::route_localnet(run_dir), String::new()),
        (paths::rules_lock(run_dir), String::new()),
        (paths::probed(run_dir), String::new()),
        (paths::gateways_lock(run_dir), String::new()),
        (paths::data_dirs(run_dir), String::new()),
        (paths::networks(run_dir), String::new()),
        (paths::networks_lock(run_dir), String::new()),
        (data_dir.to_owned(), format!("leases in {}", data_dir.display())),
    ] {
        if !path.exists() {
            continue;
        }
        if !what.is_empty() {
            done.push(Done::Removed(what));
        }
        if !dry_run {
            files::remove(&path).map_err(|source| Error::File { path, source })?;
        }
    }
    Ok(done)
}

/// Leases in directories that networks' configurations name. What else is in those stays.
fn leases(run_dir: &Path, data_dir: &Path, dry_run: bool) -> Result<Vec<String>, Error> {
    let mut removed = Vec::new();
    for path in causeway_ipam::noted_data_dirs(run_dir) {
        if path == data_dir || !path.exists() {
            continue;
        }
        removed.push(format!("leases in {}", path.display()));
        if !dry_run {
            causeway_ipam::remove_leases(&path).map_err(|source| Error::File { path, source })?;
        }
    }
    Ok(removed)
}

/// What a record says of where its traces are.
struct Record {
    key: RecordKey,
    bridge: Option<String>,
    host_ifname: Option<String>,
    iptables: bool,
}

/// All records that decode; those that do not have their marks in the kernel still.
fn records(run_dir: &Path) -> Vec<Record> {
    let mut records = Vec::new();
    for kind in KINDS {
        let networks = entries(&paths::attachments(run_dir).join(kind));
        for path in networks.iter().flat_map(|network| entries(network)) {
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let text = std::fs::read(&path).unwrap_or_default();
            let Ok(value) = serde_json::from_slice::<Value>(&text) else { continue };
            let Ok(key) = serde_json::from_value(value["key"].clone()) else { continue };
            let text = |name: &str| value["record"][name].as_str().map(str::to_owned);
            records.push(Record {
                key,
                bridge: text("bridge"),
                host_ifname: text("host_ifname"),
                iptables: value["record"]["backend"] == "iptables",
            });
        }
    }
    records
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Host ends, vxlan devices, and bridges without other ports.
fn links(records: &[Record], dry_run: bool) -> Result<Vec<String>, Error> {
    let netlink = Netlink::open()?;
    let links = netlink.links()?;
    let mut removed = Vec::new();
    let mut gone = BTreeSet::new();
    for link in links.iter().filter(|link| is_veth(link, records) || is_vxlan(link)) {
        removed.push(format!("link {}", link.name));
        gone.insert(link.index);
        delete(&netlink, link, dry_run)?;
    }
    let left: Vec<&Link> = links.iter().filter(|link| !gone.contains(&link.index)).collect();
    for bridge in left.iter().filter(|link| is_bridge(link, records)) {
        if left.iter().any(|port| port.master == Some(bridge.index)) {
            continue;
        }
        removed.push(format!("bridge {}", bridge.name));
        delete(&netlink, bridge, dry_run)?;
    }
    Ok(removed)
}

fn delete(netlink: &Netlink, link: &Link, dry_run: bool) -> Result<(), Error> {
    if dry_run {
        return Ok(());
    }
    match netlink.delete_link(link.index) {
        Err(error) if error.is_not_found() => Ok(()),
        result => Ok(result?),
    }
}

/// Its alias is an owner's mark, or it has none and a record names it.
fn is_veth(link: &Link, records: &[Record]) -> bool {
    if link.kind != LinkKind::Veth {
        return false;
    }
    let Some(alias) = link.alias.as_deref() else {
        return records.iter().any(|record| record.host_ifname.as_ref() == Some(&link.name));
    };
    let network = alias.split_once(' ').and_then(|(_, rest)| rest.split_once('/'));
    network.is_some_and(|(network, _)| alias.starts_with(&name::owner_network_prefix(network)))
}

fn is_vxlan(link: &Link) -> bool {
    link.alias.as_deref().is_some_and(|alias| alias.starts_with(VXLAN_ALIAS))
}

fn is_bridge(link: &Link, records: &[Record]) -> bool {
    link.is_bridge()
        && match link.alias.as_deref() {
            Some(alias) => alias == BRIDGE_ALIAS,
            None => records.iter().any(|record| record.bridge.as_ref() == Some(&link.name)),
        }
}

fn tables(dry_run: bool) -> Result<Vec<String>, Error> {
    let Some(mut client) = Client::open_if_supported()? else { return Ok(Vec::new()) };
    let mut removed = Vec::new();
    for (family, shown, name) in [
        (Family::Inet, "inet", "causeway_masq"),
        (Family::Inet, "inet", "causeway_hostport"),
        (Family::Bridge, "bridge", "causeway_spoof"),
    ] {
        let table = TableId { family, name: name.to_owned() };
        let there = match dry_run {
            true => client.table(&table)?.is_some(),
            false => {
                let batch = Batch { ops: vec![Op::DeleteTable(table)], generation: None };
                match client.commit(&batch) {
                    Err(error) if error.is_not_found() => false,
                    result => result.map(|()| true)?,
                }
            }
        };
        if there {
            removed.push(format!("nftables table {shown} {name}"));
        }
    }
    Ok(removed)
}

/// Chains of host ports that iptables carries, whose comment names network and container.
fn chains(records: &[Record], dry_run: bool) -> Result<Vec<String>, Error> {
    let comments: BTreeSet<String> = records
        .iter()
        .filter(|record| record.iptables)
        .map(|Record { key, .. }| {
            format!("dnat name: \\\"{}\\\" id: \\\"{}\\\"", key.network, key.container_id)
        })
        .collect();
    if comments.is_empty() {
        return Ok(Vec::new());
    }
    Ok(backend::remove_host_ports(&comments, dry_run)?)
}

/// `route_localnet` of interfaces, which a file each says was off before the plugins.
fn localnet(run_dir: &Path, dry_run: bool) -> Result<Vec<String>, Error> {
    let here = Sysctl { netns: None };
    let folders = entries(&paths::route_localnet(run_dir));
    let mut restored = Vec::new();
    let names: BTreeSet<String> = folders
        .iter()
        .flat_map(|folder| entries(folder))
        .filter_map(|path| path.file_name()?.to_str().map(str::to_owned))
        .collect();
    for name in names {
        let key = format!("net/ipv4/conf/{name}/route_localnet");
        if here.read(&key)?.as_deref() == Some("1") {
            restored.push(format!("sysctl {key}: 1 -> 0"));
            if !dry_run {
                here.ensure(&[(key, "0")])?;
            }
        }
    }
    Ok(restored)
}
