//! Nodes, their subnets and containers.

use std::time::Duration;

use causeway_api::AppliedOutcome;
use causeway_model::EndpointKey;
use causeway_source::Origin;
use causeway_source::cluster::{Change, Command, Known, Report, Subnets, View, WriteError};
use serde_json::{Value, json};

use super::world::{
    World, at, container, endpoint, node, record, refusal, stored, subnet, test, view,
};
use crate::clock;
use crate::conditions::Concern;
use crate::event::Event;
use crate::log::Said;
use crate::membership::waiting;
use crate::state::OverlayState;

fn web(world: &mut World) {
    world.changed(vec![Change::Object(stored(&at("web", "10.96.0.7"), Origin::Api))]);
}

fn published(world: &mut World) -> Vec<(EndpointKey, Option<bool>)> {
    let one = |command| {
        let Command::Container(key, container) = command else { return None };
        Some((key, container.map(|one| one.healthy)))
    };
    world.commands().into_iter().filter_map(one).collect()
}

/// Rows: S-30
#[test]
fn services_have_the_containers_of_all_nodes() {
    test(|mut world| {
        world.connect(view(&["n1", "n2"]), false);
        web(&mut world);
        world.container("a", 1, Some("10.0.1.2"));
        assert_eq!(published(&mut world), [(endpoint("a"), Some(true))]);
        // One key on two nodes is two containers.
        world.changed(vec![Change::Container("n2".into(), container("a", "10.0.2.2"))]);
        assert_eq!(world.endpoints("web"), ["10.0.1.2", "10.0.2.2"]);
        // It comes back as it is: nothing is said or done.
        world.changed(vec![Change::Container("n1".into(), container("a", "10.0.9.9"))]);
        world.changed(vec![Change::ContainerGone("n1".into(), endpoint("a"))]);
        assert_eq!(world.endpoints("web"), ["10.0.1.2", "10.0.2.2"]);
        let mut ill = container("a", "10.0.2.2");
        ill.healthy = false;
        world.changed(vec![Change::Container("n2".into(), ill)]);
        let (_, healthy) = world.engine.state.index.container("n2", &endpoint("a")).unwrap();
        assert!(!healthy);
        assert_eq!(published(&mut world), []);
        // The word about ours goes to all.
        world.on_event(Event::Health { key: endpoint("a"), healthy: false });
        assert_eq!(published(&mut world), [(endpoint("a"), Some(false))]);
        world.on_event(Event::Labels {
            container_id: "a".to_owned(),
            labels: [("tier".to_owned(), "db".to_owned())].into(),
        });
        assert_eq!(published(&mut world), [(endpoint("a"), Some(false))]);
        let (theirs, _) = world.engine.state.index.container("n2", &endpoint("a")).unwrap();
        assert!(!theirs.record.labels.contains_key("tier"));
        world.container("a", 9, None);
        assert_eq!(published(&mut world), [(endpoint("a"), None)]);
        assert_eq!(world.endpoints("web"), ["10.0.2.2"]);
    });
}

#[test]
fn others_are_not_told_the_path_of_a_containers_namespace() {
    test(|mut world| {
        world.commands();
        let mut ours = record("a", "10.0.1.2");
        ours.netns = Some("/run/netns/a".to_owned());
        world.event("a", 1, Some(ours));
        let all = world.engine.state.index.containers_of("n1");
        assert_eq!(all.filter(|(one, _)| one.record.netns.is_some()).count(), 1);
        let said = world.commands();
        let [Command::Container(_, Some(one))] = &said[..] else { panic!("{said:?}") };
        assert_eq!(one.record, record("a", "10.0.1.2"));
        let mut world = world.restart(crate::config::StoreKind::Etcd);
        let said = world.commands();
        let all = said.iter().find_map(|command| {
            let Command::Containers(all) = command else { return None };
            Some(all)
        });
        assert_eq!(all.expect("said")[0].record, record("a", "10.0.1.2"));
    });
}

/// Rows: C-02, C-03, C-12
#[test]
fn what_a_node_says_of_itself_is_all_of_it_at_a_start() {
    test(|mut world| {
        // No store has answered.
        let said = world.commands();
        let [Command::Node(record), Command::Containers(none), Command::Reach(reach)] = &said[..]
        else {
            panic!("{said:?}")
        };
        assert_eq!((&*record.identity.node, &*record.identity.machine_id), ("n1", "machine-1"));
        assert_eq!((none.len(), &reach.ips), (0, &record.ips));
        world.container("a", 1, Some("10.0.1.2"));
        world.container("b", 2, Some("10.0.1.3"));
        world.container("b", 3, None);
        assert_eq!(published(&mut world).len(), 3);
        let mut world = world.restart(crate::config::StoreKind::Etcd);
        let said = world.commands();
        let all = said.iter().find_map(|command| {
            let Command::Containers(all) = command else { return None };
            Some(all)
        });
        let all: Vec<_> = all.expect("said").iter().map(|one| one.record.key.clone()).collect();
        assert_eq!(all, [endpoint("a")]);
    });
}

/// Rows: RD2
#[test]
fn a_node_that_leaves_the_default_network_is_no_longer_refused_a_part() {
    let [inside, further, outside] = ["10.0.7.7", "10.0.8.8", "192.0.2.1"];
    let goes = |world: &mut World, to: &str| {
        world.engine.on_addresses(vec![to.parse().expect("an address")]);
        world.engine.state.conditions.warnings_of(&Concern::ClusterNetwork).to_vec()
    };
    test(|mut world| {
        // Among others it keeps the node from its work.
        assert!(goes(&mut world, inside).is_empty());
        assert!(world.degraded().contains("10.0.0.0/16, holds 10.0.7.7"), "{}", world.degraded());
        assert!(goes(&mut world, outside).is_empty());
        assert!(!world.degraded().contains("10.0.0.0/16"), "{}", world.degraded());

        let mut world = world.restart(crate::config::StoreKind::Embedded);
        let said = goes(&mut world, inside);
        assert!(said.len() == 1 && said[0].contains("10.0.0.0/16, holds 10.0.7.7"), "{said:?}");
        let said = goes(&mut world, further);
        assert!(said.len() == 1 && said[0].contains("10.0.0.0/16, holds 10.0.8.8"), "{said:?}");
        assert!(goes(&mut world, outside).is_empty());
        assert_eq!(world.degraded(), "");
    });
}

/// Rows: C-13, O-60, O-61
#[test]
fn a_dead_nodes_containers_go_and_its_subnet_stays() {
    test(|mut world| {
        world.connect(view(&["n1", "n2", "n3"]), false);
        web(&mut world);
        world.changed(vec![
            Change::Subnet(subnet("n2", "10.0.2.0/24")),
            Change::Container("n2".into(), container("b", "10.0.2.2")),
            Change::Container("n3".into(), container("c", "10.0.3.2")),
        ]);
        assert_eq!(world.peers(), ["n2 10.0.2.0/24", "n3 "]);
        // The store has answered for long.
        world.engine.membership.forget_connection(Duration::from_secs(40));
        world.changed(vec![
            Change::ContainerGone("n2".into(), endpoint("b")),
            Change::NodeGone("n2".into()),
        ]);
        assert_eq!(world.endpoints("web"), ["10.0.3.2"]);
        assert_eq!(world.peers(), ["n2 10.0.2.0/24 silent", "n3 "]);
        // It is back.
        world.changed(vec![
            Change::Node(node("n2")),
            Change::Container("n2".into(), container("b", "10.0.2.2")),
        ]);
        assert_eq!(world.endpoints("web"), ["10.0.2.2", "10.0.3.2"]);
        assert_eq!(world.peers(), ["n2 10.0.2.0/24", "n3 "]);
        // It lives: it is believed to put the record back, for a while.
        world.changed(vec![Change::SubnetGone("10.0.2.0/24".parse().unwrap())]);
        assert_eq!(world.peers(), ["n2 10.0.2.0/24", "n3 "]);
        doubts_end(&mut world);
        assert_eq!(world.peers(), ["n2 ", "n3 "]);
        // Another machine of that name: what the old one had is not where the new one is.
        let mut old = subnet("n2", "10.0.9.0/24");
        old.owner.machine_id = "old".to_owned();
        world.changed(vec![Change::Subnet(old)]);
        assert_eq!(world.peers(), ["n2 ", "n3 "]);
    });
}

/// What is in doubt is so for long enough.
fn doubts_end(world: &mut World) {
    world.engine.membership.end_grace_of_subnets(clock::now());
    world.engine.end_grace();
}

fn overlay(world: &mut World, problems: &[(&str, &str)]) {
    let problems = problems.iter().map(|(name, why)| ((*name).to_owned(), (*why).to_owned()));
    world.on_event(Event::Overlay(OverlayState {
        problems: problems.collect(),
        ..Default::default()
    }));
}

/// Rows: O-47
#[test]
fn a_node_that_joins_is_no_trouble_unless_it_says_nothing_for_long() {
    test(|mut world| {
        world.connect(view(&["n1"]), false);
        world.changed(vec![Change::Node(node("n2"))]);
        overlay(&mut world, &[("n2", "waiting for node n2"), ("n3", "its address is ours")]);
        assert_eq!(world.degraded(), "overlay: node n3: its address is ours\n");
        // Other things happen meanwhile.
        world.changed(vec![Change::Node(node("n4")), Change::Subnet(subnet("n4", "10.0.4.0/24"))]);
        let waiting = &mut world.engine.state.waiting;
        assert_eq!(waiting.keys().collect::<Vec<_>>(), ["n2"]);
        let until = waiting["n2"].expect("a moment");
        assert!(until > clock::now() && until < clock::now() + Duration::from_secs(11));
        assert!(world.engine.next_due() <= until);
        world.engine.state.waiting.insert("n2".to_owned(), Some(clock::now()));
        world.engine.commit();
        assert!(world.degraded().contains("node n2: waiting for node n2"), "{}", world.degraded());
        assert!(waiting::due(&world.engine.state.waiting).is_none(), "once");
        world.changed(vec![Change::Subnet(subnet("n2", "10.0.2.0/24"))]);
        overlay(&mut world, &[]);
        assert_eq!((world.degraded().as_str(), world.engine.state.waiting.len()), ("", 0));
        // Once more: a moment of its own.
        world.changed(vec![Change::SubnetGone("10.0.2.0/24".parse().unwrap())]);
        doubts_end(&mut world);
        overlay(&mut world, &[("n2", "waiting for node n2")]);
        assert_eq!(world.degraded(), "");
    });
}

/// Rows: C-10
#[test]
fn nodes_that_vanish_together_after_an_outage_are_held() {
    test(|mut world| {
        world.connect(view(&["n1", "n2", "n3"]), false);
        web(&mut world);
        world.changed(vec![
            Change::Container("n2".into(), container("b", "10.0.2.2")),
            Change::Container("n3".into(), container("c", "10.0.3.2")),
        ]);
        world.away();
        world.report(Report::Connection(Ok(())));
        world.changed(vec![
            Change::NodeGone("n1".into()),
            Change::NodeGone("n2".into()),
            Change::ContainerGone("n2".into(), endpoint("b")),
            Change::NodeGone("n3".into()),
            Change::ContainerGone("n3".into(), endpoint("c")),
        ]);
        assert_eq!(world.endpoints("web"), ["10.0.2.2", "10.0.3.2"]);
        assert!(
            world.degraded().contains("held nodes: n2, n3 disappeared"),
            "{}",
            world.degraded()
        );
        assert!(world.engine.membership.due().is_some());
        world.changed(vec![
            Change::Node(node("n2")),
            Change::Container("n2".into(), container("b", "10.0.2.2")),
            Change::Node(node("n3")),
            Change::Container("n3".into(), container("c", "10.0.3.2")),
        ]);
        assert_eq!(world.degraded(), "");
        assert_eq!(world.engine.membership.due(), None);
    });
}

/// Rows: O-60
#[test]
fn a_death_is_believed_from_the_first_minute_of_a_new_node() {
    test(|mut world| {
        world.connect(view(&["n1", "n2"]), false);
        web(&mut world);
        world.changed(vec![Change::Container("n2".into(), container("b", "10.0.2.2"))]);
        assert_eq!(world.endpoints("web"), ["10.0.2.2"]);
        world.changed(vec![
            Change::NodeGone("n2".into()),
            Change::ContainerGone("n2".into(), endpoint("b")),
        ]);
        assert_eq!(world.endpoints("web"), Vec::<String>::new());
        assert_eq!(world.degraded(), "");
    });
}

/// Rows: C-10
#[test]
fn a_wiped_store_takes_no_peer_away_at_once() {
    test(|mut world| {
        world.connect(view(&["n1", "n2", "n3"]), false);
        web(&mut world);
        world.changed(vec![
            Change::Subnet(subnet("n2", "10.0.2.0/24")),
            Change::Container("n2".into(), container("b", "10.0.2.2")),
            Change::Container("n3".into(), container("c", "10.0.3.2")),
        ]);
        // n3 has said half of it already.
        world.reset(view(&["n1", "n3"]), "store-2", false);
        assert_eq!(world.endpoints("web"), ["10.0.2.2", "10.0.3.2"]);
        assert_eq!(world.peers(), ["n2 10.0.2.0/24", "n3 "]);
        // A list of the same store says no more than that.
        let again = View { objects: Vec::new(), ..view(&["n1", "n3"]) };
        world.reset(again, "store-2", true);
        assert_eq!(world.endpoints("web"), ["10.0.2.2", "10.0.3.2"]);
        assert_eq!(world.peers(), ["n2 10.0.2.0/24", "n3 "]);
        assert!(world.degraded().contains("held nodes: n2"));
    });
}

/// Rows: C-10
#[test]
fn nobody_in_doubt_is_given_up_while_the_store_is_away() {
    test(|mut world| {
        world.connect(view(&["n1", "n2"]), false);
        web(&mut world);
        world.changed(vec![
            Change::Subnet(subnet("n2", "10.0.2.0/24")),
            Change::Container("n2".into(), container("b", "10.0.2.2")),
        ]);
        world.away();
        world.report(Report::Connection(Ok(())));
        // Its time is over at once.
        world.engine.membership.forget_connection(Duration::ZERO);
        let refused = Report::Connection(Err("connection refused".to_owned()));
        let known =
            Known { store: Some("store-2".to_owned()), revision: 9, lease: None, lost: false };
        let wiped = Report::Reset { view: view(&["n1"]), known, same: false };
        for report in [wiped, refused] {
            world.engine.on_event(Event::Cluster(report));
        }
        world.engine.membership.end_grace_of_subnets(clock::now());
        world.engine.commit();
        assert_eq!(world.engine.membership.due(), None);
        assert_eq!(world.endpoints("web"), ["10.0.2.2"]);
        assert_eq!(world.peers(), ["n2 10.0.2.0/24"]);
        // From now on it can be heard of.
        world.report(Report::Connection(Ok(())));
        assert_eq!(world.endpoints("web"), [""; 0]);
        assert_eq!(world.peers(), ["n2 10.0.2.0/24 silent"]);
        assert!(world.engine.membership.due().is_some());
    });
}

/// Rows: C-10
#[test]
fn the_subnet_of_a_held_node_is_held_with_it() {
    test(|mut world| {
        world.connect(view(&["n1", "n2", "n3"]), false);
        world.changed(vec![
            Change::Subnet(subnet("n2", "10.0.2.0/24")),
            Change::Subnet(subnet("n3", "10.0.3.0/24")),
        ]);
        // Away for longer than any lease.
        world.away();
        world.connect(view(&["n1"]), true);
        assert_eq!(world.peers(), ["n2 10.0.2.0/24", "n3 10.0.3.0/24"]);
        world.changed(vec![
            Change::Node(node("n2")),
            Change::Subnet(subnet("n2", "10.0.2.0/24")),
            Change::Node(node("n3")),
            Change::Subnet(subnet("n3", "10.0.3.0/24")),
        ]);
        assert_eq!(world.engine.membership.due(), None);
        world.away();
        world.report(Report::Connection(Ok(())));
        world.changed(vec![
            Change::NodeGone("n2".into()),
            Change::NodeGone("n3".into()),
            Change::SubnetGone("10.0.2.0/24".parse().unwrap()),
        ]);
        assert_eq!(world.peers(), ["n2 10.0.2.0/24", "n3 10.0.3.0/24"]);
    });
}

/// Rows: C-13
#[test]
fn a_node_that_spoke_and_died_in_one_report_is_dead() {
    test(|mut world| {
        world.connect(view(&["n1", "n2"]), false);
        web(&mut world);
        world.engine.membership.forget_connection(Duration::from_secs(40));
        world.changed(vec![
            Change::Node(node("n2")),
            Change::Container("n2".into(), container("b", "10.0.2.2")),
            Change::NodeGone("n2".into()),
            Change::ContainerGone("n2".into(), endpoint("b")),
        ]);
        assert_eq!(world.endpoints("web"), [""; 0]);
        assert_eq!(world.peers(), [""; 0]);
        // And one that came after the other, dead one of its name lives.
        world.changed(vec![
            Change::NodeGone("n2".into()),
            Change::Node(node("n2")),
            Change::Container("n2".into(), container("c", "10.0.2.3")),
        ]);
        assert_eq!(world.endpoints("web"), ["10.0.2.3"]);
        assert_eq!(world.peers(), ["n2 "]);
    });
}

/// Rows: C-14
#[test]
fn what_a_newer_version_wrote_of_a_node_is_as_it_was() {
    test(|mut world| {
        world.connect(view(&["n1", "n2"]), false);
        web(&mut world);
        world.changed(vec![
            Change::Subnet(subnet("n2", "10.0.2.0/24")),
            Change::Container("n2".into(), container("b", "10.0.2.2")),
        ]);
        let web = at("web", "10.96.0.7");
        let at = |key: &str| (format!("/causeway/v1/{key}"), "missing field".to_owned());
        let unreadable = [at("containers/n2/net/b/eth0"), at("subnets/10.0.2.0-24")].into();
        let services = vec![stored(&web, Origin::Api)];
        world.reset(View { unreadable, objects: services, ..view(&["n1", "n2"]) }, "store-1", true);
        assert_eq!(world.endpoints("web"), ["10.0.2.2"]);
        assert_eq!(world.peers(), ["n2 10.0.2.0/24"]);
    });
}

fn node_file(world: &World) -> Value {
    let text = std::fs::read(world.folder.path().join("node.json")).expect("node.json");
    serde_json::from_slice(&text).expect("JSON")
}

/// Rows: O-38, C-08
#[test]
fn a_node_whose_subnet_was_taken_gives_no_addresses_until_it_has_another() {
    test(|mut world| {
        world.connect(view(&["n1", "n2"]), false);
        let ours = "10.0.1.0/24".parse().unwrap();
        world.report(Report::Subnets(Subnets::Held(vec![ours])));
        assert_eq!(node_file(&world)["subnets"], serde_json::json!(["10.0.1.0/24"]));
        world.container("a", 1, Some("10.0.1.2"));
        world.commands();
        let owner = node("n2").identity;
        world.report(Report::Subnets(Subnets::Lost { subnet: ours, owner }));
        let file = node_file(&world);
        assert_eq!(file["subnets"], serde_json::json!([]));
        assert!(file["subnetRefused"].as_str().is_some_and(|why| why.contains("n2")), "{file}");
        assert!(world.degraded().contains("subnet: node n2 (machine machine-n2) took 10.0.1.0/24"));
        let another = |world: &mut World| {
            let said = world.commands();
            said.iter().filter(|one| matches!(one, Command::TakeAnotherSubnet)).count()
        };
        assert_eq!(another(&mut world), 0, "a container is there");
        world.container("a", 2, None);
        assert_eq!(another(&mut world), 1);
        world.container("b", 3, Some("10.0.7.2"));
        world.container("b", 4, None);
        assert_eq!(another(&mut world), 0, "said once");
        world.report(Report::Subnets(Subnets::Held(vec!["10.0.5.0/24".parse().unwrap()])));
        assert_eq!(node_file(&world)["subnets"], serde_json::json!(["10.0.5.0/24"]));
        assert!(node_file(&world).get("subnetRefused").is_none());
        assert_eq!(world.degraded(), "");
    });
}

/// What a delete of a node is answered: what is wrong with it, or that it goes.
fn deleted(answer: &mut super::world::Answer) -> Result<AppliedOutcome, String> {
    let applied = answer.try_recv().expect("answered").expect("not refused");
    match &applied.results[0].refusal {
        Some(refusal) => Err(refusal.reason.clone()),
        None => Ok(applied.results[0].outcome),
    }
}

/// Rows: RB8
#[test]
fn a_node_can_be_deleted_once_it_is_gone() {
    test(|mut world| {
        let view = View {
            subnets: [subnet("n2", "10.0.2.0/24"), subnet("n3", "10.0.3.0/24")]
                .map(|record| (record.subnet, record))
                .into(),
            ..view(&["n1", "n2", "n3"])
        };
        world.connect(view, false);
        for (name, why) in [("n1", "it is this node"), ("n2", "it lives")] {
            let refused = deleted(&mut world.delete_node(name)).expect_err("refused");
            assert!(refused.starts_with(why) && refused.contains("causewayd leave"), "{refused}");
        }
        assert_eq!(deleted(&mut world.delete_node("n9")), Ok(AppliedOutcome::NotFound));
        assert_eq!(world.writes().len(), 0);
        // What was applied for a node that lives is no node.
        let document = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n2" } });
        world.changed(vec![Change::Object(stored(&document, Origin::Api))]);
        let mut answer = world.delete_node("n2");
        let write = world.written();
        assert_eq!((write.delete.len(), write.nodes.len()), (1, 0));
        world.accept(write);
        let applied = answer.try_recv().expect("answered").expect("not refused");
        assert!(applied.results[0].warnings[0].contains("it lives"), "{applied:?}");
        // Services of its manifest directory stay, and stay its own.
        let file = Origin::Elsewhere { node: "n2".into(), file: "web.yaml".into() };
        world.changed(vec![Change::Object(stored(&at("web", "10.96.0.7"), file))]);
        world.changed(vec![Change::NodeGone("n2".into())]);
        assert_eq!(world.peers(), ["n2 10.0.2.0/24 silent", "n3 10.0.3.0/24"]);
        let refused = deleted(&mut world.delete("web")).expect_err("refused");
        assert!(refused.contains("manifest directory of node n2"), "{refused}");
        let mut answer = world.delete_node("n2");
        let write = world.written();
        assert_eq!((write.put.len(), write.delete.len()), (0, 0));
        assert_eq!(write.nodes, ["n2"]);
        // It came back meanwhile.
        world.refuse(&write, WriteError::Refused("node n2 lives".to_owned()));
        assert!(refusal(&mut answer).contains("node n2 lives"));
        let mut answer = world.delete_node("n2");
        let write = world.written();
        world.accept(write);
        assert_eq!(deleted(&mut answer), Ok(AppliedOutcome::Deleted));
        assert_eq!(world.peers(), ["n3 10.0.3.0/24"]);
        // Nobody else can delete what its files had.
        let answer = world.delete("web");
        let write = world.written();
        world.accept(write);
        drop(answer);
        assert_eq!(world.address("web"), None);
        // One that vanished at a doubtful time may live.
        world.away();
        world.report(Report::Connection(Ok(())));
        world.changed(vec![Change::NodeGone("n3".into())]);
        let refused = deleted(&mut world.delete_node("n3")).expect_err("refused");
        assert!(refused.contains("may live"), "{refused}");
        world.away();
        assert!(refusal(&mut world.delete_node("n3")).contains("unreachable"));
    });
}

/// Rows: RH1, RH3
#[test]
fn what_nodes_live_on_follows_the_nodes_and_the_store() {
    test(|mut world| {
        let denied = |world: &World| -> Vec<String> {
            world.engine.state.plan.denied().map(|(key, ..)| key.name.to_string()).collect()
        };
        world.connect(view(&["n1"]), false);
        let services = [("peer", "192.0.2.2"), ("named", "198.51.100.9"), ("moved", "192.0.2.77")];
        for (name, address) in services {
            world.changed(vec![Change::Object(stored(&at(name, address), Origin::Api))]);
        }
        for (name, address) in [("own", "192.0.2.1"), ("store", "192.0.2.9")] {
            world.changed(vec![Change::Object(stored(&at(name, address), Origin::Api))]);
        }
        web(&mut world);
        assert_eq!(denied(&world), ["own", "store"]);
        // A node joins; the store's name leads somewhere; this node moves.
        world.changed(vec![Change::Node(node("n2"))]);
        assert_eq!(denied(&world), ["own", "peer", "store"]);
        world.on_event(Event::StoreAddresses(["198.51.100.9".parse().unwrap()].into()));
        assert_eq!(denied(&world), ["named", "own", "peer", "store"]);
        world.on_event(Event::Addresses(vec!["192.0.2.77".parse().unwrap()]));
        assert_eq!(denied(&world), ["moved", "named", "peer", "store"]);
        // A container of the address of a node is none, and one that had it before it was a node's.
        for (number, ip) in ["127.0.0.1", "192.0.2.2", "192.0.2.9", "10.0.2.5"].iter().enumerate() {
            let one = container(&format!("c{number}"), ip);
            world.changed(vec![Change::Container("n2".into(), one)]);
        }
        assert_eq!(world.endpoints("web"), ["10.0.2.5"]);
        world.on_event(Event::StoreAddresses(["10.0.2.5".parse().unwrap()].into()));
        assert_eq!(world.endpoints("web"), [""; 0]);
        assert_eq!(denied(&world), ["moved", "peer", "store"]);
        let left_out = crate::guard::left_out(&world.engine.state);
        for part in
            ["its address 127.0.0.1 is a loopback", "10.0.2.5 is the address of the cluster"]
        {
            assert!(left_out.iter().any(|line| line.contains(part)), "{left_out:?}");
        }
    });
}

/// Rows: RH7
#[test]
fn records_that_change_all_the_time_are_said_now_and_then() {
    let mut said = Said::default();
    let start = clock::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    let heard = (0..100).filter(|_| said.may(Concern::HeldNodes, start)).count();
    assert_eq!(heard, 1);
    assert!(said.may(Concern::ClusterRecords, start), "another thing");
    assert!(!said.may(Concern::HeldNodes, after(9)) && said.may(Concern::HeldNodes, after(10)));
}
