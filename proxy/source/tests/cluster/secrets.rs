//! TLS, and etcd's users.

use causeway_source::cluster::{ClusterSettings, Secret, Tls, WriteError};
use causeway_source::etcd::{Client, Options, User, WatchCreateRequest};

use crate::etcd::{Etcd, VERSIONS};
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

fn with_user(etcd: &Etcd, name: &str) -> ClusterSettings {
    let user = Some(("cw".into(), Secret("word".into())));
    ClusterSettings { user, ..settings(etcd, name) }
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
        etcd.ask_for_users(&["--prefix=true readwrite /causeway/"]);
        let mut wrong = settings(&etcd, "n9");
        wrong.user = Some(("cw".into(), Secret("guess".into())));
        let why = refusal(wrong).await;
        assert!(why.contains("authentication failed"), "{why}");
        refusal(settings(&etcd, "n9")).await;
        let settings = with_user(&etcd, "n2");
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

/// etcd refuses a signed token that is older than the last change of any user or role: each kind of
/// call in its own way, and differently from version to version.
///
/// Rows: RH10
#[test]
fn a_change_of_users_ends_no_session() {
    run(async {
        for version in VERSIONS {
            let mut etcd = Etcd::with_signed_tokens(version);
            etcd.ask_for_users(&["--prefix=true readwrite /causeway/"]);
            let user = Some(User::new("cw", "word"));
            let options = Options { user, ..Options::default() };
            let client = Client::connect(&etcd.url(), options).await.unwrap();
            let lease = client.lease_grant(60).await.unwrap();
            let mut n2 = Node::start(with_user(&etcd, "n2"));
            n2.held().await;
            let mut users = 0;
            let mut change = || {
                users += 1;
                etcd.ctl(&["user", "add", &format!("other{users}:word")]);
            };

            change();
            assert_eq!(client.lease_keep_alive(lease).await.unwrap(), 60, "{version}");
            change();
            let create = WatchCreateRequest {
                key: "/causeway/".into(),
                range_end: "/causeway0".into(),
                ..WatchCreateRequest::default()
            };
            let first = client.watch(create).await.unwrap().message().await.unwrap().unwrap();
            assert!(first.created && !first.canceled, "{version}: {first:?}");
            change();
            assert!(client.lease_time_to_live(lease).await.unwrap().ttl > 0, "{version}");
            change();
            client.lease_revoke(lease).await.unwrap();

            change();
            n2.apply(&[service("web", "10.96.0.1")]).await.expect("written");
            change();
            etcd.ctl(&["put", "/causeway/v1/nodes/n9", "?"]);
            n2.until("named", |seen| !seen.view.unreadable.is_empty()).await;
            n2.apply(&[service("later", "10.96.0.2")]).await.expect("written");
            n2.until("the watch goes on", |seen| seen.has_object("later")).await;
            let seen = &n2.seen;
            assert_eq!((seen.resets, seen.connection.clone()), (1, Some(Ok(()))), "{version}");
            assert_eq!((&seen.excluded, &seen.denied), (&None, &None), "{version}");
        }
    });
}

/// Rows: RH10
#[test]
fn writes_that_the_store_refuses_are_said_until_it_takes_them() {
    run(async {
        for version in VERSIONS {
            let mut etcd = Etcd::with_signed_tokens(version);
            let own = ["config", "nodes/", "containers/", "subnets/"];
            let own = own.map(|area| format!("--prefix=true readwrite /causeway/v1/{area}"));
            let mut rights: Vec<&str> = own.iter().map(String::as_str).collect();
            rights.push("--prefix=true read /causeway/");
            etcd.ask_for_users(&rights);
            let mut n2 = Node::start(with_user(&etcd, "n2"));
            n2.held().await;
            let web = service("web", "10.96.0.1");
            let refused = n2.apply(std::slice::from_ref(&web)).await.unwrap_err();
            assert!(matches!(refused, WriteError::Denied(_)), "{version}: {refused:?}");
            n2.until("said", |seen| seen.denied.is_some()).await;
            let why = n2.seen.denied.clone().unwrap();
            assert!(why.contains("permission denied") && why.contains("--etcd-username"), "{why}");
            etcd.grant("--prefix=true readwrite /causeway/");
            // Nobody asks for a write meanwhile.
            n2.until("taken back", |seen| seen.denied.is_none()).await;
            n2.apply(&[web]).await.expect("written");
            assert_eq!(n2.seen.connection, Some(Ok(())), "{version}");
        }
    });
}
