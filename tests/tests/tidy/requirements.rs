//! Every requirement in tests/requirements has a test, and every row that a test names is there.

use std::collections::{BTreeMap, BTreeSet};

use causeway_tests::bins;

use super::{files, read, sources};

/// What a row asks of the tests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Asks {
    /// A test.
    Test,
    /// Nothing: a test may name the row.
    Optional,
    /// Nothing yet: the first test that names the row takes its mark away.
    Open,
    /// Nothing, for the reason that the row states.
    NotOurs,
}

/// A test function and the rows its documentation names.
#[derive(Debug)]
pub(crate) struct Test {
    /// The function's name.
    pub(crate) name: String,
    /// Ids of rows.
    rows: Vec<String>,
}

#[test]
fn every_row_has_a_test() {
    let folder = bins::workspace().join("tests/requirements");
    let texts = files(&folder, &["md"]).into_iter().filter(|path| !path.ends_with("README.md"));
    let texts: Vec<_> = texts.map(|path| read(&path)).collect();
    let (rows, mut wrong) = rows(&texts);
    assert!(!rows.is_empty(), "{}: no rows", folder.display());
    wrong.extend(faults(&rows, &tests()));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn rows_are_read_with_their_marks_and_doubles_are_refused() {
    let text = "- **C1** One.\n  **C9** more.\n- **C2** (open) Two.\n- **O-38b** (optional) Three.\n\
                - **S-32** (not ours) Four.\n- **C1** Again.\n- **C3** (opne) Five.\n- **C4**\n";
    let (rows, wrong) = rows(&[text.to_owned()]);
    let expected = [
        ("C1", Asks::Test),
        ("C2", Asks::Open),
        ("O-38b", Asks::Optional),
        ("S-32", Asks::NotOurs),
    ];
    assert_eq!(rows, expected.map(|(id, asks)| (id.to_owned(), asks)).into());
    let expected =
        ["row C1 stands twice", "row C3: the mark \"opne\" is unknown", "row C4 has no text"];
    assert_eq!(wrong, expected);
}

#[test]
fn a_missing_test_an_unknown_row_and_an_overtaken_mark_are_refused() {
    let asks = [
        ("C1", Asks::Test),
        ("C2", Asks::Test),
        ("C3", Asks::Open),
        ("C4", Asks::Open),
        ("C5", Asks::NotOurs),
        ("C6", Asks::Optional),
        ("C7", Asks::Optional),
    ];
    let rows = asks.map(|(id, asks)| (id.to_owned(), asks)).into();
    let named = ["C1", "C3", "C5", "C6", "C99"].map(str::to_owned).to_vec();
    let tests = [Test { name: "one".to_owned(), rows: named }];
    let expected = [
        "one: no row is called \"C99\"",
        "row C2 has no test",
        "row C3 has a test: remove its mark",
        "row C5 has a test: remove its mark",
    ];
    assert_eq!(faults(&rows, &tests), expected);
}

/// The rows of these texts, and what is wrong with how they are written.
fn rows(texts: &[String]) -> (BTreeMap<String, Asks>, Vec<String>) {
    let (mut found, mut wrong) = (BTreeMap::new(), Vec::new());
    for line in texts.iter().flat_map(|text| text.lines()) {
        let Some((id, rest)) = line.strip_prefix("- **").and_then(|row| row.split_once("**"))
        else {
            continue;
        };
        let mark = rest.strip_prefix(" (").and_then(|rest| rest.split_once(')'));
        let asks = match mark.map(|(mark, _)| mark) {
            Some("open") => Asks::Open,
            Some("optional") => Asks::Optional,
            Some("not ours") => Asks::NotOurs,
            Some(other) => {
                wrong.push(format!("row {id}: the mark {other:?} is unknown"));
                continue;
            }
            None => Asks::Test,
        };
        if mark.map_or(rest, |(_, text)| text).trim().is_empty() {
            wrong.push(format!("row {id} has no text"));
        } else if found.contains_key(id) {
            wrong.push(format!("row {id} stands twice"));
        } else {
            found.insert(id.to_owned(), asks);
        }
    }
    (found, wrong)
}

/// Where tests and rows disagree.
fn faults(rows: &BTreeMap<String, Asks>, tests: &[Test]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut named = BTreeSet::new();
    for test in tests {
        for row in &test.rows {
            if !rows.contains_key(row) {
                wrong.push(format!("{}: no row is called {row:?}", test.name));
            }
            named.insert(row.as_str());
        }
    }
    for (id, asks) in rows {
        match (asks, named.contains(id.as_str())) {
            (Asks::Test, false) => wrong.push(format!("row {id} has no test")),
            (Asks::Open | Asks::NotOurs, true) => {
                wrong.push(format!("row {id} has a test: remove its mark"));
            }
            _ => {}
        }
    }
    wrong
}

/// All test functions of the workspace. Panics on a row line that belongs to none.
pub(crate) fn tests() -> Vec<Test> {
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
