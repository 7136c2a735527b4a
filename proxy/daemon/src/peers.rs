//! The peers file: the nodes of a cluster without a store.
//!
//! ```toml
//! [[node]]
//! name = "node1"
//! ip = "172.18.0.2"                               # or one per IP family: ["172.18.0.2", "fd00::2"]
//! subnet = ["10.0.1.0/24", "fd00:10:0:1::/64"]
//! ```

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use ipnetwork::IpNetwork;
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use toml::Spanned;

/// A node of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its name.
    pub name: String,
    /// Its addresses, at most one per IP family, one at least.
    pub ips: Vec<IpAddr>,
    /// Its subnets of the cluster network, at most one per IP family, one at least.
    pub subnets: Vec<IpNetwork>,
}

/// Why the file is refused: `FILE:LINE: what, and the remedy`.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {reason}")]
pub(crate) struct Error {
    place: String,
    reason: String,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    node: Vec<Spanned<Raw>>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    ip: Texts,
    subnet: Texts,
}

/// A string or a list of strings.
struct Texts(Vec<String>);

/// Reads the file. `cluster` are the networks of all containers.
///
/// # Errors
/// It cannot be read, or something in it is wrong.
pub(crate) fn read(path: &Path, cluster: &[IpNetwork]) -> Result<Vec<Entry>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(path, &text, cluster),
        Err(error) => Err(Error {
            place: path.display().to_string(),
            reason: format!("cannot be read: {error}; create it with one [[node]] per node"),
        }),
    }
}

/// Parses its text.
///
/// # Errors
/// Something is wrong.
pub(crate) fn parse(path: &Path, text: &str, cluster: &[IpNetwork]) -> Result<Vec<Entry>, Error> {
    let at = |offset: Option<usize>, reason: String| {
        let line = offset
            .and_then(|offset| text.get(..offset))
            .map(|before| format!(":{}", 1 + before.bytes().filter(|byte| *byte == b'\n').count()));
        Error { place: format!("{}{}", path.display(), line.unwrap_or_default()), reason }
    };
    let file: File = toml::from_str(text).map_err(|error| {
        let hint = "a node has the keys name, ip and subnet";
        at(error.span().map(|span| span.start), format!("{}; {hint}", error.message()))
    })?;
    let mut entries: Vec<Entry> = Vec::new();
    for raw in file.node {
        let start = raw.span().start;
        let name = raw.get_ref().name.clone();
        let entry = check(raw.into_inner(), cluster)
            .and_then(|entry| apart(&entry, &entries).map(|()| entry))
            .map_err(|reason| at(Some(start), format!("node {name:?}: {reason}")))?;
        entries.push(entry);
    }
    Ok(entries)
}

fn check(raw: Raw, cluster: &[IpNetwork]) -> Result<Entry, String> {
    if raw.name.is_empty() || raw.name.contains(['/', ' ']) {
        return Err("name: not a valid node name; use the --node-name of that node".to_owned());
    }
    let ips = raw.ip.0.iter().map(|text| address(text)).collect::<Result<Vec<_>, _>>()?;
    let subnets = raw.subnet.0.iter().map(|text| subnet(text, cluster));
    let subnets = subnets.collect::<Result<Vec<_>, _>>()?;
    one_a_family("ip", &ips.iter().map(IpAddr::is_ipv4).collect::<Vec<_>>())?;
    one_a_family("subnet", &subnets.iter().map(IpNetwork::is_ipv4).collect::<Vec<_>>())?;
    Ok(Entry { name: raw.name, ips, subnets })
}

fn address(text: &str) -> Result<IpAddr, String> {
    let ip = text.parse::<IpAddr>().ok();
    let usable = ip.filter(|ip| !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast());
    usable.ok_or_else(|| {
        format!("ip: {text:?} is not an address that other nodes can reach, such as \"172.18.0.2\"")
    })
}

fn subnet(text: &str, cluster: &[IpNetwork]) -> Result<IpNetwork, String> {
    let subnet = text.parse::<IpNetwork>().ok().filter(|_| text.contains('/'));
    let Some(subnet) = subnet else {
        return Err(format!("subnet: {text:?} is not a network, such as \"10.0.1.0/24\""));
    };
    if subnet.ip() != subnet.network() {
        let (network, length) = (subnet.network(), subnet.prefix());
        return Err(format!("subnet: {text} has host bits set; write {network}/{length}"));
    }
    let inside =
        |cluster: &&IpNetwork| cluster.contains(subnet.ip()) && cluster.prefix() <= subnet.prefix();
    match cluster.iter().any(|network| inside(&network)) {
        true => Ok(subnet),
        false => Err(format!(
            "subnet: {text} is not inside --cluster-cidr; choose a subnet of it, or set a \
             --cluster-cidr on all nodes that contains it"
        )),
    }
}

fn one_a_family(field: &str, v4: &[bool]) -> Result<(), String> {
    let count = |family: bool| v4.iter().filter(|v4| **v4 == family).count();
    match (v4.len(), count(true) > 1 || count(false) > 1) {
        (0, _) => Err(format!("{field}: empty; at least one is required")),
        (_, true) => {
            Err(format!("{field}: two of the same IP family; give at most one IPv4 and one IPv6"))
        }
        (_, false) => Ok(()),
    }
}

/// Nobody else has its name or a part of its subnets. Addresses are judged by the overlay, which
/// goes on with the other nodes.
fn apart(entry: &Entry, others: &[Entry]) -> Result<(), String> {
    for other in others {
        if other.name == entry.name {
            return Err("name: used by an entry above; remove one of the two".to_owned());
        }
        for (ours, theirs) in entry
            .subnets
            .iter()
            .flat_map(|ours| other.subnets.iter().map(move |theirs| (*ours, *theirs)))
        {
            if ours.contains(theirs.ip()) || theirs.contains(ours.ip()) {
                return Err(format!(
                    "subnet: {ours} overlaps {theirs} of node {:?}; give each node its own",
                    other.name
                ));
            }
        }
    }
    Ok(())
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Wanted;
        impl<'de> Visitor<'de> for Wanted {
            type Value = Texts;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a string or a list of strings")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Texts, E> {
                Ok(Texts(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Texts, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = seq.next_element()? {
                    texts.push(text);
                }
                Ok(Texts(texts))
            }
        }
        deserializer.deserialize_any(Wanted)
    }
}

#[cfg(test)]
mod tests;
