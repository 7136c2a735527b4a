//! What is run for a delegate, and what its answers mean.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::Version;
use crate::testing::{ABOUT, any_json, env, request};

const CONFIG: &str = "{ \"name\":\"n\",  \"cniVersion\":\"0.4.0\", \"ipam\":{\"type\":\"x\"} }\n";

fn add() -> Request {
    let mut env = env("ADD", "CNI_ARGS=IP=10.0.0.2 TRACEPARENT=00-1 FOO=bar");
    env.insert("CNI_PATH".to_owned(), "/one::/a dir/:/two".to_owned());
    Request::parse(&ABOUT, env, || Ok(CONFIG.as_bytes().to_vec())).expect("a request")
}

/// Rows: C26, C80
#[test]
fn a_delegate_gets_our_bytes_and_environment() {
    let request = add();
    for command in [Command::Add, Command::Del, Command::Check, Command::Gc, Command::Status] {
        let invocation = Invocation::new("x", command, &request).expect("an invocation");
        assert_eq!(invocation.stdin, CONFIG.as_bytes());
        let mut want = request.env.clone();
        want.insert("CNI_COMMAND".to_owned(), command.as_str().to_owned());
        assert_eq!(invocation.env, want);
        assert_eq!(invocation.env["TRACEPARENT"], "00-1");
    }
}

/// Rows: C79, F50
#[test]
fn a_delegate_is_looked_up_in_path_order() {
    let invocation = Invocation::new("x", Command::Add, &add()).expect("an invocation");
    assert_eq!(invocation.candidates, ["/one/x", "/a dir/x", "/two/x"].map(PathBuf::from));
    let error = invocation.not_found();
    assert_eq!(error.code, Code::Io);
    assert_eq!(error.msg, "failed to find plugin \"x\" in path [/one /a dir /two]");
    let candidates = find_plugin_candidates("x", &[PathBuf::new(), "/b".into()]);
    assert_eq!(candidates, Ok(vec!["/b/x".into()]));
    assert_eq!(find_plugin_candidates("x", &[]), Ok(vec![]));
    for name in ["", "/", "a/b", "../x", "/bin/sh", "a\0b"] {
        let error = Invocation::new(name, Command::Del, &add()).expect_err(name);
        assert_eq!(error.code, Code::InvalidConfig, "{name:?}");
    }
}

/// Checks what an answer means: `none`, the result as 1.1.0, or `CODE MSG | DETAILS`.
fn check(command: Command, success: bool, stdout: &str, want: &str) {
    let request = add();
    let invocation = Invocation::new("x", command, &request).expect("an invocation");
    let got = match invocation.parse(&request, success, stdout.as_bytes(), "oops\n") {
        Ok(None) => "none".to_owned(),
        Ok(Some(result)) => result.to_json(Version::V1_1_0).expect("a result").to_string(),
        Err(Error { code, msg, details }) => format!("{} {msg} | {details}", code.number()),
    };
    assert_eq!(got, want, "{stdout}");
}

/// Rows: C34, C83
#[test]
fn an_error_of_a_delegate_is_passed_on() {
    let object = r#"{"cniVersion":"0.4.0","code":100,"msg":"no addresses","details":"pool a"}"#;
    for command in [Command::Add, Command::Del, Command::Check, Command::Gc, Command::Status] {
        check(command, false, object, "100 no addresses | pool a");
        check(command, false, r#"{"Code":12345,"Msg":"odd"}"#, "12345 odd | ");
    }
    check(Command::Gc, false, r#"{"code":11}"#, "11 plugin \"x\" failed at GC | ");
    check(Command::Add, true, object, "100 no addresses | pool a");
}

/// Rows: F6, F49
#[test]
fn garbage_of_a_delegate_is_code_6() {
    let why = "plugin \"x\" returned no valid result for";
    let silent = format!("6 {why} DEL | it failed without an error object; stderr: \"oops\"");
    check(Command::Del, false, "", &silent);
    // A delegate killed after it printed its result.
    check(
        Command::Add,
        false,
        r#"{"ips":[]}"#,
        &format!(
            "6 {why} ADD | it failed without an error object; stdout: \"{{\\\"ips\\\":[]}}\"; \
             stderr: \"oops\""
        ),
    );
    let code_6 = |success, stdout: &[u8]| {
        let request = add();
        let invocation = Invocation::new("x", Command::Add, &request).expect("an invocation");
        let error = invocation.parse(&request, success, stdout, "").expect_err("garbage");
        assert_eq!(error.code, Code::Decode, "{error}");
        assert!(error.details.len() < 3000);
    };
    let endless = "x".repeat(1_000_000);
    for stdout in [
        "",
        "null",
        "[]",
        "1",
        "nonsense",
        "{}{}",
        "{\"ips\":[null]}",
        "{\"ips\":5}",
        &endless,
        r#"{"cniVersion":"7.0.0"}"#,
        r#"{"cniVersion":1}"#,
        r#"{"code":0}"#,
        r#"{"code":-1}"#,
        r#"{"code":4294967296}"#,
        r#"{"code":"7"}"#,
    ] {
        code_6(true, stdout.as_bytes());
        code_6(false, stdout.as_bytes());
    }
    code_6(true, b"\xff\xfe");
    code_6(false, b"\xff\xfe");
}

/// Rows: C44, C83
#[test]
fn an_answer_of_a_delegate_is_read_in_its_own_version() {
    let want = r#"{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.2/24"}]}"#;
    for stdout in [
        r#"{"ips":[{"version":"4","address":"10.0.0.2/24"}]}"#,
        r#"{"cniVersion":"","IPs":[{"Address":"10.0.0.2/24"}]}"#,
        r#"{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.2/24"}}"#,
        r#"{"cniVersion":"0.3.0","ips":[{"version":"4","address":"10.0.0.2/24"}]}"#,
        r#"{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.2/24"}]}"#,
    ] {
        check(Command::Add, true, stdout, want);
    }
    for command in [Command::Del, Command::Check, Command::Gc, Command::Status] {
        check(command, true, "", "none");
        check(command, true, "chatter", "none");
    }
}

proptest! {
    /// Rows: F49
    #[test]
    fn any_answer_is_read_or_refused(answer in any_json(), success: bool) {
        let request = request("ADD", &json!({"name": "n", "cniVersion": "1.1.0"})).expect("valid");
        let invocation = Invocation::new("x", Command::Add, &request).expect("an invocation");
        let answer = answer.to_string();
        if let Err(error) = invocation.parse(&request, success, answer.as_bytes(), "") {
            prop_assert!(error.code.number() != 0 && !error.msg.is_empty());
        }
    }
}
