//! What asks, commits and tries again for a table that is ours by name: the kernel's side of
//! [`causeway_ruleset::owned`].
//!
//! The busy path is a few short reads and one transaction of additions, without a lock. Everything
//! that compares before it writes needs a lock among our own processes, which the caller holds.

use std::collections::BTreeSet;

use causeway_ruleset::owned::{Claim, Layout, Missing, Placed, Question, Seen};
use causeway_ruleset::{Batch, Element, Op};

use crate::{Client, Error, Result};

/// How often to start again after a lost race. Each means that another process got through, so
/// this bounds starvation only.
const TRIES: usize = 16;

/// A table by a connection.
#[derive(Debug)]
pub struct OwnedTable<'a> {
    client: &'a mut Client,
    layout: &'a Layout,
}

impl<'a> OwnedTable<'a> {
    /// The table that `layout` tells of.
    pub fn new(client: &'a mut Client, layout: &'a Layout) -> Self {
        Self { client, layout }
    }

    /// Adds a claim without a lock, and says whether that was enough: if not, it takes
    /// [`OwnedTable::establish`].
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn add(&mut self, claim: &Claim) -> Result<bool> {
        let seen = self.ask(self.layout.chains_of(claim), Vec::new())?;
        if !self.layout.stands(claim, &seen) {
            return Ok(false);
        }
        match self.commit(self.layout.add(claim)) {
            Ok(()) => Ok(true),
            Err(error) if was_overtaken(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes everything as a claim wants it. Needs the lock.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn establish(&mut self, claim: &Claim) -> Result<()> {
        let layout = self.layout;
        let seen = attempts(TRIES, || {
            let seen = self.ask(layout.chains_of(claim), questions(claim))?;
            self.commit(layout.establish(claim, &seen))?;
            Ok(seen)
        })?;
        let keeps = |chain: &String| claim.chains.iter().any(|(spec, _)| spec.name == *chain);
        let mut left = layout.left(&self.placed(seen));
        left.retain(|chain| !keeps(chain));
        self.sweep(left)
    }

    /// The first thing that a claim lacks.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn missing(&mut self, claim: &Claim) -> Result<Option<Missing>> {
        let seen = self.ask(self.layout.chains_of(claim), questions(claim))?;
        Ok(self.layout.missing(claim, &seen))
    }

    /// Removes the elements that `owner` has under the keys of `questions`, and what they led to.
    /// `last`: nothing of ours is to stay, so the table goes too unless another process keeps
    /// something in it. Needs the lock.
    ///
    /// # Errors
    /// See [`crate::Error`]. Absence is none.
    pub fn remove(&mut self, owner: &str, questions: Vec<Question>, last: bool) -> Result<()> {
        let ours = |element: &Element| element.comment.as_deref() == Some(owner);
        if last && self.drop_if_spent(&ours)? {
            return Ok(());
        }
        let seen = self.ask([], questions)?;
        let mut own = self.placed(seen);
        own.retain(|placed| ours(&placed.element));
        self.delete(&own)
    }

    /// Removes all elements that `is_stale` accepts, what they led to, and the table if nothing is
    /// left in it. Needs the lock.
    ///
    /// # Errors
    /// See [`crate::Error`]. Absence is none.
    pub fn collect(&mut self, is_stale: &dyn Fn(&Element) -> bool) -> Result<()> {
        let mut stale = Vec::new();
        for set in &self.layout.sets {
            let elements = self.client.elements(&self.layout.table, set)?;
            let elements = elements.into_iter().filter(is_stale);
            stale.extend(elements.map(|element| Placed { set: set.clone(), element }));
        }
        self.delete(&stale)?;
        self.drop_if_spent(&|_| false).map(drop)
    }

    /// Puts in place what claims lack, or only looks (`write` false); returns the places of those
    /// that lacked something. Needs the lock if it writes.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn restore(&mut self, claims: &[Claim], write: bool) -> Result<BTreeSet<usize>> {
        attempts(TRIES, || {
            let state = self.client.table(&self.layout.table)?.unwrap_or_default();
            let (ops, lacking) = self.layout.restore(claims, state);
            if write && !ops.is_empty() {
                self.commit(ops)?;
            }
            Ok(lacking)
        })
    }

    /// What there is of `chains` and under the keys of `questions`, with companions.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn ask<'c>(
        &mut self,
        chains: impl IntoIterator<Item = &'c str>,
        questions: Vec<Question>,
    ) -> Result<Seen> {
        let table = &self.layout.table;
        let mut seen = Seen::default();
        for chain in chains {
            seen.chains.insert(chain.to_owned(), self.client.rules(table, chain)?);
        }
        let mut open = questions;
        open.reverse();
        while let Some((set, key)) = open.pop() {
            let at = (set.name.clone(), key);
            if seen.elements.contains_key(&at) {
                continue;
            }
            let Some(element) = self.client.element(table, &set, &at.1)? else { continue };
            let placed = Placed { set, element };
            open.extend((self.layout.companion)(&placed));
            seen.elements.insert(at, placed.element);
        }
        Ok(seen)
    }

    /// Deletes the table if it [is spent](Layout::is_spent), and says whether it is gone. Adders take
    /// no lock, so the ruleset generation guards what was read.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn drop_if_spent(&mut self, leaving: &dyn Fn(&Element) -> bool) -> Result<bool> {
        for _ in 0..TRIES {
            let generation = self.client.generation()?;
            let Some(state) = self.client.table(&self.layout.table)? else { return Ok(true) };
            if !self.layout.is_spent(&state, leaving) {
                return Ok(false);
            }
            let ops = vec![Op::DeleteTable(self.layout.table.clone())];
            match self.client.commit(&Batch { ops, generation: Some(generation) }) {
                Ok(()) => return Ok(true),
                Err(error) if error.is_not_found() => return Ok(true),
                Err(error) if error.is_transient() => {}
                Err(error) => return Err(error),
            }
        }
        // So many other changes: the owners that make them keep the table busy anyway.
        Ok(false)
    }

    fn placed(&self, seen: Seen) -> Vec<Placed> {
        let set = |name: &str| self.layout.sets.iter().find(|set| set.name == name);
        let elements = seen.elements.into_iter();
        elements
            .filter_map(|((name, _), element)| Some(Placed { set: set(&name)?.clone(), element }))
            .collect()
    }

    fn delete(&mut self, gone: &[Placed]) -> Result<()> {
        let layout = self.layout;
        let ops = layout.remove(gone);
        match self.commit(ops.clone()) {
            // Another process deleted one of them: then one by one.
            Err(error) if error.is_not_found() => {
                for op in ops {
                    match self.commit(vec![op]) {
                        Err(error) if !error.is_not_found() => return Err(error),
                        _ => {}
                    }
                }
            }
            done => done?,
        }
        self.sweep(layout.left(gone))
    }

    /// Deletes those of `chains` that nothing leads to any more. Before kernel 6.2 an element deleted
    /// in the same transaction still holds its chain: hence a second one.
    fn sweep(&mut self, chains: BTreeSet<String>) -> Result<()> {
        let table = &self.layout.table;
        let mut ops = Vec::new();
        for chain in chains {
            let held = self.client.chain_use(table, &chain)?;
            let rules = self.client.rules(table, &chain)?.len();
            if held.is_some_and(|held| held as usize <= rules) {
                ops.push(Op::FlushChain(table.clone(), chain.clone()));
                ops.push(Op::DeleteChain(table.clone(), chain));
            }
        }
        match self.commit(ops) {
            // Busy: an adder has just begun to use one. Not found: another process deleted it.
            Err(error) if error.is_transient() || error.is_not_found() => Ok(()),
            done => done,
        }
    }

    fn commit(&mut self, ops: Vec<Op>) -> Result<()> {
        self.client.commit(&Batch { ops, generation: None })
    }
}

/// What a claim's elements are called. Those that others tell of are asked for all the same: another
/// process may have removed what tells.
fn questions(claim: &Claim) -> Vec<Question> {
    claim.elements.iter().map(Placed::question).collect()
}

/// Has `work` done again, `tries` times in all, if another process changed meanwhile what it had
/// read.
///
/// # Errors
/// The last one of `work`.
pub fn attempts<T>(tries: usize, mut work: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 1..tries {
        match work() {
            Err(error) if was_overtaken(&error) => {}
            done => return done,
        }
    }
    work()
}

/// Whether another process, an adder without the lock or one that flushes, came between.
fn was_overtaken(error: &Error) -> bool {
    error.is_exists() || error.is_not_found() || error.is_transient()
}
