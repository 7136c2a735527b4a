//! Bodies of requests as the daemon's handlers read them: objects one by one from raw JSON, with
//! fields that Kubernetes does not have, completed, counted and planned.
#![no_main]

mod facts;

use std::collections::BTreeSet;

use causeway_api::{Apply, Delete};
use causeway_model::allocate::{Allocator, Pools};
use causeway_model::manifest::{self, Validate};
use causeway_model::{EndpointEvent, Event, Index, Object};
use causeway_ruleset::plan::Plan;
use causeway_ruleset::{iptables, services};
use causeway_source::{Origin, Stored, check_size};
use serde_json::from_slice;
use serde_json::value::RawValue;

use facts::facts;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(delete) = from_slice::<Delete>(bytes) {
        std::hint::black_box(delete.objects);
    }
    let mut index = Index::default();
    if let Ok(event) = from_slice::<EndpointEvent>(bytes)
        && let Some(record) = event.record
    {
        index.apply(Event::Attach { node: "n1".into(), record });
    }
    let Ok(apply) = from_slice::<Apply<Box<RawValue>>>(bytes) else { return };
    let pools = Pools {
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap(), "fd00:96::/112".parse().unwrap()],
        node_ports: (30000, 32767),
        foreign: Vec::new(),
        guarded: Default::default(),
    };
    let mut allocator = Allocator::default();
    for text in &apply.objects {
        let value = serde_json::from_str(text.get()).unwrap_or_default();
        for document in manifest::parse_json(&value) {
            for validate in [Validate::Strict, Validate::Warn, Validate::Ignore] {
                for refusal in document.refusals(validate) {
                    assert!(!refusal.to_string().contains(char::is_control), "{refusal:?}");
                }
                std::hint::black_box(document.warnings(validate));
            }
            for object in document.objects.unwrap_or_default() {
                let Some(object) = complete(&mut allocator, &pools, &index, object) else {
                    continue;
                };
                let stored = Stored { object, origin: Origin::Api };
                if check_size(&stored).is_err() {
                    continue;
                }
                if let Object::Service(service) = &stored.object {
                    let room = index.load(&service, &BTreeSet::new(), std::iter::empty());
                    if room.is_err() {
                        continue;
                    }
                    allocator.release(&service.key);
                    allocator.claim(service);
                }
                index.apply(Event::Apply(stored.object));
            }
        }
    }
    let all: BTreeSet<_> = index.services().keys().cloned().collect();
    let mut plan = Plan::new(facts());
    plan.update(&all, &|key| index.resolve(key));
    std::hint::black_box(services::compile(&plan));
    std::hint::black_box(iptables::ChainMirror::full(&plan, &[]));
});

fn complete(
    allocator: &mut Allocator,
    pools: &Pools,
    index: &Index,
    object: Object,
) -> Option<Object> {
    let Object::Service(service) = object else { return Some(object) };
    let previous = index.services().get(&service.key).map(|service| &**service);
    let (service, _) = allocator.complete(pools, service, previous).ok()?;
    Some(Object::Service(service))
}
