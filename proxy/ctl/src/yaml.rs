//! JSON values written as YAML, in the shape that kubectl prints. Every string that YAML 1.1 or
//! 1.2 could read as something else than a string is quoted.

use std::net::IpAddr;

use serde_json::{Map, Value};

use crate::text::is_unsafe;

/// A document without its `---`, ending in a newline.
pub(crate) fn document(value: &Value) -> String {
    let mut text = String::new();
    match Shape::of(value) {
        Shape::Mapping(map) => mapping(&mut text, map, 0),
        Shape::Sequence(items) => sequence(&mut text, items, 0),
        Shape::Scalar(scalar) => line(&mut text, &scalar),
    }
    text
}

/// How a value is laid out.
enum Shape<'a> {
    Mapping(&'a Map<String, Value>),
    Sequence(&'a [Value]),
    /// Anything that fits on its key's line.
    Scalar(String),
}

impl<'a> Shape<'a> {
    fn of(value: &'a Value) -> Self {
        match value {
            Value::Object(map) if !map.is_empty() => Self::Mapping(map),
            Value::Array(items) if !items.is_empty() => Self::Sequence(items),
            Value::String(text) => Self::Scalar(string(text)),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => Self::Scalar(value.to_string()),
        }
    }
}

fn mapping(text: &mut String, map: &Map<String, Value>, depth: usize) {
    for (key, value) in map {
        indent(text, depth);
        text.push_str(&string(key));
        text.push(':');
        match Shape::of(value) {
            Shape::Mapping(inner) => {
                text.push('\n');
                mapping(text, inner, depth + 2);
            }
            Shape::Sequence(items) => {
                text.push('\n');
                sequence(text, items, depth);
            }
            Shape::Scalar(scalar) => {
                text.push(' ');
                line(text, &scalar);
            }
        }
    }
}

fn sequence(text: &mut String, items: &[Value], depth: usize) {
    for item in items {
        indent(text, depth);
        text.push_str("- ");
        match Shape::of(item) {
            Shape::Mapping(map) => mapping(text, map, depth + 2),
            Shape::Sequence(inner) => sequence(text, inner, depth + 2),
            Shape::Scalar(scalar) => line(text, &scalar),
        }
    }
}

/// Spaces at the beginning of a line; the first key or item in an item stands beside its dash.
fn indent(text: &mut String, depth: usize) {
    if text.is_empty() || text.ends_with('\n') {
        text.extend(std::iter::repeat_n(' ', depth));
    }
}

fn line(text: &mut String, scalar: &str) {
    text.push_str(scalar);
    text.push('\n');
}

fn string(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { quoted(text) }
}

/// Whether a string needs no quotes: words of few harmless characters that begin with a letter
/// and are not a keyword, and IPv4 addresses and subnets.
fn is_plain(text: &str) -> bool {
    let harmless = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'/' | b'-');
    let Some(first) = text.bytes().next() else { return false };
    if !text.bytes().all(harmless) {
        return false;
    }
    if first.is_ascii_digit() {
        let address = text.split_once('/').map_or(text, |(address, _)| address);
        return matches!(address.parse(), Ok(IpAddr::V4(_)));
    }
    const KEYWORDS: &[&str] = &["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    first.is_ascii_alphabetic() && !KEYWORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// A double-quoted string. JSON's escapes are YAML's; characters that steer a terminal and those
/// that YAML takes for line ends are escaped beyond them.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c if is_unsafe(c) => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use causeway_model::manifest;
    use proptest::collection::btree_map;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn text() -> impl Strategy<Value = String> {
        let tricky = r##"[-?:,\[\]{}#&*!|>'"%@` \t\r\na0~.\\\u{85}\u{a0}\u{2028}\u{feff}]{0,6}"##;
        let words = prop::sample::select(vec![
            "no",
            "NULL",
            "0o7",
            "1_000",
            "0b1",
            "+1",
            "1:20",
            "2026-11-22",
            ".5",
            "<<",
            "=",
            "---",
            "...",
            "- a",
            "? b",
            "e1",
            "1e1",
            "0x",
            "12e",
            "Infinity",
            ".NaN",
            "10.0.0.1",
            "10.0.0",
            "10.0.0.0/8",
            "/",
            "_",
            "a:",
            "a: b",
            "a #b",
            "%YAML",
        ]);
        prop_oneof![any::<String>(), tricky, words.prop_map(str::to_owned)]
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(annotations in btree_map("[a-z]{1,8}", text(), 0..4)) {
            let service = json!({"apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "web", "annotations": annotations},
                "spec": {"ports": [{"port": 80}], "clusterIP": "10.96.0.1"}});
            let yaml = document(&service);
            let read = manifest::parse(&yaml);
            prop_assert_eq!(read.len(), 1, "{}", yaml);
            let object = &read[0].objects.as_ref().unwrap()[0];
            let got = manifest::to_json(object)["metadata"]["annotations"].clone();
            let wanted = if annotations.is_empty() { Value::Null } else { json!(annotations) };
            prop_assert_eq!(got, wanted, "{}", yaml);
        }
    }

    fn check(value: &Value, lines: &[&str]) {
        let wanted: String = lines.iter().map(|line| format!("{line}\n")).collect();
        assert_eq!(document(value), wanted);
    }

    #[test]
    fn objects_look_as_kubectl_prints_them() {
        check(
            &json!({"apiVersion": "v1", "kind": "Service",
                "metadata": {"labels": {}, "name": "web", "creationTimestamp": "2026-11-22T18:42:02Z"},
                "spec": {"clusterIPs": ["10.96.0.1", "fd00::1"], "ports": [
                    {"port": 80, "targetPort": "http"}, {"port": 81, "nested": [["a"], [1, {"b": true}]]}]}}),
            &[
                "apiVersion: v1",
                "kind: Service",
                "metadata:",
                "  creationTimestamp: \"2026-11-22T18:42:02Z\"",
                "  labels: {}",
                "  name: web",
                "spec:",
                "  clusterIPs:",
                "  - 10.96.0.1",
                "  - \"fd00::1\"",
                "  ports:",
                "  - port: 80",
                "    targetPort: http",
                "  - nested:",
                "    - - a",
                "    - - 1",
                "      - b: true",
                "    port: 81",
            ],
        );
        check(&json!([]), &["[]"]);
        check(&json!([1, null]), &["- 1", "- null"]);
    }

    #[test]
    fn strings_stay_strings() {
        for (text, shown) in [
            ("web", "web"),
            ("discovery.k8s.io/v1", "discovery.k8s.io/v1"),
            ("10.0.0.0/16", "10.0.0.0/16"),
            ("", "\"\""),
            ("80", "\"80\""),
            ("1e3", "\"1e3\""),
            ("0x1f", "\"0x1f\""),
            ("1.5", "\"1.5\""),
            ("-", "\"-\""),
            (".inf", "\".inf\""),
            ("No", "\"No\""),
            ("null", "\"null\""),
            ("~", "\"~\""),
            ("a: b", "\"a: b\""),
            ("a #b", "\"a #b\""),
            ("*a", "\"*a\""),
            ("12:30", "\"12:30\""),
            ("say \"x\\\"\n", "\"say \\\"x\\\\\\\"\\n\""),
            ("\u{1b}[2J\u{9b}", "\"\\u001b[2J\\u009b\""),
            ("ü", "\"ü\""),
        ] {
            assert_eq!(string(text), shown, "{text:?}");
        }
    }
}
