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

use causeway_host::RecordKey;
use causeway_kernel::Mac;
use causeway_nft::Client;
use causeway_ruleset::owned::{Claim, Layout, Missing, Placed, Question};
use causeway_ruleset::{
    BaseChain, ChainSpec, DataType, Element, ElementValue, Family, Field, Hook, Key, MapTarget,
    Match, RegValue, Rule, SetSpec, Statement, TableId, Verdict,
};
use cni_plugin::Error;

use crate::rules::{self, Table};

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
    in_table(&mut rules::client()?).add(run_dir, &claim(key, host_ifname, mac))
}

/// Takes the check of `host_ifname` back if it belongs to `key`. `last`: this node has no
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
    rules::deleting(run_dir, layout(), |table| table.remove(key, questions(host_ifname), last))
}

/// Whether everything that [`add`] makes is there. Changes nothing.
///
/// # Errors
/// The first thing that is missing or differs.
pub(crate) fn check(key: &RecordKey, host_ifname: &str, mac: Mac) -> Result<(), Error> {
    check_in_table(&mut rules::client()?, key, host_ifname, mac)
}

fn check_in_table(
    client: &mut Client,
    key: &RecordKey,
    host_ifname: &str,
    mac: Mac,
) -> Result<(), Error> {
    let claim = claim(key, host_ifname, mac);
    let missing = in_table(client).missing(&claim)?;
    missing.map_or(Ok(()), |missing| {
        Err(rules::differs(match missing {
            Missing::Rules => {
                "macspoofchk: rules of table bridge causeway_spoof are missing: another \
                               process flushed them"
                    .to_owned()
            }
            Missing::Element(place) => format!(
                "macspoofchk: {} of table bridge causeway_spoof does not contain {host_ifname} \
                 with the address of this attachment",
                claim.elements[place].set.name
            ),
        }))
    })
}

/// Removes the check of every attachment of `network` whose owner comment `keep` refuses.
///
/// # Errors
/// As [`remove`].
pub(crate) fn gc(run_dir: &Path, network: &str, keep: &dyn Fn(&str) -> bool) -> Result<(), Error> {
    rules::deleting(run_dir, layout(), |table| table.gc(network, keep))
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
    let claims: Vec<Claim> =
        wanted.iter().map(|(key, host_ifname, mac)| claim(key, host_ifname, *mac)).collect();
    in_table(&mut rules::client()?).restore(&claims, write)
}

/// The table by a connection.
fn in_table(client: &mut Client) -> Table<'_> {
    Table { client, layout: layout() }
}

/// What [`add`] wants of the table.
fn claim(key: &RecordKey, host_ifname: &str, mac: Mac) -> Claim {
    let [guarded, allowed, addresses] = sets();
    let owner = rules::owner(key);
    let host = RegValue::IfName(host_ifname.to_owned());
    let mac = RegValue::Mac(mac.0);
    let placed = |set, key: Vec<RegValue>, value| {
        let element = Element { key: Key::Exact(key), value, comment: Some(owner.clone()) };
        Placed { set, element }
    };
    let elements = vec![
        placed(guarded, vec![host.clone()], None),
        placed(allowed, vec![host.clone(), mac.clone()], None),
        placed(addresses, vec![host], Some(ElementValue::Data(vec![mac]))),
    ];
    Claim { chains: Vec::new(), elements }
}

/// Where the elements of `host_ifname` are whose address is not known. The name is one attachment's
/// alone, so whatever is kept under it is its own or a dead one's.
fn questions(host_ifname: &str) -> Vec<Question> {
    let [guarded, _, addresses] = sets();
    let by_name = Key::Exact(vec![RegValue::IfName(host_ifname.to_owned())]);
    vec![(guarded, by_name.clone()), (addresses, by_name)]
}

/// The element of `allowed` that one of `addresses` tells of.
fn allowed_with(placed: &Placed) -> Option<Question> {
    let [_, allowed, addresses] = sets();
    let Placed { set, element } = placed;
    match (&element.key, &element.value) {
        (Key::Exact(name), Some(ElementValue::Data(mac))) if *set == addresses => {
            Some((allowed, Key::Exact([name.as_slice(), mac].concat())))
        }
        _ => None,
    }
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

fn layout() -> Layout {
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
    let base = BaseChain {
        kind: "filter".to_owned(),
        hook: Hook::Prerouting,
        priority: -300,
        policy_drop: false,
    };
    let prerouting = ChainSpec { name: "prerouting".to_owned(), base: Some(base) };
    let rules = vec![
        rule(&[Field::IifName, Field::EtherSaddr], "allowed", Verdict::Accept),
        rule(&[Field::IifName], "guarded", Verdict::Drop),
    ];
    Layout {
        companion: allowed_with,
        ..Layout::new(table(), sets().into(), vec![(prerouting, rules)])
    }
}
