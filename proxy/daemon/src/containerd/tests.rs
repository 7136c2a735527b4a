//! What happens without a good containerd. A real one is asked in `tests/tests/containerd.rs`.

use super::*;
use crate::testing::run;

#[test]
fn a_container_is_looked_for_where_its_id_points_first() {
    let namespaces = ["a".to_owned(), "a-b".to_owned(), "k8s.io".to_owned()];
    let pair = |namespace: &str, id: &str| (namespace.to_owned(), id.to_owned());
    assert_eq!(
        candidates("a-b-7f", &namespaces),
        [
            pair("a", "b-7f"),
            pair("a-b", "7f"),
            pair("a", "a-b-7f"),
            pair("a-b", "a-b-7f"),
            pair("k8s.io", "a-b-7f"),
        ]
    );
    assert_eq!(candidates("a-", &namespaces[..1]), [pair("a", "a-")]);
}

#[test]
fn an_absent_containerd_costs_nothing_and_a_silent_one_half_a_second() {
    run(async {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("containerd.sock");
        let containerd = Containerd::new(&socket, false);
        let (events, mut inbox) = tokio::sync::mpsc::channel(4);
        assert!(containerd.labels("x", &events).await.is_empty());
        // It takes connections and says nothing.
        let _silent = tokio::net::UnixListener::bind(&socket).expect("a socket");
        let asked = containerd.labels("x", &events);
        let labels = tokio::time::timeout(4 * PATIENCE, asked).await.expect("an end in time");
        assert!(labels.is_empty());
        assert!(inbox.try_recv().is_err());
    });
}
