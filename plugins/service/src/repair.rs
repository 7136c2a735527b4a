//! Host ports come back from the attachments' records after another process flushed them.
//!
//! What DEL removes does not come back: both hold the rules' lock, and the records are read under it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use causeway_host::paths::kind;
use causeway_host::{RecordKey, Records};
use cni_plugin::Error;
use ipnetwork::IpNetwork;

use crate::config::IptablesOptions;
use crate::iptables::{self, Wanted};
use crate::mapping::{Addresses, Binding};
use crate::nftables::{Owned, Rules};
use crate::plan::Holder;
use crate::record::{Mark, Record, RecordBackend, lock_rules};
use crate::{failure, flows, turns};

/// Among so many other attachments an ADD looks for those that tell.
const SAMPLE: usize = 4;

/// What of the host ports of the attachments below `run_dir` is missing, a line for each
/// attachment. Changes nothing.
///
/// # Errors
/// Records or rules could not be read.
pub fn missing(run_dir: &Path) -> Result<Vec<String>, Error> {
    run(run_dir, false)
}

/// Puts back what is missing, and returns it as [`missing`] does.
///
/// # Errors
/// Code 11 if the same call may go through later, else 5.
pub fn restore(run_dir: &Path) -> Result<Vec<String>, Error> {
    let _rules = lock_rules(run_dir)?;
    run(run_dir, true)
}

/// Restores everything if an attachment beside `key` lacks rules. For an ADD, whose cost is not to
/// grow with the number of attachments: of those with each backend one tells, as a flush meets all.
pub(crate) fn restore_where_flushed(run_dir: &Path, key: &RecordKey) -> Result<(), Error> {
    let records = Records::new(run_dir, kind::SERVICE);
    let others = records.some_beside(key, SAMPLE);
    let others: Vec<RecordKey> = others.map_err(|e| failure::kernel("list the records", &e))?;
    let mut told = Vec::new();
    // Those that are being added have not got everything yet.
    for key in others.into_iter().filter(|key| !records.is_busy(key)) {
        let Ok(Some(record)) = records.read::<Record>(&key) else { continue };
        if told.contains(&record.backend) {
            continue;
        }
        let Some((key, record)) = in_force(vec![(key, record)], &records).pop() else { continue };
        if lacks(&key, &record)? {
            return restore(run_dir).map(drop);
        }
        told.push(record.backend);
    }
    Ok(())
}

/// Whether it has nothing in place.
fn lacks(key: &RecordKey, record: &Record) -> Result<bool, Error> {
    match record.backend {
        RecordBackend::Nftables => {
            let Some(holder) = Holder::new(key.clone(), record.clone()) else { return Ok(false) };
            let owned = Owned { record: &holder.record, owner: &holder.owner };
            let mut rules = Rules::open()?;
            Ok(!rules.missing(owned)?.is_empty() || !rules.damaged()?.is_empty())
        }
        RecordBackend::Iptables => {
            Ok(!iptables::restore(&BTreeMap::new(), &[wanted(key, record)], false)?.is_empty())
        }
    }
}

/// `some` with the mappings in force; their containers may have more attachments.
fn in_force(some: Vec<(RecordKey, Record)>, records: &Records) -> Vec<(RecordKey, Record)> {
    let own = |(key, record): (RecordKey, Record)| {
        let siblings = siblings(records, &key);
        let own = turns::in_force(&key, &record, &siblings);
        (key, own)
    };
    let alive = some.into_iter().filter(|(_, record)| !record.again.leaving);
    alive.map(own).filter(|(_, record)| !record.bindings.is_empty()).collect()
}

/// The records of the container's other attachments.
pub(crate) fn siblings(records: &Records, key: &RecordKey) -> Vec<(RecordKey, Record)> {
    let keys = records.of_container(&key.container_id).unwrap_or_default();
    let others = keys.into_iter().filter(|other| other != key);
    others.filter_map(|key| Some((key.clone(), records.read::<Record>(&key).ok()??))).collect()
}

fn run(run_dir: &Path, write: bool) -> Result<Vec<String>, Error> {
    let records = Records::new(run_dir, kind::SERVICE);
    let all = records.readable::<Record>();
    let all = all.map_err(|e| failure::kernel("read the attachments' records", &e))?;
    let mut containers: BTreeMap<String, Vec<(RecordKey, Record)>> = BTreeMap::new();
    for (key, record) in all.into_iter().filter(|(_, record)| !record.again.leaving) {
        containers.entry(key.container_id.clone()).or_default().push((key, record));
    }
    let mut nftables = Vec::new();
    let mut iptables = Vec::new();
    // Those that are being added have not got everything yet, and those that leave lose it. Who
    // writes has the lock that both need.
    let settled = |key: &RecordKey| write || !records.is_busy(key);
    for attached in containers.values().filter(|all| all.iter().all(|(key, _)| settled(key))) {
        for (key, record) in attached {
            let record = turns::in_force(key, record, attached);
            match record.backend {
                RecordBackend::Nftables => nftables.extend(Holder::new(key.clone(), record)),
                RecordBackend::Iptables if record.bindings.is_empty() => {}
                RecordBackend::Iptables => iptables.push((key.clone(), record)),
            }
        }
    }
    let mut lacking: Vec<(&RecordKey, &Record)> = Vec::new();
    if !nftables.is_empty() {
        let mut rules = Rules::open()?;
        let restored = rules.restore(&nftables, write)?;
        let mut places: BTreeSet<usize> = restored.lacking;
        if places.is_empty() && !restored.ops.is_empty() {
            // Without the base nobody's mapping works.
            places.extend(0..nftables.len());
        }
        lacking
            .extend(places.iter().map(|place| (&nftables[*place].key, &nftables[*place].record)));
    }
    if !iptables.is_empty() {
        let wanted: Vec<Wanted> =
            iptables.iter().map(|(key, record)| wanted(key, record)).collect();
        let places = iptables::restore(&BTreeMap::new(), &wanted, write)?;
        lacking.extend(places.iter().map(|place| (&iptables[*place].0, &iptables[*place].1)));
    }
    let stays = |key: &RecordKey| {
        let record = records.read::<Record>(key).ok().flatten();
        settled(key) && record.is_some_and(|record| !record.again.leaving)
    };
    lacking.retain(|(key, _)| stays(key));
    if write {
        let bindings: Vec<Binding> =
            lacking.iter().flat_map(|(_, record)| record.bindings.clone()).collect();
        flows::forget_host_ports(&bindings);
    }
    Ok(lacking.into_iter().map(|(key, record)| described(key, record)).collect())
}

/// What iptables is to hold for a record.
pub(crate) fn wanted(key: &RecordKey, record: &Record) -> Wanted {
    let again = &record.again;
    let options = IptablesOptions {
        mark: again.mark.clone().unwrap_or_else(Mark::usual),
        conditions_v4: again.conditions_v4.clone(),
        conditions_v6: again.conditions_v6.clone(),
    };
    let of = |ipv6: bool| {
        let recorded = again.addresses.iter().find(|net| net.is_ipv6() == ipv6).copied();
        // An older version recorded no prefix length.
        let target = record.bindings.iter().map(|one| one.target.ip());
        recorded.or_else(|| target.filter(|ip| ip.is_ipv6() == ipv6).map(IpNetwork::from).next())
    };
    let addresses = Addresses { v4: of(false), v6: of(true) };
    Wanted::new(key, record, &options, &addresses)
}

fn described(key: &RecordKey, record: &Record) -> String {
    let ports: Vec<String> = record.bindings.iter().map(Binding::host_side).collect();
    let RecordKey { network, container_id, ifname } = key;
    format!("host ports {} of {network}/{container_id}/{ifname}", ports.join(", "))
}
