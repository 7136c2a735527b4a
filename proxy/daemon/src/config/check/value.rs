//! One value's text to its value, or why it has none.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use causeway_model::Protocol;
use causeway_ruleset::plan::NodePortAddresses;
use ipnetwork::IpNetwork;

use crate::config::{BackendKind, LogFormat, LogLevel, NodePorts, OverlayKind, StoreKind};

/// Why a value is wrong.
pub(super) type Reason = String;

pub(super) fn node_name(text: &str) -> Result<String, Reason> {
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
    Err("not a valid Kubernetes name: use lower-case letters, digits, - and ., at most 253".into())
}

pub(super) fn address(text: &str) -> Result<IpAddr, Reason> {
    text.parse().map_err(|_| "not an IP address".into())
}

pub(super) fn listener(text: &str) -> Result<SocketAddr, Reason> {
    text.parse().map_err(|_| "not ADDRESS:PORT, such as 127.0.0.1:10249 or [::1]:10249".into())
}

pub(super) fn path(text: &str) -> Result<PathBuf, Reason> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err("not an absolute path; begin it with /".into()) }
}

pub(super) fn path_or_none(text: &str) -> Result<PathBuf, Reason> {
    if text.is_empty() { Ok(PathBuf::new()) } else { path(text) }
}

pub(super) fn label(text: &str) -> Result<(String, String), Reason> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        Some(_) | None => Err("not KEY=VALUE".into()),
    }
}

pub(super) fn network(text: &str) -> Result<IpNetwork, Reason> {
    let parsed = text.contains('/').then(|| text.parse::<IpNetwork>().ok()).flatten();
    let network = parsed.ok_or("not a network; write ADDRESS/LENGTH, such as 10.96.0.0/16")?;
    if network.ip() != network.network() {
        let right = format!("{}/{}", network.network(), network.prefix());
        return Err(format!("has host bits set; write {right}"));
    }
    Ok(network)
}

/// Name of a link (`dev_valid_name` of the kernel).
pub(super) fn interface(text: &str) -> Result<String, Reason> {
    let whole = !text.contains(['/', ':']) && !text.contains(char::is_whitespace);
    match whole && (1..16).contains(&text.len()) && text != "." && text != ".." {
        true => Ok(text.to_owned()),
        false => Err("not the name of an interface, such as eth0".into()),
    }
}

pub(super) fn subnet_len(text: &str) -> Result<u8, Reason> {
    match text.parse() {
        Ok(length @ 8..=30) => Ok(length),
        Ok(_) | Err(_) => Err("not a length between 8 and 30".into()),
    }
}

pub(super) fn port_range(text: &str) -> Result<(u16, u16), Reason> {
    let ends = text.split_once('-').and_then(|(from, to)| {
        Some((from.trim().parse::<u16>().ok()?, to.trim().parse::<u16>().ok()?))
    });
    match ends {
        Some((from, to)) if from > 0 && from <= to => Ok((from, to)),
        Some(_) | None => Err("not FROM-TO with ports from 1 to 65535, such as 30000-32767".into()),
    }
}

pub(super) fn backend(text: &str) -> Result<BackendKind, Reason> {
    match text {
        "nftables" => Ok(BackendKind::Nftables),
        "iptables" => Ok(BackendKind::Iptables),
        _ => Err("neither nftables nor iptables".into()),
    }
}

pub(super) fn node_ports(text: &str) -> Result<NodePorts, Reason> {
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

/// `2222`, TCP and UDP, or `51820/udp`.
pub(super) fn protected_ports(text: &str) -> Result<Vec<(Protocol, u16)>, Reason> {
    let shape = || "not PORT or PORT/PROTOCOL, such as 2222 or 51820/udp".to_owned();
    let (port, protocol) = match text.split_once('/') {
        Some((port, protocol)) => (port, Some(protocol.to_ascii_lowercase())),
        None => (text, None),
    };
    let port = udp_port(port).map_err(|_| shape())?;
    let protocols = match protocol.as_deref() {
        None => vec![Protocol::Tcp, Protocol::Udp],
        Some("tcp") => vec![Protocol::Tcp],
        Some("udp") => vec![Protocol::Udp],
        Some("sctp") => vec![Protocol::Sctp],
        Some(_) => return Err(shape()),
    };
    Ok(protocols.into_iter().map(|protocol| (protocol, port)).collect())
}

pub(super) fn store(text: &str) -> Result<StoreKind, Reason> {
    match text {
        "embedded" => Ok(StoreKind::Embedded),
        "etcd" => Ok(StoreKind::Etcd),
        "kubernetes" => Err("not supported in this version; use embedded or etcd".into()),
        _ => Err("neither embedded nor etcd".into()),
    }
}

pub(super) fn overlay_kind(text: &str) -> Result<OverlayKind, Reason> {
    match text {
        "none" => Ok(OverlayKind::None),
        "vxlan" => Ok(OverlayKind::Vxlan),
        "host-gw" => Ok(OverlayKind::HostGw),
        _ => Err("neither none nor vxlan nor host-gw".into()),
    }
}

pub(super) fn url(text: &str) -> Result<String, Reason> {
    let shape = || "not http://HOST:PORT or https://HOST:PORT, such as http://172.18.0.10:2379";
    let (scheme, rest) = text.split_once("://").ok_or_else(shape)?;
    let (host, port) = rest.trim_end_matches('/').rsplit_once(':').ok_or_else(shape)?;
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let known = match bracketed {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(named),
    };
    let reachable = matches!(port.parse::<u16>(), Ok(1..));
    if matches!(scheme, "http" | "https") && known && reachable {
        return Ok(format!("{scheme}://{host}:{port}"));
    }
    Err(shape().into())
}

pub(super) fn prefix(text: &str) -> Result<String, Reason> {
    let text = text.trim_end_matches('/');
    if text.starts_with('/') && !text.contains("//") {
        return Ok(text.to_owned());
    }
    Err("not a valid key prefix; begin it with /, as in /causeway".into())
}

/// Seconds, or a number with `s`, `m` or `h`.
pub(super) fn duration(text: &str) -> Result<Duration, Reason> {
    let (number, unit) = match text.trim_end_matches(char::is_alphabetic) {
        number if number.len() == text.len() => (number, "s"),
        number => (number, &text[number.len()..]),
    };
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("not a duration; write 40s, 10m or 24h".into()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    match seconds {
        Some(seconds @ 2..=31_536_000) => Ok(Duration::from_secs(seconds)),
        Some(_) => Err("not between 2 s and a year".into()),
        None => Err("not a duration; write 40s, 10m or 24h".into()),
    }
}

pub(super) fn vni(text: &str) -> Result<u32, Reason> {
    match text.parse() {
        Ok(id @ 1..=16_777_215) => Ok(id),
        Ok(_) | Err(_) => Err("not a number from 1 to 16777215".into()),
    }
}

pub(super) fn udp_port(text: &str) -> Result<u16, Reason> {
    match text.parse() {
        Ok(port @ 1..) => Ok(port),
        Ok(_) | Err(_) => Err("not a port from 1 to 65535".into()),
    }
}

pub(super) fn yes_or_no(text: &str) -> Result<bool, Reason> {
    text.parse().map_err(|_| "neither true nor false".into())
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, Reason> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("neither text nor json".into()),
    }
}

pub(super) fn log_level(text: &str) -> Result<LogLevel, Reason> {
    match text {
        "error" => Ok(LogLevel::Error),
        "warn" => Ok(LogLevel::Warn),
        "info" => Ok(LogLevel::Info),
        "debug" => Ok(LogLevel::Debug),
        _ => Err("not one of error, warn, info, debug".into()),
    }
}
