use causeway_model::{Object, Service};
use proptest::prelude::*;

use super::*;
use crate::{Origin, Stored};

fn service(name: &str, claims: &[&str]) -> Stored {
    let mut service = Service::new(ObjectKey::new("default", name));
    service.cluster_ips = claims.iter().map(|ip| ip.parse().unwrap()).collect();
    Stored { object: Object::Service(service), origin: Origin::Api }
}

fn planned(write: Write) -> Vec<Item> {
    items(&Keys::new("/c"), "n1", write)
}

#[test]
fn claims_are_new_kept_or_dropped() {
    let former = ["address/10.96.0.1".to_owned(), "address/10.96.0.9".to_owned()];
    let stored = service("web", &["10.96.0.1", "10.96.0.2"]);
    let items = planned(Write { put: vec![(stored, former.to_vec())], ..Write::default() });
    let [item] = items.as_slice() else { panic!("{items:?}") };
    assert_eq!(item.object, "/c/v1/objects/service/default/web");
    assert_eq!(item.owner, "default/web");
    assert_eq!(item.new, ["/c/v1/claims/address/10.96.0.2"]);
    assert_eq!(item.kept, ["/c/v1/claims/address/10.96.0.1"]);
    assert_eq!(item.dropped, ["/c/v1/claims/address/10.96.0.9"]);
    let key = ObjectKey::new("default", "web");
    let delete = vec![(ObjectKind::Service, key, former.to_vec())];
    let items = planned(Write { delete, ..Write::default() });
    assert_eq!((items[0].dropped.len(), items[0].value.is_none()), (2, true));
}

#[test]
fn a_claim_that_moves_is_known() {
    let had = vec!["address/10.96.0.1".to_owned()];
    let put = vec![(service("a", &[]), had), (service("b", &["10.96.0.1"]), Vec::new())];
    let all = planned(Write { put, ..Write::default() });
    assert_eq!(moved(&all).len(), 1);
}

proptest! {
    #[test]
    fn transactions_fit_and_nothing_is_split(
        sizes in prop::collection::vec((0_usize..60, 0_usize..200_000), 0..40),
    ) {
        let item = |(index, (claims, bytes)): (usize, &(usize, usize))| Item {
            object: format!("o{index}"),
            value: Some(vec![0; *bytes]),
            owner: "a/b".into(),
            new: (0..*claims).map(|claim| format!("c{claim}")).collect(),
            kept: Vec::new(),
            dropped: Vec::new(),
        };
        let all: Vec<Item> = sizes.iter().enumerate().map(item).collect();
        let names = |items: &[Item]| items.iter().map(|item| item.object.clone()).collect();
        let before: Vec<String> = names(&all);
        let batches = batches(all);
        let after: Vec<String> = batches.iter().flat_map(|batch| -> Vec<String> { names(batch) }).collect();
        prop_assert_eq!(before, after);
        for batch in batches {
            prop_assert!(batch.iter().map(Item::width).sum::<usize>() <= MOST);
            prop_assert!(batch.iter().map(Item::bytes).sum::<usize>() <= BYTES);
        }
    }
}
