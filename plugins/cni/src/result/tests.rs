//! Results in every version.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::testing::any_json;

/// A result with every member set, as a 1.1.0 plugin would print it, keys in odd case.
fn full() -> CniResult {
    let value = json!({
        "CNIVersion": "1.1.0",
        "Interfaces": [
            {"name": "cni0", "mac": "0A:00:00:00:00:01", "mtu": 1450},
            {"name": "eth0", "Mac": "0a-00-00-00-00-02", "Sandbox": "/run/netns/../netns/a",
             "MTU": 1450, "socketPath": "/s", "pciID": "0000:00:01.0"},
        ],
        "ips": [
            {"interface": 1, "address": "10.0.0.2/24", "gateway": "10.0.0.1"},
            {"interface": 0, "address": "10.0.9.2/24"},
            {"interface": -1, "address": "fd00:0:0:0::2/64", "gateway": "FD00::1"},
        ],
        "routes": [
            {"dst": "0.0.0.0/0"},
            {"dst": "10.9.8.7/16", "GW": "10.0.0.9", "mtu": 1400, "advmss": 1360, "priority": 7,
             "table": 0, "scope": 0},
            {"dst": "::/0", "gw": "fd00::9"},
        ],
        "dns": {"nameservers": ["1.1.1.1"], "domain": "d", "search": ["s"], "options": ["o"]},
    });
    CniResult::from_json(&value, Version::V1_1_0).expect("a result")
}

fn dns() -> Value {
    json!({"nameservers": ["1.1.1.1"], "domain": "d", "search": ["s"], "options": ["o"]})
}

fn check(result: &CniResult, versions: &[&str], mut want: Value) {
    for version in versions {
        want["cniVersion"] = json!(version);
        let version = Version::parse(version).expect("a version");
        assert_eq!(result.to_json(version).expect("convertible"), want);
    }
}

/// Rows: C39, C46
#[test]
fn old_versions_say_one_address_a_family() {
    let want = json!({
        "ip4": {"ip": "10.0.0.2/24", "gateway": "10.0.0.1", "routes": [
            {"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "gw": "10.0.0.9"}]},
        "ip6": {"ip": "fd00::2/64", "gateway": "fd00::1", "routes": [
            {"dst": "::/0", "gw": "fd00::9"}]},
        "dns": dns(),
    });
    check(&full(), &["0.1.0", "0.2.0"], want);
    // The routes of a family without an address have no place.
    let mut only_v6 = full();
    only_v6.ips.retain(|ip| ip.address.is_ipv6());
    let want = json!({
        "ip6": {"ip": "fd00::2/64", "gateway": "fd00::1", "routes": [
            {"dst": "::/0", "gw": "fd00::9"}]},
        "dns": dns(),
    });
    check(&only_v6, &["0.1.0", "0.2.0"], want);
}

fn routes() -> Value {
    json!([
        {"dst": "0.0.0.0/0"},
        {"dst": "10.9.0.0/16", "gw": "10.0.0.9", "mtu": 1400, "advmss": 1360, "priority": 7,
         "table": 0, "scope": 0},
        {"dst": "::/0", "gw": "fd00::9"},
    ])
}

/// Rows: C41, C43, C46, C50
#[test]
fn middle_versions_tag_addresses() {
    let want = json!({
        "interfaces": [
            {"name": "cni0", "mac": "0a:00:00:00:00:01"},
            {"name": "eth0", "mac": "0a:00:00:00:00:02", "sandbox": "/run/netns/../netns/a"},
        ],
        "ips": [
            {"version": "4", "interface": 1, "address": "10.0.0.2/24", "gateway": "10.0.0.1"},
            {"version": "4", "interface": 0, "address": "10.0.9.2/24"},
            {"version": "6", "address": "fd00::2/64", "gateway": "fd00::1"},
        ],
        "routes": routes(),
        "dns": dns(),
    });
    check(&full(), &["0.3.0", "0.3.1", "0.4.0"], want);
}

/// Rows: C42, C43, C46, C50
#[test]
fn new_versions_say_everything() {
    let want = json!({
        "interfaces": [
            {"name": "cni0", "mac": "0a:00:00:00:00:01", "mtu": 1450},
            {"name": "eth0", "mac": "0a:00:00:00:00:02", "sandbox": "/run/netns/../netns/a",
             "mtu": 1450, "socketPath": "/s", "pciID": "0000:00:01.0"},
        ],
        "ips": [
            {"interface": 1, "address": "10.0.0.2/24", "gateway": "10.0.0.1"},
            {"interface": 0, "address": "10.0.9.2/24"},
            {"address": "fd00::2/64", "gateway": "fd00::1"},
        ],
        "routes": routes(),
        "dns": dns(),
    });
    check(&full(), &["1.0.0", "1.1.0"], want);
}

/// Rows: C40, C43, C44
#[test]
fn empty_members_are_left_out() {
    let empty = CniResult::default();
    check(&empty, &["0.3.0", "0.3.1", "0.4.0"], json!({"dns": {}}));
    check(&empty, &["1.0.0", "1.1.0"], json!({}));
    for version in [Version::V0_1_0, Version::V0_2_0] {
        let error = empty.to_json(version).expect_err("no address");
        assert_eq!(error.msg, "cannot convert: no valid IP addresses");
    }
    let one = CniResult::from_json(&json!({"ip4": {"ip": "10.0.0.2/24"}}), Version::V0_1_0);
    let want = json!({"ip4": {"ip": "10.0.0.2/24"}, "dns": {}});
    check(&one.expect("a result"), &["0.1.0", "0.2.0"], want);
}

/// Rows: C45
#[test]
fn old_results_become_new_ones() {
    let old = json!({
        "ip6": {"ip": "fd00::2/64", "routes": [{"dst": "::/0"}]},
        "ip4": {"ip": "10.0.0.2/24", "gateway": "10.0.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
        "dns": dns(),
    });
    let want = json!({
        "ips": [{"address": "10.0.0.2/24", "gateway": "10.0.0.1"}, {"address": "fd00::2/64"}],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        "dns": dns(),
    });
    for version in [Version::V0_1_0, Version::V0_2_0] {
        let result = CniResult::from_json(&old, version).expect("a result");
        check(&result, &["1.0.0", "1.1.0"], want.clone());
        // An empty object is unset, as everywhere.
        let bare = json!({"ip4": {}, "ip6": ""});
        assert_eq!(CniResult::from_json(&bare, version), Ok(CniResult::default()));
    }
}

/// Rows: C46
#[test]
fn mapped_addresses_count_as_ipv4() {
    let mapped = json!({
        "ips": [{"version": "6", "address": "::ffff:10.0.0.2/120", "gateway": "::ffff:10.0.0.1"}],
        "routes": [{"dst": "::ffff:10.9.0.1/112", "gw": "::ffff:10.0.0.3"}],
    });
    let result = CniResult::from_json(&mapped, Version::V0_4_0).expect("a result");
    let plain = json!({
        "ips": [{"address": "10.0.0.2/24", "gateway": "10.0.0.1"}],
        "routes": [{"dst": "10.9.0.0/16", "gw": "10.0.0.3"}],
    });
    check(&result, &["1.1.0"], plain.clone());
    // Also those that a plugin put together itself.
    let own = CniResult {
        ips: vec![Ip {
            interface: None,
            address: "::ffff:10.0.0.2/120".parse().expect("an address"),
            gateway: "::ffff:10.0.0.1".parse().ok(),
        }],
        routes: vec![Route {
            gw: "::ffff:10.0.0.3".parse().ok(),
            ..Route::to("::ffff:10.9.0.0/112".parse().expect("a network"))
        }],
        ..CniResult::default()
    };
    check(&own, &["1.1.0"], plain);
    let old = own.to_json(Version::V0_2_0).expect("convertible");
    assert_eq!(old["ip4"]["ip"], "10.0.0.2/24");
    assert_eq!(old.get("ip6"), None);
}

/// Rows: C31, C43, C53
#[test]
fn messages_name_the_field_of_a_result() {
    let cidr = "is not an address with prefix length, such as 10.0.0.2/24";
    for (result, field, details) in [
        (
            json!({"IPs": [{"Address": "10.0.0.2"}]}),
            "IPs[0].Address",
            format!("\"10.0.0.2\" {cidr}"),
        ),
        (
            json!({"ips": [{"address": "10.0.0.2/33"}]}),
            "ips[0].address",
            format!("\"10.0.0.2/33\" {cidr}"),
        ),
        (
            json!({"ips": [{"address": "10.0.0.2/255.0.0.0"}]}),
            "ips[0].address",
            format!("\"10.0.0.2/255.0.0.0\" {cidr}"),
        ),
        (
            json!({"ips": [{"address": "::ffff:1.2.3.4/24"}]}),
            "ips[0].address",
            format!("\"::ffff:1.2.3.4/24\" {cidr}"),
        ),
        (json!({"ips": [{}]}), "ips[0]", "missing field `address`".to_owned()),
        (
            json!({"ips": [{"address": "10.0.0.2/24", "gateway": "x"}]}),
            "ips[0].gateway",
            "\"x\" is not an IP address".to_owned(),
        ),
        (
            json!({"ips": [{"address": "10.0.0.2/24", "interface": -2}]}),
            "ips[0].interface",
            "-2 is not an index of interfaces".to_owned(),
        ),
        (
            json!({"interfaces": [{"name": "a"}, null]}),
            "interfaces[1]",
            "invalid type: null, expected an interface object".to_owned(),
        ),
        (
            json!({"routes": [{"dst": "10.0.0.0/8", "scope": 256}]}),
            "routes[0].scope",
            "invalid value: integer `256`, expected u8".to_owned(),
        ),
    ] {
        let error = CniResult::from_json(&result, Version::V1_1_0);
        let msg = format!("field \"{field}\" of the result cannot be decoded");
        assert_eq!(error, Err(Error::new(Code::Decode, msg).details(details)));
    }
}

fn any_cidr() -> impl Strategy<Value = IpNetwork> {
    prop_oneof![
        (any::<[u8; 4]>(), 0..=32_u8).prop_map(|(ip, prefix)| (IpAddr::from(ip), prefix)),
        (any::<[u16; 8]>(), 0..=128_u8).prop_map(|(ip, prefix)| (IpAddr::from(ip), prefix)),
    ]
    .prop_filter("mapped addresses read back as IPv4", |(ip, _)| ip.to_canonical() == *ip)
    .prop_filter_map("a network", |(ip, prefix)| IpNetwork::new(ip, prefix).ok())
}

prop_compose! {
    fn any_route()(
        dst in any_cidr().prop_map(address::network_of)
            .prop_filter("not mapped", |dst| address::unmapped(*dst) == *dst),
        gw in proptest::option::of(any_cidr().prop_map(|gw| gw.ip())),
        numbers in proptest::array::uniform3(proptest::option::of(1..u32::MAX)),
        table in proptest::option::of(any::<u32>()),
        scope in proptest::option::of(any::<u8>()),
    ) -> Route {
        let [mtu, advmss, priority] = numbers;
        Route { dst, gw, mtu, advmss, priority, table, scope }
    }
}

prop_compose! {
    fn any_interface()(
        name in "[a-z]{1,5}", mac in "([0-9a-f]{2}:){0,3}", mtu in proptest::option::of(1..9000_u32),
        sandbox in "[/a-zA-Z]{0,5}", socket_path in "[/a]{0,2}", pci_id in "[:0]{0,2}",
    ) -> Interface {
        Interface { name, mac, mtu, sandbox, socket_path, pci_id }
    }
}

prop_compose! {
    fn any_result()(
        interfaces in proptest::collection::vec(any_interface(), 0..3),
        ips in proptest::collection::vec(
            (proptest::option::of(0..5_usize), any_cidr(), proptest::option::of(any_cidr())), 0..4),
        routes in proptest::collection::vec(any_route(), 0..4),
        lists in proptest::array::uniform3(proptest::collection::vec("[a-z.]{0,4}", 0..2)),
        domain in "[a-z]{0,3}",
    ) -> CniResult {
        let ips = ips.into_iter().map(|(interface, address, gateway)| {
            Ip { interface, address, gateway: gateway.map(|gateway| gateway.ip()) }
        });
        let [nameservers, search, options] = lists;
        let dns = Dns { nameservers, domain, search, options };
        CniResult { interfaces, ips: ips.collect(), routes, dns }
    }
}

/// What `version` can say of `result`.
fn said(result: &CniResult, version: Version) -> CniResult {
    let mut said = result.clone();
    if version < Version::V1_0_0 {
        for interface in &mut said.interfaces {
            interface.mtu = None;
            interface.socket_path.clear();
            interface.pci_id.clear();
        }
    }
    if version < Version::V0_3_0 {
        said.interfaces.clear();
        let first = |v4| result.ips.iter().find(|ip| ip.address.is_ipv4() == v4).cloned();
        said.ips = [first(true), first(false)].into_iter().flatten().collect();
        said.ips.iter_mut().for_each(|ip| ip.interface = None);
        said.routes
            .retain(|route| said.ips.iter().any(|ip| ip.address.is_ipv4() == route.dst.is_ipv4()));
        said.routes = said.routes.iter().map(|r| Route { gw: r.gw, ..Route::to(r.dst) }).collect();
        said.routes.sort_by_key(|route| route.dst.is_ipv6());
    }
    said
}

proptest! {
    /// Rows: C39, C41, C42, C43, C45, C55
    #[test]
    fn a_version_gives_back_what_it_can_say(result in any_result()) {
        for version in Version::ALL {
            match result.to_json(version) {
                Ok(value) => {
                    let back = CniResult::from_json(&value, version).expect("our own output");
                    prop_assert_eq!(&back, &said(&result, version));
                    // Saying it again changes nothing: a chained plugin passes results through.
                    prop_assert_eq!(back.to_json(version).expect("again"), value);
                }
                Err(_) => prop_assert!(version.needs_ip() && result.ips.is_empty()),
            }
        }
    }

    /// Rows: C45
    #[test]
    fn what_an_old_version_says_survives_the_way_up_and_down(result in any_result()) {
        for old in Version::ALL {
            let Ok(value) = result.to_json(old) else { continue };
            let read = CniResult::from_json(&value, old).expect("our own output");
            for new in Version::ALL.into_iter().filter(|new| *new >= old) {
                let up = read.to_json(new).expect("convertible");
                let up = CniResult::from_json(&up, new).expect("our own output");
                prop_assert_eq!(up.to_json(old).expect("convertible"), value.clone());
            }
        }
    }

    #[test]
    fn any_result_is_read_or_refused_with_code_6(value in any_json()) {
        for version in Version::ALL {
            match CniResult::from_json(&value, version) {
                Ok(result) => drop(result.to_json(version)),
                Err(error) => prop_assert_eq!(error.code, Code::Decode),
            }
        }
    }
}
