//! Masquerade and address checks come back from the attachments' records after another process
//! flushed them.
//!
//! What DEL removes does not come back: both hold the rules' lock, the records are read under it, and
//! DEL takes the host end down before anything else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use causeway_host::paths::kind;
use causeway_host::{RecordKey, Records};
use causeway_kernel::{Link, Netlink};
use cni_plugin::Error;
use ipnetwork::IpNetwork;

use crate::masq::{self, Backend, Masquerade};
use crate::record::Record;
use crate::{fault, node, rules, spoof};

const MASQUERADE: &str = "masquerade";

/// Among so many other attachments an ADD looks for those that tell.
const SAMPLE: usize = 4;

/// What of the masquerade and the address checks of the attachments below `run_dir` is missing, a
/// line for each. Changes nothing.
///
/// # Errors
/// Records, links or rules could not be read.
pub fn missing(run_dir: &Path) -> Result<Vec<String>, Error> {
    let records = Records::new(run_dir, kind::BRIDGE);
    let mut all = records.readable::<Record>().map_err(fault::kernel)?;
    // Those that are being added have not got everything yet, and those that leave lose it.
    all.retain(|(key, _)| !records.is_busy(key));
    let missing = run(run_dir, all, false)?;
    let stays = |key: &RecordKey| {
        !records.is_busy(key) && records.read::<Record>(key).is_ok_and(|record| record.is_some())
    };
    Ok(described(missing.into_iter().filter(|(_, key)| stays(key))))
}

/// Puts back what is missing, and returns it as [`missing`] does.
///
/// # Errors
/// Code 11 if the same call may go through later, else 5.
pub fn restore(run_dir: &Path) -> Result<Vec<String>, Error> {
    let _rules = rules::lock(run_dir)?;
    let records = Records::new(run_dir, kind::BRIDGE).readable::<Record>();
    let missing = run(run_dir, records.map_err(fault::kernel)?, true)?;
    Ok(described(missing.into_iter()))
}

/// Restores everything if an attachment beside `key` lacks rules. For an ADD, whose cost is not to
/// grow with the number of attachments: of those with each kind of rules one tells, as a flush meets
/// all.
pub(crate) fn restore_where_flushed(run_dir: &Path, key: &RecordKey) -> Result<(), Error> {
    let records = Records::new(run_dir, kind::BRIDGE);
    let others = records.some_beside(key, SAMPLE).map_err(fault::kernel)?;
    let read = |key: RecordKey| Some((key.clone(), records.read::<Record>(&key).ok()??));
    // Those that are being added have not got everything yet.
    let settled = others.into_iter().filter(|key| !records.is_busy(key));
    let some: Vec<_> = settled.filter_map(read).collect();
    let in_iptables = masq::in_iptables(run_dir);
    let exclude = node::never_masqueraded(run_dir)?;
    let (mut masq_told, mut spoof_told) = (false, false);
    for (key, record) in &some {
        let wanted = masquerade(run_dir, key, record, &exclude)
            .filter(|_| !masq_told && !in_iptables.contains(key));
        let mac = guard(record).filter(|_| !spoof_told);
        if (wanted.is_none() && mac.is_none()) || !is_alive(record, host_end(record)?.as_ref()) {
            continue;
        }
        if wanted.as_ref().is_some_and(|wanted| masq::check(wanted).is_err())
            || mac.is_some_and(|mac| spoof::check(key, &record.host_ifname, mac).is_err())
        {
            return restore(run_dir).map(drop);
        }
        masq_told |= wanted.is_some();
        spoof_told |= mac.is_some();
    }
    if some.iter().any(|(key, _)| in_iptables.contains(key))
        && !masq::restore_iptables(run_dir, &|key| some.iter().any(|(one, _)| one == key), false)?
            .is_empty()
    {
        return restore(run_dir).map(drop);
    }
    Ok(())
}

fn host_end(record: &Record) -> Result<Option<Link>, Error> {
    Netlink::open().and_then(|host| host.link(&record.host_ifname)).map_err(fault::kernel)
}

/// Whether the attachment's host end is there and up: DEL takes it down first.
fn is_alive(record: &Record, link: Option<&Link>) -> bool {
    let owner = rules::owner(&record.key);
    link.is_some_and(|link| link.up && link.alias.as_ref().is_none_or(|alias| *alias == owner))
}

/// `usual`: what an older version, which did not record it, took from the node file or was told.
fn masquerade<'a>(
    run_dir: &'a Path,
    key: &'a RecordKey,
    record: &'a Record,
    usual: &'a [IpNetwork],
) -> Option<Masquerade<'a>> {
    (record.masq && !record.addresses.is_empty()).then(|| Masquerade {
        key,
        addresses: &record.addresses,
        exclude: record.masq_exclude.as_deref().unwrap_or(usual),
        run_dir,
        backend: Backend::Nftables,
    })
}

/// The address that the host end is checked for.
fn guard(record: &Record) -> Option<causeway_kernel::Mac> {
    record.mac.parse().ok().filter(|_| record.spoof)
}

fn run(
    run_dir: &Path,
    records: Vec<(RecordKey, Record)>,
    write: bool,
) -> Result<Vec<(&'static str, RecordKey)>, Error> {
    let mut records = records;
    records.retain(|(_, record)| record.masq || record.spoof);
    if records.is_empty() {
        return Ok(Vec::new());
    }
    let links = Netlink::open().and_then(|host| host.links()).map_err(fault::kernel)?;
    let links: BTreeMap<&str, &Link> =
        links.iter().map(|link| (link.name.as_str(), link)).collect();
    records.retain(|(_, record)| is_alive(record, links.get(record.host_ifname.as_str()).copied()));
    let alive: BTreeSet<&RecordKey> = records.iter().map(|(key, _)| key).collect();
    let in_iptables = masq::in_iptables(run_dir);
    let usual = node::never_masqueraded(run_dir)?;
    let of_nftables = records.iter().filter(|(key, _)| !in_iptables.contains(key));
    let wanted: Vec<Masquerade<'_>> =
        of_nftables.filter_map(|(key, record)| masquerade(run_dir, key, record, &usual)).collect();
    let mut missing = Vec::new();
    let lacking = masq::restore(&wanted, write)?;
    missing.extend(lacking.iter().map(|place| (MASQUERADE, wanted[*place].key.clone())));
    if !in_iptables.is_empty() {
        let lacking = masq::restore_iptables(run_dir, &|key| alive.contains(key), write)?;
        missing.extend(lacking.into_iter().map(|key| (MASQUERADE, key)));
    }
    let guarded: Vec<_> = records
        .iter()
        .filter_map(|(key, record)| Some((key, record.host_ifname.as_str(), guard(record)?)))
        .collect();
    let lacking = spoof::restore(&guarded, write)?;
    missing.extend(lacking.iter().map(|place| ("address check", guarded[*place].0.clone())));
    Ok(missing)
}

fn described(missing: impl Iterator<Item = (&'static str, RecordKey)>) -> Vec<String> {
    missing
        .map(|(what, RecordKey { network, container_id, ifname })| {
            format!("{what} of {network}/{container_id}/{ifname}")
        })
        .collect()
}
