//! What is committed reads back equal from a real kernel.

mod common;

use causeway_nft::Client;
use causeway_ruleset::{Batch, DataType, Element, Family, Key, MapTarget, Op, RegValue, TableId};

use common::{batch, chain, client, element, everything, rules, set, sets, table, v4};

#[test]
fn everything_reads_back_equal() {
    let mut client = client();
    let id = table(Family::Inet, "t");
    client.commit(&everything(&id)).unwrap();
    for name in ["pre", "post"] {
        let wanted = rules().into_iter().filter(|(chain, _)| *chain == name);
        let read = client.rules(&id, name).unwrap();
        let read = read.into_iter().map(|(_, rule)| (name, rule)).collect::<Vec<_>>();
        for (wanted, read) in wanted.clone().zip(&read) {
            assert_eq!(wanted, *read);
        }
        assert_eq!(wanted.count(), read.len());
    }
    for (set, elements) in sets() {
        assert_eq!(client.elements(&id, &set).unwrap(), elements, "{}", set.name);
        for wanted in elements {
            assert_eq!(client.element(&id, &set, &wanted.key).unwrap(), Some(wanted));
        }
    }
    let state = client.table(&id).unwrap().unwrap();
    assert_eq!(state.chains.keys().collect::<Vec<_>>(), ["other", "post", "pre"]);
    assert_eq!(
        state.chains["pre"].0,
        chain("pre", Some(("nat", causeway_ruleset::Hook::Prerouting, -100)))
    );
    for (set, elements) in sets() {
        assert_eq!(state.sets[&set.name], (set, elements));
    }
    assert_eq!(state.chains["pre"].1, client.rules(&id, "pre").unwrap());
}
