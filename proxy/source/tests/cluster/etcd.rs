//! A real etcd on the loopback of the namespace that the test binary runs in.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

/// So long anything may take before the test fails.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// The etcd of Debian 12, and the newest that `make deps` builds.
pub(crate) const VERSIONS: [&str; 2] = ["etcd", "etcd36"];

/// Killed on drop, with its data.
pub(crate) struct Etcd {
    /// One of [`VERSIONS`].
    version: &'static str,
    pub(crate) folder: TempDir,
    pub(crate) client: u16,
    peer: u16,
    child: Option<Child>,
    pub(crate) tls: bool,
    /// User and password of `etcdctl`.
    pub(crate) user: Option<(String, String)>,
    more: Vec<String>,
}

impl Etcd {
    /// Returns when it answers.
    pub(crate) fn start() -> Self {
        Self::with(false, &[])
    }

    /// Behind TLS if asked; with more arguments.
    pub(crate) fn with(tls: bool, more: &[&str]) -> Self {
        Self::of(VERSIONS[0], tls, more)
    }

    /// The same of one of [`VERSIONS`].
    pub(crate) fn of(version: &'static str, tls: bool, more: &[&str]) -> Self {
        let mut etcd = Self::new(version, tls, more);
        if tls {
            etcd.make_certificates();
        }
        etcd.again();
        etcd
    }

    /// Of one of [`VERSIONS`], with tokens that it signs and does not remember.
    pub(crate) fn with_signed_tokens(version: &'static str) -> Self {
        let mut etcd = Self::new(version, false, &[]);
        etcd.openssl("genrsa -out token.key 2048");
        etcd.openssl("rsa -in token.key -pubout -out token.pub");
        let (key, public) = (etcd.file("token.key"), etcd.file("token.pub"));
        let (key, public) = (key.display(), public.display());
        let token = format!("jwt,pub-key={public},priv-key={key},sign-method=RS256,ttl=10m");
        etcd.more = vec!["--auth-token".into(), token];
        etcd.again();
        etcd
    }

    fn new(version: &'static str, tls: bool, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let more = more.iter().map(ToString::to_string).collect();
        let (client, peer) = (free_port(), free_port());
        Self { version, folder, client, peer, child: None, tls, user: None, more }
    }

    /// Asks for users from now on: `root`, and `cw` with the password `word` and these rights, as
    /// `etcdctl role grant-permission` takes them.
    pub(crate) fn ask_for_users(&mut self, rights: &[&str]) {
        self.lines(&["user add root:secret", "role add causeway"]);
        for right in rights {
            self.grant(right);
        }
        self.lines(&[
            "user add cw:word",
            "user grant-role cw causeway",
            "user grant-role root root",
            "auth enable",
        ]);
        self.user = Some(("root".into(), "secret".into()));
    }

    /// Gives the user `cw` one more right.
    pub(crate) fn grant(&self, right: &str) {
        self.lines(&[&format!("role grant-permission causeway {right}")]);
    }

    fn lines(&self, lines: &[&str]) {
        for line in lines {
            self.ctl(&line.split_whitespace().collect::<Vec<_>>());
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme(), self.client)
    }

    fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts it once more and returns when it answers.
    pub(crate) fn again(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let log = self.folder.path().join("log");
        let log = File::options().create(true).append(true).open(log).expect("open the log");
        let peer = format!("http://127.0.0.1:{}", self.peer);
        let mut command = program(self.version);
        command.args(["--name", "test", "--logger", "zap", "--log-level", "warn"]);
        command.args(["--listen-client-urls", &self.url(), "--advertise-client-urls", &self.url()]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("test={peer}")]);
        command.arg("--data-dir").arg(self.data()).args(&self.more);
        if self.tls {
            command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(self.file("ca.pem"));
            command.arg("--cert-file").arg(self.file("server.pem"));
            command.arg("--key-file").arg(self.file("server-key.pem"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().expect("start etcd, which tests/deps.sh installs"));
        let limit = Instant::now() + LIMIT;
        loop {
            let health = self.try_ctl(&["endpoint", "health"]);
            if health.status.success() {
                return;
            }
            let text = String::from_utf8_lossy(&health.stderr).into_owned();
            assert!(Instant::now() < limit, "{text}\n{}", self.log());
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    /// Ends it by SIGKILL; its data stays.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("kill");
        child.wait().expect("wait");
    }

    pub(crate) fn pause(&self) {
        self.signal(libc::SIGSTOP);
    }

    pub(crate) fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    fn signal(&self, signal: libc::c_int) {
        let pid = self.child.as_ref().expect("it runs").id().cast_signed();
        // SAFETY: kill takes no memory; the child is ours and not waited for yet.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    pub(crate) fn wipe(&mut self) {
        self.kill();
        std::fs::remove_dir_all(self.data()).expect("remove the data");
        self.again();
    }

    /// Drops all history.
    pub(crate) fn compact(&self) {
        let revision = self.revision().to_string();
        self.ctl(&["compact", &revision]);
    }

    pub(crate) fn revision(&self) -> i64 {
        let text = self.ctl(&["endpoint", "status", "-w", "json"]);
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        value[0]["Status"]["header"]["revision"].as_i64().expect("a revision")
    }

    pub(crate) fn snapshot(&self) -> PathBuf {
        let file = self.file("backup");
        self.ctl(&["snapshot", "save", &file.display().to_string()]);
        file
    }

    /// Newer writes are lost, the revision goes back.
    pub(crate) fn restore(&mut self, snapshot: &Path) {
        self.kill();
        std::fs::remove_dir_all(self.data()).expect("remove the data");
        let (file, data) = (snapshot.display().to_string(), self.data().display().to_string());
        let peer = format!("http://127.0.0.1:{}", self.peer);
        let cluster = format!("test={peer}");
        let mut arguments = vec!["snapshot", "restore", &file, "--data-dir", &data];
        arguments.extend(["--name", "test", "--initial-cluster", &cluster]);
        arguments.extend(["--initial-advertise-peer-urls", &peer]);
        self.ctl(&arguments);
        self.again();
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &str) -> String {
        self.ctl(&["get", "--print-value-only", key]).trim_end().to_owned()
    }

    pub(crate) fn keys(&self, prefix: &str) -> Vec<String> {
        let text = self.ctl(&["get", "--prefix", "--keys-only", prefix]);
        text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    /// What `etcdctl` prints.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> String {
        let output = self.try_ctl(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "etcdctl {arguments:?}: {error}");
        String::from_utf8(output.stdout).expect("text")
    }

    pub(crate) fn try_ctl(&self, arguments: &[&str]) -> Output {
        let mut command = program("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.url()]);
        command.args(["--dial-timeout", "2s", "--command-timeout", "5s"]);
        if self.tls {
            command.arg("--cacert").arg(self.file("ca.pem"));
            command.arg("--cert").arg(self.file("client.pem"));
            command.arg("--key").arg(self.file("client-key.pem"));
        }
        if let Some((user, password)) = &self.user {
            command.args(["--user", &format!("{user}:{password}")]);
        }
        command.args(arguments).output().expect("run etcdctl, which tests/deps.sh installs")
    }

    /// Polls until it holds.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let limit = Instant::now() + LIMIT;
        while !holds(self) {
            assert!(Instant::now() < limit, "{what}: not so\n{}", self.keys("").join("\n"));
            // The tasks run on this thread.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn make_certificates(&self) {
        self.openssl(
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca-key.pem \
                      -out ca.pem",
        );
        for name in ["server", "client"] {
            self.openssl(&format!(
                "req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}-key.pem -out {name}.csr"
            ));
            let extensions = self.file("extensions");
            std::fs::write(&extensions, "subjectAltName=IP:127.0.0.1,DNS:localhost\n")
                .expect("write extensions");
            self.openssl(&format!(
                "x509 -req -days 2 -CA ca.pem -CAkey ca-key.pem -CAcreateserial -in {name}.csr \
                 -out {name}.pem -extfile extensions"
            ));
        }
    }

    fn openssl(&self, line: &str) {
        let mut command = program("openssl");
        command.args(line.split_whitespace()).current_dir(self.folder.path());
        let output = command.output().expect("run openssl");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {line}: {error}");
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// A program of the system or, if `make deps` has built one of this name, that.
#[expect(clippy::disallowed_methods, reason = "a test starts real programs")]
fn program(name: &str) -> Command {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/bin").join(name);
    if built.exists() { Command::new(built) } else { Command::new(name) }
}

/// A port that nobody has, in this namespace that is ours.
fn free_port() -> u16 {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    TcpListener::bind(any).and_then(|one| one.local_addr()).expect("a port").port()
}
