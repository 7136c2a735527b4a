//! Kubernetes documents, YAML or JSON, to checked objects and back.

mod meta;
mod service;
mod slice;
pub(crate) mod syntax;
mod time;
mod tree;
mod write;
mod yaml;

use std::fmt;

use serde_json::Value;

use crate::Object;
use tree::{Checked, Field, Problem, Tree};

pub use time::format as rfc3339;
pub use write::to_json;

/// A document of a file, checked or refused.
#[derive(Clone, Debug)]
pub struct Document {
    /// Line where it begins, from 1.
    pub line: usize,
    /// The objects (several for `Endpoints`, none for an ignored kind) or why not.
    pub objects: Result<Vec<Object>, Refusal>,
    /// Things accepted that the user should know of: ignored kinds (`Deployment`), unknown fields.
    pub warnings: Vec<String>,
}

/// Why a document or object is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Line of the field where it is known, else of the document; 0 where there is no file.
    pub line: usize,
    /// `Service`, or `document` where the kind is not known.
    pub kind: String,
    /// `NAMESPACE/NAME`, as far as known.
    pub object: String,
    /// Path of the field, as `spec.ports[0].port`.
    pub field: String,
    /// What is wrong with the value and what would be right.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if !self.object.is_empty() {
            write!(f, " {}", self.object)?;
        }
        write!(f, ": {}: {}", self.field, self.reason)
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    /// As commands print it: `FILE:LINE: KIND NAMESPACE/NAME: FIELD: reason`.
    pub fn at(&self, file: &str) -> String {
        match self.line {
            0 => format!("{file}: {self}"),
            line => format!("{file}:{line}: {self}"),
        }
    }
}

/// Workloads stand in the same files as services; who starts containers reads them, not we.
const WORKLOADS: &[&str] = &[
    "CronJob",
    "DaemonSet",
    "Deployment",
    "Job",
    "Pod",
    "ReplicaSet",
    "ReplicationController",
    "StatefulSet",
];

/// Parses a file of YAML documents (JSON is YAML). The items of a `List` count as documents. One bad
/// document does not keep the others.
pub fn parse(text: &str) -> Vec<Document> {
    let mut documents = Vec::new();
    yaml::documents(text, &mut |parsed| match parsed.tree {
        Ok(Some(tree)) if tree.root().is_present() => add(&tree.root(), &mut documents),
        Ok(_) => {}
        Err(problem) => documents.push(Document {
            line: parsed.line,
            objects: Err(refusal(&Tree::from(&Value::Null).root(), problem)),
            warnings: Vec::new(),
        }),
    });
    documents
}

/// Checks one Kubernetes object in JSON.
///
/// # Errors
/// The first field that is refused.
pub fn from_json(value: &Value) -> Result<Vec<Object>, Refusal> {
    let mut documents = Vec::new();
    add(&Tree::from(value).root(), &mut documents);
    let lists: Result<Vec<_>, _> = documents.into_iter().map(|document| document.objects).collect();
    Ok(lists?.into_iter().flatten().collect())
}

/// Checks a label of a container by the rules for labels in documents.
///
/// # Errors
/// What is wrong with the key or the value.
pub fn check_label(key: &str, value: &str) -> Result<(), String> {
    syntax::qualified_name(key)?;
    syntax::label_value(value)
}

/// Adds the document at `root`, or the items of the list there.
fn add(root: &Field<'_>, documents: &mut Vec<Document>) {
    if is_list(root) {
        match root.get("items").items() {
            Ok(items) => items.iter().for_each(|item| add(&item.as_root(), documents)),
            Err(problem) => documents.push(Document {
                line: root.line(),
                objects: Err(refusal(root, problem)),
                warnings: Vec::new(),
            }),
        }
        return;
    }
    let mut warnings = Vec::new();
    let objects = object(root, &mut warnings).map_err(|problem| refusal(root, problem));
    documents.push(Document { line: root.line(), objects, warnings });
}

fn is_list(root: &Field<'_>) -> bool {
    let text = |name| root.get(name).string().ok().flatten();
    text("kind") == Some("List") && text("apiVersion") == Some("v1")
}

fn object(root: &Field<'_>, warnings: &mut Vec<String>) -> Checked<Vec<Object>> {
    root.known(&[], &mut Vec::new())?;
    let kind = root.get("kind").required_text()?;
    let version = root.get("apiVersion").required_text()?;
    if WORKLOADS.contains(&kind) {
        warnings.push(format!("{kind} {}: ignored, workloads are started elsewhere", named(root)));
        return Ok(Vec::new());
    }
    let wanted = match kind {
        "Service" | "Endpoints" | "Node" | "List" => "v1",
        "EndpointSlice" => "discovery.k8s.io/v1",
        _ => {
            return Err(root.get("kind").problem(format!(
                "{kind:?} is not known here: Service, Endpoints, EndpointSlice, Node and List are"
            )));
        }
    };
    if version != wanted {
        let reason = format!("must be {wanted} for a {kind}, not {version:?}");
        return Err(root.get("apiVersion").problem(reason));
    }
    match kind {
        "Service" => Ok(vec![Object::Service(service::service(root, warnings)?)]),
        "EndpointSlice" => Ok(vec![Object::EndpointSlice(slice::slice(root, warnings)?)]),
        "Node" => Ok(vec![Object::Node(meta::node(root, warnings)?)]),
        _ => Ok(slice::endpoints(root, warnings)?.into_iter().map(Object::EndpointSlice).collect()),
    }
}

/// Namespace and name as far as they can be read.
fn named(root: &Field<'_>) -> String {
    let meta = root.get("metadata");
    let text = |name| meta.get(name).text().ok().flatten();
    let Some(name) = text("name") else { return String::new() };
    let namespace = text("namespace").unwrap_or("default");
    let is_node = root.get("kind").text().ok().flatten() == Some("Node");
    shown(&if is_node { name.to_owned() } else { format!("{namespace}/{name}") })
}

/// Fit for a terminal and a log: one line, no control characters, not endless.
fn shown(text: &str) -> String {
    const MAX: usize = 400;
    let mut shown = String::new();
    for c in text.chars().take(MAX) {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    if text.chars().nth(MAX).is_some() {
        shown.push('…');
    }
    shown
}

fn refusal(root: &Field<'_>, problem: Problem) -> Refusal {
    let kind = root.get("kind").text().ok().flatten();
    let is_word = |kind: &&str| kind.bytes().all(|byte| byte.is_ascii_alphanumeric());
    Refusal {
        line: problem.line,
        kind: shown(kind.filter(is_word).unwrap_or("document")),
        object: named(root),
        field: shown(&problem.field),
        reason: shown(&problem.reason),
    }
}
