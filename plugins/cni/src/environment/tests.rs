//! Presence and format of variables, and `CNI_ARGS`.

use proptest::prelude::*;

use super::*;
use crate::dispatch;
use crate::testing::{ABOUT, Recorder, env, line, unread};

/// Checks what `dispatch` answers to an environment; stdin must not be touched for it.
fn check(command: &str, changes: &str, want: &str) {
    check_env(env(command, changes), want);
}

fn check_env(env: Environment, want: &str) {
    let shown = format!("{env:?}");
    let reply = dispatch(&Recorder::default(), &ABOUT, env, unread, |_| false);
    assert_eq!(line(&reply), want, "{shown}");
}

/// Whether the environment of `command` with `changes` is accepted.
fn accepted(command: &str, changes: &str) -> Checked {
    super::check(&ABOUT, &env(command, changes)).expect("accepted")
}

/// Rows: C2, C11
#[test]
fn commands_are_exact() {
    for command in ["add", "Add", "ADD ", "VERSIO", "X"] {
        check(command, "", &format!("4@1.1.0 unknown CNI_COMMAND: {command}"));
    }
    for command in ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"] {
        assert_eq!(Command::parse(command).map(Command::as_str), Some(command));
    }
}

/// Rows: C3, C4, C5
#[test]
fn all_missing_variables_are_named_at_once() {
    let none = "CNI_CONTAINERID= CNI_NETNS= CNI_IFNAME= CNI_PATH=";
    let all = "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH";
    for (command, changes, missing) in [
        ("ADD", none, all),
        ("CHECK", none, all),
        ("ADD", "CNI_NETNS= CNI_IFNAME= CNI_PATH=", "CNI_NETNS,CNI_IFNAME,CNI_PATH"),
        ("CHECK", "CNI_PATH=", "CNI_PATH"),
        ("DEL", none, "CNI_CONTAINERID,CNI_IFNAME,CNI_PATH"),
        ("GC", none, "CNI_PATH"),
        ("STATUS", none, "CNI_PATH"),
    ] {
        let want = format!("4@1.1.0 required env variables [{missing}] missing");
        check(command, changes, &want);
        let mut unset = env(command, changes);
        unset.retain(|_, value| !value.is_empty());
        check_env(unset, &want);
    }
}

/// Rows: C4, C5
#[test]
fn what_a_command_does_not_need_may_be_empty() {
    assert_eq!(accepted("DEL", "CNI_NETNS=").netns, None);
    for command in ["GC", "STATUS"] {
        for changes in [
            "CNI_CONTAINERID= CNI_NETNS= CNI_IFNAME= CNI_ARGS=",
            "CNI_CONTAINERID=a/b CNI_IFNAME=a:b CNI_ARGS=;;",
        ] {
            let checked = accepted(command, changes);
            assert_eq!(checked.attachment.container_id, "");
            assert_eq!(checked.attachment.ifname, "");
            assert_eq!(checked.args, CniArgs::default());
        }
    }
}

/// Rows: C7
#[test]
fn container_ids_are_checked() {
    for id in ["a", "A", "0", "ABC", "a.b_c-d", &"a".repeat(200)] {
        let checked = accepted("ADD", &format!("CNI_CONTAINERID={id}"));
        assert_eq!(checked.attachment.container_id, id);
    }
    for id in ["-a", ".a", "_a", "a/b", "a:b", "ä", "a\n", "../a"] {
        let want = format!("4@1.1.0 invalid characters in containerID | {id}");
        for command in ["ADD", "DEL", "CHECK"] {
            check(command, &format!("CNI_CONTAINERID={id}"), &want);
        }
    }
}

/// Rows: C8
#[test]
fn interface_names_are_checked() {
    for name in ["e", "eth0", "123456789012345", "a.b", "...", "äöü"] {
        assert_eq!(accepted("ADD", &format!("CNI_IFNAME={name}")).attachment.ifname, name);
    }
    let odd = "interface name contains / or : or whitespace characters";
    for (name, why) in [
        (".", "interface name is . or .."),
        ("..", "interface name is . or .."),
        ("1234567890123456", "interface name is longer than 15 bytes"),
        ("ääääääää", "interface name is longer than 15 bytes"),
        ("a/b", odd),
        ("a:b", odd),
        ("a\tb", odd),
        ("a\u{a0}b", odd),
        ("a\u{2003}b", odd),
    ] {
        check("ADD", &format!("CNI_IFNAME={name}"), &format!("4@1.1.0 {why} | {name}"));
    }
}

/// Checks how `CNI_ARGS` reads: its pairs and whether unknown keys pass, or the message.
fn check_args(text: &str, want: &str) {
    let got = match CniArgs::parse(text, ABOUT.known_args) {
        Ok(args) => format!("{:?} {}", args.pairs, args.ignore_unknown),
        Err(error) => {
            assert_eq!(error.code, Code::InvalidEnvironment);
            assert_eq!(error.details, text);
            error.msg
        }
    };
    assert_eq!(got, want, "{text}");
}

/// Rows: C23
#[test]
fn cni_args_are_checked() {
    check_args("", "{} false");
    check_args("IP=10.0.0.2", r#"{"IP": "10.0.0.2"} false"#);
    check_args("MAC=aa:bb;EXTRA=", r#"{"EXTRA": "", "MAC": "aa:bb"} false"#);
    check_args("IP=1;IP=2", r#"{"IP": "2"} false"#);
    for yes in ["1", "true", "True", "TRUE"] {
        check_args(&format!("X=1;IgnoreUnknown={yes}"), r#"{"X": "1"} true"#);
    }
    let refused = "CNI_ARGS: unknown keys X, ip; set IgnoreUnknown=1 to ignore them";
    check_args("ip=1;X=1;IP=2", refused);
    for no in ["0", "false", "FALSE"] {
        check_args(&format!("ip=1;X=1;IgnoreUnknown={no}"), refused);
        check_args(&format!("IgnoreUnknown={no}"), "{} false");
    }
    check_args("IgnoreUnknown=yes", "CNI_ARGS: IgnoreUnknown is \"yes\", not true or false");
    check_args("IgnoreUnknown=", "CNI_ARGS: IgnoreUnknown is \"\", not true or false");
    check_args(
        "ignoreunknown=1",
        "CNI_ARGS: unknown keys ignoreunknown; set IgnoreUnknown=1 to ignore them",
    );
    for (text, part) in
        [("IP=1;", ""), (";", ""), (";IP=1", ""), ("IP", "IP"), ("IP=1;A=b=c;MAC=x", "A=b=c")]
    {
        check_args(text, &format!("CNI_ARGS: \"{part}\" is not a KEY=VALUE pair"));
    }
}

/// Rows: C24
#[test]
fn arguments_of_the_runtimes_pass() {
    for args in [
        "K8S_POD_UID=u;IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_INFRA_CONTAINER_ID=c",
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_INFRA_CONTAINER_ID=c;K8S_POD_UID=u;IP=10.0.0.2;MAC=aa:bb:cc:dd:ee:ff",
        "IgnoreUnknown=1;NERDCTL_CNI_DHCP_HOSTNAME=h;IP=10.0.0.2;MAC=aa:bb:cc:dd:ee:ff",
        "IP=10.0.0.2;MAC=aa:bb:cc:dd:ee:ff;CAUSEWAY_LABELS=app:web,tier:db",
    ] {
        for command in ["ADD", "DEL", "CHECK"] {
            let checked = accepted(command, &format!("CNI_ARGS={args}"));
            assert_eq!(
                checked.args.pairs.len(),
                args.matches('=').count() - args.matches("Ign").count()
            );
        }
    }
}

/// Rows: F50
#[test]
fn the_search_path_keeps_its_order_and_spaces() {
    let mut env = env("ADD", "");
    env.insert("CNI_PATH".to_owned(), ":/missing::/with space/bin/:/opt/cni/bin:".to_owned());
    let checked = super::check(&ABOUT, &env).expect("accepted");
    assert_eq!(checked.path, ["/missing", "/with space/bin/", "/opt/cni/bin"].map(PathBuf::from));
}

proptest! {
    /// Rows: C23
    #[test]
    fn any_cni_args_are_read_or_refused_with_code_4(text in "(IP|MAC|IgnoreUnknown|X|1|true|;|=|.){0,12}") {
        match CniArgs::parse(&text, &[]) {
            Ok(args) => prop_assert_eq!(
                args.pairs.keys().all(|key| CniArgs::COMMON.contains(&key.as_str())) || args.ignore_unknown,
                true
            ),
            Err(error) => prop_assert_eq!(error.code, Code::InvalidEnvironment),
        }
    }
}
