use causeway_model::{Event, manifest};
use causeway_source::Origin;
use serde_json::{Value, json};

use super::*;

fn object(value: &Value) -> Object {
    manifest::from_json(value).expect("a good document").remove(0)
}

fn web(ports: usize) -> Object {
    let port = |number: usize| json!({ "name": format!("p{number}"), "port": number });
    let ports: Vec<Value> = (1..=ports).map(port).collect();
    object(&json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" },
                    "spec": { "clusterIP": "10.96.0.1", "ports": ports } }))
}

/// A slice of port `p1` with so many thousands of endpoints.
fn slice(name: &str, service: &str, thousands: usize) -> Object {
    let address = |one: usize, of: usize| format!("10.{of}.{}.{}", one >> 8, one & 255);
    let endpoint = |one| {
        let addresses: Vec<String> = (0..thousands).map(|of| address(one, of)).collect();
        json!({ "addresses": addresses })
    };
    let endpoints: Vec<Value> = (0..1000).map(endpoint).collect();
    object(&json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                    "addressType": "IPv4", "ports": [{ "name": "p1", "port": 80 }],
                    "metadata": { "name": name,
                                  "labels": { "kubernetes.io/service-name": service } },
                    "endpoints": endpoints }))
}

#[derive(Default)]
struct World {
    index: Index,
    staged: StagedObjects,
    room: Room,
}

impl World {
    fn has(&mut self, object: Object) {
        self.index.apply(Event::Apply(object));
    }

    /// As the engine stages an object.
    fn stage(&mut self, object: Object) -> bool {
        let id = (object.kind(), object.key().clone());
        let previous = match self.staged.get(&id) {
            Some(staged) => staged.as_ref().map(|stored| stored.object.clone()),
            None => {
                self.index.slices().get(&id.1).map(|one| Object::EndpointSlice((**one).clone()))
            }
        };
        let taken = self.room.take((&self.index, &self.staged), &object, previous.as_ref());
        if taken.is_ok() {
            self.staged.insert(id, Some(Stored { object, origin: Origin::Api }));
        }
        taken.is_ok()
    }
}

/// Rows: RH6
#[test]
fn what_is_staged_counts_with_what_is_stored() {
    let mut world = World::default();
    world.has(web(1));
    world.has(slice("old", "web", 40));
    assert!(world.stage(slice("a", "web", 20)));
    assert!(!world.stage(slice("b", "web", 6)));
    assert!(world.stage(slice("b", "web", 5)));
    // In the place of what is stored, and of what is staged.
    assert!(world.stage(slice("old", "web", 30)));
    assert!(world.stage(slice("a", "web", 30)));
    assert!(!world.stage(slice("c", "web", 1)));
    // What is refused leaves no trace.
    assert!(!world.stage(slice("a", "web", 31)));
    assert!(world.stage(slice("a", "web", 30)));
    // Another service's.
    assert!(world.stage(slice("old", "other", 30)));
    assert!(world.stage(slice("c", "web", 30)));
    assert!(!world.stage(slice("d", "web", 1)));
    assert!(!world.stage(slice("old", "web", 1)));
}

/// Whichever comes first.
///
/// Rows: RH6
#[test]
fn a_service_is_refused_for_the_slices_that_wait_for_it() {
    let mut world = World::default();
    world.has(slice("old", "web", 40));
    assert!(world.stage(slice("a", "web", 30)));
    assert!(!world.stage(web(1)));
    assert!(world.stage(slice("a", "web", 20)));
    assert!(world.stage(web(1)));
    assert!(!world.stage(slice("b", "web", 6)));
    assert!(!world.stage(web(10_001)));
    // A slice serves the ports of its names alone.
    assert!(world.stage(web(10_000)));
}
