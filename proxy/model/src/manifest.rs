//! Kubernetes documents, YAML or JSON, to checked objects and back.

mod kinds;
mod meta;
mod nearest;
mod schema;
mod service;
mod slice;
mod stream;
pub(crate) mod syntax;
mod time;
mod tree;
mod write;
mod yaml;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Object;
use kinds::Kind;
use tree::{Checked, Field, Problem, Tree};

pub use syntax::special;
pub use time::format as rfc3339;
pub use write::to_json;

/// A document of a file, checked or refused.
#[derive(Clone, Debug)]
pub struct Document {
    /// Line where it begins, from 1.
    pub line: usize,
    /// The objects (several for `Endpoints`, none for a kind that is not ours) or why not.
    pub objects: Result<Vec<Object>, Refusal>,
    /// Fields that Kubernetes does not have, each with the nearest one that it has.
    pub unknown: Vec<Refusal>,
    /// Things accepted that the user should know of, as kinds that are skipped.
    pub warnings: Vec<Warning>,
    /// Where fields are that can be refused only by who knows the other objects.
    places: Vec<(Box<str>, usize)>,
}

/// Something to know of a document that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Line of the field; 0 if there is no file.
    pub line: usize,
    /// What to know: `KIND NAMESPACE/NAME: FIELD: TEXT`.
    pub text: String,
}

/// What becomes of a document with a field that Kubernetes does not have, as for `kubectl
/// --validate`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Validate {
    /// It is refused.
    #[default]
    Strict,
    /// It is taken without the field, with a warning.
    Warn,
    /// It is taken without the field.
    Ignore,
}

impl Document {
    /// One that is not to be had.
    pub fn refused(refusal: Refusal) -> Self {
        Self {
            line: refusal.line,
            objects: Err(refusal),
            unknown: Vec::new(),
            warnings: Vec::new(),
            places: Vec::new(),
        }
    }

    /// Why it is not taken, by line; nothing: it is.
    pub fn refusals(&self, validate: Validate) -> Vec<&Refusal> {
        let unknown = self.unknown.iter().filter(|_| validate == Validate::Strict);
        let mut refusals: Vec<_> = unknown.chain(self.objects.as_ref().err()).collect();
        refusals.sort_by_key(|refusal| refusal.line);
        refusals
    }

    /// What to know of it if it is taken, by line.
    pub fn warnings(&self, validate: Validate) -> Vec<Warning> {
        let unknown = self.unknown.iter().filter(|_| validate == Validate::Warn);
        let ignored =
            unknown.map(|one| Warning { line: one.line, text: format!("{one}; ignored") });
        let mut warnings: Vec<_> = ignored.chain(self.warnings.iter().cloned()).collect();
        warnings.sort_by_key(|warning| warning.line);
        warnings
    }

    /// Line of a field of the specification; of what it is in, if it is absent.
    pub fn line_of(&self, field: &str) -> usize {
        let is_in = |path: &str| {
            field
                .strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let within = self.places.iter().filter(|(path, _)| is_in(path));
        within.max_by_key(|(path, _)| path.len()).map_or(self.line, |(_, line)| *line)
    }
}

/// Why a document or object is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Line of the field if it is known, else of the document; 0 if there is no file.
    pub line: usize,
    /// `Service`, or `document` if the kind is not known.
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

/// Parses a file of YAML documents and of JSON documents, which need no `---` between them. The
/// items of a `List` count as documents. One bad document does not affect the others.
pub fn parse(text: &str) -> Vec<Document> {
    let mut documents = Vec::new();
    yaml::documents(text, &mut |parsed| match parsed.tree {
        Ok(Some(tree)) if tree.root().is_present() => {
            Adding { fields: true, documents: &mut documents }.add(&tree.root(), None);
        }
        Ok(_) => {}
        Err(problem) => {
            let refusal = refusal(&Tree::from(&Value::Null).root(), problem);
            documents.push(Document { line: parsed.line, ..Document::refused(refusal) });
        }
    });
    documents
}

/// As [`parse`], for one Kubernetes object in JSON, which has no lines.
pub fn parse_json(value: &Value) -> Vec<Document> {
    let mut documents = Vec::new();
    Adding { fields: true, documents: &mut documents }.add(&Tree::from(value).root(), None);
    documents
}

/// Checks one Kubernetes object in JSON. Fields that Kubernetes does not have are skipped.
///
/// # Errors
/// The first field that is refused.
pub fn from_json(value: &Value) -> Result<Vec<Object>, Refusal> {
    let mut documents = Vec::new();
    Adding { fields: false, documents: &mut documents }.add(&Tree::from(value).root(), None);
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

/// Documents that are being collected.
struct Adding<'d> {
    /// Whether unknown fields are looked for.
    fields: bool,
    documents: &'d mut Vec<Document>,
}

impl Adding<'_> {
    /// Adds the document at `root`, or the items of the list there. An item may leave out the kind
    /// and version that its list `says`.
    fn add(&mut self, root: &Field<'_>, says: Option<(&str, &str)>) {
        if let Some(says) = kinds::list_of(root) {
            let unknown = self.unknown(root, schema::LIST);
            let items = root.get("items").items();
            if !unknown.is_empty() || items.is_err() {
                let objects = match &items {
                    Ok(_) => Ok(Vec::new()),
                    Err(problem) => Err(refusal(root, problem.clone())),
                };
                let line = root.line();
                let (warnings, places) = (Vec::new(), Vec::new());
                self.documents.push(Document { line, objects, unknown, warnings, places });
            }
            for item in items.into_iter().flatten() {
                self.add(&item.as_root(), says);
            }
            return;
        }
        let mut document = Document {
            line: root.line(),
            objects: Ok(Vec::new()),
            unknown: Vec::new(),
            warnings: Vec::new(),
            places: Vec::new(),
        };
        let mut notes = Vec::new();
        let found = kind(root, says).and_then(|kind| {
            if let Some(fields) = kind.fields() {
                document.unknown = self.unknown(root, fields);
            }
            if self.fields && kind == Kind::Service && root.line() > 0 {
                document.places = places(root);
            }
            object(root, kind, &mut notes)
        });
        document.objects = found.map_err(|problem| refusal(root, problem));
        document.warnings = notes.into_iter().map(|note| warning(root, note)).collect();
        self.documents.push(document);
    }

    fn unknown(&self, root: &Field<'_>, fields: schema::Fields) -> Vec<Refusal> {
        let tree = root.tree().filter(|_| self.fields);
        let found = tree.map(|tree| schema::unknown(tree, fields)).unwrap_or_default();
        found.into_iter().map(|problem| refusal(root, problem)).collect()
    }
}

/// Where the fields of a service are that can be refused later.
fn places(root: &Field<'_>) -> Vec<(Box<str>, usize)> {
    let mut places = root.get("spec").places();
    places.extend(root.get("status").get("loadBalancer").places());
    places
}

/// What the document is.
fn kind(root: &Field<'_>, says: Option<(&str, &str)>) -> Checked<Kind> {
    root.map()?;
    let (kind, version) = (root.get("kind"), root.get("apiVersion"));
    if let (Some((said, of)), None, None) = (says, kind.text()?, version.text()?) {
        return kinds::kind_of(root, said, of);
    }
    let kind = kind.required_text()?;
    kinds::kind_of(root, kind, version.required_text()?)
}

fn object(root: &Field<'_>, kind: Kind, notes: &mut Vec<Problem>) -> Checked<Vec<Object>> {
    Ok(match kind {
        Kind::Service => vec![Object::Service(service::service(root, notes)?)],
        Kind::EndpointSlice => vec![Object::EndpointSlice(slice::slice(root)?)],
        Kind::Node => vec![Object::Node(meta::node(root)?)],
        Kind::Endpoints => slice::endpoints(root)?.into_iter().map(Object::EndpointSlice).collect(),
        Kind::Foreign => {
            notes.push(root.problem("skipped: Causeway does not handle this kind"));
            Vec::new()
        }
    })
}

/// A note with the name of what it is about. Of a kind that is not ours nobody knows here whether
/// it has a namespace if it names none.
fn warning(root: &Field<'_>, note: Problem) -> Warning {
    let mut about = refusal(root, note);
    if root.get("metadata").get("namespace").text().ok().flatten().is_none() && about.field == "." {
        about.object = about.object.trim_start_matches("default/").to_owned();
    }
    let line = about.line;
    let text = match about.field.as_str() {
        "." if about.object.is_empty() => format!("{}: {}", about.kind, about.reason),
        "." => format!("{} {}: {}", about.kind, about.object, about.reason),
        _ => about.to_string(),
    };
    Warning { line, text }
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
