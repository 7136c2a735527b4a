//! `causewayd` on a node, started, asked, stopped and killed.

use std::fs::File;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use causeway_api::{Applied, Apply, Client, Status};
use serde_json::Value;

use crate::run::wait;
use crate::{DEADLINE, Finished, Node, TempDir, bins};

/// A daemon that runs. Its directories are the node's: `run`, `state` and `manifests`, where the
/// next one on this node finds them, too. Killed on drop; the rules stay.
#[derive(Debug)]
pub struct Daemon<'a> {
    node: &'a Node,
    child: Option<Child>,
    arguments: Vec<String>,
    /// Where its log is, and the socket that it tells of its readiness.
    folder: TempDir,
    ready: Option<UnixDatagram>,
}

impl<'a> Daemon<'a> {
    /// Starts it as `node1` and returns when it says `READY=1`: the rules are in the kernel. If
    /// the node's directory has a file `machine-id`, that is its `/etc/machine-id`.
    pub fn start(node: &'a Node) -> Self {
        Self::start_with(node, &[])
    }

    /// The same with more flags; `--node-name` among them gives another name.
    pub fn start_with(node: &'a Node, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let folder = TempDir::new("daemon");
        let mut daemon = Self { node, child: None, arguments, folder, ready: None };
        daemon.again();
        daemon
    }

    /// Runs it to its end, for a start that is to be refused.
    pub fn refused(node: &Node, arguments: &[&str]) -> Finished {
        let arguments: Vec<String> = arguments.iter().map(|&one| one.to_owned()).collect();
        crate::finish(command(node, &[], &arguments), b"")
    }

    /// `causewayd cleanup` on a node.
    pub fn cleanup(node: &Node, arguments: &[&str]) -> Finished {
        let mut command = node.command(bins::ours("causewayd"));
        command.arg("cleanup").arg("--run-dir").arg(node.run_dir());
        command.arg("--state-dir").arg(node.dir().join("state")).args(arguments);
        crate::finish(command, b"")
    }

    /// `causewayd leave` on its node, with its flags. It must not run.
    pub fn leave(&self, more: &[&str]) -> Finished {
        let mut command = command(self.node, &["leave"], &self.arguments);
        command.args(more);
        crate::finish(command, b"")
    }

    /// Starts it once more, after [`Daemon::stop`] or [`Daemon::kill`].
    pub fn again(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let path = self.folder.path().join("notify.sock");
        drop(std::fs::remove_file(&path));
        let ready =
            UnixDatagram::bind(&path).unwrap_or_else(|e| panic!("bind {}: {e}", path.display()));
        ready.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout above zero");
        let log = File::options().create(true).append(true).open(self.log_path());
        let log = log.unwrap_or_else(|e| panic!("open {}: {e}", self.log_path().display()));
        let mut command = command(self.node, &[], &self.arguments);
        command.env("NOTIFY_SOCKET", &path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut child = command.spawn().unwrap_or_else(|e| panic!("start causewayd: {e}"));
        let limit = Instant::now() + DEADLINE;
        let mut buffer = [0; 4096];
        loop {
            if let Ok(length) = ready.recv(&mut buffer)
                && buffer[..length].starts_with(b"READY=1")
            {
                break;
            }
            let ended = child.try_wait().expect("ask for its end");
            assert!(ended.is_none(), "causewayd ended: {ended:?}\n{}", self.log());
            assert!(Instant::now() < limit, "causewayd is not ready\n{}", self.log());
        }
        self.child = Some(child);
        self.ready = Some(ready);
        self.until("it listens", || self.request("GET", "/readyz", b"").is_ok());
    }

    /// Where it runs.
    pub fn node(&self) -> &'a Node {
        self.node
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        let child = self.child.as_ref().expect("it runs");
        i32::try_from(child.id()).expect("a process id is positive")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: takes two numbers; the child has not been waited for.
        let sent = unsafe { libc::kill(self.pid(), signal) };
        assert_eq!(sent, 0, "signal {signal}: {}", std::io::Error::last_os_error());
    }

    /// Ends it by SIGTERM, which it must follow with success.
    pub fn stop(&mut self) {
        self.signal(libc::SIGTERM);
        let child = self.child.take().expect("it runs");
        let ended = wait(child, "causewayd".to_owned());
        assert_eq!(ended.code(), 0, "causewayd stopped\n{}", self.log());
    }

    /// Ends it by SIGKILL.
    pub fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        let child = self.child.take().expect("it runs");
        assert_eq!(wait(child, "causewayd".to_owned()).code(), 128 + libc::SIGKILL);
    }

    /// The socket.
    pub fn socket(&self) -> PathBuf {
        self.node.run_dir().join("causeway.sock")
    }

    /// The watched manifests.
    pub fn manifests(&self) -> PathBuf {
        self.node.dir().join("manifests")
    }

    /// Writes a file of manifests at once, as an editor's rename does.
    pub fn manifest(&self, name: &str, text: &str) {
        let folder = self.manifests();
        let temporary = folder.join(format!("{name}.part"));
        std::fs::create_dir_all(&folder).expect("make the manifest directory");
        std::fs::write(&temporary, text).expect("write a manifest");
        std::fs::rename(&temporary, folder.join(name)).expect("rename a manifest");
    }

    /// A request to its socket.
    ///
    /// # Errors
    /// It does not answer, or refuses.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Result<Vec<u8>, causeway_api::Error> {
        Client::new(&self.socket()).request(method, path, body, DEADLINE)
    }

    /// What it answers to a `GET`; panics if it refuses.
    pub fn get(&self, path: &str) -> Value {
        let answer = self.request("GET", path, b"");
        let answer = answer.unwrap_or_else(|e| panic!("GET {path}: {e}\n{}", self.log()));
        serde_json::from_slice(&answer).unwrap_or_else(|e| panic!("GET {path}: {e}"))
    }

    /// Its status.
    pub fn status(&self) -> Status {
        serde_json::from_value(self.get("/v1/status")).expect("a status")
    }

    /// How often something happened, by its status.
    pub fn count(&self, what: &str) -> u64 {
        let status = self.status();
        let all = status.events.iter().chain(&status.counts);
        let found = all.into_iter().find(|(name, _)| *name == what);
        *found.unwrap_or_else(|| panic!("no count {what}: {status:?}")).1
    }

    /// Applies Kubernetes objects and waits until they are in the kernel; none may be refused.
    pub fn apply(&self, objects: &[Value]) -> Applied {
        let applied = self.try_apply(objects);
        let refused = applied.results.iter().find(|one| one.refusal.is_some());
        assert!(refused.is_none(), "{refused:?}");
        applied
    }

    /// The same with an open outcome for each object.
    pub fn try_apply(&self, objects: &[Value]) -> Applied {
        let body = Apply { objects: objects.to_vec(), wait: true, ..Apply::default() };
        let body = serde_json::to_vec(&body).expect("JSON");
        let answer = self.request("POST", "/v1/apply", &body);
        let answer = answer.unwrap_or_else(|e| panic!("apply: {e:?}\n{}", self.log()));
        serde_json::from_slice(&answer).expect("what was applied")
    }

    /// Runs the command line `causeway` on the node.
    pub fn causeway(&self, arguments: &[&str]) -> Finished {
        let mut command = self.node.command(bins::ours("causeway"));
        command.arg("--socket").arg(self.socket()).args(arguments);
        crate::finish(command, b"")
    }

    /// Waits until something holds; panics with the daemon's log when it does not within
    /// [`DEADLINE`].
    pub fn until(&self, what: &str, holds: impl Fn() -> bool) -> Duration {
        let started = Instant::now();
        while !holds() {
            assert!(started.elapsed() < DEADLINE, "{what}: not so\n{}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
        started.elapsed()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It has not been waited for, so the number is its.
            drop(child.kill());
            drop(child.wait());
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// A minimal machine has no such file, and `/etc` is the host's.
const WITH_MACHINE_ID: &str = "
if [ ! -e /etc/machine-id ]; then
    cp -a /etc \"$0.etc\"
    mount --bind \"$0.etc\" /etc
    : >/etc/machine-id
fi
mount --bind \"$0\" /etc/machine-id
exec \"$@\"";

fn command(node: &Node, words: &[&str], arguments: &[String]) -> std::process::Command {
    let program = bins::ours("causewayd");
    let machine_id = node.dir().join("machine-id");
    let mut command = match machine_id.exists() {
        false => node.command(program),
        // Each step is the same process, so that its id is the daemon's.
        true => {
            let mut command = node.command("unshare");
            command.args(["--mount", "--propagation", "slave", "sh", "-euc"]);
            command.arg(WITH_MACHINE_ID);
            command.arg(machine_id).arg(program);
            command
        }
    };
    command.args(words);
    if !arguments.iter().any(|one| one == "--node-name") {
        command.args(["--node-name", "node1"]);
    }
    command.args(["--containerd-socket", ""]);
    command.arg("--run-dir").arg(node.run_dir());
    command.arg("--state-dir").arg(node.dir().join("state"));
    command.arg("--manifest-dir").arg(node.dir().join("manifests"));
    command.args(arguments);
    command
}
