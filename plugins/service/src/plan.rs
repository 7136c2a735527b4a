//! What an attachment's port mappings are as elements of the table, and the changes that add and
//! remove them. Pure: what the kernel holds comes in as an [`Observed`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use causeway_ruleset::{Element, Key, Op, RegValue, Rule, SetSpec};

use crate::conditions::Conditions;
use crate::config::Masquerade;
use crate::layout::{self, Scope};
use crate::mapping::Binding;
use crate::record::Record;

/// An element and the set it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    /// The set.
    pub set: SetSpec,
    /// The element.
    pub element: Element,
}

/// What the kernel holds of the things that were asked for: set name and key to element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    /// Elements that are there.
    pub elements: BTreeMap<(String, Key), Element>,
    /// Rules of chain [`layout::HOSTPORTS`] with handles; empty where the base is absent.
    pub rules: Vec<(u64, Rule)>,
}

impl Observed {
    /// The element of `set` at `key`.
    pub(crate) fn get(&self, set: &SetSpec, key: &Key) -> Option<&Element> {
        self.elements.get(&(set.name.clone(), key.clone()))
    }

    /// Conditional scopes that are in place.
    pub(crate) fn scopes(&self) -> BTreeSet<Scope> {
        self.rules.iter().filter_map(|(_, rule)| Scope::of_jump(rule)).collect()
    }

    fn number(&self, set: &SetSpec, key: &Key) -> Option<u32> {
        self.get(set, key)?.comment.as_deref()?.parse().ok()
    }
}

/// A host port that is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// The mapping that was asked for.
    pub binding: Binding,
    /// Comment of the element in the way; empty where it has none.
    pub owner: String,
}

/// The conditions of a network's mappings, by family.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ByFamily<'a> {
    /// IPv4
    pub v4: Option<&'a Conditions>,
    /// IPv6
    pub v6: Option<&'a Conditions>,
}

/// The scope of a binding.
fn scope(record: &Record, binding: &Binding) -> Scope {
    let ipv6 = binding.target.is_ipv6();
    let id = if ipv6 { &record.conditions_v6 } else { &record.conditions_v4 };
    Scope { ipv6, id: id.clone() }
}

/// The element that maps a host port.
fn mapping(scope: &Scope, binding: &Binding, owner: &str) -> Placed {
    let set = if binding.host.is_some() { scope.address() } else { scope.any() };
    let key = layout::port_key(binding.host, binding.protocol.number(), binding.host_port);
    let value = layout::target(binding.target.ip(), binding.target.port());
    let element = Element { key, value: Some(value), comment: Some(owner.to_owned()) };
    Placed { set, element }
}

fn mappings(record: &Record, owner: &str) -> Vec<Placed> {
    record.bindings.iter().map(|b| mapping(&scope(record, b), b, owner)).collect()
}

/// The elements that are not mappings: what says that the attachment is there, and masquerading.
fn beside_mappings(record: &Record, owner: &str) -> Vec<Placed> {
    let comment = Some(owner.to_owned());
    let element = Element { key: layout::attachment_key(owner), value: None, comment };
    let mut all = vec![Placed { set: layout::attachments(), element }];
    all.extend(masquerading(record, owner));
    all
}

fn masquerading(record: &Record, owner: &str) -> Vec<Placed> {
    let containers: BTreeSet<IpAddr> = record.bindings.iter().map(|b| b.target.ip()).collect();
    let mut out = Vec::new();
    for address in containers {
        let value = RegValue::from(address);
        let mut push = |set, key| out.push(Placed { set, element: layout::member(key, owner) });
        match record.masquerade {
            Masquerade::Nothing => {}
            Masquerade::All => push(layout::masq_all(address.is_ipv6()), vec![value]),
            Masquerade::Needed => {
                push(layout::hairpin(address.is_ipv6()), vec![value.clone(), value.clone()]);
                if address.is_ipv4() {
                    push(layout::localhost(), vec![value]);
                }
            }
        }
    }
    out
}

/// All elements of an attachment.
pub(crate) fn elements(record: &Record, owner: &str) -> Vec<Placed> {
    let mut all = mappings(record, owner);
    all.extend(beside_mappings(record, owner));
    all
}

/// What [`add`] has to know, beside the rules of chain [`layout::HOSTPORTS`] (whose jumps are
/// `scopes`).
pub(crate) fn questions(
    record: &Record,
    owner: &str,
    scopes: &BTreeSet<Scope>,
) -> Vec<(SetSpec, Key)> {
    let mut out = vec![(layout::count(), layout::count_key())];
    for binding in &record.bindings {
        for scope in rivals(&scope(record, binding), scopes) {
            out.extend(obstacles(&scope, binding));
        }
        if let Some(taken) = taken(&scope(record, binding), binding) {
            out.push(taken);
        }
    }
    let rest = beside_mappings(record, owner);
    out.extend(rest.into_iter().map(|placed| (placed.set, placed.element.key)));
    out
}

/// Scopes whose mappings may claim the same packets as those of `own`: two different conditions
/// are the administrator's way to share a port; no conditions means every packet.
fn rivals(own: &Scope, present: &BTreeSet<Scope>) -> Vec<Scope> {
    let plain = Scope { ipv6: own.ipv6, id: None };
    let mut out = vec![own.clone()];
    if own.id.is_some() {
        out.push(plain);
    } else {
        out.extend(present.iter().filter(|scope| scope.ipv6 == own.ipv6).cloned());
    }
    out
}

/// The elements that would stand in the way of `binding` in `scope`.
fn obstacles(scope: &Scope, binding: &Binding) -> Vec<(SetSpec, Key)> {
    let port = layout::port_key(None, binding.protocol.number(), binding.host_port);
    let special = match binding.host {
        None => (scope.taken(), port.clone()),
        Some(_) => (scope.address(), mapping(scope, binding, "").element.key),
    };
    vec![(scope.any(), port), special]
}

fn taken(scope: &Scope, binding: &Binding) -> Option<(SetSpec, Key)> {
    binding.host?;
    let key = layout::port_key(None, binding.protocol.number(), binding.host_port);
    Some((scope.taken(), key))
}

/// The changes that add an attachment.
///
/// # Errors
/// A host port belongs to somebody.
pub(crate) fn add(
    record: &Record,
    owner: &str,
    conditions: ByFamily<'_>,
    observed: &Observed,
) -> Result<Vec<Op>, Conflict> {
    let scopes = observed.scopes();
    conflict(record, observed, &scopes)?;
    let mut ops = Vec::new();
    if observed.rules.is_empty() {
        ops.extend(layout::base(&[]));
    }
    ops.extend(missing_scopes(record, conditions, &scopes));
    for placed in mappings(record, owner) {
        ops.push(add_element(placed, true));
    }
    for placed in beside_mappings(record, owner) {
        ops.extend(take_over(placed, observed));
    }
    for ((set, key), more) in counts(record) {
        let now = observed.number(&set, &key).unwrap_or(0).saturating_add(more);
        ops.extend(recount(&set, &key, now, observed));
    }
    Ok(ops)
}

/// The base anew and the elements again, for a table that turned out to be incomplete.
pub(crate) fn rebuild(mut ops: Vec<Op>, observed: &Observed) -> Vec<Op> {
    let jump = |(_, rule): &(u64, Rule)| Scope::of_jump(rule).map(|_| rule.clone());
    let jumps: Vec<Rule> = observed.rules.iter().filter_map(jump).collect();
    let mut all = layout::base(&jumps);
    all.append(&mut ops);
    all
}

fn conflict(
    record: &Record,
    observed: &Observed,
    scopes: &BTreeSet<Scope>,
) -> Result<(), Conflict> {
    for binding in &record.bindings {
        for scope in rivals(&scope(record, binding), scopes) {
            for (set, key) in obstacles(&scope, binding) {
                if let Some(element) = observed.get(&set, &key) {
                    let counter = set == scope.taken();
                    let owner = element.comment.clone().filter(|_| !counter).unwrap_or_default();
                    return Err(Conflict { binding: binding.clone(), owner });
                }
            }
        }
    }
    Ok(())
}

fn missing_scopes(record: &Record, conditions: ByFamily<'_>, present: &BTreeSet<Scope>) -> Vec<Op> {
    let wanted: BTreeSet<Scope> = record.bindings.iter().map(|b| scope(record, b)).collect();
    let missing = wanted.difference(present).filter(|scope| scope.id.is_some());
    missing
        .flat_map(|scope| {
            let conditions = if scope.ipv6 { conditions.v6 } else { conditions.v4 };
            conditions.map(|conditions| layout::conditional(scope, conditions)).unwrap_or_default()
        })
        .collect()
}

/// How much an attachment adds to each counter.
fn counts(record: &Record) -> Vec<((SetSpec, Key), u32)> {
    let mut out = vec![((layout::count(), layout::count_key()), 1)];
    for binding in &record.bindings {
        let Some(at) = taken(&scope(record, binding), binding) else { continue };
        match out.iter_mut().find(|(have, _)| *have == at) {
            Some((_, number)) => *number += 1,
            None => out.push((at, 1)),
        }
    }
    out
}

fn recount(set: &SetSpec, key: &Key, number: u32, observed: &Observed) -> Vec<Op> {
    let element = Element { key: key.clone(), value: None, comment: Some(number.to_string()) };
    let mut ops = Vec::new();
    if let Some(old) = observed.get(set, key) {
        ops.push(delete_element(set.clone(), old.clone()));
    }
    if number > 0 {
        ops.push(add_element(Placed { set: set.clone(), element }, false));
    }
    ops
}

/// A masquerading element names one container address: who has the address now owns it.
fn take_over(placed: Placed, observed: &Observed) -> Vec<Op> {
    match observed.get(&placed.set, &placed.element.key) {
        Some(old) if old.comment == placed.element.comment => Vec::new(),
        Some(old) => {
            vec![delete_element(placed.set.clone(), old.clone()), add_element(placed, false)]
        }
        None => vec![add_element(placed, false)],
    }
}

/// What [`remove`] has to know about `elements`.
pub(crate) fn removal_questions(elements: &[Placed]) -> Vec<(SetSpec, Key)> {
    let mut out = vec![(layout::count(), layout::count_key())];
    out.extend(elements.iter().map(|placed| (placed.set.clone(), placed.element.key.clone())));
    out.extend(elements.iter().filter_map(taken_of));
    out
}

/// The counter of an element of an address map.
fn taken_of(placed: &Placed) -> Option<(SetSpec, Key)> {
    let scope = scope_of_address_map(&placed.set)?;
    match &placed.element.key {
        Key::Exact(parts) => match parts.as_slice() {
            [_, RegValue::Proto(protocol), RegValue::Port(port)] => {
                Some((scope.taken(), layout::port_key(None, *protocol, *port)))
            }
            _ => None,
        },
        Key::Range(..) => None,
    }
}

fn scope_of_address_map(set: &SetSpec) -> Option<Scope> {
    let rest = set.name.strip_prefix("addr")?;
    let (digit, id) = match rest.split_once('-') {
        Some((digit, id)) => (digit, Some(id.to_owned())),
        None => (rest, None),
    };
    Some(Scope { ipv6: digit == "6", id })
}

/// What removing an attachment does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Removal {
    /// The changes; empty where nothing is left to remove.
    pub ops: Vec<Op>,
    /// The counter says that nobody else is left.
    pub last: bool,
}

/// The changes that remove those of `elements` that still belong to `owner` (row F40).
pub(crate) fn remove(elements: &[Placed], owner: &str, observed: &Observed) -> Removal {
    let own: Vec<&Placed> = elements
        .iter()
        .filter(|placed| {
            observed
                .get(&placed.set, &placed.element.key)
                .is_some_and(|there| there.comment.as_deref() == Some(owner))
        })
        .collect();
    if own.is_empty() {
        return Removal::default();
    }
    let mut ops: Vec<Op> =
        own.iter().map(|p| delete_element(p.set.clone(), p.element.clone())).collect();
    let mut less: BTreeMap<(String, Key), (SetSpec, u32)> = BTreeMap::new();
    for (set, key) in own.iter().filter_map(|placed| taken_of(placed)) {
        less.entry((set.name.clone(), key)).or_insert((set, 0)).1 += 1;
    }
    for ((_, key), (set, number)) in less {
        let now = observed.number(&set, &key).unwrap_or(0).saturating_sub(number);
        ops.extend(recount(&set, &key, now, observed));
    }
    let (set, key) = (layout::count(), layout::count_key());
    let now = observed.number(&set, &key).unwrap_or(0).saturating_sub(1);
    ops.extend(recount(&set, &key, now, observed));
    Removal { ops, last: now == 0 }
}

fn add_element(placed: Placed, exclusive: bool) -> Op {
    let Placed { set, element } = placed;
    Op::AddElements { table: layout::table(), set, elements: vec![element], exclusive }
}

fn delete_element(set: SetSpec, element: Element) -> Op {
    Op::DeleteElements { table: layout::table(), set, elements: vec![element] }
}

#[cfg(test)]
mod tests;
