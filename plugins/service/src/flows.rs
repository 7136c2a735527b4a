//! UDP flows in conntrack. An entry keeps sending a client's packets where it once sent them, so a
//! client that never pauses does not notice a new container behind a host port, nor that the old
//! one is gone (row F45).

use causeway_kernel::{FlowFilter, delete_udp_flows};

use crate::attachment::warn;
use crate::mapping::{Binding, Protocol};

/// Forgets flows to the host ports of `bindings`. Called once their rules are in place.
pub(crate) fn forget_host_ports(bindings: &[Binding]) {
    forget(bindings, |binding| FlowFilter::HostPort {
        address: binding.host,
        ipv6: binding.target.is_ipv6(),
        port: binding.host_port,
    });
}

/// Forgets flows that were translated to the containers of `bindings`. Called once their rules are
/// gone.
pub(crate) fn forget_containers(bindings: &[Binding]) {
    forget(bindings, |binding| FlowFilter::Container {
        address: binding.target.ip(),
        port: binding.target.port(),
    });
}

fn forget(bindings: &[Binding], filter: impl Fn(&Binding) -> FlowFilter) {
    let filters: Vec<FlowFilter> =
        bindings.iter().filter(|one| one.protocol == Protocol::Udp).map(filter).collect();
    if filters.is_empty() {
        return;
    }
    // A stale flow ends by itself; that it lives on must not fail an attachment.
    if let Err(error) = delete_udp_flows(&filters) {
        let error = cni_plugin::Error::caused(cni_plugin::Code::Io, "forget UDP flows", &error);
        warn(&error.to_string());
    }
}
