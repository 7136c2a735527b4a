//! Every program that product, tests and scripts start is in a package that `make deps` installs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use causeway_tests::{bins, finish};

use super::literals::{Literal, literals};
use super::shell::{UNKNOWN, programs};
use super::{files, read, sources};

/// Functions of the tests that run their text in a shell.
const SHELLS: &[&str] = &["sh", "shell", "try_sh"];
/// Functions whose first argument is a program.
const CONSTRUCTORS: &[&str] = &["Command::new", "command", "finish", "program"];
/// The product's calls of `causeway_kernel::run`, by file, and what they start. Plugins by
/// `CNI_PATH` are the runtime's business.
const PRODUCT: &[(&str, &[&str])] = &[
    ("plugins/bridge/src/ipam.rs", &[]),
    ("plugins/bridge/src/masq/iptables.rs", IPTABLES),
    ("plugins/service/src/iptables.rs", IPTABLES),
    ("proxy/daemon/src/backend/iptables.rs", IPTABLES),
    ("proxy/daemon/src/forward.rs", &["iptables-save", "ip6tables-save"]),
    ("proxy/daemon/src/sysctls.rs", &["modprobe"]),
];
const IPTABLES: &[&str] =
    &["iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore"];
/// Words that tests give to functions of their own that have one of these names.
const NOT_PROGRAMS: &[&str] = &["gc", "init"];

/// Rows: RA1
#[test]
fn every_program_that_is_started_is_in_a_named_package() {
    let table = table();
    let mut started = BTreeMap::<String, BTreeSet<String>>::new();
    let mut note = |place: &Path, names: BTreeSet<String>| {
        let place = place.strip_prefix(bins::workspace()).unwrap_or(place).display().to_string();
        for name in names {
            started.entry(name).or_default().insert(place.clone());
        }
    };
    for (path, content) in sources() {
        if path.ends_with("tidy/shell.rs") || path.ends_with("tidy/programs.rs") {
            continue;
        }
        let text = path.display().to_string();
        if text.contains("/tests") {
            let names = literals(&content).iter().flat_map(|one| in_literal(one, &table)).collect();
            note(&path, names);
        }
        let listed = PRODUCT.iter().find(|(file, _)| text.ends_with(file));
        let runs = content.contains("Program {") && content.contains("kernel::run");
        assert!(
            listed.is_some() || !runs || path.starts_with(bins::workspace().join("plugins/kernel")),
            "{text} starts a program: say in tests/tests/tidy/programs.rs which"
        );
        note(
            &path,
            listed.into_iter().flat_map(|(_, names)| *names).map(|n| (*n).into()).collect(),
        );
    }
    for path in scripts() {
        note(&path, programs(&read(&path)));
    }
    let makefile = bins::workspace().join("Makefile");
    note(&makefile, programs(&recipes(&read(&makefile))));
    for path in files(&bins::workspace().join("conf"), &["service"]) {
        let lines = read(&path);
        let commands = lines.lines().filter(|line| line.starts_with("Exec"));
        let commands = commands.filter_map(|line| line.split_once('='));
        let commands = commands.map(|(_, line)| line.trim_start_matches(['+', '-', '@', '!', ':']));
        note(&path, programs(&commands.collect::<Vec<_>>().join("\n")));
    }

    let mut wrong = String::new();
    for (name, places) in &started {
        let ours = name.starts_with("causeway") || NOT_PROGRAMS.contains(&name.as_str());
        if !ours && !table.contains_key(name) {
            wrong +=
                &format!("{name}, started by {places:?}, is in no line of tests/programs.txt\n");
        }
    }
    for (name, entry) in &table {
        if !started.contains_key(name) && !entry.indirect {
            wrong += &format!("tests/programs.txt: nothing starts {name}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// `make demo` installs what the demo starts and builds what it starts, in a profile without the long
/// optimizations: its first container is there minutes earlier.
///
/// Rows: RA2
#[test]
fn the_demo_installs_and_builds_what_it_starts_and_nothing_else() {
    let top = bins::workspace();
    let script = read(&top.join("tests/demo.sh"));
    // An ordinary user can run it, or is told what to set.
    assert!(script.contains("exec \"$here/tests/enter\" --enter"), "the demo begins by itself");
    let table = table();
    for name in programs(&script) {
        let set = table.get(&name).map_or("", |entry| entry.set.as_str());
        assert!(["base", "demo"].contains(&set), "{name} is in the set {set:?}, not in demo");
    }
    let started = programs(&script);
    for (name, entry) in &table {
        let used = |one: &(&String, &Entry)| {
            let builds = ["cc", "make", "python3"].contains(&one.0.as_str());
            one.1.package == entry.package && (builds || started.contains(one.0))
        };
        let used = entry.set != "demo" || table.iter().any(|one| used(&one));
        assert!(used, "{name} is in the set demo and the demo has no use for its package");
    }

    let mut starts: BTreeSet<String> = script
        .split("$bin/")
        .skip(1)
        .map(|rest| {
            rest.chars().take_while(|one| one.is_ascii_lowercase() || *one == '-').collect()
        })
        .collect();
    let networks = files(&top.join("conf"), &["conflist"]);
    for path in networks.iter().filter(|path| path.to_string_lossy().contains("/20-")) {
        let parts = read(path);
        let types = parts.split("\"type\": \"").skip(1).filter_map(|rest| rest.split('"').next());
        starts.extend(types.map(str::to_owned));
    }
    let mut make = Command::new("make");
    make.current_dir(&top).args(["-n", "demo"]);
    let plan = finish(make, b"").ok();
    assert!(plan.contains("tests/deps.sh demo") && plan.contains("--profile demo"), "{plan}");
    let builds = plan.split("--bin ").skip(1).filter_map(|rest| rest.split_whitespace().next());
    assert_eq!(builds.map(str::to_owned).collect::<BTreeSet<_>>(), starts);
    let manifest = read(&top.join("Cargo.toml"));
    let profile = manifest.split("[profile.demo]\n").nth(1).expect("a profile of its own");
    let profile = profile.split("\n[").next().unwrap_or_default();
    for line in ["lto = \"off\"", "codegen-units = 16", "opt-level = 0"] {
        assert!(profile.lines().any(|one| one == line), "[profile.demo]: {line} is missing");
    }
}

/// A program as tests/programs.txt has it.
struct Entry {
    /// Another program starts it (`name*`).
    indirect: bool,
    package: String,
    /// Who needs the package.
    set: String,
}

/// The programs of tests/programs.txt.
fn table() -> BTreeMap<String, Entry> {
    let path = bins::workspace().join("tests/programs.txt");
    let mut found = BTreeMap::new();
    for line in read(&path).lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let (package, set) = (words.next().expect("a package"), words.next().unwrap_or_default());
        let sets = ["base", "rust", "tools", "guarded", "demo", "test", "fresh", "fuzz"];
        assert!(sets.contains(&set), "{}: {package}: {set:?} is no set", path.display());
        for word in words.take_while(|word| !word.starts_with('#')) {
            let (name, indirect) = word.strip_suffix('*').map_or((word, false), |n| (n, true));
            let entry = Entry { indirect, package: package.to_owned(), set: set.to_owned() };
            let before = found.insert(name.to_owned(), entry);
            assert!(before.is_none(), "{}: {name} stands there twice", path.display());
        }
    }
    found
}

/// What the text in a source starts. A text that no function is known to run counts if it begins with
/// a program that there is and goes on as a script.
fn in_literal(one: &Literal, table: &BTreeMap<String, Entry>) -> BTreeSet<String> {
    let is = |names: &[&str]| names.contains(&one.function.as_str());
    if is(CONSTRUCTORS) && one.first && !one.text.contains(char::is_whitespace) {
        return programs(&one.text);
    }
    let script = if one.format { placeholders(&one.text) } else { one.text.clone() };
    let begins = script.split_whitespace().next().is_some_and(|word| table.contains_key(word));
    let goes_on = ["\n", "; ", " | ", " && ", " || "].iter().any(|part| script.contains(part));
    // Of a fake plugin: the CNI command, then what it does.
    let fake = is(&["script"]) && !one.first;
    if is(SHELLS) || fake || (begins && goes_on) { programs(&script) } else { BTreeSet::new() }
}

/// The text of a `format!` with its placeholders unknown.
fn placeholders(text: &str) -> String {
    let text = text.replace("{{", "\u{2}").replace("}}", "\u{3}");
    let mut result = String::new();
    let mut inside = false;
    for one in text.chars() {
        match one {
            '{' => inside = true,
            '}' => {
                inside = false;
                result.push(UNKNOWN);
            }
            _ if !inside => result.push(one),
            _ => {}
        }
    }
    result.replace('\u{2}', "{").replace('\u{3}', "}")
}

/// Files that a shell reads.
fn scripts() -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for folder in ["tests", ".ci", "conf", "findings"] {
        let entries = std::fs::read_dir(bins::workspace().join(folder)).expect("a folder");
        for path in entries.map(|entry| entry.expect("an entry").path()) {
            if path.is_file() && read(&path).starts_with("#!/bin/") {
                found.push(path);
            }
        }
    }
    found
}

/// The commands of a makefile, its variables unknown.
fn recipes(makefile: &str) -> String {
    let mut result = String::new();
    let mut rest = &*makefile.replace("$$", "\u{2}");
    while let Some(at) = rest.find("$(") {
        result += &rest[..at];
        let inside = &rest[at + 2..];
        let mut depth = 1;
        let end = inside.find(|one| {
            depth += i32::from(one == '(') - i32::from(one == ')');
            depth == 0
        });
        let (variable, after) = inside.split_at(end.expect("a closing parenthesis"));
        match variable.strip_prefix("shell ") {
            Some(command) => result += &format!("$({command})"),
            None => result.push(UNKNOWN),
        }
        rest = &after[1..];
    }
    result += rest;
    let shells = |line: &&str| line.starts_with('\t') || line.contains("$(");
    let line = |line: &str| line.trim_start_matches(['\t', '@', '-']).replace('\u{2}', "$");
    let assigned = |text: &str| match text.split_once("$(") {
        Some((before, _)) if !text.starts_with('\t') => text[before.len()..].to_owned(),
        _ => line(text),
    };
    result.lines().filter(shells).map(assigned).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_reader_of_scripts_finds_what_a_shell_would_start() {
    let cases = [
        ("ip link set lo up", "ip"),
        ("set -e; cd /tmp && A=1 B=\"$(id -u)\" make x | tee y >z 2>&1", "id make tee"),
        ("if ! grep -q 'a; b' f; then sleep 1; else\nfalse; fi", "grep sleep"),
        ("ip netns exec a\n", "ip"),
        ("ip netns exec a curl -s x # then jq", "curl ip"),
        ("exec nsenter --net=/x -- etcd --flag", "etcd nsenter"),
        (
            "unshare --mount --propagation private sh -ec 'mount x; exec sleep 9'",
            "mount sh sleep unshare",
        ),
        ("timeout -s KILL 5 nc -l", "nc timeout"),
        ("case $1 in a|b) jq .;; *) awk 1 ;; esac; wc", "awk jq wc"),
        ("f() { date; }; f; x=(a b $(hostname)); for one in q w; do f; done", "date hostname"),
        ("cat <<'END' | sort\nrm -rf\nEND\ntr a b", "cat sort tr"),
        ("while read -r x; do :; done < <(find . -exec stat {} +)", "find stat"),
        ("/usr/sbin/nft list; ./mine; $tool a; \"$b/cnitool\"; [ -e x ] || [[ a && b ]]", "nft"),
        ("echo \"it is $(uname -r) ${x:-$(nproc)}\" $((1 + 2)) 'no $(rm)'", "nproc uname"),
        ("trap 'umount /x' EXIT; command -v go", "go umount"),
    ];
    for (script, wanted) in cases {
        let found = programs(script).into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(found, wanted, "{script}");
    }
}
