//! Vulnerabilities of dependencies: looked for every day, and accepted with a reason only.

use causeway_tests::bins;

use super::read;

/// The database is not fetched here, so what runs elsewhere is looked at.
///
/// Rows: RH9
#[test]
fn advisories_are_looked_for_every_day_and_accepted_with_a_reason() {
    let workspace = bins::workspace();
    let workflow = read(&workspace.join(".github/workflows/advisories.yml"));
    for part in ["schedule:", "cron:", "cargo deny --locked check advisories", "tests/deps.sh"] {
        assert!(workflow.contains(part), "{part} in {workflow}");
    }
    let deps = read(&workspace.join("tests/deps.sh"));
    assert!(deps.lines().any(|line| line.starts_with("deny=")), "the version of cargo-deny");

    let deny = read(&workspace.join("deny.toml"));
    let (_, section) = deny.split_once("[advisories]\n").expect("a section");
    let section = section.split("\n[").next().unwrap_or_default();
    assert!(section.contains("unused-ignored-advisory = \"deny\""), "{section}");
    let locked = read(&workspace.join("Cargo.lock"));
    let mut entries = 0;
    for line in section.lines().filter(|line| line.contains("RUSTSEC-")) {
        let value = |key: &str| {
            let (_, rest) = line.split_once(&format!("{key} = \""))?;
            rest.split_once('"').map(|(value, _)| value)
        };
        let id = value("id").unwrap_or_else(|| panic!("{{ id = .., reason = .. }}, not {line}"));
        let reason = value("reason").unwrap_or_default();
        let name = reason.split(' ').next().unwrap_or_default();
        assert!(reason.len() > name.len() + 20, "{id}: the crate, then why it is accepted");
        assert!(
            locked.contains(&format!("name = \"{name}\"\n")),
            "{id}: {name} is not in Cargo.lock"
        );
        entries += 1;
    }
    let ignored = section.split_once("ignore = [").map_or("", |(_, rest)| rest);
    assert_eq!(ignored.matches("RUSTSEC-").count(), entries, "{section}");
}
