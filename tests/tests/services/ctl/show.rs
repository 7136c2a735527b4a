//! Commands that show something.

use serde_json::{Value, json};

use super::fake::Api;
use super::objects::{self, bad_status, cluster_status, cut_off_status, status, web};
use super::{check, list, run};

/// Rows: U-07
#[test]
fn get_shows_services_in_every_form() {
    let api = Api::new();
    let items = json!([web()]);
    api.answer("GET /v1/services?namespace=default", 200, &list(items.clone()));
    api.answer("GET /v1/services", 200, &list(items));
    api.answer("GET /v1/services/default/web", 200, &web());
    for words in ["get services", "get svc", "get service web", "get svc/web"] {
        check(
            &api,
            words,
            0,
            &[
                "NAME   TYPE       CLUSTER-IP    EXTERNAL-IP   PORT(S)          AGE",
                "web    NodePort   10.96.1.100   <none>        8080:30080/TCP   2d",
            ],
            &[],
        );
    }
    check(
        &api,
        "get svc -A -o wide",
        0,
        &[
            "NAMESPACE   NAME   TYPE       CLUSTER-IP    EXTERNAL-IP   PORT(S)          AGE   SELECTOR",
            "default     web    NodePort   10.96.1.100   <none>        8080:30080/TCP   2d    app=cs-pod",
        ],
        &[],
    );
    check(&api, "-o name get svc", 0, &["service/web"], &[]);
    let json_of = |words| serde_json::from_str::<Value>(&run(&api, words, "").ok()).unwrap();
    assert_eq!(json_of("get svc -o json"), list(json!([web()])));
    assert_eq!(json_of("get svc web -o json"), web());
    assert_eq!(json_of("get svc web web -o json")["items"], json!([web(), web()]));
    let yaml = run(&api, "get svc web -o yaml", "").ok();
    assert!(
        yaml.starts_with("apiVersion: v1\nkind: Service\nmetadata:\n  annotations:\n"),
        "{yaml}"
    );
    let missing = "causeway: services \"gone\" not found in namespace default";
    check(&api, "get svc gone web -o name", 1, &["service/web"], &[missing]);
}

/// Rows: U-07, S-44
#[test]
fn get_shows_endpoints_slices_and_pods() {
    let api = everything();
    check(
        &api,
        "get ep",
        0,
        &[
            "NAME   ENDPOINTS                                         AGE",
            "web    10.0.1.2:80,10.0.1.3:80,10.0.1.4:80 + 1 more...   2d",
        ],
        &[],
    );
    check(
        &api,
        "get endpointslices",
        0,
        &[
            "NAME   ADDRESSTYPE   PORTS   ENDPOINTS   AGE",
            "db-1   IPv4          5432    192.0.2.9   2d",
        ],
        &[],
    );
    check(
        &api,
        "get pods -o wide",
        0,
        &[
            "NAME    READY   STATUS    RESTARTS   AGE   IP         NODE   NOMINATED NODE   READINESS GATES",
            "pod1a   1/1     Running   0          2d    10.0.1.2   n1     <none>           <none>",
        ],
        &[],
    );
}

/// Rows: U-07, S-44
#[test]
fn get_shows_nodes_leases_and_several_kinds() {
    let api = everything();
    check(
        &api,
        "get no",
        0,
        &["NAME   STATUS   ROLES    AGE   VERSION", "n1     Ready    <none>   2d    <unknown>"],
        &[],
    );
    check(
        &api,
        "get leases",
        0,
        &[
            "ADDRESS    NETWORK    CONTAINER-ID   IFNAME   SINCE",
            "10.0.1.2   causeway   c1             eth0     2d",
        ],
        &[],
    );
    check(
        &api,
        "get lease 10.0.1.2 10.9.9.9 -o name",
        1,
        &["lease/10.0.1.2"],
        &["causeway: leases \"10.9.9.9\" not found"],
    );
    check(
        &api,
        "get all",
        0,
        &[
            "NAME        READY   STATUS    RESTARTS   AGE",
            "pod/pod1a   1/1     Running   0          2d",
            "",
            "NAME          TYPE       CLUSTER-IP    EXTERNAL-IP   PORT(S)          AGE",
            "service/web   NodePort   10.96.1.100   <none>        8080:30080/TCP   2d",
        ],
        &[],
    );
}

/// An API with an object of each kind.
fn everything() -> Api {
    let api = Api::new();
    for (kind, object) in [
        ("services", web()),
        ("endpoints", objects::endpoints()),
        ("endpointslices", objects::slice()),
        ("pods", objects::pod()),
    ] {
        api.answer(&format!("GET /v1/{kind}?namespace=default"), 200, &list(json!([object])));
    }
    api.answer("GET /v1/nodes", 200, &list(json!([objects::node()])));
    api.answer("GET /v1/leases", 200, &list(json!([objects::lease()])));
    api
}

/// Rows: U-07
#[test]
fn nothing_found_is_said_beside_the_data() {
    let api = Api::new();
    for path in ["services?namespace=shop", "services", "nodes"] {
        api.answer(&format!("GET /v1/{path}"), 200, &list(json!([])));
    }
    check(&api, "get svc -n shop", 0, &[], &["No resources found in shop namespace."]);
    check(&api, "get svc -A", 0, &[], &["No resources found"]);
    check(&api, "get nodes", 0, &[], &["No resources found"]);
    check(&api, "get nodes -o name", 0, &[], &[]);
    let none = serde_json::from_str::<Value>(&run(&api, "get no -o json", "").ok()).unwrap();
    assert_eq!(none, list(json!([])));
}

/// Rows: U-07
#[test]
fn a_watch_prints_the_table_then_what_changes() {
    let api = Api::new();
    let (mut changed, mut other) = (web(), web());
    changed["spec"]["ports"][0]["nodePort"] = json!(30081);
    other["metadata"]["name"] = json!("other");
    let line = "GET /v1/services?namespace=default&watch=true";
    api.answer_watch(
        line,
        &[
            json!({"type": "RESET", "object": list(json!([web()]))}),
            json!({"type": "MODIFIED", "object": changed}),
            json!({"type": "ADDED", "object": other}),
            json!({"type": "DELETED", "object": other}),
        ],
    );
    let ended = [
        "causewayd ended the watch; resuming when it is back",
        &format!("causeway: there is no {line}"),
    ];
    check(
        &api,
        "get svc -w",
        1,
        &[
            "NAME   TYPE       CLUSTER-IP    EXTERNAL-IP   PORT(S)          AGE",
            "web    NodePort   10.96.1.100   <none>        8080:30080/TCP   2d",
            "web    NodePort   10.96.1.100   <none>        8080:30081/TCP   2d",
            "other   NodePort   10.96.1.100   <none>        8080:30080/TCP   2d",
            "other   NodePort   10.96.1.100   <none>        8080:30080/TCP   2d",
        ],
        &ended,
    );
    check(&api, "get svc web -w -o name", 1, &["service/web", "service/web"], &ended);
    check(&api, "get svc,po -w", 2, &[], &["causeway: -w watches one resource type only"]);
}

#[test]
fn describe_shows_a_service_and_its_endpoints() {
    let api = Api::new();
    api.answer("GET /v1/describe/default/web", 200, &objects::description());
    check(
        &api,
        "describe service web",
        0,
        &[
            "Name:                     web",
            "Namespace:                default",
            "Labels:                   <none>",
            "Annotations:              note: 80: yes",
            "Selector:                 app=cs-pod",
            "Type:                     NodePort",
            "IP Family Policy:         SingleStack",
            "IP Families:              IPv4",
            "IP:                       10.96.1.100",
            "IPs:                      10.96.1.100",
            "Port:                     <unset>  8080/TCP",
            "TargetPort:               80/TCP",
            "NodePort:                 <unset>  30080/TCP",
            "Endpoints:                10.0.1.2:80",
            "Session Affinity:         None",
            "External Traffic Policy:  Cluster",
            "Internal Traffic Policy:  Cluster",
            "",
            "Endpoints of port <unset>/TCP:",
            "  ENDPOINT      STATE       NEW TRAFFIC   POD            NODE",
            "  10.0.1.2:80   ready       yes           default/pod2   n1",
            "  10.0.1.3:80   not ready   no            default/pod3   n1",
            "",
            "Remarks:",
            "  - 10.96.1.100 is outside the service CIDR",
        ],
        &[],
    );
    let missing = "causeway: services \"gone\" not found in namespace default";
    check(&api, "describe svc/gone", 1, &[], &[missing]);
    let usage = "causeway: only services can be described; write describe service NAME..";
    check(&api, "describe pod p1", 2, &[], &[usage]);
}

#[test]
fn status_tells_whether_all_is_well() {
    let api = Api::new();
    api.answer("GET /v1/status", 200, &status());
    let begin = [
        "Node:      n1",
        "Daemon:    causewayd 0.1.0, up 3m20s",
        "Backend:   nftables",
        "Store:     embedded",
    ];
    let counts = ["Objects:   3 containers, 1 service port", "Events:    4 syncs"];
    let warnings = ["Warnings:", "  - UDP port 30080 is bound by pid 7"];
    let lines = [&begin[..], &["Synced:    5s ago"], &counts, &["State:     OK"], &warnings];
    check(&api, "status", 0, &lines.concat(), &[]);
    api.answer("GET /v1/status", 200, &bad_status());
    let state =
        ["State:     DEGRADED", "  - table ip causeway_services: EPERM; run causewayd as root"];
    let lines = [&begin[..], &["Synced:    never"], &counts, &state, &warnings];
    check(&api, "status", 1, &lines.concat(), &[]);
    let finished = run(&api, "status -o json", "");
    assert_eq!(serde_json::from_slice::<Value>(&finished.stdout).unwrap(), bad_status());
    assert_eq!(finished.code(), 1);
}

/// Rows: U-04
#[test]
fn status_shows_store_subnets_overlay_and_the_other_nodes() {
    let api = Api::new();
    api.answer("GET /v1/status", 200, &cluster_status());
    let begin = ["Node:      n1", "Daemon:    causewayd 0.1.0, up 3m20s", "Backend:   nftables"];
    let counts =
        ["Synced:    5s ago", "Objects:   3 containers, 1 service port", "Events:    4 syncs"];
    let table = [
        "",
        "NODE   SUBNET        IP                          VTEP                MTU      STATUS     UP",
        "n2     10.0.2.0/24   172.18.0.3                  0e:1a:00:00:00:02   1450     Ready      120m",
        "n3     <none>        172.18.0.4,fd00:172:18::4   <none>              <none>   NotReady   <unknown>",
    ];
    let many = [
        "Store:     etcd http://172.18.0.10:2379, revision 8841",
        "Subnets:   10.0.1.0/24 (leased)",
        "Overlay:   vxlan id 1 port 8472 on eth0, MTU 1450, VTEP 0e:1a:00:00:00:01, 2 repairs",
        "Peers:     1/2 ready, 1 not responding",
    ];
    let warnings = ["Warnings:", "  - node n3: no heartbeat from its causewayd"];
    let lines = [&begin[..], &many, &counts, &["State:     OK"], &warnings, &table];
    check(&api, "status", 0, &lines.concat(), &[]);

    api.answer("GET /v1/status", 200, &cut_off_status());
    let many = [
        "Store:     etcd http://172.18.0.10:2379, unreachable for 3m12s: connection refused; \
         serving revision 8841",
        "Subnets:   10.0.1.0/24 (leased, 23h left), fd00:10:1::/64 (lost to node n9)",
        many[2],
        many[3],
        "Held:      nodes n2, n3 that disappeared together",
        "Held:      4 objects missing from the store",
    ];
    let state = ["State:     DEGRADED", "  - store: etcd does not answer (connection refused)"];
    let lines = [&begin[..], &many, &counts, &state, &warnings, &table];
    check(&api, "status", 1, &lines.concat(), &[]);
    let finished = run(&api, "status -o json", "");
    let shown: Value = serde_json::from_slice(&finished.stdout).unwrap();
    assert_eq!(shown["cluster"]["heldNodes"], json!(["n2", "n3"]));
    assert_eq!((shown["subnets"][0]["expires"].as_u64(), finished.code()), (Some(86208), 1));

    let mut refused = cluster_status();
    refused["subnets"] = json!([]);
    refused["cluster"]["subnetRefused"] = json!("no part of 10.0.0.0/16 is free; enlarge it");
    api.answer("GET /v1/status", 200, &refused);
    let shown = run(&api, "status", "").ok();
    let wanted = "\nSubnets:   none: no part of 10.0.0.0/16 is free; enlarge it\n";
    assert!(shown.contains(wanted), "{shown}");
}

/// Rows: RB10
#[test]
fn svc_test_prints_each_answer_and_the_shares() {
    let api = Api::new();
    let answer = |number: u32, last: u8| json!({"number": number, "address": format!("10.0.1.{last}"), "error": null, "answered": number > 0});
    let mut answers = vec![answer(1, 2), answer(2, 3), answer(3, 2)];
    api.answer_lines("POST /v1/svc-test", &answers);
    let shares = [
        "",
        "ENDPOINT   ANSWERS   SHARE",
        "10.0.1.2   2         66.7%",
        "10.0.1.3   1         33.3%",
    ];
    let lines = [&["1: 10.0.1.2", "2: 10.0.1.3", "3: 10.0.1.2"], &shares[..]].concat();
    check(&api, "svc test web:http -n shop --count 3 --from shop/p1", 0, &lines, &[]);
    assert_eq!(
        api.last_body(),
        json!({"namespace": "shop", "name": "web", "port": "http",
        "count": 3, "from": "shop/p1"})
    );
    // Fewer answers than asked for, and one that failed.
    check(&api, "svc test web", 1, &lines, &[]);
    assert_eq!(api.last_body()["count"], 8);
    answers[1] = json!({"number": 2, "address": null, "error": "connection refused"});
    api.answer_lines("POST /v1/svc-test", &answers);
    check(
        &api,
        "svc test web --count 3",
        1,
        &[
            "1: 10.0.1.2",
            "2: connection refused",
            "3: 10.0.1.2",
            "",
            "ENDPOINT   ANSWERS   SHARE",
            "10.0.1.2   2         66.7%",
            "failed     1         33.3%",
        ],
        &[],
    );
}

#[test]
fn trace_says_what_happens_and_why() {
    let api = Api::new();
    let trace = |outcome: Value| {
        json!({"packet": "10.0.1.2 -> 10.96.1.100:8080/tcp", "trace": {"outcome": outcome,
            "service": "default/web", "steps": ["10.96.1.100:8080/tcp is a ClusterIP of default/web"]}})
    };
    let begin = [
        "10.0.1.2 -> 10.96.1.100:8080/tcp",
        "  1. 10.96.1.100:8080/tcp is a ClusterIP of default/web",
    ];
    let choices = json!([{"address": "10.0.1.2", "port": 80, "masquerade": true},
        {"address": "10.0.1.3", "port": 80, "masquerade": false}]);
    for (outcome, code, end) in [
        (
            json!({"endpoints": choices}),
            0,
            &[
                "delivered (default/web) to one of 2",
                "  10.0.1.2:80, which sees the node as the client",
                "  10.0.1.3:80",
            ][..],
        ),
        (json!("pass"), 0, &["passes (default/web): forwarded unchanged"]),
        (json!("reject"), 1, &["rejected (default/web): ICMP port unreachable"]),
        (json!("drop"), 1, &["dropped (default/web): no answer at all"]),
    ] {
        api.answer("POST /v1/trace", 200, &trace(outcome));
        check(&api, "trace p1 web:8080/tcp", code, &[&begin, end].concat(), &[]);
        assert_eq!(
            api.last_body(),
            json!({"from": "default/p1", "to": "default/web",
            "port": 8080, "protocol": "tcp"})
        );
    }
    let live = "causeway: --live is not supported in this version";
    check(&api, "trace node web --live", 2, &[], &[live]);
    let port = "causeway: http is not a port; use a number from 1 to 65535";
    check(&api, "trace node web:http", 2, &[], &[port]);
    api.answer(
        "POST /v1/trace",
        404,
        &json!({"message": "there is no pod default/p9",
        "causes": ["no container has that name"]}),
    );
    let missing = "causeway: there is no pod default/p9: no container has that name";
    check(&api, "trace p9 web", 1, &[], &[missing]);
}
