use std::time::{Duration, Instant};

use super::*;
use crate::clock;

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("default", name)
}

fn keys(names: &[&str]) -> BTreeSet<ObjectKey> {
    names.iter().map(|name| key(name)).collect()
}

/// A kernel that refuses some services, and what is planned.
struct World {
    isolation: Isolation,
    services: BTreeSet<ObjectKey>,
    bad: BTreeSet<ObjectKey>,
    /// Nothing goes in.
    broken: bool,
    /// In the kernel.
    held: BTreeSet<ObjectKey>,
    now: Instant,
    tries: u32,
}

impl World {
    fn new(services: usize, bad: &[&str]) -> Self {
        Self {
            isolation: Isolation::default(),
            services: (0..services).map(|number| key(&format!("s{number}"))).collect(),
            bad: keys(bad),
            broken: false,
            held: BTreeSet::new(),
            now: clock::now(),
            tries: 0,
        }
    }

    /// As the engine does it, until there is nothing more to do at once.
    fn sync(&mut self, changed: &[&str]) {
        let changed = if changed == ["*"] { self.services.clone() } else { keys(changed) };
        self.tries = 0;
        let mut changed = changed;
        loop {
            self.isolation.take_changed(&changed, self.now);
            let plan: BTreeSet<ObjectKey> =
                self.services.iter().filter(|one| !self.isolation.is_out(one)).cloned().collect();
            let fails = self.broken || !plan.is_disjoint(&self.bad);
            self.tries += 1;
            assert!(self.tries < 1000, "it ends");
            let suspects = plan.difference(&self.held).cloned().collect();
            let on = if fails {
                self.isolation.failed(|| suspects, "EINVAL", self.now)
            } else {
                self.held = plan;
                self.isolation.succeeded(self.now)
            };
            changed = BTreeSet::new();
            if !on {
                break;
            }
        }
        assert!(!self.isolation.searches());
    }

    fn refused(&self) -> BTreeSet<ObjectKey> {
        self.isolation.refused().map(|(key, _)| key.clone()).collect()
    }

    fn good(&self) -> BTreeSet<ObjectKey> {
        self.services.difference(&self.bad).cloned().collect()
    }
}

/// Rows: RH6
#[test]
fn one_of_ten_thousand_is_found_and_all_others_go_in() {
    for bad in ["s0", "s5000", "s9999"] {
        let mut world = World::new(10_000, &[bad]);
        world.sync(&["*"]);
        assert_eq!(world.refused(), keys(&[bad]));
        assert_eq!(world.held, world.good());
        assert!(world.tries <= 44, "{}", world.tries);
    }
}

/// Rows: RH6
#[test]
fn several_are_found() {
    let mut world = World::new(100, &["s3", "s4", "s50", "s99"]);
    world.sync(&["*"]);
    assert_eq!(world.refused(), world.bad);
    assert_eq!(world.held, world.good());
}

/// Rows: RH6
#[test]
fn a_change_of_one_service_suspects_that_one_alone() {
    let mut world = World::new(100, &[]);
    world.sync(&["*"]);
    assert_eq!(world.tries, 1);
    world.bad = keys(&["new"]);
    world.services.insert(key("new"));
    world.sync(&["new"]);
    assert_eq!(world.refused(), keys(&["new"]));
    assert_eq!(world.held, world.good());
    // With it, without it, with it once more, and the rest.
    assert_eq!(world.tries, 4);
}

/// Nothing is left out if the kernel takes nothing at all.
///
/// Rows: RH6
#[test]
fn a_kernel_that_takes_nothing_refuses_no_service() {
    let mut world = World::new(100, &[]);
    world.broken = true;
    world.sync(&["*"]);
    assert!(world.refused().is_empty());
    world.broken = false;
    world.sync(&[]);
    assert_eq!(world.held, world.services);
}

/// Rows: RH6
#[test]
fn attempts_are_bounded() {
    let services = 4096;
    let all: Vec<String> = (0..services).map(|number| format!("s{number}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let bad: Vec<&str> = all.iter().step_by(2).copied().collect();
    let mut world = World::new(services, &bad);
    world.sync(&["*"]);
    assert!(world.tries <= TRIES + 2, "{}", world.tries);
    assert!(world.held.is_disjoint(&world.bad));
    assert!(world.bad.is_subset(&world.refused()));
    let untried = world.isolation.refused().find(|(key, _)| !world.bad.contains(key));
    assert!(untried.is_some_and(|(_, why)| why.starts_with("one of several")), "{untried:?}");
}

/// Rows: RH6
#[test]
fn a_refused_service_is_tried_again_when_it_changes_and_not_at_any_pace() {
    let mut world = World::new(10, &["s4"]);
    world.sync(&["*"]);
    world.sync(&["s1"]);
    assert_eq!((world.tries, world.refused()), (1, keys(&["s4"])));
    // It changes at once: it waits.
    world.sync(&["s4"]);
    assert_eq!(world.tries, 1);
    assert_eq!(world.isolation.due(), Some(world.now + BACKOFF.first));
    world.now += BACKOFF.first;
    world.sync(&[]);
    assert!(world.tries > 1);
    assert_eq!((world.isolation.due(), world.refused()), (None, keys(&["s4"])));
    // It is still refused: twice the time.
    world.sync(&["s4"]);
    assert_eq!(world.isolation.due(), Some(world.now + 2 * BACKOFF.first));
    world.bad.clear();
    world.now += 2 * BACKOFF.first;
    world.sync(&[]);
    assert_eq!((world.held.len(), world.refused().len()), (10, 0));
    // It was taken: the next refusal is a first one.
    world.bad = keys(&["s4"]);
    world.held.remove(&key("s4"));
    world.sync(&["s4"]);
    world.sync(&["s4"]);
    assert_eq!(world.isolation.due(), Some(world.now + BACKOFF.first));
    world.now += Duration::from_secs(3600);
    world.services.remove(&key("s4"));
    world.isolation.forget(|key| world.services.contains(key));
    assert!(world.refused().is_empty());
}
