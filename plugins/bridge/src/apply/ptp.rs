//! The links and the host's side of an attachment without a bridge (`"mode": "ptp"`).

use causeway_kernel::{AddressSpec, Link, LinkChange};
use cni_plugin::{Code, Error};
use ipnetwork::IpNetwork;

use super::addresses::require_ipv6;
use super::links::best_effort;
use super::{AddContext, Links};
use crate::fault;
use crate::plan::{self, Addressing};
use crate::record::Record;
use crate::undo::{Done, Undo};

impl<'a> AddContext<'a> {
    /// The veth pair, up.
    pub(super) fn ptp_links(
        &self,
        record: &mut Record,
        undo: &mut Undo<'a>,
    ) -> Result<Links, Error> {
        self.veth(record, None, self.mtu(None)?)?;
        undo.push(Done::Veth(record.host_ifname.clone()));
        let (host, container) = self.ends(record)?;
        // While a link-local address is tentative, no neighbour is solicited for packets that are
        // forwarded (`ndisc_send_ns` in net/ipv6/ndisc.c): hence before the link is up.
        let conf = |key: &str| (format!("net/ipv6/conf/{}/{key}", host.name), "0");
        best_effort(&[conf("accept_ra"), conf("accept_dad")]);
        self.guard_localhost(&host);
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        self.host.change_link(host.index, &up).map_err(fault::kernel)?;
        self.container_up(&container)?;
        Ok(Links { bridge: None, host, container, foreign_ports: false })
    }

    /// Gateway addresses, routes to the container and forwarding on the host.
    pub(super) fn configure_host_end(
        &self,
        link: &Link,
        addressing: &Addressing,
    ) -> Result<(), Error> {
        if addressing.has_ipv6() {
            require_ipv6(&[(format!("net/ipv6/conf/{}/disable_ipv6", link.name), "0")])?;
        }
        for &address in &addressing.gateways {
            // Nobody else is on the link.
            let spec = AddressSpec { address, nodad: true };
            self.host.add_address(link.index, &spec).map_err(fault::kernel)?;
        }
        for route in plan::ptp::host_routes(&addressing.addresses(), link.index) {
            self.host.add_route(&route).map_err(|error| taken(error, route.dst))?;
        }
        self.forward(addressing)
    }
}

/// Why the host cannot have a route to the container.
fn taken(error: causeway_kernel::Error, address: IpNetwork) -> Error {
    if !error.is_exists() {
        return fault::kernel(error);
    }
    let msg = format!(
        "this host already has a route to {address}; see `ip route show {address}`: remove that \
         route, or exclude the address in ipam"
    );
    Error::caused(Code::Io, msg, &error.source)
}
