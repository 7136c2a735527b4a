use super::*;
use crate::Netlink;
use crate::testing::{enter, other};

/// Rows: RB1
#[test]
fn a_namespace_is_told_from_a_later_one_of_the_same_number() {
    let _netlink = enter();
    let there = other();
    let id = there.id().expect("an identity");
    assert!(id.cookie.is_some(), "Linux 5.14 and later have cookies");
    let inside = Netlink::open_in(&there).expect("a connection");
    assert_eq!(there.id_by(&inside).expect("the same"), id);
    assert!(id.is_same(&there.id().expect("the same")));
    let later = NetnsId { cookie: id.cookie.map(|cookie| cookie + 1), ..id };
    assert!(!id.is_same(&later));
    // What a kernel without cookies wrote.
    assert!(id.is_same(&NetnsId { cookie: None, ..id }));
    assert!(!id.is_same(&NetnsId { cookie: None, inode: id.inode + 1, ..id }));
    assert!(!Netns::current().and_then(|own| own.id()).expect("an identity").is_same(&id));
}

/// Rows: RB1
#[test]
fn a_place_tells_whether_its_namespace_lives() {
    let _netlink = enter();
    let path = "/proc/thread-self/ns/net";
    let own = Netns::current().and_then(|own| own.id()).expect("an identity");
    let gone = other().id().expect("an identity");
    assert_eq!(NetnsLife::at(path, Some(&own)), NetnsLife::Lives);
    assert_eq!(NetnsLife::at(path, None), NetnsLife::Lives);
    assert_eq!(NetnsLife::at(path, Some(&gone)), NetnsLife::Gone);
    assert_eq!(NetnsLife::at("/proc/4294967295/ns/net", Some(&own)), NetnsLife::Gone);
    assert_eq!(NetnsLife::at("/dev/null", Some(&own)), NetnsLife::Unknown);
}

/// Rows: RB1
#[test]
fn a_namespace_is_found_by_its_processes() {
    let own = Netns::open("/proc/self/ns/net").and_then(|own| own.id()).expect("an identity");
    assert!(own.has_process());
    assert!(!other().id().expect("an identity").has_process());
}
