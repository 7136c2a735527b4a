//! `apply` and `delete`.

use causeway_tests::TempDir;
use serde_json::{Value, json};

use super::fake::Api;
use super::objects::web;
use super::{NODEPORT_YAML, applied, check, check_finished, run};

/// Rows: U-08, S-44
#[test]
fn apply_says_what_became_of_each_object() {
    let (folder, api) = (TempDir::new("ctl"), Api::new());
    let file = folder.path().join("nodeport.yaml");
    std::fs::write(&file, NODEPORT_YAML).unwrap();
    let words = format!("apply -f {}", file.display());
    for outcome in ["created", "configured", "unchanged"] {
        api.answer("POST /v1/apply", 200, &applied(&[("service", "http-server-svc", outcome)]));
        check(&api, &words, 0, &[&format!("service/http-server-svc {outcome}")], &[]);
        let sent = api.last_body();
        assert_eq!(sent["wait"], true);
        assert_eq!(sent["objects"][0]["kind"], "Service");
        assert_eq!(sent["objects"][0]["spec"]["ports"][0]["nodePort"], 30080);
        assert_eq!(sent["objects"][0]["spec"]["selector"], json!({"app": "cs-pod"}));
    }
    check(&api, &format!("{words} --no-wait"), 0, &["service/http-server-svc unchanged"], &[]);
    assert_eq!(api.last_body()["wait"], false);
    let words = format!("apply -f {}", folder.path().display());
    check(&api, &words, 0, &["service/http-server-svc unchanged"], &[]);
    check(&api, &format!("{words} -o name"), 0, &["service/http-server-svc"], &[]);
    let finished = run(&api, "apply -f - -o json", NODEPORT_YAML);
    let results: Value = serde_json::from_str(&finished.ok()).unwrap();
    assert_eq!(results["results"][0]["outcome"], "unchanged");
}

#[test]
fn a_bad_document_is_refused_with_its_place_and_the_rest_is_applied() {
    let api = Api::new();
    api.answer("POST /v1/apply", 200, &applied(&[("service", "http-server-svc", "created")]));
    let bad = NODEPORT_YAML.replace("8080", "808080").replace("http-server-svc", "bad");
    let finished = run(&api, "apply -f -", &format!("{bad}---\n{NODEPORT_YAML}"));
    assert_eq!(finished.code(), 1, "{finished:?}");
    assert_eq!(finished.stdout, b"service/http-server-svc created\n", "{finished:?}");
    let stderr = String::from_utf8_lossy(&finished.stderr).into_owned();
    let place = stderr.strip_prefix("<stdin>:").unwrap_or_else(|| panic!("{finished:?}"));
    let (line, rest) = place.split_once(':').unwrap_or_else(|| panic!("{finished:?}"));
    assert!(line.parse::<usize>().is_ok(), "{finished:?}");
    assert!(rest.starts_with(" Service default/bad: spec.ports[0].port: "), "{finished:?}");
    assert_eq!(api.last_body()["objects"].as_array().map(Vec::len), Some(1));
    // Nothing good: the daemon is not asked.
    let asked = api.bodies().len();
    assert_eq!(run(&api, "apply -f -", &bad).code(), 1);
    assert_eq!(api.bodies().len(), asked);
}

#[test]
fn what_the_daemon_refuses_is_shown_with_the_documents_place() {
    let api = Api::new();
    let mut results = applied(&[("service", "a", "created"), ("service", "b", "refused")]);
    results["results"][0]["warnings"] = json!(["10.1.2.3 is outside 10.96.0.0/16"]);
    results["results"][1]["refusal"] =
        json!({"field": "spec.ports[0].nodePort", "reason": "30080 is taken by default/a"});
    api.answer("POST /v1/apply", 200, &results);
    let document = |name: &str| NODEPORT_YAML.replace("http-server-svc", name);
    let finished = run(&api, "apply -f -", &format!("{}---\n{}", document("a"), document("b")));
    let begins = document("a").lines().count() + 2;
    check_finished(
        &finished,
        1,
        &["service/a created"],
        &[
            "<stdin>:1: Service default/a: warning: 10.1.2.3 is outside 10.96.0.0/16",
            &format!(
                "<stdin>:{begins}: Service default/b: spec.ports[0].nodePort: 30080 is taken by default/a"
            ),
        ],
    );
}

#[test]
fn files_that_are_not_there_do_not_keep_the_others() {
    let api = Api::new();
    api.answer("POST /v1/apply", 200, &applied(&[("service", "http-server-svc", "created")]));
    let finished = run(&api, "apply -f /nowhere.yaml -f -", NODEPORT_YAML);
    check_finished(
        &finished,
        1,
        &["service/http-server-svc created"],
        &["causeway: can not read /nowhere.yaml: No such file or directory (os error 2)"],
    );
    let folder = TempDir::new("ctl");
    let shown = folder.path().display().to_string();
    let none = format!("causeway: there is no *.yaml, *.yml or *.json in {shown}");
    check(&api, &format!("apply -f {shown}"), 1, &[], &[&none]);
    check(&api, "apply -f -", 1, &[], &["causeway: there are no objects to apply"]);
}

#[test]
fn delete_goes_by_name_or_by_file() {
    let api = Api::new();
    let deleted = applied(&[("service", "web", "deleted")]);
    api.answer("DELETE /v1/services/default/web", 200, &deleted);
    api.answer("DELETE /v1/services/default/http-server-svc", 200, &deleted);
    api.answer("DELETE /v1/endpointslices/shop/web-1", 200, &deleted);
    api.answer("DELETE /v1/nodes/n2", 200, &deleted);
    check(&api, "delete service web", 0, &["service \"web\" deleted"], &[]);
    check(
        &api,
        "delete svc/web no/n2",
        0,
        &["service \"web\" deleted", "node \"n2\" deleted"],
        &[],
    );
    check(
        &api,
        "delete endpointslice web-1 -n shop",
        0,
        &["endpointslice.discovery.k8s.io \"web-1\" deleted"],
        &[],
    );
    let finished = run(&api, "delete -f -", NODEPORT_YAML);
    check_finished(&finished, 0, &["service \"http-server-svc\" deleted"], &[]);
    let missing = "causeway: services \"gone\" not found in namespace default";
    check(&api, "delete svc gone web", 1, &["service \"web\" deleted"], &[missing]);
    check(&api, "delete svc gone --ignore-not-found", 0, &[], &[]);
    check(
        &api,
        "delete pod p1",
        2,
        &[],
        &[
            "causeway: pods can not be deleted here: they go when the runtime removes their containers",
        ],
    );
}

/// What `get -o yaml` prints is what `apply` reads.
#[test]
fn yaml_can_be_applied_again() {
    let api = Api::new();
    api.answer("GET /v1/services/default/web", 200, &web());
    api.answer("POST /v1/apply", 200, &applied(&[("service", "web", "unchanged")]));
    let yaml = run(&api, "get svc web -o yaml", "").ok();
    check_finished(&run(&api, "apply -f -", &yaml), 0, &["service/web unchanged"], &[]);
    assert_eq!(api.last_body()["objects"][0]["spec"]["clusterIP"], "10.96.1.100");
    assert_eq!(
        api.last_body()["objects"][0]["metadata"]["annotations"],
        json!({"note": "80: yes"})
    );
}

/// `Endpoints` of two families are two slices in the store and one document for the user.
#[test]
fn endpoints_stay_one_document() {
    let api = Api::new();
    let yaml = "{apiVersion: v1, kind: Endpoints, metadata: {name: db}, subsets: [{ports: [{port: 5432}], \
                addresses: [{ip: 192.0.2.9}, {ip: '2001:db8::9'}]}]}";
    api.answer("POST /v1/apply", 200, &applied(&[("endpoints", "db", "created")]));
    check_finished(&run(&api, "apply -f -", yaml), 0, &["endpoints/db created"], &[]);
    let sent = api.last_body();
    assert_eq!(sent["objects"].as_array().map(Vec::len), Some(1), "{sent}");
    assert_eq!(sent["objects"][0]["items"].as_array().map(Vec::len), Some(2), "{sent}");
    let deleted = applied(&[("endpoints", "db", "deleted")]);
    api.answer("DELETE /v1/endpoints/default/db", 200, &deleted);
    check_finished(&run(&api, "delete -f -", yaml), 0, &["endpoints \"db\" deleted"], &[]);
}
