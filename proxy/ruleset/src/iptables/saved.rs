//! Reading what `iptables-save` prints, as far as it concerns us.

use std::collections::BTreeMap;

use super::lines::{SavedLine, saved_lines, words};
use super::{Table, names};

/// Our chains and the rules elsewhere that lead to them.
#[derive(Debug, Default)]
pub(super) struct Saved {
    /// Number of rules by chain.
    pub(super) chains: BTreeMap<(Table, Box<str>), u32>,
    /// Rules of other programs' chains that lead to ours: table, chain, the rest of the rule,
    /// target.
    pub(super) jumps: Vec<SavedJump>,
}

#[derive(Debug)]
pub(super) struct SavedJump {
    pub(super) table: Table,
    pub(super) from: String,
    pub(super) rule: String,
    pub(super) to: String,
}

/// Tables other than ours are skipped.
pub(super) fn parse(text: &str) -> Saved {
    let mut saved = Saved::default();
    for (table, line) in saved_lines(text) {
        let Some(table) = Table::named(table) else { continue };
        match line {
            SavedLine::Chain { name, .. } if names::is_ours(name) => {
                saved.chains.entry((table, name.into())).or_insert(0);
            }
            SavedLine::Chain { .. } => {}
            SavedLine::Rule { chain, .. } if names::is_ours(chain) => {
                *saved.chains.entry((table, chain.into())).or_insert(0) += 1;
            }
            SavedLine::Rule { chain, rule } => {
                let Some(to) = target(rule).filter(|to| names::is_ours(to)) else { continue };
                let (from, rule) = (chain.to_owned(), rule.to_owned());
                saved.jumps.push(SavedJump { table, from, rule, to });
            }
        }
    }
    saved
}

/// The chain behind `-j` or `-g`.
fn target(rule: &str) -> Option<String> {
    let mut words = words(rule).into_iter();
    words.find(|word| matches!(word.as_str(), "-j" | "-g"))?;
    words.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_stand_outside_of_quotes() {
        assert_eq!(target("-p tcp -j CW-SERVICES").as_deref(), Some("CW-SERVICES"));
        assert_eq!(target("-g X").as_deref(), Some("X"));
        let within = r#"-m comment --comment "a \" -j CW-SERVICES" -j ACCEPT"#;
        assert_eq!(target(within).as_deref(), Some("ACCEPT"));
        assert_eq!(target("-m mark"), None);
    }
}
