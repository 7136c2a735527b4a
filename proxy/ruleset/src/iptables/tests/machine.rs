//! A machine that takes `iptables-restore` scripts and new connections. It knows what our rules
//! say and panics at the rest, so that rules cannot drift from what is tested.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use causeway_model::IpFamily;
use ipnetwork::IpNetwork;

use crate::iptables::Script;
use crate::iptables::rule::protocol;
use crate::spread;
use crate::trace::{Choice, Packet};

/// Bits of other programs, which must stay.
const MARK: u32 = 0x1200_8001;
const BUILT_IN: [(&str, &[&str]); 4] = [
    ("raw", &["PREROUTING", "OUTPUT"]),
    ("mangle", &["PREROUTING"]),
    ("nat", &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"]),
    ("filter", &["INPUT", "FORWARD", "OUTPUT"]),
];

type Tables = BTreeMap<String, BTreeMap<String, Vec<String>>>;

/// Tables of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    family: IpFamily,
    tables: Tables,
}

/// What may become of a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    Pass,
    Drop,
    Reject,
    To(Choice),
}

/// Where a chain ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Through,
    Accept,
    Drop,
    Reject,
    Dnat(SocketAddr),
    Masquerade,
}

/// A packet on its way, with what one rule may depend on.
#[derive(Clone, Copy)]
struct Look<'a> {
    packet: &'a Packet,
    to: SocketAddr,
    dnat: bool,
    mark: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    Yes,
    No,
    Maybe,
}

impl Machine {
    pub(super) fn new(family: IpFamily) -> Self {
        let tables = BUILT_IN.iter().map(|(table, names)| {
            let chains = names.iter().map(|name| ((*name).to_owned(), Vec::new()));
            ((*table).to_owned(), chains.collect())
        });
        Self { family, tables: tables.collect() }
    }

    /// `iptables-restore --noflush`
    pub(super) fn restore(&mut self, scripts: &[Script]) {
        let family = self.family;
        for script in scripts.iter().filter(|script| script.family == family) {
            let mut table = String::new();
            for line in script.text.lines() {
                match line.strip_prefix('*') {
                    Some(name) => table = name.to_owned(),
                    None => self.command(&table, line),
                }
            }
        }
    }

    fn command(&mut self, table: &str, line: &str) {
        if line == "COMMIT" {
            return self.check(table);
        }
        let chains = self.tables.get_mut(table).unwrap_or_else(|| panic!("{line}"));
        if let Some(chain) = line.strip_prefix(':') {
            let chain = chain.strip_suffix(" - [0:0]").unwrap_or_else(|| panic!("{line}"));
            assert!(chain.len() <= 28, "{chain}");
            chains.insert(chain.to_owned(), Vec::new());
            return;
        }
        let (verb, rest) = line.split_once(' ').unwrap_or_else(|| panic!("{line}"));
        let (chain, rule) = rest.split_once(' ').unwrap_or((rest, ""));
        let rules = chains.get_mut(chain).unwrap_or_else(|| panic!("no chain: {line}"));
        match verb {
            "-A" => rules.push(rule.to_owned()),
            "-I" => rules.insert(0, rule.to_owned()),
            "-D" => {
                let at = rules.iter().position(|there| there == rule);
                rules.remove(at.unwrap_or_else(|| panic!("no rule: {line}")));
            }
            "-X" => {
                assert!(rules.is_empty(), "{line}");
                chains.remove(chain);
                let refers = |rule: &String| target(rule).0 == chain;
                assert!(!chains.values().flatten().any(refers), "referenced: {line}");
            }
            _ => panic!("{line}"),
        }
    }

    fn check(&self, table: &str) {
        const TARGETS: [&str; 7] =
            ["ACCEPT", "DROP", "RETURN", "REJECT", "MARK", "DNAT", "MASQUERADE"];
        let chains = &self.tables[table];
        for (chain, rules) in chains {
            for rule in rules {
                let (target, _) = target(rule);
                assert!(
                    chains.contains_key(target) || TARGETS.contains(&target),
                    "{chain}: {rule}"
                );
                let filter = ["REJECT", "DROP"].contains(&target) && table == "nat";
                assert!(!filter, "{chain}: {rule}: no filtering in table nat");
            }
        }
    }

    /// `iptables-save`
    pub(super) fn save(&self) -> String {
        let mut text = String::new();
        for (table, chains) in &self.tables {
            writeln!(text, "*{table}").unwrap();
            for chain in chains.keys() {
                let policy = if built_in(table, chain) { "ACCEPT" } else { "-" };
                writeln!(text, ":{chain} {policy} [0:0]").unwrap();
            }
            for (chain, rules) in chains {
                rules.iter().for_each(|rule| writeln!(text, "-A {chain} {rule}").unwrap());
            }
            text.push_str("COMMIT\n");
        }
        text
    }

    /// What may become of a new connection.
    pub(super) fn verdicts(&self, packet: &Packet) -> BTreeSet<Verdict> {
        let to = SocketAddr::new(packet.destination, packet.port);
        let look = Look { packet, to, dnat: false, mark: MARK };
        let mut verdicts = BTreeSet::new();
        let entry = if packet.from_node { "OUTPUT" } else { "PREROUTING" };
        for (end, _) in self.walk("raw", entry, look) {
            match end {
                End::Through => {}
                End::Drop => return [Verdict::Drop].into(),
                End::Accept | End::Reject | End::Dnat(_) | End::Masquerade => panic!("{end:?}"),
            }
        }
        for (end, mark) in self.walk("nat", entry, look) {
            verdicts.insert(match end {
                End::Dnat(to) => self.forwarded(Look { to, dnat: true, mark, ..look }),
                End::Through | End::Accept => self.filtered(Look { mark, ..look }),
                End::Drop | End::Reject | End::Masquerade => panic!("{end:?}"),
            });
        }
        verdicts
    }

    fn forwarded(&self, look: Look<'_>) -> Verdict {
        for (end, _) in self.walk("filter", "FORWARD", look) {
            assert!(matches!(end, End::Through | End::Accept), "{end:?}");
        }
        let ends = self.walk("nat", "POSTROUTING", look);
        let (end, mark) = ends.first().unwrap();
        assert!(ends.len() == 1 && *mark == MARK, "{ends:?}");
        let masquerade = *end == End::Masquerade;
        Verdict::To(Choice { address: look.to.ip(), port: look.to.port(), masquerade })
    }

    fn filtered(&self, look: Look<'_>) -> Verdict {
        let hook = match look.packet {
            packet if packet.from_node => "OUTPUT",
            packet if packet.to_node => "INPUT",
            _ => "FORWARD",
        };
        let ends = self.walk("filter", hook, look);
        assert_eq!(ends.len(), 1, "{ends:?}");
        match ends.first().unwrap().0 {
            End::Drop => Verdict::Drop,
            End::Reject => Verdict::Reject,
            End::Through | End::Accept => {
                assert_eq!(look.mark, MARK, "passes, and is marked");
                Verdict::Pass
            }
            End::Dnat(_) | End::Masquerade => panic!("{ends:?}"),
        }
    }

    /// All ends that a chain may come to, with the mark there.
    fn walk(&self, table: &str, chain: &str, look: Look<'_>) -> BTreeSet<(End, u32)> {
        let mut ends = BTreeSet::new();
        let mut marks = BTreeSet::from([look.mark]);
        for rule in &self.tables[table][chain] {
            let mut next = BTreeSet::new();
            for mark in marks {
                let look = Look { mark, ..look };
                let holds = holds(rule, look);
                if holds != Holds::Yes {
                    next.insert(mark);
                }
                if holds == Holds::No {
                    continue;
                }
                match act(rule, mark) {
                    Act::Mark(mark) => drop(next.insert(mark)),
                    Act::End(end) => drop(ends.insert((end, mark))),
                    Act::Jump(to) => {
                        for (end, mark) in self.walk(table, to, look) {
                            if end == End::Through {
                                next.insert(mark);
                            } else {
                                ends.insert((end, mark));
                            }
                        }
                    }
                }
            }
            marks = next;
        }
        ends.extend(marks.into_iter().map(|mark| (End::Through, mark)));
        ends
    }
}

enum Act<'a> {
    Mark(u32),
    End(End),
    Jump(&'a str),
}

fn built_in(table: &str, chain: &str) -> bool {
    BUILT_IN.iter().any(|(name, chains)| *name == table && chains.contains(&chain))
}

fn target(rule: &str) -> (&str, &str) {
    let (_, target) = families(rule);
    target.split_once(' ').unwrap_or((target, ""))
}

/// Conditions and target of a rule. No name within a comment holds ` -j `: the tests see to it.
fn families(rule: &str) -> (&str, &str) {
    match rule.strip_prefix("-j ") {
        Some(target) => ("", target),
        None => rule.rsplit_once(" -j ").unwrap_or_else(|| panic!("{rule}")),
    }
}

fn act(rule: &str, mark: u32) -> Act<'_> {
    let (name, options) = target(rule);
    let end = match name {
        "ACCEPT" => End::Accept,
        "RETURN" => End::Through,
        "DROP" => End::Drop,
        "REJECT" => {
            assert!(options.starts_with("--reject-with icmp"), "{rule}");
            assert!(options.ends_with("port-unreachable"), "{rule}");
            End::Reject
        }
        "MASQUERADE" => {
            assert_eq!(options, "--random-fully");
            End::Masquerade
        }
        "DNAT" => {
            let to = options.strip_prefix("--to-destination ").and_then(|to| to.parse().ok());
            End::Dnat(to.unwrap_or_else(|| panic!("{rule}")))
        }
        "MARK" => {
            let (value, mask) =
                options.strip_prefix("--set-xmark ").and_then(|mark| mark.split_once('/')).unwrap();
            return Act::Mark((mark & !number(mask)) ^ number(value));
        }
        chain => {
            assert_eq!(options, "", "{rule}");
            return Act::Jump(chain);
        }
    };
    Act::End(end)
}

fn holds(rule: &str, look: Look<'_>) -> Holds {
    let words = words(families(rule).0);
    let mut words = words.iter().map(String::as_str).peekable();
    let mut result = Holds::Yes;
    let mut dice = false;
    let mut cluster = BTreeMap::new();
    while let Some(word) = words.next() {
        let negate = word == "!";
        let option = if negate { words.next().unwrap() } else { word };
        let mut value = || words.next().unwrap_or_else(|| panic!("{rule}"));
        let yes = match option {
            "-m" => {
                dice |= value() == "statistic";
                continue;
            }
            "--comment" | "--mode" | "--every" | "--packet" | "--probability" | "--name"
            | "--mask" | "--seconds" => {
                value();
                continue;
            }
            "--rcheck" => {
                dice = true;
                continue;
            }
            "--reap" | "--set" | "--rsource" => continue,
            "--cluster-local-nodemask" | "--cluster-total-nodes" | "--cluster-hash-seed" => {
                let value = number(value());
                assert!(!option.ends_with("mask") || value <= 32, "{rule}: not restored");
                cluster.insert(option.to_owned(), value);
                continue;
            }
            option => one(option, value(), look),
        };
        if yes == negate {
            result = Holds::No;
        }
    }
    if !cluster.is_empty() {
        let [seed, mask, total] = cluster.into_values().collect::<Vec<_>>()[..] else {
            panic!("{rule}")
        };
        assert!(look.packet.source.is_ipv4(), "{rule}: hashes 32 bits");
        if mask >> spread::seeded_bucket(look.packet.source, total, seed) & 1 == 0 {
            result = Holds::No;
        }
    }
    if dice && result == Holds::Yes { Holds::Maybe } else { result }
}

fn one(option: &str, value: &str, look: Look<'_>) -> bool {
    let within = |address: IpAddr| value.parse::<IpNetwork>().unwrap().contains(address);
    match option {
        "-s" => match (value.split_once('/'), look.packet.source) {
            (Some((bits, mask)), IpAddr::V6(source)) if mask.contains(':') => {
                let number = |text: &str| text.parse::<Ipv6Addr>().unwrap().to_bits();
                source.to_bits() & number(mask) == number(bits)
            }
            _ => within(look.packet.source),
        },
        "-d" => within(look.to.ip()),
        "-p" => value == protocol(look.packet.protocol),
        "-i" => {
            assert_eq!(value, "lo");
            look.packet.from_node
        }
        "--dport" => {
            let (first, last) = value.split_once(':').unwrap_or((value, value));
            (first.parse().unwrap()..=last.parse().unwrap()).contains(&look.to.port())
        }
        "--src-type" | "--dst-type" => {
            assert_eq!(value, "LOCAL");
            if option == "--src-type" { look.packet.from_node } else { look.packet.to_node }
        }
        "--ctstate" => value.split(',').any(|state| match state {
            "NEW" => true,
            "DNAT" => look.dnat,
            "RELATED" | "ESTABLISHED" => false,
            state => panic!("{state}"),
        }),
        // First packets alone.
        "--ctdir" => value == "ORIGINAL",
        "--mark" => {
            let (value, mask) = value.split_once('/').unwrap();
            look.mark & number(mask) == number(value)
        }
        option => panic!("{option}"),
    }
}

fn number(text: &str) -> u32 {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).unwrap(),
        None => text.parse().unwrap(),
    }
}

fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (number, part) in text.split('"').enumerate() {
        if number % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}
