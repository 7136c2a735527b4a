use super::*;
use crate::link::VethSpec;
use crate::testing::{enter, other};
use crate::{AddressSpec, Sysctl};

const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);

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
    let wanted = ANNOUNCE_SYSCTLS.map(|key| (key.replace("IFNAME", "eth0"), "1"));
    Sysctl { netns: Some(&container) }.ensure(&wanted).expect("written");
    let up = LinkChange { up: Some(true), ..LinkChange::default() };
    inside.change_link(eth0, &up).expect("up");
    for address in ["10.1.0.1/16", "fd00::1/64"] {
        let address = address.parse().expect("a network");
        netlink.add_address(host, &AddressSpec { address, nodad: true }).expect("an address");
    }
    inside.wait_forwarding(eth0, std::time::Duration::from_secs(1)).expect("carrier");
    let addresses: [std::net::IpAddr; 2] =
        ["10.1.0.2", "fd00::2"].map(|text| text.parse().expect("an address"));
    for address in ["10.1.0.2/16", "fd00::2/64"] {
        let address = address.parse().expect("a network");
        inside.add_address(eth0, &AddressSpec { address, nodad: true }).expect("an address");
    }
    // Entries of a former owner.
    for address in addresses {
        crate::testing::stale_neighbour(&netlink, host, address, Mac([2, 0, 0, 0, 0, 1]));
    }
    inside.announce(eth0, MAC).expect("announced");
    let learned = crate::testing::neighbours(&netlink, host);
    for address in addresses {
        assert!(learned.contains(&(address, MAC)), "{learned:?}");
    }
}
