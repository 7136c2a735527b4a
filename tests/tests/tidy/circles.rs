//! No modules of one folder use each other in a loop.
//!
//! A module stands for all that is below it. What a path leads to is found as far as a reader finds
//! it: by its modules, and by the `use` lines of the module where it ends. A folder's own file may use
//! what is in the folder and be used from there; tests may use anything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use causeway_tests::bins;

use super::literals::code;
use super::{packages, sources_in, text};

/// A module, as the names that lead to it from the root.
type Module = Vec<String>;
/// Modules of a folder that use each other, with a line for each use.
type Circle = (Module, BTreeSet<String>, Vec<String>);

/// What a module's source names.
#[derive(Default)]
struct Names {
    /// What `use` lines bring in, by the name that it has then.
    imports: BTreeMap<String, String>,
    /// Every path from `crate`, `super` or `self`, and every path of a `use` line.
    paths: BTreeSet<String>,
}

#[test]
fn modules_do_not_use_each_other_in_a_loop() {
    let mut wrong = String::new();
    for package in packages() {
        let folder = PathBuf::from(text(&package["manifest_path"])).with_file_name("src");
        let shown = folder.strip_prefix(bins::workspace()).expect("in the workspace");
        for (place, modules, uses) in circles(&read_modules(&folder)) {
            let modules = modules.into_iter().collect::<Vec<_>>().join(" ");
            let place = place.iter().fold(shown.to_path_buf(), |place, part| place.join(part));
            wrong += &format!("{}: {modules}\n  {}\n", place.display(), uses.join("\n  "));
        }
    }
    assert!(wrong.is_empty(), "modules use each other in a loop:\n{wrong}");
}

#[test]
fn a_circle_is_found_through_groups_and_imports_and_a_straight_line_is_none() {
    let read = |files: &[(&str, &str)]| -> BTreeMap<Module, Names> {
        let file = |(path, source): &(&str, &str)| (module(Path::new(path)), names(source));
        files.iter().map(file).collect()
    };
    let straight = [
        ("lib.rs", "mod a; mod b; pub use a::Thing;"),
        ("a.rs", "// use crate::b::Other;\nmod deep; pub struct Thing(deep::Depth);"),
        ("a/deep.rs", "use super::Thing; pub struct Depth;"),
        ("b.rs", "use crate::Thing; const WORDS: &str = \"crate::a\";"),
        ("a/tests.rs", "use crate::b;"),
    ];
    assert!(circles(&read(&straight)).is_empty());

    let by_import = [
        ("lib.rs", "mod a; mod b; pub use a::{Thing, self as other};"),
        ("a.rs", "mod one; mod two;"),
        ("a/one.rs", "use super::two::{\n    Deep, Two,\n};"),
        ("a/two.rs", "fn two() { super::one::call(); crate::b::call() }"),
        ("b.rs", "use crate::{Thing, self};"),
    ];
    let found = circles(&read(&by_import));
    let found: Vec<_> = found
        .iter()
        .map(|(folder, modules, _)| {
            (folder.join("::"), modules.iter().cloned().collect::<Vec<_>>())
        })
        .collect();
    let one = |folder: &str, modules: &[&str]| {
        (folder.to_owned(), modules.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(found, [one("", &["a", "b"]), one("a", &["one", "two"])]);
}

/// The modules below a package's `src`, without those of tests and other programs.
fn read_modules(folder: &Path) -> BTreeMap<Module, Names> {
    let mut modules: BTreeMap<Module, Names> = BTreeMap::new();
    let sources = if folder.is_dir() { sources_in(folder) } else { Vec::new() };
    for (path, source) in sources {
        let path = path.strip_prefix(folder).expect("below the folder");
        if path.starts_with("bin") {
            continue;
        }
        // A library and a program of one package share the root.
        let Names { imports, paths } = names(&source);
        let module = modules.entry(module(path)).or_default();
        module.imports.extend(imports);
        module.paths.extend(paths);
    }
    modules
}

fn module(path: &Path) -> Module {
    let path = path.with_extension("");
    let names: Module = path.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    match names.as_slice() {
        [root] if root == "lib" || root == "main" => Vec::new(),
        _ => names,
    }
}

/// The circles of all folders.
fn circles(modules: &BTreeMap<Module, Names>) -> Vec<Circle> {
    // By folder: who uses whom, with the paths that say so.
    let mut arrows: BTreeMap<Module, BTreeMap<(String, String), Vec<String>>> = BTreeMap::new();
    for (from, names) in modules {
        if from.iter().any(|name| name == "tests") {
            continue;
        }
        for path in &names.paths {
            let Some(to) = target(modules, from, path, 0) else { continue };
            let common = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
            if let (Some(one), Some(other)) = (from.get(common), to.get(common)) {
                let arrow = (one.clone(), other.clone());
                let uses = arrows.entry(from[..common].to_vec()).or_default();
                uses.entry(arrow).or_default().push(format!("{}: {path}", from.join("::")));
            }
        }
    }
    let mut found = Vec::new();
    for (folder, arrows) in arrows {
        let mut seen = BTreeSet::new();
        for start in arrows.keys().map(|(from, _)| from) {
            let circle: BTreeSet<String> = reached(&arrows, start)
                .into_iter()
                .filter(|other| reached(&arrows, other).contains(start))
                .collect();
            if circle.contains(start) && seen.insert(circle.clone()) {
                let within =
                    |(from, to): &(String, String)| circle.contains(from) && circle.contains(to);
                let uses = arrows.iter().filter(|(arrow, _)| within(arrow));
                let uses = uses.flat_map(|(_, uses)| uses.clone()).collect();
                found.push((folder.clone(), circle, uses));
            }
        }
    }
    found
}

/// The modules that `start` uses, themselves or by others.
fn reached(arrows: &BTreeMap<(String, String), Vec<String>>, start: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut left = vec![start.to_owned()];
    while let Some(one) = left.pop() {
        for (_, to) in arrows.keys().filter(|(from, _)| *from == one) {
            if found.insert(to.clone()) {
                left.push(to.clone());
            }
        }
    }
    found
}

/// The module that a path of `from` leads to; `None`: none of this package.
fn target(
    modules: &BTreeMap<Module, Names>,
    from: &Module,
    path: &str,
    depth: usize,
) -> Option<Module> {
    /// An import may lead to an import.
    const MOST: usize = 5;
    let mut parts = path.split("::").peekable();
    let mut at = from.clone();
    match *parts.peek()? {
        "crate" => {
            parts.next();
            at.clear();
        }
        "self" | "super" => {
            while let Some(up) = parts.next_if(|part| ["self", "super"].contains(part)) {
                if up == "super" {
                    at.pop();
                }
            }
        }
        first => {
            let child = [&from[..], &[first.to_owned()]].concat();
            modules.get(&child)?;
        }
    }
    while let Some(part) =
        parts.next_if(|part| modules.contains_key(&[&at[..], &[(*part).to_owned()]].concat()))
    {
        at.push(part.to_owned());
    }
    let import = parts.next().and_then(|part| modules.get(&at)?.imports.get(part));
    let further = import.filter(|_| depth < MOST);
    further.and_then(|path| target(modules, &at, path, depth + 1)).or(Some(at))
}

/// What a source names, tests left out.
fn names(source: &str) -> Names {
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code = code(source);
    let mut found = Names::default();
    let mut rest = code.as_str();
    while let Some((before, after)) = rest.split_once("use ") {
        paths_in(before, &mut found.paths);
        let is_item =
            before.chars().next_back().is_none_or(|last| !last.is_alphanumeric() && last != '_');
        let Some((tree, after)) = after.split_once(';').filter(|_| is_item) else {
            rest = after;
            continue;
        };
        for (path, name) in leaves(tree) {
            found.paths.insert(path.clone());
            found.imports.insert(name, path);
        }
        rest = after;
    }
    paths_in(rest, &mut found.paths);
    found
}

/// Paths from `crate`, `super` or `self` in code.
fn paths_in(code: &str, found: &mut BTreeSet<String>) {
    let is_path = |one: char| one.is_alphanumeric() || one == '_' || one == ':';
    for word in code.split(|one| !is_path(one)) {
        let word = word.trim_matches(':');
        if ["crate::", "super::", "self::"].iter().any(|start| word.starts_with(start)) {
            found.insert(word.to_owned());
        }
    }
}

/// The paths of a tree of `use`, each with the name that it brings in.
fn leaves(tree: &str) -> Vec<(String, String)> {
    let tree = tree.trim();
    if let Some((before, inside)) = tree.split_once('{') {
        let inside = inside.trim_end().trim_end_matches('}');
        let parts = parts(inside).into_iter().flat_map(|part| leaves(&part));
        return parts.map(|(path, name)| (format!("{}{path}", before.trim()), name)).collect();
    }
    if tree.is_empty() {
        return Vec::new();
    }
    let (path, name) = tree.split_once(" as ").unwrap_or((tree, tree));
    let path = path.trim().trim_end_matches("::self").to_owned();
    let name = name.trim().rsplit("::").find(|part| *part != "self").unwrap_or_default();
    vec![(path, name.to_owned())]
}

/// The parts between the outer commas.
fn parts(inside: &str) -> Vec<String> {
    let (mut found, mut depth) = (vec![String::new()], 0_u32);
    for one in inside.chars() {
        match one {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if one == ',' && depth == 0 {
            found.push(String::new());
        } else if let Some(last) = found.last_mut() {
            last.push(one);
        }
    }
    found
}
