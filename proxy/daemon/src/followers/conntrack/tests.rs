//! Which frontends a commit concerns. What becomes of their flows is tested in `causeway-kernel`.

use causeway_model::{Event as Fact, ObjectKind};

use super::*;
use crate::testing::*;

fn shown(batch: &UdpBackends) -> Vec<String> {
    let one = |((address, ipv6, port), serving): (&FrontendPlace, &BTreeSet<(IpAddr, u16)>)| {
        let at = address.map_or_else(|| format!("node(v6: {ipv6})"), |address| address.to_string());
        let serving: Vec<_> = serving.iter().map(|(ip, port)| format!("{ip}:{port}")).collect();
        format!("{at}:{port} <- {}", serving.join(" "))
    };
    batch.iter().map(one).collect()
}

/// Rows: P72, P73, P74, P75
#[test]
fn frontends_come_with_who_serves_them_now() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut state = state(folder.path());
    let mut step = |facts| {
        let commit = commit(&mut state, facts);
        shown(&touched(&state, &commit, false))
    };
    let both = |serving: &str| {
        vec![format!("node(v6: false):30053 <- {serving}"), format!("10.96.0.53:53 <- {serving}")]
    };
    assert_eq!(step(objects(WEB)), [""; 0], "only UDP concerns conntrack");
    assert_eq!(step(objects(DNS)), both(""));
    let a = attach_in("kube-system", "a", "10.0.1.2", "dns");
    assert_eq!(step(vec![a]), both("10.0.1.2:53"));
    let b = attach_in("kube-system", "b", "10.0.1.3", "dns");
    assert_eq!(step(vec![b]), both("10.0.1.2:53 10.0.1.3:53"));
    assert_eq!(step(vec![detach("a")]), both("10.0.1.3:53"));
    let moved = DNS.replace("30053", "30054");
    assert_eq!(
        step(objects(&moved)),
        [
            "node(v6: false):30053 <- ",
            "node(v6: false):30054 <- 10.0.1.3:53",
            "10.96.0.53:53 <- 10.0.1.3:53"
        ]
    );
    let gone = Fact::Delete(ObjectKind::Service, named("kube-system", "dns"));
    assert_eq!(step(vec![gone]), ["node(v6: false):30054 <- ", "10.96.0.53:53 <- "]);
}

/// Rows: P77
#[test]
fn an_endpoint_that_ends_keeps_its_flows_until_it_is_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut state = state(folder.path());
    let slice = |condition: &str| {
        format!(
            r#"{{ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {{ "name": "dns-1", "namespace": "kube-system",
                           "labels": {{ "kubernetes.io/service-name": "dns" }} }},
            "addressType": "IPv4", "ports": [{{ "name": "", "port": 53, "protocol": "UDP" }}],
            "endpoints": [{{ "addresses": ["10.0.1.2"] }}{condition}] }}"#
        )
    };
    let ending = |serving: bool| {
        slice(&format!(
            r#", {{ "addresses": ["10.0.1.3"], "conditions":
                {{ "ready": false, "serving": {serving}, "terminating": true }} }}"#
        ))
    };
    commit(&mut state, objects(DNS));
    let mut step = |text: String| {
        let commit = commit(&mut state, objects(&text));
        shown(&touched(&state, &commit, false)).pop().expect("the cluster address")
    };
    assert_eq!(step(ending(true)), "10.96.0.53:53 <- 10.0.1.2:53 10.0.1.3:53");
    // No rule changes, and its flows must go.
    assert_eq!(step(ending(false)), "10.96.0.53:53 <- 10.0.1.2:53");
    assert_eq!(step(slice("")), "10.96.0.53:53 <- 10.0.1.2:53");
}
