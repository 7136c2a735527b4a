//! TLS, and etcd's users.

use causeway_source::cluster::{ClusterSettings, Secret, Tls};

use crate::etcd::Etcd;
use crate::node::{Node, run, service, settings};

fn with_tls(etcd: &Etcd) -> ClusterSettings {
    let mut settings = settings(etcd, "n2");
    settings.tls = Tls {
        ca: Some(etcd.file("ca.pem")),
        cert: Some(etcd.file("client.pem")),
        key: Some(etcd.file("client-key.pem")),
    };
    settings
}

async fn refusal(settings: ClusterSettings) -> String {
    let mut node = Node::start(settings);
    node.until("refused", |seen| matches!(seen.connection, Some(Err(_)))).await;
    node.seen.connection.unwrap().unwrap_err()
}

/// Rows: C-15
#[test]
fn tls_with_certificates_of_both_sides() {
    run(async {
        let etcd = Etcd::with(true, &[]);
        let mut n2 = Node::start(with_tls(&etcd));
        n2.held().await;
        n2.apply(&[service("web", "10.96.0.1")]).await.unwrap();
        let mut without = with_tls(&etcd);
        (without.tls.cert, without.tls.key) = (None, None);
        refusal(without).await;
        let mut strangers = with_tls(&etcd);
        strangers.tls.ca = None;
        let why = refusal(strangers).await;
        assert!(why.contains("certificate") || why.contains("authorities"), "{why}");
        let mut missing = with_tls(&etcd);
        missing.tls.ca = Some("/nowhere/ca.pem".into());
        let why = refusal(missing).await;
        assert!(why.contains("read /nowhere/ca.pem: No such file"), "{why}");
    });
}

/// Rows: C-15
#[test]
fn a_user_with_rights_below_the_prefix_whose_token_expires() {
    run(async {
        // Tokens of 2 s.
        let mut etcd = Etcd::with(false, &["--auth-token-ttl", "2"]);
        for line in [
            "user add root:secret",
            "role add causeway",
            "role grant-permission causeway --prefix=true readwrite /causeway/",
            "user add cw:word",
            "user grant-role cw causeway",
            "user grant-role root root",
            "auth enable",
        ] {
            etcd.ctl(&line.split_whitespace().collect::<Vec<_>>());
        }
        etcd.user = Some(("root".into(), "secret".into()));
        let mut wrong = settings(&etcd, "n9");
        wrong.user = Some(("cw".into(), Secret("guess".into())));
        let why = refusal(wrong).await;
        assert!(why.contains("authentication failed"), "{why}");
        refusal(settings(&etcd, "n9")).await;
        let mut settings = settings(&etcd, "n2");
        settings.user = Some(("cw".into(), Secret("word".into())));
        assert!(!format!("{settings:?}").contains("word"), "passwords are not shown");
        let mut n2 = Node::start(settings);
        n2.held().await;
        let quiet = std::time::Duration::from_secs(6);
        n2.never(quiet, "lost", |seen| !seen.is_connected() || !seen.has_node("n2")).await;
        n2.apply(&[service("web", "10.96.0.1")]).await.unwrap();
        assert_eq!(n2.seen.resets, 1);
        assert!(etcd.get("/causeway/v1/nodes/n2").contains("machine-n2"));
    });
}
