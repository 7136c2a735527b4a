//! How packets reach the containers of other nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use causeway_model::Peer;
use causeway_ruleset::trace::Outcome;
use ipnetwork::IpNetwork;

use crate::config::OverlayKind;
use crate::state::State;

/// A sentence for each other node that a packet may go to.
pub(super) fn steps(state: &State, destination: IpAddr, outcome: &Outcome) -> Vec<String> {
    let addresses: BTreeSet<IpAddr> = match outcome {
        Outcome::Pass => [destination].into(),
        Outcome::Endpoints(choices) => choices.iter().map(|choice| choice.address).collect(),
        Outcome::Reject | Outcome::Drop => BTreeSet::new(),
    };
    let mut by_subnet: BTreeMap<(&str, IpNetwork), Vec<IpAddr>> = BTreeMap::new();
    for address in addresses {
        if let Some((peer, subnet)) = whose(state, address) {
            by_subnet.entry((&peer.name, subnet)).or_default().push(address);
        }
    }
    let sentence = |((name, subnet), addresses): (&(&str, IpNetwork), &Vec<IpAddr>)| {
        let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let way = way(state, name, addresses[0]);
        let verb = if all.len() == 1 { "is" } else { "are" };
        format!("{} {verb} in {subnet} of node {name}: {way}.", all.join(", "))
    };
    by_subnet.iter().map(sentence).collect()
}

/// The other node that has an address, and its subnet.
fn whose(state: &State, address: IpAddr) -> Option<(&Peer, IpNetwork)> {
    let others = state.peers.values().filter(|peer| peer.name != state.node.name);
    others
        .flat_map(|peer| peer.subnets.iter().map(move |subnet| (peer, *subnet)))
        .find(|(_, subnet)| subnet.contains(address))
}

fn way(state: &State, name: &str, to: IpAddr) -> String {
    let problem = state.overlay.as_ref().and_then(|overlay| overlay.problems.get(name));
    if let Some(problem) = problem {
        return format!("unreachable: {problem}");
    }
    let settings = &state.settings;
    let of_family = |like: Option<&IpAddr>| {
        let ips = state.peers.get(name).map(|peer| peer.ips.as_slice()).unwrap_or_default();
        let like = like.map(IpAddr::is_ipv4);
        let fitting = ips.iter().find(|ip| like.is_none_or(|v4| ip.is_ipv4() == v4));
        fitting.map_or("its address".to_owned(), ToString::to_string)
    };
    let device = causeway_overlay::device_name(settings.vxlan_id);
    match (settings.overlay, settings.direct_routing) {
        (OverlayKind::None, _) => {
            let ip = of_family(Some(&to));
            format!("by routes of the host, which must lead to {ip} (--overlay none)")
        }
        (OverlayKind::HostGw, _) => format!("by a plain route via {}", of_family(Some(&to))),
        (OverlayKind::Vxlan, false) => {
            format!("encapsulated by {device} to {}", of_family(state.node.ips.first()))
        }
        (OverlayKind::Vxlan, true) => format!(
            "by a plain route via {} if that is on a link of this node, otherwise encapsulated by \
             {device} to {}",
            of_family(Some(&to)),
            of_family(state.node.ips.first())
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    fn check(prepare: impl FnOnce(&mut State), to: &str, wanted: &[&str]) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut state = state(folder.path());
        let peer = |number: u8| Peer {
            name: format!("n{number}"),
            ips: vec![ip(&format!("192.0.2.{number}")), ip(&format!("2001:db8::{number}"))],
            subnets: vec![
                format!("10.0.{number}.0/24").parse().expect("a network"),
                format!("fd00:10:{number}::/64").parse().expect("a network"),
            ],
            vtep: None,
            mtu: None,
            record: None,
            since: 0,
        };
        state.peers = [1, 2].map(|number| (format!("n{number}"), peer(number))).into();
        state.settings.overlay = OverlayKind::Vxlan;
        prepare(&mut state);
        assert_eq!(steps(&state, ip(to), &Outcome::Pass), wanted);
        assert_eq!(steps(&state, ip(to), &Outcome::Drop), [""; 0]);
    }

    #[test]
    fn a_packet_for_another_node_is_said_to_leave_as_the_overlay_has_it() {
        let plain = |_: &mut State| {};
        let via = "10.0.2.7 is in 10.0.2.0/24 of node n2: encapsulated by cwov1 to 192.0.2.2.";
        check(plain, "10.0.2.7", &[via]);
        let six =
            "fd00:10:2::7 is in fd00:10:2::/64 of node n2: encapsulated by cwov1 to 192.0.2.2.";
        check(plain, "fd00:10:2::7", &[six]);
        check(plain, "10.0.1.7", &[]);
        check(plain, "198.51.100.7", &[]);
        let host_gw = |state: &mut State| state.settings.overlay = OverlayKind::HostGw;
        let via = "fd00:10:2::7 is in fd00:10:2::/64 of node n2: by a plain route via 2001:db8::2.";
        check(host_gw, "fd00:10:2::7", &[via]);
        let none = |state: &mut State| state.settings.overlay = OverlayKind::None;
        let via = "10.0.2.7 is in 10.0.2.0/24 of node n2: by routes of the host, which must lead \
                   to 192.0.2.2 (--overlay none).";
        check(none, "10.0.2.7", &[via]);
        let wrong = |state: &mut State| {
            let problems = [("n2".to_owned(), "no address".to_owned())].into();
            let overlay = crate::state::OverlayState::default();
            state.overlay = Some(crate::state::OverlayState { problems, ..overlay });
        };
        let via = "10.0.2.7 is in 10.0.2.0/24 of node n2: unreachable: no address.";
        check(wrong, "10.0.2.7", &[via]);
    }
}
