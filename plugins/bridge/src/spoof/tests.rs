//! Rules in a kernel that is a fake, as an ordinary user; once those of a real one.

use causeway_host::RecordKey;
use causeway_kernel::Mac;
use causeway_nft::OwnedTable;
use causeway_ruleset::Op;
use cni_plugin::Error;

use super::{check_in_table, claim, in_table, layout, questions, table};
use crate::rules;
use crate::rules::testing::{Host, key};

const ONE: Mac = Mac([2, 0, 0, 0, 0, 1]);
const TWO: Mac = Mac([2, 0, 0, 0, 0, 2]);

fn add(host: &Host, key: &RecordKey, name: &str, mac: Mac) {
    let claim = claim(key, name, mac);
    in_table(&mut host.client()).add(host.run_dir(), &claim).expect("add");
}

fn check(host: &Host, key: &RecordKey, name: &str, mac: Mac) -> Result<(), Error> {
    check_in_table(&mut host.client(), key, name, mac)
}

fn remove(host: &Host, key: &RecordKey, name: &str, last: bool) {
    in_table(&mut host.client()).remove(key, questions(name), last).expect("remove");
}

fn gc(host: &Host, network: &str, keep: &dyn Fn(&str) -> bool) {
    in_table(&mut host.client()).gc(network, keep).expect("gc");
}

#[test]
fn checks_come_and_go() {
    come_and_go(&Host::fake());
}

#[test]
fn checks_come_and_go_in_the_kernel() {
    come_and_go(&Host::enter());
}

fn come_and_go(host: &Host) {
    let (one, two) = (key("blue", "a"), key("blue", "b"));
    add(host, &one, "veth1", ONE);
    let alone = host.table(&table());
    let second = claim(&two, "veth2", TWO);
    // The busy path must find intact what the slow path made.
    assert!(OwnedTable::new(&mut host.client(), &layout()).add(&second).expect("an addition"));
    let both = host.table(&table());
    assert_eq!(both.matches(" accept").count(), 1 + 1, "rule and policy in:\n{both}");
    assert_eq!(both.matches(" drop").count(), 1, "{both}");
    check(host, &one, "veth1", ONE).expect("check");
    check(host, &two, "veth2", TWO).expect("check");
    assert!(check(host, &two, "veth2", ONE).is_err());
    assert!(check(host, &two, "veth1", ONE).is_err(), "of another attachment");
    add(host, &two, "veth2", TWO);
    assert_eq!(host.table(&table()), both);

    remove(host, &one, "veth2", false);
    assert_eq!(host.table(&table()), both);
    remove(host, &two, "veth2", false);
    assert_eq!(host.table(&table()), alone);
    remove(host, &two, "veth2", true);
    assert_eq!(host.table(&table()), alone);
    remove(host, &one, "veth1", true);
    assert_eq!(host.table(&table()), "");
    remove(host, &one, "veth1", true);
}

#[test]
fn another_address_replaces_the_first() {
    let host = Host::fake();
    let one = key("blue", "a");
    add(&host, &one, "veth1", ONE);
    add(&host, &one, "veth1", TWO);
    check(&host, &one, "veth1", TWO).expect("check");
    let text = host.table(&table());
    assert!(!text.contains("02:00:00:00:00:01"), "{text}");
}

/// Rows: F38
#[test]
fn flushed_rules_are_noticed_and_written_again() {
    let host = Host::fake();
    let one = key("blue", "a");
    add(&host, &one, "veth1", ONE);
    let whole = host.table(&table());
    for flush in [Op::FlushChain(table(), "prerouting".to_owned()), Op::DeleteTable(table())] {
        host.meddle(vec![flush]);
        let error = check(&host, &one, "veth1", ONE).expect_err("rules are missing");
        assert!(error.msg.contains("macspoofchk"), "{error}");
        add(&host, &one, "veth1", ONE);
        assert_eq!(host.table(&table()), whole);
    }
    // The accept rule alone is gone: appended behind the drop it would accept nothing.
    let present = host.client().rules(&table(), "prerouting").expect("rules");
    let (handle, _) = present.first().expect("a rule");
    host.meddle(vec![Op::DeleteRule {
        table: table(),
        chain: "prerouting".to_owned(),
        handle: *handle,
    }]);
    add(&host, &one, "veth1", ONE);
    assert_eq!(host.table(&table()), whole);
}

/// One of the sets was emptied: what is left in the others is the attachment's own.
#[test]
fn a_flushed_set_is_filled_again() {
    let host = Host::fake();
    let one = key("blue", "a");
    add(&host, &one, "veth1", ONE);
    let whole = host.table(&table());
    for set in ["guarded", "allowed", "addresses"] {
        host.meddle(vec![Op::FlushSet(table(), set.to_owned())]);
        check(&host, &one, "veth1", ONE).expect_err("an element is missing");
        add(&host, &one, "veth1", ONE);
        assert_eq!(host.table(&table()), whole, "{set}");
    }
}

/// Rows: C74
#[test]
fn gc_removes_what_of_its_network_is_not_kept() {
    let host = Host::fake();
    let (kept, stale, other) = (key("blue", "kept"), key("blue", "stale"), key("red", "stale"));
    for (key, name) in [(&kept, "veth1"), (&stale, "veth2"), (&other, "veth3")] {
        add(&host, key, name, ONE);
    }
    let keep = rules::owner(&kept);
    gc(&host, "blue", &|owner| owner == keep);
    check(&host, &kept, "veth1", ONE).expect("kept");
    check(&host, &other, "veth3", ONE).expect("of another network");
    assert!(!host.table(&table()).contains("veth2"));
    gc(&host, "blue", &|_| false);
    gc(&host, "red", &|_| false);
    assert_eq!(host.table(&table()), "");
}
