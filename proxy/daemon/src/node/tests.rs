//! Addresses and subnets.

use super::*;

fn networks(texts: &[&str]) -> Vec<IpNetwork> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_node_without_a_wish_has_the_second_subnet() {
    let check = |cluster: &str, length: u8, wanted: &str| {
        assert_eq!(second(cluster.parse().unwrap(), length).to_string(), wanted);
    };
    check("10.0.0.0/16", 24, "10.0.1.0/24");
    check("10.0.0.0/24", 24, "10.0.0.0/24");
    check("10.0.0.0/8", 30, "10.0.0.4/30");
    check("fd00::/48", 64, "fd00:0:0:1::/64");
    check("fd00::/64", 64, "fd00::/64");
}

/// Rows: P43
#[test]
fn primary_addresses_leave_out_a_family_without_one() {
    assert_eq!(only(&["192.168.0.2".parse().unwrap()]), networks(&["192.168.0.2/32", "::/128"]));
    let both = ["fd00::2".parse().unwrap(), "192.168.0.2".parse().unwrap()];
    assert_eq!(only(&both), networks(&["fd00::2/128", "192.168.0.2/32"]));
}
