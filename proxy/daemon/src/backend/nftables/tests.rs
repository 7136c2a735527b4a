//! Reconciling with a kernel that is a fake, as an ordinary user.

use causeway_nft::Fake;
use causeway_ruleset::services::compile;
use causeway_ruleset::testing::{plan, random_history};
use causeway_ruleset::{Element, TableState};

use super::*;

const WEB: &str = "shop/web 172.30.0.1 80/tcp -> 10.0.1.2:8080 10.0.1.3:8080";

/// A backend on a kernel that another process can change, too.
fn backend(fake: &Fake) -> Nftables {
    Nftables { client: Client::of_fake(fake), mirror: None }
}

fn listed(fake: &Fake) -> [TableState; 2] {
    tables().map(|table| {
        let mut state = Client::of_fake(fake).table(&table).unwrap().unwrap_or_default();
        for (_, rules) in state.chains.values_mut() {
            rules.iter_mut().for_each(|(handle, _)| *handle = 0);
        }
        state
    })
}

/// What a fresh kernel holds after a full sync of the same plan.
fn wanted(plan: &Plan) -> [TableState; 2] {
    let fake = Fake::default();
    backend(&fake).full_sync(plan).unwrap();
    listed(&fake)
}

fn another_process(fake: &Fake, ops: Vec<Op>) {
    Client::of_fake(fake).commit(&Batch { ops, generation: None }).unwrap();
}

/// Deletes the first element that it finds in a map of IPv4.
fn drift(fake: &Fake) -> Op {
    let [table, _] = tables();
    let state = Client::of_fake(fake).table(&table).unwrap().unwrap();
    let filled = |(set, elements): (_, Vec<Element>)| {
        elements.into_iter().next().map(|element| (set, vec![element]))
    };
    let (set, elements) = state.sets.into_values().find_map(filled).unwrap();
    Op::DeleteElements { table, set, elements }
}

#[test]
fn a_full_sync_writes_once_and_then_finds_nothing() {
    let fake = Fake::default();
    let mut backend = backend(&fake);
    let plan = plan(WEB);
    assert!(backend.full_sync(&plan).unwrap());
    let written = fake.commits();
    assert!(!backend.full_sync(&plan).unwrap());
    assert_eq!(fake.commits(), written);
    let Tables { v4, v6 } = compile(&plan);
    for (state, wanted) in listed(&fake).iter().zip([v4, v6]) {
        assert!(state.sets == wanted.sets && state.chains.keys().eq(wanted.chains.keys()));
    }
}

#[test]
fn drift_is_found_and_repaired() {
    let fake = Fake::default();
    let mut backend = backend(&fake);
    let plan = plan(WEB);
    backend.full_sync(&plan).unwrap();
    another_process(&fake, vec![drift(&fake)]);
    assert_ne!(listed(&fake), wanted(&plan));
    assert!(backend.full_sync(&plan).unwrap());
    assert_eq!(listed(&fake), wanted(&plan));
    let [v4, v6] = tables();
    another_process(&fake, vec![Op::DeleteTable(v4), Op::DeleteTable(v6)]);
    assert!(backend.full_sync(&plan).unwrap());
    assert_eq!(listed(&fake), wanted(&plan));
}

#[test]
fn rules_that_another_process_flushed_are_written_again() {
    let fake = Fake::default();
    let mut backend = backend(&fake);
    let plan = plan(WEB);
    backend.full_sync(&plan).unwrap();
    let [table, _] = tables();
    let state = Client::of_fake(&fake).table(&table).unwrap().unwrap();
    let flush = state.chains.into_keys().map(|chain| Op::FlushChain(table.clone(), chain));
    another_process(&fake, flush.collect());
    assert!(backend.full_sync(&plan).unwrap());
    assert_eq!(listed(&fake), wanted(&plan));
}

/// The history's changes one by one, and before some of them another process breaks something.
#[test]
fn a_change_that_fails_leads_to_a_full_sync() {
    let mut failed = 0;
    for seed in 1..=4 {
        let fake = Fake::default();
        let mut backend = backend(&fake);
        for (step, history) in random_history(seed).into_iter().enumerate() {
            if step % 3 == 2 {
                let [v4, v6] = tables();
                another_process(&fake, vec![Op::DeleteTable(v4), Op::DeleteTable(v6)]);
            }
            let before = listed(&fake);
            if backend.apply_delta(&history.plan, &history.delta).is_err() {
                failed += 1;
                assert_eq!(listed(&fake), before, "seed {seed}, step {step}");
                assert!(backend.mirror.is_none());
                backend.apply_delta(&history.plan, &history.delta).unwrap();
            }
            // A change that did nothing has not noticed.
            backend.full_sync(&history.plan).unwrap();
            assert_eq!(listed(&fake), wanted(&history.plan), "seed {seed}, step {step}");
        }
    }
    assert!(failed > 0);
}

#[test]
fn a_refused_transaction_says_whether_it_may_pass() {
    let fake = Fake::default();
    let mut backend = backend(&fake);
    let plan = plan(WEB);
    fake.refuse([libc::ENOMEM]);
    assert!(!backend.full_sync(&plan).unwrap_err().passing);
    assert_eq!(listed(&fake), [TableState::default(), TableState::default()]);
    backend.full_sync(&plan).unwrap();
    let bigger = causeway_ruleset::testing::plan(&format!(
        "{WEB}\nshop/api 172.30.0.2 80/tcp -> 10.0.1.4:8080"
    ));
    another_process(&fake, vec![drift(&fake)]);
    fake.refuse([libc::EBUSY]);
    // Read again, compared again, written.
    backend.full_sync(&bigger).unwrap();
    assert_eq!(listed(&fake), wanted(&bigger));
}

#[test]
fn what_was_read_is_not_written_upon_when_another_process_was_faster() {
    let fake = Fake::default();
    let mut backend = backend(&fake);
    let plan = plan(WEB);
    backend.full_sync(&plan).unwrap();
    another_process(&fake, vec![drift(&fake)]);
    fake.meanwhile(vec![drift(&fake)]);
    let before = fake.commits();
    backend.full_sync(&plan).unwrap();
    assert_eq!(fake.commits() - before, 2, "the first is on an old generation");
    assert_eq!(listed(&fake), wanted(&plan));
    another_process(&fake, vec![drift(&fake)]);
    for _ in 0..ATTEMPTS {
        let scratch = TableId { name: "another".to_owned(), ..tables()[0].clone() };
        fake.meanwhile(vec![Op::AddTable(scratch.clone()), Op::DeleteTable(scratch)]);
    }
    assert!(backend.full_sync(&plan).unwrap_err().passing);
}
