//! A document as a tree whose every part knows its line, and cursors that read typed fields of it.

use serde_json::Value as Json;

/// A value and the line where it begins; 0 if it has none (JSON of the API).
#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub(super) line: usize,
    pub(super) value: Value,
}

/// Values as Kubernetes' YAML has them.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    /// A number that is not a whole one of 64 bits, as written.
    Number(String),
    Text(String),
    List(Vec<Tree>),
    /// In the order written; no key twice.
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) value: Tree,
}

/// A field and what is wrong with it.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) line: usize,
    pub(super) field: String,
    pub(super) reason: String,
}

pub(super) type Checked<T> = Result<T, Problem>;

/// A place in a tree that may hold something.
#[derive(Clone, Debug)]
pub(super) struct Field<'t> {
    tree: Option<&'t Tree>,
    line: usize,
    path: String,
}

impl From<&Json> for Tree {
    /// Recursive: `serde_json` bounds the depth of what it parses.
    fn from(json: &Json) -> Self {
        let value = match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => {
                number.as_i64().map_or_else(|| Value::Number(number.to_string()), Value::Int)
            }
            Json::String(text) => Value::Text(text.clone()),
            Json::Array(items) => Value::List(items.iter().map(Self::from).collect()),
            Json::Object(map) => Value::Map(
                map.iter()
                    .map(|(key, value)| Entry {
                        key: key.clone(),
                        line: 0,
                        value: Self::from(value),
                    })
                    .collect(),
            ),
        };
        Self { line: 0, value }
    }
}

impl Tree {
    /// Cursor at the whole.
    pub(super) fn root(&self) -> Field<'_> {
        Field { tree: Some(self), line: self.line, path: String::new() }
    }
}

impl<'t> Field<'t> {
    /// Line of the field, of its parent if it is absent.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// The same place as the root of a document of its own.
    pub(super) fn as_root(&self) -> Self {
        Self { path: String::new(), ..self.clone() }
    }

    /// There is a value other than null.
    pub(super) fn is_present(&self) -> bool {
        self.value().is_some()
    }

    /// There is a value, and it says something: an empty list, map or string says as little as null.
    pub(super) fn is_set(&self) -> bool {
        self.value().is_some_and(|value| match value {
            Value::Text(text) => !text.is_empty(),
            Value::List(items) => !items.is_empty(),
            Value::Map(entries) => !entries.is_empty(),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Number(_) => true,
        })
    }

    /// The field of this name in a map; absent if this is absent or no map.
    pub(super) fn get(&self, name: &str) -> Self {
        let path = self.path_of(name);
        let entry = match self.value() {
            Some(Value::Map(entries)) => entries.iter().find(|entry| entry.key == name),
            _ => None,
        };
        match entry {
            Some(entry) => Self { tree: Some(&entry.value), line: entry.line, path },
            None => Self { tree: None, line: self.line, path },
        }
    }

    /// What is wrong with the field.
    pub(super) fn problem(&self, reason: impl Into<String>) -> Problem {
        let field = if self.path.is_empty() { "." } else { &self.path };
        Problem { line: self.line, field: field.to_owned(), reason: reason.into() }
    }

    /// The field must be there.
    pub(super) fn missing(&self) -> Problem {
        self.problem("is required")
    }

    /// A string; `None` if absent or empty.
    pub(super) fn text(&self) -> Checked<Option<&'t str>> {
        Ok(self.string()?.filter(|text| !text.is_empty()))
    }

    /// A string, an empty one too.
    pub(super) fn string(&self) -> Checked<Option<&'t str>> {
        match self.value() {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(other @ (Value::Bool(_) | Value::Int(_) | Value::Number(_))) => {
                Err(self
                    .problem(format!("must be a string, but is {}: put it in quotes", kind(other))))
            }
            Some(other) => Err(self.wrong("a string", other)),
        }
    }

    /// A string that is not empty.
    pub(super) fn required_text(&self) -> Checked<&'t str> {
        self.text()?.ok_or_else(|| self.missing())
    }

    /// A whole number.
    pub(super) fn int(&self) -> Checked<Option<i64>> {
        match self.value() {
            None => Ok(None),
            Some(Value::Int(value)) => Ok(Some(*value)),
            Some(Value::Number(text)) => {
                Err(self.problem(format!("must be a whole number, not {text}")))
            }
            Some(other) => Err(self.wrong("a number", other)),
        }
    }

    /// A whole number or a string, as `targetPort`.
    pub(super) fn int_or_text(&self) -> Checked<Option<Result<i64, &'t str>>> {
        match self.value() {
            Some(Value::Text(text)) => Ok(Some(Err(text))),
            _ => Ok(self.int()?.map(Ok)),
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Checked<Option<bool>> {
        match self.value() {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(self.wrong("true or false", other)),
        }
    }

    /// The elements of a list; none if it is absent.
    pub(super) fn items(&self) -> Checked<Vec<Self>> {
        match self.value() {
            None => Ok(Vec::new()),
            Some(Value::List(items)) => Ok(items
                .iter()
                .enumerate()
                .map(|(index, tree)| Self {
                    tree: Some(tree),
                    line: tree.line,
                    path: format!("{}[{index}]", self.path),
                })
                .collect()),
            Some(other) => Err(self.wrong("a list", other)),
        }
    }

    /// Keys and values of a map of strings, as labels.
    pub(super) fn entries(&self) -> Checked<Vec<(&'t str, Self)>> {
        match self.value() {
            None => Ok(Vec::new()),
            Some(Value::Map(entries)) => Ok(entries
                .iter()
                .map(|entry| {
                    let path = format!("{}[{}]", self.path, entry.key);
                    let field = Self { tree: Some(&entry.value), line: entry.line, path };
                    (entry.key.as_str(), field)
                })
                .collect()),
            Some(other) => Err(self.wrong("a map", other)),
        }
    }

    /// The field is a map, or absent.
    pub(super) fn map(&self) -> Checked<()> {
        match self.value() {
            None | Some(Value::Map(_)) => Ok(()),
            Some(other) => Err(self.wrong("a map", other)),
        }
    }

    /// The value of the field; `None` if the document does not have it.
    pub(super) fn tree(&self) -> Option<&'t Tree> {
        self.tree
    }

    /// Lines of the field, of what it has, and of what that has, by path.
    pub(super) fn places(&self) -> Vec<(Box<str>, usize)> {
        /// `spec.ports[0].nodePort`
        const DEPTH: usize = 3;
        let mut places = Vec::new();
        self.add_places(DEPTH, &mut places);
        places
    }

    fn add_places(&self, depth: usize, places: &mut Vec<(Box<str>, usize)>) {
        places.push((self.path.as_str().into(), self.line));
        let Some(depth) = depth.checked_sub(1) else { return };
        match self.value() {
            Some(Value::Map(entries)) => {
                entries.iter().for_each(|entry| self.get(&entry.key).add_places(depth, places));
            }
            Some(Value::List(_)) => {
                let items = self.items().into_iter().flatten();
                items.for_each(|item| item.add_places(depth, places));
            }
            Some(
                Value::Null | Value::Bool(_) | Value::Int(_) | Value::Number(_) | Value::Text(_),
            )
            | None => {}
        }
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn value(&self) -> Option<&'t Value> {
        self.tree.map(|tree| &tree.value).filter(|value| !matches!(value, Value::Null))
    }

    fn wrong(&self, wanted: &str, is: &Value) -> Problem {
        self.problem(format!("must be {wanted}, but is {}", kind(is)))
    }
}

fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => format!("the boolean {value}"),
        Value::Int(value) => format!("the number {value}"),
        Value::Number(text) => format!("the number {text}"),
        Value::Text(_) => "a string".to_owned(),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a map".to_owned(),
    }
}
