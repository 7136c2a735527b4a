//! The CNI contract at the edge of the process, asked of all three plugins: environment, stdin,
//! stdout, stderr, exit status, error objects, versions.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::pipe;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use causeway_tests::{Cni, Lab, Node, Outcome, Pod, Snapshot, executable, finish};
use serde_json::{Value, json};

const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
const PLUGINS: [&str; 3] = ["causeway-bridge", "causeway-ipam", "causeway-service"];

/// A node with one container, and a valid configuration for each plugin.
struct Bench {
    lab: Lab,
    pod: Pod,
}

impl Bench {
    fn new() -> Self {
        let lab = Lab::one_node();
        let pod = lab.nodes[0].pod();
        Self { lab, pod }
    }

    fn node(&self) -> &Node {
        &self.lab.nodes[0]
    }

    fn config(&self, plugin: &str) -> Value {
        let (run, data) = (self.node().run_dir(), self.node().data_dir());
        let mut config = json!({
            "cniVersion": "1.1.0", "name": "contract", "type": plugin, "runDir": run,
            "cni.dev/valid-attachments": [],
            "ipam": { "type": "causeway-ipam", "dataDir": data, "runDir": run,
                      "ranges": [[{ "subnet": "10.77.0.0/24" }]] } });
        if plugin == "causeway-bridge" {
            config["bridge"] = json!("cb0");
            config["isDefaultGateway"] = json!(true);
            config["ipMasq"] = json!(true);
        }
        if plugin == "causeway-service" {
            config["spoolDir"] = json!(self.node().dir().join("spool"));
            config["socket"] = json!(self.node().dir().join("no-daemon.sock"));
            config["runtimeConfig"] = json!({ "portMappings": [
                { "hostPort": 8080, "containerPort": 80, "protocol": "tcp" } ] });
            config["prevResult"] = json!({
                "cniVersion": "1.1.0",
                "interfaces": [{ "name": "eth0", "sandbox": self.pod.path() }],
                "ips": [{ "interface": 0, "address": "10.77.0.99/24" }] });
        }
        config
    }

    /// A valid call.
    fn call(&self, plugin: &str, command: &str) -> Cni<'_> {
        self.with(plugin, command, &self.config(plugin))
    }

    /// A call with this configuration.
    fn with(&self, plugin: &str, command: &str, config: &Value) -> Cni<'_> {
        Cni::new(self.node(), plugin, command, config).attachment(&self.pod.attachment("eth0"))
    }
}

/// The outcome of each plugin for a call that `change` spoils; each must fail with `code`.
fn all_fail(
    bench: &Bench,
    command: &str,
    code: u64,
    change: impl Fn(Cni<'_>) -> Cni<'_>,
) -> Vec<String> {
    let each = PLUGINS.iter().map(|plugin| {
        let outcome = change(bench.call(plugin, command)).run();
        assert_error(&outcome);
        assert_eq!(outcome.error_code(), code, "{}", outcome.describe());
        outcome.error()["msg"].as_str().expect("checked").to_owned()
    });
    each.collect()
}

fn assert_error(outcome: &Outcome) {
    let error = outcome.error();
    assert_eq!(outcome.code(), 1, "{}", outcome.describe());
    let known = VERSIONS.iter().any(|version| error["cniVersion"] == *version);
    assert!(known, "cniVersion: {}", outcome.describe());
    assert!(error["details"].is_string(), "{}", outcome.describe());
    assert!(!error["msg"].as_str().expect("checked").is_empty(), "{}", outcome.describe());
}

/// Rows: C1
#[test]
fn without_a_command_a_plugin_introduces_itself_on_stderr() {
    let bench = Bench::new();
    for plugin in PLUGINS {
        let plain = bench.call(plugin, "");
        for call in [plain.clone(), plain.unset("CNI_COMMAND")] {
            let outcome = call.run();
            outcome.silent();
            let text = String::from_utf8(outcome.stderr.clone()).expect("text");
            let (first, second) = text.trim_end().split_once('\n').expect("two lines");
            let version = first.strip_prefix(&format!("CNI {plugin} plugin v")).expect(first);
            assert_eq!(version.split('.').count(), 3, "{first}");
            let supported = format!("CNI protocol versions supported: {}", VERSIONS.join(", "));
            assert_eq!(second, supported);
        }
    }
}

/// Rows: C2
#[test]
fn an_unknown_command_is_refused_in_any_case_but_upper() {
    let bench = Bench::new();
    for command in ["FETCH", "add", "Del", " ADD"] {
        for msg in all_fail(&bench, command, 4, |call| call) {
            assert_eq!(msg, format!("unknown CNI_COMMAND: {command}"));
        }
    }
}

/// Rows: C3, C4
#[test]
fn all_missing_variables_are_named_at_once() {
    let bench = Bench::new();
    for command in ["ADD", "CHECK", "DEL"] {
        let expected = if command == "DEL" {
            "required env variables [CNI_CONTAINERID,CNI_IFNAME,CNI_PATH] missing"
        } else {
            "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH] missing"
        };
        let messages = all_fail(&bench, command, 4, |call| {
            call.unset("CNI_CONTAINERID")
                .env("CNI_NETNS", "")
                .env("CNI_IFNAME", "")
                .unset("CNI_PATH")
        });
        assert_eq!(messages, [expected; 3]);
    }
}

/// Rows: C4, C66
#[test]
fn del_needs_no_namespace_and_no_add() {
    let bench = Bench::new();
    for plugin in PLUGINS {
        bench.call(plugin, "DEL").env("CNI_NETNS", "").run().silent();
        bench.call(plugin, "DEL").unset("CNI_NETNS").unset("CNI_ARGS").run().silent();
    }
}

/// Rows: C5, C14
#[test]
fn gc_and_status_need_no_attachment() {
    let bench = Bench::new();
    for plugin in PLUGINS {
        for command in ["GC", "STATUS"] {
            let mut call = bench.call(plugin, command);
            for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"] {
                call = call.env(name, "");
            }
            call.clone().run().silent();
            for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"] {
                call = call.unset(name);
            }
            call.run().silent();
        }
    }
}

/// Without the list of what is attached, as `cnitool gc` calls, GC touches nothing.
///
/// Rows: RC13
#[test]
fn gc_without_a_list_is_refused_and_detaches_nothing() {
    let bench = Bench::new();
    for plugin in PLUGINS {
        let result = bench.call(plugin, "ADD").run().json();
        let before = Snapshot::take(bench.node());
        let mut config = bench.config(plugin);
        config.as_object_mut().expect("an object").remove("cni.dev/valid-attachments");
        let outcome = bench.with(plugin, "GC", &config).run();
        assert_eq!(outcome.error_code(), 7, "{}", outcome.describe());
        let error = outcome.error();
        let msg = error["msg"].as_str().expect("a message");
        assert!(msg.contains("cni.dev/valid-attachments"), "{msg}");
        before.assert_same(&Snapshot::take(bench.node()));
        let mut config = bench.config(plugin);
        config["prevResult"] = result;
        bench.with(plugin, "CHECK", &config).run().silent();
        bench.call(plugin, "DEL").run().silent();
    }
}

/// Rows: C6, C36, C37
#[test]
fn version_answers_whatever_stdin_is() {
    let bench = Bench::new();
    for plugin in PLUGINS {
        let command = || {
            let mut command =
                Cni::new(bench.node(), plugin, "VERSION", &Value::Null).unset("CNI_PATH").command();
            command.stdin(Stdio::null());
            command
        };
        let mut closed = command();
        // SAFETY: close is async-signal-safe.
        unsafe {
            closed.pre_exec(|| {
                libc::close(0);
                Ok(())
            });
        }
        let mut unreadable = command();
        unreadable.stdin(File::open("/").expect("open /"));
        let mut endless = command();
        let (reader, _writer) = pipe().expect("a pipe");
        endless.stdin(reader);
        for mut command in [command(), closed, unreadable, endless] {
            let output = command.output().expect("start the plugin");
            assert!(output.status.success(), "{output:?}");
            let answer: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
            assert_eq!(answer["supportedVersions"], json!(VERSIONS));
            assert_eq!(answer["cniVersion"], "1.1.0");
        }
    }
}

/// Rows: C7
#[test]
fn container_ids_keep_to_their_characters() {
    let bench = Bench::new();
    for command in ["ADD", "DEL", "CHECK"] {
        for id in ["-a", ".a", "a/b", "a b", "ü", "a:b"] {
            let messages = all_fail(&bench, command, 4, |call| call.env("CNI_CONTAINERID", id));
            assert_eq!(messages, ["invalid characters in containerID"; 3]);
        }
    }
    for plugin in PLUGINS {
        bench.call(plugin, "DEL").env("CNI_CONTAINERID", "Ab_9.-Z").run().silent();
        bench.call(plugin, "DEL").env("CNI_CONTAINERID", &"a".repeat(200)).run().silent();
    }
}

/// Rows: C8
#[test]
fn interface_names_are_what_the_kernel_takes() {
    let bench = Bench::new();
    let mut messages = BTreeSet::new();
    for name in [".", "..", "a/b", "a:b", "a b", "a\u{2003}b", "sixteen-bytes-xx"] {
        messages.extend(all_fail(&bench, "ADD", 4, |call| call.env("CNI_IFNAME", name)));
    }
    assert!(messages.len() >= 3, "each kind of mistake has its own message: {messages:?}");
    for plugin in PLUGINS {
        bench.call(plugin, "DEL").env("CNI_IFNAME", "fifteen-bytes-x").run().silent();
    }
}

/// Rows: C9
#[test]
fn the_network_needs_a_proper_name() {
    let bench = Bench::new();
    for command in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
        for plugin in PLUGINS {
            for (name, expected) in [
                (Value::Null, "missing network name"),
                (json!(""), "missing network name"),
                (json!("a/b"), "invalid characters found in network name"),
                (json!("-a"), "invalid characters found in network name"),
            ] {
                let mut config = bench.config(plugin);
                config["name"] = name;
                let outcome = bench.with(plugin, command, &config).run();
                assert_eq!(outcome.error_code(), 7, "{}", outcome.describe());
                assert_eq!(outcome.error()["msg"], expected);
            }
        }
    }
}

/// Rows: C10
#[test]
fn stdin_must_be_readable_json() {
    let bench = Bench::new();
    for stdin in ["", "{", "null", "[]", "{} {}", "\u{feff}", "{\"name\": \u{0}}"] {
        all_fail(&bench, "ADD", 6, |call| call.stdin(stdin.as_bytes()));
        all_fail(&bench, "DEL", 6, |call| call.stdin(stdin.as_bytes()));
    }
    all_fail(&bench, "ADD", 6, |call| call.stdin(b"{\"name\": \"\xff\"}"));
    for plugin in PLUGINS {
        let mut command = bench.call(plugin, "ADD").command();
        let output = command.stdin(File::open("/").expect("open /")).output().expect("run");
        let error: Value = serde_json::from_slice(&output.stdout).expect("an error object");
        assert_eq!((output.status.code(), &error["code"]), (Some(1), &json!(5)), "{error}");
    }
}

/// Rows: C11
#[test]
fn the_first_of_several_mistakes_is_reported() {
    let bench = Bench::new();
    all_fail(&bench, "ADD", 4, |call| call.env("CNI_IFNAME", "a/b").stdin(b"{"));
    all_fail(&bench, "ADD", 4, |call| call.unset("CNI_PATH").env("CNI_CONTAINERID", "a/b"));
    all_fail(&bench, "ADD", 6, |call| call.stdin(b"{\"cniVersion\": \"9.9.9\""));
    all_fail(&bench, "ADD", 7, |call| call.stdin(b"{\"cniVersion\": \"9.9.9\"}"));
    all_fail(&bench, "ADD", 1, |call| {
        call.stdin(b"{\"cniVersion\": \"9.9.9\", \"name\": \"n\", \"bridge\": 3, \"ipam\": 3}")
    });
}

/// Rows: C12
#[test]
fn the_plugins_own_namespace_is_refused_before_anything_happens() {
    let bench = Bench::new();
    let before = Snapshot::take(bench.node());
    let own = bench.node().path().display().to_string();
    for command in ["ADD", "DEL"] {
        all_fail(&bench, command, 8, |call| call.env("CNI_NETNS", &own));
        all_fail(&bench, command, 8, |call| call.env("CNI_NETNS", "/proc/self/ns/net"));
    }
    before.assert_same(&Snapshot::take(bench.node()));
    let call = bench.call("causeway-ipam", "ADD").env("CNI_NETNS", &own);
    let result = call.env("CNI_NETNS_OVERRIDE", "true").run().json();
    assert_eq!(result["ips"][0]["address"], "10.77.0.2/24");
}

/// Rows: C13, C14
#[test]
fn i8_stdout_carries_one_result_or_nothing() {
    let bench = Bench::new();
    for plugin in PLUGINS {
        let outcome = bench.call(plugin, "ADD").run();
        let result = outcome.json();
        assert!(result.is_object(), "{}", outcome.describe());
        let mut config = bench.config(plugin);
        config["prevResult"] = result;
        for command in ["CHECK", "DEL", "GC", "STATUS"] {
            bench.with(plugin, command, &config).run().silent();
        }
    }
}

/// Rows: C15, C16, C17
#[test]
fn failures_are_an_object_on_stdout_and_exit_one() {
    let bench = Bench::new();
    for plugin in PLUGINS {
        for version in VERSIONS {
            let mut config = bench.config(plugin);
            config["cniVersion"] = json!(version);
            config["name"] = json!("a/b");
            let outcome = bench.with(plugin, "ADD", &config).run();
            assert_error(&outcome);
            assert_eq!(outcome.error()["cniVersion"], version, "{}", outcome.describe());
        }
        // A failure of the handler, not of the contract before it.
        let outcome = bench.call(plugin, "ADD").env("CNI_NETNS", "/nowhere/ns").run();
        if plugin == "causeway-bridge" {
            assert_error(&outcome);
            assert!([5, 8].contains(&outcome.error_code()), "{}", outcome.describe());
        }
        bench.call(plugin, "DEL").env("CNI_NETNS", "/nowhere/ns").run().silent();
    }
}

/// Rows: C28, C35
#[test]
fn versions_are_compared_as_a_whole_and_by_command() {
    let bench = Bench::new();
    let run = |plugin: &str, command: &str, version: Value| {
        let mut config = bench.config(plugin);
        config["cniVersion"] = version;
        bench.with(plugin, command, &config).run()
    };
    for plugin in PLUGINS {
        for version in ["9.9.9", "1.1", "v1.0.0", "1.0.0-rc1", "nonsense"] {
            for command in ["ADD", "DEL"] {
                let outcome = run(plugin, command, json!(version));
                assert_eq!(outcome.error_code(), 1, "{}", outcome.describe());
            }
        }
        for (command, oldest) in [("CHECK", "0.4.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0")] {
            for version in VERSIONS.iter().filter(|version| **version < oldest) {
                let outcome = run(plugin, command, json!(version));
                assert_eq!(outcome.error_code(), 1, "{}", outcome.describe());
                let expected = format!("config version does not allow {command}");
                assert_eq!(outcome.error()["msg"], expected);
            }
            assert_eq!(run(plugin, command, json!("nonsense")).error_code(), 6);
        }
    }
    // No version is the oldest, whose result has `ip4`.
    for version in [Value::Null, json!("")] {
        let result = run("causeway-ipam", "ADD", version.clone()).json();
        assert_eq!(result["cniVersion"], "0.1.0");
        assert!(result["ip4"]["ip"].is_string(), "{result}");
        run("causeway-ipam", "DEL", version).silent();
    }
}

/// Rows: C37, C38, C44
#[test]
fn every_version_attaches_and_any_detaches() {
    let bench = Bench::new();
    for (index, version) in VERSIONS.iter().enumerate() {
        let mut config = bench.config("causeway-bridge");
        config["cniVersion"] = json!(version);
        let result = bench.with("causeway-bridge", "ADD", &config).run().json();
        assert_eq!(result["cniVersion"], *version);
        let address = if index < 2 { &result["ip4"]["ip"] } else { &result["ips"][0]["address"] };
        assert_eq!(bench.pod.addresses("eth0"), [address.as_str().expect("an address")]);
        config["cniVersion"] = json!(VERSIONS[VERSIONS.len() - 1 - index]);
        bench.with("causeway-bridge", "DEL", &config).run().silent();
        assert!(bench.pod.link("eth0").is_none(), "{version}");
    }
}

/// Rows: C22, C21
#[test]
fn unset_keys_and_foreign_keys_do_no_harm() {
    let bench = Bench::new();
    for plugin in PLUGINS {
        let mut config = bench.config(plugin);
        config["capabilities"] = json!({ "portMappings": true, "ips": false });
        config["resolveConf"] = json!({ "x": [1] });
        config["ipam"]["ranges"][0][0]["ipRange"] = json!("");
        config["cni.dev/attachments"] = json!([{ "containerID": "x", "ifname": "eth0" }]);
        config["dns"] = json!({});
        config["args"] = Value::Null;
        config["mtu"] = Value::Null;
        config["vlanTrunk"] = Value::Null;
        config["vxlan"] = Value::Null;
        config["backend"] = Value::Null;
        config["ipam"]["routes"] = Value::Null;
        config["ipam"]["dataDir"] = json!(bench.node().data_dir());
        for command in ["ADD", "DEL", "GC", "STATUS"] {
            let outcome = bench.with(plugin, command, &config).run();
            assert!(outcome.status.success(), "{}", outcome.describe());
        }
    }
}

/// Rows: C23
#[test]
fn arguments_are_pairs_and_known() {
    let bench = Bench::new();
    for args in ["a", "a=b;", "a=b=c", ";", "IgnoreUnknown=maybe", "FOO=1", "FOO=1;IgnoreUnknown=0"]
    {
        for command in ["ADD", "DEL"] {
            all_fail(&bench, command, 4, |call| call.env("CNI_ARGS", args));
        }
    }
    for args in ["", "FOO=1;IgnoreUnknown=TRUE", "IgnoreUnknown=false", "ip=1;IgnoreUnknown=1"] {
        for plugin in PLUGINS {
            bench.call(plugin, "DEL").env("CNI_ARGS", args).run().silent();
        }
    }
}

/// Rows: C24, C26
#[test]
fn what_runtimes_pass_is_accepted() {
    let bench = Bench::new();
    let args = [
        "K8S_POD_NAMESPACE=default;IgnoreUnknown=1;K8S_POD_NAME=web-0;K8S_POD_UID=1-2;\
         K8S_POD_INFRA_CONTAINER_ID=abc",
        "IgnoreUnknown=1;NERDCTL_CNI_DHCP_HOSTNAME=host;IP=10.77.0.9;MAC=02:00:00:00:00:09",
    ];
    for args in args {
        for plugin in PLUGINS {
            let call = |command: &str, config: &Value| {
                bench
                    .with(plugin, command, config)
                    .env("CNI_ARGS", args)
                    .env("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
                    .env("TRACESTATE", "a=b")
                    .env("BAGGAGE", "c=d")
            };
            let mut config = bench.config(plugin);
            let result = call("ADD", &config).run().json();
            config["prevResult"] = result;
            call("CHECK", &config).run().silent();
            call("DEL", &config).run().silent();
        }
    }
}

/// Rows: C25
#[test]
fn the_mac_comes_from_the_strongest_source() {
    let bench = Bench::new();
    let base = bench.config("causeway-bridge");
    let (mut by_args, mut by_runtime) = (base.clone(), base.clone());
    by_args["args"] = json!({ "cni": { "mac": "02:00:00:00:00:02" } });
    by_runtime["args"] = by_args["args"].clone();
    by_runtime["runtimeConfig"] = json!({ "mac": "02:00:00:00:00:03" });
    for (expected, config) in [
        ("02:00:00:00:00:01", base),
        ("02:00:00:00:00:02", by_args),
        ("02:00:00:00:00:03", by_runtime),
    ] {
        let call = |command| {
            bench.with("causeway-bridge", command, &config).env("CNI_ARGS", "MAC=02:00:00:00:00:01")
        };
        let result = call("ADD").run().json();
        assert_eq!(result["interfaces"][2]["mac"], expected);
        assert_eq!(bench.pod.link("eth0").expect("eth0")["address"], expected);
        call("DEL").run().silent();
    }
}

/// Rows: C27
#[test]
fn plugins_are_installed_by_rename_beside_running_ones() {
    const COMMANDS: [&str; 2] = ["causeway", "causewayd"];
    let bench = Bench::new();
    let (source, root) = (bench.node().dir().join("release"), bench.node().dir().join("root"));
    let installed = root.join("opt/cni/bin/causeway-bridge");
    for folder in [&source, &root.join("opt/cni/bin")] {
        std::fs::create_dir_all(folder).expect("a folder");
    }
    for program in PLUGINS.iter().chain(&COMMANDS) {
        executable::copy("/bin/true", &source.join(program));
    }
    executable::copy("/bin/sleep", &installed);
    #[expect(clippy::disallowed_methods, reason = "the program that is replaced while it runs")]
    let mut running = Command::new(&installed).arg("60").spawn().expect("start the old program");

    let mut make = bench.node().command("make");
    make.current_dir(causeway_tests::bins::workspace()).args(["install", "CARGO=true"]);
    make.arg(format!("RELEASE={}", source.display())).arg(format!("DESTDIR={}", root.display()));
    finish(make, b"").ok();

    assert!(running.try_wait().expect("ask for the old program").is_none(), "it still runs");
    running.kill().expect("end the old program");
    running.wait().expect("wait for the old program");
    let listed = |folder| bench.node().sh(&format!("ls -A {}/{folder}", root.display()));
    assert_eq!(listed("opt/cni/bin").split_whitespace().collect::<Vec<_>>(), PLUGINS);
    // What people type of causeway-ipam: a link to the plugin.
    let typed = ["causeway", "causeway-ipam", "causewayd"];
    assert_eq!(listed("usr/local/bin").split_whitespace().collect::<Vec<_>>(), typed);
    bench.node().sh(&format!("{}", installed.display()));
}
