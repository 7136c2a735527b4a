//! Changes of our tables by other processes are noticed, and no other changes.

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

/// Has the subscription hear its own client, too.
fn without_filter(monitor: &Monitor) {
    let nothing: libc::c_int = 0;
    // SAFETY: the option takes a number that it does not look at.
    let done = unsafe {
        libc::setsockopt(
            monitor.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_DETACH_FILTER,
            (&raw const nothing).cast(),
            4,
        )
    };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

/// The kernel makes no message for the elements of a large transaction: counted by a subscription
/// without its filter.
///
/// Rows: RC12
#[test]
fn a_large_transaction_is_made_without_messages() {
    let mut ours = client();
    let id = table(Family::Ip, "ours");
    let monitor = Monitor::open(&ours, vec![id.clone()]).expect("a subscription");
    without_filter(&monitor);
    ours.commit(&batch(fill(&id, 10_000))).expect("a commit");
    assert!(!readable(&monitor), "messages of a large transaction");
    let second = Monitor::open(&ours, vec![id.clone()]).expect("one more subscription");
    without_filter(&second);
    ours.commit(&batch(fill(&table(Family::Ip6, "ours"), 10))).expect("a commit");
    assert!(readable(&monitor) && readable(&second), "both hear small ones");
}

/// Rows: RC12
#[test]
fn what_others_change_during_a_large_transaction_is_noticed() {
    let mut ours = client();
    let id = table(Family::Ip, "ours");
    let mut monitor = Monitor::open(&ours, vec![id.clone()]).expect("a subscription");
    let again = monitor.again();
    ours.commit(&batch(fill(&id, 1))).expect("a commit");

    let pause = ours.pause();
    ours.commit(&batch(fill(&id, 10))).expect("a commit");
    ours.resume(pause, Some(1));
    assert!(!readable(&monitor), "nobody else did anything");

    let pause = ours.pause();
    nft(&["flush set ip ours ports"], "");
    ours.commit(&batch(fill(&id, 10))).expect("a commit");
    let mut late = again().expect("a subscription that begins meanwhile");
    ours.resume(pause, Some(1));
    assert!(readable(&monitor), "it wakes whoever waits for it");
    assert!(monitor.changes().expect("a read").expect("a change").lost);
    assert!(late.changes().expect("a read").expect("a change").lost);
    assert_eq!(monitor.changes().expect("a read"), None);

    // Of a program's transactions nobody knows the number.
    let pause = ours.pause();
    ours.resume(pause, None);
    assert!(monitor.changes().expect("a read").expect("a change").lost);
    drop(ours.pause());
    assert!(monitor.changes().expect("a read").expect("a change").lost);

    // And they hear again.
    late.changes().expect("a read");
    nft(&["flush set ip ours ports"], "");
    for monitor in [&mut monitor, &mut late] {
        assert_eq!(monitor.changes().expect("a read").expect("a change").by.expect("one").0, "nft");
    }
}
