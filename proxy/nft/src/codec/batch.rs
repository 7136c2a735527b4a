//! A batch as one buffer.

use causeway_ruleset::{Batch, Element, Op, Rule, SetSpec, TableId};

use super::set::{ElementFields, write_elements, write_spec};
use super::{Invalid, family_number, object};
use crate::uapi::{
    BATCH_BEGIN, BATCH_END, BATCH_GENID, CHAIN_NAME, CHAIN_TABLE, DELCHAIN, DELRULE, DELSET,
    DELSETELEM, DELTABLE, ELEM_LIST_SET, ELEM_LIST_TABLE, NEWCHAIN, NEWRULE, NEWSET, NEWSETELEM,
    NEWTABLE, RULE_CHAIN, RULE_HANDLE, RULE_TABLE, SET_NAME, SET_TABLE, SUBSYS_NFTABLES,
    TABLE_FLAGS, TABLE_NAME,
};
use crate::wire::{Head, Mark, Writer};

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const EXCL: u16 = 0x200;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// An encoded batch.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    /// Sequence number of the last message that the kernel answers; `None` if the batch does
    /// nothing.
    pub(crate) last: Option<u32>,
}

/// Encodes a batch whose operations have the sequence numbers `first + 1 + index`: messages of one
/// operation share theirs, so that an error names the operation.
pub(crate) fn encode(batch: &Batch, first: u32) -> Result<Encoded, (usize, Invalid)> {
    let mut encoder = Encoder { out: Writer::default(), seq: first, last: None, set_id: 0 };
    let begin = encoder.control(BATCH_BEGIN);
    if let Some(generation) = batch.generation {
        encoder.out.u32(BATCH_GENID, generation);
    }
    encoder.out.end_message(begin);
    for (index, op) in batch.ops.iter().enumerate() {
        encoder.seq = encoder.seq.wrapping_add(1);
        encoder.op(op).map_err(|invalid| (index, invalid))?;
    }
    // Errors are always reported; one answer more tells that the batch is through.
    let last = encoder.last.map(|(mark, seq)| {
        encoder.out.add_flags(mark, ACK);
        seq
    });
    encoder.seq = encoder.seq.wrapping_add(1);
    let end = encoder.control(BATCH_END);
    encoder.out.end_message(end);
    Ok(Encoded { bytes: encoder.out.into_bytes(), last })
}

struct Encoder {
    out: Writer,
    seq: u32,
    last: Option<(Mark, u32)>,
    set_id: u32,
}

impl Encoder {
    fn control(&mut self, kind: u16) -> Mark {
        let seq = self.seq;
        self.out.message(Head { kind, flags: REQUEST, seq, family: 0, res_id: SUBSYS_NFTABLES })
    }

    fn head(&self, kind: u16, flags: u16, table: &TableId) -> Head {
        let flags = REQUEST | flags;
        Head { kind, flags, seq: self.seq, family: family_number(table.family), res_id: 0 }
    }

    /// One message that holds strings and what `more` adds.
    fn simple(&mut self, head: Head, strings: &[(u16, &str)], more: impl FnOnce(&mut Writer)) {
        let message = self.out.message(head);
        for (kind, value) in strings {
            self.out.string(*kind, value);
        }
        more(&mut self.out);
        self.out.end_message(message);
        self.last = Some((message, self.seq));
    }

    fn elements(
        &mut self,
        head: Head,
        of: (&TableId, &SetSpec),
        elements: &[Element],
        parts: ElementFields,
    ) -> Result<(), Invalid> {
        if let Some(last) = write_elements(&mut self.out, head, of, elements, parts)? {
            self.last = Some((last, self.seq));
        }
        Ok(())
    }

    fn add_set(&mut self, table: &TableId, set: &SetSpec) -> Result<(), Invalid> {
        let head = self.head(NEWSET, CREATE, table);
        self.set_id += 1;
        let message = self.out.message(head);
        write_spec(&mut self.out, table, set, self.set_id)?;
        self.out.end_message(message);
        self.last = Some((message, self.seq));
        Ok(())
    }

    fn add_rule(&mut self, table: &TableId, chain: &str, rule: &Rule) -> Result<(), Invalid> {
        let head = self.head(NEWRULE, CREATE | APPEND, table);
        let message = self.out.message(head);
        object::write_rule(&mut self.out, table, chain, rule)?;
        self.out.end_message(message);
        self.last = Some((message, self.seq));
        Ok(())
    }

    fn op(&mut self, op: &Op) -> Result<(), Invalid> {
        match op {
            Op::AddTable(table) => {
                let head = self.head(NEWTABLE, CREATE, table);
                self.simple(head, &[(TABLE_NAME, &table.name)], |out| out.u32(TABLE_FLAGS, 0));
            }
            Op::DeleteTable(table) => {
                let head = self.head(DELTABLE, 0, table);
                self.simple(head, &[(TABLE_NAME, &table.name)], |_| {});
            }
            Op::AddChain(table, chain) => {
                let head = self.head(NEWCHAIN, CREATE, table);
                self.simple(head, &[], |out| object::write_chain(out, table, chain));
            }
            Op::FlushChain(table, chain) => {
                let head = self.head(DELRULE, 0, table);
                self.simple(head, &[(RULE_TABLE, &table.name), (RULE_CHAIN, chain)], |_| {});
            }
            Op::DeleteChain(table, chain) => {
                let head = self.head(DELCHAIN, 0, table);
                self.simple(head, &[(CHAIN_TABLE, &table.name), (CHAIN_NAME, chain)], |_| {});
            }
            Op::AddSet(table, set) => self.add_set(table, set)?,
            Op::FlushSet(table, set) => {
                let head = self.head(DELSETELEM, 0, table);
                self.simple(head, &[(ELEM_LIST_TABLE, &table.name), (ELEM_LIST_SET, set)], |_| {});
            }
            Op::DeleteSet(table, set) => {
                let head = self.head(DELSET, 0, table);
                self.simple(head, &[(SET_TABLE, &table.name), (SET_NAME, set)], |_| {});
            }
            Op::AddElements { table, set, elements, exclusive } => {
                let flags = CREATE | if *exclusive { EXCL } else { 0 };
                let head = self.head(NEWSETELEM, flags, table);
                self.elements(head, (table, set), elements, ElementFields::Whole)?;
            }
            Op::DeleteElements { table, set, elements } => {
                let head = self.head(DELSETELEM, 0, table);
                self.elements(head, (table, set), elements, ElementFields::Key)?;
            }
            Op::AddRule { table, chain, rule } => self.add_rule(table, chain, rule)?,
            Op::DeleteRule { table, chain, handle } => {
                let head = self.head(DELRULE, 0, table);
                self.simple(head, &[(RULE_TABLE, &table.name), (RULE_CHAIN, chain)], |out| {
                    out.u64(RULE_HANDLE, *handle);
                });
            }
        }
        Ok(())
    }
}

/// Operation index of a sequence number.
pub(crate) fn op_of(first: u32, ops: usize, seq: u32) -> Option<usize> {
    let index = usize::try_from(seq.wrapping_sub(first).checked_sub(1)?).ok()?;
    (index < ops).then_some(index)
}

/// Head of an operation for people, in nft's words.
pub(crate) fn describe(op: &Op) -> String {
    let of = |table: &TableId| format!("{} {}", super::family_name(table.family), table.name);
    match op {
        Op::AddTable(table) => format!("add table {}", of(table)),
        Op::DeleteTable(table) => format!("delete table {}", of(table)),
        Op::AddChain(table, chain) => format!("add chain {} {}", of(table), chain.name),
        Op::FlushChain(table, chain) => format!("flush chain {} {chain}", of(table)),
        Op::DeleteChain(table, chain) => format!("delete chain {} {chain}", of(table)),
        Op::AddSet(table, set) => format!("add set {} {}", of(table), set.name),
        Op::FlushSet(table, set) => format!("flush set {} {set}", of(table)),
        Op::DeleteSet(table, set) => format!("delete set {} {set}", of(table)),
        Op::AddElements { table, set, .. } => format!("add element {} {}", of(table), set.name),
        Op::DeleteElements { table, set, .. } => {
            format!("delete element {} {}", of(table), set.name)
        }
        Op::AddRule { table, chain, .. } => format!("add rule {} {chain}", of(table)),
        Op::DeleteRule { table, chain, handle } => {
            format!("delete rule {} {chain} handle {handle}", of(table))
        }
    }
}
