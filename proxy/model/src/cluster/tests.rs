use super::{ClusterConfig, MacAddress};

#[test]
fn ethernet_addresses_are_read_as_written() {
    let address = MacAddress([0x02, 0, 0xab, 1, 2, 0xff]);
    assert_eq!(address.to_string(), "02:00:ab:01:02:ff");
    assert_eq!("02:00:AB:01:02:ff".parse(), Ok(address));
    for wrong in
        ["", "02:00:ab:01:02", "02:00:ab:01:02:ff:00", "2:0:ab:1:2:ff", "02:00:ab:01:02:+f"]
    {
        assert!(wrong.parse::<MacAddress>().is_err(), "{wrong:?}");
    }
}

#[test]
fn a_vtep_keeps_its_address_and_no_two_nodes_share_one() {
    let address = MacAddress::of_vtep("n1", 1);
    assert_eq!(address, MacAddress::of_vtep("n1", 1));
    assert_ne!(address, MacAddress::of_vtep("n2", 1));
    assert_ne!(address, MacAddress::of_vtep("n1", 2));
    assert_eq!(address.0[0] & 3, 2, "{address}: locally administered, unicast");
}

/// Rows: O-41
#[test]
fn configurations_tell_what_differs() {
    let here = ClusterConfig {
        schema: ClusterConfig::SCHEMA,
        cluster_cidrs: vec!["10.0.0.0/16".parse().expect("a network")],
        service_cidrs: vec!["10.96.0.0/16".parse().expect("a network")],
        node_subnet_len: 24,
        node_ports: (30000, 32767),
        overlay: "vxlan".into(),
        vxlan_id: 1,
        vxlan_port: 4789,
    };
    let stored = ClusterConfig { vxlan_port: 8472, ..here.clone() };
    assert_eq!(here.differences(&stored), ["vxlan-port: 4789 here, 8472 in the store"]);
    assert_ne!(here.digest(), stored.digest());
    assert_eq!(here.differences(&here), Vec::<String>::new());
}
