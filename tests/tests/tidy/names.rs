//! Every flag, file and command that messages, pages and examples name exists.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use causeway_tests::{bins, finish};

use super::literals::literals;
use super::{files, read, sources};

/// Flags of other programs, which pages and messages name as well.
const FOREIGN: &[&str] = &[
    "--add-source",
    "--cap-drop",
    "--ip",
    "--ip6",
    "--label",
    "--mac-address",
    "--net",
    "--now",
    "--permanent",
    "--reload",
    "--unix-socket",
    "--zone",
];
/// Flags of cargo and of our own scripts, which the pages for contributors name.
const OF_BUILDING: &[&str] = &["--all-targets", "--bins", "--locked", "--test", "--workspace"];
/// Refused by name, and said to be so.
const NOT_YET: &[&str] = &["--dns-listen", "--live"];
/// A text that a user reads, and where it is.
struct Said {
    place: String,
    text: String,
    /// A block of a page: of commands (`sh`), or of what a terminal shows.
    typed: bool,
}

/// Rows: RA6
#[test]
fn every_flag_that_is_named_exists() {
    let helps = helps();
    let known: BTreeSet<_> = helps.iter().flat_map(|help| flags(&help.text)).collect();
    assert!(known.contains("--etcd-cafile") && known.contains("--network"), "{known:?}");
    let mut wrong = String::new();
    for said in said() {
        for flag in flags(&said.text) {
            let page = said.place.ends_with(".md");
            let building = page && OF_BUILDING.contains(&flag.as_str());
            let other = building || [FOREIGN, NOT_YET].concat().contains(&flag.as_str());
            if !known.contains(&flag) && !other {
                wrong += &format!("{}: no program of ours has {flag}\n", said.place);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Rows: RA6
#[test]
fn every_file_that_is_named_exists() {
    let mut wrong = String::new();
    let mut count = 0;
    for said in said() {
        for path in paths(&said.text) {
            count += 1;
            if !exists(&path) {
                wrong += &format!("{}: there is no {path}\n", said.place);
            }
        }
    }
    assert!(wrong.is_empty() && count > 0, "{count} paths\n{wrong}");
}

/// Rows: RA6
#[test]
fn every_command_that_is_named_exists() {
    let mut known: BTreeSet<_> = helps().into_iter().map(|help| help.place).collect();
    let makefile = read(&bins::workspace().join("Makefile"));
    let targets = makefile.lines().find_map(|line| line.strip_prefix(".PHONY: "));
    let targets = targets.expect("the Makefile's targets").split_whitespace();
    known.extend(targets.map(|target| format!("make {target}")));
    let mut wrong = String::new();
    let mut seen = BTreeSet::new();
    for said in said() {
        for command in commands(&said) {
            if !known.contains(&command) {
                wrong += &format!("{}: there is no `{command}`\n", said.place);
            }
            seen.insert(command);
        }
    }
    assert!(wrong.is_empty() && seen.contains("causeway apply"), "{seen:?}\n{wrong}");
}

/// Help texts by command (`causeway get`), those of subcommands included.
fn helps() -> Vec<Said> {
    let mut found = Vec::new();
    let mut left =
        ["causewayd", "causeway", "causeway-ipam"].map(|one| vec![one.to_owned()]).to_vec();
    while let Some(words) = left.pop() {
        let mut command = Command::new(bins::ours(&words[0]));
        command.args(&words[1..]).arg("--help");
        let text = finish(command, b"").ok();
        let below = text.lines().skip_while(|line| *line != "Commands:").skip(1);
        for line in below.take_while(|line| line.starts_with("  ")) {
            let Some(name) = line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')) else {
                continue;
            };
            let name = name.split_whitespace().next().expect("a command's name");
            if name != "help" {
                left.push([&words[..], &[name.to_owned()]].concat());
            }
        }
        // The help of causeway-ipam is one page for all.
        let lines = text.lines().filter(|_| words[0] == "causeway-ipam");
        let lines = lines.map(|line| line.trim_start_matches("usage:").trim());
        let names = lines.filter_map(|line| line.strip_prefix("causeway-ipam "));
        for name in names.filter_map(|rest| rest.split_whitespace().next()) {
            let place = format!("causeway-ipam {name}");
            found.push(Said { place, text: String::new(), typed: false });
        }
        found.push(Said { place: words.join(" "), text, typed: false });
    }
    found
}

/// What people read: pages, examples, and the texts in the product.
fn said() -> Vec<Said> {
    let top = bins::workspace();
    let place = |path: &Path| path.strip_prefix(&top).unwrap_or(path).display().to_string();
    let mut found = Vec::new();
    for path in pages(&top) {
        let page = read(&path);
        // What is not here yet is named so that nobody looks for it.
        let yet = page.split("\n\n").filter(|part| !part.starts_with("Not here yet:"));
        for (index, text) in yet.collect::<Vec<_>>().join("\n\n").split("```").enumerate() {
            found.push(Said { place: place(&path), text: text.to_owned(), typed: index % 2 == 1 });
        }
    }
    for path in files(&top.join("conf"), &["conf", "conflist", "service", "toml", "yaml"]) {
        found.push(Said { place: place(&path), text: read(&path), typed: false });
    }
    for (path, content) in sources() {
        let shown = place(&path);
        // Rules for iptables are no text for users.
        let rules = shown.contains("iptables") || shown.ends_with("forward/legacy.rs");
        if shown.starts_with("tests/") || shown.contains("/tests") || rules {
            continue;
        }
        let content = content.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for one in literals(content) {
            found.push(Said { place: shown.clone(), text: one.text, typed: false });
        }
    }
    found
}

/// The pages at the top, those of the folders, and `docs/`. The requirements are no page about what
/// there is: they name flags of other programs, and of what is to come.
pub(super) fn pages(top: &Path) -> Vec<PathBuf> {
    let here = std::fs::read_dir(top).expect("the top folder").map(|entry| entry.expect("a file"));
    let mut found: Vec<_> = here.map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|ext| ext == "md"));
    found.extend(
        ["findings", "ipam", "plugins", "proxy", "tests"]
            .map(|folder| top.join(folder).join("README.md")),
    );
    found.extend(files(&top.join("docs"), &["md"]));
    found.sort();
    assert!(found.contains(&top.join("README.md")), "{found:?}");
    found
}

fn flags(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("--") {
        let before = text[..at].chars().next_back();
        let name: String = text[at + 2..].chars().take_while(|one| is_name(*one)).collect();
        let free = before.is_none_or(|one| one.is_whitespace() || "`\"'([|,".contains(one));
        if free && name.starts_with(|one: char| one.is_ascii_lowercase()) {
            found.insert(format!("--{}", name.trim_end_matches('-')));
        }
    }
    found
}

fn is_name(one: char) -> bool {
    one == '-' || one.is_ascii_lowercase() || one.is_ascii_digit()
}

/// Words that begin like a path of the tree.
fn paths(text: &str) -> BTreeSet<String> {
    const FOLDERS: &[&str] = &["conf/", "tests/", "plugins/", "proxy/", "ipam/", ".ci/"];
    let words = text.split(|one: char| one.is_whitespace() || "`\"'()[]<>:;|#".contains(one));
    let paths = words.filter(|word| FOLDERS.iter().any(|folder| word.starts_with(folder)));
    paths.map(|word| word.trim_end_matches(['.', ',']).to_owned()).collect()
}

/// Whether it is there; `{1,2}` stands for both.
fn exists(path: &str) -> bool {
    if let (Some(open), Some(close)) = (path.find('{'), path.find('}')) {
        let (before, after) = (&path[..open], &path[close + 1..]);
        return path[open + 1..close]
            .split(',')
            .all(|one| exists(&format!("{before}{one}{after}")));
    }
    let below: PathBuf = bins::workspace().join(path);
    below.exists()
}

/// `causeway VERB` and the like, where they are typed: between backticks, after "run: ", or at the
/// beginning of a line of commands.
fn commands(said: &Said) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for program in ["causeway-ipam ", "causewayd ", "causeway ", "make "] {
        for (at, _) in said.text.match_indices(program) {
            let (before, rest) = (&said.text[..at], &said.text[at + program.len()..]);
            let commands = said.text.starts_with("sh\n") && before.ends_with('\n');
            let line = said.typed && (commands || before.ends_with("\n# "));
            let word: String = rest.chars().take_while(|one| is_name(*one)).collect();
            let typed = line || before.ends_with(['`']) || before.ends_with("run: ");
            if typed && word.starts_with(|one: char| one.is_ascii_lowercase()) {
                found.insert(format!("{program}{word}"));
            }
        }
    }
    found
}
