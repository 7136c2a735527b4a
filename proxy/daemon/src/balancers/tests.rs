use super::*;

fn waiting(names: &[&str]) -> Vec<(ObjectKey, String)> {
    names.iter().map(|name| (ObjectKey::new("default", *name), "why".to_owned())).collect()
}

#[test]
fn who_waits_is_named_with_or_without_pools() {
    let mut balancers = Balancers::default();
    assert_eq!(balancers.all(), [""; 0]);
    balancers.wait(waiting(&["a"]));
    assert_eq!(balancers.all(), ["service default/a waits for a load balancer address: why"]);
    balancers.wait(waiting(&["a", "b", "c"]));
    let line = "service default/a and 2 more wait for a load balancer address: why";
    assert_eq!(balancers.all(), [line]);
    assert_eq!(balancers.of_service(&ObjectKey::new("default", "c")), Some("why"));
    assert_eq!(balancers.of_service(&ObjectKey::new("other", "c")), None);
    balancers.pools.push(PoolUse { name: "default".to_owned(), size: 1, used: 1 });
    let all = balancers.all();
    assert_eq!((all.len(), &*all[1]), (3, "service default/b: no load balancer address: why"));
}
