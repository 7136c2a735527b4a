use super::*;
use crate::link::{LinkChange, VethSpec};
use crate::testing::{enter, other};
use crate::{AddressSpec, Netlink};

const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes the kernel itself sends on `arp_notify` for this address.
#[test]
fn a_gratuitous_arp_is_a_broadcast_request_for_oneself() {
    assert_eq!(
        hex(&gratuitous_arp(MAC, Ipv4Addr::new(10, 1, 0, 2))),
        "ffffffffffff020000000007080600010800060400010200000000070a0100020000000000000a010002"
    );
}

#[test]
fn an_advertisement_sums_up_to_zero() {
    let address: Ipv6Addr = "fd00::2".parse().expect("an address");
    let frame = unsolicited_advertisement(MAC, address);
    assert_eq!(frame.len(), 14 + 40 + 32);
    let (ip, icmp) = frame[14..].split_at(40);
    assert_eq!(checksum([&ip[8..40], &[0, 0, 0, 32, 0, 0, 0, 58], icmp]), 0);
    assert_eq!(hex(&icmp[..2]), "8800");
    assert_eq!(hex(&icmp[4..]), format!("20000000{}0201{}", hex(&address.octets()), hex(&MAC.0)));
}

#[test]
fn neighbours_learn_the_new_owner() {
    let netlink = enter();
    let container = other();
    let spec = VethSpec {
        name: "host0",
        master: None,
        mtu: None,
        alias: "",
        peer_name: "eth0",
        peer_mac: Some(MAC),
        peer_netns: &container,
        up: true,
    };
    netlink.add_veth(&spec).expect("a veth");
    let host = netlink.link("host0").expect("a query").expect("it is there").index;
    let inside = Netlink::open_in(&container).expect("a connection");
    let eth0 = inside.link("eth0").expect("a query").expect("it is there").index;
    let up = LinkChange { up: Some(true), ..LinkChange::default() };
    inside.change_link(eth0, &up).expect("up");
    for address in ["10.1.0.1/16", "fd00::1/64"] {
        let address = address.parse().expect("a network");
        netlink.add_address(host, &AddressSpec { address, nodad: true }).expect("an address");
    }
    let addresses = ["10.1.0.2", "fd00::2"].map(|text| text.parse().expect("an address"));
    // Entries of a former owner.
    for address in addresses {
        crate::testing::stale_neighbour(&netlink, host, address, Mac([2, 0, 0, 0, 0, 1]));
    }
    inside.wait_forwarding(eth0, std::time::Duration::from_secs(1)).expect("carrier");
    announce(&container, "eth0", MAC, &addresses).expect("announced");
    let learned = crate::testing::neighbours(&netlink, host);
    for address in addresses {
        assert!(learned.contains(&(address, MAC)), "{learned:?}");
    }
    let error = announce(&container, "nosuch", MAC, &addresses).expect_err("no such link");
    assert!(error.is_not_found(), "{error:?}");
}
