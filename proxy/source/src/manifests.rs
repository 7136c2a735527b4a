//! The manifest directory: files of Kubernetes documents, watched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use causeway_model::manifest::Document;

/// The `*.yaml`, `*.yml` and `*.json` files of a directory, in order of their names.
#[derive(Debug)]
pub struct ManifestDir {
    #[expect(dead_code, reason = "until it is read")]
    path: PathBuf,
}

/// The directory's content at one time.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// Documents by file name. A file that can not be read counts as one refused document.
    pub files: BTreeMap<String, Vec<Document>>,
}

impl ManifestDir {
    /// A directory; it may be absent, and come and go.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Reads all files.
    pub fn scan(&self) -> Scan {
        todo!()
    }
}
