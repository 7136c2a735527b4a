//! From facts to the wanted state of the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use causeway_model::{MacAddress, Peer};
use ipnetwork::IpNetwork;

use crate::{Hop, Mode, OverlayContext, VxlanLink, Wanted, device_name};

/// Bytes that vxlan puts before a frame: Ethernet 14, IPv4 20, UDP 8, vxlan 8.
const OVERHEAD_4: u32 = 50;
/// The same with 40 of IPv6.
const OVERHEAD_6: u32 = 70;

/// What the kernel is to hold. Of nodes that claim one thing, those that live come before those
/// that do not respond, then the older one has it, then the first by name.
pub fn plan(facts: &OverlayContext) -> Wanted {
    let mut peers: Vec<&Peer> = facts.peers.iter().filter(|peer| peer.name != facts.node).collect();
    peers.sort_by_key(|peer| rank(peer));
    let mut planner = Planner::new(facts, &peers);
    for peer in peers {
        planner.add(peer);
    }
    planner.wanted
}

struct Planner<'a> {
    facts: &'a OverlayContext,
    /// Address to the nodes that publish it.
    claims: BTreeMap<IpAddr, Vec<&'a Peer>>,
    /// Subnets given so far, with the nodes that have them. Only those of this node overlap. A writer of
    /// the store decides how many there are, so they are looked up and not compared one by one.
    taken: BTreeMap<IpNetwork, &'a str>,
    /// VTEP addresses given so far.
    vteps: BTreeMap<MacAddress, &'a str>,
    wanted: Wanted,
}

impl<'a> Planner<'a> {
    fn new(facts: &'a OverlayContext, peers: &[&'a Peer]) -> Self {
        let mut claims: BTreeMap<IpAddr, Vec<&Peer>> = BTreeMap::new();
        for peer in peers {
            for ip in peer.ips.iter().collect::<BTreeSet<_>>() {
                claims.entry(*ip).or_default().push(peer);
            }
        }
        let link = link(facts);
        let mtu = link.as_ref().map_or(facts.underlay.mtu, |link| link.mtu);
        let mut planner = Self {
            facts,
            claims,
            taken: facts.subnets.iter().map(|net| (network(*net), facts.node.as_str())).collect(),
            vteps: link.iter().map(|link| (link.mac, facts.node.as_str())).collect(),
            wanted: Wanted { link, mtu, ..Wanted::default() },
        };
        planner.judge_mtu();
        planner
    }

    /// IPv6 leaves a device of less than 1280 bytes.
    fn judge_mtu(&mut self) {
        let mtu = self.wanted.mtu;
        let least = if self.facts.subnets.iter().any(IpNetwork::is_ipv6) { 1280 } else { 576 };
        if mtu < least {
            let why = format!(
                "the MTU left for containers, {mtu} bytes, is below {least}; raise the MTU of the \
                 device between the nodes, which is {}",
                self.facts.underlay.mtu
            );
            self.problem(&self.facts.node, why);
        }
    }

    fn problem(&mut self, name: &str, why: String) {
        let text = self.wanted.problems.entry(name.to_owned()).or_default();
        if text.contains(&why) {
            return;
        }
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(&why);
    }

    fn add(&mut self, peer: &'a Peer) {
        let ips = self.addresses(peer);
        if let Some(link) = &self.wanted.link {
            let like = |ip: &&IpAddr| ip.is_ipv4() == link.local.is_ipv4();
            self.wanted.sources.extend(ips.iter().find(like));
        }
        if peer.subnets.is_empty() {
            let why = format!(
                "waiting for node {} to publish its subnet; run `causeway status` there to see why \
                 it has none",
                peer.name
            );
            self.problem(&peer.name, why);
        }
        if ips.is_empty() {
            return;
        }
        for subnet in peer.subnets.iter().copied().map(network) {
            match self.refusal(peer, subnet) {
                Some(why) => self.problem(&peer.name, why),
                None => self.connect(peer, &ips, subnet),
            }
        }
    }

    /// The addresses by which the peer can be asked for, after saying what is wrong with others.
    fn addresses(&mut self, peer: &Peer) -> Vec<IpAddr> {
        if peer.ips.is_empty() {
            let why = format!("waiting for node {} to publish its address", peer.name);
            self.problem(&peer.name, why);
        }
        let mut good = Vec::new();
        for ip in &peer.ips {
            match self.wrong_address(peer, *ip) {
                Some(why) => self.problem(&peer.name, why),
                None => good.push(*ip),
            }
            if let Some(why) = self.shared_address(peer, *ip) {
                self.problem(&peer.name, why);
            }
        }
        good
    }

    fn wrong_address(&self, peer: &Peer, ip: IpAddr) -> Option<String> {
        if self.facts.underlay.ips.contains(&ip) {
            return Some(format!(
                "its address {ip} is also the address of this node, {}; give each node its own \
                 with --node-ip",
                self.facts.node
            ));
        }
        if let Some((subnet, name)) = self.met(IpNetwork::from(ip)) {
            return Some(format!(
                "its address {ip} is inside {subnet} of node {name}; give {} another one with \
                 --node-ip",
                peer.name
            ));
        }
        let one_host = match ip {
            IpAddr::V4(ip) => !ip.is_broadcast() && !ip.is_link_local(),
            IpAddr::V6(ip) => !ip.is_unicast_link_local() && ip.to_ipv4_mapped().is_none(),
        };
        let usable = one_host && !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast();
        (!usable).then(|| {
            format!(
                "its address {ip} cannot be reached from other nodes; start causewayd on {} with \
                 --node-ip",
                peer.name
            )
        })
    }

    /// Row O-48. No word if all the others that publish the address do not respond: they left
    /// it.
    fn shared_address(&self, peer: &Peer, ip: IpAddr) -> Option<String> {
        let others = self.claims.get(&ip)?.iter().filter(|other| other.name != peer.name);
        let (live, gone): (Vec<&Peer>, Vec<&Peer>) =
            others.copied().partition(|other| other.record.is_some());
        let of = |peers: &[&Peer]| {
            let names: Vec<&str> = peers.iter().map(|peer| peer.name.as_str()).collect();
            names.join(", ")
        };
        if peer.record.is_none() && !live.is_empty() {
            return Some(format!(
                "its address {ip} has moved to node {}, and {} is not responding; start causewayd \
                 there with its own --node-ip",
                of(&live),
                peer.name
            ));
        }
        let rivals = if peer.record.is_some() { live } else { gone };
        (!rivals.is_empty()).then(|| {
            format!(
                "its address {ip} is also the address of node {}; give each node its own with \
                 --node-ip",
                of(&rivals)
            )
        })
    }

    /// Why no route leads to the subnet.
    fn refusal(&self, peer: &Peer, subnet: IpNetwork) -> Option<String> {
        if !self.facts.cluster.iter().any(|cluster| inside(subnet, network(*cluster))) {
            let all: Vec<String> = self.facts.cluster.iter().map(ToString::to_string).collect();
            return Some(format!(
                "its subnet {subnet} is not inside the cluster network {}; give all nodes the same \
                 --cluster-cidr",
                all.join(",")
            ));
        }
        if let Some((other, name)) = self.met(subnet) {
            let who = if name == self.facts.node { "this node, " } else { "node " };
            return Some(format!(
                "its subnet {subnet} overlaps {other} of {who}{name}; give {} another one with \
                 --node-subnet",
                peer.name
            ));
        }
        // What a newer one says of its address takes no subnet from an older one.
        let older = |claims: &Vec<&Peer>| claims.iter().any(|other| other.since <= peer.since);
        let within = self.claims.range(subnet.network()..=last(subnet));
        let claimed = within.filter(|(_, claims)| older(claims)).map(|(ip, _)| ip);
        let nodes = self.facts.underlay.ips.iter().chain(claimed);
        nodes.copied().find(|ip| subnet.contains(*ip)).map(|ip| {
            format!(
                "its subnet {subnet} contains {ip}, the address of a node, so the tunnel would be \
                 routed through itself; choose a --cluster-cidr without node addresses"
            )
        })
    }

    /// What was given so far and overlaps it: around it or inside.
    fn met(&self, subnet: IpNetwork) -> Option<(IpNetwork, &'a str)> {
        let around = (0..=subnet.prefix()).filter_map(|length| {
            let around = network(IpNetwork::new(subnet.ip(), length).ok()?);
            self.taken.get_key_value(&around)
        });
        let from = IpNetwork::new(subnet.network(), 0).ok()?;
        let to = IpNetwork::from(last(subnet));
        let found = around.chain(self.taken.range(from..=to)).next();
        found.map(|(subnet, name)| (*subnet, *name))
    }

    fn connect(&mut self, peer: &'a Peer, ips: &[IpAddr], subnet: IpNetwork) {
        let hop = match self.facts.mode {
            Mode::HostGw => self.next_hop(peer, ips, subnet).map(Hop::Direct),
            Mode::Vxlan { direct, id, .. } => {
                let near = direct.then(|| self.near(peer, ips, subnet)).flatten();
                match near {
                    Some(ip) => Ok(Hop::Direct(ip)),
                    None => self.tunnel(peer, ips, (subnet, id)).map(|()| Hop::Tunnel),
                }
            }
        };
        match hop {
            Ok(hop) => {
                self.taken.insert(subnet, &peer.name);
                self.wanted.routes.insert(subnet, hop);
            }
            Err(why) => self.problem(&peer.name, why),
        }
    }

    /// The peer's address for a plain route (row O-08), if nobody else has a claim on it: a
    /// tunnel's packets are told apart by their VTEP address, plain ones are not.
    fn near(&self, peer: &Peer, ips: &[IpAddr], subnet: IpNetwork) -> Option<IpAddr> {
        let ip = self.next_hop(peer, ips, subnet).ok()?;
        self.shared_address(peer, ip).is_none().then_some(ip)
    }

    /// Row O-20.
    fn next_hop(&self, peer: &Peer, ips: &[IpAddr], subnet: IpNetwork) -> Result<IpAddr, String> {
        let family = family(subnet.ip());
        let same = |ip: &&IpAddr| ip.is_ipv4() == subnet.is_ipv4();
        if !self.facts.underlay.ips.iter().any(|ip| same(&ip)) {
            return Err(format!(
                "the route to its subnet {subnet} needs an {family} address of this node; set one \
                 with --node-ip, or use --overlay vxlan"
            ));
        }
        let Some(ip) = ips.iter().find(same) else {
            return Err(format!(
                "the route to its subnet {subnet} needs an {family} address of node {}, which has \
                 none; set one with --node-ip, or use --overlay vxlan",
                peer.name
            ));
        };
        if !self.facts.on_link.contains(ip) {
            return Err(format!(
                "its address {ip} is behind a gateway, and host-gw reaches only nodes on the same \
                 link; use --overlay vxlan --direct-routing"
            ));
        }
        let alive = |other: &&&Peer| other.name != peer.name && other.record.is_some();
        let live = self.claims.get(ip).and_then(|claims| claims.iter().find(alive));
        match live {
            Some(other) if peer.record.is_none() => {
                Err(format!("no route leads there; node {} would get its packets", other.name))
            }
            _ => Ok(*ip),
        }
    }

    /// Neighbour and FDB entry of a peer behind the tunnel (row O-06).
    fn tunnel(
        &mut self,
        peer: &'a Peer,
        ips: &[IpAddr],
        (subnet, id): (IpNetwork, u32),
    ) -> Result<(), String> {
        let Some(local) = self.facts.underlay.ips.first() else {
            return Err("this node has no address; set one with --node-ip".to_owned());
        };
        let Some(ip) = ips.iter().find(|ip| ip.is_ipv4() == local.is_ipv4()) else {
            return Err(format!(
                "tunnels of this node use {}, and node {} has no such address; set one with \
                 --node-ip",
                family(*local),
                peer.name
            ));
        };
        let vtep = peer.vtep.unwrap_or_else(|| MacAddress::of_vtep(&peer.name, id));
        let [first, ..] = vtep.0;
        if first & 1 == 1 || vtep.0 == [0; 6] {
            return Err(format!(
                "its vxlan device has the address {vtep}, which is not a unicast MAC address; \
                 restart causewayd on {}",
                peer.name
            ));
        }
        match self.vteps.get(&vtep) {
            Some(name) if *name != peer.name => Err(format!(
                "its vxlan device has the same MAC address {vtep} as that of node {name}; give one \
                 of the nodes another --node-name"
            )),
            _ => {
                self.vteps.insert(vtep, &peer.name);
                self.wanted.neighbours.insert(subnet.network(), vtep);
                self.wanted.fdb.insert(vtep, *ip);
                Ok(())
            }
        }
    }
}

fn link(facts: &OverlayContext) -> Option<VxlanLink> {
    let Mode::Vxlan { id, port, .. } = facts.mode else { return None };
    let local = *facts.underlay.ips.first()?;
    let overhead = if local.is_ipv4() { OVERHEAD_4 } else { OVERHEAD_6 };
    Some(VxlanLink {
        name: device_name(id),
        id,
        port,
        dev: facts.underlay.bound.then_some(facts.underlay.index),
        local,
        mac: MacAddress::of_vtep(&facts.node, id),
        mtu: facts.underlay.mtu.saturating_sub(overhead),
        addresses: facts.subnets.iter().map(IpNetwork::network).collect(),
    })
}

/// Order in which peers get what they claim.
fn rank(peer: &Peer) -> (bool, i64, &str) {
    (peer.record.is_none(), peer.since, &peer.name)
}

/// Without host bits.
fn network(net: IpNetwork) -> IpNetwork {
    IpNetwork::new(net.network(), net.prefix()).unwrap_or(net)
}

fn inside(inner: IpNetwork, outer: IpNetwork) -> bool {
    outer.prefix() <= inner.prefix() && outer.contains(inner.network())
}

/// Its last address.
fn last(net: IpNetwork) -> IpAddr {
    match net {
        IpNetwork::V4(net) => net.broadcast().into(),
        IpNetwork::V6(net) => net.broadcast().into(),
    }
}

fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

#[cfg(test)]
pub(crate) mod tests;
