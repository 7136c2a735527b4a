//! `macspoofchk`: a container can send only from its own Ethernet address.
//!
//! ```text
//! table bridge causeway_spoof
//!   set guarded     host ends that are checked, comment: owner
//!   set allowed     host end . Ethernet address, comment: owner
//!   map addresses   host end : Ethernet address; tells DEL what to delete from `allowed`
//!   chain prerouting   allowed accept, guarded drop, whatever the number of containers
//! ```

use std::collections::BTreeSet;
use std::path::Path;

use causeway_kernel::{Mac, RecordKey};
use causeway_nft::Client;
use causeway_ruleset::{
    BaseChain, Batch, ChainSpec, DataType, Element, ElementValue, Family, Field, Hook, Key,
    MapTarget, Match, RegValue, Rule, SetSpec, Statement, TableId, Verdict, name,
};
use cni_plugin::Error;

use crate::rules::{self, Base};

#[cfg(test)]
mod tests;

/// Drops what comes in through `host_ifname` from another address than `mac`. Calling it again is
/// fine, also with another address.
///
/// # Errors
/// Code 11 if the same call may go through later, else 5.
pub(crate) fn add(
    run_dir: &Path,
    key: &RecordKey,
    host_ifname: &str,
    mac: Mac,
) -> Result<(), Error> {
    let wanted = elements(&rules::owner(key), host_ifname, mac);
    let base = base();
    let mut client = rules::client()?;
    if stands(&base, &mut client)? {
        let ops = wanted.iter().map(|(set, e)| rules::insert(&base.table, set, e.clone()));
        match client.commit(&Batch { ops: ops.collect(), generation: None }) {
            Ok(()) => return Ok(()),
            Err(e) if e.is_exists() || e.is_not_found() || e.is_transient() => {}
            Err(e) => return Err(rules::refused(&e)),
        }
    }
    let _lock = rules::lock(run_dir)?;
    establish(&base, &mut client, host_ifname, &wanted)
}

/// Takes the check of `host_ifname` back where it belongs to `key`. `last`: this node has no
/// other attachment, so the table goes too unless another program keeps something in it.
///
/// # Errors
/// Code 11 if the same call may go through later, else 5. Absence is none.
pub(crate) fn remove(
    run_dir: &Path,
    key: &RecordKey,
    host_ifname: &str,
    last: bool,
) -> Result<(), Error> {
    let _lock = rules::lock(run_dir)?;
    let Some(mut client) = rules::deleting_client()? else { return Ok(()) };
    let owner = rules::owner(key);
    let ours = |element: &Element| element.comment.as_ref() == Some(&owner);
    if last && base().drop_if_spent(&mut client, &|_| false, &ours)? {
        return Ok(());
    }
    let mut present = held(&mut client, host_ifname)?;
    present.retain(|(_, element)| ours(element));
    rules::delete_all(&mut client, &table(), present)
}

/// Whether everything that [`add`] makes is there. Changes nothing.
///
/// # Errors
/// The first thing that is missing or differs.
pub(crate) fn check(key: &RecordKey, host_ifname: &str, mac: Mac) -> Result<(), Error> {
    let base = base();
    let mut client = rules::client()?;
    if !stands(&base, &mut client)? {
        return Err(rules::differs(
            "macspoofchk: rules of table bridge causeway_spoof are missing: another process \
             flushed them",
        ));
    }
    for (set, element) in elements(&rules::owner(key), host_ifname, mac) {
        let present =
            client.element(&base.table, &set, &element.key).map_err(|e| rules::refused(&e))?;
        if present.as_ref() != Some(&element) {
            return Err(rules::differs(format!(
                "macspoofchk: {} of table bridge causeway_spoof does not contain {host_ifname} \
                 with the address of this attachment",
                set.name
            )));
        }
    }
    Ok(())
}

/// Removes the check of every attachment of `network` whose owner comment `keep` refuses.
///
/// # Errors
/// As [`remove`].
pub(crate) fn gc(run_dir: &Path, network: &str, keep: &dyn Fn(&str) -> bool) -> Result<(), Error> {
    let _lock = rules::lock(run_dir)?;
    let Some(mut client) = rules::deleting_client()? else { return Ok(()) };
    let prefix = name::owner_network_prefix(network);
    let mut present = Vec::new();
    for set in sets() {
        let elements = client.elements(&table(), &set).map_err(|e| rules::refused(&e))?;
        let stale = elements.into_iter().filter(|element| {
            element.comment.as_ref().is_some_and(|o| o.starts_with(&prefix) && !keep(o))
        });
        present.extend(stale.map(|element| (set.clone(), element)));
    }
    rules::delete_all(&mut client, &table(), present)?;
    base().drop_if_spent(&mut client, &|_| false, &|_| false).map(drop)
}

/// Puts in place what of `wanted` (attachment, host end, its address) is missing, or only looks
/// (`write` false). Returns the places that lacked something. Called under the lock if it writes.
///
/// # Errors
/// As [`add`].
pub(crate) fn restore(
    wanted: &[(&RecordKey, &str, Mac)],
    write: bool,
) -> Result<BTreeSet<usize>, Error> {
    if wanted.is_empty() {
        return Ok(BTreeSet::new());
    }
    let mut client = rules::client()?;
    rules::restored(&mut client, &table(), write, |state| {
        let mut ops = base().restore(state);
        let mut lacking: BTreeSet<usize> =
            if ops.is_empty() { BTreeSet::new() } else { (0..wanted.len()).collect() };
        let held = rules::held(state);
        for (place, (key, host_ifname, mac)) in wanted.iter().enumerate() {
            for (set, element) in elements(&rules::owner(key), host_ifname, *mac) {
                let there = held.get(&(set.name.as_str(), &element.key)).copied();
                let changes = rules::restore(&table(), &set, there, &element);
                if !changes.is_empty() {
                    lacking.insert(place);
                }
                ops.extend(changes);
            }
        }
        (ops, lacking)
    })
}

/// A foreign flush of the table leaves the sets alone: only the rules tell.
fn stands(base: &Base, client: &mut Client) -> Result<bool, Error> {
    let present = client.rules(&base.table, &base.chain.name).map_err(|e| rules::refused(&e))?;
    Ok(base.is_intact(&present))
}

/// Makes everything as wanted, under the lock.
fn establish(
    base: &Base,
    client: &mut Client,
    host_ifname: &str,
    wanted: &[(SetSpec, Element)],
) -> Result<(), Error> {
    let table = &base.table;
    let mut tries = rules::TRIES;
    loop {
        let present = client.rules(table, &base.chain.name).map_err(|e| rules::refused(&e))?;
        let mut ops = base.repair(&present);
        // The name is this attachment's alone, so whatever is kept under it is a dead one's.
        let left = held(client, host_ifname)?;
        ops.extend(left.into_iter().map(|(set, e)| rules::delete(table, &set, e.key)));
        ops.extend(wanted.iter().map(|(set, e)| rules::insert(table, set, e.clone())));
        tries -= 1;
        match client.commit(&Batch { ops, generation: None }) {
            Ok(()) => return Ok(()),
            // An adder of the busy path or a foreign flush came between.
            Err(e) if tries > 0 && (e.is_exists() || e.is_not_found() || e.is_transient()) => {}
            Err(e) => return Err(rules::refused(&e)),
        }
    }
}

/// The elements kept under `host_ifname`.
fn held(client: &mut Client, host_ifname: &str) -> Result<Vec<(SetSpec, Element)>, Error> {
    let [guarded, allowed, addresses] = sets();
    let by_name = Key::Exact(vec![RegValue::IfName(host_ifname.to_owned())]);
    let mut present = Vec::new();
    let mut look = |set: SetSpec, key: &Key| {
        let element = client.element(&table(), &set, key).map_err(|e| rules::refused(&e))?;
        present.extend(element.clone().map(|element| (set, element)));
        Ok(element)
    };
    look(guarded, &by_name)?;
    let address = look(addresses, &by_name)?.and_then(|element| element.value);
    if let Some(ElementValue::Data(mac)) = address {
        let mut pair = vec![RegValue::IfName(host_ifname.to_owned())];
        pair.extend(mac);
        look(allowed, &Key::Exact(pair))?;
    }
    Ok(present)
}

fn elements(owner: &str, host_ifname: &str, mac: Mac) -> [(SetSpec, Element); 3] {
    let [guarded, allowed, addresses] = sets();
    let host = RegValue::IfName(host_ifname.to_owned());
    let mac = RegValue::Mac(mac.0);
    let element = |key: Vec<RegValue>, value| Element {
        key: Key::Exact(key),
        value,
        comment: Some(owner.to_owned()),
    };
    [
        (guarded, element(vec![host.clone()], None)),
        (allowed, element(vec![host.clone(), mac.clone()], None)),
        (addresses, element(vec![host], Some(ElementValue::Data(vec![mac])))),
    ]
}

fn table() -> TableId {
    TableId { family: Family::Bridge, name: "causeway_spoof".to_owned() }
}

fn sets() -> [SetSpec; 3] {
    let set = |name: &str, key: &[DataType], target| SetSpec {
        name: name.to_owned(),
        key: key.to_vec(),
        target,
        interval: false,
        dynamic: false,
        timeout_ms: None,
    };
    [
        set("guarded", &[DataType::IfName], None),
        set("allowed", &[DataType::IfName, DataType::EtherAddr], None),
        set("addresses", &[DataType::IfName], Some(MapTarget::Data(vec![DataType::EtherAddr]))),
    ]
}

fn base() -> Base {
    let rule = |fields: &[Field], set: &str, verdict| Rule {
        statements: vec![
            Statement::Match(Match::InSet {
                fields: fields.to_vec(),
                set: set.to_owned(),
                negate: false,
            }),
            Statement::Verdict(verdict),
        ],
        comment: None,
    };
    Base {
        table: table(),
        sets: sets().into(),
        chain: ChainSpec {
            name: "prerouting".to_owned(),
            base: Some(BaseChain {
                kind: "filter".to_owned(),
                hook: Hook::Prerouting,
                priority: -300,
                policy_drop: false,
            }),
        },
        rules: vec![
            rule(&[Field::IifName, Field::EtherSaddr], "allowed", Verdict::Accept),
            rule(&[Field::IifName], "guarded", Verdict::Drop),
        ],
    }
}
