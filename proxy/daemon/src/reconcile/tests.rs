//! Plan and kernel, over the fake of its rules.

use causeway_model::Event as Fact;
use causeway_nft::{Client, Fake};
use causeway_ruleset::{Batch, Family, Op, TableId};

use super::*;
use crate::testing::{DNS, WEB, attach, named, objects, state};

struct World {
    fake: Fake,
    reconciler: Reconciler,
    state: State,
    /// What was taken in since the last sync.
    touched: Touched,
    now: Instant,
    _folder: tempfile::TempDir,
}

impl World {
    /// A kernel that holds a service, if it has been asked.
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (fake, now) = (Fake::default(), clock::now());
        let mut world = Self {
            reconciler: Reconciler::new(Backend::of(&fake), true, now),
            fake,
            state: state(folder.path()),
            touched: Touched::default(),
            now,
            _folder: folder,
        };
        world.take(objects(WEB));
        world
    }

    fn synced() -> Self {
        let mut world = Self::new();
        assert!(world.sync().expect("synced").expect("it was time").is_first);
        world
    }

    fn take(&mut self, facts: Vec<Fact>) {
        for fact in facts {
            if let Fact::Attach { record, .. } = &fact {
                self.touched.containers.insert(record.key.clone());
            }
            self.touched.services.extend(self.state.index.apply(fact).services);
        }
    }

    fn sync(&mut self) -> backend::Result<Option<Synced>> {
        let work = Work { touched: mem::take(&mut self.touched), ..Work::default() };
        self.reconciler.on_time(&mut self.state.conditions, self.now);
        self.reconciler.sync(&mut self.state, work, self.now)
    }

    /// Another process removes our rules.
    fn flush(&mut self) {
        let table = |family| TableId { family, name: "causeway_services".to_owned() };
        let ops = [Family::Ip, Family::Ip6].map(|family| Op::DeleteTable(table(family))).to_vec();
        Client::of_fake(&self.fake).commit(&Batch { ops, generation: None }).expect("committed");
        self.reconciler.on_change(Some(("nft".to_owned(), 7)));
    }

    fn conditions(&self) -> Vec<String> {
        self.state.conditions.degraded().collect()
    }
}

#[test]
fn the_first_sync_compares_everything_and_a_change_is_applied_at_once() {
    let mut world = World::new();
    assert!(world.reconciler.due() <= world.now);
    let synced = world.sync().expect("synced").expect("it was time");
    let commit = synced.commit.expect("something changed");
    assert!(synced.is_first && commit.full);
    assert_eq!(world.fake.commits(), 1);
    world.take([objects(DNS), vec![attach("a", "10.0.1.2", "web")]].concat());
    let synced = world.sync().expect("synced").expect("it was time");
    let commit = synced.commit.expect("something changed");
    assert_eq!((synced.is_first, commit.full, world.fake.commits()), (false, false, 2));
    assert_eq!((world.state.progress.syncs, world.state.progress.full_syncs), (2, 1));
    // Nothing to do is nothing to tell.
    assert!(world.sync().expect("synced").expect("it was time").commit.is_none());
    assert_eq!(world.fake.commits(), 2);
    assert!(world.reconciler.due() > world.now + FULL_PERIOD - Duration::from_secs(60));
}

#[test]
fn what_fails_is_tried_again_after_growing_pauses_and_told_until_it_works() {
    let mut world = World::new();
    // It is no service's fault: attempts without each of them fail, too.
    world.fake.refuse([libc::ENOMEM; 8]);
    let mut pauses = Vec::new();
    let mut failed = 0;
    loop {
        let before = clock::now();
        match world.sync() {
            Ok(synced) => {
                assert!(synced.expect("it was time").is_first);
                break;
            }
            Err(_) => failed += 1,
        }
        let due = world.reconciler.retry.due().expect("it is tried again");
        if due > clock::now() {
            assert!(world.conditions()[0].starts_with("rules: "), "{:?}", world.conditions());
            assert!(world.sync().expect("not yet").is_none(), "it is not time");
            pauses.push(due - before);
        }
        world.now = due;
    }
    assert_eq!(failed, 8);
    let least = (1..).map(|failures| BACKOFF.pause(failures));
    assert!(pauses.len() > 2 && pauses.iter().zip(least).all(|(pause, least)| *pause >= least));
    assert_eq!((world.conditions(), world.reconciler.retry.failures()), (Vec::new(), 0));
}

#[test]
fn who_waits_does_not_wait_for_the_next_attempt() {
    let mut world = World::synced();
    world.reconciler.retry = Retry::at(world.now + Duration::from_secs(30));
    assert!(world.sync().expect("not yet").is_none());
    let work = Work { is_awaited: true, ..Work::default() };
    let synced = world.reconciler.sync(&mut world.state, work, world.now);
    assert!(synced.expect("synced").is_some());
}

#[test]
fn what_another_process_removed_is_put_back_and_counted() {
    let mut world = World::synced();
    world.flush();
    assert!(world.reconciler.looks.earliest() > world.now, "a look takes time, too");
    world.sync().expect("synced");
    assert_eq!(world.state.progress.repairs, 0, "not before a pause");
    world.now = world.reconciler.due();
    let before = world.fake.commits();
    world.sync().expect("synced").expect("it was time");
    assert_eq!(world.state.progress.repairs, 1);
    assert!(world.fake.commits() > before);
    world.now += Duration::from_secs(1);
    world.sync().expect("synced");
    assert_eq!(world.state.progress.repairs, 1);
}

#[test]
fn nobody_has_to_tell_of_a_change() {
    let mut world = World::new();
    world.reconciler = Reconciler::new(Backend::of(&world.fake), false, world.now);
    world.sync().expect("synced");
    let due = world.reconciler.due();
    assert!(due > world.now && due <= clock::now() + POLL, "it looks by itself");
}

#[test]
fn everything_is_compared_once_an_hour() {
    let mut world = World::synced();
    world.now = world.reconciler.due();
    world.sync().expect("synced").expect("it was time");
    assert_eq!(world.state.progress.full_syncs, 2);
}

#[test]
fn a_service_that_the_kernel_refuses_is_left_out_by_name() {
    let mut world = World::new();
    let bad = named("kube-system", "dns");
    world.reconciler.set_backend(Backend::refusing([bad.clone()].into()));
    world.take(objects(DNS));
    world.sync().expect_err("refused");
    while world.reconciler.is_searching() {
        world.now = world.reconciler.due();
        drop(world.sync());
    }
    world.now = clock::now();
    world.sync().expect("synced");
    assert!(world.state.plan.services.contains_key(&named("default", "web")));
    assert!(!world.state.plan.services.contains_key(&bad));
    let told = world.conditions();
    assert!(told.len() == 1 && told[0].contains("kube-system/dns"), "{told:?}");
    assert!(world.reconciler.take_left_out_changed() && !world.reconciler.take_left_out_changed());
}

#[test]
fn other_facts_of_the_node_make_another_plan() {
    let mut world = World::synced();
    let mut facts = world.state.plan.facts.clone();
    let again = Work { facts: Some(facts.clone()), ..Work::default() };
    world.reconciler.sync(&mut world.state, again, world.now).expect("synced");
    assert_eq!(world.state.progress.full_syncs, 1, "they are as before");
    facts.masquerade_all = true;
    let work = Work { facts: Some(facts), ..Work::default() };
    world.reconciler.sync(&mut world.state, work, world.now).expect("synced");
    assert_eq!(world.state.progress.full_syncs, 2);
    assert!(world.state.plan.services.contains_key(&named("default", "web")));
}
