//! Changes of our tables by others are noticed, and no other changes.

mod common;

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};

use causeway_nft::{Client, Monitor};
use causeway_ruleset::{DataType, Family, Op, RegValue, SetSpec, TableId};

use common::{batch, client, element, nft, set, table};

fn ports() -> SetSpec {
    set("ports", &[DataType::Mark], None, false)
}

fn fill(table: &TableId, count: u32) -> Vec<Op> {
    let elements = (0..count).map(|mark| element(vec![RegValue::Mark(mark)], None, "")).collect();
    vec![
        Op::AddTable(table.clone()),
        Op::AddSet(table.clone(), ports()),
        Op::AddElements { table: table.clone(), set: ports(), elements, exclusive: false },
    ]
}

/// Waits until there is something to read.
fn readable(monitor: &Monitor) -> bool {
    let mut poll =
        libc::pollfd { fd: monitor.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which outlives the call.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    assert!(ready >= 0, "{}", io::Error::last_os_error());
    ready == 1
}

#[test]
fn changes_of_our_tables_by_others_are_noticed() {
    let mut ours = client();
    let id = table(Family::Ip, "ours");
    let mut monitor = Monitor::open(&ours, vec![id.clone()]).expect("a subscription");
    assert_eq!(monitor.changes().expect("a read"), None);
    // More than the queue holds, were it queued.
    ours.commit(&batch(fill(&id, 60_000))).expect("a commit");
    assert!(!readable(&monitor));

    let mut theirs = Client::open().expect("a client");
    theirs.commit(&batch(fill(&table(Family::Ip6, "ours"), 1))).expect("a commit");
    theirs.commit(&batch(fill(&table(Family::Ip, "theirs"), 1))).expect("a commit");
    assert!(readable(&monitor));
    assert_eq!(monitor.changes().expect("a read"), None);

    for command in [
        "delete element ip ours ports { 1 }",
        "add chain ip ours c",
        "add rule ip ours c drop",
        "flush chain ip ours c",
        "flush ruleset",
    ] {
        nft(&[command], "");
        assert!(readable(&monitor), "{command}");
        let change = monitor.changes().expect("a read").expect(command);
        assert_eq!(change.by.expect("an author").0, "nft");
        assert!(!readable(&monitor), "{command}");
    }
}

#[test]
fn lost_notifications_count_as_a_change() {
    let ours = client();
    let mut monitor = Monitor::open(&ours, vec![table(Family::Ip, "ours")]).expect("one");
    let mut theirs = Client::open().expect("a client");
    theirs.commit(&batch(fill(&table(Family::Ip, "theirs"), 60_000))).expect("a commit");
    assert!(monitor.changes().expect("a read").expect("a change").lost);
    assert_eq!(monitor.changes().expect("a read"), None);
}
