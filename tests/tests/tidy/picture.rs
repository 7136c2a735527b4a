//! ARCHITECTURE.md shows the packages and arrows that there are, and the findings page every finding.

use std::collections::{BTreeMap, BTreeSet};

use causeway_tests::bins;

use super::{ARROWS, FREE, packages, read, text};

#[test]
fn the_picture_shows_every_package_and_arrow() {
    let page = read(&bins::workspace().join("ARCHITECTURE.md"));
    let there: BTreeSet<_> = packages().iter().map(|package| text(&package["name"])).collect();
    let picture = page.split("```mermaid\n").nth(1).and_then(|rest| rest.split("```").next());
    let shown: BTreeMap<&str, BTreeSet<&str>> = picture
        .expect("a picture")
        .lines()
        .filter_map(|line| line.trim().split_once(" --> "))
        .map(|(from, to)| (from, to.split(" & ").collect()))
        .collect();
    let mut wrong = String::new();
    for (name, may) in ARROWS.iter().filter(|(name, _)| there.contains(*name)) {
        let drawn = shown.get(name).cloned().unwrap_or_default();
        let may = may.iter().copied().filter(|other| there.contains(*other)).collect();
        if drawn != may {
            wrong += &format!("{name}: the picture has arrows to {drawn:?}, tidy allows {may:?}\n");
        }
    }
    for name in &there {
        if !page.contains(&format!("\n| `{name}` | ")) {
            wrong += &format!("{name} is in no row of the table of packages\n");
        }
    }
    for name in shown.keys().filter(|name| !FREE.contains(name)) {
        if !there.contains(*name) {
            wrong += &format!("{name} is in the picture and not in the workspace\n");
        }
    }
    assert!(wrong.is_empty(), "ARCHITECTURE.md:\n{wrong}");
}

#[test]
fn the_page_of_findings_has_a_line_for_each() {
    let folder = bins::workspace().join("findings");
    let page = read(&folder.join("README.md"));
    for path in super::files(&folder, &["sh"]) {
        let name = path.file_name().expect("a name").to_string_lossy();
        assert!(
            page.contains(&format!("\n| [{name}]({name}) | ")),
            "findings/README.md: {name} is missing"
        );
    }
}
