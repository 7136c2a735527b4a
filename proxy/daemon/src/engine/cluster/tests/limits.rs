//! Objects over the limits, and services that the kernel refuses: they are left out by name, and all
//! others go on.

use causeway_api::AppliedOutcome;
use causeway_source::Origin;
use causeway_source::cluster::Change;
use serde_json::{Value, json};

use super::world::{World, at, key, outcomes, service, stored, test_without_rules as test, view};
use crate::backend::Backend;
use crate::clock;
use crate::config::StoreKind;

/// A slice of the service `web` with so many endpoints.
fn slice(name: &str, endpoints: usize) -> Value {
    let address =
        |number: usize| format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255);
    // As many as Kubernetes takes in one.
    let each = endpoints.div_ceil(1000).max(1);
    let all: Vec<String> = (1 << 16..(1 << 16) + endpoints).map(address).collect();
    let endpoints: Vec<Value> = all.chunks(each).map(|some| json!({ "addresses": some })).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": name, "namespace": "default",
                      "labels": { "kubernetes.io/service-name": "web" } },
        "ports": [{ "port": 80 }], "endpoints": endpoints,
    })
}

/// A service with so many ports and, beside its cluster address, external ones.
fn wide(name: &str, ports: usize, addresses: usize) -> Value {
    let mut service = service(name);
    let port = |number: usize| json!({ "name": format!("p{number}"), "port": number });
    let external = |number: usize| format!("203.0.{}.{}", number >> 8, number & 255);
    service["spec"]["ports"] = (1..=ports).map(port).collect();
    service["spec"]["externalIPs"] = (1..=addresses).map(external).collect();
    service
}

fn planned(world: &World, service: &str) -> Option<usize> {
    let plan = world.engine.state.plan.services.get(&key(service))?;
    Some(plan.ports[0].cluster.len())
}

/// Takes attempts until there is nothing more to do at once.
fn settle(world: &mut World) {
    world.engine.commit();
    while world.engine.reconciler.is_searching() {
        world.engine.commit();
    }
    world.engine.commit();
}

/// Rows: RH6
#[test]
fn what_is_over_the_limits_in_the_store_is_left_out_and_named() {
    test(|mut world| {
        world.connect(view(&["n1"]), false);
        let object = |value: &Value| Change::Object(stored(value, Origin::Api));
        let given = |mut service: Value, address: &str| {
            service["spec"]["clusterIP"] = json!(address);
            service
        };
        let large = given(wide("large", 10_001, 0), "10.96.0.77");
        let square = |ports| given(wide("square", ports, 1000), "10.96.0.78");
        world.changed(vec![
            object(&at("web", "10.96.0.9")),
            object(&at("good", "10.96.0.10")),
            object(&slice("a", 65_535)),
            object(&slice("b", 2)),
            object(&large),
            object(&square(1000)),
        ]);
        let degraded = world.degraded();
        assert_eq!(planned(&world, "web"), Some(65_535), "{degraded}");
        assert_eq!(planned(&world, "good"), Some(0), "{degraded}");
        assert_eq!((planned(&world, "large"), planned(&world, "square")), (None, None));
        for text in [
            "default/web: endpointslice b is left out: the service would have 65537 endpoints",
            "default/large: has no rules: the service has 10001 ports, and 10000 are possible",
            "default/square: has no rules: the ports, addresses and endpoints of the service \
             multiply to 1001000",
        ] {
            assert!(degraded.contains(text), "{text}: {degraded}");
        }
        // They can be deleted and made smaller.
        let mut gone = world.delete("large");
        let write = world.written();
        world.accept(write);
        assert_eq!(outcomes(&mut gone), [AppliedOutcome::Deleted]);
        world.changed(vec![object(&slice("a", 65_533)), object(&square(9))]);
        assert_eq!(planned(&world, "web"), Some(65_533), "the same addresses are in both");
        assert_eq!(planned(&world, "square"), Some(0));
        assert!(!world.degraded().contains("left out"), "{}", world.degraded());
    });
}

/// Rows: RH6
#[test]
fn what_would_be_over_the_limits_is_refused_before_it_is_stored() {
    test(|world| {
        let mut world = world.restart(StoreKind::Embedded);
        let mut slices = vec![service("web")];
        slices.extend(["a", "b", "c"].map(|name| slice(name, 30_000)));
        let mut answer = world.apply(slices);
        let applied = answer.try_recv().expect("answered").expect("taken");
        let refused: Vec<_> = applied
            .results
            .iter()
            .filter_map(|one| Some((&one.name, one.refusal.as_ref()?)))
            .collect();
        let [(name, refusal)] = refused.as_slice() else { panic!("{applied:?}") };
        assert_eq!((name.as_str(), refusal.field.as_str()), ("c", "endpoints"));
        assert!(
            refusal.reason.starts_with("the service would have 90000 endpoints"),
            "{refusal:?}"
        );
        let mut at_many = wide("web", 1, 20);
        at_many["spec"]["ports"] = json!([{ "port": 80 }]);
        for (object, field, reason) in [
            (wide("web", 10_001, 0), "spec.ports", "the service has 10001 ports"),
            (at_many, "spec", "the ports, addresses and endpoints"),
            (wide("new", 1000, 1000), "spec", "the ports, addresses and endpoints"),
        ] {
            let mut answer = world.apply(vec![object]);
            let applied = answer.try_recv().expect("answered").expect("taken");
            let refusal = applied.results[0].refusal.as_ref().expect("refused");
            assert_eq!(refusal.field, field);
            assert!(refusal.reason.starts_with(reason), "{refusal:?}");
        }
        assert_eq!(planned(&world, "new"), None);
        // The limits themselves are fine.
        let mut answer = world.apply(vec![slice("a", 65_535), slice("b", 0), slice("c", 0)]);
        let applied = answer.try_recv().expect("answered").expect("taken");
        assert!(applied.results[0].refusal.is_some(), "b is there yet: {applied:?}");
        let mut answer = world.apply(vec![slice("b", 0), slice("a", 65_535)]);
        let applied = answer.try_recv().expect("answered").expect("taken");
        assert!(applied.results.iter().all(|one| one.refusal.is_none()), "{applied:?}");
        assert_eq!(planned(&world, "web"), Some(65_535));
        assert!(!world.degraded().contains("left out"), "{}", world.degraded());
    });
}

/// A manifest directory is no way around.
///
/// Rows: RH6
#[test]
fn a_manifest_over_the_limits_is_refused_and_named() {
    test(|world| {
        let mut world = world.restart(StoreKind::Embedded);
        world.manifest("large.yaml", &[wide("large", 10_001, 0)]);
        world.manifest("web.yaml", &[service("web"), slice("a", 40_000), slice("b", 40_000)]);
        assert!(world.address("large").is_none() && world.address("web").is_some());
        let degraded = world.degraded();
        for text in [
            "large.yaml",
            "spec.ports: the service has 10001",
            "endpoints: the service would have 80000",
        ] {
            assert!(degraded.contains(text), "{text}: {degraded}");
        }
    });
}

/// An `Endpoints` is taken whole or not at all.
///
/// Rows: RH6
#[test]
fn endpoints_that_are_too_many_are_refused_whole() {
    test(|world| {
        let mut world = world.restart(StoreKind::Embedded);
        let endpoints = |count: usize| {
            let address =
                |number: usize| json!({ "ip": format!("10.1.{}.{}", number >> 8, number & 255) });
            let addresses: Vec<Value> = (0..count).map(address).collect();
            json!({ "apiVersion": "v1", "kind": "Endpoints", "metadata": { "name": "web" },
                    "subsets": [{ "addresses": addresses, "ports": [{ "port": 80 }] },
                                { "addresses": [{ "ip": "10.9.9.9" }], "ports": [{ "port": 80 }] }] })
        };
        let mut answer = world.apply(vec![service("web"), endpoints(65_535)]);
        let applied = answer.try_recv().expect("answered").expect("taken");
        let [_, refused] = applied.results.as_slice() else { panic!("{applied:?}") };
        assert_eq!((&*refused.kind, &*refused.name), ("endpoints", "web"));
        let refusal = refused.refusal.as_ref().expect("refused");
        assert!(refusal.field == "subsets" && refusal.reason.contains("65536"), "{refusal:?}");
        assert_eq!(planned(&world, "web"), Some(0), "nothing of it is stored");
        let mut answer = world.apply(vec![endpoints(65_534)]);
        assert_eq!(outcomes(&mut answer), [AppliedOutcome::Created]);
        assert_eq!(planned(&world, "web"), Some(65_535));
        let mut answer = world.apply(vec![endpoints(65_533)]);
        assert_eq!(outcomes(&mut answer), [AppliedOutcome::Configured]);
    });
}

/// Rows: RH6
#[test]
fn a_service_that_the_kernel_refuses_is_left_out_and_the_others_go_on() {
    test(|world| {
        let mut world = world.restart(StoreKind::Embedded);
        let names: Vec<String> = (0..40).map(|number| format!("s{number}")).collect();
        world.engine.reconciler.set_backend(Backend::refusing([key("s17"), key("s30")].into()));
        let mut answer = world.apply(names.iter().map(|name| service(name)).collect());
        settle(&mut world);
        let applied = answer.try_recv().expect("answered").expect("stored");
        let warned = applied.results.iter().filter(|one| !one.warnings.is_empty());
        let warned: Vec<&str> = warned.map(|one| one.name.as_str()).collect();
        assert_eq!(warned, ["s17", "s30"]);
        let degraded = world.degraded();
        for name in &names {
            let bad = ["s17", "s30"].contains(&name.as_str());
            assert_eq!(planned(&world, name).is_none(), bad, "{name}");
            let text = format!("default/{name}: the kernel refuses its rules");
            assert_eq!(degraded.contains(&text), bad, "{name}: {degraded}");
        }
        assert!(!degraded.contains("rules: "), "{degraded}");

        // The others' changes go on, and cost nothing more.
        let failures = world.engine.state.progress.failures;
        let mut answer = world.apply(vec![service("later")]);
        assert_eq!(outcomes(&mut answer), [AppliedOutcome::Created]);
        assert_eq!(world.engine.state.progress.failures, failures);

        // A restart is ready with all others, whatever is in the store.
        let mut world = world.restart(StoreKind::Embedded);
        world.engine.pending.node = true;
        world.engine.state.plan = causeway_ruleset::plan::Plan::new(world.engine.planning());
        world.engine.reconciler.begin_anew(Backend::refusing([key("s30")].into()));
        let all = world.engine.state.index.services().keys().cloned().collect();
        world.engine.pending.touched.services = all;
        settle(&mut world);
        assert!(planned(&world, "s17").is_some() && planned(&world, "s30").is_none());
        assert!(world.engine.reconciler.has_synced());

        // It is tried again when it is another one.
        world.engine.reconciler.set_backend(Backend::refusing([].into()));
        let mut changed = service("s30");
        changed["spec"]["ports"][0]["port"] = json!(81);
        drop(world.apply(vec![changed]));
        let due =
            world.engine.reconciler.next_trial().expect("it waits a second after it was refused");
        while clock::now() < due {
            assert!(planned(&world, "s30").is_none());
            world.engine.commit();
        }
        settle(&mut world);
        assert_eq!(planned(&world, "s30"), Some(0));
        assert!(!world.degraded().contains("left out"), "{}", world.degraded());
    });
}
