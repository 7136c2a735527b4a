//! Chains and rules.

use causeway_ruleset::{BaseChain, ChainSpec, Family, Hook, Rule, TableId};

use super::encode::Context;
use super::expr::Expr;
use super::value::{read_comment, write_comment};
use super::{Invalid, decode};
use crate::uapi::{
    CHAIN_HOOK, CHAIN_NAME, CHAIN_POLICY, CHAIN_TABLE, CHAIN_TYPE, EXPR_DATA, EXPR_NAME, HOOK_NUM,
    HOOK_PRIORITY, NF_ACCEPT, NF_DROP, RULE_CHAIN, RULE_EXPRESSIONS, RULE_HANDLE, RULE_TABLE,
    RULE_USERDATA,
};
use crate::wire::{Attributes, Writer};

/// Attributes that define a chain.
pub(crate) fn write_chain(out: &mut Writer, table: &TableId, chain: &ChainSpec) {
    out.string(CHAIN_TABLE, &table.name);
    out.string(CHAIN_NAME, &chain.name);
    let Some(base) = &chain.base else { return };
    out.string(CHAIN_TYPE, &base.kind);
    let policy = if base.policy_drop { NF_DROP } else { NF_ACCEPT };
    out.bytes(CHAIN_POLICY, &policy.to_be_bytes());
    let hook = out.nest(CHAIN_HOOK);
    out.u32(HOOK_NUM, hook_number(base.hook));
    out.bytes(HOOK_PRIORITY, &base.priority.to_be_bytes());
    out.end_nest(hook);
}

/// Reads what [`write_chain`] writes, with the table's name.
pub(crate) fn read_chain(attributes: Attributes<'_>) -> Option<(String, ChainSpec)> {
    let base = match attributes.get(CHAIN_HOOK) {
        None => None,
        Some(hook) => {
            let hook = hook.nested();
            let priority = hook.get(HOOK_PRIORITY)?.value.try_into().ok()?;
            Some(BaseChain {
                kind: attributes.get(CHAIN_TYPE)?.string()?,
                hook: hook_of_number(hook.get(HOOK_NUM)?.u32()?)?,
                priority: i32::from_be_bytes(priority),
                policy_drop: attributes.get(CHAIN_POLICY)?.u32()? == 0,
            })
        }
    };
    let name = attributes.get(CHAIN_NAME)?.string()?;
    Some((attributes.get(CHAIN_TABLE)?.string()?, ChainSpec { name, base }))
}

/// `enum nf_inet_hooks`; the bridge family counts alike.
fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    }
}

fn hook_of_number(number: u32) -> Option<Hook> {
    Some(match number {
        0 => Hook::Prerouting,
        1 => Hook::Input,
        2 => Hook::Forward,
        3 => Hook::Output,
        4 => Hook::Postrouting,
        _ => return None,
    })
}

/// Attributes that define a rule.
pub(crate) fn write_rule(
    out: &mut Writer,
    table: &TableId,
    chain: &str,
    rule: &Rule,
) -> Result<(), Invalid> {
    out.string(RULE_TABLE, &table.name);
    out.string(RULE_CHAIN, chain);
    let list = out.nest(RULE_EXPRESSIONS);
    let mut context = Context::new(table.family);
    for statement in &rule.statements {
        for expr in context.encode(statement)? {
            expr.write(out);
        }
    }
    out.end_nest(list);
    if let Some(comment) = &rule.comment {
        write_comment(out, RULE_USERDATA, comment)?;
    }
    Ok(())
}

/// A rule as it was received.
#[derive(Clone, Debug)]
pub(crate) struct ReadRule {
    pub(crate) table: String,
    pub(crate) chain: String,
    pub(crate) handle: u64,
    pub(crate) rule: Rule,
}

/// Reads what [`write_rule`] writes.
pub(crate) fn read_rule(family: Family, attributes: Attributes<'_>) -> Option<ReadRule> {
    let list = attributes.get(RULE_EXPRESSIONS);
    let elements = list.map(|list| list.nested().collect::<Vec<_>>()).unwrap_or_default();
    let exprs = elements.iter().copied().map(Expr::read).collect::<Vec<_>>();
    let statements = decode::decode(family, &exprs, |at| {
        let inside = elements[at].nested();
        let name = inside.get(EXPR_NAME).and_then(|name| name.string()).unwrap_or_default();
        (name, inside.get(EXPR_DATA).map(|data| data.value.to_vec()).unwrap_or_default())
    });
    let comment = attributes.get(RULE_USERDATA).and_then(|data| read_comment(data.value));
    Some(ReadRule {
        table: attributes.get(RULE_TABLE)?.string()?,
        chain: attributes.get(RULE_CHAIN)?.string()?,
        handle: attributes.get(RULE_HANDLE)?.u64()?,
        rule: Rule { statements, comment },
    })
}
