//! The exposition text.

use super::*;
use crate::testing::*;

/// Rows: P41, P88
#[test]
fn metrics_have_the_names_of_kube_proxy() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut state = state(folder.path());
    let metrics = Metrics::new();
    let local = r#""internalTrafficPolicy": "Local", "clusterIP": "10.96.0.10""#;
    let web = WEB.replace(r#""clusterIP": "10.96.0.10""#, local);
    let mut facts = objects(&web);
    let causeway_model::Event::Attach { record, .. } = attach("a", "10.0.2.2", "web") else {
        panic!("a container")
    };
    facts.push(causeway_model::Event::Attach { node: "n2".into(), record });
    let mut commit = commit(&mut state, facts);
    metrics.committed(&state, &commit);
    commit.full = true;
    metrics.committed(&state, &commit);
    metrics.reconciled(std::time::Duration::from_millis(3), 7);
    metrics.probed("healthz", 503);
    metrics.probed("livez", 200);
    state.progress.repairs = 4;
    let text = metrics.text(&state, 2);
    for line in [
        "kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 2",
        "kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1",
        "kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1",
        "kubeproxy_network_programming_duration_seconds_count{ip_family=\"IPv4\"} 2",
        "kubeproxy_conntrack_reconciler_deleted_entries_total 7",
        "kubeproxy_conntrack_reconciler_sync_duration_seconds_count 1",
        "kubeproxy_proxy_healthz_total{code=\"503\"} 1",
        "kubeproxy_proxy_livez_total{code=\"200\"} 1",
        "kubeproxy_sync_proxy_rules_service_changes_total 0",
        "kubeproxy_sync_proxy_rules_endpoint_changes_total 0",
        "kubeproxy_sync_proxy_rules_nftables_sync_failures_total 0",
        "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv4\",traffic_policy=\"internal\"} 1",
        "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv4\",traffic_policy=\"external\"} 0",
        "causeway_services 1",
        "causeway_endpoints 1",
        "causeway_containers 1",
        "causeway_watchers 2",
        "causeway_spool_events 0",
        "causeway_repairs_total 4",
    ] {
        assert!(text.lines().any(|one| one == line), "{line} is missing in\n{text}");
    }
    for name in [
        "kubeproxy_sync_proxy_rules_last_timestamp_seconds ",
        "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds ",
        "process_resident_memory_bytes ",
        "process_cpu_seconds_total ",
        "process_open_fds ",
        "process_start_time_seconds ",
    ] {
        let line = text.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("{name} is missing in\n{text}"));
        let value: f64 = line[name.len()..].parse().expect("a number");
        assert!(value > 0.0, "{line}");
    }
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[test]
fn the_cluster_store_has_metrics_where_there_is_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut state = state(folder.path());
    let metrics = Metrics::new();
    assert!(!metrics.text(&state, 0).contains("causeway_store"));
    state.cluster = Some(crate::state::ClusterState {
        revision: 8841,
        ..crate::state::ClusterState::new(Ok(()))
    });
    (state.progress.writes, state.progress.conflicts) = (5, 2);
    let text = metrics.text(&state, 0);
    for line in [
        "causeway_store_connected 1",
        "causeway_store_revision 8841",
        "causeway_cluster_nodes{state=\"Ready\"} 1",
        "causeway_cluster_nodes{state=\"NotReady\"} 0",
        "causeway_store_writes_total 5",
        "causeway_store_conflicts_total 2",
    ] {
        assert!(text.lines().any(|one| one == line), "{line} is missing in\n{text}");
    }
}
