//! Port mappings of an attachment as elements of the table, and the changes that add and
//! remove them. Pure: what the kernel holds comes in as an [`Observed`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use causeway_ruleset::owned::{self, Placed, Question, Seen};
use causeway_ruleset::{Element, Key, Op, RegValue, Rule, SetSpec};

use crate::conditions::Conditions;
use crate::layout::{self, Port, Scope};
use crate::mapping::Binding;
use crate::record::{Masquerade, Record};

mod restore;

pub(crate) use restore::{Holder, Restored, restore};

/// What the kernel holds of the things that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    /// Elements, and the rules of chain [`layout::HOSTPORTS`].
    pub seen: Seen,
    /// How many elements the asked-for [`Scope::taken`] sets have for a port.
    pub slots: BTreeMap<(Scope, Port), u32>,
}

impl Observed {
    /// The element of `set` at `key`.
    pub(crate) fn get(&self, set: &SetSpec, key: &Key) -> Option<&Element> {
        self.seen.element(set, key)
    }

    /// Rules of chain [`layout::HOSTPORTS`]; empty if the base is absent.
    pub(crate) fn rules(&self) -> &[(u64, Rule)] {
        self.seen.rules(layout::HOSTPORTS)
    }

    /// Conditional scopes that are in place.
    pub(crate) fn scopes(&self) -> BTreeSet<Scope> {
        self.rules().iter().filter_map(|(_, rule)| Scope::of_jump(rule)).collect()
    }
}

/// A host port that is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// The mapping that was asked for.
    pub binding: Binding,
    /// Comment of the element in the way; empty if it has none.
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

/// All elements of an attachment; none if no mapping is in force.
pub(crate) fn elements(record: &Record, owner: &str) -> Vec<Placed> {
    if record.bindings.is_empty() {
        return Vec::new();
    }
    let mut all = mappings(record, owner);
    all.extend(beside_mappings(record, owner));
    all
}

/// What [`add`] has to know, beside the rules of chain [`layout::HOSTPORTS`] (whose jumps are
/// `scopes`).
pub(crate) fn questions(record: &Record, owner: &str, scopes: &BTreeSet<Scope>) -> Vec<Question> {
    let mut out = Vec::new();
    for binding in &record.bindings {
        for scope in rivals(&scope(record, binding), scopes) {
            out.extend(obstacles(&scope, binding));
        }
    }
    let rest = beside_mappings(record, owner);
    out.extend(rest.iter().map(Placed::question));
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
fn obstacles(scope: &Scope, binding: &Binding) -> Vec<Question> {
    let special = match binding.host {
        None => (scope.taken(), layout::slot_key(port(binding), 0)),
        Some(_) => (scope.address(), mapping(scope, binding, "").element.key),
    };
    let any = layout::port_key(None, binding.protocol.number(), binding.host_port);
    vec![(scope.any(), any), special]
}

fn port(binding: &Binding) -> Port {
    Port { protocol: binding.protocol.number(), port: binding.host_port }
}

/// The ports of the mappings of single addresses among `elements`, as often as they occur.
pub(crate) fn slots(elements: &[Placed]) -> BTreeMap<(Scope, Port), u32> {
    let mut slots = BTreeMap::new();
    for at in elements.iter().filter_map(slot) {
        *slots.entry(at).or_default() += 1;
    }
    slots
}

fn slot(placed: &Placed) -> Option<(Scope, Port)> {
    slot_of(&placed.set.name, &placed.element.key)
}

fn slot_of(set: &str, key: &Key) -> Option<(Scope, Port)> {
    let scope = scope_of_address_map(set)?;
    let Key::Exact(parts) = key else { return None };
    match parts.as_slice() {
        [_, RegValue::Proto(protocol), RegValue::Port(port)] => {
            Some((scope, Port { protocol: *protocol, port: *port }))
        }
        _ => None,
    }
}

/// The changes that add an attachment.
///
/// # Errors
/// A host port belongs to another attachment.
pub(crate) fn add(
    record: &Record,
    owner: &str,
    conditions: ByFamily<'_>,
    observed: &Observed,
) -> Result<Vec<Op>, Conflict> {
    let scopes = observed.scopes();
    conflict(record, observed, &scopes)?;
    let mut ops = Vec::new();
    if observed.rules().is_empty() {
        ops.extend(layout::base(&[]));
    }
    ops.extend(missing_scopes(record, conditions, &scopes));
    let mappings = mappings(record, owner);
    for ((scope, port), more) in slots(&mappings) {
        let there = observed.slots.get(&(scope.clone(), port)).copied().unwrap_or(0);
        let element = |slot| Placed { set: scope.taken(), element: slot_element(port, slot) };
        ops.extend((there..there + more).map(|slot| insert(element(slot))));
    }
    ops.extend(mappings.into_iter().map(insert));
    for placed in beside_mappings(record, owner) {
        ops.extend(take_over(placed, observed));
    }
    Ok(ops)
}

/// The base again and the elements again, for a table that turned out to be incomplete.
pub(crate) fn rebuild(mut ops: Vec<Op>, observed: &Observed) -> Vec<Op> {
    let jump = |(_, rule): &(u64, Rule)| Scope::of_jump(rule).map(|_| rule.clone());
    let jumps: Vec<Rule> = observed.rules().iter().filter_map(jump).collect();
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

fn slot_element(port: Port, slot: u32) -> Element {
    Element { key: layout::slot_key(port, slot), value: None, comment: None }
}

/// A masquerading element names one container address: who has the address now owns it.
fn take_over(placed: Placed, observed: &Observed) -> Vec<Op> {
    match observed.get(&placed.set, &placed.element.key) {
        Some(old) if old.comment == placed.element.comment => Vec::new(),
        Some(_) => vec![delete(&placed), ensure(placed)],
        None => vec![ensure(placed)],
    }
}

/// What [`remove`] has to know about `elements`.
pub(crate) fn removal_questions(elements: &[Placed]) -> Vec<Question> {
    elements.iter().map(Placed::question).collect()
}

fn scope_of_address_map(set: &str) -> Option<Scope> {
    let rest = set.strip_prefix("addr")?;
    let (digit, id) = match rest.split_once('-') {
        Some((digit, id)) => (digit, Some(id.to_owned())),
        None => (rest, None),
    };
    Some(Scope { ipv6: digit == "6", id })
}

/// The changes that remove those of `elements` that still belong to `owner` (row F40); none if
/// nothing is left.
pub(crate) fn remove(elements: &[Placed], owner: &str, observed: &Observed) -> Vec<Op> {
    let is_own = |placed: &&Placed| {
        let there = observed.get(&placed.set, &placed.element.key);
        there.is_some_and(|there| there.comment.as_deref() == Some(owner))
    };
    let own: Vec<Placed> = elements.iter().filter(is_own).cloned().collect();
    let mut ops = Vec::new();
    for ((scope, port), less) in slots(&own) {
        let there = observed.slots.get(&(scope.clone(), port)).copied().unwrap_or(0);
        let key = |slot| layout::slot_key(port, slot);
        let gone = there.saturating_sub(less)..there;
        ops.extend(gone.map(|slot| owned::delete(&layout::table(), scope.taken(), key(slot))));
    }
    ops.extend(own.iter().map(delete));
    ops
}

fn insert(placed: Placed) -> Op {
    owned::insert(&layout::table(), placed)
}

/// Adds an element that may be there.
fn ensure(Placed { set, element }: Placed) -> Op {
    Op::AddElements { table: layout::table(), set, elements: vec![element], exclusive: false }
}

fn delete(placed: &Placed) -> Op {
    owned::delete(&layout::table(), placed.set.clone(), placed.element.key.clone())
}

#[cfg(test)]
mod tests;
