//! Followers.

use causeway_model::ObjectKind;

use super::*;
use crate::testing::*;

fn line(lines: &mut Lines) -> Option<(String, Value)> {
    let mut context = Context::from_waker(std::task::Waker::noop());
    let Poll::Ready(Some(line)) = lines.poll(&mut context) else { return None };
    assert!(line.ends_with('\n'), "a line: {line:?}");
    let mut event: Value = serde_json::from_str(&line).expect("JSON");
    Some((event["type"].as_str().expect("a type").to_owned(), event["object"].take()))
}

fn brief(lines: &mut Lines) -> Vec<String> {
    let mut all = Vec::new();
    while let Some((kind, object)) = line(lines) {
        let name = object["metadata"]["name"].as_str().unwrap_or("list").to_owned();
        all.push(format!("{kind} {name}"));
    }
    all
}

/// Rows: U-07
#[test]
fn a_follower_gets_the_list_and_then_each_change_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut state = state(folder.path());
    let mut watchers = Watchers::default();
    commit(&mut state, objects(WEB));
    let mut services = watchers.add(&state, Kind::Services, None);
    let mut elsewhere = watchers.add(&state, Kind::Services, Some("default".to_owned()));
    let mut endpoints = watchers.add(&state, Kind::Endpoints, None);
    let mut pods = watchers.add(&state, Kind::Pods, None);
    let (kind, list) = line(&mut services).expect("the list");
    assert_eq!((kind.as_str(), list["items"].as_array().expect("items").len()), ("RESET", 1));
    for (facts, wanted) in [
        (objects(DNS), ["ADDED dns", "", "ADDED dns", ""]),
        (vec![attach("a", "10.0.1.2", "web")], ["", "", "MODIFIED web", "ADDED a"]),
        (objects(DNS), ["", "", "", ""]),
        (vec![detach("a")], ["", "", "MODIFIED web", "DELETED a"]),
        (
            vec![causeway_model::Event::Delete(ObjectKind::Service, named("default", "web"))],
            ["DELETED web", "DELETED web", "DELETED web", ""],
        ),
    ] {
        for lines in [&mut elsewhere, &mut endpoints, &mut pods] {
            let first = brief(lines);
            assert!(first.is_empty() || first == ["RESET list"], "{first:?}");
        }
        let commit = commit(&mut state, facts);
        watchers.touched(&state, &commit.touched);
        let all = [&mut services, &mut elsewhere, &mut endpoints, &mut pods];
        let got = all.map(|lines| brief(lines).join(" "));
        assert_eq!(got, wanted);
    }
}

#[test]
fn many_changes_at_once_are_one_list() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut state = state(folder.path());
    let mut watchers = Watchers::default();
    let mut lines = watchers.add(&state, Kind::Services, None);
    assert_eq!(brief(&mut lines), ["RESET list"]);
    let many: String = (0..200)
        .map(|n| {
            format!(
                "---\n{}\n",
                WEB.replace("web", &format!("w{n}")).replace(".0.10", &format!(".1.{n}"))
            )
        })
        .collect();
    let commit = commit(&mut state, objects(&many));
    watchers.touched(&state, &commit.touched);
    let (kind, list) = line(&mut lines).expect("the list");
    assert_eq!((kind.as_str(), list["items"].as_array().expect("items").len()), ("RESET", 200));
    assert!(line(&mut lines).is_none());
}

#[test]
fn a_follower_that_does_not_read_is_let_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut state = state(folder.path());
    let mut watchers = Watchers::default();
    let lines = watchers.add(&state, Kind::Pods, None);
    let mut rounds = 0;
    while watchers.count() == 1 {
        let healthy = rounds % 2 == 1;
        let fact = health("a", healthy);
        let facts = if rounds == 0 { vec![attach("a", "10.0.1.2", "web")] } else { vec![fact] };
        let commit = commit(&mut state, facts);
        watchers.touched(&state, &commit.touched);
        rounds += 1;
        assert!(rounds < 2 * WAITING, "an unread line waits for ever");
    }
    drop(lines);
    // Nor do few large lines wait.
    let mut lines = watchers.add(&state, Kind::Pods, None);
    assert_eq!(brief(&mut lines), ["RESET list"]);
    let large = "x".repeat(WAITING_BYTES / 4);
    let mut rounds = 0;
    while watchers.count() == 1 {
        let mut fact = attach("a", "10.0.1.2", "web");
        if let causeway_model::Event::Attach { record, .. } = &mut fact {
            record.labels.insert("large".to_owned(), format!("{rounds}{large}"));
        }
        let commit = commit(&mut state, vec![fact]);
        watchers.touched(&state, &commit.touched);
        rounds += 1;
        assert!(rounds <= 6, "all of it waits");
    }
    drop(lines);
    // One that has gone away is forgotten with the next change.
    drop(watchers.add(&state, Kind::Pods, None));
    let commit = commit(&mut state, vec![attach("b", "10.0.1.3", "web")]);
    watchers.touched(&state, &commit.touched);
    assert_eq!(watchers.count(), 0);
}

/// Rows: O-60
#[test]
fn a_follower_of_nodes_hears_who_comes_dies_and_goes() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut state = state(folder.path());
    let mut watchers = Watchers::default();
    let mut nodes = watchers.add(&state, Kind::Nodes, None);
    assert_eq!(brief(&mut nodes), ["RESET list"]);
    let touched = || Touched { nodes: ["n2".to_owned()].into(), ..Touched::default() };
    let peer = causeway_model::Peer {
        name: "n2".to_owned(),
        ips: vec![ip("192.0.2.2")],
        subnets: vec!["10.0.2.0/24".parse().expect("a network")],
        vtep: None,
        mtu: None,
        record: None,
        since: 0,
    };
    state.peers.insert("n2".to_owned(), peer);
    watchers.touched(&state, &touched());
    assert_eq!(brief(&mut nodes), ["ADDED n2"]);
    watchers.touched(&state, &touched());
    assert_eq!(brief(&mut nodes), [""; 0], "nothing is new");
    state.peers.get_mut("n2").expect("n2").subnets.clear();
    watchers.touched(&state, &touched());
    assert_eq!(brief(&mut nodes), ["MODIFIED n2"]);
    state.peers.clear();
    watchers.touched(&state, &touched());
    assert_eq!(brief(&mut nodes), ["DELETED n2"]);
}
