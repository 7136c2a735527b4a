use causeway_model::{Object, ObjectKey, manifest};

use super::*;

fn keys() -> Keys {
    Keys::new("/c")
}

fn stored(origin: Origin) -> Stored {
    let document = serde_json::json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" },
        "spec": { "ports": [{ "port": 80 }] },
    });
    let Ok([Object::Service(mut service)]) =
        <[Object; 1]>::try_from(manifest::from_json(&document).unwrap())
    else {
        unreachable!("one service");
    };
    assert_eq!(service.key, ObjectKey::new("default", "web"));
    service.created = 7;
    Stored { object: Object::Service(service), origin }
}

#[test]
fn an_object_says_whose_manifest_it_is_from() {
    let bytes = encode_stored(&stored(Origin::Manifest("web.yaml".into())), "n1");
    let read = |me: &str| decode(&keys(), me, b"/c/v1/objects/service/default/web", &bytes);
    let expected = stored(Origin::Manifest("web.yaml".into()));
    assert_eq!(read("n1"), Ok(Some(Change::Object(expected))));
    let elsewhere = Origin::Elsewhere { node: "n1".into(), file: "web.yaml".into() };
    assert_eq!(read("n2"), Ok(Some(Change::Object(stored(elsewhere)))));
    let bytes = encode_stored(&stored(Origin::Api), "n1");
    let read = decode(&keys(), "n2", b"/c/v1/objects/service/default/web", &bytes);
    assert_eq!(read, Ok(Some(Change::Object(stored(Origin::Api)))));
}

/// Rows: C-14
#[test]
fn what_can_not_be_read_is_named() {
    let bytes = encode_stored(&stored(Origin::Api), "n1");
    for (key, value, why) in [
        ("/c/v1/objects/service/default/other", bytes.as_slice(), "another key"),
        ("/c/v1/objects/service/default/web", b"{}".as_slice(), "created"),
        ("/c/v1/nodes/n1", b"?", "expected value"),
        ("/c/v1/subnets/10.0.1.0-24", b"{}", "subnet"),
        ("/c/v1/leaders/n1", b"{}", "no key that this version"),
    ] {
        let text = decode(&keys(), "n1", key.as_bytes(), value).unwrap_err();
        assert!(text.starts_with(&format!("{key}: ")) && text.contains(why), "{text}");
    }
    assert_eq!(decode(&keys(), "n1", b"/c/v1/claims/address/10.96.0.1", b"a/b"), Ok(None));
}
