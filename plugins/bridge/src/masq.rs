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

use causeway_kernel::RecordKey;
use causeway_nft::Client;
use causeway_ruleset::{
    BaseChain, Batch, ChainSpec, DataType, Element, ElementValue, Family, Field, Hook, Key,
    MapTarget, Match, Op, Rule, SetSpec, Statement, TableId, TableState, Verdict, name,
};
use cni_plugin::{Code, Error};
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use crate::rules::{self, Base};

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
    let plan = Plan::new(wanted);
    let mut client = rules::client()?;
    if plan.stands(&mut client)? {
        match client.commit(&plan.additions()) {
            Ok(()) => return Ok(()),
            Err(e) if e.is_exists() || e.is_not_found() || e.is_transient() => {}
            Err(e) => return Err(rules::refused(&e)),
        }
    }
    let _lock = rules::lock(wanted.run_dir)?;
    plan.establish(&mut client)
}

/// Takes the masquerade of `addresses` back where it belongs to `key`. `last`: this node has no
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
    let _lock = rules::lock(run_dir)?;
    let Some(mut client) = rules::deleting_client()? else { return Ok(()) };
    let owner = rules::owner(key);
    let ours = |element: &Element| element.comment.as_ref() == Some(&owner);
    if last && base().drop_if_spent(&mut client, &is_exclusion_chain, &ours)? {
        return Ok(());
    }
    let mut present = Vec::new();
    for address in addresses {
        let (set, key) = source(address.ip());
        let element = client.element(&table(), &set, &key).map_err(|e| rules::refused(&e))?;
        present.extend(element.filter(&ours).map(|element| (set, element)));
    }
    delete(&mut client, present)
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
    let plan = Plan::new(wanted);
    let mut client = rules::client()?;
    if !plan.stands(&mut client)? {
        return Err(rules::differs(
            "ipMasq: rules of table inet causeway_masq are missing: another process flushed them",
        ));
    }
    for (address, (set, element)) in wanted.addresses.iter().zip(&plan.elements) {
        let present =
            client.element(&table(), set, &element.key).map_err(|e| rules::refused(&e))?;
        if present.as_ref() != Some(element) {
            return Err(rules::differs(format!(
                "ipMasq: {} of table inet causeway_masq does not contain {} for this attachment",
                set.name,
                address.ip()
            )));
        }
    }
    Ok(())
}

/// Removes the masquerade of every attachment of `network` whose owner comment `keep` refuses.
///
/// # Errors
/// As [`remove`].
pub(crate) fn gc(run_dir: &Path, network: &str, keep: &dyn Fn(&str) -> bool) -> Result<(), Error> {
    let iptables = iptables::gc(run_dir, network, keep);
    let nftables = gc_elements(run_dir, network, keep);
    iptables.and(nftables)
}

fn gc_elements(run_dir: &Path, network: &str, keep: &dyn Fn(&str) -> bool) -> Result<(), Error> {
    let _lock = rules::lock(run_dir)?;
    let Some(mut client) = rules::deleting_client()? else { return Ok(()) };
    let prefix = name::owner_network_prefix(network);
    let stale = |element: &Element| {
        element.comment.as_ref().is_some_and(|owner| owner.starts_with(&prefix) && !keep(owner))
    };
    let mut present = Vec::new();
    for set in sets() {
        let elements = client.elements(&table(), &set).map_err(|e| rules::refused(&e))?;
        present.extend(elements.into_iter().filter(&stale).map(|element| (set.clone(), element)));
    }
    delete(&mut client, present)?;
    base().drop_if_spent(&mut client, &is_exclusion_chain, &|_| false).map(drop)
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
    let mut client = rules::client()?;
    rules::restored(&mut client, &table(), write, |state| missing(wanted, state))
}

fn missing(wanted: &[Masquerade<'_>], state: &TableState) -> (Vec<Op>, BTreeSet<usize>) {
    let (table, base) = (table(), base());
    let rules = |chain: &str| {
        state.chains.get(chain).map(|(_, rules)| rules.as_slice()).unwrap_or_default()
    };
    let mut ops = base.restore(state);
    let mut lacking: BTreeSet<usize> =
        if ops.is_empty() { BTreeSet::new() } else { (0..wanted.len()).collect() };
    let held = rules::held(state);
    let mut made = BTreeSet::new();
    for (place, one) in wanted.iter().enumerate() {
        let plan = Plan::new(one);
        let chain = &plan.exclusions.name;
        if !plan.excludes(rules(chain)) {
            lacking.insert(place);
            if made.insert(chain.clone()) {
                ops.push(Op::AddChain(table.clone(), plan.exclusions.clone()));
                ops.push(Op::FlushChain(table.clone(), chain.clone()));
                let rules = plan.exclusion_rules.iter();
                ops.extend(rules.map(|rule| rules::append(&table, chain, rule)));
            }
        }
        for (set, element) in &plan.elements {
            let there = held.get(&(set.name.as_str(), &element.key)).copied();
            let changes = rules::restore(&table, set, there, element);
            if !changes.is_empty() {
                lacking.insert(place);
            }
            ops.extend(changes);
        }
    }
    (ops, lacking)
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

/// What [`add`] wants of the kernel.
struct Plan {
    base: Base,
    exclusions: ChainSpec,
    exclusion_rules: Vec<Rule>,
    elements: Vec<(SetSpec, Element)>,
}

impl Plan {
    fn new(wanted: &Masquerade<'_>) -> Self {
        let nets = exclusions(wanted.addresses, wanted.exclude);
        let exclusions = ChainSpec { name: exclusion_chain(&nets), base: None };
        let exclusion_rules = exclusion_rules(nets);
        let owner = rules::owner(wanted.key);
        let elements = wanted.addresses.iter().map(|address| {
            let (set, key) = source(address.ip());
            let value = ElementValue::Verdict(Verdict::Jump(exclusions.name.clone()));
            (set, Element { key, value: Some(value), comment: Some(owner.clone()) })
        });
        Self { base: base(), elements: elements.collect(), exclusions, exclusion_rules }
    }

    /// Whether all rules are there. A foreign flush of the table leaves the maps alone, so that
    /// additions go through and do nothing: only the rules tell.
    fn stands(&self, client: &mut Client) -> Result<bool, Error> {
        let table = &self.base.table;
        let base = client.rules(table, &self.base.chain.name).map_err(|e| rules::refused(&e))?;
        let own = client.rules(table, &self.exclusions.name).map_err(|e| rules::refused(&e))?;
        Ok(self.base.is_intact(&base) && self.excludes(&own))
    }

    fn excludes(&self, present: &[(u64, Rule)]) -> bool {
        present.iter().map(|(_, rule)| rule).eq(&self.exclusion_rules)
    }

    /// The busy path's transaction.
    fn additions(&self) -> Batch {
        let table = &self.base.table;
        let ops =
            self.elements.iter().map(|(set, element)| rules::insert(table, set, element.clone()));
        Batch { ops: ops.collect(), generation: None }
    }

    /// Makes everything as wanted, under the lock.
    fn establish(&self, client: &mut Client) -> Result<(), Error> {
        let mut tries = rules::TRIES;
        loop {
            let (batch, left) = self.repairs(client)?;
            tries -= 1;
            match client.commit(&batch) {
                Ok(()) => return sweep(client, left),
                // An adder of the busy path or a foreign flush came between.
                Err(e) if tries > 0 && (e.is_exists() || e.is_not_found() || e.is_transient()) => {}
                Err(e) => return Err(rules::refused(&e)),
            }
        }
    }

    /// The transaction that mends what differs, and the chains that replaced elements leave.
    fn repairs(&self, client: &mut Client) -> Result<(Batch, BTreeSet<String>), Error> {
        let table = &self.base.table;
        let present = client.rules(table, &self.base.chain.name).map_err(|e| rules::refused(&e))?;
        let mut ops = self.base.repair(&present);
        ops.push(Op::AddChain(table.clone(), self.exclusions.clone()));
        let present = client.rules(table, &self.exclusions.name).map_err(|e| rules::refused(&e))?;
        if !self.excludes(&present) {
            let chain = &self.exclusions.name;
            ops.push(Op::FlushChain(table.clone(), chain.clone()));
            ops.extend(self.exclusion_rules.iter().map(|rule| rules::append(table, chain, rule)));
        }
        let mut left = BTreeSet::new();
        for (set, element) in &self.elements {
            let present =
                client.element(table, set, &element.key).map_err(|e| rules::refused(&e))?;
            ops.extend(rules::replace(table, set, present.as_ref(), element));
            left.extend(
                present.as_ref().and_then(target).filter(|chain| *chain != self.exclusions.name),
            );
        }
        Ok((Batch { ops, generation: None }, left))
    }
}

/// Deletes elements, then the chains that nothing leads to any more.
fn delete(client: &mut Client, present: Vec<(SetSpec, Element)>) -> Result<(), Error> {
    let chains: BTreeSet<String> =
        present.iter().filter_map(|(_, element)| target(element)).collect();
    rules::delete_all(client, &table(), present)?;
    sweep(client, chains)
}

/// Deletes those of `chains` that nothing leads to any more. Before kernel 6.2 an element deleted
/// in the same transaction still holds its chain: hence a second one.
fn sweep(client: &mut Client, chains: BTreeSet<String>) -> Result<(), Error> {
    let table = table();
    let mut ops = Vec::new();
    for chain in chains {
        let held = client.chain_use(&table, &chain).map_err(|e| rules::refused(&e))?;
        let rules = client.rules(&table, &chain).map_err(|e| rules::refused(&e))?.len();
        if held.is_some_and(|held| held as usize <= rules) {
            ops.push(Op::FlushChain(table.clone(), chain.clone()));
            ops.push(Op::DeleteChain(table.clone(), chain));
        }
    }
    match client.commit(&Batch { ops, generation: None }) {
        Ok(()) => Ok(()),
        // Busy: an adder has just begun to use one. Not found: another process deleted it.
        Err(e) if e.is_transient() || e.is_not_found() => Ok(()),
        Err(e) => Err(rules::refused(&e)),
    }
}

/// The chain that an element of a source map leads to.
fn target(element: &Element) -> Option<String> {
    match &element.value {
        Some(ElementValue::Verdict(Verdict::Jump(chain))) => Some(chain.clone()),
        _ => None,
    }
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

fn base() -> Base {
    let lookup = |field, map: &str| Rule {
        statements: vec![Statement::VerdictMap { fields: vec![field], map: map.to_owned() }],
        comment: None,
    };
    Base {
        table: table(),
        sets: sets().into(),
        chain: ChainSpec {
            name: "postrouting".to_owned(),
            base: Some(BaseChain {
                kind: "nat".to_owned(),
                hook: Hook::Postrouting,
                priority: 100,
                policy_drop: false,
            }),
        },
        rules: vec![lookup(Field::IpSaddr, "sources4"), lookup(Field::Ip6Saddr, "sources6")],
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
