//! Objects: written through the store, seen, lost, found again.

use std::time::Duration;

use causeway_api::{AppliedOutcome, Apply};
use causeway_model::ObjectKind;
use causeway_source::Origin;
use causeway_source::cluster::{Change, Known, Report, View, WriteError};

use super::world::{
    Answer, STORE, at, container, key, outcomes, refusal, service, stored, test, view,
};
use crate::clock;
use crate::conditions::Concern;
use crate::config::StoreKind;

fn waits(answer: &mut Answer) -> bool {
    answer.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty)
}

fn elsewhere(file: &str) -> Origin {
    Origin::Elsewhere { node: "n2".to_owned(), file: file.to_owned() }
}

#[test]
fn a_change_is_answered_when_it_has_come_back() {
    test(|mut world| {
        let mut early = world.apply(vec![service("early")]);
        assert!(world.writes().is_empty(), "the store has not answered yet");
        world.report(Report::Connection(Ok(())));
        assert!(world.writes().is_empty(), "it has not said what there is");
        world.reset(view(&["n1"]), STORE, false);
        let write = world.written();
        assert!(waits(&mut early));
        let mut web = world.apply(vec![service("web")]);
        world.report(Report::Written { id: write.id, result: Ok(2) });
        assert!(waits(&mut early), "not seen yet");
        let first = stored(&at("early", "10.96.0.9"), Origin::Api);
        world.changed(vec![Change::Object(first)]);
        assert_eq!(outcomes(&mut early), [AppliedOutcome::Created]);
        // One after the other, each at what was seen.
        let write = world.written();
        assert_eq!((write.seen, write.put.len()), (2, 1));
        assert!(write.put[0].1.is_empty(), "it had claimed nothing");
        let id = write.id;
        world.show(write);
        assert!(waits(&mut web), "seen, but not known to be ours");
        world.report(Report::Written { id, result: Ok(3) });
        assert_eq!(outcomes(&mut web), [AppliedOutcome::Created]);
        let address = world.address("web").expect("an address");

        // Unchanged: nothing is written. Changed: with what it claimed before.
        let mut again = world.apply(vec![service("web")]);
        assert_eq!(outcomes(&mut again), [AppliedOutcome::Unchanged]);
        let mut gone = world.delete("web");
        let write = world.written();
        assert_eq!(write.delete[0].1, key("web"));
        let claimed = &write.delete[0].2;
        assert!(claimed.iter().any(|claim| claim.contains(&address)), "{claimed:?}");
        world.accept(write);
        assert_eq!(outcomes(&mut gone), [AppliedOutcome::Deleted]);
        assert_eq!(world.address("web"), None);
    });
}

#[test]
fn without_waiting_it_is_answered_when_it_is_written() {
    test(|mut world| {
        world.connect(view(&["n1"]), false);
        let mut web = world.ask(Apply { objects: vec![service("web")], ..Apply::default() });
        assert!(waits(&mut web));
        let write = world.written();
        world.report(Report::Written { id: write.id, result: Ok(9) });
        assert_eq!(outcomes(&mut web), [AppliedOutcome::Created]);
        assert_eq!(world.address("web"), None, "not seen yet");
    });
}

#[test]
fn who_was_forestalled_decides_anew() {
    test(|mut world| {
        world.connect(view(&["n1"]), false);
        let mut web = world.apply(vec![service("web")]);
        let write = world.written();
        let causeway_model::Object::Service(ours) = &write.put[0].0.object else {
            panic!("{write:?}")
        };
        let proposed = ours.cluster_ips[0].to_string();
        world.refuse(&write, WriteError::Conflict(world.revision + 1));
        assert!(world.writes().is_empty(), "not before that is seen");
        let theirs = stored(&at("theirs", &proposed), Origin::Api);
        world.changed(vec![Change::Object(theirs)]);
        let write = world.written();
        assert_eq!(write.seen, world.revision);
        world.accept(write);
        assert_eq!(outcomes(&mut web), [AppliedOutcome::Created]);
        assert_eq!(world.address("theirs").as_ref(), Some(&proposed));
        let ours = world.address("web").expect("an address");
        assert_ne!(ours, proposed);

        // Not for ever.
        let mut never = world.apply(vec![service("never")]);
        for _ in 0..10 {
            let write = world.written();
            world.refuse(&write, WriteError::Conflict(world.revision));
        }
        assert!(refusal(&mut never).contains("10 times in a row"));
        assert!(world.writes().is_empty());
        // What was staged for it claims nothing.
        let mut next = world.apply(vec![service("next")]);
        let write = world.written();
        world.accept(write);
        assert_eq!(outcomes(&mut next), [AppliedOutcome::Created]);
    });
}

/// Rows: C-04
#[test]
fn while_the_store_is_away_changes_are_refused_and_the_rest_goes_on() {
    test(|mut world| {
        world.connect(view(&["n1", "n2"]), false);
        let web = stored(&at("web", "10.96.0.7"), Origin::Api);
        world.changed(vec![
            Change::Object(web),
            Change::Container("n2".into(), container("b", "10.0.2.2")),
        ]);
        let mut flying = world.apply(vec![service("flying")]);
        let mut queued = world.apply(vec![service("queued")]);
        let write = world.written();
        world.away();
        let text = refusal(&mut queued);
        assert!(
            text.contains("unreachable for 0s") && text.contains("connection refused"),
            "{text}"
        );
        world.refuse(&write, WriteError::Away("reset".to_owned()));
        assert!(refusal(&mut flying).contains("whether it was stored is not known"));
        let mut refused = world.apply(vec![service("refused")]);
        assert!(refusal(&mut refused).contains("check the cluster store and retry"));
        assert!(refusal(&mut world.delete("web")).contains("unreachable"));
        let degraded = world.degraded();
        let since = "store: etcd http://192.0.2.9:2379 unreachable for 0s, serving from the \
                     snapshot of revision 2: connection refused";
        assert!(degraded.contains(since), "{degraded}");
        world.container("a", 1, Some("10.0.1.2"));
        assert_eq!(world.endpoints("web"), ["10.0.1.2", "10.0.2.2"]);
        world.container("a", 2, None);
        assert_eq!(world.endpoints("web"), ["10.0.2.2"]);
        assert!(world.writes().is_empty());

        world.report(Report::Connection(Ok(())));
        assert_eq!(world.degraded(), "");
        let mut web = world.apply(vec![service("again")]);
        let write = world.written();
        world.accept(write);
        assert_eq!(outcomes(&mut web), [AppliedOutcome::Created]);
    });
}

#[test]
fn a_silent_store_is_not_waited_for_without_end() {
    test(|mut world| {
        let mut early = world.apply(vec![service("early")]);
        let later = Duration::from_secs(11);
        world.engine.expire_writes(clock::now() + later);
        assert!(refusal(&mut early).contains("the cluster store has not answered"));

        world.connect(view(&["n1"]), false);
        let mut lost = world.apply(vec![service("lost")]);
        let write = world.written();
        world.engine.expire_writes(clock::now() + later);
        assert!(refusal(&mut lost).contains("whether it was stored is not known"));
        // A late answer is none to the next one.
        let mut next = world.apply(vec![service("next")]);
        let second = world.written();
        world.show(write);
        world.report(Report::Written { id: 1, result: Ok(world.revision) });
        assert!(waits(&mut next));
        world.accept(second);
        assert_eq!(outcomes(&mut next), [AppliedOutcome::Created]);

        let mut unseen = world.apply(vec![service("unseen")]);
        let write = world.written();
        world.report(Report::Written { id: write.id, result: Ok(99) });
        world.engine.expire_writes(clock::now() + later);
        assert!(refusal(&mut unseen).contains("stored at revision 99"));
    });
}

/// Rows: C-10, C-11
#[test]
fn what_a_wiped_store_lost_goes_on_and_can_be_brought_back() {
    test(|mut world| {
        world.connect(view(&["n1"]), false);
        let documents = [at("web", "10.96.0.7"), at("old", "10.96.0.8"), at("file", "10.96.0.9")];
        let objects = documents.iter().map(|one| Change::Object(stored(one, Origin::Api)));
        world.changed(objects.collect());
        world.manifest("file.json", &[documents[2].clone()]);
        let write = world.written();
        assert_eq!(write.put[0].0.origin, Origin::Manifest("file.json".to_owned()));
        world.accept(write);
        world.commands();

        world.reset(view(&["n1"]), "store-2", false);
        assert_eq!(world.address("web").as_deref(), Some("10.96.0.7"));
        let degraded = world.degraded();
        assert!(degraded.contains("3 objects of this node are not in the cluster store"));
        assert!(degraded.contains("causeway get services -A -o yaml | causeway apply -f -"));
        // The manifest directory brings its own back.
        let write = world.written();
        assert_eq!(write.put.len(), 1);
        assert!(write.put[0].1.is_empty(), "nothing is claimed in the new store");
        world.accept(write);
        assert!(world.degraded().contains("2 objects"));

        // So it is after a restart.
        let mut world = world.restart(StoreKind::Etcd);
        let objects = vec![stored(&documents[2], Origin::Manifest("file.json".to_owned()))];
        world.report(Report::Connection(Ok(())));
        // The store is the one known: what it had lost before is still not deleted.
        world.reset(View { objects, ..view(&["n1"]) }, "store-2", true);
        assert!(world.degraded().contains("2 objects"), "{}", world.degraded());
        world.commands();

        let mut web = world.apply(vec![documents[0].clone()]);
        let write = world.written();
        world.accept(write);
        assert_eq!(outcomes(&mut web), [AppliedOutcome::Created]);
        let mut old = world.delete("old");
        assert_eq!(outcomes(&mut old), [AppliedOutcome::Deleted]);
        assert!(world.writes().is_empty(), "the store does not have it");
        assert_eq!(world.address("old"), None);
        assert_eq!(world.degraded(), "");
        assert_eq!(world.engine.membership.known().store.as_deref(), Some("store-2"));
    });
}

/// Rows: C-05, C-06
#[test]
fn a_start_without_the_store_has_what_it_said_last() {
    test(|mut world| {
        world.connect(view(&["n1", "n2"]), false);
        world.changed(vec![
            Change::Object(stored(&at("web", "10.96.0.7"), Origin::Api)),
            Change::Object(stored(&at("theirs", "10.96.0.8"), elsewhere("a.yaml"))),
            Change::Subnet(super::world::subnet("n2", "10.0.2.0/24")),
            Change::Container("n2".into(), container("b", "10.0.2.2")),
            Change::Container("n2".into(), container("c", "10.0.2.3")),
        ]);
        world.changed(vec![Change::ContainerGone("n2".into(), super::world::endpoint("c"))]);
        world.report(Report::Lease(12));
        let mut world = world.restart(StoreKind::Etcd);
        assert_eq!(world.endpoints("web"), ["10.0.2.2"]);
        assert!(world.engine.state.plan.services.contains_key(&key("web")), "committed");
        assert_eq!(world.peers(), ["n2 10.0.2.0/24"]);
        let known =
            Known { store: Some(STORE.to_owned()), revision: 3, lease: Some(12), lost: false };
        assert_eq!(*world.engine.membership.known(), known);
        let degraded = world.degraded();
        assert!(degraded.contains("snapshot of revision 3"), "{degraded}");

        // The store answers with the same: nothing is planned, nothing is written.
        let before = world.engine.state.progress.clone();
        let objects = vec![
            stored(&at("web", "10.96.0.7"), Origin::Api),
            stored(&at("theirs", "10.96.0.8"), elsewhere("a.yaml")),
        ];
        let mut whole = View { objects, ..view(&["n1", "n2"]) };
        whole
            .subnets
            .insert("10.0.2.0/24".parse().unwrap(), super::world::subnet("n2", "10.0.2.0/24"));
        whole.containers.push(("n2".into(), container("b", "10.0.2.2")));
        world.revision = 3;
        world.connect(whole.clone(), true);
        let after = &world.engine.state.progress;
        assert_eq!(
            (before.service_changes, before.endpoint_changes, before.syncs),
            (after.service_changes, after.endpoint_changes, after.syncs)
        );
        // What is missing in the same store was deleted, once.
        whole.objects.pop();
        whole.containers[0].1.record.ips = vec!["10.0.2.9".parse().unwrap()];
        world.reset(whole, STORE, true);
        assert_eq!(world.address("theirs"), None);
        assert_eq!(world.endpoints("web"), ["10.0.2.9"]);
        assert_eq!(world.engine.state.progress.service_changes, 1);
    });
}

#[test]
fn objects_of_the_embedded_store_are_not_published_in_silence() {
    test(|world| {
        let mut world = world.restart(StoreKind::Embedded);
        let mut web = world.apply(vec![service("web")]);
        assert_eq!(outcomes(&mut web), [AppliedOutcome::Created]);
        let mut world = world.restart(StoreKind::Etcd);
        assert!(world.degraded().contains("1 objects of this node are not in the cluster store"));
        world.connect(view(&["n1"]), true);
        assert!(world.address("web").is_some());
        let degraded = world.degraded();
        assert!(
            degraded.contains("1 objects of this node are not in the cluster store, default/web")
        );
        assert!(world.writes().is_empty());
        let mut web = world.apply(vec![service("web")]);
        let write = world.written();
        assert!(write.put[0].1.is_empty());
        world.accept(write);
        assert_eq!(outcomes(&mut web), [AppliedOutcome::Created]);
        assert_eq!(world.degraded(), "");
    });
}

/// Rows: C-14
#[test]
fn what_a_newer_version_wrote_is_left_as_it_was_known() {
    test(|mut world| {
        world.connect(view(&["n1", "n2"]), false);
        world.changed(vec![
            Change::Object(stored(&at("web", "10.96.0.7"), Origin::Api)),
            Change::Object(stored(&at("old", "10.96.0.8"), Origin::Api)),
            Change::Container("n2".into(), container("b", "10.0.2.2")),
        ]);
        let unreadable = [
            ("/causeway/v1/objects/service/default/web", "unknown field"),
            ("/causeway/v1/nodes/n2", "missing field"),
        ];
        let unreadable = unreadable.map(|(key, why)| (key.to_owned(), why.to_owned())).into();
        let containers = vec![("n2".to_owned(), container("b", "10.0.2.2"))];
        world.reset(View { unreadable, containers, ..view(&["n1"]) }, STORE, true);
        assert_eq!(world.endpoints("web"), ["10.0.2.2"]);
        assert_eq!(world.address("old"), None);
        assert_eq!(world.peers(), ["n2 "]);
        let degraded = world.degraded();
        assert!(degraded.contains("/causeway/v1/nodes/n2: missing field"), "{degraded}");
        assert!(degraded.contains("a newer causewayd may have written them"), "{degraded}");
        let objects = vec![stored(&at("web", "10.96.0.7"), Origin::Api)];
        world.reset(View { objects, ..view(&["n1", "n2"]) }, STORE, true);
        assert_eq!(world.degraded(), "");
    });
}

/// Rows: C-12
#[test]
fn manifests_that_the_store_refused_are_tried_again() {
    test(|mut world| {
        world.connect(view(&["n1"]), false);
        world.manifest("mine.json", &[at("web", "10.96.0.7")]);
        let write = world.written();
        world.refuse(&write, WriteError::Refused("no space".to_owned()));
        assert!(world.degraded().contains("no space"), "{}", world.degraded());
        assert_eq!(world.writes().len(), 0, "not at once");
        let due = world.engine.deadlines.manifests.due().expect("a time");
        assert!(world.engine.next_due() <= due);
        world.engine.deadlines.manifests.set(clock::now());
        world.engine.commit();
        let write = world.written();
        world.accept(write);
        assert_eq!((world.degraded().as_str(), world.engine.deadlines.manifests.due()), ("", None));
        assert_eq!(world.address("web").as_deref(), Some("10.96.0.7"));
    });
}

/// Rows: RH10
#[test]
fn a_store_that_takes_no_objects_degrades_the_node_until_it_does() {
    test(|mut world| {
        world.connect(view(&["n1"]), false);
        let denied = "the store takes no objects of this node: permission denied";
        world.report(Report::Denied(Some(denied.to_owned())));
        assert_eq!(world.degraded(), format!("cluster writes: {denied}\n"));
        assert!(world.engine.state.cluster.as_ref().unwrap().connection.is_ok());
        world.report(Report::Denied(None));
        assert_eq!(world.degraded(), "");
    });
}

#[test]
fn manifests_of_two_nodes_do_not_fight() {
    test(|mut world| {
        world.away();
        world.manifest("mine.json", &[at("web", "10.96.0.7"), at("other", "10.96.0.8")]);
        assert!(world.writes().is_empty());
        // They are read again when the store is back.
        let objects = vec![
            stored(&at("web", "10.96.0.7"), elsewhere("a.yaml")),
            stored(&at("other", "10.96.0.9"), elsewhere("a.yaml")),
        ];
        world.report(Report::Connection(Ok(())));
        world.reset(View { objects, ..view(&["n1"]) }, STORE, false);
        assert!(world.writes().is_empty(), "what counts is theirs");
        let warnings = world.engine.state.conditions.warnings_of(&Concern::Manifests);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(
            warnings[0].contains("it also stands in a.yaml of the manifest directory of node n2")
        );
        assert_eq!(world.address("other").as_deref(), Some("10.96.0.9"));
        // A user's change keeps whose it is.
        let mut changed = at("web", "10.96.0.7");
        changed["spec"]["ports"][0]["port"] = serde_json::json!(81);
        let mut web = world.apply(vec![changed]);
        let write = world.written();
        assert_eq!(write.put[0].0.origin, elsewhere("a.yaml"));
        world.accept(write);
        assert_eq!(outcomes(&mut web), [AppliedOutcome::Configured]);
        world.commands();
        // Theirs gone, ours counts.
        world.changed(vec![Change::ObjectGone(ObjectKind::Service, key("other"))]);
        let write = world.written();
        assert_eq!(write.put[0].0.origin, Origin::Manifest("mine.json".to_owned()));
        world.accept(write);
        assert_eq!(world.address("other").as_deref(), Some("10.96.0.8"));
        // Ours gone: that alone is deleted.
        world.manifest("mine.json", &[]);
        let write = world.written();
        let deleted: Vec<String> = write.delete.iter().map(|(_, key, _)| key.to_string()).collect();
        assert_eq!(deleted, ["default/other"]);
    });
}

#[test]
fn who_is_kept_out_of_the_cluster_writes_nothing() {
    test(|mut world| {
        world.connect(view(&["n1"]), false);
        world.report(Report::Excluded(Some("vxlan-id: 2 here, 1 in the store".to_owned())));
        assert!(refusal(&mut world.apply(vec![service("web")])).contains("vxlan-id: 2 here"));
        assert!(world.degraded().contains("cluster: vxlan-id: 2 here"));
        world.report(Report::Excluded(None));
        assert_eq!(world.degraded(), "");
        drop(world.apply(vec![service("web")]));
        assert_eq!(world.writes().len(), 1);
    });
}

/// Rows: RD3
#[test]
fn an_object_that_no_store_takes_is_refused_and_the_others_are_not() {
    test(|mut world| {
        world.report(Report::Connection(Ok(())));
        world.reset(view(&["n1"]), STORE, false);
        let mut large = service("large");
        let port = |n: u32| serde_json::json!({ "name": format!("p{n}"), "port": n });
        large["spec"]["ports"] = (1..=20_000).map(port).collect();
        let mut answer = world.apply(vec![large, service("web")]);
        let write = world.written();
        assert_eq!(write.put.len(), 1);
        world.accept(write);
        let applied = answer.try_recv().expect("answered").expect("taken");
        let refused = applied.results[0].refusal.as_ref().expect("a refusal");
        assert!(refused.reason.contains("1024 KiB are possible"), "{}", refused.reason);
        assert_eq!(applied.results[1].outcome, AppliedOutcome::Created);
    });
}

/// The cluster store is one thing, objects on this node's disk that do not decode are another.
#[test]
fn what_does_not_decode_is_told_after_the_store_has_answered() {
    test(|mut world| {
        let text = "stored objects that do not decode: default/web; apply them again";
        world.engine.state.conditions.set(Concern::StoredObjects, text.to_owned());
        world.away();
        let degraded = world.degraded();
        assert!(degraded.contains("unreachable") && degraded.contains(text), "{degraded}");
        world.report(Report::Connection(Ok(())));
        assert_eq!(world.degraded(), format!("store: {text}\n"));
        // The list puts them on this node's disk again.
        let objects = vec![stored(&at("web", "10.96.0.7"), Origin::Api)];
        world.reset(View { objects, ..view(&["n1"]) }, STORE, true);
        assert_eq!(world.degraded(), "");
    });
}

#[test]
fn what_does_not_decode_is_told_until_it_is_applied_again() {
    test(|world| {
        let mut world = world.restart(StoreKind::Embedded);
        let text = "stored objects that do not decode: default/web; apply them again";
        world.engine.state.conditions.set(Concern::StoredObjects, text.to_owned());
        let mut web = world.apply(vec![service("web")]);
        assert_eq!(outcomes(&mut web), [AppliedOutcome::Created]);
        assert_eq!(world.degraded(), "");
    });
}
