//! What one operation does to the rules, or the kernel's number of why it does not. The comments name
//! functions of net/netfilter/nf_tables_api.c.

use std::collections::{BTreeMap, BTreeSet};

use causeway_ruleset::{
    BaseChain, ChainSpec, Element, ElementValue, Family, Hook, Key, MapTarget, Op, RegValue, Rule,
    SetSpec, Statement, TableId, TableState, Verdict,
};
use libc::{EBUSY, EEXIST, EINVAL, EMLINK, ENOENT, EOPNOTSUPP};

use crate::codec::object::{read_rule, write_rule};
use crate::uapi::RULE_HANDLE;
use crate::wire::{Attributes, Writer};

/// `NFT_JUMP_STACK_SIZE`
const JUMPS: usize = 16;
/// `NF_IP_PRI_CONNTRACK`
const CONNTRACK: i32 = -200;

/// Errno of a refusal.
type ErrnoResult<T> = Result<T, i32>;

/// All tables.
#[derive(Clone, Debug, Default)]
pub(super) struct Ruleset {
    tables: BTreeMap<TableId, TableState>,
    handle: u64,
}

impl Ruleset {
    pub(super) fn table(&self, id: &TableId) -> ErrnoResult<&TableState> {
        self.tables.get(id).ok_or(ENOENT)
    }

    fn table_mut(&mut self, id: &TableId) -> ErrnoResult<&mut TableState> {
        self.tables.get_mut(id).ok_or(ENOENT)
    }

    /// Says whether anything was done, which makes a new generation.
    pub(super) fn apply(&mut self, op: &Op) -> ErrnoResult<bool> {
        match op {
            Op::AddTable(id) => {
                let new = !self.tables.contains_key(id);
                self.tables.entry(id.clone()).or_default();
                Ok(new)
            }
            Op::DeleteTable(id) => self.tables.remove(id).map(|_| true).ok_or(ENOENT),
            Op::AddChain(id, spec) => add_chain(self.table_mut(id)?, id.family, spec),
            Op::FlushChain(id, chain) => {
                let rules = rules_of(self.table_mut(id)?, chain)?;
                Ok(!std::mem::take(rules).is_empty())
            }
            Op::DeleteChain(id, chain) => delete_chain(self.table_mut(id)?, chain),
            Op::AddSet(id, spec) => add_set(self.table_mut(id)?, spec),
            Op::FlushSet(id, set) => {
                let (_, elements) = set_mut(self.table_mut(id)?, set)?;
                Ok(!std::mem::take(elements).is_empty())
            }
            Op::DeleteSet(id, set) => delete_set(self.table_mut(id)?, set),
            // Nothing is sent.
            Op::AddElements { elements, .. } | Op::DeleteElements { elements, .. }
                if elements.is_empty() =>
            {
                Ok(false)
            }
            Op::AddElements { table, set, elements, exclusive } => {
                let table = self.table_mut(table)?;
                let mut changed = false;
                for element in elements {
                    changed |= add_element(table, &set.name, element, *exclusive)?;
                }
                Ok(changed)
            }
            Op::DeleteElements { table, set, elements } => {
                let (spec, present) = set_mut(self.table_mut(table)?, &set.name)?;
                for element in elements {
                    let at = present.iter().position(|one| is_meant(spec, &element.key, one));
                    present.remove(at.ok_or(ENOENT)?);
                }
                Ok(true)
            }
            Op::AddRule { table, chain, rule } => self.add_rule(table, chain, rule),
            Op::DeleteRule { table, chain, handle } => {
                let rules = rules_of(self.table_mut(table)?, chain)?;
                let at = rules.iter().position(|(one, _)| one == handle).ok_or(ENOENT)?;
                rules.remove(at);
                Ok(true)
            }
        }
    }

    fn add_rule(&mut self, id: &TableId, chain: &str, rule: &Rule) -> ErrnoResult<bool> {
        self.handle += 1;
        let handle = self.handle;
        let table = self.table_mut(id)?;
        rules_of(table, chain)?;
        rule.statements.iter().try_for_each(|statement| check_statement(table, statement))?;
        let rule = as_read(id, chain, rule);
        rules_of(table, chain)?.push((handle, rule));
        Ok(true)
    }

    /// `nft_chain_validate`: from base chains alone, and to a depth.
    pub(super) fn check_jumps(&self) -> ErrnoResult<()> {
        for table in self.tables.values() {
            let based = |(spec, _): &&(ChainSpec, _)| spec.base.is_some();
            let bases = table.chains.values().filter(based);
            let mut at: BTreeSet<&str> = bases.map(|(spec, _)| spec.name.as_str()).collect();
            for _ in 0..JUMPS {
                at = at.into_iter().flat_map(|chain| targets(table, chain)).collect();
            }
            if !at.is_empty() {
                return Err(EMLINK);
            }
        }
        Ok(())
    }
}

fn rules_of<'a>(table: &'a mut TableState, chain: &str) -> ErrnoResult<&'a mut Vec<(u64, Rule)>> {
    table.chains.get_mut(chain).map(|(_, rules)| rules).ok_or(ENOENT)
}

/// A set with its elements.
pub(super) fn set_of<'a>(
    table: &'a TableState,
    set: &str,
) -> ErrnoResult<&'a (SetSpec, Vec<Element>)> {
    table.sets.get(set).ok_or(ENOENT)
}

fn set_mut<'a>(
    table: &'a mut TableState,
    set: &str,
) -> ErrnoResult<&'a mut (SetSpec, Vec<Element>)> {
    table.sets.get_mut(set).ok_or(ENOENT)
}

/// A rule as it is read back: the codec leaves out what another match implies.
fn as_read(table: &TableId, chain: &str, rule: &Rule) -> Rule {
    let mut out = Writer::default();
    // A batch that cannot be encoded has been refused before it came here.
    if write_rule(&mut out, table, chain, rule).is_err() {
        return rule.clone();
    }
    out.u64(RULE_HANDLE, 0);
    let read = read_rule(table.family, Attributes(&out.into_bytes()));
    read.map_or_else(|| rule.clone(), |read| read.rule)
}

/// `nf_tables_newchain`, `nf_tables_updchain`, `nft_chain_parse_hook`
fn add_chain(table: &mut TableState, family: Family, spec: &ChainSpec) -> ErrnoResult<bool> {
    if let Some((present, _)) = table.chains.get_mut(&spec.name) {
        match (&mut present.base, &spec.base) {
            (None, Some(_)) => return Err(EOPNOTSUPP),
            (Some(old), Some(new)) => {
                if (old.hook, old.priority) != (new.hook, new.priority) {
                    return Err(EOPNOTSUPP);
                }
                check_hook(family, new)?;
                if old.kind != new.kind {
                    return Err(EEXIST);
                }
                old.policy_drop = new.policy_drop;
            }
            (_, None) => {}
        }
        return Ok(true);
    }
    if let Some(base) = &spec.base {
        check_hook(family, base)?;
    }
    table.chains.insert(spec.name.clone(), (spec.clone(), Vec::new()));
    Ok(true)
}

fn check_hook(family: Family, base: &BaseChain) -> ErrnoResult<()> {
    match (base.kind.as_str(), family) {
        ("filter", _) => Ok(()),
        ("nat", Family::Inet | Family::Ip | Family::Ip6) => {
            let refused = base.hook == Hook::Forward || base.priority <= CONNTRACK;
            if refused { Err(EOPNOTSUPP) } else { Ok(()) }
        }
        _ => Err(ENOENT),
    }
}

/// `nf_tables_delchain`: its own rules go with it.
fn delete_chain(table: &mut TableState, chain: &str) -> ErrnoResult<bool> {
    rules_of(table, chain)?;
    if references(table, chain) > 0 {
        return Err(EBUSY);
    }
    table.chains.remove(chain);
    Ok(true)
}

/// `nf_tables_newset`, `nft_set_is_same`: another default timeout is an update.
fn add_set(table: &mut TableState, spec: &SetSpec) -> ErrnoResult<bool> {
    match table.sets.get(&spec.name) {
        Some((present, _)) if *present != *spec => Err(EEXIST),
        Some(_) => Ok(true),
        None => {
            table.sets.insert(spec.name.clone(), (spec.clone(), Vec::new()));
            Ok(true)
        }
    }
}

/// `nf_tables_delset`
fn delete_set(table: &mut TableState, set: &str) -> ErrnoResult<bool> {
    set_of(table, set)?;
    let mut rules = table.chains.values().flat_map(|(_, rules)| rules);
    let used = rules.any(|(_, rule)| {
        rule.statements.iter().any(|statement| statement.sets().any(|(name, _)| name == set))
    });
    if used {
        return Err(EBUSY);
    }
    table.sets.remove(set);
    Ok(true)
}

/// `nft_add_set_elem`
fn add_element(
    table: &mut TableState,
    set: &str,
    element: &Element,
    exclusive: bool,
) -> ErrnoResult<bool> {
    set_of(table, set)?;
    if let Some(ElementValue::Verdict(verdict)) = &element.value {
        check_verdict(table, verdict)?;
    }
    let (spec, present) = set_mut(table, set)?;
    if !fits(spec, element) {
        return Err(EINVAL);
    }
    let element = Element { key: shortest(&element.key), ..element.clone() };
    match present.iter().find(|one| one.key == element.key) {
        // The comment of the existing one stays.
        Some(one) if one.value == element.value && !exclusive => return Ok(false),
        Some(_) => return Err(EEXIST),
        None => {}
    }
    if spec.interval && overlaps(spec, present, &element.key) {
        return Err(EEXIST);
    }
    let at = present.partition_point(|one| one.key < element.key);
    present.insert(at, element);
    Ok(true)
}

/// `nft_add_set_elem` makes `EEXIST` of what `nft_rbtree_insert` and `nft_pipapo_insert` say of an
/// overlap. The latter asks for the first and the last corner only.
fn overlaps(spec: &SetSpec, present: &[Element], key: &Key) -> bool {
    let (from, to) = ends(key);
    if spec.key.len() > 1 {
        return present.iter().any(|one| holds(&one.key, from) || holds(&one.key, to));
    }
    present.iter().any(|one| {
        let (begin, end) = ends(&one.key);
        begin <= to && from <= end
    })
}

/// Whether a deletion by `key` means this element: that of an area goes by its first corner.
fn is_meant(spec: &SetSpec, key: &Key, one: &Element) -> bool {
    match spec.interval && spec.key.len() > 1 {
        true => holds(&one.key, ends(key).0),
        false => one.key == shortest(key),
    }
}

fn holds(area: &Key, corner: &[RegValue]) -> bool {
    let (from, to) = ends(area);
    from.iter().zip(to).zip(corner).all(|((from, to), value)| from <= value && value <= to)
}

fn ends(key: &Key) -> (&[RegValue], &[RegValue]) {
    match key {
        Key::Exact(values) => (values, values),
        Key::Range(from, to) => (from, to),
    }
}

/// As it is read back.
fn shortest(key: &Key) -> Key {
    match key {
        Key::Range(from, to) if from == to => Key::Exact(from.clone()),
        Key::Exact(_) | Key::Range(..) => key.clone(),
    }
}

/// Whether the element has the types of the set that is there, not only of the one that its sender
/// thinks of. The kernel compares lengths.
fn fits(spec: &SetSpec, element: &Element) -> bool {
    let (from, _) = ends(&element.key);
    let key = from.iter().map(RegValue::data_type).eq(spec.key.iter().copied());
    let value = match (&spec.target, &element.value) {
        (None, None) | (Some(MapTarget::Verdict), Some(ElementValue::Verdict(_))) => true,
        (Some(MapTarget::Data(kinds)), Some(ElementValue::Data(values))) => {
            values.iter().map(RegValue::data_type).eq(kinds.iter().copied())
        }
        _ => false,
    };
    key && value && (spec.interval || matches!(element.key, Key::Exact(_)))
}

/// `nft_verdict_init`
fn check_verdict(table: &TableState, verdict: &Verdict) -> ErrnoResult<()> {
    let Some(chain) = verdict.chain() else { return Ok(()) };
    let (spec, _) = table.chains.get(chain).ok_or(ENOENT)?;
    if spec.base.is_some() { Err(EOPNOTSUPP) } else { Ok(()) }
}

/// `nft_lookup_init`, `nft_dynset_init`, `nft_immediate_init`
fn check_statement(table: &TableState, statement: &Statement) -> ErrnoResult<()> {
    for (name, as_map) in statement.sets() {
        let (spec, _) = set_of(table, name)?;
        let gives = match (&spec.target, statement) {
            (Some(MapTarget::Verdict), Statement::VerdictMap { .. }) => true,
            (Some(MapTarget::Data(_)), statement) => {
                !matches!(statement, Statement::VerdictMap { .. })
            }
            _ => false,
        };
        // What a map gives may be left unread.
        if as_map && !gives {
            return Err(EINVAL);
        }
        if matches!(statement, Statement::Update { .. }) && spec.timeout_ms.is_none() {
            return Err(EOPNOTSUPP);
        }
    }
    if let Statement::Verdict(verdict) = statement {
        check_verdict(table, verdict)?;
    }
    Ok(())
}

fn target_of_rule(rule: &Rule) -> impl Iterator<Item = &str> {
    rule.statements.iter().filter_map(|statement| {
        if let Statement::Verdict(verdict) = statement { verdict.chain() } else { None }
    })
}

fn target_of_element(element: &Element) -> Option<&str> {
    match &element.value {
        Some(ElementValue::Verdict(verdict)) => verdict.chain(),
        _ => None,
    }
}

/// How many rules and elements lead to a chain.
pub(super) fn references(table: &TableState, chain: &str) -> usize {
    let rules = table.chains.values().flat_map(|(_, rules)| rules);
    let rules = rules.flat_map(|(_, rule)| target_of_rule(rule));
    let elements = table.sets.values().flat_map(|(_, elements)| elements);
    rules.chain(elements.filter_map(target_of_element)).filter(|to| *to == chain).count()
}

/// Where a packet can go from a chain.
fn targets<'a>(table: &'a TableState, chain: &str) -> Vec<&'a str> {
    let rules = table.chains.get(chain).map(|(_, rules)| rules.as_slice()).unwrap_or_default();
    let mut all = Vec::new();
    for (_, rule) in rules {
        all.extend(target_of_rule(rule));
        for map in rule.statements.iter().flat_map(Statement::sets).map(|(name, _)| name) {
            let elements = table.sets.get(map).map(|(_, elements)| elements.as_slice());
            all.extend(elements.unwrap_or_default().iter().filter_map(target_of_element));
        }
    }
    all
}
