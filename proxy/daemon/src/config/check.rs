//! Values to settings.

mod many;
mod value;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use causeway_model::Labels;
use causeway_ruleset::plan::NodePortAddresses;
use causeway_source::cluster::{Secret, Tls};
use ipnetwork::IpNetwork;

use super::given::{Given, Values};
use super::{BackendKind, Error, LogFormat, LogLevel, NodePorts, OverlayKind, Settings, StoreKind};
use value::{
    Reason, address, backend, duration, label, log_format, log_level, network, node_name,
    node_ports, overlay_kind, port_range, prefix, protected_ports, store, subnet_len, udp_port,
    url, vni, yes_or_no,
};

/// Settings that later versions give a meaning.
const LATER: &[&str] =
    &["dns-listen", "dns-domain", "dns-upstream", "dns-ttl", "lb-pool", "lb-interface"];

/// Checks all values.
///
/// # Errors
/// The first one that is wrong, by field, value and remedy.
pub(super) fn check(values: &Values) -> Result<Settings, Error> {
    for name in LATER {
        if let Some(given) = values.get(name) {
            return Err(given.wrong("not supported in this version; omit it"));
        }
    }
    many::no_user_in_urls(values)?;
    let value = Reader(values);
    let mut settings = Settings {
        node_name: value.parse("node-name", node_name)?,
        node_ips: value.list("node-ip", address)?,
        node_labels: value.list("node-labels", label)?.into_iter().collect::<Labels>(),
        run_dir: value.path("run-dir", "/run/causeway")?,
        state_dir: value.path("state-dir", "/var/lib/causeway")?,
        manifest_dir: value.path("manifest-dir", "/etc/causeway/manifests")?,
        containerd_socket: match values.get("containerd-socket") {
            Some(given) if given.value.is_empty() => PathBuf::new(),
            _ => value.path("containerd-socket", "/run/containerd/containerd.sock")?,
        },
        service_cidrs: value.networks("service-cidr", "10.96.0.0/16")?,
        cluster_cidrs: value.networks("cluster-cidr", "10.0.0.0/16")?,
        cluster_chosen: values.get("cluster-cidr").is_some(),
        node_subnet_len: value.parse("node-subnet-len", subnet_len)?.unwrap_or(24),
        node_subnets: value.networks("node-subnet", "")?,
        node_port_range: value.parse("node-port-range", port_range)?.unwrap_or((30000, 32767)),
        backend: value.parse("backend", backend)?.unwrap_or(BackendKind::Nftables),
        node_port_addresses: value
            .parse("nodeport-addresses", node_ports)?
            .unwrap_or(NodePorts::Planned(NodePortAddresses::All)),
        protected_ports: value.list("protected-ports", protected_ports)?.concat(),
        image_labels: value.parse("image-labels", yes_or_no)?.unwrap_or(false),
        masquerade_all: value.parse("masquerade-all", yes_or_no)?.unwrap_or(false),
        dead_grace: value.parse("dead-grace", duration)?.unwrap_or(Duration::from_secs(60)),
        store: value.parse("store", store)?.unwrap_or(StoreKind::Embedded),
        etcd_endpoints: value.list("etcd-endpoints", url)?,
        etcd_prefix: value.parse("etcd-prefix", prefix)?.unwrap_or_else(|| "/causeway".to_owned()),
        etcd_tls: Tls {
            ca: value.file("etcd-cafile")?,
            cert: value.file("etcd-certfile")?,
            key: value.file("etcd-keyfile")?,
        },
        etcd_user: value.text("etcd-username").zip(value.text("etcd-password").map(Secret)),
        endpoint_ttl: value.parse("endpoint-ttl", duration)?.unwrap_or(Duration::from_secs(40)),
        subnet_ttl: value.parse("subnet-ttl", duration)?.unwrap_or(Duration::from_secs(24 * 3600)),
        peers_file: value.file("peers-file")?,
        overlay: value.parse("overlay", overlay_kind)?.unwrap_or(OverlayKind::None),
        vxlan_id: value.parse("vxlan-id", vni)?.unwrap_or(1),
        vxlan_port: value.parse("vxlan-port", udp_port)?.unwrap_or(8472),
        direct_routing: value.parse("direct-routing", yes_or_no)?.unwrap_or(false),
        disable_tx_checksum: value.parse("disable-tx-checksum", yes_or_no)?.unwrap_or(false),
        healthz_listen: value.listeners("healthz-listen", "0.0.0.0:10256")?,
        metrics_listen: value.listeners("metrics-listen", "127.0.0.1:10249")?,
        log_format: value.parse("log-format", log_format)?.unwrap_or(LogFormat::Text),
        log_level: value.parse("log-level", log_level)?.unwrap_or(LogLevel::Info),
        warnings: Vec::new(),
    };
    one_a_family(values, "node-ip", settings.node_ips.iter().copied())?;
    for (name, networks) in [
        ("service-cidr", &settings.service_cidrs),
        ("cluster-cidr", &settings.cluster_cidrs),
        ("node-subnet", &settings.node_subnets),
    ] {
        one_a_family(values, name, networks.iter().map(IpNetwork::ip))?;
    }
    together(values, &settings)?;
    settings.warnings = many::check(values, &settings)?;
    Ok(settings)
}

/// What must hold between settings.
fn together(values: &Values, settings: &Settings) -> Result<(), Error> {
    let field = |name: &str, network: &IpNetwork| match values.get(name) {
        Some(given) => given.clone(),
        None => Given { value: network.to_string(), field: format!("--{name}") },
    };
    for (name, networks) in [
        ("service-cidr", &settings.service_cidrs),
        ("cluster-cidr", &settings.cluster_cidrs),
        ("node-subnet", &settings.node_subnets),
    ] {
        for network in networks {
            // The first and the last address are nobody's.
            let widest = if network.is_ipv4() { 30 } else { 126 };
            if network.prefix() > widest {
                let reason = format!("is too small; choose a network of /{widest} or wider");
                return Err(field(name, network).wrong(reason));
            }
        }
    }
    for service in &settings.service_cidrs {
        if let Some(cluster) =
            settings.cluster_cidrs.iter().find(|other| overlap(**other, *service))
        {
            let reason =
                format!("overlaps the cluster network {cluster}; choose one that does not");
            return Err(field("service-cidr", service).wrong(reason));
        }
        if let Some(ip) = settings.node_ips.iter().find(|ip| service.contains(**ip)) {
            let reason = format!("contains this node's address {ip}; choose one that does not");
            return Err(field("service-cidr", service).wrong(reason));
        }
    }
    for subnet in &settings.node_subnets {
        let inside = |cluster: &IpNetwork| {
            cluster.contains(subnet.ip()) && cluster.prefix() <= subnet.prefix()
        };
        if !settings.cluster_cidrs.iter().any(inside) {
            let reason = "not inside a network of --cluster-cidr; take a part of it";
            return Err(field("node-subnet", subnet).wrong(reason));
        }
    }
    Ok(())
}

pub(super) use many::exposed;

/// Whether two networks share an address.
pub(crate) fn overlap(a: IpNetwork, b: IpNetwork) -> bool {
    a.contains(b.network()) || b.contains(a.network())
}

impl Given {
    fn wrong(&self, reason: impl Into<String>) -> Error {
        let (field, value) = (self.field.clone(), self.value.clone());
        Error::Value { field, value, reason: reason.into() }
    }
}

struct Reader<'a>(&'a Values);

impl Reader<'_> {
    fn parse<T>(
        &self,
        name: &str,
        parse: fn(&str) -> Result<T, Reason>,
    ) -> Result<Option<T>, Error> {
        let Some(given) = self.0.get(name) else { return Ok(None) };
        parse(given.value.trim()).map(Some).map_err(|reason| given.wrong(reason))
    }

    fn list<T>(&self, name: &str, parse: fn(&str) -> Result<T, Reason>) -> Result<Vec<T>, Error> {
        self.list_or(name, "", parse)
    }

    fn list_or<T>(
        &self,
        name: &str,
        default: &str,
        parse: fn(&str) -> Result<T, Reason>,
    ) -> Result<Vec<T>, Error> {
        let default = Given { value: default.to_owned(), field: format!("--{name}") };
        let given = self.0.get(name).unwrap_or(&default);
        let items = given.value.split(',').map(str::trim).filter(|item| !item.is_empty());
        items
            .map(|item| parse(item).map_err(|reason| given.wrong(format!("{item}: {reason}"))))
            .collect()
    }

    fn networks(&self, name: &str, default: &str) -> Result<Vec<IpNetwork>, Error> {
        self.list_or(name, default, network)
    }

    fn listeners(&self, name: &str, default: &str) -> Result<Vec<SocketAddr>, Error> {
        self.list_or(name, default, |text| {
            text.parse().map_err(|_| {
                "not ADDRESS:PORT, such as 127.0.0.1:10249 or \
                 [::1]:10249"
                    .into()
            })
        })
    }

    /// Text as it stands; an empty one is as good as none.
    fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|given| given.value.clone()).filter(|text| !text.is_empty())
    }

    fn file(&self, name: &str) -> Result<Option<PathBuf>, Error> {
        self.0.get(name).map(|_| self.path(name, "")).transpose()
    }

    fn path(&self, name: &str, default: &str) -> Result<PathBuf, Error> {
        let Some(given) = self.0.get(name) else { return Ok(PathBuf::from(default)) };
        let path = PathBuf::from(&given.value);
        if path.is_absolute() {
            return Ok(path);
        }
        Err(given.wrong("not an absolute path; begin it with /"))
    }
}

fn one_a_family(
    values: &Values,
    name: &str,
    addresses: impl Iterator<Item = IpAddr>,
) -> Result<(), Error> {
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = addresses.partition(IpAddr::is_ipv4);
    match values.get(name) {
        Some(given) if v4.len() > 1 || v6.len() > 1 => {
            Err(given.wrong("has two of the same IP family; give at most one IPv4 and one IPv6"))
        }
        Some(_) | None => Ok(()),
    }
}
