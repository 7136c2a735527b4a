//! Order of checks, versions, what is printed, and the exit status.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::testing::{ABOUT, Recorder, any_json, call, env, line, unread};

/// Checks the answer to `command` with `stdin`, and which handlers ran.
fn check(command: &str, stdin: &str, want: &str, calls: &[&str]) {
    let plugin = Recorder::default();
    let reply = call(&plugin, env(command, ""), stdin);
    assert_eq!(line(&reply), want, "{command} {stdin}");
    assert_eq!(*plugin.calls.borrow(), calls, "{command} {stdin}");
}

/// Rows: C1
#[test]
fn without_a_command_the_plugin_says_what_it_is() {
    let mut unset = env("", "");
    unset.remove("CNI_COMMAND");
    for env in [unset, env("", "")] {
        let reply = dispatch(&Recorder::default(), &ABOUT, env, unread, |_| false);
        let text = "CNI causeway-test plugin v1.2.3\n\
                    CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n";
        assert_eq!(reply, Reply { stderr: text.to_owned(), ..Reply::default() });
    }
}

/// Rows: C6, C36, C37
#[test]
fn version_needs_nothing() {
    let env = Environment::from([("CNI_COMMAND".to_owned(), "VERSION".to_owned())]);
    let reply = dispatch(&Recorder::default(), &ABOUT, env, unread, |_| false);
    assert_eq!(
        line(&reply),
        r#"ok {"cniVersion":"1.1.0","supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}"#
    );
}

/// Rows: C9, C10, C11, C16
#[test]
fn input_is_checked_in_order() {
    let json = |details: &str| {
        format!("6@1.1.0 the network configuration on stdin is not valid JSON | {details}")
    };
    let object = "6@1.1.0 the network configuration must be a JSON object";
    for command in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
        check(command, "", &json("EOF while parsing a value at line 1 column 0"), &[]);
        check(command, "{}x", &json("trailing characters at line 1 column 3"), &[]);
        for stdin in ["null", "[]", "7", "\"x\""] {
            check(command, stdin, object, &[]);
        }
        // The name comes before the version, which the answer already speaks.
        check(command, r#"{"cniVersion":"9"}"#, "7@1.1.0 missing network name", &[]);
        check(
            command,
            r#"{"cniVersion":"0.4.0","name":null}"#,
            "7@0.4.0 missing network name",
            &[],
        );
        check(command, r#"{"name":""}"#, "7@0.1.0 missing network name", &[]);
        let bad = "7@1.0.0 invalid characters found in network name | a/b";
        check(command, r#"{"cniVersion":"1.0.0","name":"a/b"}"#, bad, &[]);
        let number = "6@0.1.0 field \"name\" of the network configuration cannot be decoded | 5 is \
                      not a string";
        check(command, r#"{"name":5}"#, number, &[]);
    }
}

/// Rows: C10
#[test]
fn an_unreadable_stdin_is_an_io_error() {
    let plugin = Recorder::default();
    let broken = || Err(io::Error::other("pipe broke"));
    let reply = dispatch(&plugin, &ABOUT, env("DEL", ""), broken, |_| false);
    assert_eq!(line(&reply), "5@1.1.0 cannot read stdin | pipe broke");
}

/// Rows: C28, C35, C37
#[test]
fn versions_are_negotiated() {
    let list = r#"["0.1.0" "0.2.0" "0.3.0" "0.3.1" "0.4.0" "1.0.0" "1.1.0"]"#;
    for command in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
        let (since, handler) = match command {
            "ADD" => ("0.1.0", "add"),
            "DEL" => ("0.1.0", "del"),
            "CHECK" => ("0.4.0", "check"),
            "GC" => ("1.1.0", "gc"),
            _ => ("1.1.0", "status"),
        };
        for version in ["", "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            let stdin = format!(
                r#"{{"name":"n","cniVersion":"{version}","cni.dev/valid-attachments":[]}}"#
            );
            let spoken = if version.is_empty() { "0.1.0" } else { version };
            if spoken >= since && command != "ADD" {
                check(command, &stdin, "ok", &[handler]);
            } else if spoken >= since {
                let plugin = Recorder::default();
                call(&plugin, env(command, ""), &stdin);
                assert_eq!(plugin.calls.borrow().first(), Some(&"add"));
            } else {
                let want = format!(
                    "1@{spoken} config version does not allow {command} \
                     | config is \"{spoken}\", {command} needs {since} or newer"
                );
                check(command, &stdin, &want, &[]);
            }
        }
        // 1.2.0 is newer than each command, so only the exact text counts.
        for version in ["1.2.0", "1.1", "01.1.0", "2.0.0"] {
            let stdin = format!(r#"{{"name":"n","cniVersion":"{version}"}}"#);
            let supports = format!("config is \"{version}\", plugin supports {list}");
            let want = format!("1@1.1.0 incompatible CNI versions | {supports}");
            check(command, &stdin, &want, &[]);
        }
        for version in ["x", "1.x.0", "1.1.0.0", "v1.1.0"] {
            let stdin = format!(r#"{{"name":"n","cniVersion":"{version}"}}"#);
            let supports = format!("config is \"{version}\", plugin supports {list}");
            let want = if since == "0.1.0" {
                format!("1@1.1.0 incompatible CNI versions | {supports}")
            } else {
                format!("6@1.1.0 cniVersion \"{version}\" is not a version")
            };
            check(command, &stdin, &want, &[]);
        }
    }
    let number = "6@1.1.0 field \"cniVersion\" of the network configuration cannot be decoded | \
                  1.1 is not a string";
    check("ADD", r#"{"name":"n","cniVersion":1.1}"#, number, &[]);
}

/// Rows: C12
#[test]
fn the_own_namespace_is_refused_before_anything_is_done() {
    let stdin = r#"{"name":"n","cniVersion":"1.1.0"}"#;
    let run = |command: &str, changes: &str| {
        let plugin = Recorder::default();
        let bytes = || Ok(stdin.as_bytes().to_vec());
        let own = |path: &str| path == "/run/netns/a";
        let reply = dispatch(&plugin, &ABOUT, env(command, changes), bytes, own);
        (line(&reply), plugin.calls.into_inner())
    };
    let refused = "8@1.1.0 CNI_NETNS must not be the network namespace of the plugin \
                   | /run/netns/a";
    for command in ["ADD", "DEL"] {
        assert_eq!(run(command, ""), (refused.to_owned(), vec![]));
        assert_eq!(run(command, "CNI_NETNS_OVERRIDE=0"), (refused.to_owned(), vec![]));
        for over in ["1", "true", "TRUE"] {
            let (got, calls) = run(command, &format!("CNI_NETNS_OVERRIDE={over}"));
            assert!(got.starts_with("ok") && calls.len() == 1, "{got}");
        }
        assert!(run(command, "CNI_NETNS=/run/netns/b").0.starts_with("ok"));
    }
    assert_eq!(run("DEL", "CNI_NETNS=").0, "ok");
}

/// Rows: C13, C14, C44
#[test]
fn only_add_prints() {
    for version in Version::ALL.into_iter().filter(|version| !version.needs_ip()) {
        let stdin = format!(r#"{{"name":"n","cniVersion":"{version}"}}"#);
        let dns = if version < Version::V1_0_0 { r#","dns":{}"# } else { "" };
        check("ADD", &stdin, &format!(r#"ok {{"cniVersion":"{version}"{dns}}}"#), &["add"]);
    }
    let stdin = r#"{"name":"n","cniVersion":"1.1.0","cni.dev/valid-attachments":[]}"#;
    for (command, handler) in
        [("DEL", "del"), ("CHECK", "check"), ("GC", "gc"), ("STATUS", "status")]
    {
        check(command, stdin, "ok", &[handler]);
    }
}

/// Rows: C40
#[test]
fn a_result_that_the_version_can_not_say_is_undone() {
    for version in ["0.1.0", "0.2.0"] {
        let want = format!(
            "7@{version} cannot convert: no valid IP addresses | a result of cniVersion {version} \
             needs addresses: add an ipam section to the network, or use cniVersion 0.3.0 or later"
        );
        let stdin = format!(r#"{{"name":"n","cniVersion":"{version}"}}"#);
        check("ADD", &stdin, &want, &["add", "undo"]);
        assert!(Version::parse(version).expect("known").needs_ip());
    }
}

/// Rows: C15, C16, C17, C33
#[test]
fn a_failure_is_one_object_and_exit_1() {
    for code in [
        Code::Io,
        Code::TryAgainLater,
        Code::NotAvailable,
        Code::PoolExhausted,
        Code::Internal,
        Code::Other(256),
    ] {
        for command in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
            let fail = Some(Error::new(code, "no way").details("because"));
            let plugin = Recorder { fail, ..Recorder::default() };
            let reply = call(
                &plugin,
                env(command, ""),
                r#"{"name":"n","cniVersion":"1.1.0","cni.dev/valid-attachments":[]}"#,
            );
            assert_eq!(line(&reply), format!("{}@1.1.0 no way | because", code.number()));
        }
    }
}

/// Rows: C18
#[test]
fn a_panic_is_an_error_object() {
    for (command, handler) in
        [("ADD", "add"), ("DEL", "del"), ("CHECK", "check"), ("GC", "gc"), ("STATUS", "status")]
    {
        let plugin = Recorder { panics: true, ..Recorder::default() };
        let reply = call(
            &plugin,
            env(command, ""),
            r#"{"name":"n","cniVersion":"1.1.0","cni.dev/valid-attachments":[]}"#,
        );
        let want = format!(
            "999@1.1.0 causeway-test {command} panicked: this is a bug \
             | handler of {handler} broke"
        );
        assert_eq!(line(&reply), want);
    }
}

/// Refuses to write after so many bytes, or to flush.
struct Pipe {
    room: usize,
}

impl io::Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.room == 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let written = bytes.len().min(self.room);
        self.room -= written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.room == 0 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}

/// Rows: F48
#[test]
fn an_add_whose_result_is_not_read_is_undone() {
    let stdin = r#"{"name":"n","cniVersion":"1.1.0"}"#;
    let length = call(&Recorder::default(), env("ADD", ""), stdin).stdout.len();
    // Refused at once, in the middle, and at the flush.
    for room in [0, 5, length] {
        let plugin = Recorder::default();
        let mut err = Vec::new();
        let reply = call(&plugin, env("ADD", ""), stdin);
        assert_eq!(reply.deliver(&plugin, &mut Pipe { room }, &mut err), 1);
        assert_eq!(*plugin.calls.borrow(), ["add", "undo"]);
        assert_eq!(String::from_utf8_lossy(&err), "cannot write to stdout: broken pipe\n");
    }
    // An undo that panics, and a closed stderr, do not change that.
    let plugin = Recorder::default();
    let reply = call(&plugin, env("ADD", ""), stdin);
    let broken = Recorder { panics: true, ..Recorder::default() };
    assert_eq!(reply.deliver(&broken, &mut Pipe { room: 0 }, &mut Pipe { room: 0 }), 1);
    assert_eq!(*broken.calls.borrow(), ["undo"]);
}

/// Rows: C15, C17
#[test]
fn a_reply_is_delivered_byte_for_byte() {
    for (command, exit) in [("ADD", 0), ("DEL", 0), ("VERSION", 0), ("X", 1), ("", 0)] {
        let plugin = Recorder::default();
        let reply = call(&plugin, env(command, ""), r#"{"name":"n","cniVersion":"1.1.0"}"#);
        let calls = plugin.calls.borrow().len();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        assert_eq!(reply.clone().deliver(&plugin, &mut out, &mut err), exit);
        assert_eq!((out, err), (reply.stdout, reply.stderr.into_bytes()));
        assert_eq!(plugin.calls.borrow().len(), calls);
    }
}

/// What holds of every reply; `line` asserts the rest.
fn is_sound(reply: &Reply) {
    let text = line(reply);
    assert!(!text.starts_with("999@") && !text.starts_with("0@"), "{text}");
    assert_eq!(reply.exit == 0, text.starts_with("ok"));
}

proptest! {
    /// Rows: C10, C18
    #[test]
    fn any_bytes_get_a_sound_reply(
        command in "ADD|DEL|CHECK|GC|STATUS|VERSION|[A-Z]{1,4}",
        stdin in proptest::collection::vec(any::<u8>(), 0..200),
        args in ".{0,20}",
    ) {
        let mut env = env(&command, "");
        env.insert("CNI_ARGS".to_owned(), args);
        is_sound(&dispatch(&Recorder::default(), &ABOUT, env, || Ok(stdin), |_| false));
    }

    #[test]
    fn any_environment_gets_a_sound_reply(
        values in proptest::collection::btree_map(
            "CNI_(COMMAND|CONTAINERID|NETNS|IFNAME|PATH|ARGS|NETNS_OVERRIDE)", ".{0,8}", 0..7),
        command in "ADD|DEL|CHECK|GC|STATUS",
    ) {
        let mut env = values;
        env.insert("CNI_COMMAND".to_owned(), command);
        let stdin = || Ok(br#"{"name":"n","cniVersion":"1.1.0"}"#.to_vec());
        is_sound(&dispatch(&Recorder::default(), &ABOUT, env, stdin, |_| false));
    }

    #[test]
    fn any_json_gets_a_sound_reply(
        command in "ADD|DEL|CHECK|GC|STATUS",
        version in proptest::sample::select(Version::ALL.to_vec()),
        mut config in any_json(),
    ) {
        if let Some(members) = config.as_object_mut() {
            members.insert("name".to_owned(), json!("n"));
            members.insert("cniVersion".to_owned(), json!(version.as_str()));
        }
        is_sound(&call(&Recorder::default(), env(&command, ""), &config.to_string()));
    }
}
