//! Results in the shape of 1.1.0; conversion to and from older versions at the edge.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use crate::version::Format;
use crate::{Code, Error, Version, address, json, lenient};

/// The result of ADD, and `prevResult`, in the shape of specification 1.1.0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CniResult {
    /// Interfaces in the order the plugins made them.
    pub interfaces: Vec<Interface>,
    /// Addresses.
    pub ips: Vec<Ip>,
    /// Routes.
    pub routes: Vec<Route>,
    /// Name servers and search list.
    pub dns: Dns,
}

/// One interface of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "lowercase", expecting = "an interface object")]
pub struct Interface {
    /// Name inside its namespace.
    pub name: String,
    /// Lower case with colons; empty when unknown.
    #[serde(deserialize_with = "de_mac")]
    pub mac: String,
    /// MTU in bytes (1.1.0).
    #[serde(deserialize_with = "lenient::nonzero")]
    pub mtu: Option<u32>,
    /// Path of the namespace, byte for byte as in `CNI_NETNS`; empty for the host's.
    pub sandbox: String,
    /// `socketPath` (1.1.0), passed through.
    #[serde(rename = "socketpath")]
    pub socket_path: String,
    /// `pciID` (1.1.0), passed through.
    #[serde(rename = "pciid")]
    pub pci_id: String,
}

/// One address of a result.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(expecting = "an object with address and gateway")]
pub struct Ip {
    /// Index into `interfaces`; `None` when unknown (also read from -1).
    #[serde(default, deserialize_with = "de_index")]
    pub interface: Option<usize>,
    /// Host address with prefix length.
    #[serde(deserialize_with = "address::de_cidr")]
    pub address: IpNetwork,
    /// Gateway of the address' subnet.
    #[serde(default, deserialize_with = "address::de_address")]
    pub gateway: Option<IpAddr>,
}

/// One route of a result or of a configuration: `config<T>` reads it and `to_json` writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "a route object")]
pub struct Route {
    /// Destination network.
    #[serde(deserialize_with = "address::de_network", serialize_with = "address::ser_network")]
    pub dst: IpNetwork,
    /// Next hop; absent: the first gateway of that family.
    #[serde(
        default,
        deserialize_with = "address::de_address",
        serialize_with = "address::ser_address",
        skip_serializing_if = "Option::is_none"
    )]
    pub gw: Option<IpAddr>,
    /// `RTAX_MTU`, bytes.
    #[serde(
        default,
        deserialize_with = "lenient::nonzero",
        skip_serializing_if = "Option::is_none"
    )]
    pub mtu: Option<u32>,
    /// `RTAX_ADVMSS`, bytes.
    #[serde(
        default,
        deserialize_with = "lenient::nonzero",
        skip_serializing_if = "Option::is_none"
    )]
    pub advmss: Option<u32>,
    /// Metric.
    #[serde(
        default,
        deserialize_with = "lenient::nonzero",
        skip_serializing_if = "Option::is_none"
    )]
    pub priority: Option<u32>,
    /// Routing table; `Some(0)` is distinct from absent.
    #[serde(
        default,
        deserialize_with = "lenient::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub table: Option<u32>,
    /// Route scope (0 global, 253 link, 254 host); `Some(0)` is distinct from absent.
    #[serde(
        default,
        deserialize_with = "lenient::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub scope: Option<u8>,
}

/// Name service settings of a result or of a configuration: `config<T>` reads it and `to_json`
/// writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, expecting = "a dns object")]
pub struct Dns {
    /// Addresses of name servers.
    #[serde(deserialize_with = "lenient::or_default", skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// Local domain.
    #[serde(deserialize_with = "lenient::or_default", skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Search list.
    #[serde(deserialize_with = "lenient::or_default", skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Resolver options.
    #[serde(deserialize_with = "lenient::or_default", skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Dns {
    /// Whether no member is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl CniResult {
    /// Reads a result of any version. `assumed` counts if the value has no `cniVersion`.
    ///
    /// # Errors
    /// Code 6 with the field that does not decode, or when the family of formats is not that of
    /// `assumed` (rows C53, C57).
    pub fn from_json(value: &Value, assumed: Version) -> Result<Self, Error> {
        let folded = json::fold(value);
        if !folded.is_object() {
            return Err(undecodable("a result must be a JSON object"));
        }
        let version = stated_version(&folded)?.unwrap_or(assumed);
        if version.format() != assumed.format() {
            let msg =
                format!("a result of cniVersion {version} does not match cniVersion {assumed}");
            return Err(Error::new(Code::Decode, msg));
        }
        Ok(match version.format() {
            Format::PerFamily => json::decode::<PerFamily>(folded, value, "the result")?.into(),
            Format::Tagged | Format::Plain => {
                json::decode::<Lists>(folded, value, "the result")?.into()
            }
        })
    }

    /// The JSON of this result in `version` (rows C39 to C46).
    ///
    /// # Errors
    /// 0.1.0 and 0.2.0 need at least one address (row C40).
    pub fn to_json(&self, version: Version) -> Result<Value, Error> {
        let mut out = match version.format() {
            Format::PerFamily => self.per_family(version)?,
            Format::Tagged | Format::Plain => self.lists(version.format()),
        };
        if version.format() != Format::Plain || !self.dns.is_empty() {
            out.insert("dns".to_owned(), json!(self.dns));
        }
        out.insert("cniVersion".to_owned(), json!(version.as_str()));
        Ok(Value::Object(out))
    }

    fn per_family(&self, version: Version) -> Result<Map<String, Value>, Error> {
        let mut out = Map::new();
        for (key, want_v4) in [("ip4", true), ("ip6", false)] {
            let first =
                self.ips.iter().find(|ip| address::unmapped(ip.address).is_ipv4() == want_v4);
            let Some(ip) = first else { continue };
            let routes = self
                .routes
                .iter()
                .filter(|route| address::unmapped(route.dst).is_ipv4() == want_v4);
            // These versions know a route's destination and next hop only.
            let routes: Vec<_> = routes
                .map(|route| Route { gw: route.gw, ..Route::to(route.dst) })
                .map(|route| json!(route))
                .collect();
            let mut entry = Map::new();
            entry.insert("ip".to_owned(), json!(address::unmapped(ip.address)));
            put_gateway(&mut entry, ip.gateway);
            put_list(&mut entry, "routes", routes);
            out.insert(key.to_owned(), Value::Object(entry));
        }
        if out.is_empty() {
            let error = Error::new(Code::InvalidConfig, "cannot convert: no valid IP addresses");
            return Err(error.details(format!(
                "a result of cniVersion {version} needs addresses: add an ipam section to the \
                 network, or use cniVersion 0.3.0 or later"
            )));
        }
        Ok(out)
    }

    fn lists(&self, format: Format) -> Map<String, Value> {
        let mut out = Map::new();
        let interfaces = self.interfaces.iter().map(|interface| interface.to_json(format));
        put_list(&mut out, "interfaces", interfaces.collect());
        put_list(&mut out, "ips", self.ips.iter().map(|ip| ip.to_json(format)).collect());
        put_list(&mut out, "routes", self.routes.iter().map(|route| json!(route)).collect());
        out
    }
}

impl Route {
    /// A route to `dst` with nothing else said.
    pub fn to(dst: IpNetwork) -> Self {
        Self { dst, gw: None, mtu: None, advmss: None, priority: None, table: None, scope: None }
    }
}

impl Interface {
    fn to_json(&self, format: Format) -> Value {
        let mut out = Map::new();
        out.insert("name".to_owned(), json!(self.name));
        let mut put = |key: &str, text: &str| {
            if !text.is_empty() {
                out.insert(key.to_owned(), json!(text));
            }
        };
        put("mac", &canonical_mac(&self.mac));
        put("sandbox", &self.sandbox);
        if format == Format::Plain {
            put("socketPath", &self.socket_path);
            put("pciID", &self.pci_id);
            if let Some(mtu) = self.mtu {
                out.insert("mtu".to_owned(), json!(mtu));
            }
        }
        Value::Object(out)
    }
}

impl Ip {
    fn to_json(&self, format: Format) -> Value {
        let address = address::unmapped(self.address);
        let mut out = Map::new();
        if format == Format::Tagged {
            out.insert("version".to_owned(), json!(if address.is_ipv4() { "4" } else { "6" }));
        }
        if let Some(index) = self.interface {
            out.insert("interface".to_owned(), json!(index));
        }
        out.insert("address".to_owned(), json!(address));
        put_gateway(&mut out, self.gateway);
        Value::Object(out)
    }
}

/// The version that a folded result states; `None` when it states none.
///
/// # Errors
/// Code 6 when it is not one that we know.
pub(crate) fn stated_version(folded: &Value) -> Result<Option<Version>, Error> {
    match folded.get("cniversion") {
        None => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => match Version::parse(text) {
            Some(version) => Ok(Some(version)),
            None => Err(undecodable(&format!("unknown cniVersion \"{text}\" of a result"))),
        },
        Some(other) => Err(undecodable(&format!("cniVersion {other} of a result is not a string"))),
    }
}

/// The format of 0.1.0 and 0.2.0.
#[derive(Default, Deserialize)]
#[serde(default)]
struct PerFamily {
    #[serde(deserialize_with = "lenient::option")]
    ip4: Option<FamilyIp>,
    #[serde(deserialize_with = "lenient::option")]
    ip6: Option<FamilyIp>,
    dns: Dns,
}

#[derive(Deserialize)]
#[serde(expecting = "an object with ip, gateway and routes")]
struct FamilyIp {
    #[serde(deserialize_with = "address::de_cidr")]
    ip: IpNetwork,
    #[serde(default, deserialize_with = "address::de_address")]
    gateway: Option<IpAddr>,
    #[serde(default)]
    routes: Vec<Route>,
}

/// The format since 0.3.0.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Lists {
    interfaces: Vec<Interface>,
    ips: Vec<Ip>,
    routes: Vec<Route>,
    dns: Dns,
}

impl From<PerFamily> for CniResult {
    fn from(old: PerFamily) -> Self {
        let mut result = Self { dns: old.dns, ..Self::default() };
        for entry in [old.ip4, old.ip6].into_iter().flatten() {
            let FamilyIp { ip, gateway, routes } = entry;
            result.ips.push(Ip { interface: None, address: ip, gateway });
            result.routes.extend(routes);
        }
        result
    }
}

impl From<Lists> for CniResult {
    fn from(lists: Lists) -> Self {
        let Lists { interfaces, ips, routes, dns } = lists;
        Self { interfaces, ips, routes, dns }
    }
}

fn put_list(out: &mut Map<String, Value>, key: &str, items: Vec<Value>) {
    if !items.is_empty() {
        out.insert(key.to_owned(), Value::Array(items));
    }
}

fn put_gateway(out: &mut Map<String, Value>, gateway: Option<IpAddr>) {
    if let Some(gateway) = gateway {
        out.insert("gateway".to_owned(), json!(gateway.to_canonical()));
    }
}

fn canonical_mac(mac: &str) -> String {
    mac.to_ascii_lowercase().replace('-', ":")
}

fn undecodable(msg: &str) -> Error {
    Error::new(Code::Decode, msg)
}

fn de_mac<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(canonical_mac(&String::deserialize(deserializer)?))
}

/// An index; -1, written by old plugins, means unknown (row C43).
fn de_index<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    let Some(index) = Option::<i64>::deserialize(deserializer)? else { return Ok(None) };
    if index == -1 {
        return Ok(None);
    }
    let refused = || serde::de::Error::custom(format!("{index} is not an index of interfaces"));
    usize::try_from(index).map(Some).map_err(|_| refused())
}

#[cfg(test)]
mod tests;
