//! The allocator against a plain map of holders, over both stores alike.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::disk::{self, Disk};
use crate::lock::NetworkLock;
use crate::store::memory::Memory;

fn pool(subnet: &str, first: &str, last: &str, excluded: &[&str]) -> Pool {
    let subnet: ipnetwork::IpNetwork = subnet.parse().unwrap();
    let whole = Span::of(subnet);
    let number = |text: &str| crate::range::number(text.parse().unwrap());
    let range = Range {
        subnet,
        span: Span { first: number(first), last: number(last), ..whole },
        gateway: whole.family.address(whole.first + 1),
    };
    let excluded: Vec<_> =
        excluded.iter().map(|text| Span::single(text.parse().unwrap())).collect();
    Pool::new(vec![range], &excluded)
}

fn owner(id: &str) -> Owner {
    Owner { container_id: id.into(), ifname: "eth0".into() }
}

fn at(boot_ms: u64) -> Now {
    Now { unix: 1_700_000_000, boot_ms, boot: "boot".into() }
}

/// ADD without requests at time 0; the addresses as text.
fn add(store: &mut dyn Store, pools: &[Pool], id: &str) -> Result<Vec<String>, Refusal> {
    ask(store, pools, id, &[], (Duration::ZERO, 0))
}

fn ask(
    store: &mut dyn Store,
    pools: &[Pool],
    id: &str,
    requested: &[&str],
    (reuse_delay, boot_ms): (Duration, u64),
) -> Result<Vec<String>, Refusal> {
    let requested: Vec<_> = requested.iter().map(|text| text.parse().unwrap()).collect();
    let (owner, now) = (owner(id), at(boot_ms));
    let elsewhere = &|_| None;
    let ask =
        Ask { pools, requested: &requested, owner: &owner, reuse_delay, now: &now, elsewhere };
    let grants = allocate(store, &ask)?;
    Ok(grants.into_iter().map(|grant| grant.address.to_string()).collect())
}

fn del(store: &mut dyn Store, id: &str) -> usize {
    release(store, &owner(id), Duration::ZERO, &at(0)).unwrap()
}

/// Runs `test` with an empty store of each kind.
fn with_both(test: impl Fn(&mut dyn Store)) {
    test(&mut Memory::default());
    let dir = tempfile::tempdir().unwrap();
    let lock = NetworkLock::acquire(dir.path(), "net", Duration::ZERO).unwrap();
    let mut opened = Disk::open(&lock, disk::CLOSE_WAIT).unwrap();
    assert!(opened.fresh);
    test(&mut opened.disk);
}

/// Rows: C61, C66, S-06
#[test]
fn addresses_go_round_and_come_back() {
    with_both(|store| {
        let pools = [pool("10.0.0.0/16", "10.0.1.2", "10.0.1.5", &["10.0.1.4"])];
        assert_eq!(add(store, &pools, "a").unwrap(), ["10.0.1.2"]);
        let again = add(store, &pools, "a").unwrap_err().to_string();
        assert_eq!(again, "10.0.1.2 has been allocated to a, duplicate allocation is not allowed");
        assert_eq!(add(store, &pools, "b").unwrap(), ["10.0.1.3"]);
        assert_eq!((del(store, "a"), del(store, "a"), del(store, "nobody")), (1, 0, 0));
        assert_eq!(add(store, &pools, "a").unwrap(), ["10.0.1.5"]);
        assert_eq!(add(store, &pools, "c").unwrap(), ["10.0.1.2"]);
        // The last address given out is the only free one.
        assert_eq!(del(store, "c"), 1);
        assert_eq!(add(store, &pools, "d").unwrap(), ["10.0.1.2"]);
    });
}

/// Rows: F31, F32
#[test]
fn an_exhausted_pool_leaves_nothing_of_the_others() {
    with_both(|store| {
        let pools = [
            pool("10.0.0.0/24", "10.0.0.2", "10.0.0.9", &[]),
            pool("10.1.0.0/24", "10.1.0.2", "10.1.0.2", &[]),
        ];
        assert_eq!(add(store, &pools, "a").unwrap(), ["10.0.0.2", "10.1.0.2"]);
        let before = (store.leases().unwrap(), store.state().clone());
        let refusal = add(store, &pools, "b").unwrap_err().to_string();
        assert_eq!(refusal, "no IP addresses available in range set: 10.1.0.2-10.1.0.2");
        assert_eq!((store.leases().unwrap(), store.state().clone()), before);
        let full = exhausted(store, &pools, Duration::ZERO, &at(0)).unwrap();
        assert_eq!(full.map(ToString::to_string).as_deref(), Some("10.1.0.2-10.1.0.2"));
        assert_eq!(del(store, "a"), 1 + 1);
        assert!(exhausted(store, &pools, Duration::ZERO, &at(0)).unwrap().is_none());
        assert_eq!(add(store, &pools, "b").unwrap(), ["10.0.0.3", "10.1.0.2"]);
    });
}

/// Rows: F33, S-06
#[test]
fn a_requested_address_is_given_or_refused_with_the_reason() {
    with_both(|store| {
        let pools = [
            pool("10.0.0.0/24", "10.0.0.0", "10.0.0.255", &["10.0.0.7"]),
            pool("fd00::/64", "fd00::1", "fd00::ff", &[]),
        ];
        let mut get = |id: &str, requested: &[&str]| {
            ask(store, &pools, id, requested, (Duration::ZERO, 0)).map_err(|e| e.to_string())
        };
        assert_eq!(get("a", &["fd00::9", "10.0.0.9"]).unwrap(), ["10.0.0.9", "fd00::9"]);
        for (requested, why) in [
            (["10.0.0.9"].as_slice(), "requested IP address 10.0.0.9 is not available"),
            (&["10.0.0.1"], "requested IP address 10.0.0.1 is the subnet's gateway"),
            (&["10.0.0.0"], "requested IP address 10.0.0.0 is the subnet's network address"),
            (&["10.0.0.255"], "requested IP address 10.0.0.255 is the subnet's broadcast"),
            (&["10.0.0.7"], "requested IP address 10.0.0.7 is excluded"),
            (
                &["10.0.1.9"],
                "failed to allocate all requested IPs: 10.0.1.9 is outside the range 10.0.0.",
            ),
            (
                &["10.0.0.20", "10.0.0.21"],
                "failed to allocate all requested IPs: 10.0.0.21 is in the same range set",
            ),
        ] {
            let refusal = get("b", requested).unwrap_err();
            assert!(refusal.starts_with(why), "{refusal}");
        }
        assert_eq!(get("b", &[]).unwrap(), ["10.0.0.10", "fd00::a"]);
        assert_eq!(store.state().leases, 4);
    });
}

/// Rows: F30
#[test]
fn a_freed_address_rests_and_no_clock_can_freeze_it() {
    with_both(|store| {
        let pools = [pool("10.0.0.0/24", "10.0.0.2", "10.0.0.3", &[])];
        let delay = Duration::from_secs(30);
        let mut get = |id: &str, named: &[&str], ms| ask(store, &pools, id, named, (delay, ms));
        get("a", &[], 0).unwrap();
        get("b", &[], 0).unwrap();
        release(store, &owner("a"), delay, &at(100_000)).unwrap();
        let mut get = |id: &str, named: &[&str], ms| ask(store, &pools, id, named, (delay, ms));
        let Refusal::Exhausted { cooling, .. } = get("c", &[], 129_999).unwrap_err() else {
            panic!("another refusal")
        };
        assert_eq!(cooling, 1);
        assert_eq!(get("c", &[], 130_000).unwrap(), ["10.0.0.2"]);
        // A clock that is behind the release (another time namespace) does not keep it.
        release(store, &owner("c"), delay, &at(200_000)).unwrap();
        assert!(exhausted(store, &pools, delay, &at(200_001)).unwrap().is_some());
        assert!(exhausted(store, &pools, delay, &at(199_999)).unwrap().is_none());
        assert_eq!(ask(store, &pools, "d", &[], (delay, 199_999)).unwrap(), ["10.0.0.2"]);
        // Who asks for it by name does not wait.
        release(store, &owner("d"), delay, &at(300_000)).unwrap();
        assert_eq!(ask(store, &pools, "e", &["10.0.0.2"], (delay, 300_001)).unwrap(), ["10.0.0.2"]);
    });
}

/// Rows: F29
#[test]
fn leases_of_another_boot_end_at_the_first_add() {
    with_both(|store| {
        let pools = [pool("10.0.0.0/24", "10.0.0.2", "10.0.0.3", &[])];
        add(store, &pools, "a").unwrap();
        add(store, &pools, "b").unwrap();
        let next = Now { boot: "next".into(), ..at(5) };
        assert!(exhausted(store, &pools, Duration::ZERO, &next).unwrap().is_none());
        let unknown = Now { boot: String::new(), ..at(5) };
        assert!(exhausted(store, &pools, Duration::ZERO, &unknown).unwrap().is_some());
        let requested = ["10.0.0.2".parse().unwrap()];
        let owner = owner("a");
        let ask = Ask {
            pools: &pools,
            requested: &requested,
            owner: &owner,
            reuse_delay: Duration::from_secs(99),
            now: &next,
            elsewhere: &|_| None,
        };
        assert_eq!(allocate(store, &ask).unwrap()[0].address, requested[0]);
        assert_eq!(store.leases().unwrap().len(), 1);
        assert_eq!(store.state().boot, "next");
    });
}

/// Rows: C73, C74, F46
#[test]
fn collection_keeps_the_listed_and_the_newer() {
    with_both(|store| {
        let pools = [pool("10.0.0.0/24", "10.0.0.2", "10.0.0.9", &[])];
        for (id, ms) in [("listed", 10), ("stale", 20), ("newer", 30)] {
            ask(store, &pools, id, &[], (Duration::ZERO, ms)).unwrap();
        }
        let valid = BTreeSet::from([owner("listed"), owner("unknown")]);
        let collected = collect(store, &valid, 30, Duration::ZERO, &at(40)).unwrap();
        assert_eq!(collected, 1);
        let left: Vec<_> =
            store.leases().unwrap().into_iter().map(|l| l.owner.container_id).collect();
        assert_eq!(left, ["listed", "newer"]);
        assert_eq!(collect(store, &BTreeSet::new(), 50, Duration::ZERO, &at(60)).unwrap(), 2);
        assert_eq!(store.state().leases, 0);
    });
}

/// A lease that names no interface comes from an old host-local directory.
///
/// Rows: F28
#[test]
fn a_lease_without_an_interface_belongs_to_every_interface_of_its_container() {
    with_both(|store| {
        let nameless = Owner { ifname: String::new(), ..owner("old") };
        let lease =
            Lease { address: "10.0.0.2".parse().unwrap(), owner: nameless, since: 0, boot_ms: 0 };
        let change = Change { lease: vec![lease], ..Change::default() };
        store.commit(change.clone()).unwrap();
        assert_eq!(del(store, "other"), 0);
        let valid = BTreeSet::from([owner("old")]);
        assert_eq!(collect(store, &valid, 1, Duration::ZERO, &at(5)).unwrap(), 0);
        assert_eq!(del(store, "old"), 1);
        store.commit(change).unwrap();
        assert_eq!(collect(store, &BTreeSet::new(), 1, Duration::ZERO, &at(5)).unwrap(), 1);
    });
}

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Add { id: u8, requested: Option<u8> },
    Del { id: u8 },
    Gc { keep: Vec<u8>, drawn_ms: u64 },
    Wait { ms: u64 },
    Boot,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_u8..12, proptest::option::weighted(0.2, 0_u8..24))
            .prop_map(|(id, requested)| Step::Add { id, requested }),
        6 => (0_u8..12).prop_map(|id| Step::Del { id }),
        1 => (proptest::collection::vec(0_u8..12, 0..12), 0_u64..3000)
            .prop_map(|(keep, drawn_ms)| Step::Gc { keep, drawn_ms }),
        3 => (0_u64..700).prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::Boot),
        1 => Just(Step::Reopen),
    ]
}

/// What must hold, told as simply as possible.
#[derive(Default)]
struct Model {
    held: BTreeMap<IpAddr, (Owner, u64)>,
    resting: BTreeMap<IpAddr, u64>,
    boot: u32,
    store_boot: u32,
    clock: u64,
}

const DELAY: u64 = 500;

impl Model {
    fn now(&self) -> Now {
        Now { unix: 1, boot_ms: self.clock, boot: format!("boot {}", self.boot) }
    }

    fn free(&self, pools: &[Pool]) -> BTreeSet<IpAddr> {
        let all = pools.iter().flat_map(|pool| &pool.free);
        all.flat_map(|(_, span)| (span.first..=span.last).map(|n| span.family.address(n)))
            .filter(|address| !self.held.contains_key(address))
            .filter(|address| self.resting.get(address).is_none_or(|t| self.clock - t >= DELAY))
            .collect()
    }

    fn end(&mut self, ends: impl Fn(&Owner, u64) -> bool) -> usize {
        let ended: Vec<_> =
            self.held.iter().filter(|(_, (o, t))| ends(o, *t)).map(|(a, _)| *a).collect();
        for address in &ended {
            self.held.remove(address);
            self.resting.insert(*address, self.clock);
        }
        ended.len()
    }

    /// Does `step` to `store` and to itself; both must agree.
    fn apply(&mut self, store: &mut dyn Store, pools: &[Pool], step: &Step) {
        let (now, delay) = (self.now(), Duration::from_millis(DELAY));
        match step {
            Step::Add { id, requested } => {
                if self.store_boot != self.boot {
                    self.held.clear();
                    self.resting.clear();
                    self.store_boot = self.boot;
                }
                let owner = owner(&format!("c{id}"));
                let requested: Vec<IpAddr> = requested
                    .iter()
                    .map(|n| {
                        Span::of("10.0.0.0/27".parse().unwrap())
                            .family
                            .address(0x0a00_0000 + u128::from(*n))
                    })
                    .collect();
                let ask = Ask {
                    pools,
                    requested: &requested,
                    owner: &owner,
                    reuse_delay: delay,
                    now: &now,
                    elsewhere: &|_| None,
                };
                let granted = allocate(store, &ask);
                self.check_grant(pools, &owner, &requested, granted);
            }
            Step::Del { id } => {
                let owner = owner(&format!("c{id}"));
                let released = release(store, &owner, delay, &now).unwrap();
                assert_eq!(released, self.end(|o, _| *o == owner));
            }
            Step::Gc { keep, drawn_ms } => {
                let valid: BTreeSet<_> = keep.iter().map(|id| owner(&format!("c{id}"))).collect();
                let same = self.store_boot == self.boot;
                let count = collect(store, &valid, *drawn_ms, delay, &now).unwrap();
                let expected = self.end(|o, t| !(valid.contains(o) || (same && t >= *drawn_ms)));
                assert_eq!(count, expected);
            }
            Step::Wait { ms } => self.clock += ms,
            Step::Boot => self.boot += 1,
            Step::Reopen => {}
        }
        let held: BTreeMap<IpAddr, (Owner, u64)> = store
            .leases()
            .unwrap()
            .into_iter()
            .map(|lease| (lease.address, (lease.owner, lease.boot_ms)))
            .collect();
        assert_eq!(held, self.held);
        assert_eq!(store.state().leases, self.held.len() as u64);
    }

    fn check_grant(
        &mut self,
        pools: &[Pool],
        owner: &Owner,
        requested: &[IpAddr],
        granted: Result<Vec<Grant>, Refusal>,
    ) {
        let has_one = self.held.values().any(|(o, _)| o == owner);
        let free = self.free(pools);
        match granted {
            Ok(grants) => {
                assert!(!has_one, "a second address for {owner:?}");
                let address = grants[0].address;
                match requested.first() {
                    Some(named) => assert_eq!(address, *named),
                    None => assert!(free.contains(&address), "{address} was not free"),
                }
                self.resting.remove(&address);
                assert_eq!(self.held.insert(address, (owner.clone(), self.clock)), None);
            }
            Err(Refusal::Duplicate { address, .. }) => assert_eq!(&self.held[&address].0, owner),
            Err(Refusal::Exhausted { .. }) => assert_eq!(free, BTreeSet::new()),
            Err(Refusal::Taken { address, holder, .. }) => {
                assert_eq!(self.held[&address].0, holder);
            }
            Err(Refusal::Reserved { address, .. }) => assert!(!pools[0].offers(address)),
            Err(Refusal::Unplaced(_)) => assert!(pools[0].range_of(requested[0]).is_none()),
            Err(error @ (Refusal::Store(_) | Refusal::Shared { .. })) => panic!("{error}"),
        }
    }
}

fn two_ranges() -> Pool {
    let one = pool("10.0.0.0/27", "10.0.0.1", "10.0.0.6", &["10.0.0.4"]);
    let two = pool("10.0.0.0/27", "10.0.0.14", "10.0.0.18", &[]);
    Pool::new(
        one.ranges.into_iter().chain(two.ranges).collect(),
        &[Span::single("10.0.0.4".parse().unwrap())],
    )
}

fn on_disk(dir: &Path, test: impl FnOnce(&mut dyn Store)) {
    let lock = NetworkLock::acquire(dir, "net", Duration::ZERO).unwrap();
    let mut opened = Disk::open(&lock, disk::CLOSE_WAIT).unwrap();
    if opened.fresh {
        opened.disk.commit(Change::default()).unwrap();
    }
    test(&mut opened.disk);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn histories_equal_a_plain_map_in_memory(steps in proptest::collection::vec(step(), 0..120)) {
        let (pools, mut model, mut store) = ([two_ranges()], Model::default(), Memory::default());
        model.store_boot = u32::MAX;
        for step in &steps {
            model.apply(&mut store, &pools, step);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn histories_equal_a_plain_map_on_disk(steps in proptest::collection::vec(step(), 0..120)) {
        let (pools, mut model) = ([two_ranges()], Model::default());
        model.store_boot = u32::MAX;
        let dir = tempfile::tempdir().unwrap();
        for part in steps.chunk_by(|_, next| !matches!(next, Step::Reopen)) {
            on_disk(dir.path(), |store| {
                for step in part {
                    model.apply(store, &pools, step);
                }
            });
        }
    }
}

/// What upstream's plugin gave before ours counts, one candidate after the other.
///
/// Rows: RB4
#[test]
fn an_address_that_is_taken_elsewhere_is_passed_over() {
    let mut store = Memory::default();
    let pools = [pool("10.0.0.0/29", "10.0.0.2", "10.0.0.6", &[])];
    let there = |address: IpAddr| {
        let taken =
            ["10.0.0.2", "10.0.0.3", "10.0.0.6"].map(|text| text.parse::<IpAddr>().unwrap());
        let container_id = "old".to_owned();
        taken.contains(&address).then_some(Owner { container_id, ifname: "eth0".into() })
    };
    let now = Now { unix: 1, boot_ms: 1, boot: "boot".into() };
    let mut add = |id: &str, requested: &[IpAddr]| {
        let owner = Owner { container_id: id.into(), ifname: "eth0".into() };
        let ask = Ask {
            pools: &pools,
            requested,
            owner: &owner,
            reuse_delay: Duration::ZERO,
            now: &now,
            elsewhere: &there,
        };
        allocate(&mut store, &ask).map(|grants| grants[0].address.to_string())
    };
    let asked = add("x", &["10.0.0.6".parse().unwrap()]);
    assert!(matches!(asked, Err(Refusal::Taken { .. })), "{asked:?}");
    assert_eq!(add("a", &[]).unwrap(), "10.0.0.4");
    assert_eq!(add("b", &[]).unwrap(), "10.0.0.5");
    assert!(matches!(add("c", &[]), Err(Refusal::Exhausted { .. })));
}
