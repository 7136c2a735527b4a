use super::*;

const GRACE: Duration = Duration::from_secs(60);

fn key(id: &str) -> RecordKey {
    RecordKey { network: "net".to_owned(), container_id: id.to_owned(), ifname: "eth0".to_owned() }
}

/// A container of causeway-bridge that lives.
fn alive(id: &str) -> SeenAttachment {
    SeenAttachment {
        key: key(id),
        made: Made::ByUs,
        link: true,
        netns: NetnsLife::Lives,
        failed: false,
        busy: false,
        seq: 7,
        ips: vec!["10.0.1.2".parse().expect("an address")],
    }
}

/// The same after its end.
fn dead(id: &str) -> SeenAttachment {
    SeenAttachment { link: false, netns: NetnsLife::Gone, ..alive(id) }
}

fn out(effects: &[LivenessEffect]) -> Vec<&str> {
    let out = effects.iter().filter_map(|effect| match effect {
        LivenessEffect::TakeOut { key, seq: 7 } => Some(key.container_id.as_str()),
        LivenessEffect::TakeOut { .. } | LivenessEffect::Name(_) | LivenessEffect::Free { .. } => {
            None
        }
    });
    out.collect()
}

fn freed(effects: &[LivenessEffect]) -> Vec<&str> {
    let freed = effects.iter().filter_map(|effect| match effect {
        LivenessEffect::Free { key, .. } => Some(key.container_id.as_str()),
        LivenessEffect::TakeOut { .. } | LivenessEffect::Name(_) => None,
    });
    freed.collect()
}

fn named(effects: &[LivenessEffect]) -> Vec<String> {
    let named = effects.iter().find_map(|effect| match effect {
        LivenessEffect::Name(named) => Some(named.clone()),
        LivenessEffect::TakeOut { .. } | LivenessEffect::Free { .. } => None,
    });
    named.expect("each look names")
}

/// Out at once and once, named until it is free, freed after the grace.
///
/// Rows: RB1
#[test]
fn a_dead_container_is_out_at_once_and_free_after_the_grace() {
    let mut judge = Judge::new(GRACE);
    let start = clock::now();
    assert_eq!(judge.look(&[alive("a"), alive("b")], start), [LivenessEffect::Name(Vec::new())]);
    let effects = judge.look(&[dead("a"), alive("b")], start);
    assert_eq!((out(&effects), freed(&effects)), (vec!["a"], vec![]));
    let [name] = &*named(&effects) else { panic!("{effects:?}") };
    assert!(name.contains("container a (eth0 of network net, 10.0.1.2) is gone"), "{name}");
    assert_eq!(judge.due(), Some(start + GRACE));

    let soon = judge.look(&[dead("a"), alive("b")], start + GRACE / 2);
    assert_eq!((out(&soon), freed(&soon), named(&soon).len()), (vec![], vec![], 1));
    let effects = judge.look(&[dead("a"), alive("b")], start + GRACE);
    assert_eq!((out(&effects), freed(&effects)), (vec![], vec!["a"]));
    judge.freed(&key("a"));
    assert_eq!(judge.look(&[alive("b")], start + GRACE), [LivenessEffect::Name(Vec::new())]);
    assert_eq!(judge.due(), None);
}

/// A chain that failed has no grace, but only once its namespace is gone.
///
/// Rows: RB2
#[test]
fn what_a_failed_add_left_goes_with_its_namespace() {
    let mut judge = Judge::new(GRACE);
    let start = clock::now();
    let living = SeenAttachment { failed: true, ..alive("a") };
    assert!(freed(&judge.look(&[living], start)).is_empty());
    let without_link = SeenAttachment { failed: true, netns: NetnsLife::Lives, ..dead("a") };
    assert!(freed(&judge.look(&[without_link], start)).is_empty());
    let over = SeenAttachment { failed: true, ..dead("a") };
    assert_eq!(freed(&judge.look(&[over], start)), ["a"]);
}

/// Rows: RB1
#[test]
fn nothing_is_freed_while_link_or_namespace_lives_or_an_operation_runs() {
    let cases = [
        ("a link", SeenAttachment { link: true, ..dead("a") }),
        ("a namespace", SeenAttachment { netns: NetnsLife::Lives, ..dead("a") }),
        ("an operation", SeenAttachment { busy: true, ..dead("a") }),
        (
            "another plugin's, alive",
            SeenAttachment { made: Made::ByOthers, netns: NetnsLife::Lives, ..dead("a") },
        ),
        (
            "another plugin's, unknown",
            SeenAttachment { made: Made::ByOthers, netns: NetnsLife::Unknown, ..dead("a") },
        ),
        ("lost, alive", SeenAttachment { made: Made::Lost, netns: NetnsLife::Lives, ..dead("a") }),
        ("lost, with a link", SeenAttachment { made: Made::Lost, link: true, ..dead("a") }),
    ];
    for (what, seen) in cases {
        let mut judge = Judge::new(GRACE);
        let start = clock::now();
        judge.look(std::slice::from_ref(&seen), start);
        let effects = judge.look(std::slice::from_ref(&seen), start + 10 * GRACE);
        assert!(freed(&effects).is_empty(), "{what}");
    }
}

/// An interface that is deleted in a living container: nobody answers there either.
///
/// Rows: RB1
#[test]
fn a_container_without_its_link_is_no_endpoint() {
    let mut judge = Judge::new(GRACE);
    let cut = SeenAttachment { netns: NetnsLife::Lives, ..dead("a") };
    let effects = judge.look(&[cut], clock::now());
    assert_eq!(out(&effects), ["a"]);
    let [name] = &*named(&effects) else { panic!("{effects:?}") };
    assert!(name.contains("its interface was removed, and its namespace lives"), "{name}");
}

/// What other main plugins made is judged by its namespace alone.
///
/// Rows: RB1
#[test]
fn another_main_plugins_container_is_dead_with_its_namespace() {
    for made in [Made::ByOthers, Made::Lost] {
        let mut judge = Judge::new(GRACE);
        let start = clock::now();
        let gone = SeenAttachment { made, ..dead("a") };
        assert_eq!(out(&judge.look(std::slice::from_ref(&gone), start)), ["a"]);
        let effects = judge.look(&[gone], start + GRACE);
        assert_eq!(freed(&effects), ["a"]);
    }
}

/// The same container again: another ADD, another life.
///
/// Rows: RB1
#[test]
fn a_later_add_begins_anew() {
    let mut judge = Judge::new(GRACE);
    let start = clock::now();
    judge.look(&[dead("a")], start);
    assert_eq!(judge.look(&[alive("a")], start + GRACE / 2), [LivenessEffect::Name(Vec::new())]);
    let again = SeenAttachment { seq: 8, ..dead("a") };
    let effects = judge.look(std::slice::from_ref(&again), start + GRACE);
    assert!(effects.contains(&LivenessEffect::TakeOut { key: key("a"), seq: 8 }), "{effects:?}");
    assert!(freed(&effects).is_empty());
    // One that died and came and died between two looks.
    let third = SeenAttachment { seq: 9, ..again };
    let effects = judge.look(&[third], start + 3 * GRACE);
    assert!(effects.contains(&LivenessEffect::TakeOut { key: key("a"), seq: 9 }), "{effects:?}");
    assert!(freed(&effects).is_empty());
}

/// Rows: RB1
#[test]
fn what_could_not_be_freed_is_tried_again_later_and_says_why() {
    let mut judge = Judge::new(GRACE);
    let start = clock::now();
    judge.look(&[dead("a")], start);
    let mut now = start + GRACE;
    for pause in [5, 10, 20, 40, 80, 160, 300, 300] {
        assert_eq!(freed(&judge.look(&[dead("a")], now)), ["a"]);
        judge.failed(&key("a"), "the disk is full", now);
        let effects = judge.look(&[dead("a")], now);
        assert!(freed(&effects).is_empty());
        assert!(named(&effects)[0].ends_with("cannot be freed yet: the disk is full"));
        now += Duration::from_secs(pause);
        assert_eq!(judge.due(), Some(now));
    }
}
