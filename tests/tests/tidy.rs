//! The tree against its own rules: arrows, charters, sizes, configurations, rows, invariants.
#![expect(clippy::disallowed_methods, reason = "cargo is asked for the packages")]

#[path = "tidy/advisories.rs"]
mod advisories;
#[path = "tidy/literals.rs"]
mod literals;
#[path = "tidy/names.rs"]
mod names;
#[path = "tidy/programs.rs"]
mod programs;
#[path = "tidy/shell.rs"]
mod shell;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use causeway_tests::{Cni, Daemon, Lab, bins, finish};
use serde_json::{Value, json};

/// The design's table: which of our packages a package may use.
const ARROWS: &[(&str, &[&str])] = &[
    ("cni-plugin", &[]),
    ("causeway-kernel", &[]),
    ("causeway-bridge", &["cni-plugin", "causeway-kernel", "causeway-ruleset", "causeway-nft"]),
    (
        "causeway-service",
        &[
            "cni-plugin",
            "causeway-kernel",
            "causeway-model",
            "causeway-ruleset",
            "causeway-nft",
            "causeway-api",
        ],
    ),
    ("causeway-ipam", &["cni-plugin"]),
    ("causeway-model", &[]),
    ("causeway-ruleset", &["causeway-model"]),
    ("causeway-nft", &["causeway-ruleset"]),
    ("causeway-source", &["causeway-model"]),
    ("causeway-overlay", &["causeway-model"]),
    ("causeway-dns", &["causeway-model"]),
    ("causeway-api", &["causeway-model", "causeway-ruleset"]),
    ("causeway", &["causeway-model", "causeway-ruleset", "causeway-api"]),
];

/// Packages that may use any other: they put everything together.
const FREE: &[&str] = &["causewayd", "causeway-tests"];

/// Packages that do no I/O, read no clock and hold no `unsafe`.
const PURE: &[&str] = &["cni-plugin", "causeway-model", "causeway-ruleset", "causeway-overlay"];

/// Invariants of the design that hold for the packages there are.
const INVARIANTS: &[&str] = &["i1", "i2", "i3", "i4", "i5", "i6", "i7", "i8", "i9"];

/// Rows that ask nothing of our programs, and why.
const NOT_OURS: &[(&str, &str)] = &[
    (
        "P82",
        "no rule drops INVALID packets: that breaks asymmetric paths, and kernels from 6.1 on need none",
    ),
    (
        "O-17",
        "GBP, the group of a packet in vxlan's header, is not offered: no policy here reads it",
    ),
    ("O-45", "subnets from the Kubernetes API come with --store kubernetes"),
    ("O-46", "the same"),
    ("S-32", "IPVS is shown by the tutorial, not asked for"),
];

/// Rows with a dash: overlay, tutorials, cluster state.
const DASHED: &[(char, &[(u32, u32)])] = &[
    ('C', &[(1, 16)]),
    ('O', &[(1, 18), (20, 26), (30, 42), (45, 48), (50, 56), (60, 67)]),
    ('S', &[(8, 8), (11, 11), (17, 39), (43, 45)]),
];

/// Rows of tutorials that tests may name and need not.
const OTHERS: &[&str] =
    &["S-04", "S-05", "S-06", "S-07", "S-09", "S-10", "S-12", "S-13", "S-14", "S-15"];

/// Rows of the first minutes and a container's whole life: the letters after R, and the last number.
const LETTERED: &[(char, u32)] = &[('A', 10), ('B', 10), ('C', 14), ('D', 13), ('H', 12)];

/// Rows whose test is still to be written.
const OPEN: &[&str] = &[];

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
    let tests = tests();
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

#[test]
fn every_row_has_a_test() {
    let numbered = |letter: char, last: u32| (1..=last).map(move |n| format!("{letter}{n}"));
    let dashed = |(letter, numbers): &(char, &[(u32, u32)])| -> Vec<String> {
        let numbers = numbers.iter().flat_map(|(first, last)| *first..=*last);
        numbers.map(|n| format!("{letter}-{n:02}")).collect()
    };
    let more = ["O-38b", "O-38c", "U-07", "U-08", "U-11"].map(str::to_owned);
    let rows = numbered('C', 88).chain(numbered('F', 52)).chain(numbered('P', 100));
    let lettered = LETTERED
        .iter()
        .flat_map(|(letter, last)| (1..=*last).map(move |number| format!("R{letter}{number}")));
    let rows = rows.chain(DASHED.iter().flat_map(dashed)).chain(more).chain(lettered);
    let known: BTreeSet<String> = rows.collect();
    let excused: BTreeSet<_> = NOT_OURS.iter().map(|(row, _)| (*row).to_owned()).collect();
    let is_known = |row: &String| known.contains(row) || OTHERS.contains(&row.as_str());
    let mut wrong = String::new();
    let mut seen = BTreeSet::new();
    for test in tests() {
        for row in test.rows {
            if row.starts_with(['C', 'F', 'P', 'O', 'R', 'S']) && !is_known(&row) {
                writeln!(wrong, "{}: no row is called {row:?}", test.name).expect("a String");
            }
            seen.insert(row);
        }
    }
    let missing: Vec<_> = known.iter().filter(|row| !seen.contains(*row)).collect();
    let missing: Vec<_> = missing.into_iter().filter(|row| !excused.contains(*row)).collect();
    let missing: Vec<_> = missing.into_iter().filter(|row| !OPEN.contains(&row.as_str())).collect();
    if !missing.is_empty() {
        let mut numbers = missing;
        numbers.sort_by_key(|row| (row.chars().next(), row[1..].parse::<i32>().ok(), *row));
        writeln!(wrong, "{} rows without a test: {numbers:?}", numbers.len()).expect("a String");
    }
    for row in excused.intersection(&seen) {
        writeln!(wrong, "{row} has a test and needs no excuse").expect("a String");
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// A test function and the rows its documentation names.
#[derive(Debug)]
struct Test {
    name: String,
    rows: Vec<String>,
}

/// All test functions of the workspace. Panics on a row line that belongs to none.
fn tests() -> Vec<Test> {
    let mut found = Vec::new();
    for (path, content) in sources() {
        let (mut rows, mut is_test) = (Vec::new(), false);
        for (index, line) in content.lines().map(str::trim).enumerate() {
            let list = line.strip_prefix("/// Rows:").or_else(|| line.strip_prefix("/// Row:"));
            if let Some(list) = list {
                rows.extend(list.split(',').map(|row| row.trim().trim_end_matches('.').to_owned()));
            } else if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                is_test = true;
            } else if let Some((_, rest)) = line.split_once("fn ")
                && is_test
            {
                let name = rest.split('(').next().unwrap_or_default().to_owned();
                found.push(Test { name, rows: std::mem::take(&mut rows) });
                is_test = false;
            } else if !line.starts_with("///") && !line.starts_with("#[") {
                let stray = std::mem::take(&mut rows);
                let place = format!("{}:{}", path.display(), index + 1);
                assert!(stray.is_empty(), "{place}: rows {stray:?} belong to no test");
            }
        }
    }
    found
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
