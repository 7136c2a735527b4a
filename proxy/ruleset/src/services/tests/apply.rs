//! What the kernel makes of operations, on tables as values.

use std::collections::BTreeSet;

use crate::services::{Tables, layout};
use crate::{Element, ElementValue, MapTarget, Op, Rule, Statement, TableState};
use causeway_model::IpFamily;

/// Carries an operation out.
///
/// # Panics
/// The kernel would refuse it.
pub(super) fn apply(tables: &mut Tables, op: &Op) {
    let table = if *op.table() == layout::table(IpFamily::V4) {
        &mut tables.v4
    } else {
        assert_eq!(*op.table(), layout::table(IpFamily::V6));
        &mut tables.v6
    };
    match op {
        Op::AddTable(_) => {}
        Op::DeleteTable(_) => *table = TableState::default(),
        Op::AddChain(_, chain) => {
            let old = table.chains.insert(chain.name.clone(), (chain.clone(), Vec::new()));
            assert!(old.is_none(), "{op:?}: is there");
        }
        Op::FlushChain(_, chain) => table.chains.get_mut(chain).expect("a chain").1.clear(),
        Op::DeleteChain(_, chain) => {
            let (_, rules) = table.chains.remove(chain).expect("a chain");
            assert!(rules.is_empty(), "{op:?}: has rules");
        }
        Op::AddSet(_, set) => {
            let old = table.sets.insert(set.name.clone(), (set.clone(), Vec::new()));
            assert!(old.is_none(), "{op:?}: is there");
        }
        Op::FlushSet(_, set) => table.sets.get_mut(set).expect("a set").1.clear(),
        Op::DeleteSet(_, set) => drop(table.sets.remove(set).expect("a set")),
        Op::AddElements { set, elements, exclusive, .. } => {
            let (spec, there) = table.sets.get_mut(&set.name).expect("a set");
            assert_eq!(spec, set);
            for element in elements {
                match there.binary_search_by(|one| one.key.cmp(&element.key)) {
                    Ok(_) => assert!(!exclusive, "{op:?}: {element:?} is there"),
                    Err(at) => there.insert(at, element.clone()),
                }
            }
        }
        Op::DeleteElements { set, elements, .. } => {
            let (spec, there) = table.sets.get_mut(&set.name).expect("a set");
            assert_eq!(spec, set);
            for element in elements {
                let at = there.binary_search_by(|one| one.key.cmp(&element.key));
                there.remove(at.expect("the element is there"));
            }
        }
        Op::AddRule { chain, rule, .. } => {
            table.chains.get_mut(chain).expect("a chain").1.push((0, rule.clone()));
        }
        Op::DeleteRule { .. } => panic!("{op:?}: rules have no handles here"),
    }
}

/// Chains and sets that a table refers to, and those that it has.
pub(super) struct References<'a> {
    table: &'a TableState,
    chains: BTreeSet<&'a str>,
    sets: BTreeSet<&'a str>,
}

impl<'a> References<'a> {
    pub(super) fn of(table: &'a TableState) -> Self {
        let mut references = Self { table, chains: BTreeSet::new(), sets: BTreeSet::new() };
        for (_, rules) in table.chains.values() {
            rules.iter().for_each(|(_, rule)| references.rule(rule));
        }
        let verdicts =
            table.sets.values().filter(|(set, _)| set.target == Some(MapTarget::Verdict));
        for (_, elements) in verdicts {
            elements.iter().for_each(|element| references.element(element));
        }
        references
    }

    /// # Panics
    /// A reference leads nowhere after this operation.
    pub(super) fn check(&self, op: &Op) {
        for chain in &self.chains {
            assert!(self.table.chains.contains_key(*chain), "{op:?}: no chain {chain}");
        }
        for set in &self.sets {
            assert!(self.table.sets.contains_key(*set), "{op:?}: no set {set}");
        }
    }

    fn rule(&mut self, rule: &'a Rule) {
        for statement in &rule.statements {
            self.sets.extend(statement.sets().map(|(set, _)| set));
            if let Statement::Verdict(verdict) = statement {
                self.chains.extend(verdict.chain());
            }
        }
    }

    fn element(&mut self, element: &'a Element) {
        if let Some(ElementValue::Verdict(verdict)) = &element.value {
            self.chains.extend(verdict.chain());
        }
    }
}
