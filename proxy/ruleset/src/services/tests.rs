//! Tests of the rendering: invariants over random histories, text of small plans.

mod apply;
mod text;

use causeway_model::IpFamily;

use self::apply::{References, apply};
use super::*;
use crate::Op;
use crate::plan::Plan;
use crate::testing::random_history;

const HISTORIES: u64 = 8;

/// Tables that a batch makes of tables, with every prefix checked for references.
fn after(tables: &Tables, batch: &Batch) -> Tables {
    let mut tables = tables.clone();
    for op in &batch.ops {
        apply(&mut tables, op);
        let is_v4 = *op.table() == table(IpFamily::V4);
        References::of(if is_v4 { &tables.v4 } else { &tables.v6 }).check(op);
    }
    tables
}

fn empty(plan: &Plan) -> Plan {
    Plan::new(plan.facts.clone())
}

#[test]
fn i2_only_our_tables_are_touched() {
    for step in random_history(1) {
        let (mut mirror, mut batch) = TableMirror::full(&empty(&step.plan));
        batch.ops.extend(TableMirror::full(&step.plan).1.ops);
        batch.ops.extend(mirror.change(&step.delta).ops);
        for op in &batch.ops {
            assert_eq!(op.table().name, "causeway_services", "{op:?}");
        }
    }
}

#[test]
fn i4_a_difference_leads_from_any_tables_to_any() {
    for seed in 0..HISTORIES {
        let mut before = Tables::default();
        for step in random_history(seed) {
            let wanted = compile(&step.plan);
            let way = diff(Some(&before), &wanted);
            assert!(after(&before, &way) == wanted, "seed {seed}");
            assert_eq!(diff(Some(&wanted), &wanted).ops, []);
            let back = diff(Some(&wanted), &before);
            assert!(after(&wanted, &back) == before, "seed {seed}, back");
            before = wanted;
        }
        let from_nothing = diff(None, &before);
        assert!(after(&Tables::default(), &from_nothing) == before, "seed {seed}");
    }
}

/// Checks as well that changing leads to what a fresh start makes, and that a full batch does.
#[test]
fn i5_every_prefix_of_a_change_keeps_references_valid() {
    for seed in 0..HISTORIES {
        let mut mirror = TableMirror::default();
        let mut tables = Tables::default();
        for (number, step) in random_history(seed).into_iter().enumerate() {
            if number == 0 {
                let (fresh, batch) = TableMirror::full(&empty(&step.plan));
                (mirror, tables) = (fresh, after(&tables, &batch));
            }
            let batch = mirror.change(&step.delta);
            tables = after(&tables, &batch);
            assert!(tables == compile(&step.plan), "seed {seed}, step {number}");
            assert_eq!(mirror, TableMirror::new(&step.plan));
            let (fresh, batch) = TableMirror::full(&step.plan);
            assert_eq!(mirror, fresh);
            assert!(after(&tables, &batch) == tables, "seed {seed}, step {number}, full");
        }
    }
}

#[test]
fn i6_equal_plans_give_equal_rules() {
    for step in random_history(7) {
        let mut again = Plan::fresh(step.plan.facts.clone(), &step.services);
        again.set_containers(step.plan.here.containers.iter().copied());
        assert_eq!(TableMirror::full(&again), TableMirror::full(&step.plan));
        assert_eq!(compile(&again), compile(&step.plan));
    }
}

#[test]
fn tables_of_another_shape_are_made_anew() {
    let wanted = compile(&random_history(3).remove(0).plan);
    let mut other = wanted.clone();
    other.v4.sets.get_mut("endpoints").expect("a map").0.key.pop();
    other.v6.chains.get_mut("output").expect("a chain").0.base = None;
    let way = diff(Some(&other), &wanted);
    assert!(after(&other, &way) == wanted);
    let deleted = way.ops.iter().filter(|op| matches!(op, Op::DeleteTable(_)));
    assert_eq!(deleted.count(), 2);
}

/// What a difference leaves alone keeps its counters and what clients are bound to.
#[test]
fn a_difference_touches_only_what_differs() {
    let plan = crate::testing::plan(
        "a 172.30.0.1 balance=round-robin 80/tcp -> 10.0.1.2:80@n1 10.0.1.3:80@n1
         b 172.30.0.2 affinity=60 80/tcp -> 10.0.1.2:80@n1 10.0.1.3:80@n1",
    );
    let wanted = compile(&plan);
    let mut actual = wanted.clone();
    let client = crate::Element {
        key: crate::Key::Exact(vec![crate::RegValue::V4([10, 0, 1, 9].into())]),
        value: None,
        comment: None,
    };
    actual.v4.sets.get_mut("affinity").expect("a set").1.push(client);
    assert_eq!(diff(Some(&actual), &wanted).ops, []);
    actual.v4.chains.get_mut("pool").expect("a chain").1.pop();
    let touched = diff(Some(&actual), &wanted).ops;
    let of_pool = |op: &Op| matches!(op, Op::FlushChain(_, chain) | Op::AddRule { chain, .. } if chain == "pool");
    assert!(touched.iter().all(of_pool), "{touched:?}");
    assert_eq!(touched[0], Op::FlushChain(table(IpFamily::V4), "pool".into()));
}
