//! The manifest directory: watched, applied, taken back; bad files harm nobody else.

use causeway_tests::{Daemon, Lab};

use super::daemon_start::address;

fn manifest(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  ports:\n  - port: {port}\n"
    )
}

/// The names of all services.
fn services(daemon: &Daemon<'_>) -> Vec<String> {
    let list = daemon.get("/v1/services");
    let items = list["items"].as_array().expect("a list");
    items.iter().map(|item| item["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
}

fn until(daemon: &Daemon<'_>, wanted: &[&str]) {
    daemon.until(&format!("services {wanted:?}"), || services(daemon) == wanted);
}

#[test]
fn files_become_objects_and_take_them_along() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    // The directory is not there yet.
    let mut daemon = Daemon::start(node);
    daemon.manifest("a.yaml", &manifest("one", 80));
    until(&daemon, &["one"]);
    let before = address(&daemon, "one").0;
    daemon.manifest("b.yml", &format!("{}---\n{}", manifest("two", 80), manifest("three", 81)));
    until(&daemon, &["one", "three", "two"]);
    daemon.manifest("b.yml", &manifest("two", 82));
    until(&daemon, &["one", "two"]);
    daemon.until("the port is another", || {
        daemon.get("/v1/services/default/two")["spec"]["ports"][0]["port"] == 82
    });
    daemon.stop();
    std::fs::remove_file(daemon.manifests().join("b.yml")).expect("remove a file");
    daemon.again();
    assert_eq!(services(&daemon), ["one"], "what went while nobody looked");
    assert_eq!(address(&daemon, "one").0, before, "its address is kept");
    std::fs::remove_dir_all(daemon.manifests()).expect("remove the directory");
    until(&daemon, &[]);
    daemon.manifest("c.yaml", &manifest("four", 80));
    until(&daemon, &["four"]);
}

#[test]
fn a_bad_file_is_told_by_line_and_the_rest_applied() {
    let lab = Lab::one_node();
    let daemon = Daemon::start(&lab.nodes[0]);
    daemon.manifest("a.yaml", &format!("{}---\n{}", manifest("one", 80), manifest("two", 80)));
    until(&daemon, &["one", "two"]);
    let bad = manifest("bad", 80).replace("port: 80", "port: 80000");
    daemon.manifest("b.yaml", &format!("{bad}---\n{}", manifest("good", 80)));
    until(&daemon, &["good", "one", "two"]);
    let degraded = daemon.status().degraded.join("\n");
    let path = daemon.manifests().join("b.yaml").display().to_string();
    assert!(
        degraded.contains(&format!("{path}:7: Service default/bad: spec.ports[0].port: ")),
        "{degraded}"
    );
    assert!(daemon.log().contains("Service default/bad: spec.ports[0].port"), "{}", daemon.log());
    // Half of it, as while it is being written: what it had stays.
    daemon.manifest("a.yaml", &format!("{}---\napiVersion: v1\nkind: Serv", manifest("one", 80)));
    daemon.until("it is told", || daemon.status().degraded.join("\n").contains("a.yaml:"));
    assert_eq!(services(&daemon), ["good", "one", "two"]);
    daemon.manifest("a.yaml", &manifest("one", 80));
    daemon.manifest("b.yaml", &manifest("good", 80));
    until(&daemon, &["good", "one"]);
    daemon.until("all is well", || daemon.status().degraded.is_empty());
    // An object stands in one file alone.
    daemon.manifest("z.yaml", &manifest("one", 99));
    daemon.until("it is told", || {
        daemon.status().warnings.join("\n").contains("stands in a.yaml already")
    });
    daemon.signal(libc::SIGHUP);
    assert_eq!(services(&daemon), ["good", "one"]);
}

/// As many rules as before, but different ones: they are written all the same.
///
/// Rows: P94
#[test]
fn what_changed_while_no_daemon_ran_is_in_the_rules_of_the_next() {
    for backend in ["nftables", "iptables"] {
        let lab = Lab::one_node();
        let node = &lab.nodes[0];
        let mut daemon = Daemon::start_with(node, &["--backend", backend]);
        let text = |node_port: u16| {
            format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{ name: web }}\nspec:\n  type: NodePort\n  \
                 ports: [ {{ port: 80, nodePort: {node_port} }} ]\n---\n\
                 apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-1\n  \
                 labels: {{ kubernetes.io/service-name: web }}\naddressType: IPv4\n\
                 ports: [ {{ port: 8080 }} ]\nendpoints: [ {{ addresses: [ 10.0.1.2 ] }} ]\n"
            )
        };
        let has = |port: u16| node.nft().contains(&port.to_string());
        daemon.manifest("web.yaml", &text(30080));
        daemon.until("the first node port", || has(30080));
        daemon.stop();
        daemon.manifest("web.yaml", &text(30081));
        daemon.again();
        assert!(has(30081) && !has(30080), "{backend}: {}", node.nft());
    }
}

/// What a manifest has comes back with the next start: it is not deleted, and the file is named. A
/// slip in a manifest is as wrong as in `apply`.
///
/// Rows: RB8, RB9
#[test]
fn what_a_manifest_has_is_not_deleted_and_a_slip_in_one_is_refused() {
    let lab = Lab::one_node();
    let daemon = Daemon::start(&lab.nodes[0]);
    daemon.manifest("a.yaml", &manifest("one", 80));
    until(&daemon, &["one"]);
    daemon.apply(&[serde_json::json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "two"}, "spec": {"ports": [{"port": 81}]}})]);
    let path = daemon.manifests().join("a.yaml").display().to_string();
    let deleted = daemon.causeway(&["delete", "svc", "one", "two"]);
    assert_eq!(deleted.code(), 1, "{deleted:?}");
    assert_eq!(deleted.stdout, b"service \"two\" deleted\n", "{deleted:?}");
    let said = String::from_utf8_lossy(&deleted.stderr).into_owned();
    assert!(
        said.contains(&format!("default/one was not deleted: it comes from the manifest {path}")),
        "{said}"
    );
    assert_eq!(services(&daemon), ["one"]);
    let refused = daemon.request("DELETE", "/v1/services/default/one", b"");
    assert!(
        matches!(refused, Err(causeway_api::Error::Refused { status: 409, .. })),
        "{refused:?}"
    );
    // As it is now it would take the selector away.
    daemon
        .manifest("a.yaml", &manifest("one", 80).replace("spec:", "spec:\n  selectr: {app: web}"));
    daemon.until("it is told", || {
        let degraded = daemon.status().degraded.join("\n");
        degraded.contains(&format!(
            "{path}:6: Service default/one: spec.selectr: unknown field, did you mean selector?"
        ))
    });
    assert_eq!(services(&daemon), ["one"]);
    std::fs::remove_file(&path).expect("remove the manifest");
    until(&daemon, &[]);
}
