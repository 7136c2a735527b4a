use cni_plugin::Ip;

use super::*;

const GATEWAY: Gateway = Gateway { enabled: true, default_route: true, force_address: false };
const NONE: Gateway = Gateway { enabled: false, default_route: false, force_address: false };

/// eth0 is link 2, the network's bridge link 9.
fn host(addresses: &[(u32, &str)]) -> Host {
    let addresses = addresses.iter().map(|(link, at)| (*link, at.parse().unwrap())).collect();
    Host::new(addresses, vec![(2, "192.0.2.1".parse().unwrap())], &[9])
}

fn check(host: &Host, mode: Mode, gateway: Gateway, address: &str, at: Option<&str>) -> String {
    let ip = Ip {
        interface: None,
        address: address.parse().unwrap(),
        gateway: at.map(|at| at.parse().unwrap()),
    };
    let leased = CniResult { ips: vec![ip], ..CniResult::default() };
    match host.check(mode, gateway, &leased) {
        Ok(()) => String::new(),
        Err(error) => {
            assert_eq!(error.code, Code::InvalidConfig);
            error.msg
        }
    }
}

/// Rows: RD2
#[test]
fn what_takes_something_from_the_host_is_refused() {
    let host = host(&[(2, "192.0.2.2/24"), (1, "127.0.0.1/8"), (3, "10.5.0.1/16")]);
    for (address, gateway, part) in [
        (
            "192.0.2.2/23",
            "192.0.3.1",
            "assigned 192.0.2.2 to the container: an address of this node",
        ),
        (
            "192.0.2.1/23",
            "192.0.3.1",
            "assigned 192.0.2.1 to the container: the router of this node",
        ),
        ("192.0.2.9/23", "192.0.2.1", "has 192.0.2.1 as the gateway: the router of this node"),
        ("192.0.2.9/24", "192.0.2.7", "this node has 192.0.2.2/24 on another link"),
        ("10.5.0.9/24", "10.5.0.1", "has 10.5.0.1 as the gateway: an address of this node"),
    ] {
        let msg = check(&host, Mode::Bridge, GATEWAY, address, Some(gateway));
        assert!(msg.contains(part), "{address}: {msg}");
    }
    // No gateway given: it is the first address of the subnet.
    let msg = check(&host, Mode::Bridge, GATEWAY, "192.0.2.9/23", None);
    assert!(msg.contains("has 192.0.2.1 as the gateway"), "{msg}");
    let msg = check(&host, Mode::Bridge, GATEWAY, "10.5.0.9/24", None);
    assert!(msg.contains("has 10.5.0.1 as the gateway"), "{msg}");
}

/// Rows: RD2
#[test]
fn what_users_have_stays_allowed() {
    // The bridge itself, lo, a wider subnet, a part of the node's network without its addresses.
    let node = host(&[(2, "10.0.0.5/8"), (9, "10.1.0.1/16"), (1, "127.0.0.1/8")]);
    for address in ["10.1.0.9/16", "10.2.0.9/24", "127.0.0.2/24"] {
        assert_eq!(check(&node, Mode::Bridge, GATEWAY, address, None), "", "{address}");
    }
    // The containers are on the node's own network, which their bridge does not lead to.
    let flat = host(&[(2, "192.0.2.2/24")]);
    assert_eq!(check(&flat, Mode::Bridge, NONE, "192.0.2.130/24", Some("192.0.2.1")), "");
    let routed = host(&[(5, "10.7.0.1/32"), (6, "10.7.0.1/32")]);
    assert_eq!(check(&routed, Mode::Ptp, GATEWAY, "10.7.0.9/16", Some("10.7.0.1")), "");
    let bridged = check(&routed, Mode::Bridge, GATEWAY, "10.7.0.9/16", Some("10.7.0.1"));
    assert!(bridged.contains("has 10.7.0.1 as the gateway"), "{bridged}");
}
