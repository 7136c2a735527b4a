//! Vlans and SCTP, in a virtual machine: this needs a kernel that has them. One machine is booted
//! for all tests here.

use std::sync::LazyLock;

use causeway_tests::vm::{Report, boot};

static REPORT: LazyLock<Report> = LazyLock::new(boot);

#[test]
fn every_scenario_of_the_machine_is_asked_for() {
    let (names, ended) = REPORT.scenarios();
    let wanted = [
        "sctp_host_port",
        "vlan_existing_bridge",
        "vlan_gateway",
        "vlan_ports",
        "vlan_separation",
        "vlan_trunk",
    ];
    assert_eq!(names, wanted);
    assert!(ended, "the machine stopped early");
}

#[test]
fn a_port_has_the_vlans_of_its_configuration() {
    REPORT.assert_passed("vlan_ports");
}

#[test]
fn vlans_are_separated() {
    REPORT.assert_passed("vlan_separation");
}

#[test]
fn a_trunk_carries_tagged_vlans() {
    REPORT.assert_passed("vlan_trunk");
}

/// Rows: C47, RH5
#[test]
fn the_gateway_of_a_vlan_is_the_fourth_interface() {
    REPORT.assert_passed("vlan_gateway");
}

/// Rows: F21
#[test]
fn an_existing_bridge_begins_to_filter_with_the_first_vlan() {
    REPORT.assert_passed("vlan_existing_bridge");
}

#[test]
fn sctp_reaches_a_host_port() {
    REPORT.assert_passed("sctp_host_port");
}
