//! The only place that enters a network namespace, changes links, addresses, routes, neighbours,
//! FDB, sysctls or conntrack, or spawns a program.
//!
//! Calls block: a [`Netlink`] drives its rtnetlink connection on a current-thread tokio runtime
//! of its own. One call is one netlink request for one object; nothing on a busy path dumps.
//! Interrupted dumps (`NLM_F_DUMP_INTR`), `EBUSY`, `EAGAIN` and `ENOBUFS` are retried with backoff
//! a bounded number of times; [`Error::is_transient`] is then true (CNI code 11).

mod advertised;
mod announce;
mod clock;
mod closing;
mod conntrack;
mod iptables;
mod layer2;
mod link;
mod monitor;
mod neigh;
mod netlink;
mod netns;
mod netns_lock;
mod notify;
mod probe;
mod process;
mod retry;
mod route;
mod sysctl;
#[cfg(test)]
mod testing;
mod wait;
mod warn;

pub use advertised::{FORWARD_V6, accept_ra_before_forwarding};
pub use announce::ANNOUNCE_SYSCTLS;
pub use causeway_host::{Error, Result};
pub use closing::close_in_child;
pub use conntrack::{
    FlowFilter, NodePortAddresses, UdpFlows, UdpFrontend, UdpFrontendAt, answered_by, reconcile_udp,
};
pub use iptables::{Iptables, IptablesError, SYSTEM_PATH};
pub use layer2::{
    ArpFrame, Frame, FrameSocket, NdpFrame, NdpKind, Protocol, SolicitedGroups, solicited_node,
};
pub use link::localhost::LOCALHOST_REPLY;
pub use link::{
    BridgeSpec, Link, LinkChange, LinkKind, Mac, MacError, PortChange, PortState, VethSpec,
    VlanRange, VxlanAttributes,
};
pub use monitor::{Interest, Monitor};
pub use neigh::FdbEntry;
pub use netlink::Netlink;
pub use netns::{Netns, NetnsError, NetnsId, NetnsLife, own_netns};
pub use netns_lock::{Holder, NetnsLock};
pub use process::{Output, Program, run};
pub use route::{AddressSpec, AddressState, RouteSpec, Way};
pub use sysctl::Sysctl;
pub use wait::wait_readable;
pub use warn::{warn, warn_raw};
