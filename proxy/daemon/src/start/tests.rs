use super::*;

#[test]
fn interfaces_of_balancers_without_effect_are_named() {
    let alone = Settings {
        balancer_interfaces: vec!["eth0".to_owned(), "eth1".to_owned()],
        ..crate::testing::settings(Path::new("/run/test"))
    };
    assert_eq!(interfaces_without_effect(&alone), None);
    let peers = Settings { peers_file: Some("/etc/peers".into()), ..alone.clone() };
    let etcd = Settings { store: StoreKind::Etcd, ..alone };
    for several in [peers, etcd] {
        let warning = interfaces_without_effect(&several).expect("a warning");
        assert!(warning.starts_with("--lb-interface eth0,eth1 has no effect"), "{warning}");
        let unnamed = Settings { balancer_interfaces: Vec::new(), ..several };
        assert_eq!(interfaces_without_effect(&unnamed), None);
    }
}
