//! Entry point of the fuzz target: whatever bytes come, it must neither panic nor loop.

use causeway_ruleset::Family;

use crate::codec::{encode, object, set};
use crate::wire::{Attributes, Messages};

/// Reads `bytes` as a datagram of every kind of message that is read from the kernel. What could be
/// read as statements is encoded again.
pub fn decode(bytes: &[u8]) {
    attributes(Attributes(bytes));
    for message in Messages(bytes) {
        attributes(message.attributes());
    }
}

fn attributes(attributes: Attributes<'_>) {
    std::hint::black_box(object::read_chain(attributes));
    for family in [Family::Ip, Family::Ip6, Family::Inet, Family::Bridge] {
        if let Some(read) = object::read_rule(family, attributes) {
            let mut context = encode::Context::new(family);
            for statement in &read.rule.statements {
                std::hint::black_box(context.encode(statement).is_ok());
            }
        }
    }
    if let Some((_, spec)) = set::read_spec(attributes) {
        let mut raw = Vec::new();
        set::read_elements(attributes, &spec, &mut raw);
        set::repeats(&mut raw);
        std::hint::black_box(set::elements(&spec, raw));
    }
}
