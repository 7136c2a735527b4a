//! What all kinds share: names, labels, annotations. And nodes, which are little else.

use crate::{LabelSet, Node, ObjectKey};

use super::syntax;
use super::time;
use super::tree::{Checked, Field, Problem};

/// Kubernetes' limit for keys and values of all annotations of an object.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// `metadata`, checked.
pub(super) struct Meta {
    pub(super) key: ObjectKey,
    pub(super) created: u64,
    pub(super) labels: LabelSet,
    pub(super) annotations: LabelSet,
}

/// A rule for names.
pub(super) type Rule = fn(&str) -> Result<(), String>;

/// `metadata` of an object in a namespace, whose name keeps to `rule`.
pub(super) fn meta(root: &Field<'_>, rule: Rule) -> Checked<Meta> {
    let meta = root.get("metadata");
    let field = meta.get("namespace");
    let namespace = field.text()?.unwrap_or("default");
    syntax::dns_label(namespace).map_err(|reason| field.problem(reason))?;
    cluster_wide(root, (namespace, rule))
}

fn cluster_wide(root: &Field<'_>, (namespace, rule): (&str, Rule)) -> Checked<Meta> {
    let meta = root.get("metadata");
    meta.map()?;
    let field = meta.get("name");
    let name = field.required_text()?;
    rule(name).map_err(|reason| field.problem(reason))?;
    Ok(Meta {
        key: ObjectKey::new(namespace, name),
        created: created(&meta.get("creationTimestamp"))?,
        labels: labels(&meta.get("labels"))?,
        annotations: annotations(&meta.get("annotations"))?,
    })
}

fn created(field: &Field<'_>) -> Checked<u64> {
    let Some(text) = field.text()? else { return Ok(0) };
    time::parse(text).ok_or_else(|| {
        field.problem(format!("{text:?} is not a time such as 2026-01-31T12:00:00Z"))
    })
}

/// A map of labels, or a selector.
pub(super) fn labels(field: &Field<'_>) -> Checked<LabelSet> {
    let mut pairs = Vec::new();
    for (key, value) in field.entries()? {
        let wrong = |reason| value.problem(reason);
        syntax::qualified_name(key).map_err(wrong)?;
        let text = value.string()?.unwrap_or_default();
        syntax::label_value(text).map_err(wrong)?;
        pairs.push((key, text));
    }
    Ok(pairs.into_iter().collect())
}

fn annotations(field: &Field<'_>) -> Checked<LabelSet> {
    let mut pairs = Vec::new();
    let mut size = 0;
    for (key, value) in field.entries()? {
        syntax::qualified_name(&key.to_ascii_lowercase())
            .map_err(|reason| value.problem(reason))?;
        let text = value.string()?.unwrap_or_default();
        size += key.len() + text.len();
        pairs.push((key, text));
    }
    if size > MAX_ANNOTATIONS {
        let reason = format!("are {size} bytes long, and the limit is {MAX_ANNOTATIONS}");
        return Err(field.problem(reason));
    }
    Ok(pairs.into_iter().collect())
}

/// One of a few words, or the reason why not.
pub(super) fn choice<T: Copy>(field: &Field<'_>, choices: &[(&str, T)]) -> Checked<Option<T>> {
    let Some(text) = field.text()? else { return Ok(None) };
    let found = choices.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| Some(*value)).ok_or_else(|| {
        let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
        field.problem(format!("{text:?} is not one of {}", words.join(", ")))
    })
}

/// A list whose elements are read by `read`.
pub(super) fn each<'t, T>(
    field: &Field<'t>,
    read: impl FnMut(&Field<'t>) -> Checked<T>,
) -> Checked<Box<[T]>> {
    field.items()?.iter().map(read).collect()
}

/// A string in `field` read by `rule`, which says what is wrong with it.
pub(super) fn read<T>(
    field: &Field<'_>,
    rule: impl Fn(&str) -> Result<T, String>,
) -> Checked<Option<T>> {
    let Some(text) = field.text()? else { return Ok(None) };
    rule(text).map(Some).map_err(|reason| field.problem(reason))
}

/// As [`read`], and it must be there.
pub(super) fn required<T>(
    field: &Field<'_>,
    rule: impl Fn(&str) -> Result<T, String>,
) -> Checked<T> {
    read(field, rule)?.ok_or_else(|| field.missing())
}

/// A port number.
pub(super) fn port(field: &Field<'_>) -> Checked<Option<u16>> {
    field.int()?.map(|number| port_number(number).map_err(|r| field.problem(r))).transpose()
}

pub(super) fn port_number(number: i64) -> Result<u16, String> {
    let port = u16::try_from(number).ok().filter(|port| *port > 0);
    port.ok_or_else(|| format!("{number} is not a port from 1 to 65535"))
}

/// A `v1 Node`.
pub(super) fn node(root: &Field<'_>) -> Checked<Node> {
    let meta = cluster_wide(root, ("", syntax::dns_subdomain))?;
    let mut addresses = Vec::new();
    for entry in root.get("status").get("addresses").items()? {
        let kind = entry.get("type").text()?;
        if matches!(kind, Some("InternalIP" | "ExternalIP")) {
            let address = required(&entry.get("address"), syntax::ip)?;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    let mut deleted = root.get("metadata").get("deletionTimestamp").text()?.is_some();
    for taint in root.get("spec").get("taints").items()? {
        deleted |= taint.get("key").text()? == Some(Node::TO_BE_DELETED);
    }
    Ok(Node {
        deleted,
        key: meta.key,
        created: meta.created,
        labels: meta.labels,
        addresses: addresses.into(),
    })
}

/// What is wrong with the field at `line`.
pub(super) fn refuse<T>(field: &Field<'_>, reason: impl Into<String>) -> Result<T, Problem> {
    Err(field.problem(reason))
}
