//! Addresses and subnets.

use causeway_kernel::{AddressSpec, LinkChange};

use super::*;
use crate::testing;

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

/// Rows: O-48
#[test]
fn of_several_addresses_node_ip_says_which() {
    // SAFETY: `unshare` takes no pointers, and network namespaces are per thread.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "needs root");
    let folder = tempfile::tempdir().unwrap();
    let ips = |given: &[&str], overlay: OverlayKind| {
        let mut settings = testing::settings(folder.path());
        settings.node_ips = given.iter().map(|ip| ip.parse().unwrap()).collect();
        settings.overlay = overlay;
        settings.cluster_cidrs = networks(&["10.244.0.0/16", "fd00:10::/48"]);
        let found = facts(&settings).map(|facts| facts.ips).map_err(|error| error.to_string());
        found.map(|ips| ips.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    assert_eq!(ips(&[], OverlayKind::None), Ok(Vec::new()));
    let refused = "--overlay vxlan: this node has no address that other nodes can reach; set \
                   --node-ip";
    assert_eq!(ips(&[], OverlayKind::Vxlan), Err(refused.to_owned()));
    let netlink = Netlink::open().unwrap();
    let up = LinkChange { up: Some(true), ..LinkChange::default() };
    netlink.change_link(1, &up).unwrap();
    for address in ["10.0.2.15/24", "192.168.56.11/24"] {
        let address = AddressSpec { address: address.parse().unwrap(), nodad: true };
        netlink.add_address(1, &address).unwrap();
    }
    // As in virtual machines, which have the first one all alike.
    assert_eq!(ips(&[], OverlayKind::Vxlan).unwrap(), ["10.0.2.15"]);
    assert_eq!(ips(&["192.168.56.11"], OverlayKind::Vxlan).unwrap(), ["192.168.56.11"]);
    let refused = "--overlay host-gw: containers in fd00:10::/48 are reached through node \
                   addresses of the same IP family, and this node has none; add one to --node-ip, \
                   or use --overlay vxlan";
    assert_eq!(ips(&["192.168.56.11"], OverlayKind::HostGw), Err(refused.to_owned()));
    let both = ["192.168.56.11", "fd00:56::11"];
    assert_eq!(ips(&both, OverlayKind::HostGw).unwrap(), both);
}

/// Rows: O-48
#[test]
fn gateways_of_containers_are_no_addresses_of_the_node() {
    // SAFETY: `unshare` takes no pointers, and network namespaces are per thread.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "needs root");
    let netlink = Netlink::open().unwrap();
    let up = LinkChange { up: Some(true), ..LinkChange::default() };
    netlink.change_link(1, &up).unwrap();
    // As after a restart: the overlay's end and a bridge's gateway are there already.
    for address in ["10.0.1.0/32", "172.18.0.2/24", "fd00:10:0:1::/128", "fd00:10:0:1::1/64"] {
        let address = AddressSpec { address: address.parse().unwrap(), nodad: true };
        netlink.add_address(1, &address).unwrap();
    }
    let cluster = networks(&["10.0.0.0/16", "fd00:10::/48"]);
    let found = primary_addresses(&cluster).unwrap();
    assert_eq!(found, ["172.18.0.2".parse::<IpAddr>().unwrap()]);
}
