//! Values to settings.

mod many;
mod names;
mod pools;
mod value;

use std::net::IpAddr;

use causeway_model::Labels;
use causeway_source::cluster::{Secret, Tls};
use ipnetwork::IpNetwork;

use super::given::{Given, Values};
use super::keys::KEYS;
use super::{Error, Settings};
use value::{
    Reason, address, backend, duration, interface, label, listener, log_format, log_level, network,
    node_name, node_ports, overlay_kind, path, path_or_none, port_range, prefix, protected_ports,
    store, subnet_len, udp_port, url, vni, yes_or_no,
};

/// Checks all values.
///
/// # Errors
/// The first one that is wrong, by field, value and remedy.
pub(super) fn check(values: &Values) -> Result<Settings, Error> {
    many::no_user_in_urls(values)?;
    let value = Reader(values);
    let mut settings = Settings {
        node_name: value.optional("node-name", node_name)?,
        node_ips: value.list("node-ip", address)?,
        node_labels: value.list("node-labels", label)?.into_iter().collect::<Labels>(),
        run_dir: value.parse("run-dir", path)?,
        state_dir: value.parse("state-dir", path)?,
        manifest_dir: value.parse("manifest-dir", path)?,
        containerd_socket: value.parse("containerd-socket", path_or_none)?,
        service_cidrs: value.list("service-cidr", network)?,
        cluster_cidrs: value.list("cluster-cidr", network)?,
        cluster_chosen: values.get("cluster-cidr").is_some(),
        node_subnet_len: value.parse("node-subnet-len", subnet_len)?,
        node_subnets: value.list("node-subnet", network)?,
        node_port_range: value.parse("node-port-range", port_range)?,
        backend: value.parse("backend", backend)?,
        node_port_addresses: value.parse("nodeport-addresses", node_ports)?,
        protected_ports: value.list("protected-ports", protected_ports)?.concat(),
        image_labels: value.switch("image-labels")?,
        masquerade_all: value.switch("masquerade-all")?,
        dead_grace: value.parse("dead-grace", duration)?,
        store: value.parse("store", store)?,
        etcd_endpoints: value.list("etcd-endpoints", url)?,
        etcd_prefix: value.parse("etcd-prefix", prefix)?,
        etcd_tls: Tls {
            ca: value.optional("etcd-cafile", path)?,
            cert: value.optional("etcd-certfile", path)?,
            key: value.optional("etcd-keyfile", path)?,
        },
        etcd_user: value.text("etcd-username").zip(value.text("etcd-password").map(Secret)),
        endpoint_ttl: value.parse("endpoint-ttl", duration)?,
        subnet_ttl: value.parse("subnet-ttl", duration)?,
        peers_file: value.optional("peers-file", path)?,
        overlay: value.parse("overlay", overlay_kind)?,
        vxlan_id: value.parse("vxlan-id", vni)?,
        vxlan_port: value.parse("vxlan-port", udp_port)?,
        direct_routing: value.switch("direct-routing")?,
        disable_tx_checksum: value.switch("disable-tx-checksum")?,
        dns: names::settings(&value)?,
        balancer_interfaces: value.list("lb-interface", interface)?,
        healthz_listen: value.list("healthz-listen", listener)?,
        metrics_listen: value.list("metrics-listen", listener)?,
        log_format: value.parse("log-format", log_format)?,
        log_level: value.parse("log-level", log_level)?,
        balancer_pools: pools::pools(values)?,
        warnings: Vec::new(),
    };
    one_per_family(values, &settings)?;
    names::check(values, &settings)?;
    together(values, &settings)?;
    settings.warnings = many::check(values, &settings)?;
    Ok(settings)
}

/// Of what is per IP family there is one each.
fn one_per_family(values: &Values, settings: &Settings) -> Result<(), Error> {
    one_a_family(values, "node-ip", settings.node_ips.iter().copied())?;
    one_a_family(values, "dns-vip", settings.dns.vips.iter().flatten().copied())?;
    for (name, networks) in [
        ("service-cidr", &settings.service_cidrs),
        ("cluster-cidr", &settings.cluster_cidrs),
        ("node-subnet", &settings.node_subnets),
    ] {
        one_a_family(values, name, networks.iter().map(IpNetwork::ip))?;
    }
    Ok(())
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
    /// What was given, else the default.
    fn get(&self, name: &str) -> Option<Given> {
        let default = || {
            let default = KEYS.iter().find(|key| key.name == name)?.default?;
            Some(Given { value: default.to_owned(), field: format!("--{name}") })
        };
        self.0.get(name).cloned().or_else(default)
    }

    fn optional<T>(
        &self,
        name: &str,
        parse: fn(&str) -> Result<T, Reason>,
    ) -> Result<Option<T>, Error> {
        let Some(given) = self.get(name) else { return Ok(None) };
        parse(given.value.trim()).map(Some).map_err(|reason| given.wrong(reason))
    }

    /// Of a setting with a default.
    fn parse<T>(&self, name: &str, parse: fn(&str) -> Result<T, Reason>) -> Result<T, Error> {
        let missing = || {
            let (field, value) = (format!("--{name}"), String::new());
            Error::Value { field, value, reason: "it has no default; give it".to_owned() }
        };
        self.optional(name, parse)?.ok_or_else(missing)
    }

    fn switch(&self, name: &str) -> Result<bool, Error> {
        Ok(self.optional(name, yes_or_no)?.unwrap_or_default())
    }

    fn list<T>(&self, name: &str, parse: fn(&str) -> Result<T, Reason>) -> Result<Vec<T>, Error> {
        let Some(given) = self.get(name) else { return Ok(Vec::new()) };
        let items = given.value.split(',').map(str::trim).filter(|item| !item.is_empty());
        items
            .map(|item| parse(item).map_err(|reason| given.wrong(format!("{item}: {reason}"))))
            .collect()
    }

    /// Text as it stands; an empty one is as good as none.
    fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|given| given.value.clone()).filter(|text| !text.is_empty())
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
