//! The fake refuses what the kernel refuses, by the same errno at the same operation, and lists the
//! same afterwards.

mod common;

use causeway_nft::{Client, Error, Fake};
use causeway_ruleset::testing::{Random, random_history};
use causeway_ruleset::{
    Batch, DataType, Element, ElementValue, Family, Field, Hook, Key, MapTarget, Match, Op,
    RegValue, Rule, SetSpec, Statement, TableId, TableState, Verdict, services,
};

use common::{batch, chain, client, element, everything, rule, set, table};

const HISTORIES: u64 = 60;
const BATCHES: usize = 40;

/// What a commit says: position of the refused operation and errno.
type Outcome = Result<(), (Option<usize>, Option<i32>)>;

/// The real kernel and the fake, to which the same happens.
struct Pair {
    kernel: Client,
    fake: Client,
    /// For messages.
    seed: u64,
}

impl Pair {
    /// In a namespace of its own.
    fn new(seed: u64) -> Self {
        Self { kernel: client(), fake: Client::of_fake(&Fake::default()), seed }
    }

    fn both<T: PartialEq + std::fmt::Debug>(
        &mut self,
        what: &dyn std::fmt::Debug,
        mut ask: impl FnMut(&mut Client) -> T,
    ) -> T {
        let (kernel, fake) = (ask(&mut self.kernel), ask(&mut self.fake));
        assert_eq!(fake, kernel, "fake (left) and kernel, seed {}: {what:#?}", self.seed);
        kernel
    }

    /// Handles are each one's own: `ops` is given the rules of the client that is asked.
    fn commit(&mut self, guard: bool, ops: impl Fn(&mut Client) -> Vec<Op>) -> Outcome {
        let shown = ops(&mut self.fake);
        self.both(&shown, |client| {
            let before = client.generation().expect("a generation");
            let generation = guard.then_some(before);
            let batch = Batch { ops: ops(client), generation };
            let done = client.commit(&batch);
            let changed = client.generation().expect("a generation") != before;
            (done.map_err(outcome), changed)
        })
        .0
    }

    fn compare(&mut self, id: &TableId, what: &dyn std::fmt::Debug) {
        self.both(what, |client| client.table(id).expect("a table").map(without_handles));
    }
}

fn outcome(error: Error) -> (Option<usize>, Option<i32>) {
    (error.op, error.source.raw_os_error())
}

fn without_handles(mut state: TableState) -> TableState {
    for (_, rules) in state.chains.values_mut() {
        rules.iter_mut().for_each(|(handle, _)| *handle = 0);
    }
    state
}

fn tables() -> [TableId; 2] {
    [table(Family::Inet, "t"), table(Family::Ip, "u")]
}

fn all_sets() -> Vec<SetSpec> {
    let address = [DataType::Ipv4Addr];
    vec![
        set("ports", &[DataType::InetService], None, false),
        set("map", &address, Some(MapTarget::Data(vec![DataType::InetService])), false),
        set("verdicts", &address, Some(MapTarget::Verdict), false),
        set("nets", &address, None, true),
        set("areas", &[DataType::Ipv4Addr, DataType::InetService], None, true),
    ]
}

fn address(last: u8) -> RegValue {
    RegValue::V4([10, 0, 0, last].into())
}

fn verdict(random: &mut Random) -> Verdict {
    match random.below(4) {
        0 => Verdict::Drop,
        1 => Verdict::Goto(name(random)),
        _ => Verdict::Jump(name(random)),
    }
}

/// Of a chain; the first is a base chain.
fn name(random: &mut Random) -> String {
    (*random.pick(&["pre", "a", "a", "b", "b", "c"])).to_owned()
}

fn some_element(random: &mut Random, set: &SetSpec) -> Element {
    let low = u8::try_from(random.below(4)).expect("small");
    let (key, value) = match set.name.as_str() {
        "ports" => (Key::Exact(vec![RegValue::Port(low.into())]), None),
        "map" => {
            let port = RegValue::Port(80 + random.below(2));
            (Key::Exact(vec![address(low)]), Some(ElementValue::Data(vec![port])))
        }
        "verdicts" => {
            let to = ElementValue::Verdict(verdict(random));
            (Key::Exact(vec![address(low)]), Some(to))
        }
        "nets" => {
            let nets = [(10, 19), (20, 29), (15, 24), (10, 14), (12, 13), (30, 30), (5, 9)];
            let (from, to) = *random.pick(&nets);
            (Key::Range(vec![address(from)], vec![address(to)]), None)
        }
        _ => {
            let areas = [(1, 4, 1, 9), (5, 8, 1, 9), (2, 3, 2, 3), (3, 6, 5, 5), (9, 9, 1, 1)];
            let (from, to, low, high) = *random.pick(&areas);
            let corner = |last, port| vec![address(last), RegValue::Port(port)];
            (Key::Range(corner(from, low), corner(to, high)), None)
        }
    };
    let comment = random.chance(30).then(|| format!("owner {}", random.below(2)));
    Element { key, value, comment }
}

fn some_rule(random: &mut Random) -> Rule {
    let in_set = |field, set: &str| {
        let set = set.to_owned();
        Statement::Match(Match::InSet { fields: vec![field], set, negate: false })
    };
    let map =
        |map: &str| Statement::VerdictMap { fields: vec![Field::IpDaddr], map: map.to_owned() };
    rule(match random.below(9) {
        0 => vec![in_set(Field::ThDport, "ports")],
        1 => vec![in_set(Field::IpSaddr, "nets"), Statement::Verdict(Verdict::Drop)],
        2 => vec![in_set(Field::IpSaddr, "map")],
        3 => vec![map("verdicts")],
        4 => vec![map("map")],
        5 => vec![map("ports")],
        6 => vec![Statement::Counter],
        _ => vec![Statement::Verdict(verdict(random))],
    })
}

/// An operation; a rule to be deleted is named by its position, as each kernel has its own handles.
fn some_op(random: &mut Random) -> (Op, usize) {
    let id = tables()[usize::from(random.chance(10))].clone();
    let set = random.pick(&all_sets()).clone();
    let position = usize::from(random.below(3));
    let op = match random.below(40) {
        0 => Op::DeleteTable(id),
        1..=3 => Op::AddTable(id),
        4..=8 => Op::AddChain(id, some_chain(random)),
        9 => Op::FlushChain(id, name(random)),
        10 | 11 => Op::DeleteChain(id, name(random)),
        12..=16 => Op::AddSet(id, set),
        17 => Op::AddSet(id, SetSpec { key: vec![DataType::InetProto], interval: false, ..set }),
        18 => Op::FlushSet(id, set.name),
        19 | 20 => Op::DeleteSet(id, set.name),
        21..=28 => {
            let count = 1 + random.below(2);
            let elements = (0..count).map(|_| some_element(random, &set)).collect();
            Op::AddElements { table: id, set, elements, exclusive: random.chance(60) }
        }
        29 | 30 => {
            let elements = vec![some_element(random, &set)];
            Op::DeleteElements { table: id, set, elements }
        }
        31 | 32 => Op::DeleteRule { table: id, chain: name(random), handle: 0 },
        _ => Op::AddRule { table: id, chain: name(random), rule: some_rule(random) },
    };
    (op, position)
}

fn some_chain(random: &mut Random) -> causeway_ruleset::ChainSpec {
    let name = name(random);
    let base = (name == "pre").then_some(("filter", Hook::Prerouting, -300));
    let mut spec = chain(&name, base);
    match (random.below(10), &mut spec.base) {
        (0, Some(base)) => base.priority = -299,
        (1 | 2, Some(base)) => base.policy_drop = true,
        (3, Some(base)) => (base.kind, base.hook) = ("nat".to_owned(), Hook::Forward),
        (4, base) => *base = None,
        (5, base @ None) => *base = chain("x", Some(("filter", Hook::Input, 0))).base,
        _ => {}
    }
    spec
}

fn for_client(client: &mut Client, ops: &[(Op, usize)]) -> Vec<Op> {
    let with_handle = |(op, position): &(Op, usize)| {
        let Op::DeleteRule { table, chain, .. } = op else { return op.clone() };
        let rules = client.rules(table, chain).expect("rules");
        let handle = rules.get(*position).map_or(9_999_999, |(handle, _)| *handle);
        Op::DeleteRule { table: table.clone(), chain: chain.clone(), handle }
    };
    ops.iter().map(with_handle).collect()
}

/// A start that most operations can build on.
fn base(id: &TableId) -> Vec<Op> {
    let mut ops = vec![Op::AddTable(id.clone())];
    ops.push(Op::AddChain(id.clone(), chain("pre", Some(("filter", Hook::Prerouting, -300)))));
    ops.extend(["a", "b"].map(|name| Op::AddChain(id.clone(), chain(name, None))));
    ops.extend(all_sets().into_iter().map(|set| Op::AddSet(id.clone(), set)));
    ops
}

#[test]
fn fake_and_kernel_agree_on_random_histories() {
    let (mut done, mut refused) = (0, std::collections::BTreeMap::new());
    for seed in 1..=HISTORIES {
        let mut random = Random::new(seed);
        let mut pair = Pair::new(seed);
        pair.commit(false, |_| base(&tables()[0])).expect("the base");
        for _ in 0..BATCHES {
            let ops: Vec<_> = (0..=random.below(4)).map(|_| some_op(&mut random)).collect();
            match pair.commit(random.chance(20), |client| for_client(client, &ops)) {
                Ok(()) => done += 1,
                Err((_, errno)) => *refused.entry(errno).or_insert(0) += 1,
            }
            for id in tables() {
                pair.compare(&id, &ops);
            }
            for name in ["pre", "a", "b", "c"] {
                pair.both(&(name, &ops), |client| client.chain_use(&tables()[0], name).ok());
            }
        }
    }
    assert!(done > 100, "{done} commits, refused by errno: {refused:?}");
    let needed = [libc::ENOENT, libc::EEXIST, libc::EBUSY, libc::EINVAL, libc::EOPNOTSUPP];
    for errno in needed {
        assert!(refused.contains_key(&Some(errno)), "never errno {errno}: {refused:?}");
    }
}

/// `base` jumps to `c0`, which jumps to `c1`, and so on: so many chains beside the base chain.
fn row_of_jumps(id: &TableId, chains: usize) -> Vec<Op> {
    let name = |index: usize| format!("c{index}");
    let jump = |to: usize| rule(vec![Statement::Verdict(Verdict::Jump(name(to)))]);
    let mut ops = vec![Op::AddTable(id.clone())];
    ops.push(Op::AddChain(id.clone(), chain("base", Some(("filter", Hook::Input, 0)))));
    ops.extend((0..chains).map(|index| Op::AddChain(id.clone(), chain(&name(index), None))));
    let from = std::iter::once("base".to_owned()).chain((0..).map(name));
    ops.extend(from.zip(0..chains).map(|(from, to)| Op::AddRule {
        table: id.clone(),
        chain: from,
        rule: jump(to),
    }));
    ops
}

#[test]
fn fake_and_kernel_refuse_circles_and_rows_of_jumps() {
    let id = table(Family::Inet, "t");
    let add = |from: &str, to: Statement| {
        let (table, chain) = (id.clone(), from.to_owned());
        vec![Op::AddRule { table, chain, rule: rule(vec![to]) }]
    };
    let jump = |to: &str| Statement::Verdict(Verdict::Jump(to.to_owned()));
    let map = set("map", &[DataType::Ipv4Addr], Some(MapTarget::Verdict), false);
    let by_map = Statement::VerdictMap { fields: vec![Field::IpDaddr], map: "map".to_owned() };
    let lead = |to: &str| {
        let to = ElementValue::Verdict(Verdict::Goto(to.to_owned()));
        let elements = vec![element(vec![address(1)], Some(to), "")];
        vec![Op::AddElements { table: id.clone(), set: map.clone(), elements, exclusive: true }]
    };
    let emlink = Some(libc::EMLINK);

    let mut pair = Pair::new(1);
    pair.commit(false, |_| row_of_jumps(&id, 2)).expect("base, c0, c1");
    let closed = pair.commit(false, |_| add("c1", jump("c0")));
    assert_eq!(closed, Err((Some(0), emlink)), "a circle of rules");
    let closed = pair.commit(false, |_| add("c1", jump("c1")));
    assert_eq!(closed, Err((Some(0), emlink)), "a chain that leads to itself");
    pair.commit(false, |_| vec![Op::AddSet(id.clone(), map.clone())]).expect("a map");
    pair.commit(false, |_| add("c1", by_map.clone())).expect("the map in use");
    assert_eq!(pair.commit(false, |_| lead("c0")), Err((Some(0), emlink)), "through an element");
    pair.compare(&id, &"what was there stays");

    let mut pair = Pair::new(2);
    let mut lone = row_of_jumps(&id, 2);
    lone.retain(|op| !matches!(op, Op::AddRule { chain, .. } if chain == "base"));
    lone.extend(add("c1", jump("c0")));
    pair.commit(false, |_| lone.clone()).expect("a circle that no packet comes to");
    let reached = pair.commit(false, |_| add("base", jump("c1")));
    assert_eq!(reached, Err((Some(0), emlink)), "a circle that packets would come to");
    pair.compare(&id, &"what was there stays");

    for (seed, chains) in (3..).zip([15, 16]) {
        let mut pair = Pair::new(seed);
        let done = pair.commit(false, |_| row_of_jumps(&id, chains));
        assert_eq!(done.is_ok(), chains == 15, "{chains} chains after the first: {done:?}");
        pair.compare(&id, &chains);
    }
}

#[test]
fn fake_and_kernel_agree_on_services() {
    for seed in 1..=6 {
        let mut pair = Pair::new(seed);
        let ids = [services::table(services_family(false)), services::table(services_family(true))];
        let mut before: Option<services::Tables> = None;
        for step in random_history(seed) {
            let after = services::compile(&step.plan);
            let ops = services::diff(before.as_ref(), &after).ops;
            pair.commit(true, |_| ops.clone()).expect("a commit");
            for id in &ids {
                pair.compare(id, &ops.len());
            }
            before = Some(after);
        }
    }
}

fn services_family(ipv6: bool) -> causeway_ruleset::model::IpFamily {
    use causeway_ruleset::model::IpFamily;
    if ipv6 { IpFamily::V6 } else { IpFamily::V4 }
}

#[test]
fn fake_and_kernel_list_everything_alike() {
    let mut pair = Pair::new(0);
    let id = table(Family::Inet, "t");
    pair.commit(false, |_| everything(&id).ops).expect("a commit");
    pair.compare(&id, &"everything");
}

#[test]
fn fake_and_kernel_refuse_an_old_generation() {
    let mut pair = Pair::new(0);
    let id = table(Family::Inet, "t");
    pair.both(&"an old generation", |client| {
        let generation = client.generation().expect("a generation");
        client.commit(&batch(vec![Op::AddTable(id.clone())])).expect("a commit");
        let ports = set("ports", &[DataType::InetService], None, false);
        let ops = vec![Op::AddSet(id.clone(), ports)];
        let old = client.commit(&Batch { ops, generation: Some(generation) });
        old.map_err(|error| (error.is_transient(), outcome(error)))
    })
    .expect_err("refused");
    pair.both(&"what cannot be said", |client| {
        let ports = set("ports", &[DataType::InetService], None, false);
        let elements = vec![element(vec![address(1)], None, "")];
        let table = id.clone();
        let op = Op::AddElements { table, set: ports, elements, exclusive: true };
        client.commit(&batch(vec![op])).map_err(|error| (error.op, error.source.kind()))
    })
    .expect_err("refused");
}
