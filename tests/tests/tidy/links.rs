//! Every link between pages leads to a file, and to a heading if it names one.

use std::path::Path;

use causeway_tests::bins;

use super::names::pages;
use super::{files, read};

#[test]
fn every_link_leads_somewhere() {
    let top = bins::workspace();
    let mut wrong = String::new();
    let mut count = 0;
    for page in pages(&top).into_iter().chain(files(&top.join("tests/requirements"), &["md"])) {
        let text = read(&page);
        for target in links(&text) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { page.clone() } else { beside(&page, file) };
            let there =
                path.exists() && (heading.is_empty() || headings(&path).any(|one| one == heading));
            if !there {
                wrong += &format!("{}: {target} leads nowhere\n", page.display());
            }
            count += 1;
        }
    }
    assert!(wrong.is_empty() && count > 10, "{count} links\n{wrong}");
}

/// What stands in the parentheses of links within the tree. Blocks of code have none.
fn links(page: &str) -> impl Iterator<Item = &str> {
    let prose = page.split("```").step_by(2);
    let targets = prose.flat_map(|text| text.split("](").skip(1));
    targets
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target)
        .filter(|one| !one.contains("://"))
}

fn beside(page: &Path, file: &str) -> std::path::PathBuf {
    page.parent().expect("a page is in a folder").join(file)
}

/// The names that headings of a page have in links.
fn headings(page: &Path) -> impl Iterator<Item = String> {
    let text = read(page);
    let prose: String = text.split("```").step_by(2).collect();
    let lines: Vec<_> = prose.lines().filter(|line| line.starts_with('#')).map(anchor).collect();
    lines.into_iter()
}

/// As GitHub and GitLab make them: words in small letters, joined by hyphens.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words.chars().filter(|one| one.is_alphanumeric() || " -_".contains(*one));
    kept.map(|one| if one == ' ' { '-' } else { one }).collect()
}

#[test]
fn a_heading_is_found_by_its_link() {
    assert_eq!(anchor("### With etcd, many `nodes`"), "with-etcd-many-nodes");
    let page = "[a](b.md#c) and `[x]`\n```\n[no](no.md)\n```\n[d](https://e) [f](g)";
    assert_eq!(links(page).collect::<Vec<_>>(), ["b.md#c", "g"]);
}
