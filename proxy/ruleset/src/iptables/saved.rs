//! Reading what `iptables-save` prints, as far as it concerns us.

use std::collections::BTreeMap;

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

/// Tables other than ours and lines that are neither chain nor rule are skipped.
pub(super) fn parse(text: &str) -> Saved {
    let mut saved = Saved::default();
    let mut table = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = Table::named(name.trim());
        }
        let Some(table) = table else { continue };
        if let Some(rest) = line.strip_prefix(':') {
            let name = rest.split(' ').next().unwrap_or_default();
            if names::is_ours(name) {
                saved.chains.entry((table, name.into())).or_insert(0);
            }
        } else if let Some((chain, rule)) = rule_of(line) {
            if names::is_ours(chain) {
                *saved.chains.entry((table, chain.into())).or_insert(0) += 1;
            } else if let Some(to) = target(rule).filter(|to| names::is_ours(to)) {
                let (from, rule, to) = (chain.to_owned(), rule.to_owned(), to.to_owned());
                saved.jumps.push(SavedJump { table, from, rule, to });
            }
        }
    }
    saved
}

/// Chain and rest of `-A CHAIN ...`, behind counters if they are printed.
fn rule_of(line: &str) -> Option<(&str, &str)> {
    let line = match line.strip_prefix('[') {
        Some(rest) => rest.split_once("] ")?.1,
        None => line,
    };
    let rest = line.strip_prefix("-A ")?;
    Some(rest.split_once(' ').unwrap_or((rest, "")))
}

/// The chain behind `-j` or `-g`; words within quotes are skipped.
fn target(rule: &str) -> Option<&str> {
    let (mut quoted, mut before) = (false, "");
    for word in rule.split(' ') {
        if !quoted && matches!(before, "-j" | "-g") {
            return Some(word);
        }
        let mut escaped = false;
        for c in word.chars() {
            quoted ^= c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
        }
        before = word;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_stand_outside_of_quotes() {
        assert_eq!(target("-p tcp -j CW-SERVICES"), Some("CW-SERVICES"));
        assert_eq!(target("-g X"), Some("X"));
        let within = r#"-m comment --comment "a \" -j CW-SERVICES" -j ACCEPT"#;
        assert_eq!(target(within), Some("ACCEPT"));
        assert_eq!(target("-m mark"), None);
    }
}
