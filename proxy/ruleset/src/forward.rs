//! Whether forward rules of other programs drop what containers send each other (rows O-52, S-17).
//!
//! An `accept` in our table does not undo a `drop` in another one, and other tables are not ours to
//! change (invariant I2): all that can be done is to say exactly who drops what, and how to allow it.
//! [`findings`] says so only if it is certain: the chain's policy is drop, and no rule on the way
//! can have accepted before. A rule that is not understood counts as one that may accept.

mod legacy;
mod walk;

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;

pub use legacy::parse_legacy;

use crate::Family;

/// A table of another program with what matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignTable {
    /// `Ip`, `Ip6`, or `Inet` for both.
    pub family: Family,
    /// Name.
    pub name: String,
    /// Who keeps it, which tells how it is changed.
    pub keeper: Keeper,
    /// Chains by name.
    pub chains: BTreeMap<String, Vec<ForeignRule>>,
    /// Names of chains at the forward hook whose policy is drop.
    pub dropping: BTreeSet<String>,
}

/// Which programs change a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// `nft`, and `iptables` if the table is one of its own.
    Nftables,
    /// The older `iptables`, which is called `iptables-legacy` if there are both.
    Legacy {
        /// It is called so here.
        suffix: bool,
    },
}

/// A rule as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignRule {
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// What happens then.
    pub action: Action,
}

/// What a rule asks of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Source address.
    Source {
        /// In it.
        net: IpNetwork,
        /// Or not.
        negate: bool,
    },
    /// Destination address.
    Destination {
        /// In it.
        net: IpNetwork,
        /// Or not.
        negate: bool,
    },
    /// Device that it came by.
    In {
        /// Its name.
        device: Pattern,
        /// Or not.
        negate: bool,
    },
    /// Device that it leaves by.
    Out {
        /// Its name.
        device: Pattern,
        /// Or not.
        negate: bool,
    },
    /// State of its connection.
    State {
        /// The first packet of a connection may fit.
        new: bool,
        /// A later one in either direction may fit.
        established: bool,
    },
    /// Its family is IPv6, or else IPv4.
    Ipv6(bool),
    /// Something else.
    Unknown,
}

/// Name of a device, or how it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// The text.
    pub text: String,
    /// Any name that begins so.
    pub prefix: bool,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Lets the packet pass this table.
    Accept,
    /// Drops or rejects it.
    Drop,
    /// Another chain, then on.
    Jump(String),
    /// Another chain, in place of the rest.
    Goto(String),
    /// Back to where it came from.
    Return,
    /// Nothing that matters.
    Continue,
    /// Something else.
    Unknown,
}

/// What there is on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// Those behind which the node's containers are.
    pub inner: BTreeSet<String>,
    /// Those that lead to the other nodes.
    pub outer: BTreeSet<String>,
    /// All others.
    pub others: BTreeSet<String>,
}

/// What chains drop, one text per chain, with the commands that allow it. `cluster`: networks of
/// all containers.
pub fn findings(tables: &[ForeignTable], cluster: &[IpNetwork], devices: &Devices) -> Vec<String> {
    let mut found = Vec::new();
    for table in tables {
        for chain in &table.dropping {
            let mut dropped =
                cluster.iter().filter_map(|net| walk::dropped(table, chain, *net, devices));
            if let Some(first) = dropped.next() {
                let all: Vec<walk::Dropped> = [first].into_iter().chain(dropped).collect();
                found.push(text(table, chain, &all));
            }
        }
    }
    found
}

fn text(table: &ForeignTable, chain: &str, dropped: &[walk::Dropped]) -> String {
    let family = match table.family {
        Family::Ip => "ip",
        Family::Ip6 => "ip6",
        Family::Inet => "inet",
        Family::Bridge => "bridge",
    };
    let legacy = if table.keeper == Keeper::Nftables { "" } else { " of iptables-legacy" };
    let nets: Vec<String> = dropped.iter().map(|dropped| dropped.net.to_string()).collect();
    let between = dropped.iter().any(|dropped| dropped.between);
    let what = if between {
        "traffic between containers of different nodes"
    } else {
        "traffic between containers and the outside"
    };
    let commands = commands(table, chain, dropped);
    format!(
        "chain {chain} of table {family} {}{legacy} has policy drop and no rule that accepts {}: {what} \
         is dropped; allow it with {}",
        table.name,
        nets.join(" and "),
        commands.join(" and ")
    )
}

/// What to type, in backquotes.
fn commands(table: &ForeignTable, chain: &str, dropped: &[walk::Dropped]) -> Vec<String> {
    let mut all = Vec::new();
    for net in dropped.iter().map(|dropped| dropped.net) {
        if table.name == "firewalld" {
            all.push(format!("`firewall-cmd --permanent --zone=trusted --add-source={net}`"));
            continue;
        }
        let user = if table.chains.contains_key("DOCKER-USER") { "DOCKER-USER" } else { chain };
        let iptables = if net.is_ipv4() { "iptables" } else { "ip6tables" };
        let program = match table.keeper {
            Keeper::Legacy { suffix: true } => format!("{iptables}-legacy"),
            Keeper::Legacy { suffix: false } => iptables.to_owned(),
            Keeper::Nftables if table.is_iptables(chain) => iptables.to_owned(),
            Keeper::Nftables => {
                let ip = if net.is_ipv4() { "ip" } else { "ip6" };
                let family = match table.family {
                    Family::Ip => "ip",
                    Family::Ip6 => "ip6",
                    Family::Inet | Family::Bridge => "inet",
                };
                for side in ["saddr", "daddr"] {
                    let table = &table.name;
                    all.push(format!(
                        "`nft insert rule {family} {table} {chain} {ip} {side} {net} accept`"
                    ));
                }
                continue;
            }
        };
        all.push(format!("`{program} -I {user} -s {net} -j ACCEPT`"));
        all.push(format!("`{program} -I {user} -d {net} -j ACCEPT`"));
    }
    if table.name == "firewalld" {
        all.push("`firewall-cmd --reload`".to_owned());
    }
    all
}

impl ForeignTable {
    /// Whether the chain is one of those that `iptables` makes in nf_tables.
    fn is_iptables(&self, chain: &str) -> bool {
        self.family != Family::Inet && self.name == "filter" && chain == "FORWARD"
    }
}

impl Pattern {
    /// Whether a device is meant.
    fn fits(&self, device: &str) -> bool {
        if self.prefix { device.starts_with(&self.text) } else { device == self.text }
    }
}

#[cfg(test)]
mod tests;
