//! The chains of one service port: endpoints, pools, traffic from outside, limits of sources.

use causeway_model::{Balance, IpFamily, ObjectKey};

use super::hash::{self, Digit};
use super::{Chains, Table, names, rule};
use crate::plan::{
    At, Decision, Frontend, Masquerade, PlanContext, Pool, PortPlan, Target, port_name,
};
use crate::spread;

/// A service port and what its rules depend on.
#[derive(Clone, Copy)]
pub(super) struct Port<'a> {
    pub(super) facts: &'a PlanContext,
    pub(super) key: &'a ObjectKey,
    pub(super) plan: &'a PortPlan,
}

impl Port<'_> {
    /// All chains that belong to the port alone.
    pub(super) fn chains(&self, chains: &mut Chains) {
        let mut put = |name: String, lines| chains.insert((Table::Nat, name.into()), lines);
        let pools = [Pool::Cluster, Pool::Local];
        let used = pools.into_iter().filter(|pool| self.uses(*pool)).collect::<Vec<_>>();
        let targets = used.iter().flat_map(|pool| self.targets(*pool));
        for target in targets.filter(|target| self.has_chain(target)) {
            put(names::endpoint(self.key, self.plan, target), self.endpoint(target));
        }
        for frontend in &self.plan.frontends {
            if frontend.decision == Decision::ByOrigin {
                put(self.by_origin_name(), self.by_origin());
            }
            if let Some(allow) = &frontend.allow {
                let sends = |net| {
                    let from = format!("-s {}", rule::net(net));
                    let actions = self.actions(frontend.decision);
                    actions.into_iter().map(move |action| format!("{from} {action}"))
                };
                let mut lines = allow.iter().copied().flat_map(sends).collect::<Vec<_>>();
                lines.push("-j ACCEPT".to_owned());
                put(self.firewall_name(frontend), lines);
            }
        }
        for pool in used {
            self.pool(pool, chains);
        }
    }

    /// What table nat does with a connection to a frontend, one target per rule.
    pub(super) fn sends(&self, frontend: &Frontend) -> Vec<String> {
        match &frontend.allow {
            Some(_) => vec![format!("-j {}", self.firewall_name(frontend))],
            None => self.actions(frontend.decision),
        }
    }

    /// What table filter does with a connection to a frontend that table nat left alone: extra
    /// conditions and targets.
    pub(super) fn refusals(&self, frontend: &Frontend) -> Vec<String> {
        let drop = "-j DROP".to_owned();
        let reject = rule::reject(self.plan.family);
        match (frontend.decision, &frontend.allow) {
            // Rejected as every other port of the address is.
            (Decision::Reject, None) if matches!(frontend.at, At::Cluster(..)) => Vec::new(),
            (Decision::Reject, None) => vec![reject.to_owned()],
            (Decision::Reject, Some(allow)) => {
                let from = |net| format!("-s {} {reject}", rule::net(net));
                allow.iter().copied().map(from).chain([drop]).collect()
            }
            (Decision::Drop, _) | (_, Some(_)) => vec![drop],
            (Decision::ByOrigin, None) if self.plan.local.is_empty() => vec![drop],
            (Decision::ByOrigin | Decision::Balance { .. }, None) => Vec::new(),
        }
    }

    /// Name of the service port, for comments.
    pub(super) fn name(&self) -> String {
        port_name(self.key, &self.plan.name)
    }

    fn actions(&self, decision: Decision) -> Vec<String> {
        let jump = |chain: &str| format!("-j {chain}");
        match decision {
            Decision::Reject | Decision::Drop => vec![jump("ACCEPT")],
            Decision::ByOrigin => vec![jump(&self.by_origin_name())],
            Decision::Balance { pool, masquerade } => {
                let mark = match masquerade {
                    Masquerade::Always => names::MARK,
                    Masquerade::Outside => names::MARK_OUTSIDE,
                };
                vec![jump(mark), jump(&names::pool(self.key, self.plan, pool))]
            }
        }
    }

    fn uses(&self, pool: Pool) -> bool {
        self.plan.frontends.iter().any(|frontend| match frontend.decision {
            Decision::Reject | Decision::Drop => false,
            Decision::Balance { pool: used, .. } => used == pool,
            Decision::ByOrigin => pool == Pool::Cluster || !self.plan.local.is_empty(),
        })
    }

    fn targets(&self, pool: Pool) -> &[Target] {
        match pool {
            Pool::Cluster => &self.plan.cluster,
            Pool::Local => &self.plan.local,
        }
    }

    fn firewall_name(&self, frontend: &Frontend) -> String {
        names::firewall(self.key, self.plan, &format!("{:?}", frontend.at))
    }

    fn by_origin_name(&self) -> String {
        names::external(self.key, self.plan, "by origin")
    }

    fn by_origin(&self) -> Vec<String> {
        let cluster = names::pool(self.key, self.plan, Pool::Cluster);
        let node = "-m addrtype --src-type LOCAL";
        let mut lines = vec![
            format!("{node} -j {}", names::MARK),
            format!("-j {}", names::MARK_PRIVATE),
            format!("-m mark --mark 0x4000/0x4000 -j {cluster}"),
        ];
        for net in
            self.facts.cluster_cidrs.iter().filter(|net| self.plan.family == IpFamily::of(net.ip()))
        {
            lines.push(format!("-s {} -j {cluster}", rule::net(*net)));
        }
        lines.push(match self.uses(Pool::Local) {
            true => format!("-j {}", names::pool(self.key, self.plan, Pool::Local)),
            false => "-j ACCEPT".to_owned(),
        });
        lines
    }

    /// Endpoints that may reach themselves or keep clients have a chain.
    fn has_chain(&self, target: &Target) -> bool {
        target.here || self.plan.affinity.is_some()
    }

    fn endpoint(&self, target: &Target) -> Vec<String> {
        let mut lines = Vec::new();
        if target.here {
            lines.push(format!("-s {} -j {}", rule::host(target.address), names::MARK));
        }
        let list = names::endpoint(self.key, self.plan, target);
        let set = match self.plan.affinity {
            Some(_) => format!(" -m recent --set {}", self.list(&list)),
            None => String::new(),
        };
        let protocol = rule::protocol(self.plan.protocol);
        lines.push(format!("-p {protocol}{set} {}", rule::dnat(target.address, target.port)));
        lines
    }

    fn list(&self, name: &str) -> String {
        format!("--name {name} --mask {} --rsource", rule::mask(self.plan.family))
    }

    fn pool(&self, pool: Pool, chains: &mut Chains) {
        let targets = self.targets(pool);
        let mut lines = Vec::new();
        if let Some(seconds) = self.plan.affinity {
            for target in targets {
                let name = names::endpoint(self.key, self.plan, target);
                let known = format!("-m recent --rcheck --seconds {seconds} --reap");
                lines.push(format!("{known} {} -j {name}", self.list(&name)));
            }
        }
        match self.plan.balance {
            Balance::SourceHash => lines.append(&mut self.hashed(pool, chains)),
            Balance::Random | Balance::RoundRobin => {
                for (left, target) in (1..=targets.len()).rev().zip(targets) {
                    lines.push(self.send(target).when(&self.turn(left)));
                }
            }
        }
        let name = names::pool(self.key, self.plan, pool);
        chains.insert((Table::Nat, name.into()), lines);
    }

    /// The condition under which one of the `left` last targets takes the connection.
    fn turn(&self, left: usize) -> String {
        match self.plan.balance {
            _ if left == 1 => String::new(),
            Balance::RoundRobin => {
                format!("-m statistic --mode nth --every {left} --packet 0")
            }
            Balance::Random | Balance::SourceHash => {
                let probability = probability(left);
                format!("-m statistic --mode random --probability {probability}")
            }
        }
    }

    fn send(&self, target: &Target) -> Send {
        if self.has_chain(target) {
            return Send::to(&names::endpoint(self.key, self.plan, target));
        }
        let protocol = format!("-p {}", rule::protocol(self.plan.protocol));
        Send { protocol, target: rule::dnat(target.address, target.port) }
    }

    /// A tree of chains over the buckets: each level a hash of the source, a chain if not all
    /// below belongs to one endpoint.
    fn hashed(&self, pool: Pool, chains: &mut Chains) -> Vec<String> {
        let table = spread::table(self.targets(pool), hash::BUCKETS);
        self.node(pool, (0, &hash::digits(self.plan.family)), &table, chains)
    }

    /// The rules of a node of the tree. Nodes are numbered as in a heap.
    fn node(
        &self,
        pool: Pool,
        (number, digits): (usize, &[Digit]),
        owners: &[u16],
        chains: &mut Chains,
    ) -> Vec<String> {
        let (digit, digits) = digits.split_first().expect("leaves have one owner");
        let mut sends: Vec<(Send, u32)> = Vec::new();
        let children = owners.chunks(owners.len() / hash::VALUES as usize);
        for (value, (child, owners)) in
            (number * hash::VALUES as usize + 1..).zip(children).enumerate()
        {
            let send = if owners.iter().all(|owner| *owner == owners[0]) {
                self.send(&self.targets(pool)[usize::from(owners[0])])
            } else {
                let name = names::hashed(self.key, self.plan, pool, child);
                let lines = self.node(pool, (child, digits), owners, chains);
                chains.insert((Table::Nat, name.clone().into()), lines);
                Send::to(&name)
            };
            match sends.iter_mut().find(|(there, _)| *there == send) {
                Some((_, mask)) => *mask |= 1 << value,
                None => sends.push((send, 1 << value)),
            }
        }
        let last = sends.pop().map(|(send, _)| send.when(""));
        let some = sends.into_iter().flat_map(|(send, mask)| {
            let conditions = digit.conditions(mask).into_iter();
            conditions.map(move |condition| send.when(&condition))
        });
        some.chain(last).collect()
    }
}

/// The way to an endpoint.
#[derive(PartialEq, Eq)]
struct Send {
    /// What DNAT to a port needs.
    protocol: String,
    target: String,
}

impl Send {
    fn to(chain: &str) -> Self {
        Self { protocol: String::new(), target: format!("-j {chain}") }
    }

    /// Words in the order in which `iptables-save` prints them.
    fn when(&self, condition: &str) -> String {
        let words = match condition.starts_with("-s ") {
            true => [condition, &self.protocol, &self.target],
            false => [&self.protocol, condition, &self.target],
        };
        let words = words.into_iter().filter(|word| !word.is_empty());
        words.collect::<Vec<_>>().join(" ")
    }
}

/// 1/n as the kernel keeps it, in 2^31ths, with all digits that tell two of them apart.
fn probability(n: usize) -> String {
    const UNIT: usize = 1 << 31;
    let parts = (UNIT + n / 2) / n;
    let digits = 100_000_000_000_u128;
    let scaled = (parts as u128 * digits + UNIT as u128 / 2) / UNIT as u128;
    format!("{}.{:011}", scaled / digits, scaled % digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: S-24
    #[test]
    fn probabilities_are_those_of_equal_shares() {
        assert_eq!(probability(1), "1.00000000000");
        assert_eq!(probability(2), "0.50000000000");
        assert_eq!(probability(3), "0.33333333349");
        for n in 1..2000_usize {
            let mut left = 1.0;
            let mut shares = Vec::new();
            for left_targets in (1..=n).rev() {
                let p = probability(left_targets).parse::<f64>().unwrap();
                shares.push(left * p);
                left *= 1.0 - p;
            }
            let fair = 1.0 / n as f64;
            assert!(shares.iter().all(|share| (share / fair - 1.0).abs() < 1e-5), "{n}");
        }
    }
}
