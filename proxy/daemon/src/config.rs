//! Settings: flags over `CAUSEWAY_*` environment over file over defaults (DESIGN 5.2).

mod check;
mod file;
mod given;
mod invocation;
mod keys;
pub(crate) mod store_url;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use causeway_model::allocate::BalancerPool;
use causeway_model::{Labels, Protocol};
use causeway_ruleset::plan::NodePortAddresses;
use causeway_source::cluster::{Secret, Tls};
use ipnetwork::IpNetwork;
use tracing::level_filters::LevelFilter;

pub(crate) use invocation::{CleanupArgs, Invocation, invocation};
pub(crate) use keys::command;

/// Checked settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `--node-name`; the host's name if it is not given.
    pub node_name: Option<String>,
    /// `--node-ip`, at most one per IP family; the default routes' addresses if it is not given.
    pub node_ips: Vec<IpAddr>,
    /// `--node-labels`
    pub node_labels: Labels,
    /// `--run-dir`: socket, `node.json`, records of attachments.
    pub run_dir: PathBuf,
    /// `--state-dir`: store, spool, what was changed on the host.
    pub state_dir: PathBuf,
    /// `--manifest-dir`
    pub manifest_dir: PathBuf,
    /// `--containerd-socket`; it may be absent, and is off when empty.
    pub containerd_socket: PathBuf,
    /// `--image-labels`: labels of an image count as labels of its containers.
    pub image_labels: bool,
    /// `--service-cidr`, at most one per IP family.
    pub service_cidrs: Vec<IpNetwork>,
    /// `--cluster-cidr`, at most one per IP family.
    pub cluster_cidrs: Vec<IpNetwork>,
    /// They are not the default.
    pub cluster_chosen: bool,
    /// `--node-subnet-len`, for IPv4.
    pub node_subnet_len: u8,
    /// `--node-subnet`
    pub node_subnets: Vec<IpNetwork>,
    /// `--node-port-range`, first and last.
    pub node_port_range: (u16, u16),
    /// `--backend`
    pub backend: BackendKind,
    /// `--nodeport-addresses`
    pub node_port_addresses: NodePorts,
    /// `--masquerade-all`
    pub masquerade_all: bool,
    /// `--dead-grace`: how long what a container owned is kept that is gone without DEL.
    pub dead_grace: Duration,
    /// `--store`
    pub store: StoreKind,
    /// `--etcd-endpoints`
    pub etcd_endpoints: Vec<String>,
    /// `--etcd-prefix`
    pub etcd_prefix: String,
    /// `--etcd-cafile`, `--etcd-certfile`, `--etcd-keyfile`
    pub etcd_tls: Tls,
    /// `--etcd-username`, `--etcd-password`
    pub etcd_user: Option<(String, Secret)>,
    /// `--endpoint-ttl`
    pub endpoint_ttl: Duration,
    /// `--subnet-ttl`
    pub subnet_ttl: Duration,
    /// `--peers-file`
    pub peers_file: Option<PathBuf>,
    /// `--overlay`
    pub overlay: OverlayKind,
    /// `--vxlan-id`
    pub vxlan_id: u32,
    /// `--vxlan-port`
    pub vxlan_port: u16,
    /// `--direct-routing`
    pub direct_routing: bool,
    /// `--disable-tx-checksum`: the vxlan device computes no checksums in hardware (row O-16).
    pub disable_tx_checksum: bool,
    /// `--protected-ports`: ports that no service takes on addresses of nodes and of the store, beside
    /// those that are known.
    pub protected_ports: Vec<(Protocol, u16)>,
    /// `--dns-..`: the name server.
    pub dns: DnsSettings,
    /// `--lb-interface`; empty: chosen by the address.
    pub balancer_interfaces: Vec<String>,
    /// `--lb-pool`, or `[[lb_pool]]` of the file.
    pub balancer_pools: Vec<BalancerPool>,
    /// `--healthz-listen`; off when empty.
    pub healthz_listen: Vec<SocketAddr>,
    /// `--metrics-listen`; off when empty.
    pub metrics_listen: Vec<SocketAddr>,
    /// `--log-format`
    pub log_format: LogFormat,
    /// Least weight of a line.
    pub log_level: LogLevel,
    /// Things about where settings stand that keep nothing from working: a password that everybody
    /// on this machine can read.
    pub warnings: Vec<String>,
}

impl Settings {
    /// The socket that plugins and the command line use.
    pub(crate) fn socket(&self) -> PathBuf {
        self.run_dir.join("causeway.sock")
    }

    /// Service addresses at which names are answered; none unless the name server looks for its
    /// addresses itself.
    pub(crate) fn dns_vips(&self) -> Vec<IpAddr> {
        /// Of a service network; Kubernetes' installers have it so.
        const TENTH: u32 = 10;
        if self.dns.listen != DnsListen::Auto {
            return Vec::new();
        }
        let tenth = |network: &IpNetwork| match network {
            IpNetwork::V4(network) => network.nth(TENTH).map(IpAddr::V4),
            IpNetwork::V6(network) => {
                let address = u128::from(network.network()) + u128::from(TENTH);
                Some(IpAddr::V6(address.into()))
                    .filter(|one| self.service_cidrs.iter().any(|all| all.contains(*one)))
            }
        };
        let tenths = || self.service_cidrs.iter().filter_map(tenth).collect();
        self.dns.vips.clone().unwrap_or_else(tenths)
    }

    /// Where plugins leave events while no daemon answers.
    pub(crate) fn spool(&self) -> PathBuf {
        self.state_dir.join("spool")
    }
}

/// `--backend`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BackendKind {
    /// nf_tables by netlink.
    Nftables,
    /// `iptables-restore`.
    Iptables,
}

impl BackendKind {
    /// As users write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

/// `--store`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreKind {
    /// On this node's disk.
    Embedded,
    /// Shared, over etcd.
    Etcd,
}

impl StoreKind {
    /// As users write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Etcd => "etcd",
        }
    }
}

/// `--overlay`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OverlayKind {
    /// Something else routes between nodes.
    None,
    /// Encapsulated.
    Vxlan,
    /// Plain routes.
    HostGw,
}

impl OverlayKind {
    /// As users write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Vxlan => "vxlan",
            Self::HostGw => "host-gw",
        }
    }
}

/// `--dns-..`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DnsSettings {
    /// `--dns-listen`
    pub listen: DnsListen,
    /// `--dns-domain`, in lower case, without the dot at its end.
    pub domain: String,
    /// `--dns-upstream`; those of the host's resolv.conf if it is empty.
    pub upstreams: Vec<SocketAddr>,
    /// `--dns-ttl`, seconds.
    pub ttl: u32,
    /// `--dns-vip`, at most one per IP family; `None`: the tenth of each service network.
    pub vips: Option<Vec<IpAddr>>,
}

/// `--dns-listen`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DnsListen {
    /// At the gateway addresses of this node's networks, and at the service address.
    Auto,
    /// Nowhere.
    Off,
    /// At these.
    At(Vec<SocketAddr>),
}

/// `--nodeport-addresses`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NodePorts {
    /// The node's own addresses, looked up at start.
    Primary,
    /// As planning knows it.
    Planned(NodePortAddresses),
}

/// `--log-format`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// A line for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Least weight of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogLevel {
    /// What does not work.
    Error,
    /// And what to know of.
    Warn,
    /// And what happens.
    Info,
    /// And how.
    Debug,
}

impl LogLevel {
    /// As the log has it.
    pub(crate) fn filter(self) -> LevelFilter {
        match self {
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
        }
    }
}

/// A setting that cannot be used. Usage: exit code 2.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A named file that is not there, or one that cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML.
    #[error("{}: not TOML: line {line}: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// Why.
        reason: String,
    },
    /// A key that nobody reads.
    #[error("{}: unknown key {key}{}", path.display(), hint(suggestion.as_deref()))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// One that is spelled alike.
        suggestion: Option<String>,
    },
    /// A value that is wrong.
    #[error("{field}: {value:?}: {reason}")]
    Value {
        /// Flag, variable, or file and key.
        field: String,
        /// The value that stands there.
        value: String,
        /// What is wrong with it and what would be right.
        reason: String,
    },
}

fn hint(suggestion: Option<&str>) -> String {
    suggestion.map(|key| format!("; did you mean {key}?")).unwrap_or_default()
}

#[cfg(test)]
mod tests;
