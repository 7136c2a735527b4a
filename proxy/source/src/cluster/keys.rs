//! Keys of the store: from typed keys to text and back. Pure.
//!
//! Names are arbitrary: in a part of a key, `/`, `%` and control characters stand as `%` and two
//! upper case digits. One thing has one key: a text that could be written shorter is nobody's.

use causeway_model::{EndpointKey, ObjectKey, ObjectKind};
use ipnetwork::IpNetwork;

/// The keys below a prefix.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    root: String,
}

/// What a key is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Config,
    Node(String),
    /// Of a node.
    Container(String, EndpointKey),
    Subnet(IpNetwork),
    Reservation(IpNetwork),
    Object(ObjectKind, ObjectKey),
    /// As `causeway_model::allocate::claims` says it.
    Claim(String),
}

impl Keys {
    /// Below `PREFIX/v1/`.
    pub(super) fn new(prefix: &str) -> Self {
        Self { root: format!("{prefix}/v1/") }
    }

    /// What all keys begin with.
    pub(super) fn root(&self) -> &str {
        &self.root
    }

    pub(super) fn subnets(&self) -> String {
        format!("{}subnets/", self.root)
    }

    pub(super) fn reservations(&self) -> String {
        format!("{}reservations/", self.root)
    }

    /// What the keys of a node's containers begin with.
    pub(super) fn containers(&self, node: &str) -> String {
        let mut text = format!("{}containers/", self.root);
        escape(&mut text, node);
        text.push('/');
        text
    }

    pub(super) fn node(&self, name: &str) -> String {
        self.text(&Key::Node(name.to_owned()))
    }

    pub(super) fn text(&self, key: &Key) -> String {
        let mut text = self.root.clone();
        match key {
            Key::Config => text.push_str("config"),
            Key::Node(name) => parts(&mut text, "nodes", &[name]),
            Key::Container(node, key) => {
                let EndpointKey { network, container_id, ifname } = key;
                parts(&mut text, "containers", &[node, network, container_id, ifname]);
            }
            Key::Subnet(subnet) => parts(&mut text, "subnets", &[&network_text(*subnet)]),
            Key::Reservation(subnet) => {
                parts(&mut text, "reservations", &[&network_text(*subnet)]);
            }
            Key::Object(kind, key) => {
                parts(&mut text, "objects", &[kind.name(), &key.namespace, &key.name]);
            }
            Key::Claim(claim) => {
                text.push_str("claims/");
                text.push_str(claim);
            }
        }
        text
    }

    /// `None`: not one of ours, or one of a newer version.
    pub(super) fn parse(&self, text: &[u8]) -> Option<Key> {
        let text = str::from_utf8(text).ok()?;
        let path = text.strip_prefix(&self.root)?;
        let key = parse(path)?;
        (self.text(&key) == text).then_some(key)
    }
}

fn parse(path: &str) -> Option<Key> {
    let Some((area, rest)) = path.split_once('/') else {
        return (path == "config").then_some(Key::Config);
    };
    if area == "claims" {
        return Some(Key::Claim(rest.to_owned()));
    }
    let parts: Option<Vec<String>> = rest.split('/').map(unescape).collect();
    let mut parts = parts?.into_iter();
    let mut part = || parts.next();
    let key = match area {
        "nodes" => Key::Node(part()?),
        "containers" => Key::Container(
            part()?,
            EndpointKey { network: part()?, container_id: part()?, ifname: part()? },
        ),
        "subnets" => Key::Subnet(network(&part()?)?),
        "reservations" => Key::Reservation(network(&part()?)?),
        "objects" => Key::Object(kind(&part()?)?, ObjectKey::new(part()?, part()?)),
        _ => return None,
    };
    part().is_none().then_some(key)
}

fn parts(text: &mut String, area: &str, parts: &[&str]) {
    text.push_str(area);
    for part in parts {
        text.push('/');
        escape(text, part);
    }
}

fn escape(text: &mut String, part: &str) {
    for character in part.chars() {
        if matches!(character, '/' | '%') || character.is_ascii_control() {
            text.push_str(&format!("%{:02X}", u32::from(character)));
        } else {
            text.push(character);
        }
    }
}

fn unescape(part: &str) -> Option<String> {
    let mut pieces = part.split('%');
    let mut text = pieces.next()?.to_owned();
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2)?;
        text.push(char::from(u8::from_str_radix(digits, 16).ok()?));
        text.push_str(rest);
    }
    Some(text)
}

/// `10.0.1.0-24`
fn network_text(network: IpNetwork) -> String {
    format!("{}-{}", network.network(), network.prefix())
}

fn network(text: &str) -> Option<IpNetwork> {
    let (address, length) = text.rsplit_once('-')?;
    let network = IpNetwork::new(address.parse().ok()?, length.parse().ok()?).ok()?;
    (network.network() == network.ip()).then_some(network)
}

fn kind(text: &str) -> Option<ObjectKind> {
    let kinds = [ObjectKind::Service, ObjectKind::EndpointSlice, ObjectKind::Node];
    kinds.into_iter().find(|kind| kind.name() == text)
}

#[cfg(test)]
mod tests;
