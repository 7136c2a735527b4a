use super::*;
use crate::clock;

const SECOND: Duration = Duration::from_secs(1);
const BACKOFF: Backoff = Backoff { first: SECOND, longest: Duration::from_secs(60) };
const PACE: Pace = Pace {
    period: Some(Duration::from_secs(10)),
    gap: Gap { times: 20, shortest: Duration::from_millis(200), longest: Duration::from_secs(10) },
};

#[test]
fn pauses_double_up_to_the_longest() {
    let seconds = |failures| BACKOFF.pause(failures).as_secs();
    assert_eq!([0, 1, 2, 3, 6, 7, u32::MAX].map(seconds), [0, 1, 2, 4, 32, 60, 60]);
}

#[test]
fn a_gap_follows_what_it_took_within_its_bounds() {
    let gap = |millis| PACE.gap.after(Duration::from_millis(millis)).as_millis();
    assert_eq!([0, 9, 10, 100, 500, 9000].map(gap), [200, 200, 200, 2000, 10_000, 10_000]);
}

#[test]
fn without_a_reason_it_is_due_once_a_period() {
    let start = clock::now();
    let mut schedule = Schedule::at_once(PACE, start);
    assert!(schedule.is_due(start));
    assert_eq!(Schedule::later(PACE, start).due(), Some(start + 10 * SECOND));
    schedule.done(SECOND / 100, start + SECOND);
    assert_eq!(schedule.due(), Some(start + 11 * SECOND));
    assert_eq!(schedule.wait(start + 2 * SECOND), 9 * SECOND);
    assert!(!schedule.is_due(start + 10 * SECOND) && schedule.is_due(start + 11 * SECOND));

    let mut never = Schedule::later(Pace { period: None, ..PACE }, start);
    assert_eq!((never.due(), never.wait(start)), (None, Duration::MAX));
    never.wanted(start);
    never.done(SECOND, start);
    assert_eq!(never.due(), None);
}

#[test]
fn a_reason_brings_it_forward_and_waits_for_the_gap() {
    let start = clock::now();
    let mut schedule = Schedule::at_once(PACE, start);
    schedule.done(SECOND / 10, start);
    schedule.wanted(start + SECOND);
    assert_eq!(schedule.due(), Some(start + 2 * SECOND), "20 times a tenth of a second");
    schedule.wanted(start + 5 * SECOND);
    assert_eq!(schedule.due(), Some(start + 2 * SECOND), "no later for a second reason");
    schedule.done(Duration::ZERO, start + 2 * SECOND);
    schedule.wanted(start + 5 * SECOND);
    assert_eq!(schedule.due(), Some(start + 5 * SECOND), "the gap is over");
    schedule.hold_off(start + 8 * SECOND);
    schedule.hold_off(start + 7 * SECOND);
    schedule.wanted_at_earliest();
    assert_eq!(schedule.due(), Some(start + 8 * SECOND));
    schedule.set(start + 6 * SECOND);
    assert_eq!(
        (schedule.due(), schedule.earliest()),
        (Some(start + 6 * SECOND), start + 8 * SECOND)
    );
    schedule.set_and_hold_off(start + 3 * SECOND);
    schedule.wanted(start);
    assert_eq!(schedule.due(), Some(start + 3 * SECOND));
}

#[test]
fn a_deadline_is_met_once() {
    let start = clock::now();
    let mut deadline = Deadline::default();
    assert!(!deadline.take(start));
    deadline.set_if_unset(start + SECOND);
    deadline.set_if_unset(start);
    assert_eq!(deadline, Deadline::at(start + SECOND));
    assert!(!deadline.take(start));
    assert!(deadline.take(start + SECOND) && !deadline.take(start + SECOND));
    deadline.set(start);
    deadline.clear();
    assert_eq!(deadline.due(), None);
}

#[test]
fn failures_in_a_row_count_until_one_succeeds() {
    let start = clock::now();
    let mut retry = Retry::at(start);
    assert_eq!((retry.due(), retry.failures()), (Some(start), 0));
    assert_eq!(retry.failed(BACKOFF, start), SECOND);
    assert_eq!(retry.failed(BACKOFF, start), 2 * SECOND);
    assert_eq!(retry.due(), Some(start + 2 * SECOND));
    retry.again(start);
    assert_eq!((retry.due(), retry.failures()), (Some(start), 2));
    assert_eq!(Retry::default().due(), None);
    assert_eq!(Retry::after(5).failed(BACKOFF, start), 32 * SECOND);
}
