//! The unit and the module list that `make install` puts in place, in a virtual machine with Debian's
//! kernel and Debian's systemd. One machine is booted for all tests here.

use std::sync::LazyLock;

use causeway_tests::vm::{Report, boot_systemd};

static REPORT: LazyLock<Report> = LazyLock::new(boot_systemd);

#[test]
fn every_scenario_of_the_machine_is_asked_for() {
    let (names, ended) = REPORT.scenarios();
    let wanted = [
        "systemd_emptied_snapshot",
        "systemd_flush",
        "systemd_inotify",
        "systemd_late_address",
        "systemd_module_at_boot",
        "systemd_module_by_unit",
        "systemd_module_missing",
        "systemd_start_limit",
    ];
    assert_eq!(names, wanted, "{REPORT:?}");
    assert!(ended, "the machine stopped early");
}

/// Rows: RA4
#[test]
fn the_module_for_bridges_is_loaded_at_boot() {
    REPORT.assert_passed("systemd_module_at_boot");
}

/// Rows: RA4
#[test]
fn the_unit_loads_the_module_for_bridges() {
    REPORT.assert_passed("systemd_module_by_unit");
}

/// Rows: RA4
#[test]
fn a_missing_module_is_said_until_it_is_there() {
    REPORT.assert_passed("systemd_module_missing");
}

/// Rows: RA5
#[test]
fn folders_are_read_by_the_clock_while_no_inotify_instance_is_left() {
    REPORT.assert_passed("systemd_inotify");
}

/// Rows: RH4
#[test]
fn a_flush_beside_a_stopped_daemon_opens_nothing() {
    REPORT.assert_passed("systemd_flush");
}

/// Rows: RC5
#[test]
fn an_emptied_snapshot_costs_nothing() {
    REPORT.assert_passed("systemd_emptied_snapshot");
}

/// Rows: RA5
#[test]
fn the_unit_waits_for_a_late_address() {
    REPORT.assert_passed("systemd_late_address");
}

/// Rows: RA5
#[test]
fn the_unit_is_started_again_however_often_it_failed() {
    REPORT.assert_passed("systemd_start_limit");
}
