//! Values to settings.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use causeway_model::Labels;
use causeway_ruleset::plan::NodePortAddresses;
use causeway_source::cluster::Tls;
use ipnetwork::IpNetwork;

use super::keys::{Given, Values};
use super::{BackendKind, Error, LogFormat, NodePorts, OverlayKind, Settings, StoreKind};

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
            return Err(given.wrong("not yet in this version; leave it out"));
        }
    }
    let value = Reader(values);
    let settings = Settings {
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
        node_subnet_len: value.parse("node-subnet-len", subnet_len)?.unwrap_or(24),
        node_subnets: value.networks("node-subnet", "")?,
        node_port_range: value.parse("node-port-range", port_range)?.unwrap_or((30000, 32767)),
        backend: value.parse("backend", backend)?.unwrap_or(BackendKind::Nftables),
        node_port_addresses: value
            .parse("nodeport-addresses", node_ports)?
            .unwrap_or(NodePorts::Planned(NodePortAddresses::All)),
        masquerade_all: value.parse("masquerade-all", yes_or_no)?.unwrap_or(false),
        store: value.parse("store", store)?.unwrap_or(StoreKind::Embedded),
        etcd_endpoints: value.list("etcd-endpoints", url)?,
        etcd_prefix: value.parse("etcd-prefix", prefix)?.unwrap_or_else(|| "/causeway".to_owned()),
        etcd_tls: Tls {
            ca: value.file("etcd-cafile")?,
            cert: value.file("etcd-certfile")?,
            key: value.file("etcd-keyfile")?,
        },
        etcd_user: value.text("etcd-username").zip(value.text("etcd-password")),
        endpoint_ttl: value.parse("endpoint-ttl", duration)?.unwrap_or(Duration::from_secs(40)),
        subnet_ttl: value.parse("subnet-ttl", duration)?.unwrap_or(Duration::from_hours(24)),
        peers_file: value.file("peers-file")?,
        overlay: value.parse("overlay", overlay_kind)?.unwrap_or(OverlayKind::None),
        vxlan_id: value.parse("vxlan-id", vni)?.unwrap_or(1),
        vxlan_port: value.parse("vxlan-port", udp_port)?.unwrap_or(8472),
        direct_routing: value.parse("direct-routing", yes_or_no)?.unwrap_or(false),
        disable_tx_checksum: value.parse("disable-tx-checksum", yes_or_no)?.unwrap_or(false),
        healthz_listen: value.listeners("healthz-listen", "0.0.0.0:10256")?,
        metrics_listen: value.listeners("metrics-listen", "127.0.0.1:10249")?,
        log_format: value.parse("log-format", log_format)?.unwrap_or(LogFormat::Text),
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
    Ok(settings)
}

/// What must hold between settings.
fn together(values: &Values, settings: &Settings) -> Result<(), Error> {
    cluster(values, settings)?;
    let field = |name: &str, network: &IpNetwork| match values.get(name) {
        Some(given) => given.clone(),
        None => Given { value: network.to_string(), field: format!("--{name}") },
    };
    for service in &settings.service_cidrs {
        if let Some(cluster) =
            settings.cluster_cidrs.iter().find(|other| overlap(**other, *service))
        {
            let reason =
                format!("overlaps the containers' network {cluster}; choose one apart from it");
            return Err(field("service-cidr", service).wrong(reason));
        }
        if let Some(ip) = settings.node_ips.iter().find(|ip| service.contains(**ip)) {
            let reason = format!("holds this node's address {ip}; choose one apart from it");
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

/// What must hold between the settings of many nodes.
fn cluster(values: &Values, settings: &Settings) -> Result<(), Error> {
    let wrong = |name: &str, reason: &str| {
        let default = Given { value: String::new(), field: format!("--{name}") };
        Err(values.get(name).cloned().unwrap_or(default).wrong(reason))
    };
    let etcd = settings.store == StoreKind::Etcd;
    if etcd && settings.etcd_endpoints.is_empty() {
        return wrong("store", "needs --etcd-endpoints; say where etcd answers");
    }
    for name in ["etcd-endpoints", "etcd-cafile", "etcd-certfile", "etcd-keyfile", "etcd-username"]
    {
        if !etcd && values.contains_key(name) {
            return wrong(name, "means nothing without --store etcd; add that or leave it out");
        }
    }
    if settings.etcd_tls.cert.is_some() != settings.etcd_tls.key.is_some() {
        return wrong("etcd-certfile", "needs --etcd-keyfile and that needs it; give both");
    }
    if values.contains_key("etcd-username") != values.contains_key("etcd-password") {
        return wrong("etcd-username", "needs --etcd-password and that needs it; give both");
    }
    if etcd && settings.peers_file.is_some() {
        return wrong(
            "peers-file",
            "stands against --store etcd, which knows the nodes; choose one",
        );
    }
    if settings.overlay != OverlayKind::None && !etcd && settings.peers_file.is_none() {
        return wrong("overlay", "needs --store etcd or --peers-file to know the other nodes");
    }
    Ok(())
}

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

/// Why a value is wrong.
type Reason = String;

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
            text.parse().map_err(|_| "not ADDRESS:PORT, as 127.0.0.1:10249 or [::1]:10249".into())
        })
    }

    fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|given| given.value.clone())
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
            Err(given.wrong("names two of one family; give one IPv4 and one IPv6 at most"))
        }
        Some(_) | None => Ok(()),
    }
}

fn node_name(text: &str) -> Result<String, Reason> {
    let label = |part: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !part.is_empty()
            && part.chars().all(inner)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    if text.len() <= 253 && text.split('.').all(label) {
        return Ok(text.to_owned());
    }
    Err("not a name as Kubernetes has it: lower case letters, digits, - and ., 253 at most".into())
}

fn address(text: &str) -> Result<IpAddr, Reason> {
    text.parse().map_err(|_| "not an IP address".into())
}

fn label(text: &str) -> Result<(String, String), Reason> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        Some(_) | None => Err("not KEY=VALUE".into()),
    }
}

fn network(text: &str) -> Result<IpNetwork, Reason> {
    let parsed = text.contains('/').then(|| text.parse::<IpNetwork>().ok()).flatten();
    let network = parsed.ok_or("not a network; write ADDRESS/LENGTH, as 10.96.0.0/16")?;
    if network.ip() != network.network() {
        let right = format!("{}/{}", network.network(), network.prefix());
        return Err(format!("has bits of an address beyond its length; write {right}"));
    }
    Ok(network)
}

fn subnet_len(text: &str) -> Result<u8, Reason> {
    match text.parse() {
        Ok(length @ 8..=30) => Ok(length),
        Ok(_) | Err(_) => Err("not a length between 8 and 30".into()),
    }
}

fn port_range(text: &str) -> Result<(u16, u16), Reason> {
    let ends = text.split_once('-').and_then(|(from, to)| {
        Some((from.trim().parse::<u16>().ok()?, to.trim().parse::<u16>().ok()?))
    });
    match ends {
        Some((from, to)) if from > 0 && from <= to => Ok((from, to)),
        Some(_) | None => Err("not FROM-TO with ports from 1 to 65535, as 30000-32767".into()),
    }
}

fn backend(text: &str) -> Result<BackendKind, Reason> {
    match text {
        "nftables" => Ok(BackendKind::Nftables),
        "iptables" => Ok(BackendKind::Iptables),
        _ => Err("neither nftables nor iptables".into()),
    }
}

fn node_ports(text: &str) -> Result<NodePorts, Reason> {
    match text {
        "all" => Ok(NodePorts::Planned(NodePortAddresses::All)),
        "primary" => Ok(NodePorts::Primary),
        "" => Err("neither all nor primary nor networks".into()),
        _ => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            let networks: Result<Vec<IpNetwork>, Reason> = items
                .map(|item| {
                    network(item).map_err(|reason| {
                        format!("{item}: neither all nor primary alone nor a network: {reason}")
                    })
                })
                .collect();
            Ok(NodePorts::Planned(NodePortAddresses::In(networks?)))
        }
    }
}

fn store(text: &str) -> Result<StoreKind, Reason> {
    match text {
        "embedded" => Ok(StoreKind::Embedded),
        "etcd" => Ok(StoreKind::Etcd),
        "kubernetes" => Err("not yet in this version; say embedded or etcd".into()),
        _ => Err("neither embedded nor etcd".into()),
    }
}

fn overlay_kind(text: &str) -> Result<OverlayKind, Reason> {
    match text {
        "none" => Ok(OverlayKind::None),
        "vxlan" => Ok(OverlayKind::Vxlan),
        "host-gw" => Ok(OverlayKind::HostGw),
        _ => Err("neither none nor vxlan nor host-gw".into()),
    }
}

fn url(text: &str) -> Result<String, Reason> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    match rest.map(|rest| rest.trim_end_matches('/')) {
        Some(host) if !host.is_empty() && !host.contains('/') => Ok(text.to_owned()),
        Some(_) | None => Err("not http://HOST:PORT or https://HOST:PORT".into()),
    }
}

fn prefix(text: &str) -> Result<String, Reason> {
    let text = text.trim_end_matches('/');
    if text.starts_with('/') && !text.contains("//") {
        return Ok(text.to_owned());
    }
    Err("not a path of names; begin it with /, as /causeway".into())
}

/// Seconds, or a number with `s`, `m` or `h`.
fn duration(text: &str) -> Result<Duration, Reason> {
    let (number, unit) = match text.trim_end_matches(char::is_alphabetic) {
        number if number.len() == text.len() => (number, "s"),
        number => (number, &text[number.len()..]),
    };
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("not a time; write 40s, 10m or 24h".into()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    match seconds {
        Some(seconds @ 2..=31_536_000) => Ok(Duration::from_secs(seconds)),
        Some(_) => Err("not between 2 s and a year".into()),
        None => Err("not a time; write 40s, 10m or 24h".into()),
    }
}

fn vni(text: &str) -> Result<u32, Reason> {
    match text.parse() {
        Ok(id @ 1..=16_777_215) => Ok(id),
        Ok(_) | Err(_) => Err("not a number from 1 to 16777215".into()),
    }
}

fn udp_port(text: &str) -> Result<u16, Reason> {
    match text.parse() {
        Ok(port @ 1..) => Ok(port),
        Ok(_) | Err(_) => Err("not a port from 1 to 65535".into()),
    }
}

fn yes_or_no(text: &str) -> Result<bool, Reason> {
    text.parse().map_err(|_| "neither true nor false".into())
}

fn log_format(text: &str) -> Result<LogFormat, Reason> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("neither text nor json".into()),
    }
}
