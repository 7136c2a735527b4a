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
        resolves: true,
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

/// Whoever makes links makes neither the warning long nor a line of the log each.
///
/// Rows: RH4
#[test]
fn few_of_many_links_without_a_guard_are_named() {
    let error = || Error {
        action: "guard".to_owned(),
        source: io::Error::from_raw_os_error(libc::EOPNOTSUPP),
    };
    let mut seen: SeenLinks = [(1, None)].into();
    assert_eq!(describe(&seen), None);
    seen.insert(2, Some(("eth0".to_owned(), error())));
    let one = describe(&seen).expect("a text");
    assert!(one.starts_with("on eth0, only rules protect"), "{one}");
    for index in 3..1000 {
        seen.insert(index, Some((format!("veth{index}"), error())));
    }
    let many = describe(&seen).expect("a text");
    assert!(many.contains("on eth0, veth3, veth4, veth5, veth6 and 993 more links"), "{many}");
}
