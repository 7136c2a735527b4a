//! The router on a real socket.

use std::time::Duration;

use causeway_api::{Applied, TraceAnswer};
use serde_json::json;

use crate::conditions::Concern;
use crate::request::{Request, Target};
use crate::testing::*;
use causeway_model::Event as Fact;
use causeway_model::{ObjectKey, ObjectKind};

#[test]
fn objects_are_listed_shown_and_told_apart_by_namespace() {
    run(async {
        let stub = start(|state| {
            let facts = [objects(WEB), objects(DNS), vec![attach("a", "10.0.1.2", "web")]];
            commit(state, facts.concat());
        });
        for (path, wanted) in [
            ("/v1/services", vec!["web", "dns"]),
            ("/v1/services?namespace=kube-system", vec!["dns"]),
            ("/v1/services?namespace=", vec!["web", "dns"]),
            ("/v1/services?namespace=none", vec![]),
            ("/v1/endpoints", vec!["web", "dns"]),
            ("/v1/endpointslices", vec![]),
            ("/v1/pods?namespace=default", vec!["a"]),
            ("/v1/nodes", vec!["n1"]),
            ("/v1/leases", vec![]),
        ] {
            let list = stub.get(path).await;
            assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("List"), &json!("v1")));
            let items = list["items"].as_array().expect("items");
            let names: Vec<_> = items
                .iter()
                .map(|item| item["metadata"]["name"].as_str().expect("a name"))
                .collect();
            assert_eq!(names, wanted, "{path}");
        }
        for (path, kind) in [
            ("/v1/services/default/web", "Service"),
            ("/v1/endpoints/default/web", "Endpoints"),
            ("/v1/pods/default/a", "Pod"),
            ("/v1/nodes/n1", "Node"),
        ] {
            assert_eq!(stub.get(path).await["kind"], kind, "{path}");
        }
        let status = stub.get("/v1/status").await;
        assert_eq!((&status["node"], &status["backend"]), (&json!("n1"), &json!("nftables")));
        assert_eq!(status["counts"]["services"], 2);
    });
}

/// An event whose record is another attachment's.
const EVENT: &str = r#"{"key":{"network":"n","containerID":"c","ifname":"eth0"},"seq":1,"bootId":"b",
            "record":{"network":"OTHER","containerID":"c","ifname":"eth0","ips":[],"labels":{},"created":0}}"#;

/// Method, path and body of a request, the status of its answer, and what that names.
const REFUSED: &[(&str, &str, &str, u16, &str)] = &[
    ("GET", "/v1/servces", "", 404, "servces"),
    ("GET", "/v1/services/default/nope", "", 404, "service default/nope"),
    ("GET", "/v1/services/web", "", 404, "/v1/services/NAMESPACE/web"),
    ("GET", "/v1/nodes/default/n1", "", 404, "/v1/nodes/NAME"),
    ("GET", "/v1/services?watch=perhaps", "", 400, "watch=true|false"),
    ("GET", "/v1/leases?watch=true", "", 400, "leases"),
    ("GET", "/v2", "", 404, "/v2"),
    ("POST", "/v1/status", "{}", 405, "POST"),
    ("DELETE", "/v1/pods/default/a", "", 405, "runtime"),
    ("DELETE", "/v1/services/web", "", 404, "/v1/services/NAMESPACE/web"),
    ("GET", "/v1/describe/default/nope", "", 404, "default/nope"),
    ("POST", "/v1/apply", "{", 400, "line 1"),
    ("POST", "/v1/apply", r#"{"objects":[],"wait":"yes"}"#, 400, "field wait"),
    ("POST", "/v1/apply", r#"{"objects":[],"wait":true} x"#, 400, "trailing data after"),
    ("POST", "/v1/apply", "\u{1}", 400, "the body"),
    ("PUT", "/v1/events", r#"{"key":{"network":7}}"#, 400, "field key.network"),
    ("PUT", "/v1/events", EVENT, 400, "field record"),
    ("POST", "/v1/trace", r#"{"from":"node","to":"nope"}"#, 404, "nope"),
    ("POST", "/v1/trace", r#"{"from":"nope","to":"web"}"#, 404, "pod default/nope"),
    ("POST", "/v1/trace", r#"{"from":"10.0.1.2","to":"10.96.0.99"}"#, 400, "field port"),
    (
        "POST",
        "/v1/trace",
        r#"{"from":"10.0.1.2","to":"web","protocol":"icmp"}"#,
        400,
        "field protocol",
    ),
    (
        "POST",
        "/v1/svc-test",
        r#"{"namespace":"default","name":"web","count":0,"from":"node"}"#,
        400,
        "field count",
    ),
    (
        "POST",
        "/v1/svc-test",
        r#"{"namespace":"default","name":"web","count":1,"port":"x","from":"node"}"#,
        404,
        "no port \"x\"",
    ),
    (
        "POST",
        "/v1/svc-test",
        r#"{"namespace":"default","name":"web","count":1,"from":"there"}"#,
        409,
        "there runs on node n2; run the test there",
    ),
];

#[test]
fn bad_requests_are_refused_with_what_is_wrong() {
    run(async {
        let stub = start(|state| {
            let mut there = attach("there", "10.0.2.2", "web");
            let Fact::Attach { node, record } = &mut there else { panic!("a record") };
            *node = "n2".into();
            record.netns = Some("/run/netns/there".to_owned());
            commit(state, [objects(WEB), vec![there]].concat());
        });
        for (method, path, body, status, says) in REFUSED {
            let (got, message) = stub.request(method, path, body).await;
            assert_eq!(got, *status, "{method} {path} {body}: {message}");
            assert!(message.contains(says), "{method} {path} {body}: {message}");
        }
        let large = format!("{{\"x\":\"{}\"}}", "y".repeat(2 << 20));
        let (status, message) = stub.request("POST", "/v1/trace", &large).await;
        assert_eq!(status, 413, "{message}");
    });
}

#[test]
fn changes_reach_the_engine_and_its_answer_the_client() {
    run(async {
        let mut stub = start(|_| {});
        for (path, wanted) in [
            ("/v1/services/a/b", Target::Object(ObjectKind::Service, named("a", "b"))),
            ("/v1/endpointslices/a/b", Target::Object(ObjectKind::EndpointSlice, named("a", "b"))),
            ("/v1/endpoints/a/b", Target::Endpoints(named("a", "b"))),
            ("/v1/nodes/b", Target::Object(ObjectKind::Node, named("", "b"))),
        ] {
            let answer = async {
                let request = stub.changes.recv().await.expect("a request");
                let Request::Delete { targets, reply } = request else { panic!("{request:?}") };
                reply.send(Ok(Applied::default())).expect("a client");
                targets
            };
            let socket = stub.socket.clone();
            let ask = tokio::task::spawn_blocking(move || {
                let client = causeway_api::Client::new(&socket);
                client.request("DELETE", path, b"", Duration::from_secs(10))
            });
            assert_eq!(answer.await, [wanted], "{path}");
            let body = ask.await.expect("a thread").expect("an answer");
            assert_eq!(body, br#"{"results":[]}"#);
        }
    });
}

#[test]
fn a_hundred_requests_at_once_are_answered() {
    run(async {
        let mut stub = start(|state| drop(commit(state, objects(WEB))));
        let engine = async {
            for _ in 0..50 {
                let Some(Request::Event { event, reply, .. }) = stub.changes.recv().await else {
                    panic!("an event")
                };
                assert!(event.record.is_none());
                reply.send(Ok(Vec::new())).expect("a client");
            }
        };
        let socket = stub.socket.clone();
        let clients = tokio::task::spawn_blocking(move || {
            std::thread::scope(|scope| {
                for n in 0..100 {
                    let client = causeway_api::Client::new(&socket);
                    scope.spawn(move || {
                        let key =
                            json!({ "network": "n", "containerID": n.to_string(), "ifname": "e" });
                        let event = json!({ "key": key, "seq": n, "bootId": "b", "record": null });
                        let (method, path, body) = match n % 2 {
                            0 => ("PUT", "/v1/events", event.to_string()),
                            _ => ("GET", "/v1/services", String::new()),
                        };
                        let patience = Duration::from_secs(20);
                        let answer = client.request(method, path, body.as_bytes(), patience);
                        answer.unwrap_or_else(|error| panic!("request {n}: {error}"));
                    });
                }
            });
        });
        engine.await;
        clients.await.expect("all answered");
    });
}

#[test]
fn a_watch_goes_on_until_the_client_leaves() {
    run(async {
        let stub = start(|_| {});
        let socket = stub.socket.clone();
        let (seen, mut lines) = tokio::sync::mpsc::unbounded_channel();
        let client = tokio::task::spawn_blocking(move || {
            let client = causeway_api::Client::new(&socket);
            let mut count = 0;
            client.lines("GET", "/v1/pods?watch=true", b"", &mut |line| {
                seen.send(line.to_owned()).expect("a test");
                count += 1;
                count < 2
            })
        });
        assert!(lines.recv().await.expect("a line").contains("RESET"));
        let step = Step::Commit(vec![attach("a", "10.0.1.2", "web")]);
        stub.steps.send(step).await.expect("an engine");
        let line = lines.recv().await.expect("a line");
        assert!(line.contains("ADDED") && line.contains("10.0.1.2"), "{line}");
        client.await.expect("a thread").expect("lines");
    });
}

#[test]
fn descriptions_say_what_gets_traffic_and_what_is_missing() {
    run(async {
        let stub = start(|state| {
            let facts = [objects(WEB), objects(DNS), vec![attach("a", "10.0.1.2", "web")]].concat();
            commit(state, facts);
            let concern = Concern::HealthCheckPort(ObjectKey::new("kube-system", "dns"));
            state.conditions.warn(concern, vec!["its port is taken".to_owned()]);
        });
        let web = stub.get("/v1/describe/default/web").await;
        let endpoint = &web["ports"][0]["endpoints"][0];
        assert_eq!(endpoint["address"], "10.0.1.2");
        let facts = (&endpoint["inRotation"], &endpoint["state"], &endpoint["pod"]);
        assert_eq!(facts, (&json!(true), &json!("ready"), &json!("default/a")));
        assert_eq!(web["remarks"], json!([]));
        let dns = stub.get("/v1/describe/kube-system/dns").await;
        let remarks = dns["remarks"].to_string();
        assert!(remarks.contains("no attached container has the labels app=dns"), "{remarks}");
        assert!(remarks.contains("its port is taken"), "{remarks}");
    });
}

#[test]
fn traces_begin_and_end_at_names() {
    run(async {
        let stub = start(|state| {
            let facts = [objects(WEB), vec![attach("a", "10.0.1.2", "web")]].concat();
            commit(state, facts);
        });
        for (request, packet) in [
            (json!({ "from": "a", "to": "web" }), "10.0.1.2 -> 10.96.0.10:80/tcp"),
            (
                json!({ "from": "default/a", "to": "default/web", "port": 80 }),
                "10.0.1.2 -> 10.96.0.10:80/tcp",
            ),
            (json!({ "from": "10.0.1.9", "to": "10.96.0.10" }), "10.0.1.9 -> 10.96.0.10:80/tcp"),
            (
                json!({ "from": "10.0.1.9", "to": "a", "port": 53, "protocol": "UDP" }),
                "10.0.1.9 -> 10.0.1.2:53/udp",
            ),
        ] {
            let (status, body) = stub.request("POST", "/v1/trace", &request.to_string()).await;
            assert_eq!(status, 200, "{body}");
            let answer: TraceAnswer = serde_json::from_str(&body).expect("an answer");
            assert_eq!(answer.packet, packet);
        }
    });
}
