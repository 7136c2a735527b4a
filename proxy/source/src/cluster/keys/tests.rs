use proptest::prelude::*;

use super::*;

fn keys() -> Keys {
    Keys::new("/causeway")
}

fn check(text: &str, key: Key) {
    assert_eq!(keys().text(&key), text);
    assert_eq!(keys().parse(text.as_bytes()), Some(key));
}

/// Rows: O-30
#[test]
fn keys_read_as_the_interface_says() {
    check("/causeway/v1/config", Key::Config);
    check("/causeway/v1/nodes/n1", Key::Node("n1".into()));
    let key =
        EndpointKey { network: "a/b".into(), container_id: "50%".into(), ifname: "eth0".into() };
    check("/causeway/v1/containers/n1/a%2Fb/50%25/eth0", Key::Container("n1".into(), key));
    check("/causeway/v1/subnets/10.0.1.0-24", Key::Subnet("10.0.1.0/24".parse().unwrap()));
    check("/causeway/v1/subnets/fd00:10::-64", Key::Subnet("fd00:10::/64".parse().unwrap()));
    let reserved = Key::Reservation("10.0.9.0/24".parse().unwrap());
    check("/causeway/v1/reservations/10.0.9.0-24", reserved);
    let web = Key::Object(ObjectKind::Service, ObjectKey::new("default", "web"));
    check("/causeway/v1/objects/service/default/web", web);
    let node = Key::Object(ObjectKind::Node, ObjectKey::new("", "n1"));
    check("/causeway/v1/objects/node//n1", node);
    check("/causeway/v1/claims/port/tcp/30001", Key::Claim("port/tcp/30001".into()));
}

/// Rows: C-14
#[test]
fn other_keys_are_nobodys() {
    let others = [
        "/causeway/v2/config",
        "/causeway/v1/",
        "/causeway/v1/leaders/n1",
        "/causeway/v1/nodes/n1/more",
        "/causeway/v1/nodes/n%31",
        "/causeway/v1/nodes/n%2f",
        "/causeway/v1/nodes/n%",
        "/causeway/v1/nodes/%é1",
        "/causeway/v1/subnets/10.0.1.1-24",
        "/causeway/v1/subnets/10.0.1.0-024",
        "/causeway/v1/subnets/10.0.1.0-33",
        "/causeway/v1/objects/pod/default/web",
        "/causeway/v1/containers/n1/net/id",
    ];
    for other in others {
        assert_eq!(keys().parse(other.as_bytes()), None, "{other}");
    }
    assert_eq!(keys().parse(b"/causeway/v1/nodes/\xff"), None);
}

proptest! {
    #[test]
    fn any_names_make_a_key_of_their_own(
        names in prop::collection::vec(".{0,6}", 8),
    ) {
        let [a, b, c, d, e, f, g, h] = <[String; 8]>::try_from(names).unwrap();
        let one = EndpointKey { network: b, container_id: c, ifname: d };
        let other = EndpointKey { network: f, container_id: g, ifname: h };
        let one = Key::Container(a, one);
        let other = Key::Container(e, other);
        let text = keys().text(&one);
        prop_assert_eq!(keys().parse(text.as_bytes()), Some(one.clone()));
        prop_assert_eq!(one == other, text == keys().text(&other));
        let Key::Container(node, _) = &one else { unreachable!() };
        prop_assert!(text.starts_with(&keys().containers(node)));
    }

    #[test]
    fn no_text_is_too_odd(text in prop::collection::vec(any::<u8>(), 0..40)) {
        let bytes = [b"/causeway/v1/", text.as_slice()].concat();
        if let Some(key) = keys().parse(&bytes) {
            prop_assert_eq!(keys().text(&key).into_bytes(), bytes);
        }
    }
}
