//! Names, rules and restore input of the iptables backend. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use causeway_host::RecordKey;
use causeway_ruleset::iptables::words;
use ipnetwork::IpNetwork;

use crate::config::IptablesOptions;
use crate::iptables::live;
use crate::iptables::names::{DNAT_CHAIN, Names};
use crate::iptables::save::Saved;
use crate::mapping::{Addresses, Binding, Protocol};
use crate::record::{Mark, Masquerade, Record};

const SET_MARK_CHAIN: &str = "CNI-HOSTPORT-SETMARK";
const MASQUERADE_CHAIN: &str = "CNI-HOSTPORT-MASQ";
const LOCAL: &str = "-m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT";
const MASQUERADE_JUMP: &str =
    "-m comment --comment \"CNI portfwd requiring masquerade\" -j CNI-HOSTPORT-MASQ";
const GUARD: &str = "-d 127.0.0.0/8 ! -i lo -m comment --comment \"causeway-service: 127.0.0.0/8 \
                     comes from lo only\" -j DROP";
/// Marks replies to 127.0.0.0/8 (`LOCALHOST_REPLY`) for the guard of links, which sees them translated
/// if `bridge-nf-call-iptables` is on.
const REPLIES: &str = "-m conntrack --ctorigsrc 127.0.0.0/8 --ctdir REPLY -m comment --comment \
                       \"causeway-service: replies to 127.0.0.0/8\" -j MARK --set-xmark \
                       0x1000/0x1000";
/// What guards 127.0.0.0/8: table and rule of its chain PREROUTING.
const GUARDS: [(&str, &str); 2] = [("raw", GUARD), ("mangle", REPLIES)];
/// Most ports of one multiport match.
const PORTS: usize = 15;

/// What an attachment wants of iptables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    v4: Option<FamilyRules>,
    v6: Option<FamilyRules>,
}

/// What an attachment wants of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FamilyRules {
    /// ip6tables
    pub ipv6: bool,
    /// Whose rules.
    pub names: Names,
    /// The mappings.
    pub bindings: Vec<Binding>,
    container: IpNetwork,
    conditions: Vec<String>,
    masquerade: Masquerade,
    mark: Mark,
}

impl Wanted {
    /// The rules of the attachment `key` for the mappings of `record`.
    pub(crate) fn new(
        key: &RecordKey,
        record: &Record,
        options: &IptablesOptions,
        addresses: &Addresses,
    ) -> Self {
        let rules = |container: Option<IpNetwork>| {
            let container = container?;
            let ipv6 = container.is_ipv6();
            let own = |binding: &&Binding| binding.target.is_ipv6() == ipv6;
            let bindings: Vec<Binding> = record.bindings.iter().filter(own).cloned().collect();
            let conditions = if ipv6 { &options.conditions_v6 } else { &options.conditions_v4 };
            (!bindings.is_empty()).then(|| FamilyRules {
                ipv6,
                names: Names::of(key),
                bindings,
                container,
                conditions: conditions.clone(),
                masquerade: record.masquerade,
                mark: options.mark.clone(),
            })
        };
        Self { v4: rules(addresses.v4), v6: rules(addresses.v6) }
    }

    /// The rules of one family.
    pub(crate) fn family(&self, ipv6: bool) -> Option<&FamilyRules> {
        if ipv6 { self.v6.as_ref() } else { self.v4.as_ref() }
    }

    /// The families that have mappings.
    pub(crate) fn families(&self) -> impl Iterator<Item = &FamilyRules> {
        self.v4.iter().chain(&self.v6)
    }
}

impl FamilyRules {
    /// Whether the mappings are for some packets only.
    pub(crate) fn is_conditional(&self) -> bool {
        !self.conditions.is_empty()
    }

    /// Jumps to the attachment's chain, as saved.
    fn jumps(&self) -> Vec<String> {
        let mut jumps = Vec::new();
        for protocol in [Protocol::Sctp, Protocol::Tcp, Protocol::Udp] {
            let own = self.bindings.iter().filter(|binding| binding.protocol == protocol);
            let ports: Vec<String> = own.map(|binding| binding.host_port.to_string()).collect();
            for group in ports.chunks(PORTS) {
                let mut jump = format!(
                    "-p {protocol} -m comment --comment {} -m multiport --dports {}",
                    quote(&self.names.comment),
                    group.join(",")
                );
                for word in &self.conditions {
                    jump.push(' ');
                    jump.push_str(&quote_where_needed(word));
                }
                write!(jump, " -j {}", self.names.chain).expect("writing to a String");
                jumps.push(jump);
            }
        }
        jumps
    }

    /// Rules of the attachment's chain, as saved.
    fn chain(&self) -> Vec<String> {
        self.bindings.iter().flat_map(|binding| self.of_binding(binding)).collect()
    }

    fn of_binding(&self, binding: &Binding) -> Vec<String> {
        let protocol = binding.protocol;
        let to = binding.host.map(|host| format!("-d {}/{} ", host, bits(host)));
        let to = to.unwrap_or_default();
        let port = format!("-p {protocol} -m {protocol} --dport {}", binding.host_port);
        let set_mark = match &self.mark {
            Mark::Bit(_) => SET_MARK_CHAIN,
            Mark::External(chain) => chain,
        };
        let mark = |from: &str| format!("{from}{to}{port} -j {set_mark}");
        let mut rules = Vec::new();
        match self.masquerade {
            Masquerade::Nothing => {}
            Masquerade::All => rules.push(mark("")),
            Masquerade::Needed => {
                let net = self.container;
                rules.push(mark(&format!("-s {}/{} ", net.network(), net.prefix())));
                if !self.ipv6 {
                    rules.push(mark("-s 127.0.0.1/32 "));
                }
            }
        }
        rules.push(format!("{to}{port} -j DNAT --to-destination {}", target(binding.target)));
        rules
    }

    /// Base chains with the rules in them, and the jumps from built-in chains.
    fn base(&self) -> Vec<Base> {
        let mut base = Vec::new();
        if let (Mark::Bit(bit), true) = (&self.mark, self.masquerade != Masquerade::Nothing) {
            let mark = format!("{:#x}", 1_u32 << bit);
            base.push(Base {
                chain: SET_MARK_CHAIN,
                rules: vec![format!(
                    "-m comment --comment \"CNI portfwd masquerade mark\" -j MARK --set-xmark \
                     {mark}/{mark}"
                )],
                jumps: Vec::new(),
            });
            base.push(Base {
                chain: MASQUERADE_CHAIN,
                rules: vec![format!("-m mark --mark {mark}/{mark} -j MASQUERADE")],
                // First: the masquerading of bridge and ptp would take these packets.
                jumps: vec![("-I", "POSTROUTING", MASQUERADE_JUMP)],
            });
        }
        base.push(Base {
            chain: DNAT_CHAIN,
            rules: Vec::new(),
            jumps: vec![("-A", "PREROUTING", LOCAL), ("-A", "OUTPUT", LOCAL)],
        });
        base
    }

    /// The first of the host ports that a live chain maps, with its comment.
    pub(crate) fn owner_of_port(&self, saved: &Saved) -> Option<(&Binding, String)> {
        live::owner_of_port(saved, &self.names, &self.bindings, self.is_conditional())
    }

    /// Whether 127.0.0.1 is let through to the container, so that the guard is needed.
    fn guarded(&self) -> bool {
        !self.ipv6 && self.masquerade != Masquerade::Nothing
    }
}

struct Base {
    chain: &'static str,
    rules: Vec<String>,
    jumps: Vec<(&'static str, &'static str, &'static str)>,
}

/// Input for `iptables-restore --noflush` that adds what is missing. A chain named in a `:` line
/// would be emptied, so that only absent ones are.
pub(crate) fn add(rules: &FamilyRules, saved: &Saved) -> String {
    let mut text = String::new();
    for (table, rule) in GUARDS.iter().filter(|_| rules.guarded()) {
        if !saved.has_rule(table, "PREROUTING", rule) {
            text.push_str(&format!("*{table}\n-A PREROUTING {rule}\nCOMMIT\n"));
        }
    }
    text.push_str("*nat\n");
    let base = rules.base();
    for one in base.iter().filter(|one| !saved.has_chain("nat", one.chain)) {
        line(&mut text, ":", one.chain, "- [0:0]");
    }
    // What a chain of this name holds without a jump to it is a leftover.
    line(&mut text, ":", &rules.names.chain, "- [0:0]");
    for one in &base {
        for rule in one.rules.iter().filter(|rule| !saved.has_rule("nat", one.chain, rule)) {
            line(&mut text, "-A ", one.chain, rule);
        }
        for (how, chain, jump) in &one.jumps {
            if !saved.has_rule("nat", chain, jump) {
                line(&mut text, &format!("{how} "), chain, jump);
            }
        }
    }
    for rule in rules.chain() {
        line(&mut text, "-A ", &rules.names.chain, &rule);
    }
    for jump in rules.jumps() {
        line(&mut text, "-A ", DNAT_CHAIN, &jump);
    }
    text.push_str("COMMIT\n");
    text
}

/// As [`add`], if some of it may be in place; empty if all is, or if another attachment has
/// the host port.
pub(crate) fn again(rules: &FamilyRules, saved: &Saved) -> String {
    again_beside(rules, saved, None)
}

/// As [`again`], beside the removal of `leaving`.
pub(crate) fn again_without(rules: &FamilyRules, saved: &Saved, leaving: &Names) -> String {
    again_beside(rules, saved, Some(leaving))
}

fn again_beside(rules: &FamilyRules, saved: &Saved, leaving: Option<&Names>) -> String {
    let own = &rules.names.comment;
    let passes =
        |owner: &String| owner == own || leaving.is_some_and(|leaving| *owner == leaving.comment);
    if rules.owner_of_port(saved).is_some_and(|(_, owner)| !passes(&owner)) {
        return String::new();
    }
    if missing(rules, saved).is_empty() {
        return String::new();
    }
    let jumps = saved
        .chain("nat", DNAT_CHAIN)
        .into_iter()
        .filter(|rule| rule.target() == Some(rules.names.chain.as_str()));
    let mut old = String::from("*nat\n");
    for jump in jumps {
        line(&mut old, "-D ", &jump.chain, &jump.text);
    }
    old.push_str("COMMIT\n");
    merged(vec![old, add(rules, saved)])
}

/// One input of several, with one transaction for each table; empty if nothing is to be done.
pub(crate) fn merged(inputs: Vec<String>) -> String {
    let mut tables: BTreeMap<String, (Vec<String>, Vec<String>)> = BTreeMap::new();
    for input in &inputs {
        let mut table = String::new();
        for line in input.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name.to_owned();
                continue;
            }
            if line == "COMMIT" {
                continue;
            }
            let (chains, rules) = tables.entry(table.clone()).or_default();
            // Chains first, and once: a chain that is named is emptied.
            let lines = if line.starts_with(':') { chains } else { rules };
            let base = line.starts_with(':') || GUARDS.iter().any(|(_, rule)| line.contains(rule));
            if !base || !lines.iter().any(|there| there == line) {
                lines.push(line.to_owned());
            }
        }
    }
    let mut text = String::new();
    for (table, (chains, rules)) in tables.into_iter().rev() {
        let lines: Vec<String> = chains.into_iter().chain(rules).collect();
        if !lines.is_empty() {
            writeln!(text, "*{table}\n{}\nCOMMIT", lines.join("\n")).expect("writing to a String");
        }
    }
    text
}

/// Input that removes an attachment's chain and the jumps to it; empty if there is none, or
/// if another owner's comment is on the jumps.
pub(crate) fn remove(names: &Names, saved: &Saved) -> String {
    let jumps: Vec<_> =
        saved.rules("nat").filter(|rule| rule.target() == Some(names.chain.as_str())).collect();
    let foreign = jumps.iter().any(|jump| jump.option("--comment") != Some(names.comment.as_str()));
    if foreign || !saved.has_chain("nat", &names.chain) {
        return String::new();
    }
    let mut text = String::from("*nat\n");
    for jump in jumps {
        line(&mut text, "-D ", &jump.chain, &jump.text);
    }
    text.push_str(&format!("-F {0}\n-X {0}\nCOMMIT\n", names.chain));
    text
}

/// Input that removes the guard; empty if there is none.
pub(crate) fn remove_guard(saved: &Saved) -> String {
    let there = GUARDS.iter().filter(|(table, rule)| saved.has_rule(table, "PREROUTING", rule));
    there.map(|(table, rule)| format!("*{table}\n-D PREROUTING {rule}\nCOMMIT\n")).collect()
}

/// What is absent or differs, as lines for people.
pub(crate) fn missing(rules: &FamilyRules, saved: &Saved) -> Vec<String> {
    let mut missing = Vec::new();
    let mut need = |table: &str, chain: &str, rule: &str| {
        if !saved.has_rule(table, chain, rule) {
            missing.push(format!("{table}: -A {chain} {rule}"));
        }
    };
    for base in rules.base() {
        base.rules.iter().for_each(|rule| need("nat", base.chain, rule));
        base.jumps.iter().for_each(|(_, chain, jump)| need("nat", chain, jump));
    }
    if rules.guarded() {
        GUARDS.iter().for_each(|(table, rule)| need(table, "PREROUTING", rule));
    }
    if !rules.is_conditional() {
        rules.jumps().iter().for_each(|jump| need("nat", DNAT_CHAIN, jump));
    }
    let chain = &rules.names.chain;
    // How iptables-save writes conditions is up to their modules: only that there are jumps counts.
    if rules.is_conditional() {
        let jumps = saved.chain("nat", DNAT_CHAIN).into_iter();
        if jumps.filter(|jump| jump.target() == Some(chain)).count() != rules.jumps().len() {
            missing.push(format!("nat: jumps from {DNAT_CHAIN} to {chain}"));
        }
    }
    let there: Vec<&Vec<String>> =
        saved.chain("nat", chain).into_iter().map(|rule| &rule.args).collect();
    let wanted: Vec<Vec<String>> = rules.chain().iter().map(|rule| words(rule)).collect();
    if there != wanted.iter().collect::<Vec<_>>() {
        missing.push(format!("nat: the rules of {chain}"));
    }
    missing
}

fn line(text: &mut String, how: &str, chain: &str, rest: &str) {
    writeln!(text, "{how}{chain} {rest}").expect("writing to a String");
}

fn target(target: SocketAddr) -> String {
    target.to_string()
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// As iptables-save quotes.
fn quote(word: &str) -> String {
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}

fn quote_where_needed(word: &str) -> String {
    if word.contains([' ', '\t', '"', '\\', '\'']) { quote(word) } else { word.to_owned() }
}

#[cfg(test)]
mod tests;
