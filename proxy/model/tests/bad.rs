//! Documents that are refused, each with its line, field and reason: `bad/NAME.yaml` and beside it
//! `bad/NAME.txt` with what is said of it.

use std::fs;
use std::path::{Path, PathBuf};

use causeway_model::Object;
use causeway_model::allocate::{Allocator, Pools};
use causeway_model::manifest::{Refusal, Validate, parse};

/// What commands print of a file.
fn said(name: &str, text: &str) -> String {
    let mut said = String::new();
    for document in parse(text) {
        for warning in document.warnings(Validate::Strict) {
            said += &format!("{name}:{}: warning: {}\n", warning.line, warning.text);
        }
        let refusals = document.refusals(Validate::Strict);
        for refusal in &refusals {
            said += &format!("{}\n", refusal.at(name));
        }
        for object in document.objects.iter().flatten().filter(|_| refusals.is_empty()) {
            said += &match completed(object) {
                Ok(()) => format!("{name}:{}: {} accepted\n", document.line, object.key()),
                Err(mut refusal) => {
                    refusal.line = document.line_of(&refusal.field);
                    format!("{}\n", refusal.at(name))
                }
            };
        }
    }
    said
}

/// What only who knows the other objects can refuse.
fn completed(object: &Object) -> Result<(), Refusal> {
    let Object::Service(service) = object else { return Ok(()) };
    let pools = Pools {
        reserved: Vec::new(),
        service_cidrs: ["10.96.0.0/16", "fd00:96::/112"]
            .map(|text| text.parse().expect("a network"))
            .into(),
        node_ports: (30_000, 32_767),
        foreign: Vec::new(),
        guarded: std::sync::Arc::default(),
        balancers: Vec::new(),
        neighbours: Vec::new(),
    };
    Allocator::default().complete(&pools, service.clone(), None).map(drop)
}

fn check(path: &Path) {
    let name = path.file_name().expect("a file").to_string_lossy();
    let is = said(&name, &fs::read_to_string(path).expect("readable"));
    let wanted = fs::read_to_string(path.with_extension("txt")).unwrap_or_default();
    assert_eq!(is, wanted, "{name}: is, wanted");
}

/// An address as external name is in `external.yaml`.
/// Rows: D-12
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
