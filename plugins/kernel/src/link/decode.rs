//! `RTM_NEWLINK` messages as [`Link`] values.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's enums are open and grow with the kernel"
)]

use std::net::IpAddr;

use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoVxlan, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};

use super::{Link, LinkKind, Mac, PortState, VxlanAttributes};

/// The link a message describes. Attributes that are not ours to know are skipped.
pub(super) fn link(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        resolves: !flags.intersects(LinkFlags::Noarp | LinkFlags::Loopback),
        promisc: flags.contains(LinkFlags::Promisc),
        kind: LinkKind::Other(String::new()),
        master: None,
        peer_index: None,
        alias: None,
        port: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => {
                link.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac);
            }
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Promiscuity(count) => link.promisc |= *count > 0,
            LinkAttribute::Controller(index) => link.master = Some(*index).filter(|i| *i != 0),
            LinkAttribute::Link(index) => link.peer_index = Some(*index).filter(|i| *i != 0),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = kind(infos);
                link.port = port(infos);
            }
            _ => {}
        }
    }
    link
}

fn kind(infos: &[LinkInfo]) -> LinkKind {
    let name = infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    });
    let data = infos.iter().find_map(|info| match info {
        LinkInfo::Data(data) => Some(data),
        _ => None,
    });
    match (name, data) {
        (None, _) => LinkKind::Other(String::new()),
        (Some(InfoKind::Veth), _) => LinkKind::Veth,
        (Some(InfoKind::Bridge), Some(InfoData::Bridge(data))) => bridge(data),
        (Some(InfoKind::Bridge), _) => bridge(&[]),
        (Some(InfoKind::Vxlan), Some(InfoData::Vxlan(data))) => LinkKind::Vxlan(vxlan(data)),
        (Some(other), _) => LinkKind::Other(other.to_string()),
    }
}

fn bridge(data: &[InfoBridge]) -> LinkKind {
    let mut filtering = false;
    let mut pvid = 0;
    for attribute in data {
        match attribute {
            InfoBridge::VlanFiltering(on) => filtering = *on,
            InfoBridge::VlanDefaultPvid(id) => pvid = *id,
            _ => {}
        }
    }
    LinkKind::Bridge { vlan_filtering: filtering, default_pvid: pvid }
}

fn vxlan(data: &[InfoVxlan]) -> VxlanAttributes {
    let mut vxlan = VxlanAttributes {
        id: 0,
        group: None,
        dev: None,
        local: None,
        port: 0,
        ttl: 0,
        learning: false,
        strange: false,
    };
    for attribute in data {
        match attribute {
            InfoVxlan::Id(id) => vxlan.id = *id,
            InfoVxlan::Group(address) => vxlan.group = Some(IpAddr::V4(*address)),
            InfoVxlan::Group6(address) => vxlan.group = Some(IpAddr::V6(*address)),
            InfoVxlan::Link(index) => vxlan.dev = Some(*index).filter(|i| *i != 0),
            InfoVxlan::Local(address) => vxlan.local = Some(IpAddr::V4(*address)),
            InfoVxlan::Local6(address) => vxlan.local = Some(IpAddr::V6(*address)),
            InfoVxlan::Port(port) => vxlan.port = *port,
            InfoVxlan::Ttl(ttl) => vxlan.ttl = *ttl,
            InfoVxlan::Learning(on) => vxlan.learning = *on,
            InfoVxlan::Proxy(on)
            | InfoVxlan::Rsc(on)
            | InfoVxlan::L2Miss(on)
            | InfoVxlan::L3Miss(on)
            | InfoVxlan::CollectMetadata(on) => vxlan.strange |= *on,
            InfoVxlan::Gbp | InfoVxlan::Gpe => vxlan.strange = true,
            _ => {}
        }
    }
    vxlan
}

fn port(infos: &[LinkInfo]) -> Option<PortState> {
    let attributes = infos.iter().find_map(|info| match info {
        LinkInfo::PortData(InfoPortData::BridgePort(attributes)) => Some(attributes),
        _ => None,
    })?;
    let mut port = PortState { state: 0, hairpin: false, isolated: false };
    for attribute in attributes {
        match attribute {
            InfoBridgePort::State(state) => port.state = u8::from(*state),
            InfoBridgePort::HairpinMode(on) => port.hairpin = *on,
            InfoBridgePort::Isolated(on) => port.isolated = *on,
            _ => {}
        }
    }
    Some(port)
}
