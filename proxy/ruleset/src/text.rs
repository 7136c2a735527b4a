//! nft syntax of the IR, for people, snapshots and `nft -c -f`.
//!
//! Text is what `nft` 1.0.6 prints for the same objects, save for line breaks between elements and
//! for counts. If nft's language cannot say a thing (an expression that the IR does not know)
//! the text says so in a comment, and `nft -f` of it lacks that thing.

mod rule;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeSet;

use crate::{
    BaseChain, Batch, ChainSpec, DYNAMIC_SIZE, DataType, Element, ElementValue, Family, Hook,
    MapTarget, Op, SetSpec, TableId, TableState,
};

pub use rule::rule;

/// The table as `nft list table` would print it (sorted; without handles).
pub fn table(id: &TableId, state: &TableState) -> String {
    let mut blocks = Vec::new();
    for (set, elements) in state.sets.values() {
        blocks.push(set_block(set, elements));
    }
    for (chain, rules) in state.chains.values() {
        let mut block = format!("\tchain {} {{\n", chain.name);
        if let Some(base) = &chain.base {
            let priority = priority(id.family, base);
            line(&mut block, &hook(base, &priority));
        }
        for (_, one) in rules {
            line(&mut block, &rule(id.family, one));
        }
        block.push_str("\t}\n");
        blocks.push(block);
    }
    format!("table {} {{\n{}}}\n", of(id), blocks.join("\n"))
}

/// The batch as input for `nft -f`, one line an operation.
pub fn batch(batch: &Batch) -> String {
    let maps = maps(batch);
    batch.ops.iter().fold(String::new(), |mut text, op| {
        text.push_str(&operation(op, &maps));
        text.push('\n');
        text
    })
}

/// nft tells maps from sets in a few commands: what the batch says about its names.
fn maps(batch: &Batch) -> BTreeSet<(&TableId, &str)> {
    let maps = batch.ops.iter().filter_map(|op| match op {
        Op::AddSet(table, set)
        | Op::AddElements { table, set, .. }
        | Op::DeleteElements { table, set, .. } => {
            set.target.is_some().then_some((table, set.name.as_str()))
        }
        Op::AddTable(_)
        | Op::DeleteTable(_)
        | Op::AddChain(..)
        | Op::FlushChain(..)
        | Op::DeleteChain(..)
        | Op::FlushSet(..)
        | Op::DeleteSet(..)
        | Op::AddRule { .. }
        | Op::DeleteRule { .. } => None,
    });
    maps.collect()
}

fn operation(op: &Op, maps: &BTreeSet<(&TableId, &str)>) -> String {
    let set_word = |table, name: &str| if maps.contains(&(table, name)) { "map" } else { "set" };
    match op {
        Op::AddTable(table) => format!("add table {}", of(table)),
        Op::DeleteTable(table) => format!("delete table {}", of(table)),
        Op::AddChain(table, chain) => add_chain(table, chain),
        Op::FlushChain(table, chain) => format!("flush chain {} {chain}", of(table)),
        Op::DeleteChain(table, chain) => format!("delete chain {} {chain}", of(table)),
        Op::AddSet(table, set) => {
            let words = set_words(set).join("; ");
            format!("add {} {} {} {{ {words}; }}", word(set), of(table), set.name)
        }
        Op::FlushSet(table, set) => format!("flush {} {} {set}", set_word(table, set), of(table)),
        Op::DeleteSet(table, set) => {
            format!("delete {} {} {set}", set_word(table, set), of(table))
        }
        Op::AddElements { table, set, elements, exclusive } => {
            // nft 1.0.6 sends plain intervals so that `create` refuses its own elements.
            let plain_intervals = set.interval && set.key.len() == 1;
            let verb = if *exclusive && !plain_intervals { "create" } else { "add" };
            elements_command(verb, table, set, elements.iter().map(element))
        }
        Op::DeleteElements { table, set, elements } => {
            elements_command("delete", table, set, elements.iter().map(|one| value::key(&one.key)))
        }
        Op::AddRule { table, chain, rule: one } => {
            format!("add rule {} {chain} {}", of(table), rule(table.family, one))
        }
        Op::DeleteRule { table, chain, handle } => {
            format!("delete rule {} {chain} handle {handle}", of(table))
        }
    }
}

fn elements_command(
    verb: &str,
    table: &TableId,
    set: &SetSpec,
    elements: impl Iterator<Item = String>,
) -> String {
    let elements = elements.collect::<Vec<_>>();
    if elements.is_empty() {
        return format!("# no elements for {} {}", of(table), set.name);
    }
    format!("{verb} element {} {} {{ {} }}", of(table), set.name, elements.join(", "))
}

fn add_chain(table: &TableId, chain: &ChainSpec) -> String {
    let name = format!("add chain {} {}", of(table), chain.name);
    match &chain.base {
        None => name,
        Some(base) => format!("{name} {{ {} }}", hook(base, &base.priority.to_string())),
    }
}

fn hook(base: &BaseChain, priority: &str) -> String {
    let policy = if base.policy_drop { "drop" } else { "accept" };
    let hook = hook_name(base.hook);
    format!("type {} hook {hook} priority {priority}; policy {policy};", base.kind)
}

fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Prerouting => "prerouting",
        Hook::Input => "input",
        Hook::Forward => "forward",
        Hook::Output => "output",
        Hook::Postrouting => "postrouting",
    }
}

/// nft prints priorities near a standard one by its name, if the family and hook have it.
fn priority(family: Family, base: &BaseChain) -> String {
    let standard: &[(i32, &str, Option<Hook>)] = match family {
        Family::Bridge => &[
            (-300, "dstnat", Some(Hook::Prerouting)),
            (-200, "filter", None),
            (100, "out", Some(Hook::Output)),
            (300, "srcnat", Some(Hook::Postrouting)),
        ],
        Family::Inet | Family::Ip | Family::Ip6 => &[
            (-300, "raw", None),
            (-150, "mangle", None),
            (-100, "dstnat", Some(Hook::Prerouting)),
            (0, "filter", None),
            (50, "security", None),
            (100, "srcnat", Some(Hook::Postrouting)),
        ],
    };
    for (number, name, hook) in standard {
        let offset = base.priority.saturating_sub(*number);
        if hook.is_some_and(|hook| hook != base.hook) || offset.abs() > 10 {
            continue;
        }
        return match offset {
            0 => (*name).to_owned(),
            1.. => format!("{name} + {offset}"),
            _ => format!("{name} - {}", -offset),
        };
    }
    base.priority.to_string()
}

fn of(table: &TableId) -> String {
    let family = match table.family {
        Family::Inet => "inet",
        Family::Ip => "ip",
        Family::Ip6 => "ip6",
        Family::Bridge => "bridge",
    };
    format!("{family} {}", table.name)
}

fn word(set: &SetSpec) -> &'static str {
    if set.target.is_some() { "map" } else { "set" }
}

/// What defines a set, one string per line.
fn set_words(set: &SetSpec) -> Vec<String> {
    let numbers = set.key.contains(&DataType::Number);
    let (word, say): (_, fn(&[DataType]) -> String) = match numbers {
        true => ("typeof", value::expressions),
        false => ("type", value::types),
    };
    let mut kind = format!("{word} {}", say(&set.key));
    match &set.target {
        None => {}
        Some(MapTarget::Verdict) => kind.push_str(" : verdict"),
        Some(MapTarget::Data(kinds)) => {
            kind.push_str(" : ");
            kind.push_str(&say(kinds));
        }
    }
    let mut words = vec![kind];
    if set.dynamic {
        words.push(format!("size {DYNAMIC_SIZE}"));
    }
    let mut flags = Vec::new();
    if set.interval {
        flags.push("interval");
    }
    if set.dynamic {
        flags.push("dynamic");
    }
    // nft implies this flag by a timeout, and lists it only beside others.
    if set.timeout_ms.is_some() && !flags.is_empty() {
        flags.push("timeout");
    }
    if !flags.is_empty() {
        words.push(format!("flags {}", flags.join(",")));
    }
    if let Some(timeout) = set.timeout_ms {
        words.push(format!("timeout {}", value::duration(timeout)));
    }
    words
}

fn set_block(set: &SetSpec, elements: &[Element]) -> String {
    let mut block = format!("\t{} {} {{\n", word(set), set.name);
    for words in set_words(set) {
        line(&mut block, &words);
    }
    if !elements.is_empty() {
        let elements = elements.iter().map(element).collect::<Vec<_>>();
        line(&mut block, &format!("elements = {{ {} }}", elements.join(",\n\t\t\t     ")));
    }
    block.push_str("\t}\n");
    block
}

fn element(element: &Element) -> String {
    let mut text = value::key(&element.key);
    if let Some(comment) = &element.comment {
        text.push_str(&format!(" comment \"{comment}\""));
    }
    match &element.value {
        None => {}
        Some(ElementValue::Data(values)) => {
            text.push_str(" : ");
            text.push_str(&value::values(values));
        }
        Some(ElementValue::Verdict(verdict)) => {
            text.push_str(" : ");
            text.push_str(&value::verdict(verdict));
        }
    }
    text
}

fn line(block: &mut String, text: &str) {
    block.push_str("\t\t");
    block.push_str(text);
    block.push('\n');
}
