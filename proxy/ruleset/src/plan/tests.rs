//! What a plan holds, and what a change of it costs.

use std::cell::RefCell;

use causeway_model::{Service, ServiceType, TrafficDistribution};

use super::*;
use crate::testing::{facts, flows, plan, random_history, service, services};

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("default", name)
}

/// Plans a service again as `text` says, `None` if it is empty.
fn update(plan: &mut Plan, name: &str, text: &str) -> Delta {
    let resolve = |_: &ObjectKey| (!text.is_empty()).then(|| service(text));
    plan.update(&BTreeSet::from([key(name)]), &resolve)
}

/// Rows: P90
#[test]
fn i6_any_history_ends_in_the_plan_of_its_end() {
    for seed in 0..300 {
        let steps = random_history(seed);
        let mut before = BTreeMap::new();
        let mut all = Delta::default();
        for (number, step) in steps.iter().enumerate() {
            let mut fresh = Plan::fresh(step.plan.facts.clone(), &step.services);
            fresh.set_containers(step.plan.here.containers.iter().copied());
            assert_eq!(step.plan, fresh, "seed {seed}, step {number}");
            check_delta(&before, step.delta.services.as_slice(), &step.plan);
            check_places(&step.plan);
            all.append(step.delta.clone());
            check_delta(&BTreeMap::new(), &all.services, &step.plan);
            before = step.plan.services.clone();
        }
    }
}

fn check_delta(before: &BTreeMap<ObjectKey, Arc<ServicePlan>>, delta: &[Change], after: &Plan) {
    let mut plans = before.clone();
    for (key, old, new) in delta {
        assert_ne!(old, new, "{key}");
        assert_eq!(plans.get(key), old.as_ref(), "{key}");
        match new {
            Some(new) => plans.insert(key.clone(), Arc::clone(new)),
            None => plans.remove(key),
        };
    }
    assert_eq!(plans, after.services);
    assert!(delta.is_sorted_by(|a, b| a.0 < b.0));
}

/// What the module promises of every plan.
fn check_places(plan: &Plan) {
    let (mut places, mut clusters) = (BTreeSet::new(), BTreeMap::new());
    for (key, service) in &plan.services {
        assert!(!service.ports.is_empty(), "{key}");
        for port in &service.ports {
            clusters.insert(port.vip.0, key);
            for frontend in &port.frontends {
                let family = port.family;
                assert!(places.insert((frontend.at, family, port.protocol)), "{key} {frontend:?}");
            }
        }
    }
    for (at, ..) in places {
        if let At::External(address, _) = at {
            assert_eq!(clusters.get(&address), None, "{at:?}");
        }
    }
}

/// Rows: P1, P2
#[test]
fn services_without_rules_are_not_there() {
    let mut plan = plan(
        "name 172.30.0.1 external-name 80/tcp -> 10.0.1.2:80
         head 172.30.0.2 headless 80/tcp -> 10.0.1.2:80
         none - ext=203.0.113.1 80/tcp:30001 -> 10.0.1.2:80
         else 172.30.0.4 label=service.kubernetes.io/service-proxy-name 80/tcp -> 10.0.1.2:80",
    );
    assert!(plan.services.is_empty());
    update(&mut plan, "else", "else 172.30.0.4 80/tcp -> 10.0.1.2:80");
    flows(&plan, "10.0.9.9 -> 172.30.0.4:80/tcp => 10.0.1.2:80");
    let label = Service::PROXY_NAME;
    let delta =
        update(&mut plan, "else", &format!("else 172.30.0.4 label={label} 80/tcp -> 10.0.1.2:80"));
    assert!(matches!(&delta.services[..], [(_, Some(_), None)]));
    assert_eq!(plan, Plan::new(facts()));
}

/// Rows: P22, P52
#[test]
fn what_a_service_no_longer_has_stops() {
    let mut plan = plan("web 172.30.0.1 ext=203.0.113.1 80/tcp:30001 -> 10.0.1.2:80");
    update(&mut plan, "web", "web 172.30.0.2 80/tcp -> 10.0.1.2:80");
    flows(
        &plan,
        "10.0.9.9     -> 172.30.0.1:80/tcp     => drop
         10.0.9.9     -> 172.30.0.2:80/tcp     => 10.0.1.2:80
         203.0.113.99 -> 203.0.113.1:80/tcp    => pass
         203.0.113.99 -> 192.168.0.1:30001/tcp => pass",
    );
    update(&mut plan, "web", "");
    flows(&plan, "10.0.9.9 -> 172.30.0.2:80/tcp => drop");
}

/// Rows: RH3
#[test]
fn no_service_has_what_nodes_live_on() {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let ports = [22, 30022].map(|port| ((Protocol::Tcp, port), "ssh".to_owned()));
    let guard = |addresses: &[&str]| {
        let node = |text: &&str| (ip(text), "node n2".to_owned());
        Arc::new(Guarded::new(addresses.iter().map(node), ports.clone()))
    };
    let all = "bad  203.0.113.5 ext=203.0.113.7 80/tcp:30001 -> 10.0.1.2:80
         good 172.30.0.1 ext=203.0.113.6 80/tcp:30002 -> 10.0.1.3:80, 22/tcp:30022 -> 10.0.1.3:80
         next 172.30.0.2 ext=203.0.113.7 80/tcp:30001 -> 10.0.1.4:80";
    let resolved = services(all);
    let resolve = |key: &ObjectKey| resolved.get(key).cloned();
    let mut plan = Plan::new(facts());
    assert_eq!(plan.guard(guard(&[])), BTreeSet::new());
    plan.update(&resolved.keys().cloned().collect(), &resolve);
    flows(
        &plan,
        "203.0.113.99 -> 203.0.113.5:80/tcp    => 10.0.1.2:80 masq
         203.0.113.99 -> 192.168.0.1:30001/tcp => 10.0.1.2:80 masq
         203.0.113.99 -> 203.0.113.6:22/tcp    => 10.0.1.3:80 masq
         203.0.113.99 -> 192.168.0.1:30022/tcp => pass",
    );
    // Nodes join: what they need is theirs, and the rest stays usable by services.
    let concerned = plan.guard(guard(&["203.0.113.5", "203.0.113.6"]));
    assert_eq!(concerned, [key("bad"), key("good")].into());
    let delta = plan.update(&concerned, &resolve);
    assert_eq!(delta.services.len(), 3, "{delta:?}");
    let guarded = Plan { ..plan.clone() };
    flows(
        &plan,
        "203.0.113.99 -> 203.0.113.5:80/tcp    => pass
         203.0.113.99 -> 203.0.113.7:80/tcp    => 10.0.1.4:80 masq
         203.0.113.99 -> 192.168.0.1:30001/tcp => 10.0.1.4:80 masq
         203.0.113.99 -> 203.0.113.6:80/tcp    => 10.0.1.3:80 masq
         203.0.113.99 -> 203.0.113.6:22/tcp    => pass",
    );
    let denied: Vec<String> =
        plan.denied().map(|(key, place, why)| format!("{key} {place}: {why}")).collect();
    assert_eq!(denied.len(), 3, "{denied:?}");
    assert!(
        denied[0].starts_with("default/bad 203.0.113.5: 203.0.113.5 is the address of node n2")
    );
    let steps =
        crate::trace::trace(&plan, &crate::testing::packet("10.0.1.2 -> 203.0.113.6:22/tcp"));
    assert!(steps.steps.join(" ").contains("default/good claims"), "{steps:?}");
    // They leave, and come again: the same as before, whatever the order.
    let back = plan.guard(guard(&[]));
    assert_eq!(back, [key("bad"), key("good")].into());
    plan.update(&back, &resolve);
    flows(&plan, "203.0.113.99 -> 203.0.113.5:80/tcp => 10.0.1.2:80 masq");
    let concerned = plan.guard(guard(&["203.0.113.6", "203.0.113.5"]));
    plan.update(&concerned, &resolve);
    assert_eq!(plan, guarded);
}

/// Rows: P69
#[test]
fn a_distribution_without_hints_does_nothing() {
    let mut service = service("web 172.30.0.1 80/tcp -> 10.0.1.2:80@n1%a 10.0.2.2:80@n2%b");
    let mut inner = Service::clone(&service.service);
    inner.traffic_distribution = Some(TrafficDistribution::PreferSameNode);
    service.service = Arc::new(inner);
    let plan = Plan::fresh(facts(), &BTreeMap::from([(key("web"), service)]));
    flows(&plan, "10.0.9.9 -> 172.30.0.1:80/tcp => 10.0.1.2:80 10.0.2.2:80");
}

/// A service cannot take another's traffic by naming its address (CVE-2020-8554).
#[test]
fn whoever_waits_for_a_place_gets_it_when_it_is_free() {
    let all = services(
        "a 172.30.0.1 ext=172.30.0.2 ext=203.0.113.1 80/tcp:30001 -> 10.0.1.1:80
         b 172.30.0.2 ext=203.0.113.1 80/tcp:30001 -> 10.0.1.2:80
         c 172.30.0.2 lb=203.0.113.1 80/tcp:30001 -> 10.0.1.3:80",
    );
    let left = RefCell::new(all);
    let mut plan = Plan::fresh(facts(), &left.borrow());
    flows(
        &plan,
        "10.0.9.9     -> 172.30.0.2:80/tcp     => 10.0.1.2:80
         203.0.113.99 -> 203.0.113.1:80/tcp    => 10.0.1.1:80 masq
         203.0.113.99 -> 192.168.0.1:30001/tcp => 10.0.1.1:80 masq",
    );
    let mut remove = |name: &str| {
        left.borrow_mut().remove(&key(name));
        let resolve = |key: &ObjectKey| left.borrow().get(key).cloned();
        plan.update(&BTreeSet::from([key(name)]), &resolve);
        plan.clone()
    };
    flows(
        &remove("b"),
        "10.0.9.9     -> 172.30.0.2:80/tcp     => 10.0.1.3:80
         203.0.113.99 -> 203.0.113.1:80/tcp    => 10.0.1.1:80 masq
         203.0.113.99 -> 192.168.0.1:30001/tcp => 10.0.1.1:80 masq",
    );
    flows(
        &remove("c"),
        "10.0.9.9     -> 172.30.0.2:80/tcp     => 10.0.1.1:80 masq
         203.0.113.99 -> 192.168.0.1:30001/tcp => 10.0.1.1:80 masq",
    );
    assert_eq!(remove("a"), Plan::new(facts()));
}

/// What was there before and is there after is not a change, whatever was in between.
#[test]
fn a_delta_says_nothing_of_what_came_and_went() {
    let text = "b 172.30.0.1 ext=203.0.113.1 80/tcp -> 10.0.1.2:80";
    let mut plan = plan(text);
    let after = services(
        "b 172.30.0.1 ext=203.0.113.1 ext=203.0.113.2 80/tcp -> 10.0.1.2:80
         c 203.0.113.2 80/tcp -> 10.0.1.3:80",
    );
    let keys = after.keys().cloned().collect();
    let delta = plan.update(&keys, &|key| after.get(key).cloned());
    assert!(matches!(&delta.services[..], [(c, None, Some(_))] if *c == key("c")));
}

/// Rows: P98
#[test]
fn only_what_fits_the_type_makes_frontends() {
    let mut service = service(
        "web 172.30.0.1 lb=203.0.113.1 ext=172.30.0.1 ext=203.0.113.2 80/tcp:30001=a \
         -> 10.0.1.2:80@n1, 81/tcp:0=b -> 10.0.1.2:80@n1",
    );
    let frontends = |resolved: &Resolved| {
        let plan = Plan::fresh(facts(), &BTreeMap::from([(key("web"), resolved.clone())]));
        let ports = plan.services[&key("web")].ports.clone();
        assert!(ports.iter().all(|port| port.local.is_empty()), "no policy reads it");
        let ports = ports.iter().map(|port| port.frontends.iter().map(|frontend| frontend.at));
        ports.map(Iterator::collect).collect::<Vec<Vec<_>>>()
    };
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let cluster = |port| At::Cluster(address("172.30.0.1"), port);
    let external = |last: &str, port| At::External(address(&format!("203.0.113.{last}")), port);
    assert_eq!(
        frontends(&service),
        [
            vec![cluster(80), external("1", 80), external("2", 80), At::NodePort(30001)],
            vec![cluster(81), external("1", 81), external("2", 81)],
        ]
    );
    let mut inner = Service::clone(&service.service);
    inner.service_type = ServiceType::ClusterIp;
    service.service = Arc::new(inner);
    let plain = [vec![cluster(80), external("2", 80)], vec![cluster(81), external("2", 81)]];
    assert_eq!(frontends(&service), plain);
}

#[test]
fn a_range_of_all_is_no_limit() {
    let plan = plan(
        "web 172.30.0.1,fd00:30::1 lb=203.0.113.1 lb=2001:db8::1 allow=0.0.0.0/0 allow=10.0.0.0/8 \
         80/tcp -> 10.0.1.2:80",
    );
    let [v4, v6] = &plan.services[&key("web")].ports[..] else { panic!("two families") };
    assert_eq!(v4.frontends[1].allow, None);
    assert_eq!(v6.frontends[1].allow.as_deref(), Some(&[][..]));
}

#[test]
fn source_ranges_are_disjoint_and_without_host_bits() {
    let plan = plan(
        "web 172.30.0.1,fd00:30::1 lb=203.0.113.1 lb=2001:db8::1 allow=10.1.2.3/16 allow=10.0.0.0/8 \
         allow=10.200.0.0/24 allow=192.168.0.0/30 allow=fd00:192::/64 allow=10.0.0.0/8 \
         80/tcp -> 10.0.1.2:80",
    );
    let allows = |port: &PortPlan| {
        let nets = port.frontends.iter().flat_map(|frontend| &frontend.allow).flatten();
        nets.map(IpNetwork::to_string).collect::<Vec<_>>().join(" ")
    };
    let [v4, v6] = &plan.services[&key("web")].ports[..] else { panic!("two families") };
    assert_eq!(allows(v4), "10.0.0.0/8 192.168.0.0/30 203.0.113.1/32");
    assert_eq!(allows(v6), "2001:db8::1/128 fd00:192::/64");
}

/// Rows: P90
#[test]
fn a_change_looks_at_what_it_concerns_alone() {
    let line = |n: u16| format!("s{n} 172.30.1.{n} ext=203.0.113.{n} 80/tcp -> 10.0.1.{n}:80\n");
    let mut all = services(&(1..=200).map(line).collect::<String>());
    let mut plan = Plan::fresh(facts(), &all);
    let asked = RefCell::new(Vec::new());
    let text = "s7 172.30.1.7 ext=203.0.113.7 ext=203.0.113.9 80/tcp -> 10.0.1.7:80";
    all.insert(key("s7"), service(text));
    let resolve = |key: &ObjectKey| {
        asked.borrow_mut().push(key.name.to_string());
        all.get(key).cloned()
    };
    let delta = plan.update(&BTreeSet::from([key("s7")]), &resolve);
    assert_eq!(asked.take(), ["s7", "s9"]);
    let changed = delta.services.iter().map(|(key, ..)| &*key.name).collect::<Vec<_>>();
    assert_eq!(changed, ["s7", "s9"]);
    let delta = plan.update(&BTreeSet::from([key("s7"), key("s8"), key("s999")]), &resolve);
    assert_eq!(asked.take(), ["s7", "s8", "s999"]);
    assert!(delta.services.is_empty());
}

/// 45,000 services have to fit in little memory.
#[test]
fn parts_of_a_plan_are_small() {
    assert_eq!(size_of::<Target>(), 20);
    assert!(size_of::<Frontend>() <= 40, "{}", size_of::<Frontend>());
    assert!(size_of::<PortPlan>() <= 104, "{}", size_of::<PortPlan>());
}
