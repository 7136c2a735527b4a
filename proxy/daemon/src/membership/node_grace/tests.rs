//! Who is held, and how long.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::clock;

const TTL: Duration = Duration::from_secs(40);
/// Longer than a moment, shorter than a TTL.
const WHILE: Duration = Duration::from_secs(6);
const ALL: [&str; 5] = ["a", "b", "c", "d", "e"];

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

fn key(id: &str) -> EndpointKey {
    EndpointKey { network: "n".into(), container_id: id.into(), ifname: "eth0".into() }
}

fn node(name: &str) -> Gone {
    Gone::Node(name.to_owned())
}

/// A hold of a daemon that has been connected for long.
fn settled() -> (NodeGrace, Instant) {
    let (mut hold, start) = (NodeGrace::new(TTL), clock::now());
    hold.connected(start);
    (hold, start + 10 * TTL)
}

/// Rows: C-10
#[test]
fn what_vanishes_while_the_store_is_well_is_believed_at_once() {
    let (mut hold, now) = settled();
    // The only peer.
    assert_eq!(hold.vanished(now, &names(["a"]), 0, Cause::Change), names(["a"]));
    assert!(hold.held().is_empty() && hold.next().is_none() && !hold.is_missing("a"));
    // All of them, in whatever steps.
    assert_eq!(hold.vanished(now, &names(["b", "c"]), 2, Cause::Change), names(["b", "c"]));
    assert_eq!(hold.vanished(now + WHILE, &names(["d", "e"]), 0, Cause::Change), names(["d", "e"]));
    assert_eq!((hold.due(now + TTL), hold.next()), (vec![], None));
    assert!(hold.container_gone("a", &key("x")));
}

/// Rows: C-10
#[test]
fn most_of_the_peers_are_held_for_a_ttl_after_an_outage() {
    let (mut hold, now) = settled();
    hold.connected(now);
    let now = now + WHILE;
    assert_eq!(hold.vanished(now, &names(["a", "b", "c"]), 2, Cause::Change), names([]));
    assert_eq!(*hold.held(), names(["a", "b", "c"]));
    assert!(hold.is_missing("a") && !hold.is_missing("d"));
    assert!(!hold.container_gone("a", &key("x")), "its containers stay as well");
    assert_eq!(hold.next(), Some(now + TTL));
    assert_eq!(hold.due(now + TTL - WHILE), []);
    // One comes back with nothing that was known of it.
    hold.returned(now + WHILE, "b", []);
    assert_eq!(*hold.held(), names(["a", "c"]));
    assert!(hold.container_gone("b", &key("x")));
    assert_eq!(hold.due(now + TTL), [node("a"), node("c")]);
    assert_eq!((hold.due(now + 2 * TTL), hold.next()), (vec![], None));
    assert!(hold.held().is_empty());
}

/// Rows: C-10
#[test]
fn a_storm_that_comes_drop_by_drop_is_one() {
    let (mut hold, now) = settled();
    hold.connected(now);
    let step = Duration::from_millis(500);
    for (number, name) in (0u32..).zip(ALL) {
        let at = now + number * step;
        assert_eq!(hold.due(at), []);
        assert_eq!(
            hold.vanished(at, &names([name]), 4 - number as usize, Cause::Change),
            names([])
        );
        // Two of five are no storm yet.
        assert_eq!(hold.held().len(), if number < 2 { 0 } else { number as usize + 1 });
    }
    assert_eq!(hold.next(), Some(now + TTL));
    assert_eq!(hold.due(now + TTL), [node("a")]);
    assert_eq!(hold.due(now + TTL + 4 * step).len(), 4);
}

/// Rows: C-10
#[test]
fn few_that_vanish_after_an_outage_wait_a_moment_for_others() {
    let (mut hold, now) = settled();
    hold.connected(now);
    assert_eq!(hold.vanished(now, &names(["a"]), 4, Cause::Change), names([]));
    assert!(hold.is_missing("a") && hold.held().is_empty(), "no alarm");
    assert_eq!(hold.next(), Some(now + TTL / 8));
    assert_eq!(hold.due(now + TTL / 8), [node("a")]);
    // Those who follow within a TTL are counted together with it, and held alone.
    let now = now + WHILE;
    assert_eq!(hold.vanished(now, &names(["b", "c"]), 2, Cause::Change), names([]));
    assert_eq!(*hold.held(), names(["b", "c"]));
    // Later nothing is doubtful any more.
    hold.due(now + TTL);
    assert_eq!(
        hold.vanished(now + 2 * TTL, &names(["d", "e"]), 0, Cause::Change),
        names(["d", "e"])
    );
}

/// Rows: C-10
#[test]
fn a_list_without_most_peers_holds_them_whenever_it_comes() {
    let (mut hold, now) = settled();
    assert_eq!(hold.vanished(now, &names(["a", "b", "c"]), 1, Cause::Reset), names([]));
    assert_eq!(*hold.held(), names(["a", "b", "c"]));
    // The next list is no reason to wait longer.
    assert_eq!(hold.vanished(now + WHILE, &names(["a", "b"]), 2, Cause::Reset), names([]));
    assert_eq!(hold.due(now + TTL), ["a", "b", "c"].map(node));
    // Of another store a single one is enough.
    let now = now + 10 * TTL;
    assert_eq!(hold.vanished(now, &names(["d"]), 9, Cause::OtherStore), names([]));
    assert_eq!((hold.held().clone(), hold.next()), (names(["d"]), Some(now + TTL)));
}

/// Rows: C-10
#[test]
fn a_node_that_comes_back_has_what_it_puts_again() {
    let (mut hold, now) = settled();
    hold.vanished(now, &names(["a", "b"]), 0, Cause::Reset);
    // Its containers come before it, with it and after it.
    hold.confirm("a", &key("early"));
    hold.confirm("a", &key("taken back"));
    assert!(!hold.container_gone("a", &key("taken back")));
    let known = ["early", "late", "stale", "removed", "taken back"].map(key);
    hold.returned(now + WHILE, "a", known);
    assert!(!hold.is_missing("a") && hold.held().contains("b"));
    hold.confirm("a", &key("late"));
    hold.confirm("a", &key("new"));
    assert!(hold.container_gone("a", &key("removed")));
    let left = Gone::Containers("a".into(), ["stale", "taken back"].map(key).into());
    assert_eq!(hold.due(now + TTL), [left, node("b")]);
    assert_eq!(hold.next(), None);
}

#[test]
fn a_node_that_comes_back_late_has_a_moment_and_may_vanish_again() {
    let (mut hold, now) = settled();
    hold.vanished(now, &names(["a", "b"]), 0, Cause::Reset);
    let late = now + TTL - Duration::from_millis(1);
    hold.returned(late, "a", [key("x")]);
    assert_eq!(hold.due(now + TTL), [node("b")]);
    assert_eq!(hold.next(), Some(late + TTL / 8));
    // A second record of it changes nothing.
    hold.returned(late, "a", [key("x"), key("y")]);
    // The store is well: the death is believed, and nothing is due of it.
    assert_eq!(hold.vanished(late + WHILE / 2, &names(["a"]), 1, Cause::Change), names(["a"]));
    assert_eq!((hold.next(), hold.due(now + 9 * TTL)), (None, vec![]));
    // Back with all there was: nothing to wait for.
    hold.vanished(now + 10 * TTL, &names(["a"]), 0, Cause::Reset);
    hold.confirm("a", &key("x"));
    hold.returned(now + 10 * TTL, "a", [key("x")]);
    assert_eq!(hold.next(), None);
}

/// Rows: RB8
#[test]
fn the_only_peer_that_dies_soon_after_an_outage_has_a_moment() {
    for cause in [Cause::Change, Cause::Reset] {
        let (mut hold, now) = settled();
        hold.connected(now);
        assert_eq!(hold.vanished(now, &names(["a"]), 0, cause), names([]));
        assert!(hold.held().is_empty(), "no alarm");
        assert_eq!(hold.due(now + TTL / 8), [node("a")]);
    }
    // Two of two are most of them, and so is the only one in a store that was wiped.
    let (mut hold, now) = settled();
    hold.connected(now);
    hold.vanished(now, &names(["a"]), 1, Cause::Change);
    hold.vanished(now, &names(["b"]), 0, Cause::Change);
    assert_eq!(*hold.held(), names(["a", "b"]));
    let (mut hold, now) = settled();
    hold.vanished(now, &names(["a"]), 0, Cause::OtherStore);
    assert_eq!(*hold.held(), names(["a"]));
}

#[derive(Clone, Debug)]
enum Step {
    Connected,
    Vanish(Vec<&'static str>, Cause),
    Return(&'static str),
    Put(&'static str),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let cause = select(vec![Cause::Change, Cause::Change, Cause::Reset, Cause::OtherStore]);
    prop_oneof![
        1 => Just(Step::Connected),
        4 => (subsequence(ALL.to_vec(), 1..=5), cause).prop_map(|(n, cause)| Step::Vanish(n, cause)),
        3 => select(ALL.to_vec()).prop_map(Step::Return),
        2 => select(ALL.to_vec()).prop_map(Step::Put),
        4 => (0u64..60_000).prop_map(Step::Wait),
    ]
}

/// What a history says of the nodes: believed gone in which step.
#[derive(Debug, Default, PartialEq)]
struct Run {
    believed: Vec<(usize, BTreeSet<String>)>,
    due: Vec<(usize, Vec<Gone>)>,
}

/// Runs a history from `start`, and checks that every vanished node is believed gone once, in time,
/// unless it comes back.
fn run(start: Instant, history: &[Step]) -> Run {
    let mut run = Run::default();
    let mut hold = NodeGrace::new(TTL);
    let mut now = start;
    let mut alive: BTreeSet<&str> = ALL.into();
    let mut away: BTreeMap<&str, Instant> = BTreeMap::new();
    for (number, step) in history.iter().enumerate() {
        match step {
            Step::Connected => {
                hold.connected(now);
                // All have their time from now on.
                away.values_mut().for_each(|since| *since = now);
            }
            Step::Vanish(nodes, cause) => {
                let gone: Vec<&str> =
                    nodes.iter().copied().filter(|node| alive.remove(*node)).collect();
                let named = gone.iter().map(|node| (*node).to_owned()).collect();
                let believed = hold.vanished(now, &named, alive.len(), *cause);
                for node in gone {
                    assert_ne!(believed.contains(node), hold.is_missing(node), "{node}");
                    if hold.is_missing(node) {
                        away.insert(node, now);
                    }
                }
                if *cause == Cause::OtherStore {
                    assert!(named.iter().all(|node| hold.held().contains(node)));
                }
                run.believed.push((number, believed));
            }
            Step::Return(node) => {
                alive.insert(node);
                away.remove(node);
                hold.returned(now, node, [key("x"), key("y")]);
                assert!(!hold.is_missing(node) && !hold.held().contains(*node));
            }
            Step::Put(node) => hold.confirm(node, &key("x")),
            Step::Wait(millis) => now += Duration::from_millis(*millis),
        }
        assert!(hold.held().iter().all(|node| hold.is_missing(node)));
        let due = hold.due(now);
        for gone in &due {
            match gone {
                Gone::Node(node) => {
                    let since = away.remove(node.as_str()).expect("it vanished");
                    assert!(now - since >= TTL / 8);
                }
                Gone::Containers(node, stale) => {
                    assert!(alive.contains(node.as_str()) && stale.contains(&key("y")));
                }
            }
        }
        assert!(away.values().all(|since| now - *since < TTL), "held for too long");
        assert!(hold.next().is_none_or(|next| next > now && next <= now + TTL));
        run.due.push((number, due));
    }
    run
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Nothing but the time between events counts.
    ///
    /// Rows: C-09, C-10
    #[test]
    fn every_vanished_node_goes_once_and_in_time(
        history in prop::collection::vec(step(), 1..40),
    ) {
        let start = clock::now();
        prop_assert_eq!(run(start, &history), run(start + 1000 * TTL, &history));
    }

    /// Rows: C-10
    #[test]
    fn without_an_outage_nobody_is_held(
        nodes in prop::collection::vec(subsequence(ALL.to_vec(), 1..=5), 1..9),
    ) {
        let (mut hold, now) = settled();
        for batch in nodes {
            let batch = batch.into_iter().map(str::to_owned).collect();
            prop_assert_eq!(hold.vanished(now, &batch, 0, Cause::Change), batch);
        }
        prop_assert_eq!(hold.next(), None);
    }
}
