use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::super::tests::{both, port, service};
use super::super::{AddressRange, Allocator, settle};
use super::*;
use crate::{Guarded, ObjectKey, Protocol, ServiceType, TrafficPolicy};

pub(in super::super) fn pool(name: &str, ranges: &[&str]) -> BalancerPool {
    let ranges = ranges.iter().map(|text| AddressRange::parse(text).unwrap()).collect();
    BalancerPool { ranges, ..BalancerPool::new(name) }
}

pub(in super::super) fn pools(balancers: &[BalancerPool]) -> Pools {
    Pools { balancers: balancers.to_vec(), ..both() }
}

/// Two addresses.
fn two() -> Pools {
    pools(&[pool("default", &["192.0.2.1-192.0.2.2"])])
}

pub(in super::super) fn balanced(name: &str) -> Service {
    service(name, ServiceType::LoadBalancer)
}

pub(in super::super) fn annotated(name: &str, annotations: &[(&str, &str)]) -> Service {
    let mut service = balanced(name);
    service.annotations = annotations.iter().copied().collect();
    service
}

pub(in super::super) fn ips(service: &Service) -> Vec<String> {
    addresses(service).map(|ip| ip.to_string()).collect()
}

/// Stored services, as a daemon keeps them.
#[derive(Default)]
pub(in super::super) struct World {
    allocator: Allocator,
    pub(in super::super) stored: BTreeMap<ObjectKey, Arc<Service>>,
    pub(in super::super) waiting: Vec<(ObjectKey, String)>,
    pub(in super::super) queue: Vec<ObjectKey>,
    clock: u64,
}

impl World {
    /// Applies a document and settles. Addresses, or why there are none.
    pub(in super::super) fn apply(&mut self, pools: &Pools, mut wanted: Service) -> Vec<String> {
        let key = wanted.key.clone();
        self.clock += 1;
        wanted.created = self.clock;
        let previous = self.stored.get(&key);
        let (service, _) =
            self.allocator.complete(pools, wanted, previous.map(|one| &**one)).unwrap();
        self.put(service);
        self.settle(pools);
        self.answer(&key)
    }

    pub(in super::super) fn delete(&mut self, pools: &Pools, name: &str) {
        let key = ObjectKey::new("default", name);
        self.allocator.release(&key);
        self.stored.remove(&key);
        self.settle(pools);
    }

    pub(in super::super) fn put(&mut self, service: Service) {
        self.allocator.claim(&service);
        self.stored.insert(service.key.clone(), Arc::new(service));
    }

    pub(in super::super) fn settle(&mut self, pools: &Pools) {
        let settled = settle(pools, self.stored.values(), &self.queue);
        settled.changed.into_iter().for_each(|service| self.put(service));
        (self.waiting, self.queue) = (settled.waiting, settled.queue);
        let keys = self.waiting.iter().map(|(key, _)| key.clone()).collect();
        self.allocator.settled(pools, keys, Standing::Settled);
    }

    pub(in super::super) fn answer(&self, key: &ObjectKey) -> Vec<String> {
        let why = self.waiting.iter().filter(|(other, _)| other == key).map(|(_, why)| why.clone());
        ips(&self.stored[key]).into_iter().chain(why).collect()
    }

    pub(in super::super) fn of(&self, name: &str) -> Vec<String> {
        self.answer(&ObjectKey::new("default", name))
    }
}

const FULL: &str = "all V4 addresses of pool default are in use; extend it, or delete a service";

#[test]
fn the_lowest_free_goes_out_and_a_freed_one_to_whoever_waits_longest() {
    let (pools, mut world) = (two(), World::default());
    assert_eq!(world.apply(&pools, balanced("z")), ["192.0.2.1"]);
    assert_eq!(world.apply(&pools, balanced("y")), ["192.0.2.2"]);
    assert_eq!(world.apply(&pools, balanced("x")), [FULL]);
    assert_eq!(world.apply(&pools, balanced("a")), [FULL]);
    // Applied again, it has not waited less.
    assert_eq!(world.apply(&pools, balanced("x")), [FULL]);
    world.delete(&pools, "z");
    assert_eq!((world.of("x"), world.of("a")), (vec!["192.0.2.1".into()], vec![FULL.into()]));
    // A change of type frees it as well.
    world.apply(&pools, service("y", ServiceType::NodePort));
    assert_eq!(world.of("a"), ["192.0.2.2"]);
    assert_eq!(world.of("y"), [""; 0]);
    assert!(!is_allocated(&world.stored[&ObjectKey::new("default", "y")]));
}

/// All services are looked at again only when one that waits may get an address.
#[test]
fn services_are_looked_at_again_when_one_that_waits_may_get_an_address() {
    let (pools, mut world) = (two(), World::default());
    let sharing = |name: &str, number: u16| {
        let mut service = annotated(name, &[(Service::LB_SHARING, "k")]);
        service.ports = [port(Protocol::Tcp, number, None)].into();
        service
    };
    world.apply(&pools, sharing("a", 80));
    let mut prefers = balanced("prefers");
    prefers.ip_family_policy = IpFamilyPolicy::PreferDualStack;
    assert_eq!(world.apply(&pools, prefers.clone()), ["192.0.2.2"]);
    let stands = |world: &mut World, service: Service| {
        let previous = world.stored.get(&service.key).cloned();
        let (service, _) = world.allocator.complete(&pools, service, previous.as_deref()).unwrap();
        world.put(service);
        let standing = world.allocator.standing();
        world.settle(&pools);
        standing
    };
    // Nobody waits, and no pool has addresses of the family that it lacks.
    let labelled = |service: &Service, value: &str| Service {
        labels: [("label", value)].into_iter().collect(),
        ..service.clone()
    };
    assert_eq!(stands(&mut world, labelled(&prefers, "x")), Standing::Settled);
    assert_eq!(stands(&mut world, sharing("a", 81)), Standing::Settled);
    assert_eq!(stands(&mut world, balanced("waits")), Standing::Unsettled);
    // One waits, and nobody has left an address.
    assert_eq!(stands(&mut world, labelled(&prefers, "y")), Standing::Settled);
    let all: Vec<_> = world.stored.values().cloned().collect();
    let has = |one: &&Arc<Service>| !one.ingress.is_empty();
    all.iter().filter(has).for_each(|one| world.allocator.release(&one.key));
    all.iter().filter(has).for_each(|one| world.allocator.claim(one));
    assert_eq!(world.allocator.standing(), Standing::Settled, "as a cluster store shows them");
    // Others may share the address with another port of it.
    assert_eq!(stands(&mut world, sharing("a", 82)), Standing::Unsettled);
    let slip = annotated("prefers", &[(Service::LB_ADDRESSES, "any")]);
    assert_eq!(stands(&mut world, slip.clone()), Standing::Unsettled);
    assert_eq!(world.waiting.len(), 2);
    assert_eq!(stands(&mut world, prefers.clone()), Standing::Unsettled, "it waits no longer");
    assert_eq!(world.waiting.len(), 1);
    world.allocator.release(&prefers.key);
    assert_eq!(world.allocator.standing(), Standing::Unsettled);
}

/// Rows: L-04
#[test]
fn an_address_stays_whatever_comes_and_whatever_order_pools_are_in() {
    let (low, high) = (pool("low", &["192.0.2.1-192.0.2.2"]), pool("high", &["192.0.2.8/29"]));
    let mut world = World::default();
    let before = pools(&[high.clone(), low.clone()]);
    assert_eq!(world.apply(&before, balanced("a")), ["192.0.2.8"]);
    assert_eq!(world.apply(&before, balanced("b")), ["192.0.2.9"]);
    world.delete(&before, "a");
    let after = pools(&[low, high]);
    // A start: all is claimed anew.
    let mut again = World { stored: world.stored.clone(), ..World::default() };
    again.stored.values().for_each(|service| again.allocator.claim(service));
    again.settle(&after);
    assert_eq!(again.of("b"), ["192.0.2.9"]);
    assert_eq!(again.apply(&after, balanced("b")), ["192.0.2.9"], "the document is silent");
    again.delete(&after, "b");
    assert_eq!(again.apply(&after, balanced("b")), ["192.0.2.1"], "it was freed");
}

#[test]
fn a_service_applied_from_what_get_shows_keeps_its_address() {
    let (pools, mut world) = (two(), World::default());
    world.apply(&pools, balanced("a"));
    let shown = world.stored[&ObjectKey::new("default", "a")].as_ref().clone();
    assert_eq!(shown.annotations.get(Service::LB_ALLOCATED), Some("default"));
    assert_eq!(world.apply(&pools, shown.clone()), ["192.0.2.1"]);
    // Without our annotation, too; and into a store that is empty.
    let plain = Service { annotations: crate::LabelSet::default(), ..shown.clone() };
    assert_eq!(world.apply(&pools, plain), ["192.0.2.1"]);
    let mut other = World::default();
    other.apply(&pools, balanced("b"));
    other.delete(&pools, "b");
    let second = Service { ingress: [ingress("192.0.2.2")].into(), ..shown };
    assert_eq!(other.apply(&pools, second), ["192.0.2.2"]);
}

fn ingress(ip: &str) -> Ingress {
    Ingress { ip: Some(ip.parse().unwrap()), hostname: None, proxy: false }
}

#[test]
fn what_a_document_gives_is_honoured_and_not_given_away() {
    let (pools, mut world) = (two(), World::default());
    let mut given = balanced("given");
    given.ingress = [ingress("192.0.2.1")].into();
    assert_eq!(world.apply(&pools, given.clone()), ["192.0.2.1"]);
    assert_eq!(world.apply(&pools, balanced("a")), ["192.0.2.2"]);
    // Another document may give it as well.
    let twin = Service { key: ObjectKey::new("default", "twin"), ..given.clone() };
    assert_eq!(world.apply(&pools, twin), ["192.0.2.1"]);
    world.delete(&pools, "twin");
    world.delete(&pools, "a");
    given.ingress = [ingress("192.0.2.2")].into();
    assert_eq!(world.apply(&pools, given.clone()), ["192.0.2.2"]);
    // Given none any more, it is one of ours.
    assert_eq!(world.apply(&pools, balanced("given")), ["192.0.2.1"]);
    assert!(is_allocated(&world.stored[&given.key]));
    let mut foreign = balanced("foreign");
    foreign.load_balancer_class = Some("example.com/lb".into());
    assert_eq!(world.apply(&pools, foreign), [""; 0]);
    let mut ours = balanced("given");
    ours.load_balancer_class = Some(Service::LB_CLASS.into());
    assert_eq!(world.apply(&pools, ours), ["192.0.2.1"]);
}

#[test]
fn a_document_takes_no_address_from_a_service_that_has_it_of_a_pool() {
    let (pools, mut world) = (two(), World::default());
    assert_eq!(world.apply(&pools, annotated("a", &[(Service::LB_SHARING, "k")])), ["192.0.2.1"]);
    let mut given = annotated("given", &[(Service::LB_SHARING, "k")]);
    given.ports = [port(Protocol::Tcp, 443, None)].into();
    given.ingress = [ingress("192.0.2.9"), ingress("192.0.2.1")].into();
    let refusal = world.allocator.complete(&pools, given.clone(), None).unwrap_err();
    assert_eq!(refusal.field, "status.loadBalancer.ingress[1].ip");
    let reason = "service default/a has 192.0.2.1 of a pool; give another address, or delete that \
                  service first";
    assert_eq!(refusal.reason, reason);
    // What stands is no new request.
    world.put(given.clone());
    let stored = Service { labels: [("x", "y")].into_iter().collect(), ..given.clone() };
    assert!(world.allocator.complete(&pools, stored, Some(&given)).is_ok());
    world.delete(&pools, "given");
    world.delete(&pools, "a");
    assert_eq!(world.apply(&pools, given), ["192.0.2.9", "192.0.2.1"]);
}

#[test]
fn a_wish_that_cannot_be_read_takes_nothing_away() {
    let (pools, mut world) = (two(), World::default());
    world.apply(&pools, balanced("z"));
    assert_eq!(world.apply(&pools, balanced("a")), ["192.0.2.2"]);
    let slip = annotated("a", &[(Service::LB_ADDRESSES, "192.0.2.2.")]);
    let why =
        "annotation causeway.io/load-balancer-ips: \"192.0.2.2.\" is not an IP address; fix it";
    assert_eq!(world.apply(&pools, slip), ["192.0.2.2", why]);
    // A start keeps it, too, and who has none gets none until it is put right.
    world.settle(&pools);
    assert_eq!(world.of("a"), ["192.0.2.2", why]);
    world.delete(&pools, "z");
    let new = annotated("new", &[(Service::LB_ADDRESSES, "any")]);
    assert!(world.apply(&pools, new)[0].contains("is not an IP address"));
    assert_eq!(world.apply(&pools, balanced("new")), ["192.0.2.1"]);
    assert_eq!(world.apply(&pools, balanced("a")), ["192.0.2.2"]);
}

/// Rows: L-03
#[test]
fn requests_are_for_addresses_and_pools() {
    let pools = pools(&[
        pool("low", &["192.0.2.1-192.0.2.2"]),
        BalancerPool { auto_assign: false, ..pool("high", &["192.0.2.8/29", "2001:db8::/126"]) },
    ]);
    let mut world = World::default();
    let mut field = balanced("field");
    field.load_balancer_ip = Some("192.0.2.2".parse().unwrap());
    assert_eq!(world.apply(&pools, field), ["192.0.2.2"]);
    let ask = |name: &str, key: &str, value: &str| annotated(name, &[(key, value)]);
    let metallb = ask("metallb", "metallb.io/loadBalancerIPs", "192.0.2.9");
    assert_eq!(world.apply(&pools, metallb), ["192.0.2.9"]);
    let old = ask("old", "metallb.universe.tf/loadBalancerIPs", "192.0.2.9");
    assert_eq!(world.apply(&pools, old), ["it asks for 192.0.2.9: service default/metallb has it"]);
    world.delete(&pools, "metallb");
    assert_eq!(world.of("old"), ["192.0.2.9"]);

    let high = ask("pool", Service::LB_POOL, "high");
    assert_eq!(world.apply(&pools, high), ["192.0.2.8"]);
    // Another pool than before is another address.
    let low = ask("pool", "metallb.io/address-pool", "low");
    assert_eq!(world.apply(&pools, low), ["192.0.2.1"]);

    let mut wrong = ask("wrong", Service::LB_POOL, "low");
    wrong.load_balancer_ip = Some("192.0.2.10".parse().unwrap());
    let why = "it asks for 192.0.2.10: it is in pool high, and it asks for pool low, too";
    assert_eq!(world.apply(&pools, wrong), [why]);
    let none = ask("wrong", Service::LB_ADDRESSES, "203.0.113.1");
    let why = "it asks for 203.0.113.1: no pool has it; choose another address or extend a pool";
    assert_eq!(world.apply(&pools, none), [why]);
    let none = ask("wrong", Service::LB_POOL, "middle");
    assert_eq!(
        world.apply(&pools, none),
        ["it asks for pool middle, and there are only: low, high"]
    );
    for (text, part) in [
        ("192.0.2", "is not an IP address"),
        ("192.0.2.1,192.0.2.2", "has two addresses of one IP family"),
        ("2001:db8::1", "has no V6 in spec.ipFamilies"),
    ] {
        let why = world.apply(&pools, ask("wrong", Service::LB_ADDRESSES, text));
        assert!(why.len() == 1 && why[0].contains(part), "{why:?}");
    }
    let mut two = ask("wrong", Service::LB_ADDRESSES, "192.0.2.12");
    two.load_balancer_ip = Some("192.0.2.13".parse().unwrap());
    assert!(world.apply(&pools, two)[0].contains("; keep one"));
    let mut dual = ask("dual", Service::LB_ADDRESSES, "2001:db8::2, 192.0.2.10");
    dual.ip_family_policy = IpFamilyPolicy::RequireDualStack;
    assert_eq!(world.apply(&pools, dual), ["192.0.2.10", "2001:db8::2"]);
}

#[test]
fn each_family_of_a_service_has_an_address_if_pools_do() {
    let four = pools(&[pool("four", &["192.0.2.1-192.0.2.2"])]);
    let both = pools(&[pool("four", &["192.0.2.1-192.0.2.2"]), pool("six", &["2001:db8::/127"])]);
    let mut world = World::default();
    let dual = |name: &str, policy| {
        let mut service = balanced(name);
        service.ip_family_policy = policy;
        service
    };
    let prefer = dual("prefer", IpFamilyPolicy::PreferDualStack);
    assert_eq!(world.apply(&four, prefer.clone()), ["192.0.2.1"]);
    let require = dual("require", IpFamilyPolicy::RequireDualStack);
    assert_eq!(world.apply(&four, require.clone()), ["no pool has V6 addresses"]);
    // What comes later is added, and what was there stays.
    world.settle(&both);
    assert_eq!(world.of("require"), ["192.0.2.2", "2001:db8::"], "it could not do without");
    assert_eq!(world.of("prefer"), ["192.0.2.1", "2001:db8::1"]);
    let mark = world.stored[&prefer.key].annotations.get(Service::LB_ALLOCATED);
    assert_eq!(mark, Some("four,six"));
    let mut six = balanced("six");
    six.ip_families = &[IpFamily::V6];
    assert!(world.apply(&both, six)[0].starts_with("all V6 addresses of pool six are in use"));
}

/// Rows: L-05
#[test]
fn services_of_one_key_share_an_address_if_nothing_clashes() {
    let pools = two();
    let mut world = World::default();
    let shared = |name: &str, number: u16, key: &str| {
        let mut service = annotated(name, &[(Service::LB_SHARING, key)]);
        service.ports = [port(Protocol::Tcp, number, None)].into();
        service
    };
    assert_eq!(world.apply(&pools, shared("web", 80, "k")), ["192.0.2.1"]);
    let mut metallb = shared("tls", 443, "k");
    metallb.annotations = [("metallb.io/allow-shared-ip", "k")].into_iter().collect();
    assert_eq!(world.apply(&pools, metallb), ["192.0.2.1"], "company comes first");
    let mut udp = shared("udp", 80, "k");
    udp.ports = [port(Protocol::Udp, 80, None)].into();
    assert_eq!(world.apply(&pools, udp), ["192.0.2.1"], "another protocol is another port");
    assert_eq!(world.apply(&pools, shared("again", 80, "k")), ["192.0.2.2"], "its port is taken");
    let ask = |mut service: Service| {
        service.load_balancer_ip = Some("192.0.2.1".parse().unwrap());
        service
    };
    let why = world.apply(&pools, ask(shared("port", 443, "k")));
    let wanted = "it asks for 192.0.2.1: service default/tls shares it and has port 443/TCP, too";
    assert_eq!(why, [wanted]);
    let why = world.apply(&pools, ask(shared("other", 81, "another")));
    assert!(why[0].contains(" has it"), "{why:?}");
    let why = world.apply(&pools, ask(balanced("none")));
    assert!(why[0].contains(" has it"), "{why:?}");
    let mut local = shared("local", 82, "k");
    local.external_policy = TrafficPolicy::Local;
    let why = world.apply(&pools, ask(local.clone()));
    assert!(why[0].contains("both need the same selector"), "{why:?}");
    // Of the same pods they may.
    for name in ["web", "tls", "udp", "again"] {
        world.delete(&pools, name);
    }
    for name in ["port", "other", "none"] {
        world.delete(&pools, name);
    }
    assert_eq!(world.of("local"), ["192.0.2.1"]);
    local.selector = [("app", "web")].into_iter().collect();
    world.apply(&pools, ask(local.clone()));
    let mut same = shared("same", 83, "k");
    assert_eq!(world.apply(&pools, same.clone()), ["192.0.2.2"], "not the same pods");
    same.selector = local.selector;
    assert_eq!(world.apply(&pools, ask(same)), ["192.0.2.1"]);
}

/// Rows: L-01
#[test]
fn pools_have_ranges_and_are_open_to_some() {
    let pinned = BalancerPool {
        namespaces: vec!["prod".into()],
        ..pool("pinned", &["198.51.100.0-198.51.100.9"])
    };
    let labelled = BalancerPool {
        selectors: vec![[("tier".into(), "a".into())].into(), [("tier".into(), "b".into())].into()],
        ..pool("labelled", &["203.0.113.0/30"])
    };
    let last = BalancerPool { priority: 0, ..pool("last", &["192.0.2.16/28"]) };
    let second = BalancerPool { priority: 2, ..pool("second", &["192.0.2.1"]) };
    let first = BalancerPool {
        priority: 1,
        avoid_buggy_ips: true,
        ..pool("first", &["192.0.2.255-192.0.3.0", "10.0.0.0-10.0.0.1"])
    };
    let asked = BalancerPool { auto_assign: false, ..pool("asked", &["192.0.2.64/26"]) };
    let pools = pools(&[asked, last, second, first, labelled, pinned]);
    pools.check_balancers().unwrap();
    let mut world = World::default();
    let all = ["a", "b", "c"].map(|name| world.apply(&pools, balanced(name)).concat());
    assert_eq!(all, ["10.0.0.1", "192.0.2.1", "192.0.2.16"]);
    let mut tier = balanced("tier");
    tier.labels = [("tier", "b")].into_iter().collect();
    assert_eq!(world.apply(&pools, tier), ["203.0.113.0"]);
    let mut prod = balanced("d");
    prod.key = ObjectKey::new("prod", "d");
    assert_eq!(world.apply(&pools, prod), ["198.51.100.0"]);
    let closed = annotated("closed", &[(Service::LB_POOL, "pinned")]);
    let why = "pool pinned is not open to it; see the pool's namespaces and selectors";
    assert_eq!(world.apply(&pools, closed), [why]);
    assert_eq!(world.apply(&pools, annotated("e", &[(Service::LB_POOL, "asked")])), ["192.0.2.64"]);
    let used = world.allocator.pool_use(&pools);
    let used: Vec<_> = used.iter().map(|one| (one.name.as_str(), one.size, one.used)).collect();
    let wanted = [
        ("asked", 64, 1),
        ("last", 16, 1),
        ("second", 1, 1),
        ("first", 1, 1),
        ("labelled", 4, 1),
        ("pinned", 10, 1),
    ];
    assert_eq!(used, wanted);
}

#[test]
fn ranges_are_read_and_counted() {
    for (text, wanted) in [
        ("192.0.2.240/28", "192.0.2.240-192.0.2.255"),
        ("192.0.2.1 - 192.0.2.9", "192.0.2.1-192.0.2.9"),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::/64", "2001:db8::-2001:db8::ffff:ffff:ffff:ffff"),
    ] {
        assert_eq!(AddressRange::parse(text).unwrap().to_string(), wanted);
    }
    for (text, part) in [
        ("192.0.2.1/24", "has host bits set; write 192.0.2.0/24"),
        ("192.0.2.9-192.0.2.1", "does not lead from an address to a higher one"),
        ("192.0.2.9-2001:db8::1", "does not lead"),
        ("pool", "not addresses; write a network such as"),
        ("192.0.2.0/33", "not a network"),
        ("127.0.0.0/8", "contains a loopback address"),
        ("0.0.0.0/0", "contains the unspecified address"),
        ("fe80::1-fe80::9", "contains a link-local address"),
    ] {
        let why = AddressRange::parse(text).unwrap_err();
        assert!(why.contains(part), "{text}: {why}");
    }
    let avoid = |text: &str| BalancerPool { avoid_buggy_ips: true, ..pool("p", &[text]) }.size();
    assert_eq!(
        (avoid("10.0.0.0/23"), avoid("10.0.0.255"), avoid("10.0.0.1-10.0.1.0")),
        (508, 0, 254)
    );
    assert_eq!(avoid("2001:db8::/120"), 256);
}

/// The pure half of a refusal at start.
#[test]
fn pools_that_overlap_anything_are_refused() {
    let refused = |pools: &[BalancerPool], part: &str| {
        let mut all = Pools { balancers: pools.to_vec(), ..both() };
        all.neighbours = vec![
            ("10.0.0.0/16".parse().unwrap(), "the cluster network".to_owned()),
            ("172.18.0.2/32".parse().unwrap(), "the address of this node".to_owned()),
        ];
        let why = all.check_balancers().unwrap_err();
        assert!(why.contains(part), "{why}");
    };
    let one = pool("one", &["192.0.2.0/28"]);
    refused(
        &[one.clone(), pool("two", &["192.0.2.15-192.0.2.20"])],
        "pool two: 192.0.2.15-192.0.2.20 overlaps 192.0.2.0-192.0.2.15 of pool one: choose",
    );
    refused(&[pool("one", &["192.0.2.0/28", "192.0.2.4"])], "of pool one");
    refused(&[one, pool("one", &["192.0.2.64/28"])], "there are two of this name");
    refused(&[pool("one", &["10.96.1.0/24"])], "overlaps 10.96.0.0/16, the service network");
    refused(&[pool("one", &["10.0.0.9"])], "overlaps 10.0.0.0/16, the cluster network");
    refused(
        &[pool("one", &["172.18.0.0/24"])],
        "172.18.0.0-172.18.0.255 overlaps 172.18.0.2, the address of this node",
    );
    refused(&[pool("one", &[])], "has no addresses");
}

#[test]
fn addresses_of_nodes_are_passed_over() {
    let mut pools = two();
    let node = [("192.0.2.1".parse().unwrap(), "node n2".to_owned())];
    pools.guarded = Arc::new(Guarded::new(node, []));
    let mut world = World::default();
    assert_eq!(world.apply(&pools, balanced("a")), ["192.0.2.2"]);
    let ask = annotated("b", &[(Service::LB_ADDRESSES, "192.0.2.1")]);
    assert_eq!(world.apply(&pools, ask), ["it asks for 192.0.2.1: it is the address of node n2"]);
}

#[test]
fn without_pools_nothing_is_given_and_nothing_taken() {
    let (pools, none, mut world) = (two(), both(), World::default());
    world.apply(&pools, balanced("a"));
    world.settle(&none);
    assert_eq!(world.apply(&none, balanced("a")), ["192.0.2.1"]);
    let why = world.apply(&none, balanced("b"));
    assert!(why[0].starts_with("there is no pool of load balancer addresses: set --lb-pool"));
}

/// Whoever writes the mark of an allocation into a document makes no allocation of it.
#[test]
fn without_pools_a_mark_that_a_document_brings_is_dropped() {
    let (none, mut world) = (both(), World::default());
    let mut marked = annotated("a", &[(Service::LB_ALLOCATED, "default"), ("other", "stays")]);
    marked.ingress = [ingress("192.0.2.1")].into();
    for _ in 0..2 {
        assert_eq!(world.apply(&none, marked.clone()), ["192.0.2.1"], "it is honoured");
        let stored = &world.stored[&marked.key];
        let wanted = [("other", "stays")].into_iter().collect();
        assert_eq!(stored.annotations, wanted);
        assert_eq!(super::super::claims(stored).iter().find(|one| one.contains("bal")), None);
    }
}

#[test]
fn an_address_that_is_in_some_open_pool_stays() {
    let mut world = World::default();
    let before = pools(&[pool("default", &["192.0.2.10-192.0.2.12"])]);
    for name in ["a", "b", "c"] {
        world.apply(&before, balanced(name));
    }
    world.apply(&before, annotated("c", &[(Service::LB_POOL, "default")]));
    let of = |world: &World| ["a", "b", "c"].map(|name| world.of(name).concat());
    let all = ["192.0.2.10", "192.0.2.11", "192.0.2.12"];
    assert_eq!(of(&world), all);
    for after in [
        pools(&[pool("default", &["192.0.2.1-192.0.2.12"])]),
        pools(&[pool("renamed", &["192.0.2.0/26"])]),
        pools(&[pool("x", &["192.0.2.1-192.0.2.11"]), pool("y", &["192.0.2.12-192.0.2.13"])]),
    ] {
        world.settle(&after);
        assert_eq!(of(&world), all);
    }
    // The one that is in none any more is the only one that moves.
    world.settle(&pools(&[pool("x", &["192.0.2.1-192.0.2.10", "192.0.2.12"])]));
    assert_eq!(of(&world), ["192.0.2.10", "192.0.2.1", "192.0.2.12"]);
}

#[test]
fn claims_are_of_the_address_or_of_its_ports() {
    let (pools, mut world) = (two(), World::default());
    world.apply(&pools, balanced("a"));
    world.apply(&pools, annotated("b", &[(Service::LB_SHARING, "k")]));
    let claims = |name: &str| super::super::claims(&world.stored[&ObjectKey::new("default", name)]);
    assert!(claims("a").contains(&"balancer/192.0.2.1".to_owned()), "{:?}", claims("a"));
    assert!(claims("b").contains(&"balancer/192.0.2.2/tcp/80".to_owned()), "{:?}", claims("b"));
    let mut given = balanced("c");
    given.ingress = [ingress("192.0.2.9")].into();
    assert_eq!(super::super::claims(&given), [""; 0]);
}

proptest! {
    /// Whatever comes and goes, no two have an address that may not share it, each is of a pool,
    /// nobody waits for what is free, and a start changes nothing.
    #[test]
    fn nothing_is_given_twice(
        history in prop::collection::vec((0u8..8, any::<[bool; 4]>(), 0u8..3), 1..50),
    ) {
        let pools = pools(&[pool("default", &["192.0.2.1-192.0.2.3", "2001:db8::1-2001:db8::2"])]);
        let mut world = World::default();
        for (name, is, number) in history {
            let name = format!("s{name}");
            if is[0] {
                world.delete(&pools, &name);
                continue;
            }
            let mut wanted = balanced(&name);
            wanted.ports = [port(Protocol::Tcp, 80 + u16::from(number), None)].into();
            if is[1] {
                wanted.annotations = [(Service::LB_SHARING, "k")].into_iter().collect();
            }
            if is[2] {
                wanted.ip_family_policy = IpFamilyPolicy::PreferDualStack;
            }
            if is[3] {
                wanted.load_balancer_ip = Some(IpAddr::from([192, 0, 2, 1 + number]));
            }
            world.apply(&pools, wanted);
            let mut taken = BTreeSet::new();
            for service in world.stored.values() {
                for ip in addresses(service) {
                    prop_assert!(pools.balancers[0].has(ip));
                }
                for claim in super::super::claims(service) {
                    let is_lb = claim.starts_with("balancer/");
                    prop_assert!(!is_lb || taken.insert(claim.clone()), "{claim}");
                }
            }
            let users = |ip: &str| {
                let ip: IpAddr = ip.parse().unwrap();
                world.stored.values().filter(|one| addresses(one).any(|other| other == ip)).count()
            };
            let has_free = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].iter().any(|ip| users(ip) == 0);
            let waits = world.waiting.iter().any(|(_, why)| why.contains("all V4"));
            prop_assert!(!(has_free && waits), "{:?}", world.waiting);
            let again = settle(&pools, world.stored.values(), &world.queue);
            prop_assert_eq!(&again.changed, &[]);
            let keys = |all: &[(ObjectKey, String)]| -> Vec<ObjectKey> {
                all.iter().map(|(key, _)| key.clone()).collect()
            };
            prop_assert_eq!(keys(&again.waiting), keys(&world.waiting));
        }
    }
}
