//! A bridge whose node got another subnet or another overlay (`"subnet": "auto"`, `node.json`):
//! it takes the new gateway and MTU, and keeps what containers of before still need.

use std::time::Duration;

use causeway_host::{FileLock, paths};
use causeway_kernel::{AddressState, Link, LinkChange};
use cni_plugin::Error;
use ipnetwork::IpNetwork;

use super::AddContext;
use crate::record::Record;
use crate::{fault, plan};

/// How long to wait for another ADD that compares addresses with records.
const LOCK_WAIT: Duration = Duration::from_secs(10);

impl AddContext<'_> {
    /// Serialises those who compare the bridge's addresses with records: our record is written, so
    /// whoever comes after us sees it, and we see what he took off.
    pub(super) fn lock_gateways(&self) -> Result<FileLock, Error> {
        FileLock::acquire(&paths::gateways_lock(&self.config.run_dir), LOCK_WAIT)
            .map_err(fault::kernel)
    }

    /// Takes the gateways of older subnets off `link`, as far as no container uses them, and
    /// returns the addresses that are none of these. Call it while holding the lock.
    pub(super) fn retire_gateways(
        &self,
        link: &Link,
        wanted: &[IpNetwork],
        present: &[AddressState],
    ) -> Result<Vec<IpNetwork>, Error> {
        let old = plan::old_gateways(wanted, present);
        let others = present.iter().map(|state| state.address);
        let others = others.filter(|address| !old.contains(address)).collect();
        if old.is_empty() {
            return Ok(others);
        }
        let attached = self.others_on_bridge();
        let used = |gateway: &IpNetwork| match &attached {
            Some(records) => records
                .iter()
                .any(|record| record.addresses.iter().any(|one| gateway.contains(one.ip()))),
            None => true,
        };
        let (kept, retired): (Vec<IpNetwork>, Vec<_>) = old.into_iter().partition(used);
        for address in retired {
            self.host.delete_address(link.index, address).map_err(fault::kernel)?;
        }
        for address in kept {
            fault::warn(&format!(
                "{} keeps {address} of an earlier subnet of this node, because containers use it; \
                 they keep working on this node; recreate them to move them to the new subnet",
                link.name
            ));
        }
        Ok(others)
    }

    /// Gives `bridge` the `overlay`'s MTU if it is ours, and returns the one for the container.
    /// Containers of before keep theirs: below it the bridge only grows with none of them, as it
    /// would pass on what their ports then drop.
    pub(super) fn follow_overlay(&self, bridge: &mut Link, overlay: u32) -> Result<u32, Error> {
        if bridge.mtu == overlay || !is_ours(bridge) {
            return Ok(overlay);
        }
        if bridge.mtu < overlay && self.others_on_bridge().is_none_or(|others| !others.is_empty()) {
            return Ok(bridge.mtu);
        }
        let change = LinkChange { mtu: Some(overlay), ..LinkChange::default() };
        self.host.change_link(bridge.index, &change).map_err(fault::kernel)?;
        bridge.mtu = overlay;
        Ok(overlay)
    }

    /// Records of the other attachments to our bridge, of any network. `None` if that cannot
    /// be told: then anything may be in use.
    fn others_on_bridge(&self) -> Option<Vec<Record>> {
        let mut records: Vec<Record> = match self.records.all() {
            Ok(records) => records,
            Err(error) => {
                fault::warn(&fault::kernel(error));
                return None;
            }
        };
        records.retain(|record| record.bridge == self.config.bridge && record.key != *self.key);
        Some(records)
    }
}

/// Whether we made the bridge: what another program made is not ours to change.
pub(super) fn is_ours(bridge: &Link) -> bool {
    bridge.alias.as_deref() == Some(paths::BRIDGE_ALIAS)
}
