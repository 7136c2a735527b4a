use super::*;

/// What a watch that never says a word makes of a store: duties with the second at which they came,
/// until it is given up or `length` is over. The store is at `store(second)`, the watch at 7.
fn silent(length: u64, store: impl Fn(u64) -> i64) -> Vec<(u64, Duty)> {
    let start = Instant::now();
    let mut silence = Silence::new(start);
    let (mut duties, mut now) = (Vec::new(), start);
    while now <= start + Duration::from_secs(length) {
        let duty = silence.due(now);
        let second = (now - start).as_secs();
        if duty != Duty::Wait {
            duties.push((second, duty));
        }
        match duty {
            Duty::GiveUp(_) => return duties,
            Duty::AskStore => drop(silence.store_is_at(now, store(second), 7)),
            Duty::AskWatch | Duty::Wait => {}
        }
        assert!(silence.next() > now, "{duties:?}");
        now = silence.next();
    }
    duties
}

/// Rows: RH11
#[test]
fn a_watch_on_a_quiet_store_may_be_silent_for_ever() {
    let duties = silent(3600, |_| 7);
    assert!(!duties.iter().any(|(_, duty)| matches!(duty, Duty::GiveUp(_))));
    let asked = duties.iter().filter(|(_, duty)| *duty == Duty::AskStore).count();
    assert_eq!(asked, 360, "the store is asked once in ten seconds");
}

/// Rows: RH11
#[test]
fn a_watch_that_says_nothing_of_a_store_that_went_on_is_dead() {
    let duties = silent(3600, |second| if second < 15 { 7 } else { 8 });
    let wanted = [
        (5, Duty::AskWatch),
        (10, Duty::AskStore),
        (15, Duty::AskWatch),
        (20, Duty::AskStore),
        (25, Duty::GiveUp(Duration::from_secs(15))),
    ];
    assert_eq!(duties, wanted);
}

/// Rows: RH11
#[test]
fn a_word_of_the_watch_ends_every_doubt() {
    let start = Instant::now();
    let at = |second| start + Duration::from_secs(second);
    let mut silence = Silence::new(start);
    assert_eq!(silence.due(at(5)), Duty::AskWatch);
    assert_eq!(silence.due(at(10)), Duty::AskStore);
    assert!(silence.store_is_at(at(10), 8, 7), "it is asked once more");
    silence.heard(at(12));
    assert_eq!(silence.due(at(15)), Duty::Wait);
    assert_eq!((silence.next(), silence.due(at(17))), (at(17), Duty::AskWatch));
    // What nobody listened for was not silence.
    silence.excuse(at(21));
    assert_eq!(silence.due(at(22)), Duty::AskWatch);
    assert_eq!(silence.due(at(31)), Duty::AskStore);
}
