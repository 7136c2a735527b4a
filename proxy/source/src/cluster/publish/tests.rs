use causeway_model::NodeIdentity;

use super::*;

fn node(machine: &str, boot: &str, ip: &str, started: u64) -> NodeRecord {
    NodeRecord {
        identity: NodeIdentity { node: "n1".into(), machine_id: machine.into() },
        boot_id: boot.into(),
        ips: vec![ip.parse().unwrap()],
        labels: BTreeMap::new(),
        version: "0.1.0".into(),
        started,
        config: String::new(),
        created: 0,
    }
}

fn clashes(other: &NodeRecord, ours: &NodeRecord) -> Option<String> {
    clash(&value::encode(other), ours)
}

/// Rows: O-37, O-65
#[test]
fn a_copied_machine_and_another_one_of_the_name_are_told_where_the_first_lives() {
    let ours = node("m1", "b1", "172.18.0.2", 100);
    let other = clashes(&node("m2", "b2", "172.18.0.9", 50), &ours).unwrap();
    assert!(other.contains("is running at 172.18.0.9 (machine id m2)"), "{other}");
    let copy = clashes(&node("m1", "b2", "172.18.0.9", 50), &ours).unwrap();
    assert!(copy.contains("is running at 172.18.0.9") && copy.contains("clone"), "{copy}");
}

/// Rows: O-61
#[test]
fn the_machine_itself_goes_on_after_a_reboot_a_restart_or_a_move() {
    let ours = node("m1", "b1", "172.18.0.2", 100);
    assert_eq!(clashes(&node("m1", "b0", "172.18.0.2", 50), &ours), None, "reboot");
    assert_eq!(clashes(&node("m1", "b1", "172.18.0.2", 50), &ours), None, "restart");
    assert_eq!(clashes(&node("m1", "b1", "172.18.0.9", 50), &ours), None, "new address");
    let newer = clashes(&node("m1", "b1", "172.18.0.2", 150), &ours).unwrap();
    assert!(newer.contains("another causewayd is running on this machine"), "{newer}");
}
