//! The command line `causeway`, whole commands against an API with canned answers.

#![expect(clippy::disallowed_methods, reason = "`finish` bounds the time of these programs")]

mod fake;
mod manifests;
mod objects;
mod show;
mod terminal;

use std::process::Command;

use causeway_tests::{Finished, bins, finish};
use fake::Api;
use serde_json::{Value, json};

/// Runs `causeway` with words split at spaces, in an empty environment.
fn run(api: &Api, words: &str, stdin: &str) -> Finished {
    finish(command(api, words), stdin.as_bytes())
}

fn command(api: &Api, words: &str) -> Command {
    let mut command = Command::new(bins::ours("causeway"));
    command.env_clear().env("CAUSEWAY_SOCKET", api.socket()).args(words.split_whitespace());
    command
}

/// A command's exit code and all that it prints, line by line.
#[track_caller]
fn check(api: &Api, words: &str, code: i32, stdout: &[&str], stderr: &[&str]) {
    check_finished(&run(api, words, ""), code, stdout, stderr);
}

#[track_caller]
fn check_finished(finished: &Finished, code: i32, stdout: &[&str], stderr: &[&str]) {
    let lines = |bytes: &[u8]| -> Vec<String> {
        String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect()
    };
    assert_eq!(lines(&finished.stdout), stdout, "stdout of {}", finished.describe());
    assert_eq!(lines(&finished.stderr), stderr, "stderr of {}", finished.describe());
    assert_eq!(finished.code(), code, "{}", finished.describe());
}

fn list(items: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items})
}

/// The service of the tutorial's `nodeport.yaml`.
const NODEPORT_YAML: &str = include_str!("../../../conf/nodeport.yaml");

fn applied(results: &[(&str, &str, &str)]) -> Value {
    let results = results.iter().enumerate().map(|(document, (kind, name, outcome))| {
        json!({"document": document, "kind": kind, "namespace": "default", "name": name,
            "outcome": outcome})
    });
    json!({"results": results.collect::<Vec<_>>()})
}
