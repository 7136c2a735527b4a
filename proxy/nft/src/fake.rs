//! nf_tables in memory, for tests of ordinary users: a batch is applied to a copy, with the kernel's
//! checks in the kernel's order, and the copy takes the place of what was there if none failed.
//!
//! It knows what our batches can meet: absent and present objects, references, duplicates, overlaps,
//! jumps in circles, the generation. Packets, timeouts, sizes, the types of registers and
//! notifications are beyond it. It refuses one thing that the kernel takes and then lists cut short:
//! an addition, not exclusive, of a range that begins before another and ends with it.
//! `tests/fake.rs` holds it against a real kernel.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use causeway_ruleset::{Batch, Element, Key, Op, Rule, SetSpec, TableId, TableState};

use crate::codec::batch::describe;
use crate::error::{Error, Result, failed};

mod rules;

use rules::{Ruleset, set_of};

const ERESTART: i32 = 85;

/// A kernel's rules that exist in memory alone. Clones are the same kernel.
#[derive(Clone, Debug, Default)]
pub struct Fake(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    rules: Ruleset,
    generation: u32,
    refusals: VecDeque<i32>,
    meanwhile: VecDeque<Vec<Op>>,
    commits: usize,
}

impl Fake {
    /// The next commits fail with these errors, one each, whatever they hold.
    pub fn refuse(&self, errors: impl IntoIterator<Item = i32>) {
        self.inner().refusals.extend(errors);
    }

    /// Another process commits `ops` right before the next commit of a connection, when that has
    /// read what it goes by. Each call is for one commit more.
    pub fn meanwhile(&self, ops: Vec<Op>) {
        self.inner().meanwhile.push_back(ops);
    }

    /// How many transactions of connections it has been given, refused ones too.
    pub fn commits(&self) -> usize {
        self.inner().commits
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn commit(&self, batch: &Batch) -> Result<()> {
        let mut inner = self.inner();
        inner.commits += 1;
        if let Some(ops) = inner.meanwhile.pop_front() {
            inner.commit(&Batch { ops, generation: None })?;
        }
        match inner.refusals.pop_front() {
            Some(errno) => Err(failed("commit", io::Error::from_raw_os_error(errno))),
            None => inner.commit(batch),
        }
    }

    pub(crate) fn generation(&self) -> u32 {
        self.inner().generation()
    }

    pub(crate) fn table(&self, table: &TableId) -> Option<TableState> {
        self.inner().rules.table(table).ok().cloned()
    }

    pub(crate) fn elements(&self, table: &TableId, set: &SetSpec) -> Vec<Element> {
        let inner = self.inner();
        let found = inner.rules.table(table).and_then(|table| set_of(table, &set.name));
        found.map(|(_, elements)| elements.clone()).unwrap_or_default()
    }

    pub(crate) fn element(&self, table: &TableId, set: &SetSpec, key: &Key) -> Option<Element> {
        self.elements(table, set).into_iter().find(|element| element.key == *key)
    }

    pub(crate) fn rules(&self, table: &TableId, chain: &str) -> Vec<(u64, Rule)> {
        let mut state = self.table(table).unwrap_or_default();
        state.chains.remove(chain).map(|(_, rules)| rules).unwrap_or_default()
    }

    pub(crate) fn chain_use(&self, table: &TableId, chain: &str) -> Option<u32> {
        let state = self.table(table)?;
        let (_, rules) = state.chains.get(chain)?;
        u32::try_from(rules.len() + rules::references(&state, chain)).ok()
    }
}

impl Inner {
    /// Never 0, which in a batch means any.
    fn generation(&self) -> u32 {
        self.generation + 1
    }

    fn commit(&mut self, batch: &Batch) -> Result<()> {
        if batch.generation.is_some_and(|wanted| wanted != 0 && wanted != self.generation()) {
            return Err(failed("commit", io::Error::from_raw_os_error(ERESTART)));
        }
        let (mut after, changed) = self.applied(batch, false)?;
        // As the kernel does: circles are sought at the end, and if there is one then once more from
        // the beginning, to name the operation.
        if after.check_jumps().is_err() {
            after = self.applied(batch, true)?.0;
        }
        self.rules = after;
        self.generation += u32::from(changed);
        Ok(())
    }

    /// The rules after the batch, and whether it did anything.
    fn applied(&self, batch: &Batch, check_jumps: bool) -> Result<(Ruleset, bool)> {
        let mut after = self.rules.clone();
        let mut changed = false;
        for (index, op) in batch.ops.iter().enumerate() {
            let done = after.apply(op).and_then(|did| {
                let leads = matches!(op, Op::AddRule { .. } | Op::AddElements { .. });
                if check_jumps && leads {
                    after.check_jumps()?;
                }
                Ok(did)
            });
            changed |= done.map_err(|errno| Error {
                action: describe(op),
                op: Some(index),
                source: io::Error::from_raw_os_error(errno),
            })?;
        }
        Ok((after, changed))
    }
}
