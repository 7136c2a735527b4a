//! The rendered tables, run on packets as the kernel runs them: every end that chance allows is
//! what `trace` says (invariant I9).

use std::collections::BTreeSet;
use std::net::IpAddr;

use causeway_ruleset::plan::Plan;
use causeway_ruleset::services::{self, Tables};
use causeway_ruleset::testing::{Random, is_local, random_history, random_packet};
use causeway_ruleset::trace::{Choice, Outcome, Packet, Tracer};
use causeway_ruleset::{
    Element, ElementValue, Field, Hook, Key, Match, NatPort, NatTarget, RegValue, Rule, Statement,
    TableState, Verdict, spread,
};

const HISTORIES: u64 = 12;
const PACKETS: usize = 40;

/// A packet on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    mark: u32,
    to: Option<(IpAddr, u16)>,
    masquerade: bool,
}

/// How a rule or chain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// The next rule follows; after a chain the one behind the jump.
    Next,
    /// The chain is over.
    Over,
    Accept,
    Drop,
    Reject,
}

type Ends = BTreeSet<(State, End)>;

struct Machine<'a> {
    table: &'a TableState,
    packet: &'a Packet,
}

impl Machine<'_> {
    fn outcomes(&self) -> BTreeSet<Result<Choice, End>> {
        let hook = if self.packet.from_node { Hook::Output } else { Hook::Prerouting };
        let start = State { mark: 0, to: None, masquerade: false };
        let mut outcomes = BTreeSet::new();
        for (state, end) in self.hook(hook, start) {
            match end {
                End::Drop | End::Reject => drop(outcomes.insert(Err(end))),
                End::Next | End::Over | End::Accept => {
                    let left = self.hook(Hook::Postrouting, state).into_iter();
                    outcomes.extend(left.map(|(state, _)| self.outcome(state)));
                }
            }
        }
        outcomes
    }

    fn outcome(&self, state: State) -> Result<Choice, End> {
        let Some((address, port)) = state.to else {
            assert!(!state.masquerade, "nobody asked to masquerade {:?}", self.packet);
            return Err(End::Accept);
        };
        Ok(Choice { address, port, masquerade: state.masquerade })
    }

    /// All base chains of a hook, by priority.
    fn hook(&self, hook: Hook, start: State) -> Ends {
        let bases = self.table.chains.values().filter_map(|(chain, _)| {
            let base = chain.base.as_ref().filter(|base| base.hook == hook)?;
            Some((base.priority, chain.name.as_str()))
        });
        let mut bases = bases.collect::<Vec<_>>();
        bases.sort_unstable();
        let mut ends = Ends::from([(start, End::Accept)]);
        for (_, chain) in bases {
            ends = then(ends, End::Accept, |state| {
                let ends = self.chain(chain, state).into_iter();
                let on = |end| if matches!(end, End::Next | End::Over) { End::Accept } else { end };
                ends.map(|(state, end)| (state, on(end))).collect()
            });
        }
        ends
    }

    fn chain(&self, name: &str, start: State) -> Ends {
        let (_, rules) = self.table.chains.get(name).unwrap_or_else(|| panic!("no chain {name}"));
        let mut ends = Ends::from([(start, End::Next)]);
        for (_, rule) in rules {
            ends = then(ends, End::Next, |state| self.rule(rule, state));
        }
        ends
    }

    fn rule(&self, rule: &Rule, start: State) -> Ends {
        let mut open = BTreeSet::from([start]);
        let mut ends = Ends::new();
        for statement in &rule.statements {
            let mut still = BTreeSet::new();
            for state in open {
                for (state, end) in self.statement(statement, state) {
                    match end {
                        None => drop(still.insert(state)),
                        Some(end) => drop(ends.insert((state, end))),
                    }
                }
            }
            open = still;
        }
        ends.extend(open.into_iter().map(|state| (state, End::Next)));
        ends
    }

    /// Where a statement leads; `None`: to the next statement.
    fn statement(&self, statement: &Statement, state: State) -> Vec<(State, Option<End>)> {
        match statement {
            Statement::Match(one) => {
                let holds = self.matches(one, state).into_iter();
                holds.map(|holds| (state, (!holds).then_some(End::Next))).collect()
            }
            Statement::Counter | Statement::Update { .. } => vec![(state, None)],
            Statement::SetMark { mask, value } => {
                vec![(State { mark: state.mark & !mask ^ value, ..state }, None)]
            }
            Statement::Masquerade { .. } => {
                vec![(State { masquerade: true, ..state }, Some(End::Accept))]
            }
            Statement::Dnat(NatTarget::Fixed(address, port)) => {
                let to = Some((*address, port.unwrap_or(self.packet.port)));
                vec![(State { to, ..state }, Some(End::Accept))]
            }
            Statement::Dnat(NatTarget::Map { fields, map, .. }) => {
                let keys = self.keys(fields, state).into_iter();
                keys.map(|key| self.dnat(map, &key, state)).collect()
            }
            Statement::Dnat(NatTarget::Apart { fields, map, port, .. }) => {
                let keys = self.keys(fields, state).into_iter();
                keys.map(|key| self.dnat_apart(map, &key, port, state)).collect()
            }
            Statement::VerdictMap { fields, map } => {
                let mut ends = Vec::new();
                for key in self.keys(fields, state) {
                    match self.find(map, &key).map(|element| &element.value) {
                        Some(Some(ElementValue::Verdict(to))) => {
                            ends.extend(self.verdict(to, state));
                        }
                        _ => ends.push((state, None)),
                    }
                }
                ends
            }
            Statement::Reject => vec![(state, Some(End::Reject))],
            Statement::Verdict(verdict) => self.verdict(verdict, state),
            Statement::SetCtMark { .. } | Statement::Snat(_) | Statement::Other(..) => {
                panic!("{statement:?} is none of ours")
            }
        }
    }

    fn dnat(&self, map: &str, key: &[RegValue], state: State) -> (State, Option<End>) {
        let Some(element) = self.find(map, key) else { return (state, Some(End::Next)) };
        let Some(ElementValue::Data(data)) = &element.value else { panic!("{element:?}") };
        let to = match data[..] {
            [RegValue::V4(address), RegValue::Port(port)] => (address.into(), port),
            [RegValue::V6(address), RegValue::Port(port)] => (address.into(), port),
            _ => panic!("{element:?}"),
        };
        (State { to: Some(to), ..state }, Some(End::Accept))
    }

    fn dnat_apart(
        &self,
        map: &str,
        key: &[RegValue],
        port: &NatPort,
        state: State,
    ) -> (State, Option<End>) {
        let data = |element: &Element| match &element.value {
            Some(ElementValue::Data(data)) => data.clone(),
            _ => panic!("{element:?}"),
        };
        let Some(address) = self.find(map, key).map(data) else { return (state, Some(End::Next)) };
        let port = match port {
            NatPort::Fixed(port) => *port,
            NatPort::Map { fields, map } => {
                let keys = self.keys(fields, state);
                let [key] = &keys[..] else { panic!("{keys:?}") };
                match self.find(map, key).map(data).as_deref() {
                    Some([RegValue::Port(port)]) => *port,
                    other => panic!("an endpoint of {key:?} without a port: {other:?}"),
                }
            }
        };
        let address = match address[..] {
            [RegValue::V4(address)] => address.into(),
            [RegValue::V6(address)] => address.into(),
            _ => panic!("{address:?}"),
        };
        (State { to: Some((address, port)), ..state }, Some(End::Accept))
    }

    fn verdict(&self, verdict: &Verdict, state: State) -> Vec<(State, Option<End>)> {
        let of = |chain, after| {
            let ends = self.chain(chain, state).into_iter();
            ends.map(|(state, end)| match end {
                End::Next | End::Over => (state, after),
                End::Accept | End::Drop | End::Reject => (state, Some(end)),
            })
            .collect()
        };
        match verdict {
            Verdict::Accept => vec![(state, Some(End::Accept))],
            Verdict::Drop => vec![(state, Some(End::Drop))],
            Verdict::Return => vec![(state, Some(End::Over))],
            Verdict::Jump(chain) => of(chain, None),
            Verdict::Goto(chain) => of(chain, Some(End::Over)),
        }
    }

    fn matches(&self, one: &Match, state: State) -> BTreeSet<bool> {
        let packet = self.packet;
        let only = |holds| BTreeSet::from([holds]);
        match one {
            Match::Cmp { field, negate, value } => {
                let keys = self.keys(&[*field], state).into_iter();
                keys.map(|key| (key[0] == *value) != *negate).collect()
            }
            Match::Net { field, negate, net } => {
                let source = matches!(field, Field::IpSaddr | Field::Ip6Saddr);
                let address = if source { packet.source } else { self.to(state).0 };
                only(net.contains(address) != *negate)
            }
            Match::Bits { field: Field::Mark, mask, negate, value } => {
                only((state.mark & mask == *value) != *negate)
            }
            Match::InSet { fields, set, negate } => {
                let keys = self.keys(fields, state).into_iter();
                keys.map(|key| self.find(set, &key).is_some() != *negate).collect()
            }
            Match::FibDaddrLocal { negate } => only(is_local(self.to(state).0) != *negate),
            Match::FibSaddrLocal { negate } => only(packet.from_node != *negate),
            Match::CtStatusDnat { negate } => only(state.to.is_some() != *negate),
            Match::Bits { .. }
            | Match::NfProto { .. }
            | Match::CtEstablished { .. }
            | Match::CtInvalid
            | Match::CtDirection { .. } => panic!("{one:?} is none of ours"),
        }
    }

    /// Destination as it is by now.
    fn to(&self, state: State) -> (IpAddr, u16) {
        state.to.unwrap_or((self.packet.destination, self.packet.port))
    }

    /// All keys that these fields may give.
    fn keys(&self, fields: &[Field], state: State) -> Vec<Vec<RegValue>> {
        let mut keys = vec![Vec::new()];
        for field in fields {
            let values = self.values(*field, state);
            let with = |key: Vec<RegValue>| {
                values.iter().map(move |value| [&key[..], std::slice::from_ref(value)].concat())
            };
            keys = keys.into_iter().flat_map(with).collect();
        }
        keys
    }

    fn values(&self, field: Field, state: State) -> Vec<RegValue> {
        let packet = self.packet;
        let (to, port) = self.to(state);
        match field {
            Field::IpSaddr | Field::Ip6Saddr => vec![packet.source.into()],
            Field::IpDaddr | Field::Ip6Daddr => vec![to.into()],
            Field::L4Proto => vec![RegValue::Proto(packet.protocol.number())],
            Field::ThDport => vec![RegValue::Port(port)],
            Field::Mark => vec![RegValue::Mark(state.mark)],
            Field::IifName => {
                let name = if packet.from_node { "lo" } else { "eth0" };
                vec![RegValue::IfName(name.to_owned())]
            }
            Field::Random { modulus, offset } | Field::Turn { modulus, offset } => {
                (offset..offset + modulus).map(RegValue::Number).collect()
            }
            Field::SourceHash { modulus, seed, .. } => {
                assert_eq!(seed, spread::SEED);
                vec![RegValue::Number(spread::bucket(packet.source, modulus))]
            }
            Field::Const(value) => vec![RegValue::Mark(value)],
            Field::EtherSaddr
            | Field::ThSport
            | Field::VniHigh
            | Field::VniLow
            | Field::OifName
            | Field::CtMark
            | Field::CtOriginalIpDaddr
            | Field::CtOriginalIp6Daddr
            | Field::CtOriginalProtoDst => panic!("{field:?} is none of ours"),
        }
    }

    fn find(&self, set: &str, key: &[RegValue]) -> Option<&Element> {
        let (_, elements) = self.table.sets.get(set).unwrap_or_else(|| panic!("no set {set}"));
        let holds = |element: &&Element| match &element.key {
            Key::Exact(values) => values == key,
            Key::Range(from, to) => {
                let mut ends = from.iter().zip(to).zip(key);
                from.len() == key.len() && ends.all(|((from, to), key)| from <= key && key <= to)
            }
        };
        elements.iter().find(holds)
    }
}

/// Goes on from the states that ended in `from`.
fn then(ends: Ends, from: End, next: impl Fn(State) -> Ends) -> Ends {
    let mut after = Ends::new();
    for (state, end) in ends {
        if end == from {
            after.extend(next(state));
        } else {
            after.insert((state, end));
        }
    }
    after
}

fn wanted(outcome: Outcome) -> BTreeSet<Result<Choice, End>> {
    match outcome {
        Outcome::Pass => [Err(End::Accept)].into(),
        Outcome::Reject => [Err(End::Reject)].into(),
        Outcome::Drop => [Err(End::Drop)].into(),
        Outcome::Endpoints(choices) => choices.into_iter().map(Ok).collect(),
    }
}

fn check(plan: &Plan, tables: &Tables, packets: &[Packet]) -> [usize; 4] {
    let tracer = Tracer::new(plan);
    let mut kinds = [0; 4];
    for packet in packets {
        let table = if packet.destination.is_ipv4() { &tables.v4 } else { &tables.v6 };
        let trace = tracer.trace(packet);
        let kind = match &trace.outcome {
            Outcome::Pass => 0,
            Outcome::Reject => 1,
            Outcome::Drop => 2,
            Outcome::Endpoints(_) => 3,
        };
        kinds[kind] += 1;
        let got = Machine { table, packet }.outcomes();
        assert_eq!(got, wanted(trace.outcome), "{packet:?}\n{:#?}", trace.steps);
    }
    kinds
}

/// Rows: P11, P12, P13, P14, P15, P17, P18, P19, P30, P32, P33, P34, P35, P36, P37, P38, P39
/// Rows: P42, P44, P48, P49, P50, P54, P57, P58, P59
#[test]
fn i9_nftables_rules_and_trace_agree_on_random_histories() {
    let mut kinds = [0; 4];
    for seed in 0..HISTORIES {
        let mut random = Random::new(seed);
        for step in random_history(seed) {
            let packets = (0..PACKETS).map(|_| random_packet(&mut random, &step.plan));
            let packets = packets.collect::<Vec<_>>();
            let seen = check(&step.plan, &services::compile(&step.plan), &packets);
            kinds = std::array::from_fn(|kind| kinds[kind] + seen[kind]);
        }
    }
    assert!(kinds.iter().all(|count| *count > 200), "{kinds:?}");
}
