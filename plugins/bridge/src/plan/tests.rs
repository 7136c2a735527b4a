use std::collections::BTreeSet;

use super::*;

fn net(text: &str) -> IpNetwork {
    text.parse().expect("a network")
}

fn ip(address: &str, gateway: Option<&str>) -> Ip {
    let gateway = gateway.map(|gateway| gateway.parse().expect("an address"));
    Ip { interface: None, address: net(address), gateway }
}

fn route(dst: &str, gw: Option<&str>) -> Route {
    Route {
        dst: net(dst),
        gw: gw.map(|gw| gw.parse().expect("an address")),
        mtu: None,
        advmss: None,
        priority: None,
        table: None,
        scope: None,
    }
}

fn answer(ips: Vec<Ip>, routes: Vec<Route>) -> CniResult {
    CniResult { ips, routes, ..CniResult::default() }
}

/// A container without any route yet.
#[expect(clippy::unnecessary_wraps, reason = "stands for a request to the kernel")]
fn unrouted(_: IpAddr) -> Result<bool, Error> {
    Ok(false)
}

const NO_GATEWAY: Gateway = Gateway { enabled: false, default_route: false, force_address: false };
const GATEWAY: Gateway = Gateway { enabled: true, default_route: false, force_address: false };
const DEFAULT_GATEWAY: Gateway =
    Gateway { enabled: true, default_route: true, force_address: false };

fn link(name: &str, kind: LinkKind) -> Link {
    Link {
        index: 7,
        name: name.to_owned(),
        mac: Some(Mac([2, 0, 0, 0, 0, 0xab])),
        mtu: 1450,
        up: true,
        carrier: true,
        resolves: true,
        promisc: false,
        kind,
        master: None,
        peer_index: None,
        alias: None,
        port: None,
    }
}

#[test]
fn host_names_are_stable_short_and_differ() {
    // Published: the links of a build before are found by these names.
    let owner = "48044129-d2149a85f0593d75 causeway/0123456789ab/eth0";
    assert_eq!([0, 1].map(|salt| host_ifname(owner, salt)), ["vethe490c9d6", "vethf256694f"]);
    let name = host_ifname("owner a", 0);
    assert_eq!(name, host_ifname("owner a", 0));
    assert_eq!(name.len(), 12);
    assert!(name.starts_with("veth") && name[4..].bytes().all(|b| b.is_ascii_hexdigit()));
    let names: BTreeSet<_> = (0..1000)
        .flat_map(|n| {
            [host_ifname(&format!("owner {n}"), 0), host_ifname(&format!("owner {n}"), 1)]
        })
        .collect();
    assert_eq!(names.len(), 2000);
}

/// Rows: C49
#[test]
fn an_answer_without_addresses_is_an_error() {
    let error =
        Addressing::of(NO_GATEWAY, answer(Vec::new(), Vec::new()), unrouted).expect_err("no ips");
    assert!(error.msg.contains("IPAM plugin returned missing IP config"), "{error}");
}

#[test]
fn the_gateway_is_the_ipams_or_the_first_address() {
    let ips = vec![ip("10.0.1.2/16", None), ip("fd00::1:2/64", Some("fd00::9"))];
    let plan = Addressing::of(GATEWAY, answer(ips.clone(), Vec::new()), unrouted).expect("valid");
    assert_eq!(plan.gateways, [net("10.0.0.1/16"), net("fd00::9/64")]);
    assert_eq!(plan.ips, [ip("10.0.1.2/16", Some("10.0.0.1")), ips[1].clone()]);
    assert!(plan.routes.is_empty());
    let plan =
        Addressing::of(NO_GATEWAY, answer(ips.clone(), Vec::new()), unrouted).expect("valid");
    assert!(plan.gateways.is_empty());
    assert_eq!(plan.ips, ips);
}

#[test]
fn a_default_route_per_family_unless_there_is_one() {
    let ips = || vec![ip("10.0.1.2/16", Some("10.0.1.1")), ip("fd00::2/64", None)];
    let dsts = |routes: Vec<Route>| {
        Addressing::of(DEFAULT_GATEWAY, answer(ips(), routes), unrouted).expect("valid").routes
    };
    assert_eq!(
        dsts(Vec::new()),
        [route("0.0.0.0/0", Some("10.0.1.1")), route("::/0", Some("fd00::1"))]
    );
    // A default route without next hop is the same route: adding it twice would fail.
    let plain = route("0.0.0.0/0", None);
    assert_eq!(dsts(vec![plain.clone()]), [plain, route("::/0", Some("fd00::1"))]);
    let elsewhere = Route { table: Some(100), ..route("0.0.0.0/0", None) };
    assert_eq!(dsts(vec![elsewhere]).len(), 3);
    let v4_routed = |like: IpAddr| Ok(like.is_ipv4());
    let plan = Addressing::of(DEFAULT_GATEWAY, answer(ips(), Vec::new()), v4_routed);
    assert_eq!(plan.expect("valid").routes, [route("::/0", Some("fd00::1"))]);
    let refused = |_| Err(Error::new(Code::TryAgainLater, "list routes"));
    let plan = Addressing::of(DEFAULT_GATEWAY, answer(ips(), Vec::new()), refused);
    assert_eq!(plan.expect_err("the kernel's refusal").code, Code::TryAgainLater);
}

/// Rows: C50
#[test]
fn a_route_without_next_hop_takes_the_first_gateway_of_its_family() {
    let ips =
        [ip("10.0.1.2/16", None), ip("10.0.1.3/16", Some("10.0.0.1")), ip("fd00::2/64", None)];
    let routes = [
        route("192.0.2.0/24", None),
        route("2001:db8::/32", None),
        Route { scope: Some(SCOPE_LINK), ..route("198.51.100.0/24", None) },
        Route {
            scope: Some(0),
            table: Some(0),
            mtu: Some(1300),
            advmss: Some(1200),
            priority: Some(5),
            ..route("203.0.113.0/24", Some("172.16.0.1"))
        },
    ];
    let specs = route_specs(&ips, &routes, 3);
    let hops: Vec<_> = specs.iter().map(|spec| spec.gw.map(|gw| gw.to_string())).collect();
    assert_eq!(hops, [Some("10.0.0.1".to_owned()), None, None, Some("172.16.0.1".to_owned())]);
    let onlink: Vec<_> = specs.iter().map(|spec| spec.onlink).collect();
    assert_eq!(onlink, [false, false, false, true], "only the last is outside every subnet");
    let last = &specs[3];
    assert_eq!((last.scope, last.table, last.priority), (Some(0), Some(0), Some(5)));
    assert_eq!((last.mtu, last.advmss, last.dev), (Some(1300), Some(1200), 3));
}

fn changes(wanted: &[&str], present: &[&str], force: bool) -> Result<AddressChanges, Error> {
    let nets = |texts: &[&str]| texts.iter().map(|text| net(text)).collect::<Vec<_>>();
    address_changes("br0", &nets(wanted), &nets(present), force)
}

/// Rows: F19
#[test]
fn addresses_of_the_bridge() {
    let none = AddressChanges::default();
    assert_eq!(changes(&["10.0.0.1/16"], &["10.0.0.1/16", "fe80::1/64"], false), Ok(none));
    let add = |text| AddressChanges { remove: Vec::new(), add: vec![net(text)] };
    assert_eq!(changes(&["10.0.0.1/16"], &["fe80::1/64"], false), Ok(add("10.0.0.1/16")));
    assert_eq!(changes(&["fd00::1/64"], &["fd01::1/64"], false), Ok(add("fd00::1/64")));
    let error = changes(&["10.0.0.1/16"], &["192.0.2.1/24"], false).expect_err("in the way");
    assert!(error.msg.contains("already has an IP address different from"), "{error}");
    assert_eq!(error.code, Code::InvalidConfig);
    assert!(changes(&["fd00::1/64"], &["fd00::2/60"], false).is_err());
    assert_eq!(
        changes(&["10.0.0.1/16"], &["192.0.2.1/24", "fd01::1/64"], true),
        Ok(AddressChanges { remove: vec![net("192.0.2.1/24")], add: vec![net("10.0.0.1/16")] })
    );
    // Two pools of one family: one gateway is not in the way of the other.
    assert_eq!(
        changes(&["10.0.0.1/16", "10.9.0.1/16"], &["10.0.0.1/16"], false),
        Ok(add("10.9.0.1/16"))
    );
}

/// Rows: F20
#[test]
fn another_kind_of_link_is_no_bridge() {
    let config = Checked::of(&request()).expect("valid");
    let error = bridge_change(&link("cni0", LinkKind::Veth), &config).expect_err("no bridge");
    assert_eq!(error.code, Code::InvalidConfig);
    assert!(error.msg.contains("cni0 already exists but is not a bridge"), "{error}");
    let bridge = LinkKind::Bridge { vlan_filtering: false, default_pvid: 1 };
    let up = bridge_change(&link("cni0", bridge.clone()), &config).expect("a bridge");
    assert!(up.is_none());
    let down = Link { up: false, ..link("cni0", bridge) };
    let change = bridge_change(&down, &config).expect("a bridge").expect("a change");
    assert_eq!((change.up, change.promisc, change.vlan_filtering), (Some(true), None, None));
}

fn request() -> cni_plugin::Request {
    cni_plugin::Request {
        command: cni_plugin::Command::Add,
        network: "net".to_owned(),
        version: cni_plugin::Version::V1_1_0,
        attachment: cni_plugin::Attachment {
            container_id: "c1".to_owned(),
            ifname: "eth0".to_owned(),
        },
        netns: None,
        args: cni_plugin::CniArgs::default(),
        path: Vec::new(),
        prev_result: None,
        valid_attachments: Vec::new(),
        raw: serde_json::json!({}),
        stdin: b"{}".to_vec(),
        env: std::collections::BTreeMap::new(),
    }
}

/// Rows: C47
#[test]
fn interfaces_stand_in_order() {
    let bridge = link("br0", LinkKind::Bridge { vlan_filtering: true, default_pvid: 1 });
    let (host, container) = (link("veth1", LinkKind::Veth), link("eth0", LinkKind::Veth));
    let gateway = link("br0.7", LinkKind::Veth);
    let ends = AttachmentLinks {
        bridge: Some(&bridge),
        host: &host,
        container: &container,
        vlan_gateway: Some(&gateway),
        netns: "/run//netns/x",
    };
    let plan = Addressing::of(GATEWAY, answer(vec![ip("10.0.1.2/16", None)], Vec::new()), unrouted);
    let result = result(&ends, plan.ok(), Dns::default(), None);
    let names: Vec<_> = result.interfaces.iter().map(|i| i.name.as_str()).collect();
    assert_eq!(names, ["br0", "veth1", "eth0", "br0.7"]);
    let sandboxes: Vec<_> = result.interfaces.iter().map(|i| i.sandbox.as_str()).collect();
    assert_eq!(sandboxes, ["", "", "/run//netns/x", ""]);
    assert!(result.interfaces.iter().all(|i| i.mtu == Some(1450) && i.mac == "02:00:00:00:00:ab"));
    assert_eq!(result.ips[0].interface, Some(2));
}

/// Rows: C56, C52
#[test]
fn a_result_from_before_is_kept() {
    let bridge = link("br0", LinkKind::Bridge { vlan_filtering: false, default_pvid: 1 });
    let (host, container) = (link("veth1", LinkKind::Veth), link("eth1", LinkKind::Veth));
    let ends = AttachmentLinks {
        bridge: Some(&bridge),
        host: &host,
        container: &container,
        vlan_gateway: None,
        netns: "/run/netns/x",
    };
    let before = CniResult {
        interfaces: vec![Interface { name: "eth0".to_owned(), ..Interface::default() }],
        ips: vec![Ip { interface: Some(0), ..ip("192.0.2.2/24", None) }],
        routes: vec![route("0.0.0.0/0", Some("192.0.2.1"))],
        dns: Dns { nameservers: vec!["192.0.2.53".to_owned()], ..Dns::default() },
    };
    let plan = || {
        Addressing::of(NO_GATEWAY, answer(vec![ip("10.0.1.2/16", None)], Vec::new()), unrouted).ok()
    };
    let kept = result(&ends, plan(), Dns::default(), Some(&before));
    assert_eq!(kept.interfaces[0], before.interfaces[0]);
    assert_eq!(kept.ips[0], before.ips[0]);
    assert_eq!(kept.ips[1].interface, Some(3));
    assert_eq!((&kept.routes, &kept.dns), (&before.routes, &before.dns));
    let own = Dns { search: vec!["example".to_owned()], ..Dns::default() };
    assert_eq!(result(&ends, plan(), own.clone(), Some(&before)).dns, own, "replaced as a whole");
}

#[test]
fn made_up_addresses_are_local_and_unicast() {
    for bits in [0, u64::MAX, 0x0123_4567_89ab_cdef] {
        let Mac(mac) = local_mac(bits);
        assert_eq!(mac[0] & 3, 2, "{mac:02x?}");
    }
}

/// Rows: O-38b
#[test]
fn gateways_of_other_subnets_are_known_by_their_place() {
    let state = |address: &str, scope: u8| AddressState {
        address: net(address),
        tentative: false,
        dad_failed: false,
        scope,
    };
    let present = [
        state("10.0.1.1/24", 0),
        state("10.0.5.1/24", 0),
        state("192.168.7.9/24", 0),
        state("fd00:1::1/64", 0),
        state("fe80::1/64", SCOPE_LINK),
    ];
    let old = old_gateways(&[net("10.0.5.1/24")], &present);
    assert_eq!(old, [net("10.0.1.1/24"), net("fd00:1::1/64")]);
}
