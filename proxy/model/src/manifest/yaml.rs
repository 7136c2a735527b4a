//! YAML text to trees, bounded: depth, and what aliases expand to.
//!
//! Scalars resolve as Kubernetes resolves them (YAML 1.1 by go-yaml): `yes`, `no`, `on`, `off` are
//! booleans; merge keys (`<<`) are honoured. A key given twice is refused.

use std::collections::BTreeMap;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, Span, StrInput, Tag};

use super::stream;
use super::tree::{Entry, Problem, Tree, Value};

/// How deep a document may nest. Kubernetes objects need a dozen.
const MAX_DEPTH: usize = 64;

/// How many values all aliases of a document may stand for: nobody writes that many by hand, and
/// nine lines of aliases of aliases are a billion.
const MAX_ALIASED: usize = 100_000;

/// A document: its tree, `None` if it holds nothing, or where and why it is not YAML.
pub(super) struct Parsed {
    pub(super) line: usize,
    pub(super) tree: Result<Option<Tree>, Problem>,
}

/// All documents of a text, given to `each` one by one. A broken one does not keep those behind the
/// next `---`.
pub(super) fn documents(text: &str, each: &mut dyn FnMut(Parsed)) {
    let options = granit_parser::options! {
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    for part in stream::parts(text) {
        let mut parser = Parser::new_from_str_with_options(part.text, options.clone());
        loop {
            let parsed = document(&mut parser, part.lines);
            let broken = parsed.as_ref().is_some_and(|parsed| parsed.tree.is_err());
            let ended = parsed.is_none();
            if let Some(parsed) = parsed {
                each(parsed);
            }
            if ended || (broken && !matches!(parser.proceed_next_document(), Ok(true))) {
                break;
            }
        }
    }
}

/// The next document of a part with so many lines before it; `None` at the end.
fn document<'i>(parser: &mut Parser<'i, StrInput<'i>>, lines: usize) -> Option<Parsed> {
    let mut builder = Builder { lines, ..Builder::default() };
    let mut line = 0;
    loop {
        let (event, span) = match parser.next_event()? {
            Ok(next) => next,
            Err(error) => {
                let at = lines + error.marker().line();
                let problem = if *error.kind() == ErrorKind::RecursionLimitExceeded {
                    too_deep(at)
                } else {
                    syntax(at, error.info())
                };
                return Some(Parsed {
                    line: if line == 0 { at } else { line },
                    tree: Err(problem),
                });
            }
        };
        if matches!(event, Event::StreamEnd) {
            return None;
        }
        if matches!(event, Event::DocumentEnd) {
            return Some(Parsed { line, tree: Ok(builder.done) });
        }
        if let Err(problem) = builder.take(event, &span, &mut line) {
            return Some(Parsed { line, tree: Err(problem) });
        }
    }
}

fn syntax(line: usize, reason: String) -> Problem {
    Problem { line, field: "YAML".to_owned(), reason }
}

/// A collection whose end has not come.
struct Open {
    tree: Tree,
    anchor: usize,
    /// Key of a map that waits for its value.
    key: Option<(String, usize, bool)>,
    /// What `<<` brought: counts if the map itself is silent.
    merged: Vec<Entry>,
}

#[derive(Default)]
struct Builder {
    /// Before what the parser reads.
    lines: usize,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Tree>,
    aliased: usize,
    done: Option<Tree>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: &Span, first: &mut usize) -> Result<(), Problem> {
        let line = self.lines + span.start.line();
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                seen(first, line);
                let plain = style == ScalarStyle::Plain;
                let value = if self.wants_key() {
                    Value::Text(text.into_owned())
                } else {
                    scalar(&text, plain, tag.as_deref())
                };
                self.value(Tree { line, value }, anchor, plain)
            }
            Event::SequenceStart(_, anchor, _) => {
                seen(first, line);
                self.start(Tree { line, value: Value::List(Vec::new()) }, anchor)
            }
            Event::MappingStart(_, anchor, _) => {
                seen(first, line);
                self.start(Tree { line, value: Value::Map(Vec::new()) }, anchor)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => self.alias(anchor, line),
            // The enum is open; these say nothing about values.
            Event::StreamStart | Event::DocumentStart(..) | _ => Ok(()),
        }
    }

    /// Whether the next value is a key. Those are text, whatever they look like.
    fn wants_key(&self) -> bool {
        let open = self.open.last();
        open.is_some_and(|open| matches!(open.tree.value, Value::Map(_)) && open.key.is_none())
    }

    fn start(&mut self, tree: Tree, anchor: usize) -> Result<(), Problem> {
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(tree.line));
        }
        self.open.push(Open { tree, anchor, key: None, merged: Vec::new() });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Problem> {
        let Some(mut open) = self.open.pop() else { return Ok(()) };
        if let Value::Map(entries) = &mut open.tree.value {
            close(entries, open.merged)?;
        }
        self.value(open.tree, open.anchor, false)
    }

    fn alias(&mut self, anchor: usize, line: usize) -> Result<(), Problem> {
        let Some(tree) = self.anchors.get(&anchor) else {
            return Err(syntax(line, "an alias is used inside its own anchor".to_owned()));
        };
        let (size, depth) = measure(tree);
        self.aliased += size;
        if self.aliased > MAX_ALIASED {
            let reason = format!("aliases expand to more than {MAX_ALIASED} values");
            return Err(syntax(line, reason));
        }
        if self.open.len() + depth > MAX_DEPTH {
            return Err(too_deep(line));
        }
        let mut tree = tree.clone();
        tree.line = line;
        self.value(tree, 0, false)
    }

    /// Puts a complete value where it belongs.
    fn value(&mut self, tree: Tree, anchor: usize, plain: bool) -> Result<(), Problem> {
        if anchor != 0 {
            self.anchors.insert(anchor, tree.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.done = Some(tree);
            return Ok(());
        };
        let entries = match &mut open.tree.value {
            Value::List(items) => {
                items.push(tree);
                return Ok(());
            }
            Value::Map(entries) => entries,
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Number(_) | Value::Text(_) => {
                return Ok(());
            }
        };
        match open.key.take() {
            None => open.key = Some(key(tree, plain)?),
            Some((key, line, true)) if key == "<<" => merge(&mut open.merged, tree, line)?,
            Some((key, line, _)) => entries.push(Entry { key, line, value: tree }),
        }
        Ok(())
    }
}

/// No key may stand twice; merged ones count if the map is silent, earlier ones first.
fn close(entries: &mut Vec<Entry>, merged: Vec<Entry>) -> Result<(), Problem> {
    let mut lines = BTreeMap::new();
    for entry in &*entries {
        if let Some(other) = lines.insert(entry.key.clone(), entry.line) {
            let reason = format!("key {:?} is also set at line {other}", entry.key);
            return Err(syntax(entry.line, reason));
        }
    }
    for entry in merged {
        if lines.insert(entry.key.clone(), entry.line).is_none() {
            entries.push(entry);
        }
    }
    Ok(())
}

fn seen(first: &mut usize, line: usize) {
    if *first == 0 {
        *first = line;
    }
}

fn too_deep(line: usize) -> Problem {
    syntax(line, format!("nested deeper than {MAX_DEPTH}"))
}

/// A key as text, its line, and whether it is a plain scalar.
fn key(tree: Tree, plain: bool) -> Result<(String, usize, bool), Problem> {
    let text = match tree.value {
        Value::Text(text) => text,
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Number(_)
        | Value::List(_)
        | Value::Map(_) => {
            return Err(syntax(tree.line, "a key must be a string".to_owned()));
        }
    };
    Ok((text, tree.line, plain))
}

/// A map, or a list of maps of which earlier ones win.
fn merge(merged: &mut Vec<Entry>, tree: Tree, line: usize) -> Result<(), Problem> {
    match tree.value {
        Value::Map(entries) => {
            merged.extend(entries);
            Ok(())
        }
        Value::List(items) if items.iter().all(|item| matches!(item.value, Value::Map(_))) => {
            items.into_iter().try_for_each(|item| merge(merged, item, line))
        }
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Number(_)
        | Value::Text(_)
        | Value::List(_) => Err(syntax(line, "<<: must be a map or a list of maps".to_owned())),
    }
}

/// How many values a tree has and how deep it is.
fn measure(tree: &Tree) -> (usize, usize) {
    let of = |parts: &mut dyn Iterator<Item = &Tree>| {
        parts
            .map(measure)
            .fold((1, 1), |(size, depth), (more, deep)| (size + more, depth.max(deep + 1)))
    };
    match &tree.value {
        Value::List(items) => of(&mut items.iter()),
        Value::Map(entries) => of(&mut entries.iter().map(|entry| &entry.value)),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Number(_) | Value::Text(_) => (1, 0),
    }
}

fn scalar(text: &str, plain: bool, tag: Option<&Tag>) -> Value {
    let tagged = tag.and_then(Tag::core_suffix);
    if !plain && tagged.is_none_or(|tag| tag == "str") || tagged == Some("str") {
        return Value::Text(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => {
            return Value::Bool(true);
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    number(text).unwrap_or_else(|| Value::Text(text.to_owned()))
}

fn number(text: &str) -> Option<Value> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(rest) = digits.strip_prefix(prefix) {
            return i64::from_str_radix(rest, radix).ok().map(Value::Int);
        }
    }
    let leading_zero = digits.len() > 1 && digits.starts_with('0');
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let radix = if leading_zero { 8 } else { 10 };
        let value = i64::from_str_radix(text, radix);
        return Some(value.map_or_else(|_| Value::Number(text.to_owned()), Value::Int));
    }
    // `1.5`, `1e3`; `10.96.0.1`, `1_000` and `10Mi` are strings.
    digits.parse::<f64>().is_ok().then(|| Value::Number(text.to_owned()))
}
