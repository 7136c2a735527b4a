use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use causeway_ruleset::{Batch, Element, Key, Op, Rule, Statement, Verdict};
use proptest::prelude::*;

use super::{
    ByFamily, Conflict, Observed, Placed, add, elements, questions, removal_questions, remove,
    slots,
};
use crate::conditions::Conditions;
use crate::layout;
use crate::mapping::{Binding, Protocol};
use crate::record::{Masquerade, Record, RecordBackend};

/// What the kernel does with a batch, as far as sets and jumps go.
#[derive(Clone, Debug, Default, PartialEq)]
struct Kernel {
    elements: BTreeMap<(String, Key), Element>,
    jumps: Vec<(u64, Rule)>,
}

impl Kernel {
    fn commit(&mut self, ops: Vec<Op>) {
        for op in ops {
            match op {
                Op::AddElements { set, elements, exclusive, .. } => {
                    for element in elements {
                        let at = (set.name.clone(), element.key.clone());
                        let old = self.elements.insert(at, element);
                        assert!(old.is_none() || !exclusive, "EEXIST: {old:?}");
                    }
                }
                Op::DeleteElements { set, elements, .. } => {
                    for element in elements {
                        let old = self.elements.remove(&(set.name.clone(), element.key));
                        assert!(old.is_some(), "ENOENT in {}", set.name);
                    }
                }
                Op::AddRule { chain, rule, .. } if chain == layout::HOSTPORTS => {
                    self.jumps.push((0, rule));
                }
                Op::DeleteTable(_) => *self = Self::default(),
                Op::AddTable(_)
                | Op::AddChain(..)
                | Op::FlushChain(..)
                | Op::DeleteChain(..)
                | Op::AddSet(..)
                | Op::FlushSet(..)
                | Op::DeleteSet(..)
                | Op::AddRule { .. }
                | Op::DeleteRule { .. } => {}
            }
        }
    }

    fn observe(
        &self,
        questions: Vec<(causeway_ruleset::SetSpec, Key)>,
        elements: &[Placed],
    ) -> Observed {
        let mut observed = Observed::default();
        observed.seen.chains.insert(layout::HOSTPORTS.into(), self.jumps.clone());
        for (scope, port) in slots(elements).into_keys() {
            let there = |slot: &u32| {
                let at = (scope.taken().name, layout::slot_key(port, *slot));
                self.elements.contains_key(&at)
            };
            let number = (0..).find(|slot| !there(slot)).unwrap();
            observed.slots.insert((scope.clone(), port), number);
        }
        for (set, key) in questions {
            let at = (set.name, key);
            if let Some(element) = self.elements.get(&at) {
                observed.seen.elements.insert(at, element.clone());
            }
        }
        observed
    }

    fn add(
        &mut self,
        record: &Record,
        owner: &str,
        conditions: ByFamily<'_>,
    ) -> Result<(), Conflict> {
        let scopes = self.observe(Vec::new(), &[]).scopes();
        let elements = elements(record, owner);
        let observed = self.observe(questions(record, owner, &scopes), &elements);
        let ops = add(record, owner, conditions, &observed)?;
        self.commit(ops);
        Ok(())
    }

    fn remove(&mut self, record: &Record, owner: &str) {
        let elements = elements(record, owner);
        let observed = self.observe(removal_questions(&elements), &elements);
        self.commit(remove(&elements, owner, &observed));
    }

    fn of(&self, owner: &str) -> usize {
        self.elements.values().filter(|e| e.comment.as_deref() == Some(owner)).count()
    }
}

fn binding(host: Option<&str>, port: u16, target: &str) -> Binding {
    let host = host.map(|host| host.parse().unwrap());
    Binding { protocol: Protocol::Tcp, host, host_port: port, target: target.parse().unwrap() }
}

fn record(bindings: Vec<Binding>) -> Record {
    Record {
        backend: RecordBackend::Nftables,
        bindings,
        masquerade: Masquerade::Needed,
        conditions_v4: None,
        conditions_v6: None,
        again: crate::record::Again::default(),
    }
}

fn one(host: Option<&str>, port: u16, target: &str) -> Record {
    record(vec![binding(host, port, target)])
}

const NONE: ByFamily<'_> = ByFamily { v4: None, v6: None };

#[test]
fn a_conflict_names_mapping_and_owner() {
    let mut kernel = Kernel::default();
    kernel.add(&one(None, 80, "10.0.0.2:80"), "first", NONE).unwrap();
    let before = kernel.clone();
    let wanted = one(Some("192.0.2.1"), 80, "10.0.0.3:80");
    let conflict = kernel.add(&wanted, "second", NONE).unwrap_err();
    assert_eq!(conflict.owner, "first");
    assert_eq!(conflict.binding.host_side(), "192.0.2.1:80/tcp");
    assert_eq!(kernel, before);
    // The other family is free.
    kernel.add(&one(None, 80, "[fd00::3]:80"), "second", NONE).unwrap();
}

#[test]
fn single_addresses_are_counted() {
    let mut kernel = Kernel::default();
    let first = one(Some("192.0.2.1"), 80, "10.0.0.2:80");
    let second = one(Some("192.0.2.2"), 80, "10.0.0.3:80");
    let every = one(None, 80, "10.0.0.4:80");
    kernel.add(&first, "first", NONE).unwrap();
    kernel.add(&second, "second", NONE).unwrap();
    assert!(kernel.add(&every, "every", NONE).is_err());
    kernel.remove(&first, "first");
    assert!(kernel.add(&every, "every", NONE).is_err());
    kernel.remove(&second, "second");
    kernel.add(&every, "every", NONE).unwrap();
}

#[test]
fn an_address_used_again_belongs_to_its_new_user() {
    let mut kernel = Kernel::default();
    let (old, new) = (one(None, 80, "10.0.0.2:80"), one(None, 81, "10.0.0.2:80"));
    kernel.add(&old, "old", NONE).unwrap();
    kernel.add(&new, "new", NONE).unwrap();
    kernel.remove(&old, "old");
    assert_eq!((kernel.of("old"), kernel.of("new")), (0, elements(&new, "new").len()));
    // Again, of nothing.
    kernel.remove(&old, "old");
    kernel.remove(&new, "new");
    assert_eq!(kernel.elements, BTreeMap::new());
}

#[test]
fn conditions_have_maps_of_their_own_which_are_made_once() {
    let parse = |text: &str| Conditions::parse("conditionsV4", &[text.to_owned()]).unwrap();
    let conditions = parse("iifname eth0").unwrap();
    let mut kernel = Kernel::default();
    let of = |port, target: &str| Record {
        conditions_v4: Some(conditions.id().to_owned()),
        ..one(None, port, target)
    };
    let by = ByFamily { v4: Some(&conditions), v6: None };
    kernel.add(&of(80, "10.0.0.2:80"), "first", by).unwrap();
    kernel.add(&of(81, "10.0.0.3:80"), "second", by).unwrap();
    let jumps = kernel.jumps.iter().filter(|(_, rule)| {
        matches!(rule.statements.as_slice(), [Statement::Verdict(Verdict::Jump(_))])
    });
    assert_eq!(jumps.count(), 1);
    assert!(kernel.add(&one(None, 80, "10.0.0.4:80"), "plain", NONE).is_err());
    kernel.add(&one(None, 82, "10.0.0.4:80"), "plain", NONE).unwrap();
    assert!(kernel.add(&of(82, "10.0.0.5:80"), "third", by).is_err());
    let other = parse("iifname eth1").unwrap();
    let elsewhere =
        Record { conditions_v4: Some(other.id().to_owned()), ..one(None, 80, "10.0.0.6:80") };
    kernel.add(&elsewhere, "other", ByFamily { v4: Some(&other), v6: None }).unwrap();
}

#[test]
fn equal_attachments_are_equal_batches() {
    let record = one(Some("192.0.2.1"), 80, "10.0.0.2:80");
    let batch = || {
        let ops = add(&record, "owner", NONE, &Observed::default()).unwrap();
        causeway_ruleset::text::batch(&Batch { ops, generation: None })
    };
    assert_eq!(batch(), batch());
    let wanted = "192.0.2.1 . tcp . 80";
    assert!(batch().contains(wanted), "{}", batch());
}

fn any_binding() -> impl Strategy<Value = Binding> {
    let host = prop_oneof![Just(None), Just(Some(1_u8)), Just(Some(2_u8))];
    (host, 80_u16..83, any::<bool>(), any::<bool>(), 2_u8..5).prop_map(
        |(host, host_port, udp, ipv6, container)| {
            let address = |v4: [u8; 4], v6: &str| -> IpAddr {
                if ipv6 { format!("{v6}{}", v4[3]).parse().unwrap() } else { v4.into() }
            };
            Binding {
                protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
                host: host.map(|last| address([192, 0, 2, last], "2001:db8::")),
                host_port,
                target: SocketAddr::new(address([10, 0, 0, container], "fd00::"), 80),
            }
        },
    )
}

proptest! {
    /// Whatever comes and goes: a mapping is refused exactly if it overlaps one that is there,
    /// nobody's elements are touched by another, and in the end there is nothing.
    #[test]
    fn i7_histories_leave_nothing(history in prop::collection::vec((0..4_usize, any_binding()), 1..40)) {
        let mut kernel = Kernel::default();
        let mut there: BTreeMap<usize, Record> = BTreeMap::new();
        for (who, binding) in history {
            let owner = format!("owner {who}");
            if let Some(record) = there.remove(&who) {
                kernel.remove(&record, &owner);
                prop_assert_eq!(kernel.of(&owner), 0);
                continue;
            }
            let overlaps = there.values().any(|r| r.bindings.iter().any(|b| b.overlaps(&binding)));
            let wanted = record(vec![binding]);
            let added = kernel.add(&wanted, &owner, NONE);
            prop_assert_eq!(added.is_err(), overlaps);
            if added.is_ok() {
                there.insert(who, wanted);
            }
            for (who, record) in &there {
                let owner = format!("owner {who}");
                for placed in super::mappings(record, &owner) {
                    let at = (placed.set.name, placed.element.key.clone());
                    prop_assert_eq!(kernel.elements.get(&at), Some(&placed.element));
                }
            }
        }
        for (who, record) in &there {
            kernel.remove(record, &format!("owner {who}"));
        }
        prop_assert_eq!(kernel.elements, BTreeMap::new());
    }
}
