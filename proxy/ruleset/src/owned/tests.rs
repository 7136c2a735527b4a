//! What a table's plans say of what was seen.

use super::*;
use crate::{BaseChain, DataType, Family, Hook, MapTarget, RegValue, Statement, Verdict};

fn rule(comment: &str) -> Rule {
    Rule { statements: vec![Statement::Counter], comment: Some(comment.to_owned()) }
}

fn map() -> SetSpec {
    SetSpec {
        name: "map".to_owned(),
        key: vec![DataType::InetService],
        target: Some(MapTarget::Verdict),
        interval: false,
        dynamic: false,
        timeout_ms: None,
    }
}

fn layout() -> Layout {
    let kind = "filter".to_owned();
    let base = BaseChain { kind, hook: Hook::Input, priority: 0, policy_drop: false };
    let input = ChainSpec { name: "input".to_owned(), base: Some(base) };
    let table = TableId { family: Family::Inet, name: "t".to_owned() };
    let chains = vec![(input, vec![rule("first"), rule("second")])];
    Layout { is_claimed: |name| name.starts_with("x-"), ..Layout::new(table, vec![map()], chains) }
}

fn claim(owner: &str, port: u16, chain: &str) -> Claim {
    let value = ElementValue::Verdict(Verdict::Jump(chain.to_owned()));
    let key = Key::Exact(vec![RegValue::Port(port)]);
    let element = Element { key, value: Some(value), comment: Some(owner.to_owned()) };
    let chain = ChainSpec { name: chain.to_owned(), base: None };
    Claim {
        chains: vec![(chain, vec![rule("shared")])],
        elements: vec![Placed { set: map(), element }],
    }
}

/// The table with the rules of `input`, and everything of the claims.
fn state(input: &[&str], claims: &[&Claim]) -> TableState {
    let mut state = TableState::default();
    let mut chain = |spec: &ChainSpec, rules: Vec<Rule>| {
        let rules = (1..).zip(rules).collect();
        state.chains.insert(spec.name.clone(), (spec.clone(), rules));
    };
    chain(&layout().chains[0].0, input.iter().map(|comment| rule(comment)).collect());
    for (spec, rules) in claims.iter().flat_map(|claim| &claim.chains) {
        chain(spec, rules.clone());
    }
    let elements = claims.iter().flat_map(|claim| &claim.elements);
    let elements = elements.map(|placed| placed.element.clone()).collect();
    state.sets.insert("map".to_owned(), (map(), elements));
    state
}

fn rule_ops(ops: &[Op]) -> Vec<String> {
    let word = |op: &Op| {
        if let Op::DeleteRule { handle, .. } = op {
            return Some(format!("delete {handle}"));
        }
        let Op::AddRule { rule, .. } = op else { return None };
        Some(format!("add {}", rule.comment.as_ref()?))
    };
    ops.iter().filter_map(word).collect()
}

#[test]
fn of_our_rules_there_is_one_each_in_order_and_others_stay() {
    for (present, wanted) in [
        (&["first", "second"][..], &[][..]),
        (&["theirs", "first", "theirs", "second"], &[]),
        (&[], &["add first", "add second"]),
        (&["second"], &["delete 1", "add first", "add second"]),
        (&["second", "first"], &["delete 1", "delete 2", "add first", "add second"]),
        (
            &["first", "theirs", "second", "second"],
            &["delete 1", "delete 3", "delete 4", "add first", "add second"],
        ),
    ] {
        let seen = Seen::from(state(present, &[]));
        assert_eq!(rule_ops(&layout().repair(&seen)), wanted, "{present:?}");
        assert_eq!(layout().is_intact(&seen), wanted.is_empty(), "{present:?}");
    }
}

#[test]
fn a_table_goes_once_nothing_of_anybody_is_left() {
    let one = claim("one", 1, "x-1");
    let whole = ["first", "second"];
    let is_spent = |state: &TableState| {
        layout().is_spent(state, &|element| element.comment.as_deref() == Some("one"))
    };
    assert!(is_spent(&state(&whole, &[&one])));
    assert!(is_spent(&state(&[], &[])));
    assert!(!is_spent(&state(&whole, &[&one, &claim("two", 2, "x-1")])), "another's element");
    assert!(!is_spent(&state(&["first", "theirs"], &[])), "another's rule");
    assert!(!is_spent(&state(&whole, &[&claim("one", 1, "theirs")])), "another's chain");
    let mut more = state(&whole, &[]);
    more.sets.insert("theirs".to_owned(), (map(), Vec::new()));
    assert!(!is_spent(&more), "another's set");
}

#[test]
fn a_newcomer_gets_what_stands_under_its_keys() {
    let (old, new) = (claim("old", 1, "x-1"), claim("new", 1, "x-2"));
    let seen = Seen::from(state(&["first", "second"], &[&old]));
    let ops = layout().establish(&new, &seen);
    let (placed, key) = (&new.elements[0], &new.elements[0].element.key);
    let tail = [layout().delete(&map(), key.clone()), layout().insert(placed)];
    assert!(ops.ends_with(&tail), "{ops:?}");
    assert_eq!(layout().left(&old.elements), ["x-1".to_owned()].into());
    assert_eq!(layout().missing(&old, &seen), None);
    assert_eq!(layout().missing(&new, &seen), Some(Missing::Rules));
    let seen = Seen::from(state(&["first", "second"], &[&claim("other", 1, "x-2")]));
    assert_eq!(layout().missing(&new, &seen), Some(Missing::Element(0)));
}

#[test]
fn what_others_have_is_not_restored_to_the_one_before() {
    let (old, new) = (claim("old", 1, "x-1"), claim("new", 1, "x-1"));
    let whole = ["first", "second"];
    let restore = |state| layout().restore(&[old.clone(), claim("two", 2, "x-1")], state);
    let (ops, lacking) = restore(state(&whole, &[&new, &claim("two", 2, "x-1")]));
    assert_eq!((ops, lacking), (Vec::new(), BTreeSet::new()));
    let (ops, lacking) = restore(state(&whole, &[&old]));
    assert_eq!(ops, [layout().insert(&claim("two", 2, "x-1").elements[0])]);
    assert_eq!(lacking, [1].into());
    let (ops, lacking) = restore(TableState::default());
    assert_eq!(lacking, [0, 1].into());
    assert_eq!(rule_ops(&ops), ["add first", "add second", "add shared"], "shared ones once");
}
