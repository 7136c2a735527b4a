use std::net::IpAddr;
use std::time::Duration;

use causeway_model::Labels;

use super::*;
use crate::clock;

const TTL: Duration = Duration::from_secs(40);

fn identity(node: &str, machine: &str) -> NodeIdentity {
    NodeIdentity { node: node.to_owned(), machine_id: machine.to_owned() }
}

fn ip(number: u8) -> IpAddr {
    [172, 18, 0, number].into()
}

fn node(name: &str, machine: &str, created: i64) -> NodeRecord {
    NodeRecord {
        identity: identity(name, machine),
        boot_id: String::new(),
        ips: vec![ip(2)],
        labels: Labels::new(),
        version: String::new(),
        started: 1,
        config: String::new(),
        created,
    }
}

fn part(subnet: &str, owner: &NodeIdentity, at: u8, created: i64) -> SubnetRecord {
    let (subnet, owner) = (subnet.parse().expect("a network"), owner.clone());
    SubnetRecord { subnet, owner, ips: vec![ip(at)], vtep: None, mtu: None, created }
}

fn parts(all: &[SubnetRecord]) -> BTreeMap<IpNetwork, SubnetRecord> {
    all.iter().map(|record| (record.subnet, record.clone())).collect()
}

fn living(all: &[NodeRecord]) -> BTreeMap<String, NodeRecord> {
    all.iter().map(|record| (record.identity.node.clone(), record.clone())).collect()
}

/// Rows: RH7
#[test]
fn a_name_changes_hands_when_its_key_was_gone() {
    let now = clock::now();
    let (known, mut contest) = (node("n2", "m2", 5), Newcomers::default());
    let mut read = |new: &NodeRecord| contest.node(Some(&known), new, now + TTL);
    assert!(read(&node("n2", "m2", 5)) && read(&node("n2", "m2", 9)), "the machine itself");
    assert!(read(&node("n2", "m9", 6)), "made anew");
    assert!(!read(&node("n2", "m9", 5)), "written over");
    // Its node puts it right: nothing is left of it.
    assert!(read(&known));
    assert_eq!(contest.next(), None);
    assert!(contest.node(Some(&node("n2", "m2", 0)), &node("n2", "m9", 5), now), "of unknown age");
    assert!(contest.node(None, &node("n3", "m3", 7), now));
}

/// Rows: RH7
#[test]
fn a_part_stays_with_a_living_node_that_has_no_other() {
    let (n2, n8) = (identity("n2", "m2"), identity("n8", "m8"));
    let (known, new) = (part("10.0.2.0/24", &n2, 3, 5), part("10.0.2.0/24", &n8, 9, 30));
    let nodes = living(&[node("n2", "m2", 5)]);
    let mut all = parts(std::slice::from_ref(&known));
    assert!(holds(&known, &nodes, &all));
    assert!(!holds(&known, &living(&[node("n2", "other", 9)]), &all), "another machine");
    assert!(!holds(&known, &BTreeMap::new(), &all), "it is not heard of");
    all.insert("10.0.7.0/24".parse().unwrap(), part("10.0.7.0/24", &n2, 3, 20));
    assert!(!holds(&known, &nodes, &all), "it moved");

    let now = clock::now();
    let mut contest = Newcomers::default();
    assert!(contest.subnet(Some(&known), &new, false, now + TTL));
    assert!(!contest.subnet(Some(&known), &new, true, now + TTL));
    // Said again later, it does not wait longer.
    let later = now + TTL / 2;
    assert!(!contest.subnet(Some(&known), &new, true, later + TTL));
    assert_eq!(contest.next(), Some(now + TTL));
    assert!(contest.describe()[0].contains("10.0.2.0/24 says that it is of node n8"));
    assert_eq!(contest.due(now + TTL / 2), (Vec::new(), Vec::new()));
    assert_eq!(contest.due(now + TTL), (Vec::new(), vec![new.clone()]));
    assert_eq!((contest.next(), contest.describe().len()), (None, 0));

    let again = SubnetRecord { created: 40, ..known.clone() };
    assert_eq!(aged(Some(&known), again.clone()), known, "put back");
    assert_eq!(aged(Some(&known), new.clone()), new);
    assert_eq!(aged(None, again.clone()), again);

    assert!(!contest.subnet(Some(&known), &new, true, now + TTL));
    contest.subnet_gone(new.subnet);
    assert_eq!(contest.next(), None);
}

/// Rows: RH7
#[test]
fn what_is_written_in_a_nodes_name_leads_nowhere_else() {
    let (n2, nodes) = (identity("n2", "m2"), living(&[node("n2", "m2", 5)]));
    let own = part("10.0.2.0/24", &n2, 3, 5);
    let wanted = peers(&nodes, &parts(std::slice::from_ref(&own)));
    assert_eq!((wanted["n2"].ips.as_slice(), wanted["n2"].since), ([ip(3)].as_slice(), 5));
    let lies = [
        own,
        part("10.0.1.0/24", &n2, 66, 7),
        part("10.0.9.0/24", &n2, 66, 8),
        part("10.0.8.0/24", &identity("n2", "other"), 66, 1),
    ];
    assert_eq!(peers(&nodes, &parts(&lies)), wanted);
    // Of a machine that is not heard of the oldest word counts.
    let silent = peers(&BTreeMap::new(), &parts(&lies));
    assert_eq!(silent["n2"].subnets, ["10.0.8.0/24".parse::<IpNetwork>().unwrap()]);
    let both = [part("10.0.2.0/24", &n2, 3, 5), part("fd00:10:0:2::/64", &n2, 3, 5)];
    assert_eq!(peers(&nodes, &parts(&both))["n2"].subnets.len(), 2, "one of each family");
}
