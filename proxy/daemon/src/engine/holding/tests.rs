use causeway_model::Guarded;
use causeway_model::allocate::AddressRange;
use serde_json::{Value, json};

use super::*;
use crate::state::{HeldAddress, State};
use crate::testing::{self, attach, commit, ip, named, objects};

const V4: &str = "203.0.113.1";
const V6: &str = "2001:db8::1";

fn pools(ranges: &[&str]) -> Vec<BalancerPool> {
    let ranges = ranges.iter().map(|text| AddressRange::parse(text).expect("a range")).collect();
    vec![BalancerPool { ranges, ..BalancerPool::new("default") }]
}

/// A service that has both addresses of the pool.
fn balanced() -> Value {
    json!({ "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "web", "namespace": "default",
                      "annotations": { Service::LB_ALLOCATED: "default" } },
        "spec": { "type": "LoadBalancer", "clusterIPs": ["10.96.0.10", "fd00::10"],
                  "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack",
                  "selector": { "app": "web" }, "ports": [{ "port": 80 }] },
        "status": { "loadBalancer": { "ingress": [{ "ip": V4 }, { "ip": V6 }] } } })
}

struct World {
    state: State,
    pools: Vec<BalancerPool>,
    own: &'static str,
}

impl World {
    /// With a container on node n1.
    fn of(document: &Value) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut state = testing::state(folder.path());
        let mut facts = objects(&document.to_string());
        facts.push(attach("a", "10.0.1.2", "web"));
        commit(&mut state, facts);
        Self { state, pools: pools(&["203.0.113.0/28", "2001:db8::/126"]), own: "n1" }
    }

    fn grounds(&self) -> Grounds<'_> {
        Grounds {
            index: &self.state.index,
            plan: &self.state.plan,
            pools: &self.pools,
            own: self.own,
        }
    }

    fn held(&self) -> Vec<String> {
        let all = self.grounds().addresses(&named("default", "web"));
        all.iter().map(ToString::to_string).collect()
    }
}

#[test]
fn addresses_of_the_pools_are_held() {
    let mut world = World::of(&balanced());
    assert_eq!(world.held(), [V4, V6]);
    world.pools = pools(&["2001:db8::/126"]);
    assert_eq!(world.held(), [V6], "the pool has the other one no longer");
    let mut given = balanced();
    given["metadata"]["annotations"] = json!({});
    assert_eq!(World::of(&given).held(), [""; 0], "a document gave them");
}

/// Whoever applies what `get -o yaml` shows of another cluster writes the mark of an allocation.
#[test]
fn a_mark_alone_makes_no_address_ours() {
    let mut world = World::of(&balanced());
    world.pools = Vec::new();
    assert_eq!(world.held(), [""; 0], "there is no pool");
    world.pools = pools(&["203.0.113.2-203.0.113.9"]);
    assert_eq!(world.held(), [""; 0], "no pool has them");
    let mut world = World::of(&balanced());
    let node = [(ip(V4), "node n2".to_owned())];
    world.state.plan.guard(std::sync::Arc::new(Guarded::new(node, [])));
    assert_eq!(world.held(), [V6], "it is the address of a node");
}

#[test]
fn a_service_without_rules_is_not_answered_for() {
    let mut world = World::of(&balanced());
    // As the reconciler plans one that the kernel refuses, or that is over a limit.
    let key = named("default", "web");
    world.state.plan.update(&[key].into(), &|_| None);
    assert_eq!(world.held(), [""; 0]);
    // Another service has the only port of the address.
    let mut first = balanced();
    first["metadata"]["name"] = "first".into();
    first["spec"]["clusterIPs"] = json!(["10.96.0.9", "fd00::9"]);
    let mut world = World::of(&first);
    commit(&mut world.state, objects(&balanced().to_string()));
    assert_eq!(world.held(), [""; 0]);
}

#[test]
fn an_endpoint_is_ready_with_policy_local_one_of_this_node() {
    let mut world = World::of(&balanced());
    world.own = "n2";
    assert_eq!(world.held(), [V4, V6], "any node brings connections to it");
    let mut local = balanced();
    local["spec"]["externalTrafficPolicy"] = "Local".into();
    let mut world = World::of(&local);
    assert_eq!(world.held(), [V4, V6]);
    world.own = "n2";
    assert_eq!(world.held(), [""; 0]);
    let mut world = World::of(&balanced());
    commit(&mut world.state, vec![testing::detach("a")]);
    assert_eq!(world.held(), [""; 0], "there is none");
    let slice = |ready: bool| {
        json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": "web-1", "namespace": "default",
                          "labels": { "kubernetes.io/service-name": "web" } },
            "addressType": "IPv4", "ports": [{ "port": 80 }],
            "endpoints": [{ "addresses": ["10.0.9.2"], "conditions": { "ready": ready } }] })
    };
    commit(&mut world.state, objects(&slice(false).to_string()));
    assert_eq!(world.held(), [""; 0], "it is not ready");
    commit(&mut world.state, objects(&slice(true).to_string()));
    assert_eq!(world.held(), [V4, V6]);
}

#[test]
fn an_address_of_mode_proxy_is_another_machines() {
    let mut proxied = balanced();
    proxied["status"]["loadBalancer"]["ingress"][0]["ipMode"] = "Proxy".into();
    assert_eq!(World::of(&proxied).held(), [V6]);
}

#[test]
fn the_thread_is_told_of_what_differs_alone() {
    let mut world = World::of(&balanced());
    let mut wanted = BTreeMap::new();
    let key = named("default", "web");
    let other = named("default", "other");
    let all = [&key, &other];
    assert!(renew(&mut wanted, &world.grounds(), all.into_iter()));
    assert_eq!(wanted, [(key.clone(), vec![ip(V4), ip(V6)])].into());
    assert!(!renew(&mut wanted, &world.grounds(), all.into_iter()), "nothing differs");
    assert!(!forget(&mut wanted, &world.grounds()));
    world.pools = pools(&["2001:db8::/126"]);
    assert!(renew(&mut wanted, &world.grounds(), all.into_iter()));
    assert_eq!(wanted[&key], [ip(V6)]);
    world.pools = Vec::new();
    assert!(renew(&mut wanted, &world.grounds(), all.into_iter()));
    assert!(wanted.is_empty());
    wanted.insert(other, vec![ip(V4)]);
    assert!(forget(&mut wanted, &world.grounds()));
}

#[test]
fn problems_are_few_lines_however_many_addresses_have_one() {
    let mut state = AnnounceState::default();
    let held = |reason: &str| HeldAddress {
        interface: None,
        reason: Some(reason.to_owned()),
        broken: true,
        counts: crate::state::HeldCounts::default(),
    };
    state.addresses.insert(ip("203.0.113.1"), held("has one reason"));
    assert_eq!(problems(&state), ["203.0.113.1 has one reason"]);
    for number in 2..200 {
        state.addresses.insert(IpAddr::from([203, 0, 113, number]), held("eth0 is down"));
    }
    let lines = problems(&state);
    let many = lines.iter().find(|line| line.contains("eth0 is down")).expect("it is named");
    assert_eq!(lines.len(), 2);
    assert!(many.starts_with("203.0.113.2, 203.0.113.3") && many.len() < 250, "{many}");
    for number in 0..100 {
        let reason = format!("02:00:00:00:00:{number:02x} on eth0 has this address");
        state.addresses.insert(IpAddr::from([203, 0, 114, number]), held(&reason));
    }
    let lines = problems(&state);
    assert_eq!((lines.len(), &*lines[20]), (21, "82 more problems of announced addresses"));
}
