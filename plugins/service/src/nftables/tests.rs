//! Host ports in a kernel that is a fake, as an ordinary user.

use causeway_host::RecordKey;
use causeway_nft::Fake;
use causeway_ruleset::TableState;

use crate::mapping::Binding;
use crate::record::{Again, Masquerade, RecordBackend};

use super::*;

const NONE: ByFamily<'_> = ByFamily { v4: None, v6: None };

fn rules(fake: &Fake) -> Rules {
    Rules::new(Client::of_fake(fake))
}

fn record(port: u16, target: &str) -> Record {
    let target = target.parse().unwrap();
    Record {
        backend: RecordBackend::Nftables,
        bindings: vec![Binding { protocol: Protocol::Tcp, host: None, host_port: port, target }],
        masquerade: Masquerade::Needed,
        conditions_v4: None,
        conditions_v6: None,
        again: Again::default(),
    }
}

fn add(fake: &Fake, record: &Record, owner: &str) -> Result<(), Error> {
    rules(fake).add(Owned { record, owner }, NONE, || Ok(()))
}

fn listed(fake: &Fake) -> Option<TableState> {
    Client::of_fake(fake).table(&layout::table()).unwrap()
}

fn another_process(fake: &Fake, ops: Vec<Op>) {
    Client::of_fake(fake).commit(&Batch { ops, generation: None }).unwrap();
}

#[test]
fn the_last_attachment_takes_the_table_with_it() {
    let fake = Fake::default();
    let (first, second) = (record(80, "10.0.0.2:8080"), record(81, "10.0.0.3:8080"));
    add(&fake, &first, "a first").unwrap();
    let alone = listed(&fake);
    add(&fake, &second, "b second").unwrap();
    let owned = Owned { record: &second, owner: "b second" };
    assert!(rules(&fake).missing(owned).unwrap().is_empty());
    rules(&fake).remove(owned, &[]).unwrap();
    rules(&fake).remove_unused(Vec::new).unwrap();
    assert_eq!(listed(&fake), alone);
    rules(&fake).remove(Owned { record: &first, owner: "a first" }, &[]).unwrap();
    rules(&fake).remove_unused(Vec::new).unwrap();
    assert_eq!(listed(&fake), None);
    // DEL any number of times.
    rules(&fake).remove(Owned { record: &first, owner: "a first" }, &[]).unwrap();
    rules(&fake).remove_unused(Vec::new).unwrap();
}

#[test]
fn a_taken_port_is_refused_by_name_and_changes_nothing() {
    let fake = Fake::default();
    add(&fake, &record(80, "10.0.0.2:8080"), "a first").unwrap();
    let before = listed(&fake);
    let error = add(&fake, &record(80, "10.0.0.3:8080"), "b second").unwrap_err();
    assert_eq!(error.code, Code::PortInUse);
    assert!(error.msg.contains("in use by first"), "{}", error.msg);
    assert_eq!(listed(&fake), before);
}

/// Between reading and writing: the transaction names the element, and the operation starts again.
#[test]
fn a_port_that_another_process_takes_meanwhile_is_refused_by_name() {
    let fake = Fake::default();
    add(&fake, &record(80, "10.0.0.2:8080"), "a first").unwrap();
    let thief = plan::elements(&record(81, "10.0.0.9:8080"), "t thief");
    let take = |placed: Placed| Op::AddElements {
        table: layout::table(),
        set: placed.set,
        elements: vec![placed.element],
        exclusive: true,
    };
    fake.meanwhile(thief.into_iter().map(take).collect());
    let error = add(&fake, &record(81, "10.0.0.3:8080"), "b second").unwrap_err();
    assert_eq!(error.code, Code::PortInUse);
    assert!(error.msg.contains("in use by thief"), "{}", error.msg);
}

#[test]
fn a_damaged_base_is_built_again_around_what_is_there() {
    let fake = Fake::default();
    let first = record(80, "10.0.0.2:8080");
    add(&fake, &first, "a first").unwrap();
    let whole = rules(&fake).damaged().unwrap();
    assert!(whole.is_empty(), "{whole:?}");
    another_process(&fake, vec![Op::FlushChain(layout::table(), layout::HOSTPORTS.to_owned())]);
    assert_eq!(rules(&fake).damaged().unwrap(), [layout::HOSTPORTS]);
    add(&fake, &record(81, "10.0.0.3:8080"), "b second").unwrap();
    assert_eq!(rules(&fake).damaged().unwrap(), [""; 0]);
    // The whole table is gone.
    another_process(&fake, vec![Op::DeleteTable(layout::table())]);
    let key = RecordKey {
        network: "net".to_owned(),
        container_id: "id".to_owned(),
        ifname: "eth0".to_owned(),
    };
    let holders = [Holder::new(key, first.clone()).unwrap()];
    let owned = Owned { record: &first, owner: &holders[0].owner };
    assert!(!rules(&fake).holds(owned).unwrap());
    rules(&fake).restore(&holders, false).unwrap();
    assert_eq!(listed(&fake), None);
    rules(&fake).restore(&holders, true).unwrap();
    assert!(rules(&fake).missing(owned).unwrap().is_empty());
    assert_eq!(rules(&fake).damaged().unwrap(), [""; 0]);
}

#[test]
fn a_busy_kernel_is_asked_again_and_then_reported() {
    let fake = Fake::default();
    let first = record(80, "10.0.0.2:8080");
    fake.refuse([libc::EBUSY, libc::EBUSY]);
    add(&fake, &first, "a first").unwrap();
    // The fourth try is the last.
    fake.refuse([libc::EBUSY; 4]);
    let error = add(&fake, &record(81, "10.0.0.3:8080"), "b second").unwrap_err();
    assert_eq!(error.code, Code::TryAgainLater);
    fake.refuse([libc::EPERM]);
    let error = add(&fake, &record(82, "10.0.0.3:8080"), "b second").unwrap_err();
    assert_eq!(error.code, Code::Io);
    let marks = |state: TableState| state.sets[&layout::attachments().name].1.len();
    assert_eq!(listed(&fake).map(marks), Some(1));
}
