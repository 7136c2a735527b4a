//! The string literals of a Rust source, and the call that each stands in.

/// A string literal.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Literal {
    /// Its value.
    pub(super) text: String,
    /// The function or macro in whose parentheses it stands; formatting macros do not count.
    pub(super) function: String,
    /// It is the first thing in those parentheses.
    pub(super) first: bool,
    /// A formatting macro reads it.
    pub(super) format: bool,
}

const FORMATS: &[&str] = &["format!", "write!", "writeln!", "concat!"];

/// All string literals of a source, in order.
pub(super) fn literals(source: &str) -> Vec<Literal> {
    let text: Vec<char> = source.chars().collect();
    let mut found = Vec::new();
    // What stands before each parenthesis that is open, and where it is.
    let mut open: Vec<(String, usize)> = Vec::new();
    let (mut at, mut name) = (0, String::new());
    while let Some(&one) = text.get(at) {
        let next = text.get(at + 1).copied().unwrap_or('\0');
        match one {
            '/' if next == '/' => {
                while text.get(at).is_some_and(|one| *one != '\n') {
                    at += 1;
                }
            }
            '\'' => at += character(&text[at..]),
            '"' => {
                let raw = raw(&text[..at]);
                let (value, length) = string(&text[at..], raw);
                found.push(literal(value, &open, &text[..at]));
                at += length;
                name.clear();
            }
            '(' | '[' | '{' => {
                open.push((std::mem::take(&mut name), at));
                at += 1;
            }
            ')' | ']' | '}' => {
                open.pop();
                name.clear();
                at += 1;
            }
            _ => {
                if one.is_alphanumeric() || "_:!".contains(one) {
                    name.push(one);
                } else if one != '#' {
                    name.clear();
                }
                at += 1;
            }
        }
    }
    found
}

/// A source without its comments and literals.
pub(super) fn code(source: &str) -> String {
    let text: Vec<char> = source.chars().collect();
    let (mut code, mut at) = (String::new(), 0);
    while let Some(&one) = text.get(at) {
        match one {
            '/' if text.get(at + 1) == Some(&'/') => {
                at += text[at..].iter().take_while(|one| **one != '\n').count();
            }
            '\'' => at += character(&text[at..]),
            '"' => at += string(&text[at..], raw(&text[..at])).1,
            _ => {
                code.push(one);
                at += 1;
            }
        }
    }
    code
}

fn literal(text: String, open: &[(String, usize)], before: &[char]) -> Literal {
    let is_format = |name: &str| FORMATS.contains(&name);
    let format = open.last().is_some_and(|(name, _)| is_format(name));
    let call = open.iter().rev().find(|(name, _)| !is_format(name));
    let first = call.is_some_and(|(_, at)| {
        before[at + 1..].iter().all(|one| one.is_whitespace() || "&r#b".contains(*one))
    });
    let function = call.map(|(name, _)| name.clone()).unwrap_or_default();
    Literal { text, function, first, format }
}

/// How many `#` a raw string has; `None` for another one.
fn raw(before: &[char]) -> Option<usize> {
    let marks = before.iter().rev().take_while(|one| **one == '#').count();
    let end = before.len() - marks;
    let letter = end.checked_sub(1).map(|at| before[at]);
    (letter == Some('r')).then_some(marks)
}

/// The value of a string literal and its length in the source.
fn string(text: &[char], raw: Option<usize>) -> (String, usize) {
    let (mut value, mut at) = (String::new(), 1);
    while let Some(&one) = text.get(at) {
        at += 1;
        match (one, raw) {
            ('"', None) => break,
            ('"', Some(marks)) => {
                let end = text[at..].iter().take(marks);
                if end.clone().count() == marks && end.clone().all(|one| *one == '#') {
                    at += marks;
                    break;
                }
                value.push(one);
            }
            ('\\', None) => {
                match text.get(at).copied().unwrap_or('\0') {
                    'n' => value.push('\n'),
                    't' => value.push('\t'),
                    '\n' => {
                        while text.get(at + 1).is_some_and(|one| one.is_whitespace()) {
                            at += 1;
                        }
                    }
                    other => value.push(other),
                }
                at += 1;
            }
            _ => value.push(one),
        }
    }
    (value, at)
}

/// The length of a character literal or of the mark of a lifetime.
fn character(text: &[char]) -> usize {
    match (text.get(1), text.get(2)) {
        (Some('\\'), _) => {
            let end = text.iter().skip(3).position(|one| *one == '\'');
            end.map_or(1, |end| end + 4)
        }
        (_, Some('\'')) => 3,
        _ => 1,
    }
}

#[test]
fn literals_know_their_call() {
    let source = r##"
        // "no"
        fn f<'a>(x: &'a str) { node.sh(&format!("ip {x} \
            up")); Command::new("date").args(["a", 'b', '"']); let y = r#"q"q"#; }
    "##;
    let shown: Vec<_> = literals(source)
        .into_iter()
        .map(|one| format!("{} {} {} {}", one.function, one.first, one.format, one.text))
        .collect();
    assert_eq!(
        shown,
        [
            "sh false true ip {x} up",
            "Command::new true false date",
            " true false a",
            " false false q\"q"
        ]
    );
}

#[test]
fn code_is_what_is_left_of_a_source() {
    let source = "let a = '\"'; // \"use\nlet b = r#\"x\"y\"#; let c = \"\\\"\nz\"; fn d<'a>() {}";
    assert_eq!(code(source), "let a = ; \nlet b = r#; let c = ; fn d<a>() {}");
}
