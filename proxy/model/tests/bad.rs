//! Documents that are refused, each with its line, field and reason: `bad/NAME.yaml` and beside it
//! `bad/NAME.txt` with what is said of it.

use std::fs;
use std::path::{Path, PathBuf};

use causeway_model::manifest::parse;

/// What commands print of a file.
fn said(name: &str, text: &str) -> String {
    let mut said = String::new();
    for document in parse(text) {
        for warning in &document.warnings {
            said += &format!("{name}: warning: {warning}\n");
        }
        match document.objects {
            Ok(objects) => {
                for object in objects {
                    said += &format!("{name}:{}: {} accepted\n", document.line, object.key());
                }
            }
            Err(refusal) => said += &format!("{}\n", refusal.at(name)),
        }
    }
    said
}

fn check(path: &Path) {
    let name = path.file_name().expect("a file").to_string_lossy();
    let is = said(&name, &fs::read_to_string(path).expect("readable"));
    let wanted = fs::read_to_string(path.with_extension("txt")).unwrap_or_default();
    assert_eq!(is, wanted, "{name}: is, wanted");
}

#[test]
fn bad_documents_are_refused_with_line_field_and_reason() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let files: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the corpus")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    assert!(files.len() > 10, "{files:?}");
    files.iter().for_each(|path| check(path));
}
