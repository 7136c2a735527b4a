//! Where the cluster store answers: the parts of `http://172.18.0.10:2379`. Pure.

use std::net::IpAddr;

/// The host and port of an endpoint of the store, `http://172.18.0.10:2379`.
pub(crate) fn host(endpoint: &str) -> Option<(&str, u16)> {
    let (_, rest) = endpoint.split_once("://")?;
    let (host, port) = rest.rsplit_once(':')?;
    Some((host.trim_start_matches('[').trim_end_matches(']'), port.parse().ok()?))
}

/// Addresses of the store that are not names.
pub(crate) fn literals(endpoints: &[String]) -> impl Iterator<Item = IpAddr> {
    endpoints.iter().filter_map(|endpoint| host(endpoint)?.0.parse().ok())
}

/// Whether an endpoint is this machine alone.
pub(crate) fn is_loopback(endpoint: &str) -> bool {
    host(endpoint).is_some_and(|(host, _)| {
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}
