//! A netlink connection to nf_tables of the namespace it was opened in.

use std::collections::BTreeMap;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};

use causeway_ruleset::{
    Batch, ChainSpec, Element, Family, Key, Op, Rule, SetSpec, TableId, TableState,
};

use crate::codec::object::{ReadRule, read_chain, read_rule};
use crate::codec::set::{self, ElementFields, RawElement};
use crate::codec::{batch, family_name, family_number};
use crate::error::{Error, Result, failed};
#[cfg(feature = "fake")]
use crate::fake::Fake;
use crate::socket::{Answer, DUMP_TRIES, Link};
use crate::subscriptions::{Pause, Subscriptions};
use crate::uapi::{
    CHAIN_NAME, CHAIN_TABLE, CHAIN_USE, ELEM_LIST_SET, ELEM_LIST_TABLE, GEN_ID, GETCHAIN, GETGEN,
    GETRULE, GETSET, GETSETELEM, GETTABLE, RULE_CHAIN, RULE_TABLE, SET_F_ANONYMOUS, SET_FLAGS,
    SET_TABLE, TABLE_NAME,
};
use crate::wire::{Message, Writer};

/// [`Client::table`] reads with several dumps; so often at most it starts over when a commit came
/// in between.
const TABLE_TRIES: u32 = 16;

/// Of transactions of so many objects and elements the kernel's messages cost more than asking twice
/// for the generation.
const LARGE: usize = 1000;

/// Whether this process has committed deletions.
static DELETED: AtomicBool = AtomicBool::new(false);

/// Whether this process has committed deletions: closing a connection, as ending the process does,
/// then waits until the kernel has freed what was deleted (`nft_rcv_nl_event` in
/// net/netfilter/nf_tables_api.c).
pub fn closing_waits() -> bool {
    DELETED.load(Ordering::Relaxed)
}

/// Whether this process does one operation and ends.
static ONE_OPERATION: AtomicBool = AtomicBool::new(false);

/// Says that this process does one operation and ends: a [`LastClient`] is then closed by its end.
pub fn does_one_operation() {
    ONE_OPERATION.store(true, Ordering::Relaxed);
}

/// Whether this process [does one operation](does_one_operation).
pub fn is_one_operation() -> bool {
    ONE_OPERATION.load(Ordering::Relaxed)
}

/// A connection to delete with, the last one that a process of [one
/// operation](does_one_operation) needs. There it is closed by the end of the process, which can do
/// other things while the kernel frees what was deleted ([`closing_waits`]); elsewhere when it is
/// dropped.
#[derive(Debug)]
pub struct LastClient(Option<Client>);

impl From<Client> for LastClient {
    fn from(client: Client) -> Self {
        Self(Some(client))
    }
}

impl Deref for LastClient {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.0.as_ref().expect("there until it is dropped")
    }
}

impl DerefMut for LastClient {
    fn deref_mut(&mut self) -> &mut Client {
        self.0.as_mut().expect("there until it is dropped")
    }
}

impl Drop for LastClient {
    fn drop(&mut self) {
        if is_one_operation() {
            std::mem::forget(self.0.take());
        }
    }
}

/// Who answers.
#[derive(Debug)]
enum Way {
    Kernel(Link),
    #[cfg(feature = "fake")]
    Fake(Fake),
}

/// A connection. Opened in the calling thread's network namespace, it stays there.
#[derive(Debug)]
pub struct Client {
    way: Way,
    pub(crate) subscriptions: Subscriptions,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// No nf_tables in this kernel, or no permission.
    pub fn open() -> Result<Self> {
        let link = Link::open().map_err(|source| failed("open netlink socket", source))?;
        Ok(Self { way: Way::Kernel(link), subscriptions: Subscriptions::default() })
    }

    /// A connection to rules in memory.
    #[cfg(feature = "fake")]
    pub fn of_fake(fake: &Fake) -> Self {
        Self { way: Way::Fake(fake.clone()), subscriptions: Subscriptions::default() }
    }

    #[cfg_attr(not(feature = "fake"), expect(clippy::unnecessary_wraps, reason = "as with it"))]
    pub(crate) fn link(&mut self) -> io::Result<&mut Link> {
        match &mut self.way {
            Way::Kernel(link) => Ok(link),
            #[cfg(feature = "fake")]
            Way::Fake(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Connects if the kernel has nf_tables. If it has none, nothing is there to be removed.
    ///
    /// # Errors
    /// Anything but the lack of nf_tables.
    pub fn open_if_supported() -> Result<Option<Self>> {
        let asked = Self::open().and_then(|mut client| client.generation().map(|_| client));
        match asked {
            // `EINVAL` is how nfnetlink says that it does not know a subsystem.
            Err(e) if e.is_unsupported() || e.source.raw_os_error() == Some(libc::EINVAL) => {
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// The number by which notifications name this connection, see [`crate::Monitor`].
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn port(&self) -> Result<u32> {
        let asked = match &self.way {
            Way::Kernel(link) => link.port(),
            #[cfg(feature = "fake")]
            Way::Fake(_) => Err(io::ErrorKind::Unsupported.into()),
        };
        asked.map_err(|source| failed("get port of socket", source))
    }

    /// Takes the subscriptions that were opened for this connection out of the kernel's group while
    /// a large transaction is made, by this connection or by a program: as long as any socket is in
    /// it, the kernel makes a message for every element. [`Client::commit`] does so itself.
    pub fn pause(&mut self) -> Pause {
        let before = self.generation().ok();
        Pause::begin(self.subscriptions.clone(), before)
    }

    /// Ends a pause. If there were other transactions than `own` ones, or if their number is not
    /// known, each subscription tells of a change.
    pub fn resume(&mut self, pause: Pause, own: Option<u32>) {
        pause.end(own, || self.generation().ok());
    }

    /// Commits a batch as one transaction: all or nothing. A batch that does nothing sends nothing.
    ///
    /// # Errors
    /// The first operation that the kernel refused. `InvalidInput` (and nothing sent) for one that
    /// cannot be said to the kernel, such as a value that has not the set's type.
    pub fn commit(&mut self, batch: &Batch) -> Result<()> {
        let large = batch.ops.iter().map(weight).sum::<usize>() >= LARGE;
        if !large || self.subscriptions.is_empty() {
            return self.send(batch);
        }
        let pause = self.pause();
        let sent = self.send(batch);
        self.resume(pause, Some(u32::from(sent.is_ok())));
        sent
    }

    fn send(&mut self, batch: &Batch) -> Result<()> {
        let first = match &mut self.way {
            Way::Kernel(link) => link.reserve(batch.ops.len() + 2),
            #[cfg(feature = "fake")]
            Way::Fake(_) => 0,
        };
        let encoded = batch::encode(batch, first).map_err(|(op, invalid)| Error {
            action: batch::describe(&batch.ops[op]),
            op: Some(op),
            source: io::Error::new(io::ErrorKind::InvalidInput, invalid),
        })?;
        let Some(last) = encoded.last else { return Ok(()) };
        #[cfg(feature = "fake")]
        if let Way::Fake(fake) = &self.way {
            return fake.commit(batch);
        }
        let commit = |source| failed("commit", source);
        let link = self.link().map_err(commit)?;
        link.send(&encoded.bytes).map_err(commit)?;
        let (answers, complete) = link.answers(first, last).map_err(commit)?;
        if batch.ops.iter().any(deletes) {
            DELETED.store(true, Ordering::Relaxed);
        }
        match answers.iter().find(|answer| answer.errno != 0) {
            Some(answer) => Err(refused(batch, first, *answer)),
            None if complete => Ok(()),
            None => Err(commit(io::Error::from_raw_os_error(libc::ENOBUFS))),
        }
    }

    /// The current ruleset generation.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn generation(&mut self) -> Result<u32> {
        #[cfg(feature = "fake")]
        if let Way::Fake(fake) = &self.way {
            return Ok(fake.generation());
        }
        let mut id = None;
        let each = |message: Message<'_>| {
            id = id.or(message.attributes().get(GEN_ID).and_then(|id| id.u32()));
        };
        self.link()
            .and_then(|link| link.get((GETGEN, 0), |_| {}, each))
            .and_then(|()| id.ok_or_else(|| io::ErrorKind::InvalidData.into()))
            .map_err(|source| failed("get generation", source))
    }

    /// One element by key, or `None` when it, its set or its table is absent. No dump, save for a
    /// set of plain intervals (`interval` and one component), whose elements are two each.
    ///
    /// # Errors
    /// Anything but absence.
    pub fn element(
        &mut self,
        table: &TableId,
        set: &SetSpec,
        key: &Key,
    ) -> Result<Option<Element>> {
        #[cfg(feature = "fake")]
        if let Way::Fake(fake) = &self.way {
            return Ok(fake.element(table, set, key));
        }
        if set.interval && set.key.len() == 1 {
            let elements = self.elements(table, set)?;
            return Ok(elements.into_iter().find(|element| element.key == *key));
        }
        let action = || format!("get element {} {}", of(table), set.name);
        let wanted = [Element { key: key.clone(), value: None, comment: None }];
        let mut list = Writer::default();
        set::write_list(&mut list, (table, set), &mut wanted.iter(), ElementFields::Key).map_err(
            |invalid| failed(action(), io::Error::new(io::ErrorKind::InvalidInput, invalid)),
        )?;
        let list = list.into_bytes();
        let mut raw = Vec::new();
        let each = |message: Message<'_>| {
            set::read_elements(message.attributes(), set, &mut raw);
        };
        let head = (GETSETELEM, family_number(table.family));
        absent_is_empty(self.link().and_then(|link| link.get(head, |out| out.raw(&list), each)))
            .map_err(|source| failed(action(), source))?;
        let found = set::elements(set, raw);
        Ok(found.into_iter().find(|element| element.key == *key))
    }

    /// All elements of a set in key order; empty when it or its table is absent.
    ///
    /// # Errors
    /// Anything but absence.
    pub fn elements(&mut self, table: &TableId, set: &SetSpec) -> Result<Vec<Element>> {
        #[cfg(feature = "fake")]
        if let Way::Fake(fake) = &self.way {
            return Ok(fake.elements(table, set));
        }
        let action = || format!("list elements of {} {}", of(table), set.name);
        for _ in 0..DUMP_TRIES {
            let mut raw = self.dump_elements(table, set).map_err(|e| failed(action(), e))?;
            if !set::repeats(&mut raw) {
                return Ok(set::elements(set, raw));
            }
        }
        Err(failed(action(), io::Error::from_raw_os_error(libc::EINTR)))
    }

    fn dump_elements(&mut self, table: &TableId, set: &SetSpec) -> io::Result<Vec<RawElement>> {
        let mut raw = Vec::new();
        let attributes = |out: &mut Writer| {
            out.string(ELEM_LIST_TABLE, &table.name);
            out.string(ELEM_LIST_SET, &set.name);
        };
        let head = (GETSETELEM, family_number(table.family));
        let dumped = self.link().and_then(|link| {
            link.dump(head, attributes, |message| match message {
                None => raw.clear(),
                Some(message) => set::read_elements(message.attributes(), set, &mut raw),
            })
        });
        absent_is_empty(dumped).map(|()| raw)
    }

    /// Rules of one chain with their handles; empty when it or its table is absent.
    ///
    /// # Errors
    /// Anything but absence.
    pub fn rules(&mut self, table: &TableId, chain: &str) -> Result<Vec<(u64, Rule)>> {
        #[cfg(feature = "fake")]
        if let Way::Fake(fake) = &self.way {
            return Ok(fake.rules(table, chain));
        }
        let rules = self.read_rules(table, Some(chain))?;
        Ok(rules.into_iter().map(|read| (read.handle, read.rule)).collect())
    }

    /// How many rules a chain holds and how many rules and elements lead to it, together; `None`
    /// when it or its table is absent. No dump.
    ///
    /// # Errors
    /// Anything but absence.
    pub fn chain_use(&mut self, table: &TableId, chain: &str) -> Result<Option<u32>> {
        #[cfg(feature = "fake")]
        if let Way::Fake(fake) = &self.way {
            return Ok(fake.chain_use(table, chain));
        }
        let mut count = None;
        let attributes = |out: &mut Writer| {
            out.string(CHAIN_TABLE, &table.name);
            out.string(CHAIN_NAME, chain);
        };
        let each = |message: Message<'_>| {
            count = message.attributes().get(CHAIN_USE).and_then(|count| count.u32());
        };
        let head = (GETCHAIN, family_number(table.family));
        absent_is_empty(self.link().and_then(|link| link.get(head, attributes, each)))
            .map_err(|source| failed(format!("get chain {} {chain}", of(table)), source))?;
        Ok(count)
    }

    /// Whether table `nat` of iptables (`ipv6`: of ip6tables) may have a chain of this name. If
    /// iptables stands on nf_tables, which most do, this is exact. The older one cannot be asked for
    /// one chain: there the answer is whether its table is in use at all.
    ///
    /// # Errors
    /// Anything but absence.
    pub fn may_have_iptables_chain(&mut self, ipv6: bool, chain: &str) -> Result<bool> {
        let (family, names) = match ipv6 {
            false => (Family::Ip, "/proc/thread-self/net/ip_tables_names"),
            true => (Family::Ip6, "/proc/thread-self/net/ip6_tables_names"),
        };
        let table = TableId { family, name: "nat".to_owned() };
        if self.chain_use(&table, chain)?.is_some() {
            return Ok(true);
        }
        // Absent without that older one.
        let names = std::fs::read_to_string(names).unwrap_or_default();
        Ok(names.lines().any(|name| name == "nat"))
    }

    /// A whole table, or `None`. Anonymous sets and sets whose types the IR does not know are left
    /// out.
    ///
    /// # Errors
    /// Anything but absence.
    pub fn table(&mut self, table: &TableId) -> Result<Option<TableState>> {
        #[cfg(feature = "fake")]
        if let Way::Fake(fake) = &self.way {
            return Ok(fake.table(table));
        }
        for _ in 0..TABLE_TRIES {
            let before = self.generation()?;
            let state = self.read_table(table)?;
            if self.generation()? == before {
                return Ok(state);
            }
        }
        Err(failed(format!("list table {}", of(table)), io::Error::from_raw_os_error(libc::EINTR)))
    }

    fn read_table(&mut self, table: &TableId) -> Result<Option<TableState>> {
        if !self.table_exists(table)? {
            return Ok(None);
        }
        let mut state = TableState::default();
        for chain in self.read_chains(table)? {
            state.chains.insert(chain.name.clone(), (chain, Vec::new()));
        }
        for read in self.read_rules(table, None)? {
            if let Some((_, rules)) = state.chains.get_mut(&read.chain) {
                rules.push((read.handle, read.rule));
            }
        }
        for (name, set) in self.read_sets(table)? {
            let elements = self.elements(table, &set)?;
            state.sets.insert(name, (set, elements));
        }
        Ok(Some(state))
    }

    fn table_exists(&mut self, table: &TableId) -> Result<bool> {
        let mut found = false;
        let head = (GETTABLE, family_number(table.family));
        let attributes = |out: &mut Writer| out.string(TABLE_NAME, &table.name);
        absent_is_empty(self.link().and_then(|link| link.get(head, attributes, |_| found = true)))
            .map_err(|source| failed(format!("get table {}", of(table)), source))?;
        Ok(found)
    }

    fn read_chains(&mut self, table: &TableId) -> Result<Vec<ChainSpec>> {
        let mut chains = Vec::new();
        let attributes = |out: &mut Writer| out.string(CHAIN_TABLE, &table.name);
        let head = (GETCHAIN, family_number(table.family));
        let dumped = self.link().and_then(|link| {
            link.dump(head, attributes, |message| match message {
                None => chains.clear(),
                Some(message) => {
                    let read = read_chain(message.attributes());
                    chains.extend(read.filter(|(of, _)| *of == table.name).map(|(_, chain)| chain));
                }
            })
        });
        absent_is_empty(dumped)
            .map_err(|source| failed(format!("list chains of {}", of(table)), source))?;
        Ok(chains)
    }

    fn read_rules(&mut self, table: &TableId, chain: Option<&str>) -> Result<Vec<ReadRule>> {
        let mut rules: Vec<ReadRule> = Vec::new();
        let attributes = |out: &mut Writer| {
            out.string(RULE_TABLE, &table.name);
            if let Some(chain) = chain {
                out.string(RULE_CHAIN, chain);
            }
        };
        let head = (GETRULE, family_number(table.family));
        let dumped = self.link().and_then(|link| {
            link.dump(head, attributes, |message| match message {
                None => rules.clear(),
                Some(message) => {
                    let read = read_rule(table.family, message.attributes());
                    rules.extend(read.filter(|read| {
                        read.table == table.name && chain.is_none_or(|chain| read.chain == chain)
                    }));
                }
            })
        });
        absent_is_empty(dumped).map_err(|source| {
            failed(format!("list rules of {} {}", of(table), chain.unwrap_or("")), source)
        })?;
        Ok(rules)
    }

    fn read_sets(&mut self, table: &TableId) -> Result<BTreeMap<String, SetSpec>> {
        let mut sets = BTreeMap::new();
        let attributes = |out: &mut Writer| out.string(SET_TABLE, &table.name);
        let head = (GETSET, family_number(table.family));
        let dumped = self.link().and_then(|link| {
            link.dump(head, attributes, |message| match message {
                None => sets.clear(),
                Some(message) => {
                    let flags = message.attributes().get(SET_FLAGS).and_then(|flags| flags.u32());
                    let named = flags.is_none_or(|flags| flags & SET_F_ANONYMOUS == 0);
                    let read = set::read_spec(message.attributes());
                    let read = read.filter(|(of, _)| named && *of == table.name);
                    sets.extend(read.map(|(_, set)| (set.name.clone(), set)));
                }
            })
        });
        absent_is_empty(dumped)
            .map_err(|source| failed(format!("list sets of {}", of(table)), source))?;
        Ok(sets)
    }
}

fn of(table: &TableId) -> String {
    format!("{} {}", family_name(table.family), table.name)
}

/// Of how many objects and elements the kernel tells.
fn weight(op: &Op) -> usize {
    match op {
        Op::AddElements { elements, .. } | Op::DeleteElements { elements, .. } => elements.len(),
        Op::AddTable(_)
        | Op::DeleteTable(_)
        | Op::AddChain(..)
        | Op::FlushChain(..)
        | Op::DeleteChain(..)
        | Op::AddSet(..)
        | Op::FlushSet(..)
        | Op::DeleteSet(..)
        | Op::AddRule { .. }
        | Op::DeleteRule { .. } => 1,
    }
}

fn deletes(op: &Op) -> bool {
    match op {
        Op::DeleteTable(_)
        | Op::FlushChain(..)
        | Op::DeleteChain(..)
        | Op::FlushSet(..)
        | Op::DeleteSet(..)
        | Op::DeleteElements { .. }
        | Op::DeleteRule { .. } => true,
        Op::AddTable(_)
        | Op::AddChain(..)
        | Op::AddSet(..)
        | Op::AddElements { .. }
        | Op::AddRule { .. } => false,
    }
}

fn refused(batch: &Batch, first: u32, answer: Answer) -> Error {
    let op = batch::op_of(first, batch.ops.len(), answer.seq);
    let action = match op {
        Some(op) => batch::describe(&batch.ops[op]),
        None => "commit".to_owned(),
    };
    Error { action, op, source: io::Error::from_raw_os_error(answer.errno) }
}

fn absent_is_empty(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}
