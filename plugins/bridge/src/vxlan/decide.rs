//! What to do about a device that already exists. Pure.

use causeway_host::paths::VXLAN_ALIAS;
use causeway_kernel::{Link, LinkKind, VxlanAttributes};
use cni_plugin::{Code, Error};

use super::config::VxlanConfig;

/// The device as it has to be.
pub(super) struct Target<'a> {
    /// The configuration.
    pub(super) wanted: &'a VxlanConfig,
    /// The bridge it has to be a port of.
    pub(super) bridge: &'a Link,
    /// Its MTU.
    pub(super) mtu: u32,
    /// Its attributes.
    pub(super) attributes: VxlanAttributes,
    /// Underlay addresses, any of which does if the configuration names none.
    pub(super) locals: Vec<std::net::IpAddr>,
}

/// What follows from a look at a device.
#[derive(Debug, PartialEq)]
pub(super) enum VxlanAction {
    /// It is as it has to be.
    Fine,
    /// Changes in place make it so.
    Change(Change),
    /// It is ours, and something differs that can only be set at creation.
    Recreate,
    /// It is a port of another bridge, by index.
    Enslaved(u32),
    /// It is in the way.
    Refuse(Error),
}

/// Changes in place; `None` leaves a property alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// Set it up.
    pub(super) up: bool,
    /// Its MTU.
    pub(super) mtu: Option<u32>,
    /// Make it a port of this bridge, by index.
    pub(super) master: Option<u32>,
    /// Mark it as ours by its alias.
    pub(super) mark: bool,
}

/// The alias that marks a device as made for `network`.
pub(super) fn alias(network: &str) -> String {
    format!("{VXLAN_ALIAS}{network}")
}

impl Target<'_> {
    /// What to do about `link`, which bears our name.
    pub(super) fn decide(&self, link: &Link) -> VxlanAction {
        let LinkKind::Vxlan(present) = &link.kind else {
            return VxlanAction::Refuse(self.in_the_way("kind", &kind(link), "vxlan"));
        };
        if let Some(owner) = owner(link).filter(|owner| *owner != self.wanted.network) {
            return VxlanAction::Refuse(self.in_the_way("network", owner, &self.wanted.network));
        }
        if let Some(master) = link.master.filter(|master| *master != self.bridge.index) {
            return VxlanAction::Enslaved(master);
        }
        match self.difference(present) {
            None => self.change(link),
            Some(_) if self.is_ours(link) => VxlanAction::Recreate,
            Some((attribute, present, wanted)) => {
                VxlanAction::Refuse(self.in_the_way(attribute, &present, &wanted))
            }
        }
    }

    /// Among `links`, one that stands in the way of creating ours: the kernel takes an id and port
    /// once (row O-18), and two devices of an id in one bridge are a loop (row O-26).
    pub(super) fn conflict(&self, links: &[Link]) -> Option<Error> {
        let other = links.iter().find(|link| match &link.kind {
            LinkKind::Vxlan(other) => {
                other.id == self.wanted.id
                    && link.name != self.wanted.name
                    && (other.port == self.wanted.port || link.master == Some(self.bridge.index))
            }
            LinkKind::Bridge { .. } | LinkKind::Veth | LinkKind::Other(_) => false,
        })?;
        let whose = owner(other)
            .map_or_else(|| "not made by causeway".to_owned(), |n| format!("of network {n}"));
        Some(Error::new(
            Code::InvalidConfig,
            format!(
                "vxlan.id: {} is in use by device {} ({whose}): give this network another \
                 vxlan.id, or delete {}",
                self.wanted.id, other.name, other.name
            ),
        ))
    }

    /// The refusal for a port of bridge `master`.
    pub(super) fn enslaved(&self, master: &str) -> Error {
        self.in_the_way("bridge", master, &self.bridge.name)
    }

    /// What may be changed in place.
    fn change(&self, link: &Link) -> VxlanAction {
        let change = Change {
            up: !link.up,
            mtu: (link.mtu != self.mtu).then_some(self.mtu),
            master: link.master.is_none().then_some(self.bridge.index),
            mark: link.alias.is_none() && self.is_ours(link),
        };
        if change == Change::default() { VxlanAction::Fine } else { VxlanAction::Change(change) }
    }

    /// The first attribute that can be set only at creation and differs: name, present, wanted.
    fn difference(&self, present: &VxlanAttributes) -> Option<(&'static str, String, String)> {
        let wanted = &self.attributes;
        let any_local = self.wanted.local.is_none()
            && present.local.is_some_and(|local| self.locals.contains(&local));
        let pairs = [
            ("id", present.id.to_string(), wanted.id.to_string()),
            ("port", present.port.to_string(), wanted.port.to_string()),
            ("group", text(present.group), text(wanted.group)),
            ("dev", text(present.dev), text(wanted.dev)),
            ("local", text(present.local), text(wanted.local)),
            ("ttl", present.ttl.to_string(), wanted.ttl.to_string()),
            ("learning", present.learning.to_string(), wanted.learning.to_string()),
        ];
        pairs
            .into_iter()
            .find(|(name, present, wanted)| present != wanted && !(*name == "local" && any_local))
    }

    /// Whether we made it: by its alias, or by the name that only we give, if the maker was
    /// killed before it could write the alias.
    fn is_ours(&self, link: &Link) -> bool {
        match owner(link) {
            Some(owner) => owner == self.wanted.network,
            None => link.alias.is_none() && link.name == format!("cwvx{}", self.wanted.id),
        }
    }

    fn in_the_way(&self, attribute: &str, present: &str, wanted: &str) -> Error {
        let name = &self.wanted.name;
        Error::new(
            Code::InvalidConfig,
            format!(
                "vxlan: device {name} already exists with {attribute} {present} instead of \
                 {wanted}: give this network another vxlan.id or vxlan.name, or delete {name}"
            ),
        )
    }
}

/// The network that a device was made for, if it was made by us.
fn owner(link: &Link) -> Option<&str> {
    link.alias.as_deref()?.strip_prefix(VXLAN_ALIAS)
}

fn kind(link: &Link) -> String {
    match &link.kind {
        LinkKind::Bridge { .. } => "bridge".to_owned(),
        LinkKind::Veth => "veth".to_owned(),
        LinkKind::Vxlan(_) => "vxlan".to_owned(),
        LinkKind::Other(kind) if kind.is_empty() => "none".to_owned(),
        LinkKind::Other(kind) => kind.clone(),
    }
}

fn text(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}
