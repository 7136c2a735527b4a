//! The output of `iptables-save`: tables, chains and rules. Pure.

use std::collections::{BTreeMap, BTreeSet};

use causeway_ruleset::iptables::{SavedLine, saved_lines, words};

/// Chains and rules of one family, by table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Saved {
    tables: BTreeMap<String, Table>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Table {
    chains: BTreeSet<String>,
    rules: Vec<Rule>,
    /// Places in `rules`, ascending by chain and arguments: all attachments are looked for at once.
    sorted: Vec<usize>,
}

impl Table {
    fn sort(&mut self) {
        let mut sorted: Vec<usize> = (0..self.rules.len()).collect();
        sorted.sort_by_key(|place| self.key(*place));
        self.sorted = sorted;
    }

    fn key(&self, place: usize) -> (&str, &[String]) {
        self.rules.get(place).map_or(("", &[]), |rule| (&rule.chain, &rule.args))
    }

    /// Rules of a chain, in order.
    fn chain(&self, chain: &str) -> Vec<&Rule> {
        let start = self.sorted.partition_point(|place| self.key(*place).0 < chain);
        let places = self.sorted.iter().skip(start);
        let mut places: Vec<usize> =
            places.copied().take_while(|place| self.key(*place).0 == chain).collect();
        places.sort_unstable();
        places.into_iter().filter_map(|place| self.rules.get(place)).collect()
    }

    fn has_rule(&self, chain: &str, args: &[String]) -> bool {
        self.sorted.binary_search_by(|place| self.key(*place).cmp(&(chain, args))).is_ok()
    }
}

/// A rule as saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// The chain it is in.
    pub chain: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// The line without `-A CHAIN `.
    pub text: String,
}

impl Rule {
    /// The word after `option`.
    pub(crate) fn option(&self, option: &str) -> Option<&str> {
        let at = self.args.iter().position(|arg| arg == option)?;
        self.args.get(at + 1).map(String::as_str)
    }

    /// The chain or target it jumps to.
    pub(crate) fn target(&self) -> Option<&str> {
        self.option("-j")
    }
}

impl Saved {
    /// Reads what `iptables-save` prints; lines it does not print are left out.
    pub(crate) fn parse(text: &str) -> Self {
        let mut saved = Self::default();
        for (table, line) in saved_lines(text) {
            let table = saved.tables.entry(table.to_owned()).or_default();
            match line {
                SavedLine::Chain { name, .. } => {
                    table.chains.insert(name.to_owned());
                }
                SavedLine::Rule { chain, rule } => table.rules.push(Rule {
                    chain: chain.to_owned(),
                    args: words(rule),
                    text: rule.to_owned(),
                }),
            }
        }
        saved.tables.values_mut().for_each(Table::sort);
        saved
    }

    /// Whether a chain exists.
    pub(crate) fn has_chain(&self, table: &str, chain: &str) -> bool {
        self.tables.get(table).is_some_and(|table| table.chains.contains(chain))
    }

    /// Rules of a table.
    pub(crate) fn rules(&self, table: &str) -> impl Iterator<Item = &Rule> {
        self.tables.get(table).into_iter().flat_map(|table| &table.rules)
    }

    /// Rules of a chain, in order.
    pub(crate) fn chain(&self, table: &str, chain: &str) -> Vec<&Rule> {
        self.tables.get(table).map(|table| table.chain(chain)).unwrap_or_default()
    }

    /// Whether the chain holds a rule of these arguments.
    pub(crate) fn has_rule(&self, table: &str, chain: &str, text: &str) -> bool {
        self.tables.get(table).is_some_and(|table| table.has_rule(chain, &words(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_a_chain_stay_in_their_order_and_are_found() {
        let saved = Saved::parse(
            "*nat\n:A - [0:0]\n:B - [0:0]\n-A B -p udp -j C\n-A A -s 10.0.0.9/32 -j B\n\
             -A B -p tcp -j C\n-A A -s 10.0.0.1/32 -j B\nCOMMIT\n*raw\n-A B -j DROP\nCOMMIT\n",
        );
        let texts = |table: &str, chain: &str| {
            let rules = saved.chain(table, chain);
            rules.into_iter().map(|rule| rule.text.clone()).collect::<Vec<_>>()
        };
        assert_eq!(texts("nat", "A"), ["-s 10.0.0.9/32 -j B", "-s 10.0.0.1/32 -j B"]);
        assert_eq!(texts("nat", "B"), ["-p udp -j C", "-p tcp -j C"]);
        assert_eq!(texts("raw", "B"), ["-j DROP"]);
        assert_eq!(texts("nat", "C"), [""; 0]);
        assert!(saved.has_rule("nat", "B", "-p tcp -j C"));
        assert!(!saved.has_rule("nat", "B", "-p tcp"));
        assert!(!saved.has_rule("raw", "B", "-p tcp -j C"));
        assert!(!saved.has_rule("filter", "B", "-j DROP"));
    }
}
