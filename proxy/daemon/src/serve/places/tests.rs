use super::*;

fn client(number: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, number])
}

/// Admits a client whose connection is known by a number of the test. Yields the one that ends.
fn admit(places: &mut Places<u32>, listener: u32, from: u8, name: u32) -> Option<u32> {
    let (number, ended) = places.admit((listener, client(from)));
    places.ends_by(number, name);
    ended
}

/// Rows: RH8
#[test]
fn an_address_ends_its_own_oldest_connection() {
    let mut places = Places::default();
    for name in 0..128 {
        assert_eq!(admit(&mut places, 0, 1, name), None);
    }
    assert_eq!(admit(&mut places, 0, 1, 128), Some(0));
    assert_eq!(admit(&mut places, 0, 1, 129), Some(1));
    // Neither another address nor another listener is concerned.
    assert_eq!(admit(&mut places, 0, 2, 10), None);
    assert_eq!(admit(&mut places, 1, 1, 11), None);
    let mapped = "::ffff:10.0.0.1".parse().unwrap();
    assert_eq!(places.admit((0, mapped)).1, Some(2), "the same client");
}

/// Rows: RH8
#[test]
fn many_addresses_end_the_oldest_of_who_has_the_most() {
    let mut places = Places::default();
    admit(&mut places, 0, 250, 1000);
    for name in 0..255 {
        let listener = name / 8;
        assert_eq!(admit(&mut places, listener, 1, name), None);
    }
    // A newcomer is let in at the cost of the one that has all.
    assert_eq!(admit(&mut places, 0, 2, 2000), Some(0));
    assert_eq!(admit(&mut places, 0, 3, 2001), Some(1));
    let mut places = Places::default();
    for from in 0..=255 {
        assert_eq!(admit(&mut places, 0, from, u32::from(from)), None);
    }
    let (_, ended) = places.admit((0, IpAddr::from([10, 9, 9, 9])));
    assert_eq!(ended, Some(0), "the oldest of equals");
}

/// Rows: RH8
#[test]
fn what_has_ended_takes_no_place() {
    let mut places = Places::default();
    let numbers: Vec<u64> = (0..EACH).map(|_| places.admit((0, client(1))).0).collect();
    places.leave(numbers[3]);
    // It ended before anybody noted how.
    places.ends_by(numbers[3], 3);
    places.ends_by(numbers[0], 0);
    assert_eq!(places.admit((0, client(1))).1, None);
    assert_eq!(places.admit((0, client(1))).1, Some(0));
}
