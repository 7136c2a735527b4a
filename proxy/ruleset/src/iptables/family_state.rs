//! One family: what it holds, and the script that takes it from one state to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use causeway_model::{IpFamily, ObjectKey};

use super::edit::{Edit, Stamp};
use super::frontends::{Address, ChainRules, FrontendRule, FrontendTable, NodePort, Owner};
use super::port::Port;
use super::saved::Saved;
use super::{ChainName, Chains, Table, fixed, names};
use crate::plan::{At, Delta, Plan, PortPlan, ServicePlan};

/// Our chains and frontends of one family.
#[derive(Clone, Debug)]
pub(super) struct FamilyState {
    family: IpFamily,
    chains: BTreeMap<ChainName, Stamp>,
    addresses: FrontendTable<Address>,
    node_ports: FrontendTable<NodePort>,
}

/// Frontends whose surroundings are to be rendered again.
#[derive(Default)]
struct Touched {
    addresses: BTreeSet<Address>,
    node_ports: BTreeSet<NodePort>,
}

impl FamilyState {
    /// See [`super::ChainMirror::is_like`].
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.family == other.family && self.chains == other.chains
    }

    pub(super) fn family(&self) -> IpFamily {
        self.family
    }

    #[cfg(test)]
    pub(super) fn is_flat(&self) -> bool {
        self.addresses.flat()
    }

    /// Everything again, and what is stale removed.
    pub(super) fn full(family: IpFamily, plan: &Plan, saved: &Saved) -> (Self, String) {
        let mut state = Self {
            family,
            chains: BTreeMap::new(),
            addresses: FrontendTable::default(),
            node_ports: FrontendTable::default(),
        };
        let all = plan.services.iter().collect::<Vec<_>>();
        let mut write = fixed::chains(&plan.facts, family);
        let (mut more, _) = state.replace(plan, &[], &all, &BTreeMap::new());
        write.append(&mut more);
        write.append(&mut fixed::of_containers(&plan.facts, &plan.here.containers, family));
        state.chains = write.iter().map(|(name, lines)| (name.clone(), Stamp::of(lines))).collect();
        let stale = saved.chains.keys().filter(|name| !state.chains.contains_key(*name));
        let stale = stale.cloned().collect();
        let text = script(&write, &stale, &jump_commands(family, saved));
        (state, text)
    }

    pub(super) fn change(&mut self, plan: &Plan, delta: &Delta) -> String {
        let mine = |service: &ServicePlan| service.ports.iter().any(|p| p.family == self.family);
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for (key, old, new) in &delta.services {
            before.extend(old.as_ref().filter(|plan| mine(plan)).map(|plan| (key, plan)));
            after.extend(new.as_ref().filter(|plan| mine(plan)).map(|plan| (key, plan)));
        }
        let (mut write, mut delete) = (Chains::new(), BTreeSet::new());
        if !(before.is_empty() && after.is_empty() && delta.here.is_none()) {
            let known = std::mem::take(&mut self.chains);
            (write, delete) = self.replace(plan, &before, &after, &known);
            self.chains = known;
        }
        if let Some((_, here)) = delta.here.as_deref() {
            write.append(&mut fixed::of_containers(&plan.facts, &here.containers, self.family));
        }
        write.retain(|name, lines| {
            let stamp = Stamp::of(lines);
            self.chains.insert(name.clone(), stamp) != Some(stamp)
        });
        delete.retain(|name| self.chains.remove(name).is_some());
        script(&write, &delete, &BTreeMap::new())
    }

    pub(super) fn is_whole(&self, saved: &Saved) -> bool {
        let whole = |(name, stamp): (_, &Stamp)| saved.chains.get(name) == Some(&stamp.rules);
        self.chains.iter().all(whole)
            && fixed::jumps(self.family).iter().all(|jump| {
                let there = saved.jumps.iter().filter(|there| {
                    (there.table, &*there.from, &*there.to) == (jump.table, jump.from, jump.to)
                });
                there.count() == 1
            })
    }

    /// Takes services out and others in. Yields the chains that may have changed, with their
    /// rules, and those that are gone.
    fn replace(
        &mut self,
        all: &Plan,
        before: &[(&ObjectKey, &Arc<ServicePlan>)],
        after: &[(&ObjectKey, &Arc<ServicePlan>)],
        known: &BTreeMap<ChainName, Stamp>,
    ) -> (Chains, BTreeSet<ChainName>) {
        let facts = &all.facts;
        let flat = (self.addresses.flat(), self.node_ports.flat());
        let mut touched = Touched::default();
        let mut gone = Chains::new();
        let mut write = Chains::new();
        for (key, plan) in before {
            for (_, port) in self.ports_of(plan) {
                Port { facts, key, plan: port }.chains(&mut gone);
            }
            self.remove_frontends(plan, &mut touched);
        }
        for (key, plan) in after {
            for (_, port) in self.ports_of(plan) {
                Port { facts, key, plan: port }.chains(&mut write);
            }
            self.add_frontends(key, plan, &mut touched);
        }
        let mut edit = Edit { known, write, delete: gone.into_keys().collect() };
        let addresses = self.addresses.render(facts, &touched.addresses, flat.0, &mut edit);
        let node_ports = self.node_ports.render(facts, &touched.node_ports, flat.1, &mut edit);
        let Edit { mut write, mut delete, .. } = edit;
        write.append(&mut self.top(all, addresses, node_ports));
        delete.retain(|name| !write.contains_key(name));
        (write, delete)
    }

    fn top(&self, plan: &Plan, addresses: ChainRules, node_ports: ChainRules) -> Chains {
        let facts = &plan.facts;
        let to_containers = fixed::to_containers(&plan.here, self.family);
        let to_node_ports = fixed::to_node_ports(facts, self.family);
        let head = fixed::not_node_ports(facts, self.family);
        let unallocated = fixed::unallocated(facts, self.family);
        Chains::from([
            (
                (Table::Nat, names::SERVICES.into()),
                [to_containers, addresses.nat, to_node_ports.clone()].concat(),
            ),
            (
                (Table::Filter, names::FILTER.into()),
                [addresses.filter, to_node_ports, unallocated].concat(),
            ),
            ((Table::Nat, names::NODE_PORTS.into()), [head.clone(), node_ports.nat].concat()),
            ((Table::Filter, names::NODE_PORTS.into()), [head, node_ports.filter].concat()),
        ])
    }

    fn ports_of<'a>(
        &self,
        plan: &'a ServicePlan,
    ) -> impl Iterator<Item = (usize, &'a PortPlan)> + use<'a> {
        let family = self.family;
        plan.ports.iter().enumerate().filter(move |(_, port)| port.family == family)
    }

    fn remove_frontends(&mut self, plan: &ServicePlan, touched: &mut Touched) {
        for (_, port) in self.ports_of(plan) {
            for frontend in &port.frontends {
                match slot(port, frontend.at) {
                    Slots::Address(slot) => self.addresses.remove(slot),
                    Slots::NodePort(slot) => self.node_ports.remove(slot),
                }
                touched.add(slot(port, frontend.at));
            }
        }
    }

    fn add_frontends(&mut self, key: &ObjectKey, plan: &Arc<ServicePlan>, touched: &mut Touched) {
        let owner = Arc::new(Owner { key: key.clone(), plan: Arc::clone(plan) });
        for (number, port) in self.ports_of(plan) {
            for (frontend, one) in port.frontends.iter().enumerate() {
                let rule = FrontendRule { owner: Arc::clone(&owner), port: number, frontend };
                match slot(port, one.at) {
                    Slots::Address(slot) => self.addresses.insert(slot, rule),
                    Slots::NodePort(slot) => self.node_ports.insert(slot, rule),
                }
                touched.add(slot(port, one.at));
            }
        }
    }
}

enum Slots {
    Address(Address),
    NodePort(NodePort),
}

fn slot(port: &PortPlan, at: At) -> Slots {
    match at {
        At::Cluster(address, number) | At::External(address, number) => {
            Slots::Address((address, number, port.protocol))
        }
        At::NodePort(number) => Slots::NodePort((port.protocol, number)),
    }
}

impl Touched {
    fn add(&mut self, slot: Slots) {
        use super::frontends::Slot;
        match slot {
            Slots::Address(slot) => self.addresses.insert(slot.bucket()),
            Slots::NodePort(slot) => self.node_ports.insert(slot.bucket()),
        };
    }
}

/// Commands by table that leave each jump there once: at the head, in order, if it was not.
fn jump_commands(family: IpFamily, saved: &Saved) -> BTreeMap<Table, Vec<String>> {
    let mut commands = BTreeMap::<_, Vec<String>>::new();
    let jumps = fixed::jumps(family);
    let mut there = vec![false; jumps.len()];
    for old in &saved.jumps {
        let same = |jump: &fixed::Jump| {
            (jump.table, jump.from, &*jump.rule) == (old.table, &*old.from, &*old.rule)
        };
        match jumps.iter().position(same) {
            Some(number) if !there[number] => there[number] = true,
            // `-D` takes the first of equal ones: one stays.
            Some(_) | None => {
                commands
                    .entry(old.table)
                    .or_default()
                    .push(format!("-D {} {}", old.from, old.rule));
            }
        }
    }
    for (jump, there) in jumps.iter().zip(there).rev() {
        if !there {
            let insert = format!("-I {} {}", jump.from, jump.rule);
            commands.entry(jump.table).or_default().push(insert);
        }
    }
    commands
}

/// The script that removes the existing chains and rules.
pub(super) fn cleanup(saved: &Saved) -> String {
    let mut commands = BTreeMap::<_, Vec<String>>::new();
    for jump in &saved.jumps {
        commands.entry(jump.table).or_default().push(format!("-D {} {}", jump.from, jump.rule));
    }
    script(&Chains::new(), &saved.chains.keys().cloned().collect(), &commands)
}

/// Table nat first: a new service has endpoints before the drop of its address ends.
fn script(
    write: &Chains,
    delete: &BTreeSet<ChainName>,
    commands: &BTreeMap<Table, Vec<String>>,
) -> String {
    let mut text = String::new();
    for table in Table::ALL {
        let written = || write.iter().filter(|((of, _), _)| *of == table);
        let deleted = || delete.iter().filter(|(of, _)| *of == table);
        let commands = commands.get(&table).map_or(&[][..], |commands| commands);
        if written().next().is_none() && deleted().next().is_none() && commands.is_empty() {
            continue;
        }
        let mut line = |line: std::fmt::Arguments<'_>| {
            writeln!(text, "{line}").expect("writing to a String does not fail");
        };
        line(format_args!("*{}", table.name()));
        for (_, chain) in written().map(|(name, _)| name).chain(deleted()) {
            line(format_args!(":{chain} - [0:0]"));
        }
        commands.iter().for_each(|command| line(format_args!("{command}")));
        for ((_, chain), lines) in written() {
            lines.iter().for_each(|rule| line(format_args!("-A {chain} {rule}")));
        }
        deleted().for_each(|(_, chain)| line(format_args!("-X {chain}")));
        line(format_args!("COMMIT"));
    }
    text
}
