//! Tables as values, and the operations that turn one into the other.

use causeway_model::IpFamily;

use super::Tables;
use super::chains;
use super::change::{difference, plain, shared_elements, sized_chains, sorted};
use super::content::Content;
use super::layout::{self, Set};
use crate::plan::PlanContext;
use crate::{Element, Op, Rule, SetSpec, TableId, TableState};

/// The tables with this content.
pub(super) fn tables(facts: &PlanContext, content: Content) -> Tables {
    let Content { mut elements, chains: mut own, shared } = content;
    elements.extend(shared_elements(&shared));
    let mut state = |family: IpFamily| {
        let mut state = TableState::default();
        let mut chains = chains::chains(facts, family);
        chains.extend(sized_chains(&shared, family));
        for ((of, name), rules) in &mut own {
            if *of == family {
                chains.push((plain(name), std::mem::take(rules)));
            }
        }
        for (chain, rules) in chains {
            let rules = rules.into_iter().map(|rule| (0, rule)).collect();
            state.chains.insert(chain.name.clone(), (chain, rules));
        }
        let from_facts = layout::elements(facts, family);
        let own_sets = elements.keys().filter(|(of, set)| *of == family && set.is_own());
        let own_sets = own_sets.map(|(_, set)| set.clone()).collect::<Vec<_>>();
        for set in Set::fixed().into_iter().chain(own_sets) {
            let spec = set.spec(family);
            let mut all = elements.remove(&(family, set.clone())).unwrap_or_default();
            let given = from_facts.iter().filter(|(of, _)| *of == set);
            all.extend(given.flat_map(|(_, some)| some.clone()));
            state.sets.insert(spec.name.clone(), (spec, sorted(all)));
        }
        state
    };
    Tables { v4: state(IpFamily::V4), v6: state(IpFamily::V6) }
}

/// Operations from one state of a table to another.
pub(crate) fn table(id: &TableId, actual: &TableState, wanted: &TableState) -> Vec<Op> {
    let mut ops = Vec::new();
    let empty = TableState::default();
    let actual = if same_shape(actual, wanted) {
        actual
    } else {
        ops.extend([Op::AddTable(id.clone()), Op::DeleteTable(id.clone())]);
        &empty
    };
    if *actual == empty && *wanted != empty {
        ops.push(Op::AddTable(id.clone()));
    }
    let (mut deletes, mut adds, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for (name, (spec, elements)) in &wanted.sets {
        let old = actual.sets.get(name);
        if old.is_none() {
            ops.push(Op::AddSet(id.clone(), spec.clone()));
        }
        if !spec.dynamic {
            let old = old.map(|(_, elements)| elements.as_slice()).unwrap_or_default();
            let (gone, come) = difference(old, elements);
            deletes.extend(delete(id, spec, gone));
            adds.extend(add(id, spec, come));
        }
    }
    for (name, (spec, elements)) in &actual.sets {
        if !wanted.sets.contains_key(name) {
            deletes.extend(delete(id, spec, elements.iter().collect()));
            ends.push(Op::DeleteSet(id.clone(), name.clone()));
        }
    }
    ops.extend(chains(id, actual, wanted));
    ops.append(&mut deletes);
    ops.append(&mut adds);
    let gone = actual.chains.keys().filter(|name| !wanted.chains.contains_key(*name));
    ops.extend(gone.map(|name| Op::DeleteChain(id.clone(), name.clone())));
    ops.append(&mut ends);
    ops
}

/// New chains, and new rules if they differ. Chains to be deleted lose theirs.
fn chains(id: &TableId, actual: &TableState, wanted: &TableState) -> Vec<Op> {
    let mut ops = Vec::new();
    let mut rules_of = Vec::new();
    for (name, (spec, rules)) in &wanted.chains {
        let old = actual.chains.get(name);
        if old.is_none() {
            ops.push(Op::AddChain(id.clone(), spec.clone()));
        }
        let old = old.map(|(_, rules)| rules.as_slice()).unwrap_or_default();
        if !same_rules(old, rules) {
            rules_of.push((name, old, rules));
        }
    }
    for (name, old, rules) in rules_of {
        if !old.is_empty() {
            ops.push(Op::FlushChain(id.clone(), name.clone()));
        }
        ops.extend(rules.iter().map(|(_, rule)| Op::AddRule {
            table: id.clone(),
            chain: name.clone(),
            rule: rule.clone(),
        }));
    }
    for (name, (_, rules)) in &actual.chains {
        if !wanted.chains.contains_key(name) && !rules.is_empty() {
            ops.push(Op::FlushChain(id.clone(), name.clone()));
        }
    }
    ops
}

/// Shapes cannot be changed in place.
fn same_shape(actual: &TableState, wanted: &TableState) -> bool {
    let mut sets =
        actual.sets.iter().filter_map(|(name, (set, _))| Some((set, wanted.sets.get(name)?)));
    let chains = actual.chains.iter();
    let mut chains =
        chains.filter_map(|(name, (chain, _))| Some((chain, wanted.chains.get(name)?)));
    sets.all(|(set, (wanted, _))| set == wanted)
        && chains.all(|(chain, (wanted, _))| chain == wanted)
}

fn same_rules(a: &[(u64, Rule)], b: &[(u64, Rule)]) -> bool {
    a.iter().map(|(_, rule)| rule).eq(b.iter().map(|(_, rule)| rule))
}

fn add(id: &TableId, set: &SetSpec, elements: Vec<&Element>) -> Option<Op> {
    let elements = elements.into_iter().cloned().collect::<Vec<_>>();
    let (table, set) = (id.clone(), set.clone());
    (!elements.is_empty()).then_some(Op::AddElements { table, set, elements, exclusive: true })
}

fn delete(id: &TableId, set: &SetSpec, elements: Vec<&Element>) -> Option<Op> {
    let elements = elements.into_iter().cloned().collect::<Vec<_>>();
    let (table, set) = (id.clone(), set.clone());
    (!elements.is_empty()).then_some(Op::DeleteElements { table, set, elements })
}
