//! Manifest files: no text may harm, and what is accepted is written and read back as it is.
#![no_main]

use causeway_model::allocate::{Allocator, Pools};
use causeway_model::manifest::{from_json, parse, to_json};
use causeway_model::{Event, Index, Object};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let pools = Pools {
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap(), "fd00:96::/112".parse().unwrap()],
        node_ports: (30000, 32767),
        foreign: Vec::new(),
        guarded: Default::default(),
        guarded: std::sync::Arc::default(),
    };
    let mut allocator = Allocator::default();
    let mut index = Index::default();
    for document in parse(text) {
        let objects = match document.objects {
            Ok(objects) => objects,
            Err(refusal) => {
                assert!(refusal.line > 0, "{refusal}");
                assert!(!refusal.to_string().contains(char::is_control), "{refusal:?}");
                continue;
            }
        };
        for object in objects {
            assert_eq!(from_json(&to_json(&object)).as_deref(), Ok(&[object.clone()][..]));
            let key = object.key().clone();
            let object = match object {
                Object::Service(service) => {
                    let previous = index.services().get(&key);
                    let previous = previous.map(|service| &**service);
                    match allocator.complete(&pools, service, previous) {
                        Ok((service, _)) => {
                            allocator.claim(&service);
                            Object::Service(service)
                        }
                        Err(_) => continue,
                    }
                }
                other => other,
            };
            assert_eq!(from_json(&to_json(&object)).as_deref(), Ok(&[object.clone()][..]));
            index.apply(Event::Apply(object));
            index.resolve(&key);
        }
    }
});
