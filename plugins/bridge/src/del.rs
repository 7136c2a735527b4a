//! DEL: from the record alone, or from what can be proven without one. Collects errors and
//! continues.

use std::path::Path;
use std::thread::ScopedJoinHandle;

use causeway_host::paths::kind;
use causeway_host::{RecordKey, Records, paths};
use causeway_kernel::{Link, LinkChange, LinkKind, Netlink, Netns, NetnsError};
use causeway_ruleset::name;
use cni_plugin::{Error, Request};
use ipnetwork::IpNetwork;
use serde_json::Value;

use crate::config::Removal;
use crate::ipam::Ipam;
use crate::record::{self, LOCK_WAIT, Record};
use crate::{fault, masq, plan, spoof};

/// Names looked at if no record tells the one that was taken.
const NAMES: u32 = 10;

/// An attachment to take apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Detachment<'a> {
    /// The request to run the IPAM plugin with; its `prev_result` and `netns` serve if there is
    /// no record.
    pub request: &'a Request,
    /// Whose.
    pub key: &'a RecordKey,
    /// `runDir`
    pub run_dir: &'a Path,
    /// Name of the bridge; empty in ptp mode.
    pub bridge: &'a str,
    /// IPAM plugin of the configuration.
    pub ipam: Option<&'a str>,
    /// The host's namespace.
    pub host: &'a Netlink,
}

/// Detaches the container of `request`. Succeeds if there is nothing to remove.
///
/// # Errors
/// All that could not be removed; the record then stays for the next DEL.
pub(crate) fn del(request: &Request) -> Result<(), Error> {
    let config = Removal::of(request)?;
    let key = &record::key(request);
    let records = Records::new(&config.run_dir, kind::BRIDGE);
    let mut errors = Vec::new();
    // Without a lock file, on a full disk for instance, links and rules still have to go.
    let _lock = match records.lock(key, LOCK_WAIT) {
        Ok(lock) => Some(lock),
        Err(error) if error.is_transient() => return Err(fault::kernel(error)),
        Err(error) => {
            errors.push(fault::kernel(error));
            None
        }
    };
    let host = &Netlink::open().map_err(fault::kernel)?;
    let detachment = Detachment {
        request,
        key,
        run_dir: &config.run_dir,
        bridge: &config.bridge,
        ipam: config.ipam.as_deref(),
        host,
    };
    let record = read(&records, key);
    errors.extend(detach(&detachment, record.as_ref()));
    if errors.is_empty() {
        errors.extend(forget(&config.run_dir, key, record.as_ref()));
    }
    fault::collected(errors)
}

/// Removes the record of a detached attachment; with the last one of the node, the rule tables.
/// Of two last DELs at once neither may have taken itself for the last while it removed its own
/// rules: whoever removes the last record sees it now.
pub(crate) fn forget(run_dir: &Path, key: &RecordKey, record: Option<&Record>) -> Vec<Error> {
    if let Err(error) = Records::new(run_dir, kind::BRIDGE).remove(key) {
        return vec![fault::kernel(error)];
    }
    let mut errors = Vec::new();
    errors.extend(forget_failure(run_dir, key).err());
    if let Some(record) = record
        && record::is_last(run_dir, 0)
    {
        // Neighbours may have changed by the time of the next attachment.
        drop(std::fs::remove_dir_all(paths::probed(run_dir)));
        if record.masq {
            errors.extend(masq::remove(run_dir, key, &[], true).err());
        }
        if record.spoof {
            errors.extend(spoof::remove(run_dir, key, &record.host_ifname, true).err());
        }
    }
    errors
}

/// Removes the note that the chain of an attachment has failed.
pub(crate) fn forget_failure(run_dir: &Path, key: &RecordKey) -> Result<(), Error> {
    let notes = record::failed(run_dir);
    match notes.read::<Value>(key) {
        Ok(None) => Ok(()),
        Ok(Some(_)) | Err(_) => notes.remove(key).map_err(fault::kernel),
    }
}

/// The record of `key`. A damaged one is as good as none: names and ownership do not hang on it.
pub(crate) fn read(records: &Records, key: &RecordKey) -> Option<Record> {
    records.read(key).unwrap_or_else(|error| {
        fault::warn(&format!("{}; continuing without it", fault::kernel(error)));
        None
    })
}

/// Removes link, lease and rules, begun in this order (row C69), and returns what failed. The
/// record stays. The container is cut off before its lease goes: nobody else may get an address
/// that it still answers for.
pub(crate) fn detach(what: &Detachment<'_>, record: Option<&Record>) -> Vec<Error> {
    let mut errors = Vec::new();
    let link = host_end(what, record).map_err(fault::kernel);
    let found = matches!(link, Ok(Some(_)));
    let mut cut_off = None;
    let removed = match link {
        Ok(Some(link)) => {
            let down = LinkChange { up: Some(false), ..LinkChange::default() };
            match what.host.change_link(link.index, &down) {
                Ok(()) => {
                    cut_off = Some(link.index);
                    Ok(())
                }
                Err(_) => what.host.delete_link(link.index).map_err(fault::kernel),
            }
        }
        Ok(None) if record.is_none() => remove_unrecorded(what),
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    errors.extend(removed.err());
    let holders = holders(what, record);
    let leased = !holders.is_empty();
    std::thread::scope(|scope| {
        let link = cut_off.map(|index| scope.spawn(move || delete(index)));
        let release =
            move || holders.iter().filter_map(|ipam| ipam.del().err()).collect::<Vec<_>>();
        let lease = leased.then(|| scope.spawn(release));
        let rules = remove_rules(what, record, found);
        errors.extend(link.map(joined).and_then(Result::err));
        errors.extend(lease.map(joined).into_iter().flatten());
        errors.extend(rules);
    });
    errors
}

/// The IPAM plugins that may hold the addresses: if the configuration names another one than at
/// the time of ADD, the one that gave them, or the one that took the leases over.
fn holders<'a>(what: &Detachment<'a>, record: Option<&'a Record>) -> Vec<Ipam<'a>> {
    let recorded = record.map(|record| record.ipam.as_str());
    let recorded = recorded.filter(|plugin| !plugin.is_empty() && Some(*plugin) != what.ipam);
    let plugins = what.ipam.into_iter().chain(recorded);
    plugins.map(|plugin| Ipam { plugin, request: what.request }).collect()
}

/// Deletes a link of the calling thread's namespace, on a connection of its own: the kernel
/// answers only when no processor looks at the link any more, which takes it some 20 milliseconds.
fn delete(index: u32) -> Result<(), Error> {
    Netlink::open().and_then(|host| host.delete_link(index)).map_err(fault::kernel)
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The host end of the attachment's veth pair: the recorded name, else the names that ADD would
/// take. The alias proves whose it is; a pair without one is ours only if our record names it,
/// having been written when that name was free (rows C68, F16).
///
/// # Errors
/// The kernel's refusal.
pub(crate) fn host_end(
    what: &Detachment<'_>,
    record: Option<&Record>,
) -> causeway_kernel::Result<Option<Link>> {
    let key = what.key;
    let owner = name::owner(&key.network, &key.container_id, &key.ifname);
    if let Some(record) = record.filter(|record| !record.host_ifname.is_empty()) {
        let link = what.host.link(&record.host_ifname)?;
        return Ok(link.filter(|link| {
            link.kind == LinkKind::Veth && link.alias.as_ref().is_none_or(|alias| *alias == owner)
        }));
    }
    for salt in 0..NAMES {
        match what.host.link(&plan::host_ifname(&owner, salt))? {
            None => return Ok(None),
            Some(link) if link.alias.as_deref() == Some(owner.as_str()) => return Ok(Some(link)),
            Some(_) => {}
        }
    }
    Ok(None)
}

/// The attachment of another plugin, an upstream `bridge` or `ptp` for instance (row F28): the container's
/// end goes if `prevResult` proves that it is the one attached, and nobody else claims it.
fn remove_unrecorded(what: &Detachment<'_>) -> Result<(), Error> {
    let Some((path, mac)) = attached_mac(what.request) else { return Ok(()) };
    let netns = match Netns::open(path) {
        Ok(netns) => netns,
        Err(NetnsError::NotFound { .. } | NetnsError::NotANetns { .. }) => return Ok(()),
        Err(error @ NetnsError::Io { .. }) => return Err(fault::netns(error)),
    };
    remove_inside(what, &netns, mac).map_err(fault::kernel)
}

/// Path of the namespace and address of the interface that `prevResult` says is attached there.
fn attached_mac(request: &Request) -> Option<(&str, &str)> {
    let path = request.netns.as_deref()?;
    let before = request.prev_result.as_ref()?;
    let interface = before.interfaces.iter().find(|interface| {
        interface.name == request.attachment.ifname && interface.sandbox == path
    })?;
    (!interface.mac.is_empty()).then_some((path, interface.mac.as_str()))
}

fn remove_inside(what: &Detachment<'_>, netns: &Netns, mac: &str) -> causeway_kernel::Result<()> {
    let inside = Netlink::open_in(netns)?;
    let Some(link) = inside.link(&what.key.ifname)? else { return Ok(()) };
    if link.kind != LinkKind::Veth || !plan::mac_text(link.mac).eq_ignore_ascii_case(mac) {
        return Ok(());
    }
    let Some(peer) = link.peer_index else { return Ok(()) };
    let peer = what.host.link_by_index(peer)?.filter(|peer| peer.peer_index == Some(link.index));
    let Some(peer) = peer.filter(|peer| peer.alias.is_none()) else { return Ok(()) };
    let bridge = match peer.master {
        Some(master) => what.host.link_by_index(master)?.map(|bridge| bridge.name),
        None => Some(String::new()),
    };
    if bridge.is_some_and(|bridge| bridge == what.bridge) {
        inside.delete_link(link.index)?;
    }
    Ok(())
}

/// Removes the rules and returns what failed. `found`: the attachment's link was there, so rules
/// may be even if no record tells of them.
fn remove_rules(what: &Detachment<'_>, record: Option<&Record>, found: bool) -> Vec<Error> {
    let (key, run_dir) = (what.key, what.run_dir);
    let last = record::is_last(run_dir, usize::from(record.is_some()));
    let mut errors = Vec::new();
    if record.is_none() {
        errors.extend(masq::remove_upstreams(run_dir, key).err());
    }
    if let Some(record) = record {
        errors.extend(remove_recorded_rules(run_dir, key, record));
    } else if found {
        errors.extend(remove_rules_by_owner(run_dir, key));
    } else {
        let addresses = attached_addresses(what.request);
        if !addresses.is_empty() {
            errors.extend(masq::remove(run_dir, key, &addresses, last).err());
        }
    }
    errors
}

/// Removes the rules that bear the attachment's mark, and returns what failed.
pub(crate) fn remove_rules_by_owner(run_dir: &Path, key: &RecordKey) -> Vec<Error> {
    let owner = name::owner(&key.network, &key.container_id, &key.ifname);
    let keep = |comment: &str| comment != owner;
    let masq = masq::gc(run_dir, &key.network, &keep);
    let spoof = spoof::gc(run_dir, &key.network, &keep);
    masq.err().into_iter().chain(spoof.err()).collect()
}

/// Removes the rules that a record tells of, and returns what failed.
pub(crate) fn remove_recorded_rules(
    run_dir: &Path,
    key: &RecordKey,
    record: &Record,
) -> Vec<Error> {
    let last = record::is_last(run_dir, 1);
    let mut errors = Vec::new();
    if record.masq && !record.addresses.is_empty() {
        errors.extend(masq::remove(run_dir, key, &record.addresses, last).err());
    }
    if record.spoof {
        errors.extend(spoof::remove(run_dir, key, &record.host_ifname, last).err());
    }
    errors
}

fn attached_addresses(request: &Request) -> Vec<IpNetwork> {
    let before = request.prev_result.iter();
    before.flat_map(|before| before.ips.iter().map(|ip| ip.address)).collect()
}
