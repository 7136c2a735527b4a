use super::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn of_image(pairs: &[(&str, &str)]) -> ImageLabels {
    ImageLabels::Labels(labels(pairs).into_iter().collect())
}

fn refused(sorted: &Sorted) -> Vec<&str> {
    sorted.refused.iter().map(|(key, _)| key.as_str()).collect()
}

/// Rows: RH2
#[test]
fn reserved_keys_never_count() {
    let given = labels(&[
        ("causeway.io/pod-name", "db-0"),
        ("causeway.io/pod-namespace", "payments"),
        ("causeway.io/network", "blue"),
        ("port.causeway.io/http", "8080"),
        ("app", "web"),
    ]);
    for image in [ImageLabels::None, of_image(&[])] {
        let sorted = sort(given.clone(), &image);
        assert_eq!(sorted.labels, labels(&[("app", "web"), ("port.causeway.io/http", "8080")]));
        assert_eq!(refused(&sorted).len(), 3);
    }
}

/// Rows: RH2
#[test]
fn an_image_s_own_labels_do_not_count_and_its_user_s_do() {
    let given = labels(&[("app", "db"), ("tier", "front")]);
    let sorted = sort(given.clone(), &of_image(&[("app", "db"), ("tier", "back")]));
    assert_eq!(sorted.labels, labels(&[("tier", "front")]), "the user's value came over it");
    assert_eq!(refused(&sorted), ["app"]);
    let sorted = sort(given, &ImageLabels::Unknown("it is gone".to_owned()));
    assert!(sorted.labels.is_empty());
    assert_eq!(refused(&sorted), ["app", "tier"]);
}

/// Rows: RH2
#[test]
fn keys_and_values_are_labels_and_not_without_end() {
    let long = "x".repeat(64);
    let given = [("a b", "c"), ("app", long.as_str()), ("tier", "a/b"), ("fine", ""), ("-x", "y")];
    let sorted = sort(labels(&given), &ImageLabels::None);
    assert_eq!(sorted.labels, labels(&[("fine", "")]));
    assert_eq!(refused(&sorted), ["-x", "a b", "app", "tier"]);
    let many: Labels = (0..100).map(|n| (format!("k{n:03}"), "v".to_owned())).collect();
    let sorted = sort(many, &ImageLabels::None);
    assert_eq!((sorted.labels.len(), sorted.refused.len()), (MOST, 100 - MOST));
    // What runtimes write for themselves is no news.
    let given = [("nerdctl/platform", "linux/amd64"), ("nerdctl/name", "web1")];
    let sorted = sort(labels(&given), &ImageLabels::None);
    assert_eq!((sorted.labels, sorted.refused), (labels(&given[1..]), Vec::new()));
}

/// Rows: RH2
#[test]
fn labels_and_layers_stand_in_the_configuration_of_an_image() {
    let own = |text: &str| Config::read(text.as_bytes());
    let two = r#"{"config": {"Labels": {"app": "db", "x": "y"}}}"#;
    let read = own(two).expect("read").labels;
    assert_eq!(read.into_iter().collect::<Labels>(), labels(&[("app", "db"), ("x", "y")]));
    for text in ["{}", r#"{"config": null}"#, r#"{"config": {"Labels": null}}"#] {
        assert_eq!(own(text).expect("read"), Config::default());
    }
    assert_eq!([own("7"), own("")], [None, None]);
    // printf 'sha256:a sha256:b' | sha256sum
    let chain = |text: &str| own(text).expect("read").chain();
    assert_eq!(chain(r#"{"rootfs": {"diff_ids": ["sha256:a"]}}"#), "sha256:a");
    assert_eq!(
        chain(r#"{"rootfs": {"diff_ids": ["sha256:a", "sha256:b"]}}"#),
        "sha256:970a948bffa8de94d6e22d747ba8c95030e6e546909f98f54e99a13005e173a8"
    );
}

/// containerd reads these, in the language that it is written in.
///
/// Rows: RH2
#[test]
fn what_containerd_reads_by_another_spelling_is_not_overlooked() {
    for text in [
        r#"{"Config": {"Labels": {"app": "db"}}}"#,
        r#"{"config": {"labels": {"app": "db"}}}"#,
        r#"{"config": {"LABEL\u017f": {"app": "db"}}}"#,
        r#"{"config": {"Labels": {"app": "db"}, "Labels": {}}}"#,
        r#"{"config": {"Labels": {"app": "db"}}, "config": {}}"#,
        r#"{"config": {}, "CONFIG": {"Labels": {"app": "db"}}}"#,
        r#"{"config": {}, "rootfs": {"DIFF_IDS": ["sha256:a"]}}"#,
    ] {
        assert_eq!(Config::read(text.as_bytes()), None, "{text}");
    }
    let honest = r#"{"architecture": "amd64", "container_config": {"Labels": {"app": "x"}},
        "config": {"Env": ["A=b"], "Labels": {"app": "db"}},
        "history": [{"created": "2026-01-01T00:00:00Z", "empty_layer": true}],
        "rootfs": {"type": "layers", "diff_ids": ["sha256:a"]}}"#;
    let read = Config::read(honest.as_bytes()).expect("read").labels;
    assert_eq!(read.into_iter().collect::<Labels>(), labels(&[("app", "db")]));
}

/// Rows: RH2
#[test]
fn an_index_within_an_index_is_no_configuration() {
    let lead = |text: &str| Manifest::read(text.as_bytes());
    let index = r#"{"schemaVersion": 2, "manifests": [
        {"digest": "sha256:a", "size": 1, "platform": {"os": "linux"}}, {"digest": "sha256:b"}]}"#;
    let two = ["sha256:a", "sha256:b"].map(str::to_owned).to_vec();
    assert_eq!(lead(index), Some((two, None)));
    let manifest = r#"{"config": {"digest": "sha256:c"}, "layers": [{"digest": "sha256:l"}]}"#;
    assert_eq!(lead(manifest), Some((Vec::new(), Some("sha256:c".to_owned()))));
    for text in [
        r#"{"Manifests": [{"digest": "sha256:a"}]}"#,
        r#"{"manifests": [{"Digest": "sha256:a"}]}"#,
        r#"{"CONFIG": {"digest": "sha256:c"}}"#,
        "",
        "[]",
    ] {
        assert_eq!(lead(text), None, "{text}");
    }
}
