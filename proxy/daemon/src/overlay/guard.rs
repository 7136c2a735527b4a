//! Who may send to the tunnel's port, in nf_tables, whatever the backend is. A kernel without
//! nf_tables has no such rule: one that costs each packet a look through all peers is no better.

use causeway_overlay::Wanted;
use causeway_ruleset::{TableId, tunnel};

use crate::tables::{self, Tables};

/// What it consists of, to be told when others remove it.
pub(super) fn tables() -> Vec<TableId> {
    [false, true].map(tunnel::table).to_vec()
}

/// The rules.
#[derive(Debug)]
pub(super) struct Guard(Tables);

impl Default for Guard {
    fn default() -> Self {
        Self(Tables::new("whoever reaches the overlay's port can send to containers"))
    }
}

impl Guard {
    /// Makes the kernel hold what is wanted, and nothing if there is no tunnel.
    pub(super) fn keep(&mut self, wanted: &Wanted) -> Result<(), String> {
        let tables = [false, true].map(|ipv6| {
            let link = wanted.link.as_ref().filter(|link| link.local.is_ipv6() == ipv6);
            let state = link.map(|link| tunnel::state(ipv6, link.port, link.id, &wanted.sources));
            (tunnel::table(ipv6), state)
        });
        let kept = self.0.keep(tables);
        kept.map_err(|error| format!("guard the overlay's port: {}", causeway_api::chain(&error)))
    }
}

/// Removes what an earlier run left, or only looks. Says what.
pub(super) fn remove(dry_run: bool) -> Vec<String> {
    tables::remove([false, true].map(tunnel::table), dry_run)
}
