//! Vlans of bridges and their ports (`AF_BRIDGE`).

use netlink_packet_route::link::{
    AfSpecBridge, BridgeFlag, BridgeVlanInfo, BridgeVlanInfoFlags, LinkAttribute, LinkExtentMask,
    LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::VlanRange;
use crate::{Netlink, Result};

impl Netlink {
    /// Adds vlans to a bridge port (`on_bridge` false) or to the bridge itself.
    ///
    /// # Errors
    /// `EOPNOTSUPP` if the kernel has no vlan filtering.
    pub fn add_vlans(&self, index: u32, vlans: &[VlanRange], on_bridge: bool) -> Result<()> {
        if vlans.is_empty() {
            return Ok(());
        }
        let message = vlan_message(index, vlans, on_bridge);
        let action = format!("add vlans to link {index}");
        self.change(&action, &RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Removes vlans from a bridge port. Absent ones are not an error.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn delete_vlans(&self, index: u32, vlans: &[VlanRange]) -> Result<()> {
        // The kernel stops at the first absent one, so only those present are named.
        let present = self.vlans(index)?;
        let doomed: Vec<VlanRange> =
            vlans.iter().flat_map(|wanted| overlaps(wanted, &present)).collect();
        if doomed.is_empty() {
            return Ok(());
        }
        let message = vlan_message(index, &doomed, false);
        let action = format!("remove vlans from link {index}");
        match self.change(&action, &RouteNetlinkMessage::DelLink(message), 0) {
            Err(error) if error.is_not_found() => Ok(()),
            result => result,
        }
    }

    /// Vlans of a bridge port.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn vlans(&self, index: u32) -> Result<Vec<VlanRange>> {
        // AF_BRIDGE links come as a dump of all ports only; strict checking refuses an index here.
        let mut message = LinkMessage::default();
        message.header.interface_family = AddressFamily::Bridge;
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::BrvlanCompressed]));
        let action = format!("list vlans of link {index}");
        let answers = self.dump(&action, &RouteNetlinkMessage::GetLink(message))?;
        let mut ranges = Vec::new();
        for answer in &answers {
            let RouteNetlinkMessage::NewLink(message) = answer else { continue };
            if message.header.index == index {
                ranges.extend(decode(message));
            }
        }
        Ok(ranges)
    }
}

pub(super) fn vlan_message(index: u32, vlans: &[VlanRange], on_bridge: bool) -> LinkMessage {
    let mut spec = Vec::new();
    if on_bridge {
        spec.push(AfSpecBridge::Flags(BridgeFlag::LowerDev));
    }
    for vlan in vlans {
        let mut flags = BridgeVlanInfoFlags::empty();
        flags.set(BridgeVlanInfoFlags::Pvid, vlan.pvid && vlan.first == vlan.last);
        flags.set(BridgeVlanInfoFlags::Untagged, vlan.untagged);
        let info = |vid, flags| AfSpecBridge::VlanInfo(BridgeVlanInfo { vid, flags });
        if vlan.first == vlan.last {
            spec.push(info(vlan.first, flags));
        } else {
            spec.push(info(vlan.first, flags | BridgeVlanInfoFlags::RangeBegin));
            spec.push(info(vlan.last, flags | BridgeVlanInfoFlags::RangeEnd));
        }
    }
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Bridge;
    message.header.index = index;
    message.attributes.push(LinkAttribute::AfSpecBridge(spec));
    message
}

/// The ranges of one port, as `RTEXT_FILTER_BRVLAN_COMPRESSED` writes them: a begin and an end.
pub(super) fn decode(message: &LinkMessage) -> Vec<VlanRange> {
    let mut ranges = Vec::new();
    let mut begin = None;
    for attribute in &message.attributes {
        let LinkAttribute::AfSpecBridge(spec) = attribute else { continue };
        for entry in spec {
            let AfSpecBridge::VlanInfo(info) = entry else { continue };
            if info.flags.contains(BridgeVlanInfoFlags::RangeBegin) {
                begin = Some(info.vid);
                continue;
            }
            ranges.push(VlanRange {
                first: begin.take().unwrap_or(info.vid),
                last: info.vid,
                pvid: info.flags.contains(BridgeVlanInfoFlags::Pvid),
                untagged: info.flags.contains(BridgeVlanInfoFlags::Untagged),
            });
        }
    }
    ranges
}

/// The parts of `wanted` that are among `present`.
pub(super) fn overlaps<'a>(
    wanted: &'a VlanRange,
    present: &'a [VlanRange],
) -> impl Iterator<Item = VlanRange> + 'a {
    present.iter().filter_map(|range| {
        let first = wanted.first.max(range.first);
        let last = wanted.last.min(range.last);
        (first <= last).then_some(VlanRange { first, last, pvid: false, untagged: false })
    })
}
