//! Rules in the kernel, in a namespace a test.

use causeway_kernel::Mac;
use causeway_ruleset::Op;

use super::{add, base, check, gc, remove, stands, table};
use crate::rules;
use crate::rules::testing::{Host, key};

const ONE: Mac = Mac([2, 0, 0, 0, 0, 1]);
const TWO: Mac = Mac([2, 0, 0, 0, 0, 2]);

#[test]
fn checks_come_and_go() {
    let host = Host::enter();
    let (one, two) = (key("blue", "a"), key("blue", "b"));
    add(host.run_dir(), &one, "veth1", ONE).expect("add");
    let alone = host.table(&table());
    assert!(stands(&base(), &mut rules::client().expect("a client")).expect("rules"));
    add(host.run_dir(), &two, "veth2", TWO).expect("add");
    let both = host.table(&table());
    assert_eq!(both.matches(" accept").count(), 1 + 1, "rule and policy in:\n{both}");
    assert_eq!(both.matches(" drop").count(), 1, "{both}");
    check(&one, "veth1", ONE).expect("check");
    check(&two, "veth2", TWO).expect("check");
    assert!(check(&two, "veth2", ONE).is_err());
    assert!(check(&two, "veth1", ONE).is_err(), "of another attachment");
    add(host.run_dir(), &two, "veth2", TWO).expect("add again");
    assert_eq!(host.table(&table()), both);

    remove(host.run_dir(), &one, "veth2", false).expect("not its own");
    assert_eq!(host.table(&table()), both);
    remove(host.run_dir(), &two, "veth2", false).expect("remove");
    assert_eq!(host.table(&table()), alone);
    remove(host.run_dir(), &two, "veth2", true).expect("remove again");
    assert_eq!(host.table(&table()), alone);
    remove(host.run_dir(), &one, "veth1", true).expect("remove the last");
    assert_eq!(host.table(&table()), "");
    remove(host.run_dir(), &one, "veth1", true).expect("remove from nothing");
}

#[test]
fn another_address_replaces_the_first() {
    let host = Host::enter();
    let one = key("blue", "a");
    add(host.run_dir(), &one, "veth1", ONE).expect("add");
    add(host.run_dir(), &one, "veth1", TWO).expect("add");
    check(&one, "veth1", TWO).expect("check");
    let text = host.table(&table());
    assert!(!text.contains("02:00:00:00:00:01"), "{text}");
}

/// Rows: F38
#[test]
fn flushed_rules_are_noticed_and_written_again() {
    let host = Host::enter();
    let one = key("blue", "a");
    add(host.run_dir(), &one, "veth1", ONE).expect("add");
    let whole = host.table(&table());
    for flush in [Op::FlushChain(table(), "prerouting".to_owned()), Op::DeleteTable(table())] {
        host.meddle(vec![flush]);
        let error = check(&one, "veth1", ONE).expect_err("rules are missing");
        assert!(error.msg.contains("macspoofchk"), "{error}");
        add(host.run_dir(), &one, "veth1", ONE).expect("add");
        assert_eq!(host.table(&table()), whole);
    }
    // The accept rule alone is gone: appended behind the drop it would accept nothing.
    let mut client = rules::client().expect("a client");
    let present = client.rules(&table(), "prerouting").expect("rules");
    let (handle, _) = present.first().expect("a rule");
    host.meddle(vec![Op::DeleteRule {
        table: table(),
        chain: "prerouting".to_owned(),
        handle: *handle,
    }]);
    add(host.run_dir(), &one, "veth1", ONE).expect("add");
    assert_eq!(host.table(&table()), whole);
}

/// Rows: C74
#[test]
fn gc_removes_what_of_its_network_is_not_kept() {
    let host = Host::enter();
    let (kept, stale, other) = (key("blue", "kept"), key("blue", "stale"), key("red", "stale"));
    for (key, name) in [(&kept, "veth1"), (&stale, "veth2"), (&other, "veth3")] {
        add(host.run_dir(), key, name, ONE).expect("add");
    }
    let keep = rules::owner(&kept);
    gc(host.run_dir(), "blue", &|owner| owner == keep).expect("gc");
    check(&kept, "veth1", ONE).expect("kept");
    check(&other, "veth3", ONE).expect("of another network");
    assert!(!host.table(&table()).contains("veth2"));
    gc(host.run_dir(), "blue", &|_| false).expect("gc");
    gc(host.run_dir(), "red", &|_| false).expect("gc");
    assert_eq!(host.table(&table()), "");
}
