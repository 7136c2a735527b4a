//! The kernel in small, to which steps are applied.

use std::collections::BTreeSet;
use std::net::IpAddr;

use causeway_model::{MacAddress, Peer};
use ipnetwork::IpNetwork;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;

use crate::plan::tests::{DIRECT, VXLAN, facts, ip, net, peer};
use crate::{
    Hop, Mode, Observed, ObservedLink, ObservedRoute, OverlayContext, Step, Wanted, diff, plan,
};

const UNDERLAY: u32 = 2;
const DEVICE: u32 = 7;
const REMADE: u32 = 8;

/// Does what the kernel does on a step, with its side effects; refuses what it would refuse, and
/// what the steps are not to ask for.
fn apply(kernel: &mut Observed, step: &Step) -> Result<(), String> {
    match step {
        Step::RemoveLink { index } => remove_link(kernel, *index),
        Step::AddLink(wanted) => {
            let was = kernel.link.replace(ObservedLink {
                index: REMADE,
                fits: true,
                mac: Some(wanted.mac),
                mtu: wanted.mtu,
                up: false,
                addresses: BTreeSet::new(),
            });
            yes(was.is_none(), "link exists")
        }
        Step::SetLink { mac, mtu, up } => set_link(kernel, (*mac, *mtu, *up)),
        Step::AddAddress(ip) => {
            let link = kernel.link.as_mut().ok_or("no link")?;
            yes(link.addresses.insert(IpNetwork::from(*ip)), "address exists")
        }
        Step::RemoveAddress(address) => {
            let link = kernel.link.as_mut().ok_or("no link")?;
            let found = link.addresses.remove(address);
            if address.is_ipv4() && !link.addresses.iter().any(IpNetwork::is_ipv4) {
                let index = link.index;
                kernel.routes.retain(|route| route.dev != index || route.subnet.is_ipv6());
            }
            yes(found, "no such address")
        }
        Step::PutNeighbour(ip, mac) => {
            yes(kernel.link.as_ref().is_some_and(|link| link.up), "link is not up")?;
            yes(destinations(kernel, *mac).len() == 1, "neighbour leads to no FDB entry")?;
            kernel.neighbours.insert(*ip, *mac);
            Ok(())
        }
        Step::RemoveNeighbour(ip) => {
            yes(kernel.neighbours.remove(ip).is_some(), "no such neighbour")
        }
        Step::PutFdb(mac, ip) => {
            yes(kernel.link.is_some(), "no link")?;
            yes(destinations(kernel, *mac).len() < 2, "which one is replaced?")?;
            kernel.fdb.retain(|(of, _)| of != mac);
            kernel.fdb.insert((*mac, *ip));
            Ok(())
        }
        Step::RemoveFdb(mac, ip) => yes(kernel.fdb.remove(&(*mac, *ip)), "no such FDB entry"),
        Step::PutRoute(subnet, hop) => put_route(kernel, *subnet, hop),
        Step::RemoveRoute(route) => yes(kernel.routes.remove(route), "no such route"),
    }
}

fn remove_link(kernel: &mut Observed, index: u32) -> Result<(), String> {
    yes(kernel.link.take().is_some_and(|link| link.index == index), "no such link")?;
    kernel.neighbours.clear();
    kernel.fdb.clear();
    kernel.routes.retain(|route| route.dev != index);
    Ok(())
}

fn set_link(
    kernel: &mut Observed,
    (mac, mtu, up): (Option<MacAddress>, Option<u32>, bool),
) -> Result<(), String> {
    let link = kernel.link.as_mut().ok_or("no link")?;
    link.mtu = mtu.unwrap_or(link.mtu);
    link.up |= up;
    if mac.is_some() {
        link.mac = mac;
        kernel.neighbours.clear();
    }
    Ok(())
}

fn put_route(kernel: &mut Observed, subnet: IpNetwork, hop: &Hop) -> Result<(), String> {
    let (dev, gateway) = match hop {
        Hop::Direct(ip) => (UNDERLAY, *ip),
        Hop::Tunnel => {
            let link = kernel.link.as_ref().filter(|link| link.up).ok_or("link is not up")?;
            let gateway = subnet.network();
            yes(!link.addresses.contains(&IpNetwork::from(gateway)), "gateway is this node")?;
            yes(kernel.neighbours.contains_key(&gateway), "route leads to no neighbour")?;
            (link.index, gateway)
        }
    };
    let present = kernel.routes.iter().filter(|route| route.subnet == subnet).count();
    yes(present < 2, "which one is replaced?")?;
    kernel.routes.retain(|route| route.subnet != subnet);
    kernel.routes.insert(ObservedRoute { subnet, dev, gateway: Some(gateway) });
    Ok(())
}

fn yes(it_is: bool, else_: &str) -> Result<(), String> {
    if it_is { Ok(()) } else { Err(else_.to_owned()) }
}

fn destinations(kernel: &Observed, mac: MacAddress) -> Vec<IpAddr> {
    kernel.fdb.iter().filter(|(of, _)| *of == mac).map(|(_, ip)| *ip).collect()
}

/// Whether packets for `subnet` go where they should.
fn works(kernel: &Observed, wanted: &Wanted, subnet: IpNetwork) -> bool {
    let routes: Vec<&ObservedRoute> =
        kernel.routes.iter().filter(|route| route.subnet == subnet).collect();
    let Some(hop) = wanted.routes.get(&subnet) else { return false };
    let leads = |dev: u32, gateway: IpAddr| {
        routes.iter().any(|route| route.dev == dev && route.gateway == Some(gateway))
    };
    match (hop, &kernel.link, &wanted.link) {
        (Hop::Direct(ip), _, _) => leads(UNDERLAY, *ip),
        (Hop::Tunnel, Some(link), Some(should)) => {
            let gateway = subnet.network();
            let mac = kernel.neighbours.get(&gateway);
            let ips = mac.map(|mac| destinations(kernel, *mac)).unwrap_or_default();
            let right = mac.and_then(|mac| wanted.fdb.get(mac));
            link.fits
                && link.up
                && link.mac == Some(should.mac)
                && leads(link.index, gateway)
                && mac == wanted.neighbours.get(&gateway)
                && right.is_some_and(|ip| ips.contains(ip))
        }
        (Hop::Tunnel, _, _) => false,
    }
}

/// What the kernel should hold in the end, with the index of the device that is there.
fn as_held(kernel: &Observed, wanted: &Wanted) -> Observed {
    let index = kernel.link.as_ref().map_or(0, |link| link.index);
    let route = |(subnet, hop): (&IpNetwork, &Hop)| match hop {
        Hop::Tunnel => {
            ObservedRoute { subnet: *subnet, dev: index, gateway: Some(subnet.network()) }
        }
        Hop::Direct(ip) => ObservedRoute { subnet: *subnet, dev: UNDERLAY, gateway: Some(*ip) },
    };
    Observed {
        link: wanted.link.as_ref().map(|link| ObservedLink {
            index,
            fits: true,
            mac: Some(link.mac),
            mtu: link.mtu,
            up: true,
            addresses: link.addresses.iter().map(|ip| IpNetwork::from(*ip)).collect(),
        }),
        neighbours: wanted.neighbours.clone(),
        fdb: wanted.fdb.iter().map(|(mac, ip)| (*mac, *ip)).collect(),
        routes: wanted.routes.iter().map(route).collect(),
    }
}

/// Applies the difference, looking at every prefix of it.
fn follow(held: &Observed, wanted: &Wanted) -> Result<Observed, String> {
    let mut kernel = held.clone();
    let steps = diff(held, wanted, UNDERLAY);
    let stays: Vec<IpNetwork> = wanted
        .routes
        .keys()
        .filter(|subnet| works(held, wanted, **subnet) && !loses_ipv4(held, wanted))
        .copied()
        .collect();
    for (at, step) in steps.iter().enumerate() {
        apply(&mut kernel, step).map_err(|why| format!("step {at} of {steps:?}: {why}"))?;
        for subnet in &stays {
            let still = works(&kernel, wanted, *subnet);
            yes(still, &format!("step {at} of {steps:?} breaks the way to {subnet}"))?;
        }
    }
    Ok(kernel)
}

/// This node's last IPv4 subnet went.
fn loses_ipv4(held: &Observed, wanted: &Wanted) -> bool {
    let had = held.link.iter().any(|link| link.addresses.iter().any(IpNetwork::is_ipv4));
    let has = wanted.link.iter().any(|link| link.addresses.iter().any(IpAddr::is_ipv4));
    had && !has
}

/// The kernel after a clean start with these facts.
fn established(facts: &OverlayContext) -> Observed {
    let mut held = as_held(&Observed::default(), &plan(facts));
    if let Some(link) = &mut held.link {
        link.index = DEVICE;
    }
    held.routes = held
        .routes
        .into_iter()
        .map(|route| ObservedRoute {
            dev: if route.dev == 0 { DEVICE } else { route.dev },
            ..route
        })
        .collect();
    held
}

fn some_ip() -> impl Strategy<Value = String> {
    (3..9_u8).prop_map(|host| format!("172.18.0.{host}"))
}

fn some_subnet() -> impl Strategy<Value = String> {
    let near = |n: u8| [format!("10.0.{n}.0/24"), format!("fd00:10:0:{n}::/64")];
    (0..9_u8, 0..2_usize).prop_map(move |(n, family)| near(n)[family].clone())
}

fn some_peer() -> impl Strategy<Value = Peer> {
    let words = (some_ip(), (3..9_u8), vec(some_subnet(), 0..3), 0..3_u8);
    (select(vec!["n2", "n3", "n4", "n5"]), words).prop_map(|(name, (v4, v6, subnets, vtep))| {
        let words = format!("{v4} fd00:172:18::{v6} {}", subnets.join(" "));
        let vtep = (vtep > 0).then_some(MacAddress([2, 0, 0, 0, v6, vtep]));
        Peer { vtep, ..peer(name, &words) }
    })
}

fn some_facts() -> impl Strategy<Value = OverlayContext> {
    let peers = vec(some_peer(), 0..6);
    let own = btree_set(select(vec!["10.0.1.0/24", "fd00:10:0:1::/64", "10.0.2.0/24"]), 0..3);
    let near = btree_set(some_ip(), 0..6);
    (select(vec![VXLAN, DIRECT, Mode::HostGw]), peers, own, near, any::<bool>()).prop_map(
        |(mode, peers, own, near, six)| {
            let mut facts = facts(mode, peers);
            facts.subnets = own.into_iter().map(net).collect();
            facts.on_link.retain(|ip| ip.is_ipv6());
            facts.on_link.extend(near.iter().map(|text| ip(text)));
            facts.underlay.ips.push(ip("fd00:172:18::2"));
            if six {
                facts.underlay.ips.reverse();
            }
            facts
        },
    )
}

fn some_mac() -> impl Strategy<Value = MacAddress> {
    let named = select(vec!["n1", "n2", "n3"]).prop_map(|node| MacAddress::of_vtep(node, 1));
    prop_oneof![named, Just(MacAddress([0; 6])), Just(MacAddress([2, 0, 0, 0, 3, 1]))]
}

fn some_link() -> impl Strategy<Value = ObservedLink> {
    let addresses = vec![
        "10.0.1.0/32",
        "10.0.1.0/24",
        "10.0.2.0/32",
        "192.168.7.7/24",
        "fd00:10:0:1::/128",
        "fd00:10:0:3::/128",
    ];
    let about = (any::<bool>(), any::<bool>(), select(vec![1450_u32, 1430, 1500]));
    (about, prop::option::of(some_mac()), btree_set(select(addresses), 0..4)).prop_map(
        |((fits, up, mtu), mac, addresses)| ObservedLink {
            index: DEVICE,
            fits,
            mac,
            mtu,
            up,
            addresses: addresses.into_iter().map(net).collect(),
        },
    )
}

fn some_route() -> impl Strategy<Value = ObservedRoute> {
    let dev = select(vec![UNDERLAY, DEVICE, 3]);
    (some_subnet(), dev, prop::option::of(some_ip())).prop_map(|(subnet, dev, gateway)| {
        ObservedRoute { subnet: net(&subnet), dev, gateway: gateway.map(|text| ip(&text)) }
    })
}

/// Whatever another process may have made of it.
fn some_holds() -> impl Strategy<Value = Observed> {
    let host = (2..9_u8).prop_map(|n| ip(&format!("10.0.{n}.0")));
    let to = some_ip().prop_map(|text| ip(&text));
    (
        prop::option::of(some_link()),
        btree_map(host, some_mac(), 0..6),
        btree_set((some_mac(), to), 0..8),
        btree_set(some_route(), 0..8),
    )
        .prop_map(|(link, neighbours, fdb, mut routes)| {
            if link.is_some() {
                return Observed { link, neighbours, fdb, routes };
            }
            routes.retain(|route| route.dev != DEVICE);
            Observed { routes, ..Observed::default() }
        })
}

/// What another process did to a kernel that was right: took some away, added some.
fn disturbed() -> impl Strategy<Value = Observed> {
    (some_facts(), some_holds(), vec(any::<bool>(), 24), any::<bool>()).prop_map(
        |(facts, noise, keep, own_link)| {
            let mut keep = keep.into_iter().cycle();
            let mut kept = move || keep.next().unwrap_or(true);
            let mut held = established(&facts);
            held.neighbours.retain(|_, _| kept());
            held.fdb.retain(|_| kept());
            held.routes.retain(|_| kept());
            if held.link.is_some() || noise.link.is_some() {
                held.neighbours.extend(noise.neighbours);
                held.fdb.extend(noise.fdb);
                held.routes.extend(noise.routes);
                if !own_link || held.link.is_none() {
                    held.link = noise.link.or(held.link);
                }
            }
            held
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Invariants I3, I4 and I5: from anything to anything, each step finds what it needs, what
    /// works goes on working, and in the end everything is as wanted.
    ///
    /// Rows: O-12, O-13, O-14, O-15, O-40, O-62, O-63, O-66
    #[test]
    fn every_prefix_keeps_what_works_and_the_end_is_as_wanted(
        held in prop_oneof![some_holds(), disturbed()],
        facts in some_facts(),
    ) {
        let wanted = plan(&facts);
        let kernel = follow(&held, &wanted).map_err(TestCaseError::fail)?;
        prop_assert_eq!(&kernel, &as_held(&kernel, &wanted));
        prop_assert_eq!(diff(&kernel, &wanted, UNDERLAY), Vec::new());
    }

    /// What planning promises, whatever the records say.
    #[test]
    fn no_route_leads_to_an_own_subnet_or_out_of_the_cluster(facts in some_facts()) {
        let wanted = plan(&facts);
        for (subnet, hop) in &wanted.routes {
            prop_assert!(facts.cluster.iter().any(|cluster| cluster.contains(subnet.network())));
            prop_assert!(!facts.subnets.contains(subnet));
            if *hop == Hop::Tunnel {
                let mac = wanted.neighbours.get(&subnet.network());
                prop_assert!(mac.is_some_and(|mac| wanted.fdb.contains_key(mac)));
            }
        }
        prop_assert_eq!(plan(&facts), wanted);
    }
}

/// The steps from a kernel that is right for `before` to what `after` wants.
#[track_caller]
fn check(before: &OverlayContext, after: &OverlayContext, steps: &[Step]) {
    let held = established(before);
    let wanted = plan(after);
    assert_eq!(diff(&held, &wanted, UNDERLAY), steps);
    follow(&held, &wanted).unwrap();
}

fn two(words: &str) -> OverlayContext {
    facts(VXLAN, vec![peer("n2", words)])
}

/// Row: O-62
#[test]
fn a_peer_with_another_address_is_one_step() {
    let mac = MacAddress::of_vtep("n2", 1);
    check(
        &two("172.18.0.3 10.0.2.0/24"),
        &two("172.18.0.9 10.0.2.0/24"),
        &[Step::PutFdb(mac, ip("172.18.0.9"))],
    );
    let host_gw = |words: &str| facts(Mode::HostGw, vec![peer("n2", words)]);
    check(
        &host_gw("172.18.0.3 10.0.2.0/24"),
        &host_gw("172.18.0.9 10.0.2.0/24"),
        &[Step::PutRoute(net("10.0.2.0/24"), Hop::Direct(ip("172.18.0.9")))],
    );
}

/// Row: O-63
#[test]
fn a_peer_with_another_vxlan_address_gets_the_new_way_before_the_old_one_goes() {
    let n2 = peer("n2", "172.18.0.3 10.0.2.0/24");
    let vtep = MacAddress([2, 0, 0, 0, 0, 9]);
    check(
        &facts(VXLAN, vec![n2.clone()]),
        &facts(VXLAN, vec![Peer { vtep: Some(vtep), ..n2 }]),
        &[
            Step::PutFdb(vtep, ip("172.18.0.3")),
            Step::PutNeighbour(ip("10.0.2.0"), vtep),
            Step::RemoveFdb(MacAddress::of_vtep("n2", 1), ip("172.18.0.3")),
        ],
    );
}

/// Rows: O-06, O-15
#[test]
fn a_peer_that_went_is_taken_away_from_the_route_down() {
    let (route, mac) = (net("10.0.2.0/24"), MacAddress::of_vtep("n2", 1));
    check(
        &two("172.18.0.3 10.0.2.0/24"),
        &facts(VXLAN, Vec::new()),
        &[
            Step::RemoveRoute(ObservedRoute {
                subnet: route,
                dev: DEVICE,
                gateway: Some(ip("10.0.2.0")),
            }),
            Step::RemoveNeighbour(ip("10.0.2.0")),
            Step::RemoveFdb(mac, ip("172.18.0.3")),
        ],
    );
}

/// Row: O-13
#[test]
fn a_device_that_is_gone_comes_back_with_all_that_was_on_it() {
    let wanted = plan(&two("172.18.0.3 10.0.2.0/24"));
    let mac = MacAddress::of_vtep("n2", 1);
    let steps = [
        Step::AddLink(wanted.link.clone().unwrap()),
        Step::SetLink { mac: None, mtu: None, up: true },
        Step::AddAddress(ip("10.0.1.0")),
        Step::PutFdb(mac, ip("172.18.0.3")),
        Step::PutNeighbour(ip("10.0.2.0"), mac),
        Step::PutRoute(net("10.0.2.0/24"), Hop::Tunnel),
    ];
    assert_eq!(diff(&Observed::default(), &wanted, UNDERLAY), steps);
}

/// Rows: O-05, O-09
#[test]
fn address_and_mtu_that_somebody_changed_are_set_again_and_neighbours_with_them() {
    let facts = two("172.18.0.3 10.0.2.0/24");
    let (mut held, wanted) = (established(&facts), plan(&facts));
    let link = held.link.as_mut().unwrap();
    (link.mac, link.mtu) = (Some(MacAddress([2; 6])), 1500);
    let steps = [
        Step::SetLink { mac: Some(MacAddress::of_vtep("n1", 1)), mtu: Some(1450), up: false },
        Step::PutNeighbour(ip("10.0.2.0"), MacAddress::of_vtep("n2", 1)),
    ];
    assert_eq!(diff(&held, &wanted, UNDERLAY), steps);
}

/// Row: O-12
#[test]
fn a_device_of_other_attributes_is_made_anew() {
    let facts = two("172.18.0.3 10.0.2.0/24");
    let (mut held, wanted) = (established(&facts), plan(&facts));
    held.link.as_mut().unwrap().fits = false;
    let steps = diff(&held, &wanted, UNDERLAY);
    assert_eq!(steps[0], Step::RemoveLink { index: DEVICE });
    assert_eq!(steps[1..], diff(&Observed::default(), &wanted, UNDERLAY));
}

/// Rows: O-20, O-66
#[test]
fn from_tunnels_to_plain_routes_no_subnet_is_without_a_route() {
    let peers = vec![peer("n2", "172.18.0.3 10.0.2.0/24")];
    check(
        &facts(VXLAN, peers.clone()),
        &facts(Mode::HostGw, peers),
        &[
            Step::PutRoute(net("10.0.2.0/24"), Hop::Direct(ip("172.18.0.3"))),
            Step::RemoveLink { index: DEVICE },
        ],
    );
}
