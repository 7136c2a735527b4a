//! Small nf_tables tables that are the same whatever the backend is, kept as they are wanted.

use causeway_nft::Client;
use causeway_ruleset::{Batch, Op, TableId, TableState, address_table};

/// The connection to nf_tables.
#[derive(Debug)]
pub(crate) struct Tables {
    /// Said once if the kernel has no nf_tables.
    without: &'static str,
    /// `None`: not asked yet; `Some(None)`: the kernel has none.
    client: Option<Option<Client>>,
}

impl Tables {
    /// Not connected yet. `without` says what it means if the kernel has no nf_tables.
    pub(crate) fn new(without: &'static str) -> Self {
        Self { without, client: None }
    }

    /// Makes the kernel hold these tables; `None`: it is not to be there.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn keep(
        &mut self,
        wanted: [(TableId, Option<TableState>); 2],
    ) -> causeway_nft::Result<()> {
        let kept = self.try_keep(wanted);
        if kept.is_err() {
            // It may be the connection's fault.
            self.client = None;
        }
        kept
    }

    fn try_keep(&mut self, wanted: [(TableId, Option<TableState>); 2]) -> causeway_nft::Result<()> {
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert(open(self.without)?),
        };
        let Some(client) = client else { return Ok(()) };
        for (id, state) in wanted {
            let actual = client.table(&id)?;
            let batch = address_table::diff(&id, actual.as_ref(), state.as_ref());
            if !batch.ops.is_empty() {
                client.commit(&batch)?;
            }
        }
        Ok(())
    }
}

fn open(without: &str) -> causeway_nft::Result<Option<Client>> {
    let client = Client::open_if_supported()?;
    if client.is_none() {
        tracing::warn!("this kernel has no nf_tables: {without}");
    }
    Ok(client)
}

/// Removes what an earlier run left, or only looks. Says what.
pub(crate) fn remove(ids: [TableId; 2], dry_run: bool) -> Vec<String> {
    let Ok(Some(mut client)) = Client::open_if_supported() else { return Vec::new() };
    let mut removed = Vec::new();
    for (id, family) in ids.into_iter().zip(["ip", "ip6"]) {
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
