//! Restores what attachments are entitled to: after a foreign flush, and for the one whose turn comes.

use std::collections::{BTreeMap, BTreeSet};

use causeway_host::RecordKey;
use causeway_ruleset::owned::Placed;
use causeway_ruleset::{Key, Op, name};

use super::{
    ByFamily, Observed, delete, elements, insert, missing_scopes, scope, slot, slot_element,
};
use crate::conditions::Conditions;
use crate::layout::{self, Port, Scope};
use crate::record::Record;

/// An attachment whose rules are to stand.
#[derive(Clone, Debug)]
pub(crate) struct Holder {
    /// Whose.
    pub key: RecordKey,
    /// Owner comment of its elements.
    pub owner: String,
    /// With the mappings in force.
    pub record: Record,
    v4: Option<Conditions>,
    v6: Option<Conditions>,
}

/// The changes, and what they are for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Restored {
    /// The changes; none if nothing is missing.
    pub ops: Vec<Op>,
    /// Places of the holders that lack something of their own.
    pub lacking: BTreeSet<usize>,
}

impl Holder {
    /// The attachment `key`; `None` if nothing of it is in force, or if an older version
    /// recorded conditions without their words.
    pub(crate) fn new(key: RecordKey, record: Record) -> Option<Self> {
        let parse = |name, id: &Option<String>, words: &[String]| match id {
            None => Some(None),
            Some(_) => Conditions::parse(name, words).ok()?.map(Some),
        };
        let v4 = parse("conditionsV4", &record.conditions_v4, &record.again.conditions_v4)?;
        let v6 = parse("conditionsV6", &record.conditions_v6, &record.again.conditions_v6)?;
        let owner = name::owner(&key.network, &key.container_id, &key.ifname);
        (!record.bindings.is_empty()).then_some(Self { key, owner, record, v4, v6 })
    }
}

impl Observed {
    /// The same once the elements that `owner` has among `elements` are deleted.
    pub(crate) fn without(mut self, elements: &[Placed], owner: &str) -> Self {
        for placed in elements {
            let at = (placed.set.name.clone(), placed.element.key.clone());
            let own = |there: &causeway_ruleset::Element| there.comment.as_deref() == Some(owner);
            if self.seen.elements.get(&at).is_some_and(own) {
                self.seen.elements.remove(&at);
                let left = slot(placed).and_then(|at| self.slots.get_mut(&at));
                if let Some(left) = left {
                    *left = left.saturating_sub(1);
                }
            }
        }
        self
    }

    /// How many mappings of single addresses there are, by port. Only of a whole table.
    fn mapped_addresses(&self) -> BTreeMap<(Scope, Port), u32> {
        let mut count = BTreeMap::new();
        for (set, key) in self.seen.elements.keys() {
            if let Some(at) = super::slot_of(set, key) {
                *count.entry(at).or_default() += 1;
            }
        }
        count
    }
}

/// The changes that put in place what `holders` lack. What another attachment holds stays its own:
/// only its DEL takes it away. `damaged`: rules, chains or sets of the base are missing. `whole`:
/// `observed` is the content of the table.
pub(crate) fn restore(
    holders: &[Holder],
    observed: &Observed,
    damaged: bool,
    whole: bool,
) -> Restored {
    let mut restored = Restored::default();
    let jumps = observed.rules().iter().filter(|(_, rule)| Scope::of_jump(rule).is_some());
    if damaged {
        let jumps: Vec<_> = jumps.map(|(_, rule)| rule.clone()).collect();
        restored.ops = layout::base(&jumps);
    }
    let mut scopes = observed.scopes();
    let mut planned: BTreeSet<(String, Key)> = BTreeSet::new();
    let mut more: BTreeMap<(Scope, Port), u32> = BTreeMap::new();
    for (place, holder) in holders.iter().enumerate() {
        let Holder { record, owner, .. } = holder;
        let conditions = ByFamily { v4: holder.v4.as_ref(), v6: holder.v6.as_ref() };
        let missing = missing_scopes(record, conditions, &scopes);
        if !missing.is_empty() {
            restored.ops.extend(missing);
            scopes.extend(record.bindings.iter().map(|binding| scope(record, binding)));
            restored.lacking.insert(place);
        }
        for placed in elements(record, owner) {
            let there = observed.get(&placed.set, &placed.element.key);
            let anothers = there.is_some_and(|there| there.comment != placed.element.comment);
            let at = (placed.set.name.clone(), placed.element.key.clone());
            if there == Some(&placed.element) || anothers || !planned.insert(at) {
                continue;
            }
            restored.lacking.insert(place);
            match there {
                Some(_) => restored.ops.push(delete(&placed)),
                None => {
                    if let Some(at) = slot(&placed) {
                        *more.entry(at).or_default() += 1;
                    }
                }
            }
            restored.ops.push(insert(placed));
        }
    }
    restored.ops.extend(slots(observed, more, whole));
    restored
}

/// As many numbered elements as mappings of single addresses.
fn slots(observed: &Observed, more: BTreeMap<(Scope, Port), u32>, whole: bool) -> Vec<Op> {
    let mut wanted = if whole { observed.mapped_addresses() } else { observed.slots.clone() };
    for (at, more) in more {
        *wanted.entry(at).or_default() += more;
    }
    let mut ops = Vec::new();
    for ((scope, port), wanted) in wanted {
        let there = observed.slots.get(&(scope.clone(), port)).copied().unwrap_or(0);
        let element = |number| Placed { set: scope.taken(), element: slot_element(port, number) };
        ops.extend((there..wanted).map(|number| insert(element(number))));
    }
    ops
}
