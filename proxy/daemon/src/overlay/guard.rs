//! Who may send to the tunnel's port, in nf_tables, whatever the backend is. A kernel without
//! nf_tables has no such rule: one that costs each packet a look through all peers is no better.

use causeway_nft::Client;
use causeway_overlay::Wanted;
use causeway_ruleset::{Batch, Op, TableId, tunnel};

/// What it consists of, to be told when others remove it.
pub(super) fn tables() -> Vec<TableId> {
    [false, true].map(tunnel::table).to_vec()
}

/// The connection to nf_tables.
#[derive(Debug, Default)]
pub(super) struct Guard {
    /// `None`: not asked yet; `Some(None)`: the kernel has none.
    client: Option<Option<Client>>,
}

impl Guard {
    /// Makes the kernel hold what is wanted, and nothing if there is no tunnel.
    pub(super) fn keep(&mut self, wanted: &Wanted) -> Result<(), String> {
        let kept = self.try_keep(wanted);
        if kept.is_err() {
            // It may be the connection's fault.
            self.client = None;
        }
        kept.map_err(|error| format!("guard the overlay's port: {}", causeway_api::chain(&error)))
    }

    fn try_keep(&mut self, wanted: &Wanted) -> causeway_nft::Result<()> {
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert(open()?),
        };
        let Some(client) = client else { return Ok(()) };
        for ipv6 in [false, true] {
            let link = wanted.link.as_ref().filter(|link| link.local.is_ipv6() == ipv6);
            let state = link.map(|link| tunnel::state(ipv6, link.port, link.id, &wanted.sources));
            let id = tunnel::table(ipv6);
            let actual = client.table(&id)?;
            let batch = tunnel::diff(&id, actual.as_ref(), state.as_ref());
            if !batch.ops.is_empty() {
                client.commit(&batch)?;
            }
        }
        Ok(())
    }
}

fn open() -> causeway_nft::Result<Option<Client>> {
    let client = Client::open_if_supported()?;
    if client.is_none() {
        tracing::warn!(
            "this kernel has no nf_tables: whoever reaches the overlay's port can send to containers"
        );
    }
    Ok(client)
}

/// Removes what an earlier run left, or only looks. Says what.
pub(super) fn remove(dry_run: bool) -> Vec<String> {
    let Ok(Some(mut client)) = Client::open_if_supported() else { return Vec::new() };
    let mut removed = Vec::new();
    for (ipv6, family) in [(false, "ip"), (true, "ip6")] {
        let id = tunnel::table(ipv6);
        let name = format!("nftables table {family} {}", id.name);
        let gone = match dry_run {
            true => client.table(&id).is_ok_and(|found| found.is_some()),
            false => {
                let batch = Batch { ops: vec![Op::DeleteTable(id)], generation: None };
                client.commit(&batch).is_ok()
            }
        };
        removed.extend(gone.then_some(name));
    }
    removed
}
