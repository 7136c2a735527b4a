//! TCP listeners, health check node ports and probes, over real sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::testing::*;
use causeway_model::{Event as Fact, ObjectKind};

/// An answer: status, head, body.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

async fn http(to: SocketAddr, path: &'static str) -> std::io::Result<Answer> {
    let ask = move || {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        Ok(Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
    };
    tokio::task::spawn_blocking(ask).await.expect("a thread")
}

/// A port that is free now.
fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

/// Rows: P86, P87
#[test]
fn each_listener_serves_its_own_paths_alone() {
    run(async {
        let (healthz, metrics) = (free(), free());
        let stub = start(|state| {
            state.settings.healthz_listen = vec![healthz];
            state.settings.metrics_listen = vec![metrics];
            commit(state, objects(WEB));
        });
        for (address, path, status) in [
            (healthz, "/healthz", 200),
            (healthz, "/livez", 200),
            (healthz, "/readyz", 200),
            (healthz, "/metrics", 404),
            (healthz, "/proxyMode", 404),
            (healthz, "/v1/services", 404),
            (healthz, "/v1/apply", 404),
            (metrics, "/metrics", 200),
            (metrics, "/proxyMode", 200),
            (metrics, "/healthz", 200),
            (metrics, "/readyz", 404),
            (metrics, "/v1/services", 404),
        ] {
            let answer = http(address, path).await.expect("an answer");
            assert_eq!(answer.status, status, "{path}: {}", answer.body);
        }
        assert_eq!(http(metrics, "/proxyMode").await.expect("an answer").body, "nftables");
        let health = http(healthz, "/healthz").await.expect("an answer").json();
        assert_eq!(health["healthy"], true);
        assert_eq!(health["nodeEligible"], true);
        assert_eq!(health["status"]["IPv4"]["healthy"], true);
        assert!(health["lastUpdated"].is_string() && health["currentTime"].is_string());
        let (status, text) = stub.request("GET", "/metrics", "").await;
        assert_eq!(status, 200);
        assert!(text.contains("kubeproxy_proxy_healthz_total{code=\"200\"}"), "{text}");
    });
}

/// Rows: P86
#[test]
fn health_is_bad_while_a_change_waits_for_long() {
    run(async {
        let healthz = free();
        let _stub = start(|state| {
            state.settings.healthz_listen = vec![healthz];
            let now = crate::clock::now();
            state.progress.behind = now.checked_sub(Duration::from_secs(61));
            assert!(state.progress.behind.is_some(), "the machine runs for a minute");
        });
        for path in ["/healthz", "/livez", "/readyz"] {
            let answer = http(healthz, path).await.expect("an answer");
            assert_eq!((answer.status, &answer.json()["healthy"]), (503, &Value::Bool(false)));
        }
    });
}

#[test]
fn a_listener_that_can_not_be_bound_is_a_degradation() {
    run(async {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("an address");
        let stub = start(|state| state.settings.metrics_listen = vec![address]);
        let status = stub.get("/v1/status").await;
        let degraded = status["degraded"][0].as_str().expect("a degradation");
        assert!(
            degraded.contains("--metrics-listen") && degraded.contains("free the port"),
            "{degraded}"
        );
    });
}

fn balanced(port: u16) -> Vec<Fact> {
    let text = format!(
        r#"{{ "apiVersion": "v1", "kind": "Service", "metadata": {{ "name": "web" }},
            "spec": {{ "type": "LoadBalancer", "clusterIP": "10.96.0.10",
                       "externalTrafficPolicy": "Local", "healthCheckNodePort": {port},
                       "selector": {{ "app": "web" }}, "ports": [{{ "port": 80, "nodePort": 30080 }}] }} }}"#
    );
    objects(&text)
}

async fn commits(stub: &Stub, facts: Vec<Fact>) {
    stub.steps.send(Step::Commit(facts)).await.expect("an engine");
    // Steps are taken in order with queries.
    stub.get("/v1/status").await;
}

/// Rows: P83, P85
#[test]
fn load_balancers_hear_of_local_endpoints() {
    run(async {
        let stub = start(|_| {});
        let port = free();
        commits(&stub, balanced(port.port())).await;
        let answer = http(port, "/").await.expect("an answer");
        assert_eq!(answer.status, 503);
        let body = serde_json::json!({ "service": { "namespace": "default", "name": "web" },
                                       "localEndpoints": 0, "serviceProxyHealthy": true });
        assert_eq!(answer.json(), body);
        commits(&stub, vec![attach("a", "10.0.1.2", "web"), attach("b", "10.0.1.3", "web")]).await;
        let answer = http(port, "/anything").await.expect("an answer");
        assert_eq!((answer.status, &answer.json()["localEndpoints"]), (200, &Value::from(2)));
        assert!(answer.head.contains("x-load-balancing-endpoint-weight: 2"), "{}", answer.head);
        // Another port, and then none.
        let other = free();
        commits(&stub, balanced(other.port())).await;
        assert_eq!(http(other, "/").await.expect("an answer").status, 200);
        closes(port).await;
        commits(&stub, vec![Fact::Delete(ObjectKind::Service, named("default", "web"))]).await;
        closes(other).await;
    });
}

/// A listener that was let go is closed when its task next runs.
async fn closes(port: SocketAddr) {
    for _ in 0..500 {
        if http(port, "/").await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{port} still answers");
}

/// Rows: P84
#[test]
fn endpoints_that_end_do_not_count_for_load_balancers() {
    run(async {
        let stub = start(|_| {});
        let port = free();
        let slice = r#"{ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": "web-1", "namespace": "default",
                          "labels": { "kubernetes.io/service-name": "web" } },
            "addressType": "IPv4", "ports": [{ "name": "", "port": 80 }],
            "endpoints": [{ "addresses": ["10.0.1.3"], "nodeName": "n1", "conditions":
                { "ready": false, "serving": true, "terminating": true } }] }"#;
        commits(&stub, [balanced(port.port()), objects(slice)].concat()).await;
        let answer = http(port, "/").await.expect("an answer");
        assert_eq!((answer.status, &answer.json()["localEndpoints"]), (503, &Value::from(0)));
        let described = stub.get("/v1/describe/default/web").await;
        let endpoint = &described["ports"][0]["endpoints"][0];
        assert_eq!(endpoint["state"], "serving");
        assert_eq!(endpoint["inRotation"], true, "traffic goes on while it drains");
    });
}

/// Rows: P85
#[test]
fn a_health_check_port_in_use_is_a_warning_until_it_is_free() {
    run(async {
        let stub = start(|_| {});
        let taken = TcpListener::bind("0.0.0.0:0").expect("a port");
        let port = taken.local_addr().expect("an address").port();
        commits(&stub, balanced(port)).await;
        let status = stub.get("/v1/status").await;
        let warning = status["warnings"][0].as_str().expect("a warning");
        assert!(
            warning.contains("default/web") && warning.contains(&port.to_string()),
            "{warning}"
        );
        drop(taken);
        commits(&stub, vec![attach("a", "10.0.1.2", "web")]).await;
        let at = SocketAddr::new(ip("127.0.0.1"), port);
        assert_eq!(http(at, "/").await.expect("an answer").status, 200);
        assert_eq!(stub.get("/v1/status").await["warnings"], serde_json::json!([]));
    });
}

#[test]
fn a_probed_container_is_ready_while_it_takes_connections() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let text = WEB.replace("8080", &port.to_string()).replace(
            r#""labels""#,
            r#""annotations": { "causeway.io/health-check": "tcp" }, "labels""#,
        );
        let stub = start(|_| {});
        let facts = [objects(&text), vec![attach("a", "127.0.0.1", "web")]].concat();
        commits(&stub, facts).await;
        let mut listener = Some(listener);
        for wanted in ["False", "True"] {
            match wanted {
                "False" => drop(listener.take()),
                _ => listener = Some(TcpListener::bind(("127.0.0.1", port)).expect("the port")),
            }
            let waited = async {
                let (path, mut last) = ("/v1/pods/default/a", Value::Null);
                while last != wanted {
                    last = stub.get(path).await["status"]["conditions"][0]["status"].take();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            let waited = tokio::time::timeout(Duration::from_secs(20), waited).await;
            waited.unwrap_or_else(|_| panic!("the pod does not become ready: {wanted}"));
        }
    });
}
