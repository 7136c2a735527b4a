//! The network configuration: raw JSON becomes a checked value; nothing later asks whether a value
//! is valid. Keys and their meaning are those of upstream `bridge`, and DESIGN 5.1 beyond them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use causeway_kernel::{Mac, VlanRange};
use cni_plugin::{Code, Dns, Error, Request, Version};
use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde_json::Value;

use crate::{masq, vxlan};

mod ptp;

const DEFAULT_BRIDGE: &str = "cni0";
const DEFAULT_RUN_DIR: &str = "/run/causeway";
const MAX_VLAN: u16 = 4094;

/// A configuration that ADD can act on.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    /// What the container's host end is to the host.
    pub mode: Mode,
    /// Name of the bridge; empty in [`Mode::Ptp`].
    pub bridge: String,
    /// What the bridge, or the host end, is to the containers.
    pub gateway: Gateway,
    /// Masquerade what leaves the containers' own subnet.
    pub ip_masq: bool,
    /// Destinations that are never masqueraded; `None` if the configuration is silent.
    pub masq_exclude: Option<Vec<IpNetwork>>,
    /// Who writes the masquerade rules.
    pub masq_backend: masq::Backend,
    /// MTU in bytes; `None` if the configuration is silent.
    pub mtu: Option<u32>,
    /// Settings of the container's bridge port.
    pub port: Port,
    /// Promiscuous bridge.
    pub promisc: bool,
    /// Drop frames with another source address than the container's.
    pub mac_spoof_check: bool,
    /// Duplicate address detection inside the container.
    pub dad: bool,
    /// The container's end stays down.
    pub container_down: bool,
    /// Address of the container's end; `None`: the kernel's choice.
    pub mac: Option<Mac>,
    /// Replaces the IPAM's `dns` as a whole if any member is set.
    pub dns: Dns,
    /// IPAM plugin; `None` is a layer-2 attachment.
    pub ipam: Option<String>,
    /// Addresses come from the node's subnet, which may be another one tomorrow.
    pub auto_subnet: bool,
    /// The vxlan that is a port of the bridge.
    pub vxlan: Option<vxlan::VxlanConfig>,
    /// Directory of the attachment records.
    pub run_dir: PathBuf,
}

/// `mode`: what the container's host end is to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A port of a bridge.
    Bridge,
    /// The container's gateway, with a route to the container: no bridge.
    Ptp,
}

/// What the bridge is to the containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gateway {
    /// The bridge carries the gateway addresses and the node forwards.
    pub enabled: bool,
    /// Containers get a default route through it.
    pub default_route: bool,
    /// Other addresses in the way are replaced instead of being an error.
    pub force_address: bool,
}

/// Settings of the container's bridge port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    /// Hairpin mode.
    pub hairpin: bool,
    /// Isolated from other isolated ports.
    pub isolated: bool,
    /// The untagged vlan; the gateway then lives on `<bridge>.<vlan>`.
    pub vlan: Option<u16>,
    /// All vlans of the port, empty without vlan filtering.
    pub vlans: Vec<VlanRange>,
    /// The vlans that the kernel gives a new port stay.
    pub keep_default_vlan: bool,
}

/// What DEL and GC need of a configuration. Everything else may be wrong by now (row F34).
#[derive(Clone, Debug)]
pub(crate) struct Removal {
    /// Name of the bridge; empty in [`Mode::Ptp`].
    pub bridge: String,
    /// IPAM plugin.
    pub ipam: Option<String>,
    /// Directory of the attachment records.
    pub run_dir: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "lowercase")]
struct Raw {
    mode: String,
    bridge: String,
    isgateway: bool,
    isdefaultgateway: Option<bool>,
    forceaddress: bool,
    ipmasq: bool,
    ipmasqbackend: String,
    ipmasqexclude: Option<Vec<String>>,
    mtu: i64,
    hairpinmode: bool,
    promiscmode: bool,
    vlan: i64,
    vlantrunk: Vec<RawTrunk>,
    preservedefaultvlan: bool,
    macspoofchk: bool,
    enabledad: bool,
    disablecontainerinterface: bool,
    portisolation: bool,
    dns: RawDns,
    ipam: RawIpam,
    args: RawArgs,
    runtimeconfig: RawMac,
    vxlan: Option<vxlan::RawVxlan>,
    rundir: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawRemoval {
    mode: Value,
    bridge: String,
    ipam: RawIpam,
    rundir: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawTrunk {
    minid: Option<i64>,
    maxid: Option<i64>,
    id: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawDns {
    nameservers: Vec<String>,
    domain: String,
    search: Vec<String>,
    options: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawIpam {
    r#type: String,
    subnet: Value,
    ranges: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawArgs {
    cni: RawMac,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawMac {
    mac: String,
}

impl Checked {
    /// The checked configuration of `request`.
    ///
    /// # Errors
    /// Code 6 for what does not decode, 7 for a value out of its range, 2 for a value that is not
    /// supported and for two options that exclude each other, 4 for a bad `MAC` in `CNI_ARGS`.
    pub(crate) fn of(request: &Request) -> Result<Self, Error> {
        let raw: Raw = request.config()?;
        let mode = mode(&raw.mode)?;
        reject_conflicts(&raw, mode, request.version)?;
        check_ifname("CNI_IFNAME", &request.attachment.ifname)
            .map_err(|error| Error { code: Code::InvalidEnvironment, ..error })?;
        let port = port(&raw)?;
        let (bridge, gateway) = match mode {
            Mode::Bridge => (bridge_name(&raw.bridge)?, bridge_gateway(&raw)),
            Mode::Ptp => (String::new(), ptp::gateway(&raw)),
        };
        if let (Some(vlan), true) = (port.vlan, gateway.enabled) {
            check_ifname("bridge", &gateway_link(&bridge, vlan))?;
        }
        Ok(Self {
            mac: mac(&raw, request)?,
            mode,
            gateway,
            ip_masq: raw.ipmasq,
            masq_exclude: raw.ipmasqexclude.as_deref().map(networks).transpose()?,
            masq_backend: masq::Backend::parse(&raw.ipmasqbackend)?,
            mtu: mtu(raw.mtu)?,
            port,
            promisc: raw.promiscmode,
            mac_spoof_check: raw.macspoofchk,
            dad: raw.enabledad,
            container_down: raw.disablecontainerinterface,
            dns: raw.dns.into(),
            auto_subnet: raw.ipam.is_auto(),
            ipam: unless_empty(raw.ipam.r#type),
            vxlan: vxlan(raw.vxlan.as_ref(), &request.network)?,
            run_dir: absolute_run_dir(raw.rundir)?,
            bridge,
        })
    }
}

impl Removal {
    /// What can be read of `request`'s configuration.
    ///
    /// # Errors
    /// Code 6 if one of the few needed fields has the wrong type.
    pub(crate) fn of(request: &Request) -> Result<Self, Error> {
        let raw: RawRemoval = request.config()?;
        let bridge = match raw.mode.as_str() {
            Some("ptp") => String::new(),
            Some(_) | None => unless_empty(raw.bridge).unwrap_or_else(|| DEFAULT_BRIDGE.to_owned()),
        };
        Ok(Self { bridge, ipam: unless_empty(raw.ipam.r#type), run_dir: run_dir(raw.rundir) })
    }
}

/// Name of the link that carries the gateway addresses of one vlan of a bridge.
pub(crate) fn gateway_link(bridge: &str, vlan: u16) -> String {
    format!("{bridge}.{vlan}")
}

impl From<RawDns> for Dns {
    fn from(raw: RawDns) -> Self {
        Self {
            nameservers: raw.nameservers,
            domain: raw.domain,
            search: raw.search,
            options: raw.options,
        }
    }
}

impl RawIpam {
    /// Whether `causeway-ipam` takes a range from the node's subnet. Other plugins' keys may look
    /// alike and mean something else.
    fn is_auto(&self) -> bool {
        let auto = |subnet: Option<&Value>| {
            subnet.and_then(Value::as_str).is_some_and(|text| text.eq_ignore_ascii_case("auto"))
        };
        let sets = self.ranges.as_array().into_iter().flatten();
        let mut ranges = sets.filter_map(Value::as_array).flatten();
        self.r#type == "causeway-ipam"
            && (auto(Some(&self.subnet)) || ranges.any(|range| auto(range.get("subnet"))))
    }
}

fn mode(text: &str) -> Result<Mode, Error> {
    match text {
        "" | "bridge" => Ok(Mode::Bridge),
        "ptp" => Ok(Mode::Ptp),
        other => Err(Error::new(
            Code::UnsupportedField,
            format!("mode {other:?} is unknown; use \"bridge\" or \"ptp\""),
        )),
    }
}

fn bridge_gateway(raw: &Raw) -> Gateway {
    let default_route = raw.isdefaultgateway.unwrap_or(false);
    Gateway {
        enabled: raw.isgateway || default_route,
        default_route,
        force_address: raw.forceaddress,
    }
}

fn reject_conflicts(raw: &Raw, mode: Mode, version: Version) -> Result<(), Error> {
    let unsupported = |msg: String| Err(Error::new(Code::UnsupportedField, msg));
    let layer3 = !raw.ipam.r#type.is_empty();
    if mode == Mode::Ptp {
        ptp::reject(raw)?;
    }
    if raw.hairpinmode && raw.promiscmode {
        return unsupported(
            "hairpinMode and promiscMode are mutually exclusive; set one of them to false"
                .to_owned(),
        );
    }
    if layer3 && raw.disablecontainerinterface {
        return unsupported(
            "disableContainerInterface true leaves no interface to carry addresses; remove ipam \
             or set it to false"
                .to_owned(),
        );
    }
    if !layer3 && version <= Version::V0_2_0 {
        return Err(Error::new(
            Code::InvalidConfig,
            format!(
                "a result of cniVersion {version} needs an address and ipam.type is not set; \
                 set ipam or use cniVersion 0.3.0 or later"
            ),
        ));
    }
    Ok(())
}

fn port(raw: &Raw) -> Result<Port, Error> {
    let vlan = u16::try_from(raw.vlan).ok().filter(|vlan| *vlan <= MAX_VLAN).ok_or_else(|| {
        invalid(format!("vlan: invalid VLAN ID {} (must be between 0 and {MAX_VLAN})", raw.vlan))
    })?;
    let mut tagged = BTreeSet::new();
    for item in &raw.vlantrunk {
        tagged.extend(trunk(item)?);
    }
    Ok(Port {
        hairpin: raw.hairpinmode,
        isolated: raw.portisolation,
        vlan: (vlan != 0).then_some(vlan),
        vlans: port_vlans(vlan, &tagged),
        keep_default_vlan: raw.preservedefaultvlan,
    })
}

/// The vlans of a port: its own untagged one (1 for a trunk without one) and the tagged others.
fn port_vlans(vlan: u16, tagged: &BTreeSet<u16>) -> Vec<VlanRange> {
    if vlan == 0 && tagged.is_empty() {
        return Vec::new();
    }
    let native = if vlan == 0 { 1 } else { vlan };
    let mut vlans: Vec<VlanRange> = Vec::new();
    for &id in tagged.iter().filter(|id| **id != native) {
        match vlans.last_mut() {
            Some(range) if range.last + 1 == id => range.last = id,
            Some(_) | None => {
                vlans.push(VlanRange { first: id, last: id, pvid: false, untagged: false });
            }
        }
    }
    vlans.insert(0, VlanRange { first: native, last: native, pvid: true, untagged: true });
    vlans
}

/// Ids of one item of `vlanTrunk`.
fn trunk(item: &RawTrunk) -> Result<BTreeSet<u16>, Error> {
    let id = |name: &str, value: i64| {
        u16::try_from(value).ok().filter(|id| (1..=MAX_VLAN).contains(id)).ok_or_else(|| {
            invalid(format!("vlanTrunk: incorrect {name} {value} (must be between 1 and 4094)"))
        })
    };
    let mut ids = BTreeSet::new();
    match (item.minid, item.maxid) {
        (Some(min), Some(max)) => {
            let (min, max) = (id("minID", min)?, id("maxID", max)?);
            if max < min {
                return Err(invalid(format!("vlanTrunk: minID {min} is greater than maxID {max}")));
            }
            ids.extend(min..=max);
        }
        (None, Some(_)) => return Err(invalid("vlanTrunk: maxID needs minID")),
        (Some(_), None) => return Err(invalid("vlanTrunk: minID needs maxID")),
        (None, None) => {}
    }
    if let Some(single) = item.id {
        ids.insert(id("id", single)?);
    }
    Ok(ids)
}

fn mtu(value: i64) -> Result<Option<u32>, Error> {
    match u32::try_from(value) {
        Ok(0) => Ok(None),
        Ok(mtu @ 68..=65535) => Ok(Some(mtu)),
        Ok(_) | Err(_) => Err(invalid(format!(
            "mtu {value} is out of range; use 68 to 65535, or 0 for automatic"
        ))),
    }
}

fn networks(texts: &[String]) -> Result<Vec<IpNetwork>, Error> {
    let parse = |text: &String| {
        text.parse().map_err(|source: ipnetwork::IpNetworkError| {
            Error::caused(
                Code::InvalidConfig,
                format!("ipMasqExclude: {text:?} is not a network such as 10.0.0.0/16"),
                &source,
            )
        })
    };
    texts.iter().map(parse).collect()
}

/// `runtimeConfig` wins over `args.cni`, and that over `CNI_ARGS` (row C25).
fn mac(raw: &Raw, request: &Request) -> Result<Option<Mac>, Error> {
    let sources = [
        ("runtimeConfig.mac", raw.runtimeconfig.mac.as_str(), Code::InvalidConfig),
        ("args.cni.mac", raw.args.cni.mac.as_str(), Code::InvalidConfig),
        (
            "MAC in CNI_ARGS",
            request.args.pairs.get("MAC").map_or("", String::as_str),
            Code::InvalidEnvironment,
        ),
    ];
    let Some((name, text, code)) = sources.into_iter().find(|(_, text, _)| !text.is_empty()) else {
        return Ok(None);
    };
    let mac = parse_mac(text).ok_or_else(|| {
        Error::new(code, format!("{name}: {text:?} is not an address such as 0a:58:0a:00:01:02"))
    })?;
    if mac.0[0] & 1 == 1 || mac.0 == [0; 6] {
        return Err(Error::new(code, format!("{name}: {text} is not a unicast address")));
    }
    Ok(Some(mac))
}

/// Six bytes with `:` or `-` between them.
pub(crate) fn parse_mac(text: &str) -> Option<Mac> {
    let separator = if text.contains('-') { '-' } else { ':' };
    let mut bytes = [0_u8; 6];
    let mut parts = text.split(separator);
    for byte in &mut bytes {
        let part = parts.next().filter(|part| {
            part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit())
        })?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(Mac(bytes))
}

fn bridge_name(name: &str) -> Result<String, Error> {
    let name = if name.is_empty() { DEFAULT_BRIDGE } else { name };
    check_ifname("bridge", name)?;
    Ok(name.to_owned())
}

/// What the kernel takes as an interface name (`dev_valid_name` in net/core/dev.c), and takes as it
/// is: `%d` asks it for a number.
fn check_ifname(field: &str, name: &str) -> Result<(), Error> {
    let valid = name.len() <= 15
        && !matches!(name, "." | "..")
        && !name.chars().any(|c| "/:%".contains(c) || c.is_whitespace() || c.is_control());
    if valid {
        return Ok(());
    }
    Err(invalid(format!(
        "{field}: {name:?} is not a valid interface name; use at most 15 bytes without `/`, `:`, \
         `%`, white space and control characters"
    )))
}

fn absolute_run_dir(text: String) -> Result<PathBuf, Error> {
    let folder = run_dir(text);
    if folder.is_absolute() {
        return Ok(folder);
    }
    // DEL may run in another working directory, and would find no record.
    Err(invalid(format!("runDir: {folder:?} is not an absolute path; begin it with `/`")))
}

fn run_dir(text: String) -> PathBuf {
    unless_empty(text).unwrap_or_else(|| DEFAULT_RUN_DIR.to_owned()).into()
}

/// An empty object is an absent one (row C22).
fn vxlan(
    raw: Option<&vxlan::RawVxlan>,
    network: &str,
) -> Result<Option<vxlan::VxlanConfig>, Error> {
    raw.filter(|raw| **raw != vxlan::RawVxlan::default())
        .map(|raw| vxlan::check(network, raw))
        .transpose()
}

fn unless_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn invalid(msg: impl Into<String>) -> Error {
    Error::new(Code::InvalidConfig, msg)
}

#[cfg(test)]
mod tests;
