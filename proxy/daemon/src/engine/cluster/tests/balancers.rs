//! Load balancer addresses: of a pool with one address.

use causeway_model::Object;
use causeway_source::cluster::{Change, View, Write, WriteError};
use causeway_source::{Origin, Stored};
use serde_json::Value;

use super::world::{World, key, service, test, view};
use crate::clock;
use crate::config::StoreKind;
use crate::testing;

fn balanced(name: &str) -> Value {
    let mut document = service(name);
    document["spec"]["type"] = "LoadBalancer".into();
    document
}

/// What a service has, or why it waits.
fn shown(world: &World, name: &str) -> String {
    let state = &world.engine.state;
    let ingress = &state.index.services()[&key(name)].ingress;
    match ingress.first().and_then(|ingress| ingress.ip) {
        Some(ip) => ip.to_string(),
        None => state.balancers.of_service(&key(name)).unwrap_or("no reason").to_owned(),
    }
}

const ADDRESS: &str = "203.0.113.1";
const FULL: &str = "all V4 addresses of pool default are in use; extend it, or delete a service";

/// The names of the services that a write puts, with their addresses.
fn given(write: &Write) -> Vec<(String, Option<String>)> {
    let one = |(stored, _): &(Stored, Vec<String>)| {
        let Object::Service(service) = &stored.object else { panic!("{stored:?}") };
        let ip = service.ingress.first().and_then(|ingress| ingress.ip);
        (service.key.name.to_string(), ip.map(|ip| ip.to_string()))
    };
    write.put.iter().map(one).collect()
}

/// What the store has.
fn listed(world: &World) -> View {
    let services = world.engine.state.index.services().values();
    let stored = |one: &std::sync::Arc<causeway_model::Service>| Stored {
        object: Object::Service((**one).clone()),
        origin: Origin::Api,
    };
    View { objects: services.map(stored).collect(), ..view(&["n1"]) }
}

/// Applies, and the store takes it.
fn put(world: &mut World, name: &str) -> Write {
    let answer = world.apply(vec![balanced(name)]);
    let write = world.written();
    world.accept(write.clone());
    drop(answer);
    write
}

/// Rows: L-39
#[test]
fn no_restart_takes_an_address_away() {
    test(|mut world| {
        world.connect(view(&["n1"]), false);
        // The waiter stands first in every list.
        let write = put(&mut world, "z");
        assert_eq!(given(&write), [("z".to_owned(), Some(ADDRESS.to_owned()))]);
        put(&mut world, "a");
        assert_eq!((&*shown(&world, "z"), &*shown(&world, "a")), (ADDRESS, FULL));
        for _ in 0..100 {
            let list = listed(&world);
            world = world.restart(StoreKind::Etcd);
            // The list is slow; what the disk had is in force, and nobody gets anything.
            world.engine.commit();
            assert_eq!(shown(&world, "z"), ADDRESS);
            assert!(world.writes().is_empty());
            world.connect(list, true);
            assert!(world.writes().is_empty());
            assert_eq!((&*shown(&world, "z"), &*shown(&world, "a")), (ADDRESS, FULL));
        }
    });
    // The same on a node alone.
    let folder = tempfile::tempdir().expect("a folder");
    testing::run(async {
        let mut world = World::of(folder, StoreKind::Embedded, None);
        for name in ["z", "a"] {
            drop(world.apply(vec![balanced(name)]));
        }
        for _ in 0..100 {
            world = world.restart(StoreKind::Embedded);
            assert_eq!((&*shown(&world, "z"), &*shown(&world, "a")), (ADDRESS, FULL));
        }
        drop(world.delete("z"));
        assert_eq!(shown(&world, "a"), ADDRESS);
    });
}

#[test]
fn the_first_node_that_lives_gives_what_is_freed() {
    test(|mut world| {
        world.connect(view(&["a1", "n1", "n2", "n3"]), false);
        put(&mut world, "z");
        put(&mut world, "a");
        let mut gone = world.delete("z");
        let write = world.written();
        world.accept(write);
        assert!(gone.try_recv().is_ok());
        assert!(world.writes().is_empty(), "it is up to node a1");
        assert_eq!(shown(&world, "a"), "no reason", "it is to have the address");
        // Nobody who comes now takes it.
        let write = put(&mut world, "b");
        assert_eq!(given(&write), [("b".to_owned(), None)]);
        // The other one dies before it did anything.
        world.changed(vec![Change::NodeGone("a1".to_owned())]);
        let write = world.written();
        assert_eq!(given(&write), [("a".to_owned(), Some(ADDRESS.to_owned()))]);
        let claims = causeway_source::claims(&write.put[0].0.object);
        assert!(claims.contains(&format!("balancer/{ADDRESS}")), "{claims:?}");
        world.accept(write);
        assert_eq!((&*shown(&world, "a"), &*shown(&world, "b")), (ADDRESS, FULL));
        assert!(world.writes().is_empty());
    });
}

/// Once what was owed to the only one who waited is stored, all is settled.
#[test]
fn after_the_last_who_waited_addresses_go_out_at_once() {
    test(|mut world| {
        world.connect(view(&["n1"]), false);
        put(&mut world, "z");
        put(&mut world, "a");
        let gone = world.delete("z");
        let write = world.written();
        world.accept(write);
        drop(gone);
        let write = world.written();
        assert_eq!(given(&write), [("a".to_owned(), Some(ADDRESS.to_owned()))]);
        world.accept(write);
        let gone = world.delete("a");
        let write = world.written();
        world.accept(write);
        drop(gone);
        let write = put(&mut world, "b");
        assert_eq!(given(&write), [("b".to_owned(), Some(ADDRESS.to_owned()))]);
        assert!(world.writes().is_empty());
    });
}

/// A write that the store refuses costs nobody the place in the queue.
#[test]
fn who_was_to_have_an_address_waits_no_less_for_a_failed_write() {
    test(|mut world| {
        world.connect(view(&["n1"]), false);
        put(&mut world, "z");
        put(&mut world, "y");
        let gone = world.delete("z");
        let write = world.written();
        world.accept(write);
        drop(gone);
        let write = world.written();
        world.refuse(&write, WriteError::Denied("permission denied".to_owned()));
        // By name it comes first.
        put(&mut world, "a");
        world.engine.deadlines.balancers.set(clock::now());
        world.engine.commit();
        assert_eq!(given(&world.written()), [("y".to_owned(), Some(ADDRESS.to_owned()))]);
    });
}

#[test]
fn a_store_that_refuses_is_asked_again_later() {
    test(|mut world| {
        world.connect(view(&["n1"]), false);
        put(&mut world, "z");
        put(&mut world, "a");
        let gone = world.delete("z");
        let write = world.written();
        world.accept(write);
        drop(gone);
        let write = world.written();
        world.refuse(&write, WriteError::Denied("permission denied".to_owned()));
        world.engine.commit();
        assert!(world.writes().is_empty(), "not at once");
        let due = world.engine.deadlines.balancers.due().expect("later");
        assert!(due > clock::now() + std::time::Duration::from_secs(8));
        world.engine.deadlines.balancers.set(clock::now());
        world.engine.commit();
        assert_eq!(given(&world.written()), [("a".to_owned(), Some(ADDRESS.to_owned()))]);
    });
}
