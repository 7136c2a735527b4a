//! One run of one plugin.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::run::{Finished, finish, wait};
use crate::{Attachment, Node, bins};

/// Builds the call of a plugin on a node.
///
/// Environment: `CNI_COMMAND` and `CNI_PATH` are set, the rest by the methods; `PATH` is plain.
#[derive(Debug, Clone)]
pub struct Cni<'a> {
    node: &'a Node,
    program: PathBuf,
    environment: BTreeMap<String, String>,
    stdin: Vec<u8>,
}

/// What a plugin run gave.
#[derive(Debug, Clone)]
pub struct Outcome(Finished);

/// A plugin run under way.
#[derive(Debug)]
pub struct Running {
    child: Child,
    shown: String,
}

impl<'a> Cni<'a> {
    /// A call of the plugin `plugin` (ours or upstream's) with this command and configuration.
    pub fn new(node: &'a Node, plugin: &str, command: &str, config: &Value) -> Self {
        let environment = BTreeMap::from([
            ("CNI_COMMAND".to_owned(), command.to_owned()),
            ("CNI_PATH".to_owned(), node.cni_path()),
        ]);
        let stdin = config.to_string().into_bytes();
        Self { node, program: bins::plugin(plugin), environment, stdin }
    }

    /// Sets id, interface name, namespace and arguments. As libcni does, all are set, if empty.
    pub fn attachment(self, attachment: &Attachment) -> Self {
        self.env("CNI_CONTAINERID", &attachment.id)
            .env("CNI_IFNAME", &attachment.ifname)
            .env("CNI_NETNS", &attachment.netns)
            .env("CNI_ARGS", &attachment.args)
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Unsets a variable.
    pub fn unset(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    /// Replaces the configuration by any bytes.
    pub fn stdin(mut self, bytes: &[u8]) -> Self {
        self.stdin = bytes.to_vec();
        self
    }

    /// The bytes for stdin, for a test that runs [`Cni::command`] itself.
    pub fn input(&self) -> &[u8] {
        &self.stdin
    }

    /// Runs the plugin to its end.
    pub fn run(self) -> Outcome {
        let command = self.command();
        Outcome(finish(command, &self.stdin))
    }

    /// Starts the plugin, hands it its configuration and returns while it works.
    pub fn spawn(self) -> Running {
        let mut command = self.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let shown = format!("{command:?}");
        let mut child = command.spawn().unwrap_or_else(|e| panic!("start {shown}: {e}"));
        if let Some(mut pipe) = child.stdin.take()
            && let Err(error) = pipe.write_all(&self.stdin)
        {
            assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe, "write to {shown}: {error}");
        }
        Running { child, shown }
    }

    /// The command itself, for a test that arranges stdin, stdout or stderr in its own way.
    pub fn command(&self) -> std::process::Command {
        let mut command = self.node.command(&self.program);
        command.envs(&self.environment);
        command
    }
}

impl Running {
    /// The process id.
    pub fn id(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id is positive")
    }

    /// Sends SIGKILL; a process that has ended already is fine.
    pub fn kill(&mut self) {
        self.child.kill().unwrap_or_else(|e| panic!("kill {}: {e}", self.shown));
    }

    /// Returns when the process waits for a lock that another one holds: for that it starts a
    /// thread by the name `flock`. Panics when the process ends before that.
    pub fn until_it_waits_for_a_lock(&self) {
        loop {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", self.id()));
            let mut tasks = tasks.unwrap_or_else(|e| panic!("{} is gone: {e}", self.shown));
            let waits = |task: std::io::Result<std::fs::DirEntry>| {
                let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
                Some(stat.contains("(flock) S"))
            };
            if tasks.any(|task| waits(task) == Some(true)) {
                return;
            }
            let state = std::fs::read_to_string(format!("/proc/{}/stat", self.id()));
            let state = state.unwrap_or_else(|e| panic!("{} is gone: {e}", self.shown));
            assert!(!state.contains(") Z "), "{} ended without waiting", self.shown);
            std::thread::yield_now();
        }
    }

    /// Waits for the end.
    pub fn wait(self) -> Outcome {
        Outcome(wait(self.child, self.shown))
    }
}

impl Outcome {
    /// The JSON object on stdout, `null` when stdout is empty; panics unless the run succeeded.
    pub fn json(&self) -> Value {
        assert!(self.status.success(), "{}", self.describe());
        if self.stdout.is_empty() {
            return Value::Null;
        }
        self.parse_stdout()
    }

    /// Panics unless the run succeeded with nothing on stdout, as DEL, CHECK, GC and STATUS must.
    pub fn silent(&self) {
        assert!(self.status.success() && self.stdout.is_empty(), "{}", self.describe());
    }

    /// The error object on stdout; panics when the run succeeded or printed something else.
    pub fn error(&self) -> Value {
        assert!(!self.status.success(), "expected a failure: {}", self.describe());
        let error = self.parse_stdout();
        assert!(
            error["code"].is_u64() && error["msg"].is_string(),
            "not an error object: {}",
            self.describe()
        );
        error
    }

    /// The code in the error object; panics as [`Outcome::error`].
    pub fn error_code(&self) -> u64 {
        self.error()["code"].as_u64().expect("checked by error()")
    }

    fn parse_stdout(&self) -> Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|e| panic!("stdout is not one JSON value: {e}: {}", self.describe()))
    }
}

impl Deref for Outcome {
    type Target = Finished;
    fn deref(&self) -> &Finished {
        &self.0
    }
}
