//! nf_tables: one transaction per change.

use causeway_model::IpFamily;
use causeway_nft::{Client, Monitor};
use causeway_ruleset::plan::{Delta, Plan};
use causeway_ruleset::services::{self, TableMirror, Tables};
use causeway_ruleset::{Batch, Op, TableId};

use super::{Error, Result};

/// Times that reading and comparing starts over because another process committed in between.
const ATTEMPTS: u32 = 8;

/// The connection and what is in the tables.
#[derive(Debug)]
pub(crate) struct Nftables {
    client: Client,
    /// `None` until the tables are known to be whole.
    mirror: Option<TableMirror>,
}

impl Nftables {
    /// A connection, tried out.
    ///
    /// # Errors
    /// No nf_tables here, or no permission.
    pub(super) fn open() -> Result<Self> {
        let mut client = Client::open().map_err(unusable)?;
        client.generation().map_err(unusable)?;
        Ok(Self { client, mirror: None })
    }

    /// A connection to the fake.
    #[cfg(test)]
    pub(super) fn of(fake: &causeway_nft::Fake) -> Self {
        Self { client: Client::of_fake(fake), mirror: None }
    }

    pub(super) fn full_sync(&mut self, plan: &Plan) -> Result<bool> {
        for _ in 0..ATTEMPTS {
            let generation = self.client.generation().map_err(unreadable)?;
            let actual = self.read()?;
            let mut batch = services::diff(Some(&actual), &services::compile(plan));
            drop(actual);
            let differs = !batch.ops.is_empty();
            if !differs && self.mirror.is_some() {
                return Ok(false);
            }
            self.mirror = None;
            batch.generation = Some(generation);
            match self.client.commit(&batch) {
                Ok(()) => {
                    self.mirror = Some(TableMirror::new(plan));
                    return Ok(differs);
                }
                // Another process committed in between: what was read may be old.
                Err(error) if error.is_transient() => {}
                Err(error) => return Err(refused(error)),
            }
        }
        let busy = "other processes keep changing rules; causewayd retries";
        Err(Error::new("nftables: write the service tables", busy).passing())
    }

    pub(super) fn apply_delta(&mut self, plan: &Plan, delta: &Delta) -> Result<()> {
        let Some(mirror) = self.mirror.as_mut() else { return self.full_sync(plan).map(drop) };
        let batch = mirror.change(delta);
        self.client.commit(&batch).map_err(|error| {
            self.mirror = None;
            refused(error)
        })
    }

    pub(super) fn monitor(&self) -> Result<Monitor> {
        self.watch(tables().into())
    }

    pub(super) fn watch(&self, tables: Vec<TableId>) -> Result<Monitor> {
        Monitor::open(&self.client, tables)
            .map_err(|error| Error::new("nftables: watch for changes by other processes", error))
    }

    /// Both tables; an absent one is empty.
    fn read(&mut self) -> Result<Tables> {
        let mut read = |table| self.client.table(&table).map_err(unreadable);
        let [v4, v6] = tables();
        Ok(Tables { v4: read(v4)?.unwrap_or_default(), v6: read(v6)?.unwrap_or_default() })
    }
}

/// Our tables.
fn tables() -> [TableId; 2] {
    [IpFamily::V4, IpFamily::V6].map(services::table)
}

/// Removes our tables. Returns their names.
///
/// # Errors
/// They could not be read or removed.
pub(super) fn remove(dry_run: bool) -> Result<Vec<String>> {
    let Some(mut client) = Client::open_if_supported().map_err(unreadable)? else {
        return Ok(Vec::new());
    };
    let mut removed = Vec::new();
    for (table, family) in tables().into_iter().zip(["ip", "ip6"]) {
        let name = format!("nftables table {family} {}", table.name);
        if dry_run {
            if client.table(&table).map_err(unreadable)?.is_some() {
                removed.push(name);
            }
            continue;
        }
        let batch = Batch { ops: vec![Op::DeleteTable(table)], generation: None };
        match client.commit(&batch) {
            Ok(()) => removed.push(name),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(refused(error)),
        }
    }
    Ok(removed)
}

fn unusable(error: causeway_nft::Error) -> Error {
    let action = if error.source.raw_os_error() == Some(libc::EPERM) {
        "nftables cannot be used: CAP_NET_ADMIN is missing; run causewayd as root"
    } else {
        "nftables cannot be used: this kernel lacks nf_tables (CONFIG_NF_TABLES, module nf_tables); \
         load it, or set backend to \"iptables\""
    };
    Error::new(action, error)
}

fn unreadable(error: causeway_nft::Error) -> Error {
    Error::new("nftables: read the service tables", error).passing()
}

fn refused(error: causeway_nft::Error) -> Error {
    let passing = error.is_transient();
    let error = Error::new("nftables: write the service tables", error);
    if passing { error.passing() } else { error }
}

#[cfg(test)]
mod tests;
