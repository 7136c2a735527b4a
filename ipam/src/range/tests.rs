//! Spans and the order of a pool against lists of single addresses.

use proptest::prelude::*;

use super::*;

fn range(subnet: &str, first: &str, last: &str, gateway: &str) -> Range {
    let subnet: IpNetwork = subnet.parse().unwrap();
    let whole = Span::of(subnet);
    let bound = |text: &str, default| match text {
        "" => default,
        text => number(text.parse().unwrap()),
    };
    let first = bound(first, whole.first + 1);
    let last = bound(last, whole.last - u128::from(subnet.is_ipv4()));
    let gateway = bound(gateway, whole.first + 1);
    Range { subnet, span: Span { first, last, ..whole }, gateway: whole.family.address(gateway) }
}

fn offered(pool: &Pool, last: Option<&str>) -> Vec<String> {
    let last = last.map(|text| text.parse().unwrap());
    pool.round_robin(last)
        .into_iter()
        .flat_map(|(_, span)| (span.first..=span.last).map(move |n| span.family.address(n)))
        .map(|address| address.to_string())
        .collect()
}

#[test]
fn pool_leaves_out_network_gateway_and_broadcast() {
    let pool = Pool::new(vec![range("10.0.0.0/29", "10.0.0.0", "10.0.0.7", "10.0.0.3")], &[]);
    let all = ["10.0.0.1", "10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"];
    assert_eq!(offered(&pool, None), all);
    assert!(!pool.offers("10.0.0.7".parse().unwrap()));
    assert_eq!(pool.to_string(), "10.0.0.0-10.0.0.7");
    let pool = Pool::new(vec![range("fd00::/126", "", "", "")], &[]);
    assert_eq!(offered(&pool, None), ["fd00::2", "fd00::3"]);
}

#[test]
fn a_range_of_only_the_gateway_yields_nothing() {
    let pool = Pool::new(vec![range("10.0.0.0/24", "10.0.0.1", "10.0.0.1", "")], &[]);
    assert_eq!(offered(&pool, None), [""; 0]);
}

#[test]
fn round_robin_goes_on_behind_the_last_address_and_ends_with_it() {
    let two = vec![
        range("10.0.0.0/24", "10.0.0.4", "10.0.0.6", ""),
        range("10.0.0.0/24", "10.0.0.8", "10.0.0.9", ""),
    ];
    let pool = Pool::new(two, &[Span::single("10.0.0.5".parse().unwrap())]);
    assert_eq!(offered(&pool, None), ["10.0.0.4", "10.0.0.6", "10.0.0.8", "10.0.0.9"]);
    for (last, order) in [
        ("10.0.0.4", ["10.0.0.6", "10.0.0.8", "10.0.0.9", "10.0.0.4"]),
        ("10.0.0.5", ["10.0.0.6", "10.0.0.8", "10.0.0.9", "10.0.0.4"]),
        ("10.0.0.6", ["10.0.0.8", "10.0.0.9", "10.0.0.4", "10.0.0.6"]),
        ("10.0.0.9", ["10.0.0.4", "10.0.0.6", "10.0.0.8", "10.0.0.9"]),
        // Not in the pool any more: from the start.
        ("10.0.7.7", ["10.0.0.4", "10.0.0.6", "10.0.0.8", "10.0.0.9"]),
    ] {
        assert_eq!(offered(&pool, Some(last)), order, "after {last}");
    }
}

#[test]
fn spans_reach_the_ends_of_the_address_space() {
    let all = Span { family: Family::V6, first: 0, last: u128::MAX };
    let top = Span { first: u128::MAX, ..all };
    assert_eq!(all.without(&[top]), [Span { last: u128::MAX - 1, ..all }]);
    assert_eq!(all.without(&[all]), []);
    assert_eq!(top.without(&[Span { first: 0, last: 5, ..all }]), [top]);
}

proptest! {
    #[test]
    fn without_is_set_difference(
        first in 0_u128..40, len in 0_u128..40, holes in proptest::collection::vec((0_u128..90, 0_u128..10), 0..6),
    ) {
        let span = |first, len| Span { family: Family::V4, first, last: first + len };
        let holes: Vec<_> = holes.into_iter().map(|(first, len)| span(first, len)).collect();
        let whole = span(first, len);
        let in_hole = |n: u128| holes.iter().any(|hole| (hole.first..=hole.last).contains(&n));
        let left: Vec<u128> = whole.without(&holes).iter().flat_map(|s| s.first..=s.last).collect();
        let expected: Vec<u128> = (whole.first..=whole.last).filter(|n| !in_hole(*n)).collect();
        prop_assert_eq!(left, expected);
    }
}
