use std::sync::LazyLock;

use super::*;
use crate::state::{ClusterState, OverlayState};
use crate::testing::{ip, state};

const PEERS: &str = "/etc/peers.toml";

struct World {
    state: State,
    network: Network,
    _folder: tempfile::TempDir,
}

fn net(text: &str) -> IpNetwork {
    text.parse().expect("a network")
}

fn before() -> &'static [IpNetwork] {
    static BEFORE: LazyLock<[IpNetwork; 1]> = LazyLock::new(|| [net("10.0.9.0/24")]);
    &*BEFORE
}

fn entry(name: &str, address: &str, subnet: &str) -> Entry {
    Entry { name: name.to_owned(), ips: vec![ip(address)], subnets: vec![net(subnet)] }
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { state: state(folder.path()), network: Network::default(), _folder: folder }
    }

    fn cluster() -> Self {
        let mut world = Self::new();
        world.state.cluster = Some(ClusterState { revision: 1, ..ClusterState::new(Ok(())) });
        world
    }

    fn vxlan() -> Self {
        let mut world = Self::new();
        world.state.settings.overlay = OverlayKind::Vxlan;
        world.state.settings.peers_file = Some(PEERS.into());
        world
    }
}

fn context(state: &State) -> NetworkContext<'_> {
    NetworkContext { state, refused: None, has_viewed: false, previous: before() }
}

fn subnets(network: &Network, context: NetworkContext<'_>) -> Vec<IpNetwork> {
    own_subnets(&network.parts(context), context.previous)
}

#[test]
fn subnets_are_those_of_before_until_the_store_gives_some() {
    let mut world = World::cluster();
    let Some((SubnetSource::Before, None)) = world.network.node_file(context(&world.state)) else {
        panic!("not known yet")
    };
    assert_eq!(subnets(&world.network, context(&world.state)), [net("10.0.9.0/24")]);
    let held = Subnets::Held(vec![net("10.0.1.0/24")]);
    world.state.cluster.as_mut().expect("a cluster").subnets = Some(held);
    let wanted = world.network.node_file(context(&world.state)).expect("other ones");
    assert_eq!(wanted, (SubnetSource::Given(vec![net("10.0.1.0/24")]), None));
    // What could not be written is wanted again.
    assert!(world.network.node_file(context(&world.state)).is_some());
    world.network.on_node_file(wanted);
    assert_eq!(world.network.node_file(context(&world.state)), None);
    let refused = NetworkContext { refused: Some("nobody chose it"), ..context(&world.state) };
    let none = SubnetSource::Refused("nobody chose it".to_owned());
    assert_eq!(world.network.node_file(refused), Some((none, None)));
    assert!(subnets(&world.network, refused).is_empty());
}

#[test]
fn the_cluster_is_told_the_way_once_it_is_known_and_when_it_changes() {
    let mut world = World::cluster();
    world.state.settings.overlay = OverlayKind::Vxlan;
    world.network = Network::new(true);
    let early = context(&world.state);
    assert_eq!(world.network.reach(early), None, "the overlay has not looked");
    world.state.overlay = Some(OverlayState { mtu: 1450, ..OverlayState::default() });
    let looked = context(&world.state);
    let refused = NetworkContext { refused: Some("nobody chose it"), ..looked };
    assert_eq!(world.network.reach(refused), None, "whoever says it is given a subnet");
    let reach = world.network.reach(looked).expect("the first word");
    assert_eq!((&reach.ips, reach.mtu), (&vec![ip("192.0.2.1")], Some(1450)));
    assert_eq!(reach.vtep, Some(MacAddress::of_vtep("n1", world.state.settings.vxlan_id)));
    assert_eq!(world.network.reach(looked), None, "it is as it was told");
    world.state.node.ips = vec![ip("192.0.2.9")];
    let reach = world.network.reach(context(&world.state)).expect("another address");
    assert_eq!(reach.ips, [ip("192.0.2.9")]);
}

#[test]
fn a_wrong_peers_file_changes_nothing() {
    let mut world = World::vxlan();
    let wrong = || {
        let text = "[[node]]\nname = 1\n";
        peers::parse(PEERS.as_ref(), text, &[]).map(drop).expect_err("wrong");
        peers::parse(PEERS.as_ref(), text, &[])
    };
    let read = world.network.on_peers(PEERS.as_ref(), wrong(), &world.state);
    assert!(read.peers.is_none());
    assert!(read.problem.expect("wrong").ends_with("what there is of an overlay stays"));
    let target = world.network.overlay_target(context(&world.state)).expect("the first ones");
    assert!(!target.complete, "nothing is removed");

    let both =
        vec![entry("n1", "192.0.2.7", "10.0.1.0/24"), entry("n2", "192.0.2.2", "10.0.2.0/24")];
    let read = world.network.on_peers(PEERS.as_ref(), Ok(both), &world.state);
    assert_eq!(read.problem, None);
    world.state.peers = read.peers.expect("a good file");
    assert_eq!(world.state.peers.keys().collect::<Vec<_>>(), ["n2"]);
    assert!(world.state.peers["n2"].vtep.is_some());
    let target = world.network.overlay_target(context(&world.state)).expect("other ones");
    assert!(target.complete);
    assert_eq!((target.ips, target.subnets), (vec![ip("192.0.2.7")], vec![net("10.0.1.0/24")]));
    assert_eq!(world.network.overlay_target(context(&world.state)), None, "told once");

    let read = world.network.on_peers(PEERS.as_ref(), wrong(), &world.state);
    assert!(read.problem.expect("wrong").ends_with("its last content counts"));
    assert_eq!(world.network.own_ips(&world.state), [ip("192.0.2.7")]);
    // This node is missing from it: what it was counts.
    let others = vec![entry("n2", "192.0.2.2", "10.0.2.0/24")];
    let read = world.network.on_peers(PEERS.as_ref(), Ok(others), &world.state);
    assert!(read.problem.expect("missing").contains("--node-name"));
    assert_eq!(world.network.own_ips(&world.state), [ip("192.0.2.7")]);
}

#[test]
fn the_watch_of_other_rules_is_told_addresses_once() {
    let mut world = World::new();
    assert_eq!(world.network.followed(&world.state), Some(vec![ip("192.0.2.1")]));
    assert_eq!(world.network.followed(&world.state), None);
}

#[test]
fn problems_of_nodes_that_have_a_moment_are_none_yet() {
    let mut world = World::new();
    assert_eq!(problems(&world.state), None);
    let both = ["n2", "n3"].map(|name| (name.to_owned(), "no route".to_owned()));
    world.state.overlay = Some(OverlayState {
        problems: both.into(),
        failure: Some("no device".to_owned()),
        ..OverlayState::default()
    });
    world.state.waiting.insert("n2".to_owned(), Some(crate::clock::now()));
    world.state.waiting.insert("n3".to_owned(), None);
    assert_eq!(problems(&world.state).expect("an overlay"), ["no device", "node n3: no route"]);
}
