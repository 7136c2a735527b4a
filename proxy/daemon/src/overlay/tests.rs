//! Pace.

use super::*;

#[test]
fn pauses_double_up_to_the_longest() {
    let millis = |count| grown(PAUSE, count).as_millis();
    assert_eq!([0, 1, 2, 3, 5, 6, 1000].map(millis), [0, 20, 40, 80, 320, 500, 500]);
    assert_eq!(grown(RETRY, 1), Duration::from_millis(500));
    assert_eq!(grown(RETRY, u32::MAX), PERIOD);
}
