//! Laws that hold for all inputs: what is written reads back, histories do not matter, resolving is
//! what a search through everything finds, nothing panics.

mod support;

use std::collections::BTreeSet;

use causeway_model::manifest::{from_json, parse, to_json};
use causeway_model::{Container, Event, Index, Object, ObjectKind};
use proptest::prelude::*;

use support::{Fact, NODES, fact, keys, object, oracle, published, text};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_written_reads_back(object in object()) {
        let json = to_json(&object);
        prop_assert_eq!(from_json(&json).expect("accepted"), [object.clone()]);
        // JSON is YAML.
        let documents = parse(&json.to_string());
        prop_assert_eq!(documents.len(), 1);
        prop_assert_eq!(documents[0].objects.as_ref().expect("accepted"), &[object]);
        prop_assert_eq!(&documents[0].warnings, &[]);
        prop_assert_eq!(&documents[0].unknown, &[]);
    }

    #[test]
    fn any_text_is_parsed_without_harm(text in text()) {
        for document in parse(&text) {
            prop_assert!(document.line > 0);
            if let Err(refusal) = document.objects {
                prop_assert!(refusal.line > 0 && !refusal.field.is_empty());
                prop_assert!(!refusal.to_string().contains(char::is_control));
            }
        }
    }

    #[test]
    fn any_json_is_checked_without_harm(text in text()) {
        if let Ok(value) = serde_json::from_str(&text)
            && let Ok(objects) = from_json(&value)
        {
            for object in objects {
                prop_assert_eq!(from_json(&to_json(&object)).expect("accepted"), [object]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Rows: P3, P5, P6, P7
    #[test]
    fn an_index_knows_what_a_fresh_one_would(
        history in prop::collection::vec(fact(), 1..40),
    ) {
        let mut index = Index::default();
        for fact in &history {
            let before: Vec<_> = keys().map(|key| index.resolve(&key)).collect();
            let changes = index.apply(fact.event());
            for (key, before) in keys().zip(before) {
                let changed = index.resolve(&key) != before;
                prop_assert!(!changed || changes.services.contains(&key), "{key} after {fact:?}");
            }
            // Once more: nothing is new.
            if !matches!(fact, Fact::Health(..)) {
                let again = index.apply(fact.event());
                prop_assert!(again.services.is_empty() && again.nodes.is_empty(), "{fact:?}");
            }
        }
        let mut fresh = Index::default();
        let services = index.services().values().map(|one| Object::Service((**one).clone()));
        let slices = index.slices().values().map(|one| Object::EndpointSlice((**one).clone()));
        let nodes = index.nodes().values().map(|one| Object::Node((**one).clone()));
        // In another order than they came.
        let mut objects: Vec<_> = services.chain(slices).chain(nodes).collect();
        objects.reverse();
        for (Container { node, record, .. }, healthy) in index.containers() {
            fresh.apply(Event::Attach { node: node.clone(), record: record.to_record() });
            fresh.apply(Event::Health { node: node.clone(), key: record.key.clone(), healthy });
        }
        for (node, labels) in published(&history) {
            fresh.apply(Event::NodeLabels { node: node.to_owned(), labels });
        }
        fresh.apply(Event::Reset(objects));
        prop_assert_eq!(index.containers().count(), index.container_count());
        for key in keys() {
            prop_assert_eq!(index.resolve(&key), fresh.resolve(&key));
            prop_assert_eq!(index.resolve(&key), oracle(&index, &key));
        }
        // And everything can go again.
        let gone: BTreeSet<_> = index.services().keys().cloned().collect();
        let changes = index.apply(Event::Reset(Vec::new()));
        prop_assert!(gone.iter().all(|key| changes.services.contains(key)));
        prop_assert!(index.slices().is_empty() && index.nodes().is_empty());
        for node in NODES {
            index.apply(Event::NodeGone(node.to_owned()));
            prop_assert_eq!(index.containers_of(node).count(), 0);
        }
        prop_assert_eq!((index.containers().count(), index.container_count()), (0, 0));
        for key in keys() {
            prop_assert_eq!(index.resolve(&key), None);
            let changes = index.apply(Event::Delete(ObjectKind::Service, key));
            prop_assert!(changes.services.is_empty());
        }
    }
}
