//! What the masquerade's table and the address check's table have in common: a connection, the lock,
//! who owns an element, errors. The tables themselves are declared in `masq` and `spoof`.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use causeway_host::{FileLock, RecordKey, paths};
use causeway_nft::{Client, LastClient, OwnedTable};
use causeway_ruleset::owned::{Claim, Layout, Missing, Question};
use causeway_ruleset::{Element, name};
use cni_plugin::{Code, Error};

/// How long to wait for `rules.lock`. Its holders do a few netlink requests.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// One of the tables, by a connection.
pub(crate) struct Table<'a> {
    /// The connection.
    pub(crate) client: &'a mut Client,
    /// What the table holds beside elements.
    pub(crate) layout: Layout,
}

impl Table<'_> {
    /// Puts a claim in place, on the busy path without the lock below `run_dir`.
    ///
    /// # Errors
    /// Code 11 if the same call may go through later, else 5.
    pub(crate) fn add(&mut self, run_dir: &Path, claim: &Claim) -> Result<(), Error> {
        if self.owned().add(claim).map_err(|e| refused(&e))? {
            return Ok(());
        }
        let _lock = lock(run_dir)?;
        self.owned().establish(claim).map_err(|e| refused(&e))
    }

    /// Takes back what belongs to `key` of the elements that `questions` name. `last`: this node has
    /// no other attachment, so the table goes too unless another program keeps something in it.
    ///
    /// # Errors
    /// As [`Table::add`]. Absence is none.
    pub(crate) fn remove(
        &mut self,
        key: &RecordKey,
        questions: Vec<Question>,
        last: bool,
    ) -> Result<(), Error> {
        self.owned().remove(&owner(key), questions, last).map_err(|e| refused(&e))
    }

    /// The first thing that a claim lacks. Changes nothing.
    ///
    /// # Errors
    /// As [`Table::add`].
    pub(crate) fn missing(&mut self, claim: &Claim) -> Result<Option<Missing>, Error> {
        self.owned().missing(claim).map_err(|e| refused(&e))
    }

    /// Removes what belongs to attachments of `network` whose owner comment `keep` refuses.
    ///
    /// # Errors
    /// As [`Table::remove`].
    pub(crate) fn gc(&mut self, network: &str, keep: &dyn Fn(&str) -> bool) -> Result<(), Error> {
        let prefix = name::owner_network_prefix(network);
        let stale = |element: &Element| {
            let owner = element.comment.as_ref();
            owner.is_some_and(|owner| owner.starts_with(&prefix) && !keep(owner))
        };
        self.owned().collect(&stale).map_err(|e| refused(&e))
    }

    /// Puts in place what claims lack, or only looks (`write` false). Returns the places of those
    /// that lacked something.
    ///
    /// # Errors
    /// As [`Table::add`].
    pub(crate) fn restore(
        &mut self,
        claims: &[Claim],
        write: bool,
    ) -> Result<BTreeSet<usize>, Error> {
        self.owned().restore(claims, write).map_err(|e| refused(&e))
    }

    fn owned(&mut self) -> OwnedTable<'_> {
        OwnedTable::new(self.client, &self.layout)
    }
}

/// A connection to nf_tables of the calling thread's namespace.
pub(crate) fn client() -> Result<Client, Error> {
    Client::open().map_err(|e| refused(&e))
}

/// A connection to delete with. `None`: this kernel has no nf_tables, so there is nothing to delete.
pub(crate) fn deleting_client() -> Result<Option<LastClient>, Error> {
    let client = Client::open_if_supported().map_err(|e| refused(&e))?;
    Ok(client.map(LastClient::from))
}

/// Has `work` delete from a table, under the lock below `run_dir`. A kernel without nf_tables has
/// nothing to delete.
///
/// # Errors
/// Those of the lock and of `work`.
pub(crate) fn deleting(
    run_dir: &Path,
    layout: Layout,
    work: impl FnOnce(&mut Table<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let _lock = lock(run_dir)?;
    let Some(mut client) = deleting_client()? else { return Ok(()) };
    work(&mut Table { client: &mut client, layout })
}

/// The lock around every read, compare and write of rules on this node.
pub(crate) fn lock(run_dir: &Path) -> Result<FileLock, Error> {
    let path = paths::rules_lock(run_dir);
    FileLock::acquire(&path, LOCK_WAIT).map_err(|e| {
        let code = if e.is_transient() { Code::TryAgainLater } else { Code::Io };
        Error::caused(code, format!("runDir: {} could not be locked", path.display()), &e)
    })
}

/// Owner comment of an attachment.
pub(crate) fn owner(key: &RecordKey) -> String {
    name::owner(&key.network, &key.container_id, &key.ifname)
}

/// The CNI error for a refusal of nf_tables.
pub(crate) fn refused(error: &causeway_nft::Error) -> Error {
    if error.is_transient() {
        return Error::caused(
            Code::TryAgainLater,
            "nftables: other processes keep changing the ruleset; try again",
            error,
        );
    }
    if error.is_unsupported() {
        return Error::caused(
            Code::Io,
            "nftables: this kernel lacks a part of it; load nf_tables with nft_chain_nat, nft_masq \
             and the bridge family",
            error,
        );
    }
    Error::caused(Code::Io, "nftables: the kernel refused the rules", error)
}

/// The CNI error of CHECK for something that is missing or differs.
pub(crate) fn differs(msg: impl Into<String>) -> Error {
    Error::new(Code::Internal, msg)
}

#[cfg(test)]
pub(crate) mod testing;
