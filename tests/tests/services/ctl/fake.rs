//! An API with canned answers on a unix socket.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use causeway_tests::TempDir;
use serde_json::{Value, json};

#[derive(Default)]
struct State {
    /// Status and body by method and path.
    answers: BTreeMap<String, (u16, String)>,
    /// What is not found every other time.
    watches: BTreeMap<String, bool>,
    /// Bodies of all requests, null without one.
    requests: Vec<Value>,
}

/// The API. What it has no answer for is not found.
pub(crate) struct Api {
    folder: TempDir,
    state: Arc<Mutex<State>>,
}

impl Api {
    /// An API without answers.
    pub(crate) fn new() -> Self {
        let api = Self { folder: TempDir::new("api"), state: Arc::default() };
        let listener = UnixListener::bind(api.socket()).expect("bind a socket");
        let state = Arc::clone(&api.state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that closes early is not a failure of the API.
                stream.and_then(|stream| serve(&stream, &state)).ok();
            }
        });
        api
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("api.sock")
    }

    /// What it answers from now on to a method and path.
    pub(crate) fn answer(&self, line: &str, status: u16, body: &Value) {
        self.answer_text(line, status, &body.to_string());
    }

    /// The same with an answer of lines of JSON.
    pub(crate) fn answer_lines(&self, line: &str, lines: &[Value]) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        self.answer_text(line, 200, &text);
    }

    /// The same for a watch, which who watches asks for again when it ends: each second request is
    /// told that there is no such thing.
    pub(crate) fn answer_watch(&self, line: &str, lines: &[Value]) {
        self.answer_lines(line, lines);
        let mut state = self.state.lock().expect("no panic while it is held");
        state.watches.insert(line.to_owned(), false);
    }

    fn answer_text(&self, line: &str, status: u16, text: &str) {
        let mut state = self.state.lock().expect("no panic while it is held");
        state.answers.insert(line.to_owned(), (status, text.to_owned()));
    }

    /// Bodies of all requests so far, null without one.
    pub(crate) fn bodies(&self) -> Vec<Value> {
        self.state.lock().expect("no panic while it is held").requests.clone()
    }

    /// Body of the last request.
    pub(crate) fn last_body(&self) -> Value {
        self.bodies().last().expect("a request").clone()
    }
}

/// Answers one request; the end of the connection is the end of the answer.
fn serve(mut stream: &UnixStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    if reader.read_line(&mut first)? == 0 {
        // It was looked whether we listen.
        return Ok(());
    }
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().expect("a length");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body)? };
    let line = first.rsplit_once(' ').expect("a request line").0.to_owned();
    let mut state = state.lock().expect("no panic while it is held");
    let ended = state.watches.get_mut(&line).is_some_and(|ended| std::mem::replace(ended, !*ended));
    let found = state.answers.get(&line).filter(|_| !ended).cloned();
    let (status, answer) = found
        .unwrap_or_else(|| (404, json!({"message": format!("there is no {line}")}).to_string()));
    state.requests.push(body);
    write!(stream, "HTTP/1.1 {status} x\r\nconnection: close\r\n\r\n{answer}")
}
