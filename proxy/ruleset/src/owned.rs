//! Tables that are ours by name (invariant I2) and that many processes write at once: sets and
//! chains, the layout, built when they are missed; elements, each with its owner as comment; and
//! everything gone with the last of them.
//!
//! What another process put into such a table is neither deleted nor doubled: it only keeps the
//! table alive. Question and answer: a plan names what it has to know, `causeway_nft::OwnedTable`
//! asks the kernel, and the plan makes operations of what was [seen](Seen).

use std::collections::{BTreeMap, BTreeSet};

use crate::{ChainSpec, Element, ElementValue, Key, Op, Rule, SetSpec, TableId, TableState};

#[cfg(test)]
mod tests;

/// A set and a key in it.
pub type Question = (SetSpec, Key);

/// A table without its elements.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Table.
    pub table: TableId,
    /// Its sets and maps.
    pub sets: Vec<SetSpec>,
    /// Its chains with their rules, one before those that jump to it.
    pub chains: Vec<(ChainSpec, Vec<Rule>)>,
    /// Whether a chain beside those is one that [claims](Claim) bring along, by its name.
    pub is_claimed: fn(&str) -> bool,
    /// The element that an element tells of: they come and go together.
    pub companion: fn(&Placed) -> Option<Question>,
}

/// An element and the set it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The set.
    pub set: SetSpec,
    /// The element.
    pub element: Element,
}

/// What one owner has in a table.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Chains that its elements lead to. Named by what they hold, owners share them.
    pub chains: Vec<(ChainSpec, Vec<Rule>)>,
    /// Its elements.
    pub elements: Vec<Placed>,
}

/// What the kernel holds of the things that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Rules with handles, by chain.
    pub chains: BTreeMap<String, Vec<(u64, Rule)>>,
    /// Elements, by set and key.
    pub elements: BTreeMap<(String, Key), Element>,
}

/// What a claim lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Rules of the layout or of its own chains.
    Rules,
    /// The element at this place of [`Claim::elements`].
    Element(usize),
}

impl Placed {
    /// Its set and key.
    pub fn question(&self) -> Question {
        (self.set.clone(), self.element.key.clone())
    }

    /// The chain that it leads to.
    fn target(&self) -> Option<&str> {
        match &self.element.value {
            Some(ElementValue::Verdict(verdict)) => verdict.chain(),
            _ => None,
        }
    }
}

impl Seen {
    /// Rules of a chain; none if it is absent.
    pub fn rules(&self, chain: &str) -> &[(u64, Rule)] {
        self.chains.get(chain).map(Vec::as_slice).unwrap_or_default()
    }

    /// The element of `set` at `key`.
    pub fn element(&self, set: &SetSpec, key: &Key) -> Option<&Element> {
        self.elements.get(&(set.name.clone(), key.clone()))
    }
}

impl From<TableState> for Seen {
    fn from(state: TableState) -> Self {
        let chains = state.chains.into_iter().map(|(name, (_, rules))| (name, rules));
        let elements = state.sets.into_iter().flat_map(|(set, (_, elements))| {
            elements.into_iter().map(move |element| ((set.clone(), element.key.clone()), element))
        });
        Self { chains: chains.collect(), elements: elements.collect() }
    }
}

impl Layout {
    /// A table without shared chains and companions.
    pub fn new(table: TableId, sets: Vec<SetSpec>, chains: Vec<(ChainSpec, Vec<Rule>)>) -> Self {
        Self { table, sets, chains, is_claimed: |_| false, companion: |_| None }
    }

    /// Whether the table's own rules are there. A foreign flush of a table leaves sets and elements
    /// alone, so that additions go through and do nothing: only the rules tell.
    fn is_intact(&self, seen: &Seen) -> bool {
        self.damaged(seen).next().is_none()
    }

    /// Chains whose rules are not all there.
    pub fn damaged(&self, seen: &Seen) -> impl Iterator<Item = &str> {
        let damaged = self.chains.iter().filter(|(spec, wanted)| {
            let present = seen.rules(&spec.name).iter().map(|(_, rule)| rule);
            !present.filter(|rule| wanted.contains(rule)).eq(wanted)
        });
        damaged.map(|(spec, _)| spec.name.as_str())
    }

    /// Whether `state` has all sets.
    fn has_sets(&self, state: &TableState) -> bool {
        self.sets.iter().all(|set| state.sets.contains_key(&set.name))
    }

    /// What `state` holds, and whether all of the layout is there.
    pub fn look(&self, state: TableState) -> (Seen, bool) {
        let sets = self.has_sets(&state);
        let seen = Seen::from(state);
        let whole = sets && self.is_intact(&seen);
        (seen, whole)
    }

    /// Operations that make the table whole. Rules of others stay; of ours there is one each, in
    /// order, afterwards.
    pub fn repair(&self, seen: &Seen) -> Vec<Op> {
        let mut ops = self.frame();
        let chains = self.chains.iter();
        ops.extend(chains.map(|(spec, _)| Op::AddChain(self.table.clone(), spec.clone())));
        let damaged: BTreeSet<&str> = self.damaged(seen).collect();
        for (spec, wanted) in self.chains.iter().filter(|(spec, _)| damaged.contains(&*spec.name)) {
            let chain = &spec.name;
            let ours = seen.rules(chain).iter().filter(|(_, rule)| wanted.contains(rule));
            ops.extend(ours.map(|(handle, _)| Op::DeleteRule {
                table: self.table.clone(),
                chain: chain.clone(),
                handle: *handle,
            }));
            ops.extend(wanted.iter().map(|rule| append(&self.table, chain, rule)));
        }
        ops
    }

    /// Operations that make the table whole, with no other rules in its chains.
    pub fn rewrite(&self) -> Vec<Op> {
        let mut ops = self.frame();
        ops.extend(self.chains.iter().flat_map(|(spec, rules)| fill(&self.table, spec, rules)));
        ops
    }

    fn frame(&self) -> Vec<Op> {
        let sets = self.sets.iter().map(|set| Op::AddSet(self.table.clone(), set.clone()));
        std::iter::once(Op::AddTable(self.table.clone())).chain(sets).collect()
    }

    /// Whether the table holds nothing but the layout, chains of claims, and elements that `leaving`
    /// knows: then it can go.
    pub fn is_spent(&self, state: &TableState, leaving: &dyn Fn(&Element) -> bool) -> bool {
        let own = |name: &str| self.chains.iter().find(|(spec, _)| spec.name == name);
        let chains = state.chains.iter().all(|(name, (_, present))| {
            (self.is_claimed)(name)
                || own(name)
                    .is_some_and(|(_, ours)| present.iter().all(|(_, rule)| ours.contains(rule)))
        });
        let sets = state.sets.iter().all(|(name, (_, elements))| {
            self.sets.iter().any(|set| set.name == *name) && elements.iter().all(leaving)
        });
        chains && sets
    }

    /// Chains that [`Layout::establish`] and [`Layout::missing`] have to know.
    pub fn chains_of<'a>(&'a self, claim: &'a Claim) -> impl Iterator<Item = &'a str> {
        self.chains.iter().chain(&claim.chains).map(|(spec, _)| spec.name.as_str())
    }

    /// The first thing that the claim lacks.
    pub fn missing(&self, claim: &Claim, seen: &Seen) -> Option<Missing> {
        if !self.stands(claim, seen) {
            return Some(Missing::Rules);
        }
        let lacks = |one: &Placed| seen.element(&one.set, &one.element.key) != Some(&one.element);
        claim.elements.iter().position(lacks).map(Missing::Element)
    }

    /// Whether all rules are there, of the layout and of the claim.
    pub fn stands(&self, claim: &Claim, seen: &Seen) -> bool {
        self.is_intact(seen) && claim.chains.iter().all(|chain| holds_just(seen, chain))
    }

    /// Operations that put the claim in place if none of its elements is there.
    pub fn add(&self, claim: &Claim) -> Vec<Op> {
        claim.elements.iter().map(|placed| self.insert(placed)).collect()
    }

    /// Operations that put the claim in place, whatever stands there. `seen` holds what stands under
    /// its keys, with companions: whoever owned that, it is the newcomer's.
    pub fn establish(&self, claim: &Claim, seen: &Seen) -> Vec<Op> {
        let mut ops = self.repair(seen);
        for chain in &claim.chains {
            match holds_just(seen, chain) {
                true => ops.push(Op::AddChain(self.table.clone(), chain.0.clone())),
                false => ops.extend(fill(&self.table, &chain.0, &chain.1)),
            }
        }
        let wanted: BTreeSet<(&str, &Key)> = claim
            .elements
            .iter()
            .map(|placed| (placed.set.name.as_str(), &placed.element.key))
            .collect();
        let others =
            seen.elements.keys().filter(|(set, key)| !wanted.contains(&(set.as_str(), key)));
        ops.extend(others.filter_map(|(set, key)| {
            let set = self.sets.iter().find(|one| one.name == *set)?;
            Some(self.delete(set, key.clone()))
        }));
        for placed in &claim.elements {
            ops.extend(self.replace(placed, seen.element(&placed.set, &placed.element.key)));
        }
        ops
    }

    /// Operations that delete elements.
    pub fn remove(&self, gone: &[Placed]) -> Vec<Op> {
        gone.iter().map(|one| self.delete(&one.set, one.element.key.clone())).collect()
    }

    /// Chains of claims that nothing may lead to once `gone` are deleted.
    pub fn left<'a>(&self, gone: impl IntoIterator<Item = &'a Placed>) -> BTreeSet<String> {
        let targets = gone.into_iter().filter_map(Placed::target);
        targets.filter(|chain| (self.is_claimed)(chain)).map(str::to_owned).collect()
    }

    /// Operations that put in place what `claims` lack, and the places of those that lack something.
    /// What another owner has stays its own.
    pub fn restore(&self, claims: &[Claim], state: TableState) -> (Vec<Op>, BTreeSet<usize>) {
        let (seen, whole) = self.look(state);
        let (mut ops, mut lacking) = match whole {
            true => (Vec::new(), BTreeSet::new()),
            false => (self.repair(&seen), (0..claims.len()).collect()),
        };
        let mut made = BTreeSet::new();
        for (place, claim) in claims.iter().enumerate() {
            for chain in claim.chains.iter().filter(|chain| !holds_just(&seen, chain)) {
                lacking.insert(place);
                if made.insert(chain.0.name.as_str()) {
                    ops.extend(fill(&self.table, &chain.0, &chain.1));
                }
            }
            for placed in &claim.elements {
                let there = seen.element(&placed.set, &placed.element.key);
                if there.is_some_and(|there| there.comment != placed.element.comment) {
                    continue;
                }
                let changes = self.replace(placed, there);
                if !changes.is_empty() {
                    lacking.insert(place);
                }
                ops.extend(changes);
            }
        }
        (ops, lacking)
    }

    /// Operations that turn `present` into `wanted`.
    fn replace(&self, wanted: &Placed, present: Option<&Element>) -> Vec<Op> {
        match present {
            Some(present) if *present == wanted.element => Vec::new(),
            Some(_) => {
                vec![self.delete(&wanted.set, wanted.element.key.clone()), self.insert(wanted)]
            }
            None => vec![self.insert(wanted)],
        }
    }

    fn insert(&self, placed: &Placed) -> Op {
        insert(&self.table, placed.clone())
    }

    fn delete(&self, set: &SetSpec, key: Key) -> Op {
        delete(&self.table, set.clone(), key)
    }
}

/// Adds one element; its presence is `EEXIST`.
pub fn insert(table: &TableId, Placed { set, element }: Placed) -> Op {
    Op::AddElements { table: table.clone(), set, elements: vec![element], exclusive: true }
}

/// Deletes one element by key.
pub fn delete(table: &TableId, set: SetSpec, key: Key) -> Op {
    let elements = vec![Element { key, value: None, comment: None }];
    Op::DeleteElements { table: table.clone(), set, elements }
}

/// Whether a chain holds its rules and no others.
fn holds_just(seen: &Seen, (spec, wanted): &(ChainSpec, Vec<Rule>)) -> bool {
    seen.rules(&spec.name).iter().map(|(_, rule)| rule).eq(wanted)
}

/// Makes a chain that holds `rules` and no others.
pub fn fill(table: &TableId, chain: &ChainSpec, rules: &[Rule]) -> Vec<Op> {
    let mut ops = vec![
        Op::AddChain(table.clone(), chain.clone()),
        Op::FlushChain(table.clone(), chain.name.clone()),
    ];
    ops.extend(rules.iter().map(|rule| append(table, &chain.name, rule)));
    ops
}

/// Appends `rule`.
pub fn append(table: &TableId, chain: &str, rule: &Rule) -> Op {
    Op::AddRule { table: table.clone(), chain: chain.to_owned(), rule: rule.clone() }
}
