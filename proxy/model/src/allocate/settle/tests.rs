use std::net::IpAddr;

use super::super::balancer::tests::{World, annotated, balanced, ips, pool, pools};
use super::*;
use crate::{Ingress, LabelSet};

/// A stored service with an address of ours.
fn with(name: &str, created: u64, ip: Option<&str>) -> Service {
    let mut service = balanced(name);
    service.created = created;
    service.ip_families = &[crate::IpFamily::V4];
    if let Some(ip) = ip {
        let ip: IpAddr = ip.parse().unwrap();
        service.ingress = [Ingress { ip: Some(ip), hostname: None, proxy: false }].into();
        service.annotations = [(Service::LB_ALLOCATED, "default")].into_iter().collect();
    }
    service
}

fn settled(pools: &Pools, services: &[Service]) -> Settled {
    let services: Vec<Arc<Service>> = services.iter().cloned().map(Arc::new).collect();
    settle(pools, services.iter(), &[])
}

/// Rows: L-39
#[test]
fn what_has_an_address_is_confirmed_before_anybody_gets_one() {
    let one = pools(&[pool("default", &["192.0.2.1"])]);
    let (holder, waiter) = (with("z", 9, Some("192.0.2.1")), with("a", 1, None));
    for services in [[holder.clone(), waiter.clone()], [waiter, holder]] {
        let result = settled(&one, &services);
        assert_eq!(result.changed, []);
        assert_eq!(result.waiting.len(), 1);
        assert_eq!(&*result.waiting[0].0.name, "a");
    }
    // Of two with one address the older one has it, and the other goes without.
    let (old, young) = (with("z", 1, Some("192.0.2.1")), with("a", 9, Some("192.0.2.1")));
    let result = settled(&one, &[young, old]);
    let [loser] = result.changed.as_slice() else { panic!("{result:?}") };
    assert_eq!((&*loser.key.name, ips(loser).len()), ("a", 0));
    assert_eq!(loser.annotations, LabelSet::default());
    assert!(result.waiting[0].1.starts_with("all V4 addresses"), "{result:?}");
    // Requests come before the rest, though they came later.
    let two = pools(&[pool("default", &["192.0.2.1-192.0.2.2"])]);
    let mut asks = with("asks", 9, None);
    asks.load_balancer_ip = Some("192.0.2.1".parse().unwrap());
    let result = settled(&two, &[with("a", 1, None), asks]);
    let all: Vec<_> = result.changed.iter().map(|one| (&*one.key.name, ips(one))).collect();
    let wanted = [("asks", vec!["192.0.2.1".to_owned()]), ("a", vec!["192.0.2.2".to_owned()])];
    assert_eq!(all, wanted);
}

#[test]
fn what_shares_an_address_still_does_after_a_start() {
    let pools = pools(&[pool("default", &["192.0.2.1-192.0.2.3"])]);
    let mut world = World::default();
    for (name, port) in [("a", 80), ("b", 443), ("c", 80), ("d", 443)] {
        let mut service = annotated(name, &[(Service::LB_SHARING, "k")]);
        service.ports[0].port = port;
        world.apply(&pools, service);
    }
    let of = |world: &World| ["a", "b", "c", "d"].map(|name| world.of(name).concat());
    let before = of(&world);
    assert_eq!(before, ["192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.2"]);
    world.queue.clear();
    world.settle(&pools);
    assert_eq!(of(&world), before);
}

/// A write that fails costs nobody the place in the queue.
#[test]
fn who_is_to_be_given_something_waits_until_it_is_stored() {
    let one = pools(&[pool("default", &["192.0.2.1"])]);
    let services = |holder: bool| -> Vec<Arc<Service>> {
        let all = [with("z", 1, holder.then_some("192.0.2.1")), with("b", 3, None)];
        all.into_iter().map(Arc::new).collect()
    };
    let keys =
        |all: &[ObjectKey]| -> Vec<String> { all.iter().map(|key| key.name.to_string()).collect() };
    let before = settle(&one, services(true).iter(), &[]);
    assert_eq!(keys(&before.queue), ["b"]);
    // The holder is gone, and b is to have the address, which is not stored. An older one comes back.
    let freed = &services(true)[1..];
    let found = settle(&one, freed.iter(), &before.queue);
    assert_eq!((&*found.changed[0].key.name, found.waiting.len()), ("b", 0));
    let again = settle(&one, services(false).iter(), &found.queue);
    assert_eq!(&*again.changed[0].key.name, "b");
    assert_eq!(keys(&again.queue), ["b", "z"]);
    assert_eq!(&*again.waiting[0].0.name, "z");
}
