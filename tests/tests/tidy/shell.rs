//! The programs that a shell script starts, found by reading it.

use std::collections::BTreeSet;

/// Stands for a part of the text that is not known: a placeholder of `format!`, a variable of make.
pub(super) const UNKNOWN: char = '\u{1}';

const BUILTINS: &[&str] = &[
    ".", ":", "[", "[[", "alias", "bind", "break", "cd", "compgen", "continue", "declare", "echo",
    "exit", "export", "false", "getopts", "hash", "jobs", "kill", "let", "local", "mapfile",
    "printf", "pwd", "read", "readonly", "return", "set", "shift", "shopt", "source", "test",
    "times", "true", "type", "typeset", "ulimit", "umask", "unset", "wait",
];
const KEYWORDS: &[&str] = &[
    "!", "{", "}", "if", "then", "else", "elif", "fi", "while", "until", "do", "done", "esac",
    "time",
];
/// Programs and builtins that start what stands behind their options, and how many words stand
/// between the two.
const STARTERS: &[(&str, usize)] = &[
    ("command", 0),
    ("env", 0),
    ("exec", 0),
    ("flock", 1),
    ("nice", 0),
    ("nohup", 0),
    ("nsenter", 0),
    ("on", 1),
    ("quiet", 0),
    ("setsid", 0),
    ("step", 0),
    ("strace", 0),
    ("sudo", 0),
    ("timeout", 1),
    ("unshare", 0),
    ("xargs", 0),
];
/// Their options that take the next word.
const VALUED: &[&str] = &["--propagation", "-I", "-S", "-e", "-n", "-o", "-s", "-u"];

/// The programs that `script` starts, by name. One whose name is computed is not among them.
pub(super) fn programs(script: &str) -> BTreeSet<String> {
    let mut reader = Reader { text: script.chars().collect(), ..Reader::default() };
    reader.list(false);
    let Reader { mut found, functions, .. } = reader;
    found.retain(|name| !functions.contains(name));
    found
}

#[derive(Default)]
struct Reader {
    text: Vec<char>,
    at: usize,
    found: BTreeSet<String>,
    functions: BTreeSet<String>,
    /// Delimiters of here-documents whose text begins on the next line.
    documents: Vec<String>,
    /// Inside `case`: a pattern is next.
    pattern: bool,
}

impl Reader {
    fn peek(&self) -> char {
        self.ahead(0)
    }

    fn ahead(&self, by: usize) -> char {
        self.text.get(self.at + by).copied().unwrap_or('\0')
    }

    fn starts(&self, what: &str) -> bool {
        what.chars().enumerate().all(|(index, one)| self.ahead(index) == one)
    }

    /// Commands up to the end, or to the parenthesis that closes a substitution.
    fn list(&mut self, nested: bool) {
        let mut words: Vec<String> = Vec::new();
        while self.at < self.text.len() {
            if self.pattern && words.is_empty() && !self.skip_pattern() {
                continue;
            }
            let condition = words.first().is_some_and(|one| one == "[[")
                && words.last().is_none_or(|one| one != "]]");
            match self.peek() {
                ' ' | '\t' => self.at += 1,
                '\\' if self.ahead(1) == '\n' => self.at += 2,
                '#' => self.skip_line(),
                '\n' => {
                    self.at += 1;
                    self.skip_documents();
                    self.command(&mut words);
                }
                ';' | '&' | '|' | '(' | '<' | '>' if condition => self.at += 1,
                ')' if condition => self.at += 1,
                ';' => {
                    self.pattern = self.starts(";;");
                    self.at += 1 + usize::from(self.pattern);
                    self.command(&mut words);
                }
                '&' if self.ahead(1) == '>' => self.at += 1,
                '&' | '|' => {
                    self.at += 1;
                    self.command(&mut words);
                }
                '(' if self.ahead(1) == '(' => self.skip_arithmetic(),
                '(' if self.ahead(1) == ')' => {
                    self.at += 2;
                    self.functions.extend(words.pop());
                }
                '(' => {
                    self.at += 1;
                    self.command(&mut words);
                    self.list(true);
                }
                ')' => {
                    self.at += 1;
                    if nested {
                        break;
                    }
                    self.command(&mut words);
                }
                '<' | '>' if self.ahead(1) != '(' => self.redirection_after(&mut words),
                _ => {
                    let word = self.word();
                    words.push(word);
                    if words[0] == "case" && words.len() == 3 {
                        words.clear();
                        self.pattern = true;
                    }
                }
            }
        }
        self.command(&mut words);
    }

    /// A redirection; the number before it is none of the words.
    fn redirection_after(&mut self, words: &mut Vec<String>) {
        let number = |word: &String| word.chars().all(|one| one.is_ascii_digit());
        if words.last().is_some_and(number) && self.text[self.at - 1].is_ascii_digit() {
            words.pop();
        }
        self.redirection();
    }

    /// False if the end of `case` came instead.
    fn skip_pattern(&mut self) -> bool {
        while self.peek().is_whitespace() {
            self.at += 1;
        }
        if self.peek() == '#' {
            self.skip_line();
            return false;
        }
        self.pattern = false;
        if self.starts("esac") {
            return true;
        }
        while !matches!(self.peek(), ')' | '\0') {
            self.at += 1;
        }
        self.at += 1;
        true
    }

    fn skip_line(&mut self) {
        while !matches!(self.peek(), '\n' | '\0') {
            self.at += 1;
        }
    }

    fn skip_documents(&mut self) {
        for end in std::mem::take(&mut self.documents) {
            while self.at < self.text.len() {
                let from = self.at;
                self.skip_line();
                let line: String = self.text[from..self.at].iter().collect();
                self.at += 1;
                if line.trim() == end {
                    break;
                }
            }
        }
    }

    fn skip_arithmetic(&mut self) {
        let mut depth = 0;
        while self.at < self.text.len() {
            depth += i32::from(self.peek() == '(') - i32::from(self.peek() == ')');
            self.at += 1;
            if depth == 0 {
                break;
            }
        }
    }

    fn redirection(&mut self) {
        let document = self.starts("<<") && !self.starts("<<<");
        while matches!(self.peek(), '<' | '>' | '&' | '|' | '-') {
            self.at += 1;
        }
        while matches!(self.peek(), ' ' | '\t') {
            self.at += 1;
        }
        if !matches!(self.peek(), '\n' | ';' | ')') {
            let word = self.word();
            if document {
                self.documents.push(word);
            }
        }
    }

    /// One word without its quotes. Substitutions in it are read as commands.
    fn word(&mut self) -> String {
        let (mut word, mut quoted) = (String::new(), false);
        while self.at < self.text.len() {
            let one = self.peek();
            match one {
                '"' => quoted = !quoted,
                '\'' if !quoted => {
                    self.at += 1;
                    while !matches!(self.peek(), '\'' | '\0') {
                        word.push(self.peek());
                        self.at += 1;
                    }
                }
                '\\' => {
                    self.at += 1;
                    word.push(self.peek());
                }
                '$' if self.starts("$((") => {
                    self.at += 1;
                    self.skip_arithmetic();
                    word.push(UNKNOWN);
                    continue;
                }
                '$' if self.ahead(1) == '(' => {
                    self.at += 2;
                    self.list(true);
                    word.push(UNKNOWN);
                    continue;
                }
                '$' if self.ahead(1) == '{' => {
                    self.expansion();
                    word.push(UNKNOWN);
                    continue;
                }
                '$' => word.push(UNKNOWN),
                '<' | '>' if !quoted && word.is_empty() => {
                    self.at += 2;
                    self.list(true);
                    word.push(UNKNOWN);
                    continue;
                }
                '(' if !quoted && word.ends_with('=') => {
                    self.at += 1;
                    self.array();
                    continue;
                }
                _ if !quoted && (one.is_whitespace() || ";&|()<>".contains(one)) => break,
                _ => word.push(one),
            }
            self.at += 1;
        }
        word
    }

    /// `${name..}`, in which substitutions can stand.
    fn expansion(&mut self) {
        self.at += 2;
        let mut depth = 1;
        while depth > 0 && self.at < self.text.len() {
            if self.starts("$(") && self.ahead(2) != '(' {
                self.at += 2;
                self.list(true);
                continue;
            }
            depth += i32::from(self.peek() == '{') - i32::from(self.peek() == '}');
            self.at += 1;
        }
    }

    /// The words of `name=(..)`.
    fn array(&mut self) {
        loop {
            match self.peek() {
                '\0' => break,
                ')' => {
                    self.at += 1;
                    break;
                }
                '#' => self.skip_line(),
                one if one.is_whitespace() || ";&|(<>".contains(one) => self.at += 1,
                _ => drop(self.word()),
            }
        }
    }

    fn command(&mut self, words: &mut Vec<String>) {
        let words = std::mem::take(words);
        self.start(&words);
    }

    fn start(&mut self, words: &[String]) {
        let skipped = words
            .iter()
            .take_while(|word| KEYWORDS.contains(&word.as_str()) || is_assignment(word))
            .count();
        let Some((first, rest)) = words[skipped..].split_first() else { return };
        if ["for", "select", "function"].contains(&first.as_str()) {
            return;
        }
        if let Some(name) = name(first) {
            if !BUILTINS.contains(&name) && !["command", "exec", "trap", "eval"].contains(&name) {
                self.found.insert(name.to_owned());
            }
            self.arguments(name, rest);
        }
    }

    /// What a command starts by its arguments.
    fn arguments(&mut self, name: &str, rest: &[String]) {
        let mut inner = |script: &String| {
            let (found, functions) = (programs(script), &self.functions);
            self.found.extend(found.into_iter().filter(|one| !functions.contains(one)));
        };
        match name {
            "trap" | "eval" => rest.first().into_iter().for_each(inner),
            "sh" | "bash" => {
                let option = |word: &String| word.starts_with('-') && word.ends_with('c');
                let at = rest.iter().position(option);
                at.and_then(|at| rest.get(at + 1)).into_iter().for_each(&mut inner);
            }
            "ip" => {
                if let Some(at) = rest.windows(2).position(|pair| pair == ["netns", "exec"]) {
                    self.start(rest.get(at + 3..).unwrap_or_default());
                }
            }
            "find" => {
                if let Some(at) = rest.iter().position(|word| word.starts_with("-exec")) {
                    self.start(&rest[at + 1..]);
                }
            }
            _ => {
                let Some((_, between)) = STARTERS.iter().find(|(one, _)| *one == name) else {
                    return;
                };
                let mut at = 0;
                while let Some(word) = rest.get(at).filter(|word| word.starts_with('-')) {
                    at += 1 + usize::from(VALUED.contains(&word.as_str()));
                }
                self.start(rest.get(at + between..).unwrap_or_default());
            }
        }
    }
}

/// The name of a program, if the word is one and known.
fn name(word: &str) -> Option<&str> {
    let name = match word.rsplit_once('/') {
        None => word,
        Some(("/bin" | "/usr/bin" | "/sbin" | "/usr/sbin", name)) => name,
        Some(_) => return None,
    };
    let known = name.starts_with(|one: char| one.is_ascii_alphanumeric())
        && name.chars().all(|one| one.is_ascii_alphanumeric() || "-_.+".contains(one));
    known.then_some(name)
}

fn is_assignment(word: &str) -> bool {
    let Some((name, _)) = word.split_once('=') else { return false };
    let name = name.trim_end_matches('+').split('[').next().unwrap_or_default();
    !name.is_empty() && name.chars().all(|one| one == '_' || one.is_ascii_alphanumeric())
}
