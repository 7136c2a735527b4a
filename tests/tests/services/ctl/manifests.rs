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

/// Rows: RB9
#[test]
fn what_the_daemon_refuses_is_shown_with_the_fields_place() {
    let api = Api::new();
    let mut results = applied(&[("service", "a", "created"), ("service", "b", "refused")]);
    results["results"][0]["warnings"] = json!(["10.1.2.3 is outside 10.96.0.0/16"]);
    results["results"][1]["refusal"] =
        json!({"field": "spec.ports[0].nodePort", "reason": "30080 is taken by default/a"});
    api.answer("POST /v1/apply", 200, &results);
    let document = |name: &str| NODEPORT_YAML.replace("http-server-svc", name);
    let finished = run(&api, "apply -f -", &format!("{}---\n{}", document("a"), document("b")));
    let behind = document("a").lines().count() + 1;
    let line = NODEPORT_YAML.lines().position(|line| line.contains("nodePort:")).expect("there");
    let line = behind + line + 1;
    check_finished(
        &finished,
        1,
        &["service/a created"],
        &[
            "<stdin>:1: Service default/a: warning: 10.1.2.3 is outside 10.96.0.0/16",
            &format!(
                "<stdin>:{line}: Service default/b: spec.ports[0].nodePort: 30080 is taken by default/a"
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
        &["causeway: cannot read /nowhere.yaml: No such file or directory (os error 2)"],
    );
    let folder = TempDir::new("ctl");
    let shown = folder.path().display().to_string();
    let none = format!("causeway: no *.yaml, *.yml or *.json in {shown}");
    check(&api, &format!("apply -f {shown}"), 1, &[], &[&none]);
    check(&api, "apply -f -", 1, &[], &["causeway: no objects to apply"]);
}

/// One request for all of them, so that the daemon writes once.
/// Rows: RC10
#[test]
fn delete_goes_by_name_or_by_file() {
    let api = Api::new();
    let delete = |words: &str, results: &[(&str, &str, &str)], asked: Value| {
        api.answer("POST /v1/delete", 200, &applied(results));
        let finished = run(&api, words, NODEPORT_YAML);
        assert_eq!(api.last_body()["objects"], asked, "{words}");
        finished
    };
    let service = |name| json!({"kind": "services", "namespace": "default", "name": name});
    let web = ("service", "web", "deleted");
    let finished = delete("delete service web", &[web], json!([service("web")]));
    check_finished(&finished, 0, &["service \"web\" deleted"], &[]);
    let finished = delete(
        "delete svc/web no/n2",
        &[web, ("node", "n2", "deleted")],
        json!([service("web"), {"kind": "nodes", "name": "n2"}]),
    );
    check_finished(&finished, 0, &["service \"web\" deleted", "node \"n2\" deleted"], &[]);
    let finished = delete(
        "delete endpointslice web-1 -n shop",
        &[("endpointslice", "web-1", "deleted")],
        json!([{"kind": "endpointslices", "namespace": "shop", "name": "web-1"}]),
    );
    let line = "endpointslice.discovery.k8s.io \"web-1\" deleted";
    check_finished(&finished, 0, &[line], &[]);
    let from_file = ("service", "http-server-svc", "deleted");
    let finished = delete("delete -f -", &[from_file], json!([service("http-server-svc")]));
    check_finished(&finished, 0, &["service \"http-server-svc\" deleted"], &[]);
    let missing = "causeway: services \"gone\" not found in namespace default";
    let both = [("service", "gone", "notfound"), web];
    let asked = json!([service("gone"), service("web")]);
    let finished = delete("delete svc gone web", &both, asked);
    check_finished(&finished, 1, &["service \"web\" deleted"], &[missing]);
    let words = "delete svc gone --ignore-not-found";
    let finished = delete(words, &both[..1], json!([service("gone")]));
    check_finished(&finished, 0, &[], &[]);
    check(
        &api,
        "delete pod p1",
        2,
        &[],
        &["causeway: pods cannot be deleted with causeway; remove their containers through the \
            container runtime"],
    );
}

/// Rows: RB8
#[test]
fn what_a_manifest_has_is_not_deleted_and_the_file_is_named() {
    let api = Api::new();
    let mut results = applied(&[("service", "web", "refused"), ("service", "b", "deleted")]);
    results["results"][0]["refusal"] =
        json!({"field": "", "reason": "it comes from the manifest /m/web.yaml: remove it there"});
    api.answer("POST /v1/delete", 200, &results);
    check(
        &api,
        "delete svc web b",
        1,
        &["service \"b\" deleted"],
        &[
            "causeway: service default/web was not deleted: it comes from the manifest /m/web.yaml: \
             remove it there",
        ],
    );
}

/// Rows: RB9
#[test]
fn an_unknown_field_is_refused_warned_of_or_ignored() {
    let api = Api::new();
    api.answer("POST /v1/apply", 200, &applied(&[("service", "http-server-svc", "created")]));
    let slip = NODEPORT_YAML.replace("selector:", "selectr:");
    let line = slip.lines().position(|line| line.contains("selectr:")).expect("there") + 1;
    let what =
        "Service default/http-server-svc: spec.selectr: unknown field, did you mean selector?";
    let created = ["service/http-server-svc created"];
    for words in ["apply -f -", "apply -f - --validate", "apply -f - --validate=true"] {
        let finished = run(&api, words, &slip);
        check_finished(&finished, 1, &[], &[&format!("<stdin>:{line}: {what}")]);
        assert!(api.bodies().is_empty());
    }
    let finished = run(&api, "apply -f - --validate=warn", &slip);
    let warning = format!("<stdin>:{line}: warning: {what}; ignored");
    check_finished(&finished, 0, &created, &[&warning]);
    assert_eq!(api.last_body()["objects"][0]["spec"].get("selectr"), None);
    for words in ["apply -f - --validate=ignore", "apply -f - --validate=false"] {
        check_finished(&run(&api, words, &slip), 0, &created, &[]);
    }
    assert_eq!(run(&api, "apply -f - --validate=perhaps", &slip).code(), 2);
}

/// Rows: RD5, RD6
#[test]
fn charts_with_other_kinds_and_streams_of_json_are_applied() {
    let api = Api::new();
    api.answer("POST /v1/apply", 200, &applied(&[("service", "http-server-svc", "created")]));
    let chart = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop}}\n---\n{NODEPORT_YAML}---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: r, namespace: shop}}\n"
    );
    let last = chart.lines().count() - 2;
    check_finished(
        &run(&api, "apply -f -", &chart),
        0,
        &["service/http-server-svc created"],
        &[
            "<stdin>:1: warning: Namespace shop: skipped: Causeway does not handle this kind",
            &format!(
                "<stdin>:{last}: warning: Role shop/r: skipped: Causeway does not handle this kind"
            ),
        ],
    );
    let slip = "apiVersion: v1\nkind: Sevice\nmetadata: {name: web}\n";
    let said =
        "<stdin>:2: Sevice default/web: kind: v1 has no kind \"Sevice\", did you mean Service?";
    check_finished(&run(&api, "apply -f -", slip), 1, &[], &[said]);
    let names = ["a", "b", "c"];
    let document = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"ports": [{"port": 80}]}})
    };
    let line = |name| document(name).to_string();
    let pretty = |name| serde_json::to_string_pretty(&document(name)).expect("JSON");
    for stream in
        [names.map(line).join("\n"), names.map(pretty).join("\n"), names.map(line).concat()]
    {
        run(&api, "apply -f -", &stream).ok();
        let sent = api.last_body();
        let sent = sent["objects"].as_array().expect("objects").iter();
        let sent: Vec<_> = sent.map(|one| one["metadata"]["name"].clone()).collect();
        assert_eq!(sent, names, "{stream}");
    }
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

/// Slices of one service's `Endpoints` are one wish, however large what stands between them is.
/// Rows: RC11
#[test]
fn large_files_go_in_parts_that_keep_endpoints_together() {
    let api = Api::new();
    api.answer("POST /v1/apply", 200, &applied(&[]));
    let slice = |number: u8| {
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata":
            {"name": format!("db.endpoints.{number}"), "labels": {"kubernetes.io/service-name": "db",
            "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io"}},
            "addressType": "IPv4", "ports": [], "endpoints": [{"addresses": ["10.0.0.1"]}]})
    };
    let note = "x".repeat(200_000);
    let service = |number: usize| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("s{number}"),
            "annotations": {"note": note}}, "spec": {"ports": [{"port": 80}]}})
    };
    let mut text = slice(0).to_string();
    (0..12).for_each(|number| text += &service(number).to_string());
    text += &slice(1).to_string();
    run(&api, "apply -f -", &text).ok();
    let parts: Vec<Vec<String>> = api
        .bodies()
        .iter()
        .map(|body| {
            let objects = body["objects"].as_array().expect("objects").iter();
            objects
                .map(|one| one["metadata"]["name"].as_str().expect("a name").to_owned())
                .collect()
        })
        .collect();
    assert_eq!(parts.len(), 3, "{parts:?}");
    assert_eq!(parts.concat().len(), 14);
    let slices = |part: &Vec<String>| part.iter().filter(|name| name.starts_with("db")).count();
    assert_eq!(parts.iter().map(slices).collect::<Vec<_>>(), [2, 0, 0]);
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
    api.answer("POST /v1/delete", 200, &deleted);
    check_finished(&run(&api, "delete -f -", yaml), 0, &["endpoints \"db\" deleted"], &[]);
}
