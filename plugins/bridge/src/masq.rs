//! Masquerade: what containers send out of their network leaves with the node's address.
//!
//! ```text
//! table inet causeway_masq
//!   map sources4 / sources6    address of a container -> jump x-<hash>, comment: owner
//!   chain postrouting          two lookups, whatever the number of containers
//!   chain x-<hash>             return for what keeps its source, else masquerade
//! ```
//!
//! An `x-` chain is named by its content and never changes, so containers of equal subnet and
//! exclusions share one. The busy path is two short reads and one transaction of additions, without a
//! lock; everything that compares before it writes holds `runDir/rules.lock`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use causeway_host::RecordKey;
use causeway_nft::Client;
use causeway_ruleset::owned::{Claim, Layout, Missing, Placed, Question};
use causeway_ruleset::{
    BaseChain, ChainSpec, DataType, Element, ElementValue, Family, Field, Hook, Key, MapTarget,
    Match, Rule, SetSpec, Statement, TableId, Verdict, name,
};
use cni_plugin::{Code, Error};
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use crate::rules::{self, Table};

mod iptables;
#[cfg(test)]
mod tests;

/// The masquerade of one attachment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Masquerade<'a> {
    /// Whose.
    pub(crate) key: &'a RecordKey,
    /// The container's addresses; the prefix lengths tell its own subnets.
    pub(crate) addresses: &'a [IpNetwork],
    /// Destinations that see the container's own address, beside its subnets and multicast.
    pub(crate) exclude: &'a [IpNetwork],
    /// `runDir`, where `rules.lock` lies.
    pub(crate) run_dir: &'a Path,
    /// Who writes the rules.
    pub(crate) backend: Backend,
}

/// Who writes the rules: `ipMasqBackend`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Backend {
    /// This process, by netlink.
    #[default]
    Nftables,
    /// The program `iptables-restore`, with upstream's chains.
    Iptables,
}

impl Backend {
    /// Reads `ipMasqBackend`; empty is absent.
    ///
    /// # Errors
    /// Code 2 naming the value and what to write instead.
    pub(crate) fn parse(value: &str) -> Result<Self, Error> {
        match value {
            "" | "nftables" => Ok(Self::Nftables),
            "iptables" => Ok(Self::Iptables),
            other => Err(Error::new(
                Code::UnsupportedField,
                format!(
                    "ipMasqBackend: {other:?} is not supported, use \"nftables\" or \"iptables\", \
                     or omit it for nftables"
                ),
            )),
        }
    }
}

/// Has the addresses masqueraded. Calling it again is fine; an address that another attachment
/// left behind is taken over (row F40); rules that another process flushed are written again (row
/// F38).
///
/// # Errors
/// Code 11 if the same call may go through later, else 5.
pub(crate) fn add(wanted: &Masquerade<'_>) -> Result<(), Error> {
    if wanted.backend == Backend::Iptables {
        return iptables::add(wanted);
    }
    in_table(&mut rules::client()?).add(wanted.run_dir, &claim(wanted))
}

/// Takes the masquerade of `addresses` back if it belongs to `key`. `last`: this node has no
/// other attachment, so the table goes too unless another program keeps something in it.
///
/// # Errors
/// Code 11 if the same call may go through later, else 5. Absence is none.
pub(crate) fn remove(
    run_dir: &Path,
    key: &RecordKey,
    addresses: &[IpNetwork],
    last: bool,
) -> Result<(), Error> {
    if iptables::remove(run_dir, key)? {
        return Ok(());
    }
    rules::deleting(run_dir, layout(), |table| table.remove(key, questions(addresses), last))
}

/// Removes what upstream's bridge left to an attachment that we have no record of.
///
/// # Errors
/// As [`remove`].
pub(crate) fn remove_upstreams(run_dir: &Path, key: &RecordKey) -> Result<(), Error> {
    iptables::remove_upstreams(run_dir, key)
}

/// Whether everything that [`add`] makes is there. Changes nothing.
///
/// # Errors
/// The first thing that is missing or differs.
pub(crate) fn check(wanted: &Masquerade<'_>) -> Result<(), Error> {
    if wanted.backend == Backend::Iptables {
        return iptables::check(wanted);
    }
    check_in_table(&mut rules::client()?, wanted)
}

fn check_in_table(client: &mut Client, wanted: &Masquerade<'_>) -> Result<(), Error> {
    let claim = claim(wanted);
    let missing = in_table(client).missing(&claim)?;
    missing.map_or(Ok(()), |missing| {
        Err(rules::differs(match missing {
            Missing::Rules => "ipMasq: rules of table inet causeway_masq are missing: another \
                               process flushed them"
                .to_owned(),
            Missing::Element(place) => format!(
                "ipMasq: {} of table inet causeway_masq does not contain {} for this attachment",
                claim.elements[place].set.name,
                wanted.addresses[place].ip()
            ),
        }))
    })
}

/// Removes the masquerade of every attachment of `network` whose owner comment `keep` refuses.
///
/// # Errors
/// As [`remove`].
pub(crate) fn gc(run_dir: &Path, network: &str, keep: &dyn Fn(&str) -> bool) -> Result<(), Error> {
    let iptables = iptables::gc(run_dir, network, keep);
    let nftables = rules::deleting(run_dir, layout(), |table| table.gc(network, keep));
    iptables.and(nftables)
}

/// Puts in place what of `wanted` is missing in nftables, or only looks (`write` false). Returns the
/// places that lacked something. Called under the lock if it writes. An address that another
/// attachment has stays its own.
///
/// # Errors
/// As [`add`].
pub(crate) fn restore(wanted: &[Masquerade<'_>], write: bool) -> Result<BTreeSet<usize>, Error> {
    if wanted.is_empty() {
        return Ok(BTreeSet::new());
    }
    let claims: Vec<Claim> = wanted.iter().map(claim).collect();
    in_table(&mut rules::client()?).restore(&claims, write)
}

/// As [`restore`], for the attachments whose rules are in iptables and whom `alive` accepts.
///
/// # Errors
/// As [`add`].
pub(crate) fn restore_iptables(
    run_dir: &Path,
    alive: &dyn Fn(&RecordKey) -> bool,
    write: bool,
) -> Result<BTreeSet<RecordKey>, Error> {
    iptables::restore(run_dir, alive, write)
}

/// The attachments whose masquerade is in iptables.
pub(crate) fn in_iptables(run_dir: &Path) -> BTreeSet<RecordKey> {
    iptables::all(run_dir)
}

/// The table by a connection.
fn in_table(client: &mut Client) -> Table<'_> {
    Table { client, layout: layout() }
}

/// What [`add`] wants of the table.
fn claim(wanted: &Masquerade<'_>) -> Claim {
    let nets = exclusions(wanted.addresses, wanted.exclude);
    let chain = ChainSpec { name: exclusion_chain(&nets), base: None };
    let owner = rules::owner(wanted.key);
    let elements = wanted.addresses.iter().map(|address| {
        let (set, key) = source(address.ip());
        let value = ElementValue::Verdict(Verdict::Jump(chain.name.clone()));
        Placed { set, element: Element { key, value: Some(value), comment: Some(owner.clone()) } }
    });
    Claim { elements: elements.collect(), chains: vec![(chain, exclusion_rules(nets))] }
}

/// Where the elements of `addresses` are.
fn questions(addresses: &[IpNetwork]) -> Vec<Question> {
    addresses.iter().map(|address| source(address.ip())).collect()
}

fn table() -> TableId {
    TableId { family: Family::Inet, name: "causeway_masq".to_owned() }
}

fn source_map(name: &str, key: DataType) -> SetSpec {
    SetSpec {
        name: name.to_owned(),
        key: vec![key],
        target: Some(MapTarget::Verdict),
        interval: false,
        dynamic: false,
        timeout_ms: None,
    }
}

fn sets() -> [SetSpec; 2] {
    [source_map("sources4", DataType::Ipv4Addr), source_map("sources6", DataType::Ipv6Addr)]
}

/// The map that `address` belongs to, and its key there.
fn source(address: IpAddr) -> (SetSpec, Key) {
    let [v4, v6] = sets();
    let set = if address.is_ipv4() { v4 } else { v6 };
    (set, Key::Exact(vec![address.into()]))
}

fn layout() -> Layout {
    let lookup = |field, map: &str| Rule {
        statements: vec![Statement::VerdictMap { fields: vec![field], map: map.to_owned() }],
        comment: None,
    };
    let base = BaseChain {
        kind: "nat".to_owned(),
        hook: Hook::Postrouting,
        priority: 100,
        policy_drop: false,
    };
    let postrouting = ChainSpec { name: "postrouting".to_owned(), base: Some(base) };
    let rules = vec![lookup(Field::IpSaddr, "sources4"), lookup(Field::Ip6Saddr, "sources6")];
    Layout {
        is_claimed: is_exclusion_chain,
        ..Layout::new(table(), sets().into(), vec![(postrouting, rules)])
    }
}

/// What keeps its source: the container's subnets, `exclude` and multicast. Sorted, so that the
/// order of a configuration's list makes no other chain.
fn exclusions(addresses: &[IpNetwork], exclude: &[IpNetwork]) -> BTreeSet<IpNetwork> {
    addresses.iter().chain(exclude).map(network).chain(multicast()).collect()
}

/// Return for each of `nets`, then masquerade.
fn exclusion_rules(nets: BTreeSet<IpNetwork>) -> Vec<Rule> {
    let mut rules: Vec<Rule> = nets.into_iter().map(keep_source).collect();
    rules.push(Rule { statements: vec![Statement::Masquerade { random: true }], comment: None });
    rules
}

fn keep_source(net: IpNetwork) -> Rule {
    let field = if net.is_ipv4() { Field::IpDaddr } else { Field::Ip6Daddr };
    Rule {
        statements: vec![
            Statement::Match(Match::Net { field, negate: false, net }),
            Statement::Verdict(Verdict::Return),
        ],
        comment: None,
    }
}

/// The network that an address with prefix length lies in.
fn network(address: &IpNetwork) -> IpNetwork {
    IpNetwork::new(address.network(), address.prefix()).unwrap_or(*address)
}

fn multicast() -> [IpNetwork; 2] {
    let v4 = Ipv4Network::new(Ipv4Addr::new(224, 0, 0, 0), 4);
    let v6 = Ipv6Network::new(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8);
    [IpNetwork::V4(v4.expect("4 <= 32")), IpNetwork::V6(v6.expect("8 <= 128"))]
}

/// A name for what `nets` say: 18 characters, of the 31 that a chain may have.
fn exclusion_chain(nets: &BTreeSet<IpNetwork>) -> String {
    let texts: Vec<String> = nets.iter().map(IpNetwork::to_string).collect();
    let parts: Vec<&str> = texts.iter().map(String::as_str).collect();
    format!("x-{}", name::hash_hex(&parts, 16))
}

/// Whether a chain of that name is one of [`exclusion_chain`]'s.
fn is_exclusion_chain(name: &str) -> bool {
    name.strip_prefix("x-").is_some_and(|hash| hash.len() == 16)
}
