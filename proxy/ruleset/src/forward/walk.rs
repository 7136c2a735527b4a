//! A packet's way through rules that are understood in part.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;

use super::{Action, Condition, Devices, ForeignRule, ForeignTable, Pattern};
use crate::Family;

/// The kernel allows no deeper jumps.
const DEPTH: u32 = 16;

/// Rules that are looked at for one packet; if there are more, nothing is certain.
const RULES: u32 = 100_000;

/// What a chain drops for certain.
#[derive(Clone, Debug)]
pub(super) struct Dropped {
    /// Network of containers.
    pub(super) net: IpNetwork,
    /// What containers of different nodes send each other; else only what they and the outside do.
    pub(super) between: bool,
}

/// What the chain drops for certain of what containers of `net` send and get.
pub(super) fn dropped(
    table: &ForeignTable,
    chain: &str,
    net: IpNetwork,
    devices: &Devices,
) -> Option<Dropped> {
    match table.family {
        Family::Ip if net.is_ipv6() => return None,
        Family::Ip6 if net.is_ipv4() => return None,
        Family::Bridge => return None,
        Family::Ip | Family::Ip6 | Family::Inet => {}
    }
    let (inner, outer) =
        (Side { own: &devices.inner, devices }, Side { own: &devices.outer, devices });
    let packet = |from, to, leaving: bool, new| {
        let (iif, oif) = if leaving { (inner, outer) } else { (outer, inner) };
        Probe { net, from, to, iif, oif, new }
    };
    let certain = |packet: Probe<'_>| {
        let possible = walk(table, chain, &packet, (0, &mut 0));
        possible.drop && !possible.accept && !possible.back
    };
    let between = [true, false].into_iter().any(|leaving| {
        certain(packet(true, true, leaving, true)) || certain(packet(true, true, leaving, false))
    });
    let outside =
        certain(packet(true, false, true, true)) || certain(packet(false, true, false, false));
    (between || outside).then_some(Dropped { net, between })
}

/// A packet, as far as it is determined.
#[derive(Clone, Copy)]
struct Probe<'a> {
    net: IpNetwork,
    /// Source in `net`, else somewhere outside.
    from: bool,
    /// Destination in `net`, else somewhere outside.
    to: bool,
    iif: Side<'a>,
    oif: Side<'a>,
    /// First of its connection, else a later one.
    new: bool,
}

/// Devices that a packet may come or leave by.
#[derive(Clone, Copy)]
struct Side<'a> {
    own: &'a BTreeSet<String>,
    devices: &'a Devices,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Truth {
    Yes,
    No,
    Maybe,
}

/// What may come of a packet.
#[derive(Clone, Copy, Default)]
struct Possible {
    accept: bool,
    drop: bool,
    /// The chain ends without a decision.
    back: bool,
}

/// `looked`: rules so far.
fn walk(
    table: &ForeignTable,
    chain: &str,
    packet: &Probe<'_>,
    (depth, looked): (u32, &mut u32),
) -> Possible {
    let anything = Possible { accept: true, drop: true, back: true };
    let (Some(rules), true) = (table.chains.get(chain), depth < DEPTH) else { return anything };
    let mut all = Possible::default();
    for rule in rules {
        *looked += 1;
        if *looked > RULES {
            return anything;
        }
        let truth = packet.fits(rule);
        if truth == Truth::No {
            continue;
        }
        let one = match &rule.action {
            Action::Continue => continue,
            Action::Accept => Possible { accept: true, ..Possible::default() },
            Action::Drop => Possible { drop: true, ..Possible::default() },
            Action::Return => Possible { back: true, ..Possible::default() },
            Action::Unknown => anything,
            Action::Jump(to) | Action::Goto(to) => walk(table, to, packet, (depth + 1, looked)),
        };
        all.accept |= one.accept;
        all.drop |= one.drop;
        let jump = matches!(rule.action, Action::Jump(_) | Action::Unknown);
        // After a jump that comes back, the next rule has its turn.
        let on = truth == Truth::Maybe || (jump && one.back);
        let leaves = one.back && !matches!(rule.action, Action::Jump(_) | Action::Unknown);
        if leaves && depth == 0 {
            all.drop = true;
        } else {
            all.back |= leaves;
        }
        if !on {
            return all;
        }
    }
    if depth == 0 {
        // Its policy.
        all.drop = true;
    } else {
        all.back = true;
    }
    all
}

impl Probe<'_> {
    fn fits(&self, rule: &ForeignRule) -> Truth {
        let mut all = Truth::Yes;
        for condition in &rule.conditions {
            match self.meets(condition) {
                Truth::No => return Truth::No,
                Truth::Maybe => all = Truth::Maybe,
                Truth::Yes => {}
            }
        }
        all
    }

    fn meets(&self, condition: &Condition) -> Truth {
        match condition {
            Condition::Source { net, negate } => self.lies(*net, self.from).negate_if(*negate),
            Condition::Destination { net, negate } => self.lies(*net, self.to).negate_if(*negate),
            Condition::In { device, negate } => self.iif.is(device).negate_if(*negate),
            Condition::Out { device, negate } => self.oif.is(device).negate_if(*negate),
            Condition::State { new, established } => {
                truth(if self.new { *new } else { *established })
            }
            Condition::Ipv6(ipv6) => truth(*ipv6 == self.net.is_ipv6()),
            Condition::Unknown => Truth::Maybe,
        }
    }

    /// Whether an address inside (or outside) of the packet's network lies in `net`.
    fn lies(&self, net: IpNetwork, inside: bool) -> Truth {
        if net.is_ipv4() != self.net.is_ipv4() {
            return Truth::No;
        }
        if net.prefix() == 0 {
            return Truth::Yes;
        }
        let around = net.prefix() <= self.net.prefix() && net.contains(self.net.network());
        let within = net.prefix() >= self.net.prefix() && self.net.contains(net.network());
        match (inside, around, within) {
            (true, true, _) => Truth::Yes,
            (true, false, false) | (false, _, true) => Truth::No,
            (true, false, true) | (false, _, false) => Truth::Maybe,
        }
    }
}

impl Side<'_> {
    fn is(&self, device: &Pattern) -> Truth {
        let fitting = self.own.iter().filter(|name| device.fits(name)).count();
        if self.own.is_empty() {
            // Not there yet: it may be called anything that nothing else is called.
            let Devices { inner, outer, others } = self.devices;
            let mut taken = inner.iter().chain(outer).chain(others);
            let exact = !device.prefix && taken.any(|name| *name == device.text);
            return if exact { Truth::No } else { Truth::Maybe };
        }
        match fitting {
            0 => Truth::No,
            all if all == self.own.len() => Truth::Yes,
            _ => Truth::Maybe,
        }
    }
}

impl Truth {
    fn negate_if(self, negate: bool) -> Self {
        match (self, negate) {
            (Self::Yes, true) => Self::No,
            (Self::No, true) => Self::Yes,
            (other, _) => other,
        }
    }
}

fn truth(it_is: bool) -> Truth {
    if it_is { Truth::Yes } else { Truth::No }
}
