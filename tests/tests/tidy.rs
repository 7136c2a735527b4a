//! The tree against its own rules: arrows, charters, sizes, configurations, rows, invariants.
#![expect(clippy::disallowed_methods, reason = "cargo is asked for the packages")]

#[path = "tidy/advisories.rs"]
mod advisories;
#[path = "tidy/circles.rs"]
mod circles;
#[path = "tidy/links.rs"]
mod links;
#[path = "tidy/literals.rs"]
mod literals;
#[path = "tidy/names.rs"]
mod names;
#[path = "tidy/picture.rs"]
mod picture;
#[path = "tidy/programs.rs"]
mod programs;
#[path = "tidy/requirements.rs"]
mod requirements;
#[path = "tidy/shell.rs"]
mod shell;
#[path = "tidy/types.rs"]
mod types;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use causeway_tests::{Cni, Daemon, Lab, bins, finish};
use serde_json::{Value, json};

/// The design's table: which of our packages a package may use.
const ARROWS: &[(&str, &[&str])] = &[
    ("cni-plugin", &[]),
    ("causeway-host", &[]),
    ("causeway-kernel", &["causeway-host"]),
    (
        "causeway-bridge",
        &["cni-plugin", "causeway-host", "causeway-kernel", "causeway-ruleset", "causeway-nft"],
    ),
    (
        "causeway-service",
        &[
            "cni-plugin",
            "causeway-host",
            "causeway-kernel",
            "causeway-model",
            "causeway-ruleset",
            "causeway-nft",
            "causeway-api",
        ],
    ),
    ("causeway-ipam", &["cni-plugin", "causeway-host"]),
    ("causeway-model", &[]),
    ("causeway-ruleset", &["causeway-model"]),
    ("causeway-nft", &["causeway-ruleset"]),
    ("causeway-source", &["causeway-model", "causeway-host"]),
    ("causeway-overlay", &["causeway-model"]),
    ("causeway-dns", &["causeway-model"]),
    ("causeway-api", &["causeway-model", "causeway-ruleset", "causeway-host"]),
    ("causeway", &["causeway-model", "causeway-ruleset", "causeway-api"]),
];

/// Packages that may use any other: they put everything together.
const FREE: &[&str] = &["causewayd", "causeway-tests"];

/// Packages that do no I/O, read no clock and hold no `unsafe`.
const PURE: &[&str] = &["cni-plugin", "causeway-model", "causeway-ruleset", "causeway-overlay"];

/// Invariants of the design that hold for the packages there are.
const INVARIANTS: &[&str] = &["i1", "i2", "i3", "i4", "i5", "i6", "i7", "i8", "i9"];

const MAX_LINES: usize = 800;

#[test]
fn arrows_between_packages_are_those_of_the_design() {
    let table: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let mut wrong = String::new();
    for package in packages() {
        let name = text(&package["name"]);
        if FREE.contains(&name.as_str()) {
            continue;
        }
        let Some(may) = table.get(name.as_str()) else {
            wrong += &format!("{name} has no charter in the design\n");
            continue;
        };
        for dependency in package["dependencies"].as_array().expect("a list") {
            let other = text(&dependency["name"]);
            let for_tests = dependency["kind"] == "dev";
            // Its own tests switch a feature of it on.
            if other == name && for_tests {
                continue;
            }
            let features = dependency["features"].as_array().expect("a list");
            let of_tests = ["fake", "fuzz", "testing"];
            if !for_tests && features.iter().any(|one| of_tests.iter().any(|it| one == it)) {
                wrong +=
                    &format!("{name} must not have {other}'s parts for tests outside its tests\n");
            }
            if !dependency["path"].is_null() && !may.contains(&other.as_str()) {
                wrong += &format!("{name} must not use {other}\n");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_package_inherits_the_lints() {
    let mut wrong = String::new();
    for package in packages() {
        let manifest = text(&package["manifest_path"]);
        if !read(Path::new(&manifest)).contains("[lints]\nworkspace = true\n") {
            wrong += &format!("{manifest}: [lints] workspace = true is missing\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_file_says_what_it_is_and_is_short() {
    let mut wrong = String::new();
    for (path, content) in sources() {
        let shown = path.display();
        if !content.starts_with("//! ") && !path.ends_with("tests.rs") {
            wrong += &format!("{shown}: does not begin with a charter line (//!)\n");
        }
        let lines = content.lines().count();
        if lines > MAX_LINES {
            wrong += &format!("{shown}: {lines} lines, {MAX_LINES} at most\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// "Text file busy" is what another thread's child makes of a program that a test wrote itself.
#[test]
fn programs_that_tests_run_are_written_by_another_process() {
    const SIGNS: [&str; 2] = ["copy(\"/bin/", "from_mode(0o7"];
    let mut wrong = String::new();
    for (path, content) in sources_in(&bins::workspace().join("tests")) {
        let ours = ["tests/src/executable.rs", "tests/tests/tidy.rs"];
        if ours.iter().any(|one| path.ends_with(one)) {
            continue;
        }
        for (index, line) in content.lines().enumerate() {
            if SIGNS.iter().any(|sign| line.contains(sign)) && !line.contains("executable::") {
                let shown = path.display();
                wrong += &format!("{shown}:{}: use causeway_tests::executable\n", index + 1);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn i1_pure_packages_do_no_io_and_hold_no_unsafe() {
    const FORBIDDEN: &[&str] = &[
        "std::fs",
        "std::net::Tcp",
        "std::net::Udp",
        "std::process",
        "std::env",
        "std::thread",
        "std::time::Instant",
        "std::time::SystemTime",
        "std::io::stdin",
        "std::io::stdout",
        "std::io::stderr",
        "File::",
        "println!",
        "print!(",
    ];
    let mut wrong = String::new();
    for package in packages().iter().filter(|one| PURE.contains(&text(&one["name"]).as_str())) {
        let manifest = PathBuf::from(text(&package["manifest_path"]));
        let folder = manifest.parent().expect("a folder").join("src");
        let lib = read(&folder.join("lib.rs"));
        if !lib.contains("#![forbid(unsafe_code)]") {
            wrong += &format!("{}: #![forbid(unsafe_code)] is missing\n", folder.display());
        }
        for (path, content) in sources_in(&folder) {
            for (word, (index, line)) in FORBIDDEN
                .iter()
                .flat_map(|word| content.lines().enumerate().map(move |l| (word, l)))
            {
                if line.contains(word) && !line.trim_start().starts_with("//") {
                    wrong += &format!("{}:{}: {word}\n", path.display(), index + 1);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_configuration_is_accepted() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let mut count = 0;
    for path in files(&bins::workspace().join("conf"), &["conflist", "conf", "json"]) {
        count += 1;
        let list: Value = serde_json::from_str(&read(&path))
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(list["name"].is_string() && list["cniVersion"].is_string(), "{}", path.display());
        for plugin in list["plugins"].as_array().expect("a conflist has plugins") {
            let outcome = status(node, &list, plugin);
            // 50 and 51 say that ADD cannot work here and now, not that the text is wrong.
            let refused = outcome.code() != 0 && ![11, 50, 51].contains(&outcome.error_code());
            assert!(!refused, "{}: {}", path.display(), outcome.describe());
        }
    }
    assert!(count > 0, "no configuration found");
    for path in files(&bins::workspace().join("conf"), &["yaml", "yml"]) {
        for document in causeway_model::manifest::parse(&read(&path)) {
            let refused = document.objects.err();
            assert!(refused.is_none(), "{}: {refused:?}", path.display());
        }
    }
    for path in files(&bins::workspace().join("conf"), &["toml"]) {
        let path = path.display().to_string();
        Daemon::cleanup(node, &["--dry-run", "--config", &path]).ok();
    }

    let list = json!({ "name": "n" });
    let wrong = json!({ "type": "causeway-bridge", "vlan": 5000 });
    assert_eq!(status(node, &list, &wrong).error_code(), 7, "STATUS reads the configuration");
}

fn status(node: &causeway_tests::Node, list: &Value, plugin: &Value) -> causeway_tests::Outcome {
    let mut config = plugin.clone();
    config["name"] = list["name"].clone();
    // Older versions have no STATUS; the rest of the configuration is the same.
    config["cniVersion"] = json!("1.1.0");
    Cni::new(node, &text(&plugin["type"]), "STATUS", &config).run()
}

#[test]
fn every_invariant_has_a_test() {
    let tests = requirements::tests();
    let missing: Vec<_> = INVARIANTS
        .iter()
        .filter(|name| !tests.iter().any(|test| test.name.starts_with(&format!("{name}_"))))
        .collect();
    assert!(missing.is_empty(), "no test named after {missing:?}");
}

#[test]
fn no_test_is_left_out() {
    for (path, content) in sources() {
        let ignored = content.lines().any(|line| line.trim_start().starts_with("#[ignore"));
        assert!(!ignored, "{}: a test that cannot run must fail", path.display());
    }
}

/// A file that no module names is not compiled, and what it tests is not tested.
#[test]
fn no_file_is_left_out() {
    let roots: Vec<_> = packages()
        .iter()
        .flat_map(|package| package["targets"].as_array().expect("a list").clone())
        .map(|target| PathBuf::from(text(&target["src_path"])))
        .collect();
    let mut named = BTreeMap::<PathBuf, String>::new();
    let all = sources();
    for (path, content) in &all {
        let package = package_of(path);
        let texts = named.entry(package.clone()).or_insert_with(|| read(&package));
        *texts += content;
    }
    let mut wrong = String::new();
    for (path, _) in all.iter().filter(|(path, _)| !roots.contains(path)) {
        let folder = path.parent().expect("a file in a folder");
        let stem = if path.ends_with("mod.rs") { folder } else { path };
        let stem = stem.file_stem().and_then(|stem| stem.to_str()).expect("a plain name");
        let texts = &named[&package_of(path)];
        if ![format!("mod {stem};"), format!("{stem}.rs\"")].iter().any(|it| texts.contains(it)) {
            wrong += &format!("{}: no module of its package names it\n", path.display());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The manifest of the package that a file belongs to.
fn package_of(path: &Path) -> PathBuf {
    let mut manifests = path.ancestors().skip(1).map(|folder| folder.join("Cargo.toml"));
    manifests.find(|one| one.exists()).expect("a file of a package")
}

fn packages() -> Vec<Value> {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(bins::workspace());
    command.args(["metadata", "--no-deps", "--offline", "--locked", "--format-version", "1"]);
    let all: Value = serde_json::from_str(&finish(command, b"").ok()).expect("cargo prints JSON");
    all["packages"].as_array().expect("a list of packages").clone()
}

fn sources() -> Vec<(PathBuf, String)> {
    let top = bins::workspace();
    let folders = ["plugins", "ipam", "proxy", "tests"];
    folders.iter().flat_map(|folder| sources_in(&top.join(folder))).collect()
}

fn sources_in(folder: &Path) -> Vec<(PathBuf, String)> {
    files(folder, &["rs"]).into_iter().map(|path| (path.clone(), read(&path))).collect()
}

/// Files below `folder` with one of these extensions, sorted; build output left out.
fn files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for entry in entries {
        let path = entry.expect("a folder entry").path();
        if path.is_dir() && !path.ends_with("target") {
            found.extend(files(&path, extensions));
        } else if path.extension().is_some_and(|end| extensions.iter().any(|one| end == *one)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value}")).to_owned()
}
