//! What the masquerade's table and the address check's table have in common: a few sets, one base
//! chain with a few rules, built when they are missed and removed with their last element.
//!
//! The tables are ours by name (invariant I2). What other programs put into them is neither deleted
//! nor doubled (row F39): it only keeps the table alive.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use causeway_kernel::{FileLock, RecordKey};
use causeway_nft::{Client, LastClient};
use causeway_ruleset::{
    Batch, ChainSpec, Element, Key, Op, Rule, SetSpec, TableId, TableState, name,
};
use cni_plugin::{Code, Error};

/// How often a transaction is tried again that lost a race. Each try means that another process
/// got through, so this bounds starvation only.
pub(crate) const TRIES: usize = 16;

/// How long to wait for `rules.lock`. Its holders do a few netlink requests.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// A table without its elements.
pub(crate) struct Base {
    /// Table.
    pub(crate) table: TableId,
    /// Its sets and maps.
    pub(crate) sets: Vec<SetSpec>,
    /// The base chain.
    pub(crate) chain: ChainSpec,
    /// The base chain's rules.
    pub(crate) rules: Vec<Rule>,
}

impl Base {
    /// Operations that make the table whole, given the base chain's present rules. Rules of other
    /// programs stay; of ours there is one each, in order, afterwards.
    pub(crate) fn repair(&self, present: &[(u64, Rule)]) -> Vec<Op> {
        let mut ops = vec![Op::AddTable(self.table.clone())];
        ops.extend(self.sets.iter().map(|set| Op::AddSet(self.table.clone(), set.clone())));
        ops.push(Op::AddChain(self.table.clone(), self.chain.clone()));
        if self.is_intact(present) {
            return ops;
        }
        let (table, chain) = (&self.table, &self.chain.name);
        ops.extend(present.iter().filter(|(_, rule)| self.rules.contains(rule)).map(
            |(handle, _)| Op::DeleteRule {
                table: table.clone(),
                chain: chain.clone(),
                handle: *handle,
            },
        ));
        ops.extend(self.rules.iter().map(|rule| append(table, chain, rule)));
        ops
    }

    /// Operations that make the table whole, given all of it; none if it is.
    pub(crate) fn restore(&self, state: &TableState) -> Vec<Op> {
        let chain = state.chains.get(&self.chain.name);
        let present = chain.map(|(_, rules)| rules.as_slice()).unwrap_or_default();
        let sets = self.sets.iter().all(|set| state.sets.contains_key(&set.name));
        if sets && self.is_intact(present) { Vec::new() } else { self.repair(present) }
    }

    /// Whether our rules are among `present`, once each and in order.
    pub(crate) fn is_intact(&self, present: &[(u64, Rule)]) -> bool {
        present
            .iter()
            .map(|(_, rule)| rule)
            .filter(|rule| self.rules.contains(rule))
            .eq(self.rules.iter())
    }

    /// Whether the table contains only this base, chains that `ours` knows, and elements that
    /// `leaving` knows: then it can go.
    pub(crate) fn is_spent(
        &self,
        state: &TableState,
        ours: &dyn Fn(&str) -> bool,
        leaving: &dyn Fn(&Element) -> bool,
    ) -> bool {
        let chains = state.chains.iter().all(|(name, (_, rules))| {
            ours(name)
                || (*name == self.chain.name
                    && rules.iter().all(|(_, rule)| self.rules.contains(rule)))
        });
        let sets = state.sets.iter().all(|(name, (_, elements))| {
            self.sets.iter().any(|set| set.name == *name) && elements.iter().all(leaving)
        });
        chains && sets
    }

    /// Deletes the table if it [is spent](Self::is_spent), and says whether it is gone. Adders take
    /// no lock, so the ruleset generation guards what was read.
    pub(crate) fn drop_if_spent(
        &self,
        client: &mut Client,
        ours: &dyn Fn(&str) -> bool,
        leaving: &dyn Fn(&Element) -> bool,
    ) -> Result<bool, Error> {
        for _ in 0..TRIES {
            let generation = client.generation().map_err(|e| refused(&e))?;
            let Some(state) = client.table(&self.table).map_err(|e| refused(&e))? else {
                return Ok(true);
            };
            if !self.is_spent(&state, ours, leaving) {
                return Ok(false);
            }
            let batch = Batch {
                ops: vec![Op::DeleteTable(self.table.clone())],
                generation: Some(generation),
            };
            match client.commit(&batch) {
                Ok(()) => return Ok(true),
                Err(e) if e.is_not_found() => return Ok(true),
                Err(e) if e.is_transient() => {}
                Err(e) => return Err(refused(&e)),
            }
        }
        // So many other changes: the attachments that make them keep the table busy anyway.
        Ok(false)
    }
}

/// Appends `rule`.
pub(crate) fn append(table: &TableId, chain: &str, rule: &Rule) -> Op {
    Op::AddRule { table: table.clone(), chain: chain.to_owned(), rule: rule.clone() }
}

/// Adds one element; its presence is `EEXIST`.
pub(crate) fn insert(table: &TableId, set: &SetSpec, element: Element) -> Op {
    Op::AddElements {
        table: table.clone(),
        set: set.clone(),
        elements: vec![element],
        exclusive: true,
    }
}

/// Deletes `present`, each with the set that it was read from.
pub(crate) fn delete_all(
    client: &mut Client,
    table: &TableId,
    present: Vec<(SetSpec, Element)>,
) -> Result<(), Error> {
    let ops = present.into_iter().map(|(set, element)| delete(table, &set, element.key));
    let batch = Batch { ops: ops.collect(), generation: None };
    match client.commit(&batch) {
        Err(e) if e.is_not_found() => {}
        other => return other.map_err(|e| refused(&e)),
    }
    // A process without the lock deleted one of them: then one by one.
    for op in batch.ops {
        match client.commit(&Batch { ops: vec![op], generation: None }) {
            Err(e) if !e.is_not_found() => return Err(refused(&e)),
            _ => {}
        }
    }
    Ok(())
}

/// Deletes one element by key.
pub(crate) fn delete(table: &TableId, set: &SetSpec, key: Key) -> Op {
    Op::DeleteElements {
        table: table.clone(),
        set: set.clone(),
        elements: vec![Element { key, value: None, comment: None }],
    }
}

/// Operations that turn `present` into `wanted`. Whoever owned the element before, it is the
/// newcomer's now (row F40).
pub(crate) fn replace(
    table: &TableId,
    set: &SetSpec,
    present: Option<&Element>,
    wanted: &Element,
) -> Vec<Op> {
    match present {
        Some(present) if present == wanted => Vec::new(),
        Some(_) => vec![delete(table, set, wanted.key.clone()), insert(table, set, wanted.clone())],
        None => vec![insert(table, set, wanted.clone())],
    }
}

/// Operations that put `wanted` back; none if another attachment has the element.
pub(crate) fn restore(
    table: &TableId,
    set: &SetSpec,
    present: Option<&Element>,
    wanted: &Element,
) -> Vec<Op> {
    match present {
        Some(present) if present.comment != wanted.comment => Vec::new(),
        present => replace(table, set, present, wanted),
    }
}

/// The elements of a table, by set and key.
pub(crate) fn held(state: &TableState) -> BTreeMap<(&str, &Key), &Element> {
    let mut held = BTreeMap::new();
    for (name, (_, elements)) in &state.sets {
        held.extend(elements.iter().map(|element| ((name.as_str(), &element.key), element)));
    }
    held
}

/// Commits what `missing` makes of the table's state, or only looks (`write` false); returns what
/// lacked something.
pub(crate) fn restored<T>(
    client: &mut Client,
    table: &TableId,
    write: bool,
    missing: impl Fn(&TableState) -> (Vec<Op>, T),
) -> Result<T, Error> {
    let mut tries = TRIES;
    loop {
        let state = client.table(table).map_err(|e| refused(&e))?.unwrap_or_default();
        let (ops, lacking) = missing(&state);
        if !write || ops.is_empty() {
            return Ok(lacking);
        }
        tries -= 1;
        match client.commit(&Batch { ops, generation: None }) {
            Ok(()) => return Ok(lacking),
            // An adder of the busy path or a foreign flush came between.
            Err(e) if tries > 0 && (e.is_exists() || e.is_not_found() || e.is_transient()) => {}
            Err(e) => return Err(refused(&e)),
        }
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

/// The lock around every read, compare and write of rules on this node.
pub(crate) fn lock(run_dir: &Path) -> Result<FileLock, Error> {
    let path = run_dir.join("rules.lock");
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
