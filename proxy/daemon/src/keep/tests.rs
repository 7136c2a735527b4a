use std::time::{Duration, Instant};

use super::*;

const QUICK: Duration = Duration::from_millis(1);

#[expect(clippy::disallowed_methods, reason = "a point to count from")]
fn start() -> (Keep, Instant) {
    let now = Instant::now();
    (Keep::new(now), now)
}

fn ports() -> Vec<String> {
    vec!["host ports 8080/tcp of net/c/eth0".to_owned()]
}

/// Rows: RC1
#[test]
fn what_is_missing_is_named_and_put_back_at_once() {
    let (mut keep, now) = start();
    assert_eq!(keep.wait(now), Duration::ZERO);
    assert_eq!(keep.looked(Ok(Vec::new()), QUICK, now), []);
    assert_eq!(keep.wait(now), PERIOD);
    let later = now + Duration::from_secs(3);
    keep.told(later);
    assert_eq!(keep.wait(later), Duration::ZERO);
    let effects = keep.looked(Ok(ports()), QUICK, later);
    assert_eq!(effects, [KeepEffect::Report(ports()), KeepEffect::Restore]);
    assert_eq!(keep.restored(Ok(()), later), []);
    assert_eq!(keep.wait(later), Duration::ZERO, "a look follows");
    assert_eq!(keep.looked(Ok(Vec::new()), QUICK, later), [KeepEffect::Report(Vec::new())]);
    assert_eq!(keep.wait(later), PERIOD);
}

/// Rows: RC1
#[test]
fn looks_keep_a_distance_that_grows_with_their_cost() {
    let (mut keep, now) = start();
    keep.looked(Ok(Vec::new()), QUICK, now);
    keep.told(now);
    assert_eq!(keep.wait(now), GAP);
    keep.looked(Ok(Vec::new()), Duration::from_millis(100), now);
    keep.told(now);
    assert_eq!(keep.wait(now), Duration::from_secs(2));
    keep.looked(Ok(Vec::new()), Duration::from_secs(9), now);
    keep.told(now);
    assert_eq!(keep.wait(now), PERIOD);
}

/// Rows: RC1
#[test]
fn who_removes_them_again_is_met_at_once_and_then_less_and_less_often() {
    let (mut keep, start) = start();
    let mut now = start;
    let mut waits = Vec::new();
    for _ in 0..26 {
        assert!(keep.looked(Ok(ports()), QUICK, now).contains(&KeepEffect::Restore));
        keep.restored(Ok(()), now);
        keep.told(now);
        waits.push(keep.wait(now).as_millis());
        now += keep.wait(now);
    }
    assert_eq!(waits[0], 0);
    assert_eq!(waits[1..16], [200; 15]);
    assert_eq!(waits[16..24], [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
    let peace = now + Duration::from_secs(100);
    keep.looked(Ok(ports()), QUICK, peace);
    keep.restored(Ok(()), peace);
    assert_eq!(keep.wait(peace), Duration::ZERO, "forgotten after a while of peace");
}

/// Rows: RC1
#[test]
fn what_fails_is_tried_less_and_less_often() {
    let (mut keep, mut now) = start();
    let mut waits = Vec::new();
    for _ in 0..8 {
        assert!(keep.looked(Ok(ports()), QUICK, now).contains(&KeepEffect::Restore));
        keep.restored(Err("no iptables-restore".to_owned()), now);
        keep.told(now);
        waits.push(keep.wait(now).as_secs());
        now += keep.wait(now);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    keep.looked(Ok(Vec::new()), QUICK, now);
    keep.looked(Ok(ports()), QUICK, now);
    keep.restored(Ok(()), now);
    assert_eq!(keep.wait(now), Duration::ZERO, "forgotten once all is there");
}

/// Rows: RC1
#[test]
fn a_failure_is_said_beside_what_is_missing() {
    let (mut keep, now) = start();
    keep.looked(Ok(ports()), QUICK, now);
    let why = "they cannot be written again: no iptables-restore".to_owned();
    let all = [vec![why], ports()].concat();
    assert_eq!(
        keep.restored(Err("no iptables-restore".to_owned()), now),
        [KeepEffect::Report(all)]
    );
    assert_eq!(keep.wait(now), RETRY);
    let unread = keep.looked(Err("list rules".to_owned()), QUICK, now);
    assert_eq!(unread, [KeepEffect::Report(vec!["list rules".to_owned()])]);
}
