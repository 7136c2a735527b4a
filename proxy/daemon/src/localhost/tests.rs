use causeway_kernel::{Link, LinkKind};

use super::*;

fn link(index: u32, name: &str, master: Option<u32>, kind: &str) -> Link {
    Link {
        index,
        name: name.to_owned(),
        mac: None,
        mtu: 1500,
        up: true,
        carrier: true,
        promisc: false,
        kind: LinkKind::Other(kind.to_owned()),
        master,
        peer_index: None,
        alias: None,
        port: None,
    }
}

/// Rows: RH4
#[test]
fn links_are_guarded_by_which_packets_come_to_the_node() {
    let links = [
        link(1, "lo", None, ""),
        link(2, "eth0", None, ""),
        link(3, "cw0", None, "bridge"),
        link(4, "veth0", Some(3), "veth"),
        link(5, "red", None, "vrf"),
        link(6, "eth1", Some(5), ""),
        link(7, "elsewhere", Some(99), ""),
    ];
    assert_eq!(wanted(&links), BTreeSet::from([2, 3, 5, 6]));
}
