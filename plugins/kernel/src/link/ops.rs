//! Reading, making, changing and deleting links.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth,
    InfoVxlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};

use super::{
    BridgeSpec, Link, LinkChange, LinkKind, Mac, PortChange, VethSpec, VxlanAttributes, decode,
};
use crate::{Error, Netlink, Result};

impl Netlink {
    /// The link of that name, or `None`. One request, no dump.
    ///
    /// # Errors
    /// Anything but its absence.
    pub fn link(&self, name: &str) -> Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.get_link(format!("read link {name}"), message)
    }

    /// The link of that index, or `None`.
    ///
    /// # Errors
    /// Anything but its absence.
    pub fn link_by_index(&self, index: u32) -> Result<Option<Link>> {
        self.get_link(format!("read link {index}"), by_index(index))
    }

    /// All links (a dump: for STATUS, repair and conflict search only).
    ///
    /// # Errors
    /// The dump stayed interrupted.
    pub fn links(&self) -> Result<Vec<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let answers = self.dump("list links", &RouteNetlinkMessage::GetLink(message))?;
        Ok(answers.iter().filter_map(as_link).collect())
    }

    /// The ports of the bridge of index `master` (a dump that the kernel filters).
    ///
    /// # Errors
    /// The dump stayed interrupted.
    pub fn ports(&self, master: u32) -> Result<Vec<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        message.attributes.push(LinkAttribute::Controller(master));
        let action = format!("list ports of link {master}");
        let answers = self.dump(&action, &RouteNetlinkMessage::GetLink(message))?;
        // Old kernels do not filter.
        let ports = answers.iter().filter_map(as_link);
        Ok(ports.filter(|link| link.master == Some(master)).collect())
    }

    /// Creates a bridge and returns it. `EEXIST` if the name is taken, by whatever.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn add_bridge(&self, spec: &BridgeSpec<'_>) -> Result<Link> {
        let mut info = vec![LinkInfo::Kind(InfoKind::Bridge)];
        if spec.vlan_filtering {
            info.push(LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::VlanFiltering(true)])));
        }
        let mut message = named(spec.name, spec.mtu, info);
        if let Some(mac) = spec.mac {
            message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
        }
        self.create(format!("create bridge {}", spec.name), spec.name, message)
    }

    /// Creates a veth pair; see [`VethSpec`].
    ///
    /// # Errors
    /// `EEXIST` if the host name or the name inside the namespace is taken.
    pub fn add_veth(&self, spec: &VethSpec<'_>) -> Result<()> {
        let action = format!("create veth {} with peer {}", spec.name, spec.peer_name);
        let message = veth_message(spec);
        self.change(&action, &RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)?;
        if spec.alias.is_empty() {
            return Ok(());
        }
        // The kernel ignores IFLA_IFALIAS while it creates a link (rtnl_create_link).
        let done = self.set_alias(spec.name, spec.alias);
        if done.is_err() {
            self.delete_by_name(spec.name)?;
        }
        done
    }

    /// Sets the alias of the link called `name`; empty removes it.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn set_alias(&self, name: &str, alias: &str) -> Result<()> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
        self.change(&format!("set the alias of {name}"), &RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Creates a vxlan device, down, optionally already a port of `master`.
    ///
    /// # Errors
    /// `EEXIST`: name taken, or id and port in use by another vxlan of the namespace.
    pub fn add_vxlan(
        &self,
        name: &str,
        mtu: Option<u32>,
        master: Option<u32>,
        attributes: &VxlanAttributes,
    ) -> Result<Link> {
        let data = LinkInfo::Data(InfoData::Vxlan(vxlan_data(attributes)));
        let mut message = named(name, mtu, vec![LinkInfo::Kind(InfoKind::Vxlan), data]);
        message.attributes.extend(master.map(LinkAttribute::Controller));
        self.create(format!("create vxlan {name} (id {})", attributes.id), name, message)
    }

    /// Creates a vxlan device, down, with its address: set from the start, so that nobody who gives
    /// addresses to new devices (systemd's `MACAddressPolicy`) sees a random one.
    ///
    /// # Errors
    /// See [`Netlink::add_vxlan`].
    pub fn add_vxlan_at(
        &self,
        name: &str,
        mtu: u32,
        mac: Mac,
        attributes: &VxlanAttributes,
    ) -> Result<Link> {
        let data = LinkInfo::Data(InfoData::Vxlan(vxlan_data(attributes)));
        let mut message = named(name, Some(mtu), vec![LinkInfo::Kind(InfoKind::Vxlan), data]);
        message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
        self.create(format!("create vxlan {name} (id {})", attributes.id), name, message)
    }

    /// Applies `change` to the link of `index`.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn change_link(&self, index: u32, change: &LinkChange) -> Result<()> {
        let message = change_message(index, change);
        // RTM_NEWLINK without NLM_F_CREATE: RTM_SETLINK ignores IFLA_INFO_DATA.
        self.change(&format!("change link {index}"), &RouteNetlinkMessage::NewLink(message), 0)
    }

    /// Applies `change` to the bridge port of `index`.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn change_port(&self, index: u32, change: &PortChange) -> Result<()> {
        let mut port = Vec::new();
        port.extend(change.hairpin.map(InfoBridgePort::HairpinMode));
        port.extend(change.isolated.map(InfoBridgePort::Isolated));
        if port.is_empty() {
            return Ok(());
        }
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(port)),
        ]));
        let action = format!("change bridge port {index}");
        self.change(&action, &RouteNetlinkMessage::NewLink(message), 0)
    }

    /// Deletes the link of `index`. Its absence is not an error.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn delete_link(&self, index: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.delete_message(&format!("delete link {index}"), message)
    }

    pub(super) fn delete_message(&self, action: &str, message: LinkMessage) -> Result<()> {
        match self.change(action, &RouteNetlinkMessage::DelLink(message), 0) {
            Err(error) if error.raw() == Some(libc::ENODEV) => Ok(()),
            result => result,
        }
    }

    fn delete_by_name(&self, name: &str) -> Result<()> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.delete_message(&format!("delete link {name}"), message)
    }

    fn create(&self, action: String, name: &str, message: LinkMessage) -> Result<Link> {
        self.change(&action, &RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)?;
        self.link(name)?.ok_or_else(|| Error::errno(action, libc::ENODEV))
    }

    fn get_link(&self, action: String, mut message: LinkMessage) -> Result<Option<Link>> {
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        match self.get(action.clone(), RouteNetlinkMessage::GetLink(message)) {
            Ok(answer) => match as_link(&answer) {
                Some(link) => Ok(Some(link)),
                None => Err(Error { action, source: std::io::ErrorKind::InvalidData.into() }),
            },
            Err(error) if error.raw() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn by_index(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

fn as_link(answer: &RouteNetlinkMessage) -> Option<Link> {
    if let RouteNetlinkMessage::NewLink(message) = answer {
        Some(decode::link(message))
    } else {
        None
    }
}

fn named(name: &str, mtu: Option<u32>, info: Vec<LinkInfo>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    message.attributes.push(LinkAttribute::LinkInfo(info));
    message
}

fn set_up(message: &mut LinkMessage, up: bool) {
    message.header.flags.set(LinkFlags::Up, up);
    message.header.change_mask |= LinkFlags::Up;
}

/// A veth uses one queue anyway, unless asked for more; but unless told so at once it is made with
/// one for each CPU and then waits for a grace period while it is shrunk (`veth_init_queues`).
fn one_queue(message: &mut LinkMessage) {
    message.attributes.push(LinkAttribute::NumTxQueues(1));
    message.attributes.push(LinkAttribute::NumRxQueues(1));
}

pub(super) fn veth_message(spec: &VethSpec<'_>) -> LinkMessage {
    let mut peer = LinkMessage::default();
    peer.attributes.push(LinkAttribute::IfName(spec.peer_name.to_owned()));
    peer.attributes.extend(spec.mtu.map(LinkAttribute::Mtu));
    peer.attributes.extend(spec.peer_mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    peer.attributes.push(LinkAttribute::NetNsFd(spec.peer_netns.as_fd().as_raw_fd()));
    one_queue(&mut peer);
    let data = LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer)));
    let mut message = named(spec.name, spec.mtu, vec![LinkInfo::Kind(InfoKind::Veth), data]);
    one_queue(&mut message);
    message.attributes.extend(spec.master.map(LinkAttribute::Controller));
    if spec.up {
        set_up(&mut message, true);
    }
    message
}

fn vxlan_data(attributes: &VxlanAttributes) -> Vec<InfoVxlan> {
    let mut data = vec![InfoVxlan::Id(attributes.id)];
    data.extend(attributes.group.map(|address| match address {
        IpAddr::V4(address) => InfoVxlan::Group(address),
        IpAddr::V6(address) => InfoVxlan::Group6(address),
    }));
    data.extend(attributes.dev.map(InfoVxlan::Link));
    data.extend(attributes.local.map(|address| match address {
        IpAddr::V4(address) => InfoVxlan::Local(address),
        IpAddr::V6(address) => InfoVxlan::Local6(address),
    }));
    data.push(InfoVxlan::Port(attributes.port));
    data.push(InfoVxlan::Ttl(attributes.ttl));
    data.push(InfoVxlan::Learning(attributes.learning));
    data
}

fn change_message(index: u32, change: &LinkChange) -> LinkMessage {
    let mut message = by_index(index);
    if let Some(up) = change.up {
        set_up(&mut message, up);
    }
    if let Some(promisc) = change.promisc {
        message.header.flags.set(LinkFlags::Promisc, promisc);
        message.header.change_mask |= LinkFlags::Promisc;
    }
    message.attributes.extend(change.mtu.map(LinkAttribute::Mtu));
    message.attributes.extend(change.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    message.attributes.extend(change.master.map(LinkAttribute::Controller));
    if let Some(filtering) = change.vlan_filtering {
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::VlanFiltering(filtering)])),
        ]));
    }
    message
}

impl Link {
    /// Whether it is a bridge.
    pub fn is_bridge(&self) -> bool {
        matches!(self.kind, LinkKind::Bridge { .. })
    }
}
