//! Usage, exit codes, terminals and pipes.

use std::os::unix::net::UnixListener;
use std::process::Command;

use causeway_tests::{TempDir, bins, finish};
use serde_json::{Value, json};

use super::fake::Api;
use super::objects::{self, bad_status, web};
use super::{NODEPORT_YAML, applied, check, command, list, run};

#[test]
fn usage_errors_and_an_absent_daemon_exit_with_2() {
    let api = Api::new();
    for words in [
        "",
        "nonsense",
        "apply",
        "get",
        "get deploy",
        "get svc a -A",
        "get svc -A -n shop",
        "delete",
        "delete svc",
        "get svc -o xml",
        "status -o name",
        "svc test web --count 0",
        "svc test web:",
        "trace node",
        "completion tcsh",
        "doctor",
        "top",
        "flows",
        "connectivity test",
        "ipam show",
    ] {
        let finished = run(&api, words, "");
        assert_eq!(finished.code(), 2, "{finished:?}");
        assert!(finished.stdout.is_empty() && !finished.stderr.is_empty(), "{finished:?}");
    }
    assert!(api.bodies().is_empty(), "{:?}", api.bodies());
    for words in ["--version", "--help", "get --help"] {
        assert!(!run(&api, words, "").ok().is_empty());
    }
    let absent = "--socket /nowhere.sock status";
    check(
        &api,
        absent,
        2,
        &[],
        &["causeway: causewayd does not answer at /nowhere.sock; is it running?: \
         No such file or directory (os error 2)"],
    );
    let folder = TempDir::new("ctl");
    let dead = folder.path().join("dead.sock");
    drop(UnixListener::bind(&dead).unwrap());
    let finished = run(&api, &format!("--socket {} get svc", dead.display()), "");
    assert_eq!(finished.code(), 2, "{finished:?}");
    api.answer("GET /v1/status", 200, &json!({"node": 7}));
    assert_eq!(run(&api, "status", "").code(), 2);
    api.answer("GET /v1/status", 503, &json!({"message": "still reading the store"}));
    check(&api, "status", 1, &[], &["causeway: still reading the store"]);
}

#[test]
fn completions_are_scripts_of_their_shells() {
    let api = Api::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&api, &format!("completion {shell}"), "").ok();
        assert!(script.contains("ignore-not-found") && !script.contains("doctor"), "{script}");
        if shell == "bash" {
            let mut bash = Command::new("bash");
            bash.arg("-n");
            finish(bash, script.as_bytes()).ok();
        }
    }
}

/// Rows: U-11
#[test]
fn colours_are_for_terminals_without_no_color() {
    let api = Api::new();
    api.answer("GET /v1/status", 200, &bad_status());
    let on_terminal = |environment: &[(&str, &str)]| {
        let line = format!("{} status", bins::ours("causeway").display());
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).env_clear().env("CAUSEWAY_SOCKET", api.socket());
        script.envs(environment.iter().copied());
        String::from_utf8_lossy(&finish(script, b"").stdout).into_owned()
    };
    let shown = on_terminal(&[("TERM", "xterm")]);
    assert!(shown.contains("\x1b[31mState:     DEGRADED\x1b[0m"), "{shown:?}");
    for environment in [&[("TERM", "xterm"), ("NO_COLOR", "1")][..], &[("TERM", "dumb")], &[]] {
        let shown = on_terminal(environment);
        assert!(shown.contains("State:     DEGRADED") && !shown.contains('\x1b'), "{shown:?}");
    }
    let mut piped = command(&api, "status");
    piped.env("TERM", "xterm");
    assert!(!finish(piped, b"").stdout.contains(&0x1b));
}

/// Rows: U-11
#[test]
fn tables_never_wrap() {
    let api = Api::new();
    let (mut long, name) = (web(), "n".repeat(300));
    long["metadata"]["name"] = json!(name);
    api.answer("GET /v1/services?namespace=default", 200, &list(json!([long])));
    let mut command = command(&api, "get svc");
    command.env("COLUMNS", "40");
    let shown = finish(command, b"").ok();
    assert_eq!(shown.lines().count(), 2, "{shown}");
    assert!(shown.lines().nth(1).is_some_and(|line| line.starts_with(&name)), "{shown}");
}

/// No text of an object or of the daemon steers the terminal, in whatever form it is shown.
#[test]
fn control_characters_do_not_reach_the_terminal() {
    const EVIL: &str = "a\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}2J\u{7f}\u{202e}\r\nb";
    let api = Api::new();
    let mut evil = web();
    evil["metadata"]["name"] = json!(EVIL);
    evil["metadata"]["namespace"] = json!(EVIL);
    evil["metadata"]["labels"] = json!({EVIL: EVIL});
    evil["spec"]["selector"] = json!({EVIL: EVIL});
    evil["spec"]["type"] = json!(EVIL);
    api.answer("GET /v1/services", 200, &list(json!([evil])));
    let reset = json!({"type": "RESET", "object": list(json!([evil]))});
    api.answer_watch("GET /v1/services?watch=true", &[reset]);
    let mut description = objects::description();
    description["service"] = evil.clone();
    description["remarks"] = json!([EVIL]);
    description["ports"][0]["endpoints"][0]["pod"] = json!(EVIL);
    api.answer("GET /v1/describe/default/web", 200, &description);
    let mut status = bad_status();
    status["node"] = json!(EVIL);
    status["degraded"] = json!([EVIL]);
    api.answer("GET /v1/status", 200, &status);
    api.answer("GET /v1/pods", 500, &json!({"message": EVIL, "causes": [EVIL]}));
    let mut result = applied(&[("service", EVIL, "refused")]);
    result["results"][0]["refusal"] = json!({"field": EVIL, "reason": EVIL});
    api.answer("POST /v1/apply", 200, &result);
    let answer = json!({"number": 1, "address": null, "error": EVIL});
    api.answer_lines("POST /v1/svc-test", &[answer]);
    api.answer(
        "POST /v1/trace",
        200,
        &json!({"packet": EVIL, "trace": {"outcome": "pass",
        "service": EVIL, "steps": [EVIL]}}),
    );
    for words in [
        "get svc -A",
        "get svc -A -o wide",
        "get svc -A -o json",
        "get svc -A -o yaml",
        "get svc -A -o name",
        "get svc -A -w",
        "get svc -A -w -o json",
        "get svc -A -w -o yaml",
        "get pods -A",
        "describe service web",
        "describe service web -o yaml",
        "status",
        "status -o json",
        "svc test web",
        "trace node web",
        "apply -f -",
    ] {
        let finished = run(&api, words, NODEPORT_YAML);
        let shown = [finished.stdout.as_slice(), &finished.stderr].concat();
        let shown = String::from_utf8(shown).unwrap();
        assert!(shown.contains("owned"), "{finished:?}");
        let bad = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!shown.chars().any(bad), "{words}: {shown:?}");
    }
}

/// Rows: U-11
#[test]
fn a_reader_that_goes_away_is_no_error() {
    let api = Api::new();
    let many: Vec<Value> = (0..5000).map(|_| web()).collect();
    api.answer("GET /v1/services?namespace=default", 200, &list(json!(many)));
    for form in ["table", "json", "yaml"] {
        let mut bash = Command::new("bash");
        bash.arg("-c").arg(format!(
            "{} --socket {} get svc -o {form} | head -1; echo ${{PIPESTATUS[0]}}",
            bins::ours("causeway").display(),
            api.socket().display()
        ));
        let finished = finish(bash, b"");
        let shown = String::from_utf8_lossy(&finished.stdout).into_owned();
        assert_eq!(shown.lines().count(), 2, "{finished:?}");
        assert_eq!(shown.lines().nth(1), Some("0"), "{finished:?}");
        assert!(finished.stderr.is_empty(), "{finished:?}");
    }
}
