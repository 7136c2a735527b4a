//! Manifest files that a command names.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use causeway_model::manifest::{self, Document, Refusal};

/// Endings of manifests in a directory.
const ENDINGS: &[&str] = &["yaml", "yml", "json"];

/// A file's documents.
pub(crate) struct Manifest {
    /// Its path as it is shown; `<stdin>`.
    pub(crate) shown: String,
    /// What is in it.
    pub(crate) documents: Vec<Document>,
}

/// A path that gives no documents.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    /// It cannot be read, or is not UTF-8 text.
    #[error("cannot read {shown}")]
    Read {
        /// The path.
        shown: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A directory without manifests.
    #[error("no *.yaml, *.yml or *.json in {shown}")]
    Empty {
        /// The path.
        shown: String,
    },
}

/// Reads files, the manifests of directories in order of their names (not of directories in them),
/// and stdin for `-`.
pub(crate) fn read(paths: &[PathBuf]) -> (Vec<Manifest>, Vec<Unreadable>) {
    let (mut manifests, mut unreadable) = (Vec::new(), Vec::new());
    for path in paths {
        match files(path) {
            Ok(files) => {
                for file in files {
                    match read_one(&file) {
                        Ok(manifest) => manifests.push(manifest),
                        Err(error) => unreadable.push(error),
                    }
                }
            }
            Err(error) => unreadable.push(error),
        }
    }
    (manifests, unreadable)
}

/// A refusal as `FILE:LINE: KIND NAMESPACE/NAME: FIELD: reason`, without the parts not known.
pub(crate) fn refusal(shown: &str, refusal: &Refusal) -> String {
    let object = [refusal.kind.as_str(), refusal.object.as_str()];
    let object = object.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    let parts = [object.as_str(), refusal.field.as_str(), refusal.reason.as_str()];
    let parts = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
    format!("{shown}:{}: {parts}", refusal.line)
}

fn files(path: &Path) -> Result<Vec<PathBuf>, Unreadable> {
    if path == Path::new("-") || !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let shown = path.display().to_string();
    let read = |source| Unreadable::Read { shown: shown.clone(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(read)? {
        let file = entry.map_err(read)?.path();
        let ending = file.extension().and_then(|ending| ending.to_str());
        if ending.is_some_and(|ending| ENDINGS.contains(&ending)) && !file.is_dir() {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() { Err(Unreadable::Empty { shown }) } else { Ok(files) }
}

fn read_one(path: &Path) -> Result<Manifest, Unreadable> {
    let (shown, text) = if path == Path::new("-") {
        let mut text = String::new();
        ("<stdin>".to_owned(), io::stdin().read_to_string(&mut text).map(|_| text))
    } else {
        (path.display().to_string(), fs::read_to_string(path))
    };
    match text {
        Ok(text) => Ok(Manifest { shown, documents: manifest::parse(&text) }),
        Err(source) => Err(Unreadable::Read { shown, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_file_line_object_field_and_reason() {
        for (kind, object, field, shown) in [
            (
                "Service",
                "default/web",
                "spec.ports[0].port",
                "a.yaml:7: Service default/web: spec.ports[0].port: must be 1 to 65535",
            ),
            ("document", "", "", "a.yaml:7: document: must be 1 to 65535"),
        ] {
            let [kind, object, field] = [kind, object, field].map(str::to_owned);
            let reason = "must be 1 to 65535".to_owned();
            assert_eq!(refusal("a.yaml", &Refusal { line: 7, kind, object, field, reason }), shown);
        }
    }
}
