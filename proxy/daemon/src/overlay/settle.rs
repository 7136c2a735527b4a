//! One look: what the kernel holds, what it should, and the steps from the one to the other.

use std::collections::BTreeSet;
use std::net::IpAddr;

use causeway_kernel::{Interest, Monitor, Netlink};
use causeway_overlay::{ROUTE_PROTOCOL, VxlanLink};

use super::OverlayThread;
use super::apply::StepRunner;
use super::look::{Found, facts, is_ours, see, underlay};

impl OverlayThread {
    /// Makes the kernel hold what it should. In words, what failed.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        if self.kernel.is_none() {
            self.kernel = Some(open().map_err(|error| causeway_api::chain(&error))?);
        }
        let (Some((netlink, _)), Some(target)) = (&self.kernel, &self.target) else {
            return Ok(());
        };
        let chain = |error: causeway_kernel::Error| causeway_api::chain(&error);
        // Until it is known which links matter, all do.
        self.interest = Interest { links: BTreeSet::new(), protocol: ROUTE_PROTOCOL };
        let found = underlay(netlink, &target.ips, &target.peers).map_err(chain)?;
        let Found { underlay, name, links } = found.ok_or_else(|| nowhere(&target.ips))?;
        self.interest.links.extend(links);
        let facts = facts(netlink, &self.config, target, underlay);
        let wanted = causeway_overlay::plan(&facts);
        let seen = see(netlink, &self.config.mode, wanted.link.as_ref()).map_err(chain)?;
        self.interest.links.extend(seen.held.link.as_ref().map(|link| link.index));
        let mut steps = causeway_overlay::diff(&seen.held, &wanted, facts.underlay.index);
        steps.retain(|step| target.allow(step));
        // What differs though nothing else is wanted than before was changed by others.
        let before = self.settled.as_ref();
        let repair = before == Some(&(wanted.clone(), target.complete));
        let swept = before.is_some_and(|(_, complete)| *complete);
        // Before others can send by what was taken here.
        let guarded = if target.complete { self.guard.keep(&wanted).err() } else { None };
        let mut runner = StepRunner::new(netlink, &wanted, seen, facts.underlay.index);
        runner.guarded = self.config.guarded;
        let failures = guarded.into_iter().chain(runner.take(&steps, repair));
        self.interest.links.extend(runner.device());
        let failures = failures.chain(runner.tune(self.config.no_tx_checksum).err());
        let mut failures: Vec<String> = failures.collect();
        if !swept && failures.is_empty() && target.complete {
            let others = remove_others(netlink, wanted.link.as_ref());
            failures.extend(others.map_err(chain).err());
        }
        if repair {
            self.state.repairs += steps.len() as u64;
        }
        self.state.underlay = name;
        self.state.vtep = wanted.link.as_ref().map(|link| link.mac);
        self.state.mtu = wanted.mtu;
        self.state.problems.clone_from(&wanted.problems);
        self.settled = Some((wanted, target.complete));
        if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
    }
}

/// Why there is no underlay.
fn nowhere(ips: &[IpAddr]) -> String {
    match ips.first() {
        Some(ip) => format!(
            "no device of this node carries its address {ip}; give the right one (--node-ip, or ip \
             in the peers file), or restart causewayd if it has changed"
        ),
        None => "this node has no address; give --node-ip".to_owned(),
    }
}

fn open() -> causeway_kernel::Result<(Netlink, Monitor)> {
    let netlink = Netlink::open()?;
    let monitor = Monitor::new(&netlink)?;
    Ok((netlink, monitor))
}

/// Removes devices that other settings made (`--vxlan-id`).
fn remove_others(netlink: &Netlink, wanted: Option<&VxlanLink>) -> causeway_kernel::Result<()> {
    for link in netlink.links()?.iter().filter(|link| is_ours(link)) {
        if wanted.is_none_or(|wanted| wanted.name != link.name) {
            tracing::info!("overlay: remove {}, which other settings made", link.name);
            netlink.delete_link(link.index)?;
        }
    }
    Ok(())
}
