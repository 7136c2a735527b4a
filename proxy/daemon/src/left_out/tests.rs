use causeway_model::limits::Excess;

use super::*;

/// Rows: RH6
#[test]
fn each_is_named_with_why_and_not_without_end() {
    let key = |number: usize| ObjectKey::new("default", format!("s{number:02}"));
    let mut known = LeftOutServices::default();
    assert_eq!(known.all(), None);
    let left_out = LeftOut { service: Some(Excess::Ports(10_001)), ..LeftOut::default() };
    let slices = (0..30).map(|number| (key(number), Excess::Ways(2_000_000))).collect();
    let many = LeftOut { slices, ..LeftOut::default() };
    let found = [(key(0), left_out.clone()), (key(1), many)].into();
    known.planned(&BTreeSet::new(), found);
    let said = known.of_service(&key(0));
    let wanted = "has no rules: the service has 10001 ports, and 10000 are possible: split it";
    assert_eq!(said, [wanted]);
    let said = known.of_service(&key(1));
    assert_eq!(said.len(), SHOWN + 1);
    assert!(said[0].starts_with("endpointslice s00 is left out: the ports, addresses"), "{said:?}");
    assert_eq!(said[SHOWN], "10 more of its endpointslices left out");
    let all = known.all().expect("some");
    assert_eq!(all.lines().count(), SHOWN + 1, "{all}");
    assert!(all.starts_with(&format!("default/s00: {wanted}\n")), "{all}");
    known.planned(&[key(1)].into(), BTreeMap::new());
    known.planned(&[key(0)].into(), [(key(0), left_out)].into());
    assert_eq!(known.all().as_deref(), Some(&*format!("default/s00: {wanted}")));
    known.planned(&[key(0)].into(), BTreeMap::new());
    assert_eq!(known.all(), None);
}
