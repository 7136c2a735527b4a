//! A type's name has one meaning in its package: it is declared once there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use causeway_tests::bins;

use super::literals::code;
use super::{packages, sources_in, text};

/// Names that stay double, by the folder of their package.
const DOUBLE: &[(&str, &str)] = &[
    // Why the functions of a module fail: said with the module (`peers::Error`), as in the standard
    // library.
    ("proxy/daemon", "Error"),
    ("proxy/source", "Error"),
    // Parts of etcd's messages, which have these names in its definitions (`request_op::Request`,
    // `watch_request::Request`).
    ("proxy/source", "Request"),
];

#[test]
fn no_type_name_has_two_meanings_in_a_package() {
    let mut excused: BTreeSet<(String, String)> =
        DOUBLE.iter().map(|(folder, name)| ((*folder).to_owned(), (*name).to_owned())).collect();
    let mut wrong = String::new();
    for package in packages() {
        let manifest = PathBuf::from(text(&package["manifest_path"]));
        let folder = manifest.parent().expect("a folder");
        let shown = folder.strip_prefix(bins::workspace()).expect("in the workspace");
        for (name, files) in declared_below(&folder.join("src")) {
            let excuse = (shown.display().to_string(), name);
            if files.len() > 1 && !excused.remove(&excuse) {
                wrong += &format!("{}: {} in {}\n", excuse.0, excuse.1, files.join(", "));
            }
        }
    }
    assert!(wrong.is_empty(), "type names with two meanings:\n{wrong}");
    assert!(excused.is_empty(), "not double: take them out of the table: {excused:?}");
}

#[test]
fn declarations_are_told_from_uses() {
    let source = "pub struct One;\nenum Two {}\n/// struct No;\npub(crate) trait Three {\n    \
                  type No;\n}\nimpl Three for One {\n    type No = u8;\n}\ntype Four = One;\n\
                  mod five {\n    pub(super) struct Five(super::One);\n    pub type Six = u8;\n}\n\
                  const NO: &str = \"\nstruct No;\n\";\n#[cfg(test)]\nmod near;\nenum Seven {}\n\
                  #[cfg(test)]\npub(crate) mod testing {\n    struct No;\n}\n";
    assert_eq!(declared(source), ["One", "Two", "Three", "Four", "Five", "Six", "Seven"]);
}

/// Types below a package's `src`, without those of tests and other programs, and where each is
/// declared.
fn declared_below(folder: &Path) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let sources = if folder.is_dir() { sources_in(folder) } else { Vec::new() };
    for (path, source) in sources {
        let path = path.strip_prefix(folder).expect("below the folder").with_extension("");
        let is_part = |names: &[&str]| path.iter().any(|one| names.iter().any(|name| one == *name));
        if path.starts_with("bin") || is_part(&["tests", "testing"]) {
            continue;
        }
        for name in declared(&source) {
            found.entry(name).or_default().push(path.display().to_string());
        }
    }
    found
}

/// The types that a source declares, tests and associated types left out.
fn declared(source: &str) -> Vec<String> {
    let mut product = String::new();
    for (number, part) in source.split("#[cfg(test)]\n").enumerate() {
        let first = part.lines().next().unwrap_or_default();
        if number > 0 && first.contains("mod ") && first.ends_with('{') {
            break;
        }
        product += part;
    }
    code(&product).lines().filter_map(declaration).collect()
}

fn declaration(line: &str) -> Option<String> {
    let start = line.trim_start();
    let public = start.strip_prefix("pub").and_then(|rest| match rest.strip_prefix('(') {
        Some(rest) => rest.split_once(") ").map(|(_, rest)| rest),
        None => rest.strip_prefix(' '),
    });
    let (kind, rest) = public.unwrap_or(start).split_once(' ')?;
    let is_type = match kind {
        "struct" | "enum" | "union" | "trait" => true,
        // An associated type is indented and has no `pub`.
        "type" => public.is_some() || start.len() == line.len(),
        _ => false,
    };
    let name: String =
        rest.chars().take_while(|one| one.is_alphanumeric() || *one == '_').collect();
    (is_type && !name.is_empty()).then_some(name)
}
