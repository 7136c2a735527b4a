//! Which devices lead to the other nodes.

use causeway_kernel::{AddressSpec, BridgeSpec};

use super::*;

/// Rows: O-52
#[test]
fn the_devices_that_lead_to_other_nodes_follow_the_addresses() {
    // SAFETY: `unshare` takes no pointers, and network namespaces are per thread.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "needs root");
    let netlink = Netlink::open().unwrap();
    for (name, address) in [("one", "172.18.0.2/24"), ("two", "172.19.0.2/24")] {
        let bridge = BridgeSpec { name, mtu: None, mac: None, vlan_filtering: false };
        netlink.add_bridge(&bridge).unwrap();
        let index = netlink.link(name).unwrap().unwrap().index;
        let address = AddressSpec { address: address.parse().unwrap(), nodad: true };
        netlink.add_address(index, &address).unwrap();
    }
    let (addresses, incoming) = channel();
    let forward = Forward { addresses };
    let mut watcher = ForwardThread {
        cluster: vec!["10.0.0.0/16".parse().unwrap()],
        ips: vec!["172.18.0.2".parse().unwrap()],
        device: None,
        events: tokio::sync::mpsc::channel(1).0,
        incoming,
        client: None,
        seen: Some(1),
        looks: Schedule::later(PACE, clock::now()),
        said: Vec::new(),
    };
    let outer =
        |watcher: &ForwardThread| watcher.devices().unwrap().outer.into_iter().collect::<Vec<_>>();
    assert_eq!(outer(&watcher), ["one"]);
    forward.follow(vec!["172.19.0.2".parse().unwrap()]);
    assert!(watcher.wait());
    assert!(watcher.looks.is_due(clock::now()), "it looks at once");
    assert_eq!(outer(&watcher), ["two"]);
    drop(forward);
    assert!(!watcher.wait(), "it ends with the engine");
}
