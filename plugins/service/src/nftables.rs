//! The nftables backend: reads what a plan asks for, commits what it says. Callers hold the rules
//! lock; every operation is one transaction, so the rules are whole whenever we are killed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use causeway_nft::{Client, LastClient, OwnedTable, owned};
use causeway_ruleset::owned::{Layout, Placed, Question};
use causeway_ruleset::{Batch, Element, Key, Op, RegValue, Rule, SetSpec};
use cni_plugin::{Code, Error};

use crate::failure;
use crate::layout::{self, Scope};
use crate::localnet::Localnet;
use crate::mapping::Protocol;
use crate::plan::{self, ByFamily, Conflict, Holder, Observed, Restored};
use crate::record::Record;

/// How often an operation is tried if other processes change what it had read. Each try may commit
/// twice, and the rules lock is held meanwhile.
const TRIES: usize = 4;

/// A connection to the rules of this namespace.
#[derive(Debug)]
pub(crate) struct Rules {
    /// In a plugin closed by the end of the process: other processes need not wait for our lock so
    /// long.
    client: LastClient,
    layout: Layout,
}

/// An attachment as the rules know it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owned<'a> {
    /// What it owns.
    pub record: &'a Record,
    /// Owner comment of its elements.
    pub owner: &'a str,
}

impl Rules {
    /// Connects.
    pub(crate) fn open() -> Result<Self, Error> {
        let client = Client::open().map_err(|error| failure::nft(&error))?;
        Ok(Self::new(client))
    }

    /// Connects for a removal; `None` if this kernel has no nf_tables, and thus nothing of ours.
    pub(crate) fn open_if_supported() -> Result<Option<Self>, Error> {
        let client = Client::open_if_supported().map_err(|error| failure::nft(&error))?;
        Ok(client.map(Self::new))
    }

    fn new(client: Client) -> Self {
        Self { client: client.into(), layout: layout::layout() }
    }

    /// Adds an attachment. `save` is called once it is known to be free of conflicts, before
    /// anything changes.
    ///
    /// # Errors
    /// Code 102 naming port, protocol and owner; 11 and 5; what `save` says.
    pub(crate) fn add(
        &mut self,
        owned: Owned<'_>,
        conditions: ByFamily<'_>,
        save: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut save = Some(save);
        self.attempts(|rules| {
            let observed = rules.observe(owned)?;
            let ops = match plan::add(owned.record, owned.owner, conditions, &observed) {
                Ok(ops) => ops,
                Err(conflict) => return Ok(Err(rules.in_use(owned.owner, &conflict)?)),
            };
            if let Some(Err(error)) = save.take().map(|save| save()) {
                return Ok(Err(error));
            }
            match rules.commit(ops.clone()) {
                // A set or chain of the base is gone.
                Err(error) if error.is_not_found() => {
                    rules.commit(plan::rebuild(ops, &observed)).map(Ok)
                }
                other => other.map(Ok),
            }
        })?
    }

    /// Removes what still belongs to the attachment, and puts in place what `heirs` carry out now
    /// that it is gone.
    pub(crate) fn remove(&mut self, owned: Owned<'_>, heirs: &[Holder]) -> Result<(), Error> {
        let Owned { record, owner } = owned;
        let own = plan::elements(record, owner);
        if heirs.is_empty() {
            return self.remove_elements(&own, owner);
        }
        let mut elements = own.clone();
        for heir in heirs {
            elements.extend(plan::elements(&heir.record, &heir.owner));
        }
        self.attempts(|rules| {
            let mut observed = rules.look()?;
            rules.ask(plan::removal_questions(&elements), &mut observed)?;
            rules.count_slots(&elements, &mut observed)?;
            let mut ops = plan::remove(&own, owner, &observed);
            let damaged = observed.rules().is_empty();
            let after = observed.without(&own, owner);
            ops.extend(plan::restore(heirs, &after, damaged, false).ops);
            rules.commit(ops)
        })
    }

    /// Puts in place what `holders` lack, or only looks (`write` false). Returns what they lack.
    pub(crate) fn restore(&mut self, holders: &[Holder], write: bool) -> Result<Restored, Error> {
        self.attempts(|rules| {
            let (observed, damaged) = rules.whole()?;
            let restored = plan::restore(holders, &observed, damaged, true);
            if write && !restored.ops.is_empty() {
                rules.commit(restored.ops.clone())?;
            }
            Ok(restored)
        })
    }

    /// All that the table holds, and whether its base is damaged.
    fn whole(&mut self) -> causeway_nft::Result<(Observed, bool)> {
        let state = self.client.table(&layout::table())?.unwrap_or_default();
        let sets: BTreeSet<String> = state.sets.keys().cloned().collect();
        let (mut seen, whole) = self.layout.look(state);
        // A jump to what was emptied is not a scope.
        let stands = |scope: Scope| {
            let of_scope = [scope.any(), scope.address(), scope.taken()];
            !seen.rules(&scope.chain().unwrap_or_default()).is_empty()
                && of_scope.iter().all(|set| sets.contains(&set.name))
        };
        let present = seen.rules(layout::HOSTPORTS);
        let standing = |(_, rule): &&(u64, Rule)| Scope::of_jump(rule).is_none_or(stands);
        let kept: Vec<_> = present.iter().filter(standing).cloned().collect();
        let damaged = !whole || kept.len() < present.len();
        seen.chains.insert(layout::HOSTPORTS.into(), kept);
        let mut slots = BTreeMap::new();
        for (set, key) in seen.elements.keys() {
            if let Some(at) = layout::slot_at(set, key) {
                *slots.entry(at).or_default() += 1;
            }
        }
        Ok((Observed { seen, slots }, damaged))
    }

    /// Removes the table unless an attachment is left. `last` is called before, and the table,
    /// whose guard is needed then, stays if that reports errors.
    pub(crate) fn remove_unused(&mut self, last: impl Fn() -> Vec<Error>) -> Result<(), Error> {
        let table = layout::table();
        let left = self.client.elements(&table, &layout::attachments());
        if !left.map_err(|error| failure::nft(&error))?.is_empty() {
            return Ok(());
        }
        if let Some(error) = last().into_iter().next() {
            return Err(error);
        }
        match self.commit(vec![Op::DeleteTable(table)]) {
            Err(error) if error.is_not_found() => Ok(()),
            done => done.map_err(|error| failure::nft(&error)),
        }
    }

    /// Whether anything of the attachment is in place.
    pub(crate) fn holds(&mut self, owned: Owned<'_>) -> Result<bool, Error> {
        let missing = self.missing(owned)?;
        Ok(missing.len() < plan::elements(owned.record, owned.owner).len())
    }

    /// Those of the attachment's elements that are absent or differ.
    pub(crate) fn missing(&mut self, owned: Owned<'_>) -> Result<Vec<Placed>, Error> {
        let mut missing = plan::elements(owned.record, owned.owner);
        let seen = self.owned().ask([], missing.iter().map(Placed::question).collect());
        let seen = seen.map_err(|error| failure::nft(&error))?;
        missing.retain(|placed| {
            seen.element(&placed.set, &placed.element.key) != Some(&placed.element)
        });
        Ok(missing)
    }

    /// Names of base chains whose rules are not all there.
    pub(crate) fn damaged(&mut self) -> Result<Vec<String>, Error> {
        let chains: Vec<String> =
            self.layout.chains.iter().map(|(chain, _)| chain.name.clone()).collect();
        let seen = self.owned().ask(chains.iter().map(String::as_str), Vec::new());
        let seen = seen.map_err(|error| failure::nft(&error))?;
        Ok(self.layout.damaged(&seen).map(str::to_owned).collect())
    }

    /// Removes an attachment that has no record: one lookup if there is nothing of it. Returns
    /// whether there was anything.
    pub(crate) fn remove_unrecorded(
        &mut self,
        owner: &str,
        localnet: &Localnet,
    ) -> Result<bool, Error> {
        let key = layout::attachment_key(owner);
        let there = self.client.element(&layout::table(), &layout::attachments(), &key);
        match there.map_err(|error| failure::nft(&error))? {
            Some(_) => self.sweep(|other| other == owner, localnet),
            None => Ok(false),
        }
    }

    /// Removes every attachment whose owner comment `is_stale` accepts. Reads the names of all
    /// attachments, and all their elements only if one is stale. Returns whether one was.
    pub(crate) fn sweep(
        &mut self,
        is_stale: impl Fn(&str) -> bool,
        localnet: &Localnet,
    ) -> Result<bool, Error> {
        let stale = |element: &Element| element.comment.as_deref().is_some_and(&is_stale);
        let attachments = self.client.elements(&layout::table(), &layout::attachments());
        if !attachments.map_err(|error| failure::nft(&error))?.iter().any(stale) {
            return Ok(false);
        }
        let all = self.owned_elements().map_err(|error| failure::nft(&error))?;
        // Records were lost, and the bookkeeping may be, too.
        localnet.adopt(localhost_targets(&all));
        for (owner, elements) in all.iter().filter(|(owner, _)| is_stale(owner)) {
            self.remove_elements(elements, owner)?;
            if let Some(error) = localnet.release(layout::short(owner)).into_iter().next() {
                return Err(error);
            }
        }
        Ok(true)
    }

    /// Whether table nat of iptables may have a chain of this name.
    pub(crate) fn may_be_in_iptables(&mut self, chain: &str) -> Result<bool, Error> {
        for ipv6 in [false, true] {
            let there = self.client.may_have_iptables_chain(ipv6, chain);
            if there.map_err(|error| failure::nft(&error))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the kernel has nf_tables for us.
    pub(crate) fn probe(&mut self) -> Result<(), Error> {
        self.client.generation().map(drop).map_err(|error| failure::nft(&error))
    }

    fn remove_elements(&mut self, elements: &[Placed], owner: &str) -> Result<(), Error> {
        self.attempts(|rules| {
            let mut observed = Observed::default();
            rules.ask(plan::removal_questions(elements), &mut observed)?;
            rules.count_slots(elements, &mut observed)?;
            rules.commit(plan::remove(elements, owner, &observed))
        })
    }

    fn attempts<T>(
        &mut self,
        mut work: impl FnMut(&mut Self) -> causeway_nft::Result<T>,
    ) -> Result<T, Error> {
        owned::attempts(TRIES, || work(self)).map_err(|error| failure::nft(&error))
    }

    fn owned(&mut self) -> OwnedTable<'_> {
        OwnedTable::new(&mut self.client, &self.layout)
    }

    fn commit(&mut self, ops: Vec<Op>) -> causeway_nft::Result<()> {
        self.client.commit(&Batch { ops, generation: None })
    }

    /// The rules of chain [`layout::HOSTPORTS`].
    fn look(&mut self) -> causeway_nft::Result<Observed> {
        let seen = self.owned().ask([layout::HOSTPORTS], Vec::new())?;
        Ok(Observed { seen, ..Observed::default() })
    }

    fn observe(&mut self, owned: Owned<'_>) -> causeway_nft::Result<Observed> {
        let Owned { record, owner } = owned;
        let mut observed = self.look()?;
        self.ask(plan::questions(record, owner, &observed.scopes()), &mut observed)?;
        self.count_slots(&plan::elements(record, owner), &mut observed)?;
        Ok(observed)
    }

    fn count_slots(
        &mut self,
        elements: &[Placed],
        observed: &mut Observed,
    ) -> causeway_nft::Result<()> {
        for (scope, port) in plan::slots(elements).into_keys() {
            let set = scope.taken();
            let mut number = 0;
            let table = layout::table();
            while self.client.element(&table, &set, &layout::slot_key(port, number))?.is_some() {
                number += 1;
            }
            observed.slots.insert((scope, port), number);
        }
        Ok(())
    }

    fn ask(
        &mut self,
        questions: Vec<Question>,
        observed: &mut Observed,
    ) -> causeway_nft::Result<()> {
        let seen = self.owned().ask([], questions)?;
        observed.seen.elements.extend(seen.elements);
        Ok(())
    }

    /// Every element that has an owner comment, by owner.
    fn owned_elements(&mut self) -> causeway_nft::Result<BTreeMap<String, Vec<Placed>>> {
        let mut scopes = self.look()?.scopes();
        scopes.extend([false, true].map(|ipv6| Scope { ipv6, id: None }));
        let mut sets: Vec<SetSpec> =
            scopes.iter().flat_map(|scope| [scope.any(), scope.address()]).collect();
        for ipv6 in [false, true] {
            sets.extend([layout::hairpin(ipv6), layout::masq_all(ipv6)]);
        }
        sets.extend([layout::localhost(), layout::attachments()]);
        let mut all: BTreeMap<String, Vec<Placed>> = BTreeMap::new();
        for set in sets {
            for element in self.client.elements(&layout::table(), &set)? {
                let owner = element.comment.clone().unwrap_or_default();
                all.entry(owner).or_default().push(Placed { set: set.clone(), element });
            }
        }
        Ok(all)
    }

    /// The error for a host port that belongs to another attachment.
    fn in_use(&mut self, own: &str, conflict: &Conflict) -> causeway_nft::Result<Error> {
        let owner = if conflict.owner.is_empty() {
            self.owner_of_port(conflict)?
        } else {
            conflict.owner.clone()
        };
        Ok(port_in_use(&conflict.binding.host_side(), own, &owner))
    }

    /// One of the owners of mappings of single addresses with the port of `conflict`.
    fn owner_of_port(&mut self, conflict: &Conflict) -> causeway_nft::Result<String> {
        let all = self.owned_elements()?;
        let matches = |placed: &Placed| {
            placed.set.name.starts_with("addr") && is_port(&placed.element, conflict)
        };
        let mut owners = all.into_iter().filter(|(_, elements)| elements.iter().any(matches));
        Ok(owners.next().map(|(owner, _)| owner).unwrap_or_default())
    }
}

/// Containers that 127.0.0.0/8 reaches, by the short name of their attachments.
fn localhost_targets(all: &BTreeMap<String, Vec<Placed>>) -> Vec<(&str, Ipv4Addr)> {
    let set = layout::localhost();
    let address = |placed: &Placed| {
        let Key::Exact(parts) = &placed.element.key else { return None };
        let [RegValue::V4(address)] = parts.as_slice() else { return None };
        (placed.set == set).then_some(*address)
    };
    let of = |(owner, placed): (_, &'_ Placed)| Some((layout::short(owner), address(placed)?));
    all.iter().flat_map(|(owner, list)| list.iter().filter_map(move |p| of((owner, p)))).collect()
}

fn is_port(element: &Element, conflict: &Conflict) -> bool {
    let Key::Exact(parts) = &element.key else { return false };
    let wanted = &conflict.binding;
    matches!(parts.as_slice(), [_, RegValue::Proto(protocol), RegValue::Port(port)]
        if Protocol::from_number(*protocol) == Some(wanted.protocol) && *port == wanted.host_port)
}

/// Code 102. `owner` is an owner comment: hashes, then the readable name.
pub(crate) fn port_in_use(host_side: &str, own: &str, owner: &str) -> Error {
    let readable = owner.split_once(' ').map_or(owner, |(_, readable)| readable);
    let (who, remedy) = match readable {
        _ if owner == own => ("this attachment itself", "send DEL before another ADD"),
        "" => ("an unknown owner", "use another host port"),
        other => (other, "use another host port, or remove that container"),
    };
    Error::new(Code::PortInUse, format!("host port {host_side} is in use by {who}; {remedy}"))
}

#[cfg(test)]
mod tests;
