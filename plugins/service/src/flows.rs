//! UDP flows in conntrack. An entry keeps sending a client's packets where it once sent them, so a
//! client that never pauses does not notice a new container behind a host port, nor that the old
//! one is gone (row F45).

use causeway_kernel::{FlowFilter, Netlink, UdpFlows};

use crate::failure::warn;
use crate::mapping::{Binding, Protocol};

/// Forgets flows to the host ports of `bindings`. Called once their rules are in place. Flows to
/// other machines' ports of the same number stay.
pub(crate) fn forget_host_ports(bindings: &[Binding]) {
    forget(&of_host_ports(bindings));
}

fn of_host_ports(bindings: &[Binding]) -> Vec<FlowFilter> {
    let mut all = Vec::new();
    for ipv6 in [false, true] {
        let udp = |one: &&Binding| one.protocol == Protocol::Udp && one.target.is_ipv6() == ipv6;
        let udp: Vec<&Binding> = bindings.iter().filter(udp).collect();
        let mut local = Vec::new();
        if udp.iter().any(|binding| binding.host.is_none()) {
            match Netlink::open().and_then(|netlink| netlink.local_addresses(ipv6)) {
                Ok(addresses) => local = addresses,
                Err(error) => complain(&error),
            }
        }
        all.extend(udp.iter().flat_map(|binding| {
            let hosts = binding.host.as_ref().map_or(local.as_slice(), std::slice::from_ref);
            hosts.iter().map(|host| FlowFilter::HostPort {
                address: Some(*host),
                ipv6,
                port: binding.host_port,
            })
        }));
    }
    all
}

/// Forgets flows that were translated to the containers of `bindings`. Called once their rules are
/// gone.
pub(crate) fn forget_containers(bindings: &[Binding]) {
    let udp = bindings.iter().filter(|one| one.protocol == Protocol::Udp);
    let filter = |binding: &Binding| FlowFilter::Container {
        address: binding.target.ip(),
        port: binding.target.port(),
    };
    forget(&udp.map(filter).collect::<Vec<_>>());
}

fn forget(filters: &[FlowFilter]) {
    if filters.is_empty() {
        return;
    }
    let forgotten = UdpFlows::open().and_then(|flows| {
        let Some(flows) = flows else { return Ok(0) };
        let deleted = flows.delete(filters);
        if causeway_nft::is_one_operation() {
            // Closed by the end of the process, as the connection to nf_tables is: after deletions
            // there, closing any netfilter socket waits for the kernel.
            std::mem::forget(flows);
        }
        deleted
    });
    if let Err(error) = forgotten {
        complain(&error);
    }
}

/// A stale flow ends by itself; that it lives on must not fail an attachment.
fn complain(error: &causeway_kernel::Error) {
    let error = cni_plugin::Error::caused(cni_plugin::Code::Io, "delete UDP flows", error);
    warn(&error.to_string());
}
