//! From contents to transactions.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeMap;

use causeway_model::IpFamily;

use super::chains;
use super::content::{self, Content, Shared};
use super::layout::{self, Set};
use crate::plan::PlanContext;
use crate::{ChainSpec, Element, Op, Rule};

/// Elements of sets in the order of their names' kinds.
type Elements = BTreeMap<(IpFamily, Set), Vec<Element>>;

/// Operations that make both tables again.
pub(super) fn create(facts: &PlanContext, content: Content) -> Vec<Op> {
    let mut ops = Vec::new();
    let Content { mut elements, chains: own, shared } = content;
    elements.extend(shared_elements(&shared));
    for family in [IpFamily::V4, IpFamily::V6] {
        let table = layout::table(family);
        // A table that is there is not an error, and what it holds goes.
        ops.push(Op::AddTable(table.clone()));
        ops.push(Op::DeleteTable(table.clone()));
        ops.push(Op::AddTable(table.clone()));
        let own_sets = elements.keys().filter(|(of, set)| *of == family && set.is_own());
        let sets = Set::fixed().into_iter().chain(own_sets.map(|(_, set)| set.clone()));
        ops.extend(sets.map(|set| Op::AddSet(table.clone(), set.spec(family))));
        let mut chains = chains::chains(facts, family);
        chains.extend(sized_chains(&shared, family));
        let own = own.iter().filter(|((of, _), _)| *of == family);
        chains.extend(own.map(|((_, name), rules)| (plain(name), rules.clone())));
        ops.extend(chains.iter().map(|(chain, _)| Op::AddChain(table.clone(), chain.clone())));
        for (chain, rules) in chains {
            ops.extend(add_rules(family, &chain.name, rules));
        }
        for (set, some) in layout::elements(facts, family) {
            elements.entry((family, set)).or_default().extend(some);
        }
    }
    ops.extend(elements.into_iter().filter_map(add_elements));
    ops
}

/// Operations that put `new` in the place of `old`; counts of what is shared follow.
pub(super) fn replace(shared: &mut Shared, old: Content, new: Content) -> Vec<Op> {
    let mut changes = Changes::default();
    changes.sets(&old.elements, &new.elements);
    changes.shared(shared, &old.shared, &new.shared);
    changes.chains(&old.chains, &new.chains);
    changes.elements(old.elements, new.elements);
    changes.into_ops()
}

/// The parts of a transaction, in an order in which every prefix keeps references valid.
#[derive(Debug, Default)]
struct Changes {
    /// Chains with their rules.
    begin: Vec<Op>,
    deleted: Elements,
    added: Elements,
    /// Chains that nothing leads to any more.
    end: Vec<Op>,
    /// Sets that nothing reads any more.
    end_sets: Vec<Op>,
}

impl Changes {
    fn into_ops(self) -> Vec<Op> {
        let mut ops = self.begin;
        ops.extend(self.deleted.into_iter().filter_map(delete_elements));
        ops.extend(self.added.into_iter().filter_map(add_elements));
        ops.extend(self.end);
        ops.extend(self.end_sets);
        ops
    }

    /// Sets of one pool each.
    fn sets(&mut self, old: &Elements, new: &Elements) {
        let own = |all: &Elements, other: &Elements| {
            let one = |of: &&(IpFamily, Set)| of.1.is_own() && !other.contains_key(*of);
            all.keys().filter(one).cloned().collect::<Vec<_>>()
        };
        for (family, set) in own(new, old) {
            self.begin.push(Op::AddSet(layout::table(family), set.spec(family)));
        }
        for (family, set) in own(old, new) {
            self.end_sets.push(Op::DeleteSet(layout::table(family), set.name().to_owned()));
        }
    }

    fn shared(&mut self, shared: &mut Shared, old: &Shared, new: &Shared) {
        recount(&mut shared.hairpin, &old.hairpin, &new.hairpin, |address, wanted| {
            let set = (IpFamily::of(*address), Set::Hairpin);
            let elements = if wanted { &mut self.added } else { &mut self.deleted };
            elements.entry(set).or_default().push(content::hairpin(*address));
        });
        recount(&mut shared.sized, &old.sized, &new.sized, |(family, class, targets), wanted| {
            let chain = class.sized_chain(*targets);
            if wanted {
                let rules = vec![class.sized_rule(*family, *targets)];
                self.begin.push(Op::AddChain(layout::table(*family), plain(&chain)));
                self.begin.extend(add_rules(*family, &chain, rules));
            } else {
                self.end.extend(delete_chain(*family, &chain));
            }
        });
    }

    fn chains(
        &mut self,
        old: &BTreeMap<(IpFamily, String), Vec<Rule>>,
        new: &BTreeMap<(IpFamily, String), Vec<Rule>>,
    ) {
        for (of, rules) in new {
            let (family, chain) = (of.0, &of.1);
            match old.get(of) {
                Some(old) if old == rules => continue,
                Some(_) => {
                    self.begin.push(Op::FlushChain(layout::table(family), chain.clone()));
                }
                None => self.begin.push(Op::AddChain(layout::table(family), plain(chain))),
            }
            self.begin.extend(add_rules(family, chain, rules.clone()));
        }
        for (family, chain) in old.keys().filter(|of| !new.contains_key(*of)) {
            self.end.extend(delete_chain(*family, chain));
        }
    }

    fn elements(&mut self, mut old: Elements, new: Elements) {
        for (set, new) in new {
            let old = old.remove(&set).unwrap_or_default();
            let (gone, come) = difference(sorted(old), sorted(new));
            self.deleted.entry(set.clone()).or_default().extend(gone);
            self.added.entry(set).or_default().extend(come);
        }
        for (set, gone) in old {
            self.deleted.entry(set).or_default().extend(sorted(gone));
        }
    }
}

/// Moves counts from `old` to `new` and tells of those that begin or cease to be zero.
fn recount<K: Ord + Clone>(
    counts: &mut BTreeMap<K, u32>,
    old: &BTreeMap<K, u32>,
    new: &BTreeMap<K, u32>,
    mut tell: impl FnMut(&K, bool),
) {
    let only_old = old.keys().filter(|key| !new.contains_key(*key));
    for key in new.keys().chain(only_old) {
        let count = |of: &BTreeMap<K, u32>| of.get(key).copied().unwrap_or(0);
        let before = count(counts);
        let after = (before + count(new)).saturating_sub(count(old));
        if after == 0 {
            counts.remove(key);
        } else {
            counts.insert(key.clone(), after);
        }
        if (before == 0) != (after == 0) {
            tell(key, after != 0);
        }
    }
}

/// Elements to delete and to add, of two lists in key order. A changed one is in both.
pub(super) fn difference<E: Borrow<Element>>(
    old: impl IntoIterator<Item = E>,
    new: impl IntoIterator<Item = E>,
) -> (Vec<E>, Vec<E>) {
    let (mut gone, mut come) = (Vec::new(), Vec::new());
    let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return (gone, come),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.borrow().key.cmp(&new.borrow().key),
        };
        match order {
            Ordering::Less => gone.extend(old.next()),
            Ordering::Greater => come.extend(new.next()),
            Ordering::Equal => {
                let (old, new) = (old.next(), new.next());
                if old.as_ref().map(E::borrow) != new.as_ref().map(E::borrow) {
                    gone.extend(old);
                    come.extend(new);
                }
            }
        }
    }
}

/// In the order of keys.
pub(super) fn sorted(mut elements: Vec<Element>) -> Vec<Element> {
    elements.sort_by(|a, b| a.key.cmp(&b.key));
    elements
}

/// Elements of sets that services share.
pub(super) fn shared_elements(shared: &Shared) -> Elements {
    let mut elements = Elements::new();
    for address in shared.hairpin.keys() {
        let set = (IpFamily::of(*address), Set::Hairpin);
        elements.entry(set).or_default().push(content::hairpin(*address));
    }
    elements
}

/// Chains that services share.
pub(super) fn sized_chains(
    shared: &Shared,
    family: IpFamily,
) -> impl Iterator<Item = (ChainSpec, Vec<Rule>)> {
    let of_family = shared.sized.keys().filter(move |(of, ..)| *of == family);
    of_family.map(|(family, class, targets)| {
        let rules = vec![class.sized_rule(*family, *targets)];
        (plain(&class.sized_chain(*targets)), rules)
    })
}

/// A chain that is not a base chain.
pub(super) fn plain(name: &str) -> ChainSpec {
    ChainSpec { name: name.to_owned(), base: None }
}

fn add_rules(family: IpFamily, chain: &str, rules: Vec<Rule>) -> impl Iterator<Item = Op> {
    let chain = chain.to_owned();
    rules.into_iter().map(move |rule| Op::AddRule {
        table: layout::table(family),
        chain: chain.clone(),
        rule,
    })
}

fn delete_chain(family: IpFamily, chain: &str) -> [Op; 2] {
    let table = layout::table(family);
    [Op::FlushChain(table.clone(), chain.to_owned()), Op::DeleteChain(table, chain.to_owned())]
}

fn add_elements(((family, set), elements): ((IpFamily, Set), Vec<Element>)) -> Option<Op> {
    let (table, set) = (layout::table(family), set.spec(family));
    // Presence is an error, so that a mistake is seen and repaired.
    let add = Op::AddElements { table, set, exclusive: true, elements: Vec::new() };
    with(add, elements)
}

fn delete_elements(((family, set), elements): ((IpFamily, Set), Vec<Element>)) -> Option<Op> {
    let (table, set) = (layout::table(family), set.spec(family));
    with(Op::DeleteElements { table, set, elements: Vec::new() }, elements)
}

fn with(mut op: Op, some: Vec<Element>) -> Option<Op> {
    if let Op::AddElements { elements, .. } | Op::DeleteElements { elements, .. } = &mut op {
        *elements = some;
        return (!elements.is_empty()).then_some(op);
    }
    None
}
