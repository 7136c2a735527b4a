//! A real etcd on the lab's switch: started, killed, paused, cut off, compacted, wiped, restored.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use causeway_source::etcd::{Client, Options, RequestOp, TxnRequest};

use crate::run::wait;
use crate::{DEADLINE, Finished, Lab, Ns, TempDir, finish};

/// One etcd in a namespace of its own, at 172.18.0.200 and fd00:172:18::200, by the switch port
/// [`Etcd::PORT`]. Killed on drop, with its data.
#[derive(Debug)]
pub struct Etcd {
    ns: Ns,
    folder: TempDir,
    child: Option<Child>,
    tls: bool,
}

impl Etcd {
    /// Its IPv4 address.
    pub const ADDRESS: &str = "172.18.0.200";
    /// Its IPv6 address.
    pub const ADDRESS6: &str = "fd00:172:18::200";
    /// Its port of the switch.
    pub const PORT: &str = "etcd0";

    /// Plugs it into the lab and returns when it answers.
    pub fn start(lab: &Lab) -> Self {
        Self::with(lab, false)
    }

    /// The same behind TLS: it asks every client for a certificate of its authority.
    pub fn start_tls(lab: &Lab) -> Self {
        Self::with(lab, true)
    }

    fn with(lab: &Lab, tls: bool) -> Self {
        let ns = Ns::new("etcd");
        lab.plug(&ns, Self::PORT, "200");
        let mut etcd = Self { ns, folder: TempDir::new("etcd"), child: None, tls };
        if tls {
            etcd.make_certificates();
        }
        etcd.again();
        etcd
    }

    /// `http://172.18.0.200:2379`, or `https`.
    pub fn url(&self) -> String {
        format!("{}://{}:2379", self.scheme(), Self::ADDRESS)
    }

    /// The same by its IPv6 address.
    pub fn url6(&self) -> String {
        format!("{}://[{}]:2379", self.scheme(), Self::ADDRESS6)
    }

    /// Its namespace.
    pub fn ns(&self) -> &Ns {
        &self.ns
    }

    /// A file of its authority: `ca.pem`, `client.pem`, `client-key.pem`; with
    /// [`Etcd::start_tls`] only.
    pub fn certificate(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts it once more after [`Etcd::kill`] and returns when it answers.
    pub fn again(&mut self) {
        self.start_only();
        let limit = Instant::now() + DEADLINE;
        loop {
            let health = self.ctl(&["endpoint", "health"]);
            if health.status.success() {
                return;
            }
            let ended = self.child.as_mut().expect("started").try_wait().expect("ask for its end");
            assert!(ended.is_none(), "etcd ended: {ended:?}\n{}", self.log());
            assert!(Instant::now() < limit, "{}\n{}", health.describe(), self.log());
        }
    }

    fn start_only(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let log = File::options().create(true).append(true).open(self.log_path());
        let log = log.unwrap_or_else(|e| panic!("open {}: {e}", self.log_path().display()));
        let scheme = self.scheme();
        let mut command = self.ns.command("/usr/bin/etcd");
        command.args(["--name", "lab", "--logger", "zap", "--log-level", "warn"]);
        command.args(["--listen-client-urls", &format!("{scheme}://[::]:2379")]);
        command.args(["--advertise-client-urls", &self.url()]);
        command.args(["--listen-peer-urls", PEER, "--initial-advertise-peer-urls", PEER]);
        command.args(["--initial-cluster", &format!("lab={PEER}")]);
        command.arg("--data-dir").arg(self.data());
        if self.tls {
            command.arg("--client-cert-auth");
            command.arg("--trusted-ca-file").arg(self.certificate("ca.pem"));
            command.arg("--cert-file").arg(self.certificate("server.pem"));
            command.arg("--key-file").arg(self.certificate("server-key.pem"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap_or_else(|e| panic!("start etcd: {e}")));
    }

    /// Ends it by SIGKILL; its data stays.
    pub fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        let child = self.child.take().expect("it runs");
        assert_eq!(wait(child, "etcd".to_owned()).code(), 128 + libc::SIGKILL);
    }

    /// Stops its clock: nothing is answered, connections stay open.
    pub fn pause(&self) {
        self.signal(libc::SIGSTOP);
    }

    /// Goes on after [`Etcd::pause`].
    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Forgets everything, as an administrator who deletes the data directory does.
    pub fn wipe(&mut self) {
        self.kill();
        std::fs::remove_dir_all(self.data()).expect("remove etcd's data");
        self.again();
    }

    /// Drops all history up to now: a watch from an older revision is told `compacted`.
    pub fn compact(&self) {
        let revision = self.revision().to_string();
        self.ctl(&["compact", &revision]).ok();
    }

    /// The newest revision.
    pub fn revision(&self) -> i64 {
        let text = self.ctl(&["endpoint", "status", "-w", "json"]).ok();
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON of etcdctl");
        value[0]["Status"]["header"]["revision"].as_i64().expect("a revision")
    }

    /// Saves everything to a file and returns it, for [`Etcd::restore`].
    pub fn snapshot(&self) -> PathBuf {
        let file = self.folder.path().join("backup");
        drop(std::fs::remove_file(&file));
        self.ctl(&["snapshot", "save", &file.display().to_string()]).ok();
        file
    }

    /// Goes back to a snapshot: newer writes are lost, revisions run backwards.
    pub fn restore(&mut self, snapshot: &Path) {
        self.kill();
        std::fs::remove_dir_all(self.data()).expect("remove etcd's data");
        let (file, data) = (snapshot.display().to_string(), self.data().display().to_string());
        let cluster = format!("lab={PEER}");
        let mut arguments = vec!["snapshot", "restore", &file, "--data-dir", &data];
        arguments.extend(["--name", "lab", "--initial-cluster", &cluster]);
        arguments.extend(["--initial-advertise-peer-urls", PEER]);
        self.ctl(&arguments).ok();
        self.again();
    }

    /// The keys below a prefix.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let text = self.ctl(&["get", "--prefix", "--keys-only", prefix]).ok();
        text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    /// The value of a key, or nothing.
    pub fn get(&self, key: &str) -> Option<String> {
        let text = self.ctl(&["get", "--print-value-only", key]).ok();
        let text = text.trim_end_matches('\n');
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// Writes a value of any size, as whoever reaches it can.
    pub fn put(&self, key: &str, value: &[u8]) {
        self.write(&[(key.to_owned(), Some(value.to_vec()))]);
    }

    /// Writes keys, or deletes them (`None`), each by itself.
    pub fn write(&self, changes: &[(String, Option<Vec<u8>>)]) {
        let op = |(key, value): &(String, Option<Vec<u8>>)| match value {
            Some(value) => RequestOp::put(key.as_str(), value.as_slice(), 0),
            None => RequestOp::delete(key.as_str()),
        };
        let url = self.url();
        self.ns.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let client = Client::connect(&url, Options::default()).await.expect("a client");
                for change in changes {
                    let txn = TxnRequest::new().and_then([op(change)]);
                    let written = client.txn(txn).await;
                    written.unwrap_or_else(|e| panic!("write {}: {e}", change.0));
                }
            });
        });
    }

    /// Runs `etcdctl` beside it.
    pub fn ctl(&self, arguments: &[&str]) -> Finished {
        let mut command = self.ns.command("/usr/bin/etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.url()]);
        command.args(["--dial-timeout", "5s", "--command-timeout", "10s"]);
        if self.tls {
            command.arg("--cacert").arg(self.certificate("ca.pem"));
            command.arg("--cert").arg(self.certificate("client.pem"));
            command.arg("--key").arg(self.certificate("client-key.pem"));
        }
        command.args(arguments);
        finish(command, b"")
    }

    /// Waits until something holds of it.
    pub fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) -> Duration {
        let started = Instant::now();
        while !holds(self) {
            let keys = || self.keys("").join("\n");
            assert!(started.elapsed() < DEADLINE, "{what}: not so\n{}", keys());
        }
        started.elapsed()
    }

    fn signal(&self, signal: i32) {
        let child = self.child.as_ref().expect("it runs");
        let pid = i32::try_from(child.id()).expect("a process id is positive");
        // SAFETY: takes two numbers; the child has not been waited for.
        let sent = unsafe { libc::kill(pid, signal) };
        assert_eq!(sent, 0, "signal {signal}: {}", std::io::Error::last_os_error());
    }

    /// An authority, a certificate of the server and one of the clients.
    fn make_certificates(&self) {
        let ask = "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        self.openssl(&format!("{ask} -x509 -days 2 -subj /CN=lab -keyout ca-key.pem -out ca.pem"));
        self.openssl(&format!("{ask} -subj /CN=etcd -keyout server-key.pem -out server.csr"));
        self.openssl(&format!("{ask} -subj /CN=causeway -keyout client-key.pem -out client.csr"));
        let names = format!("subjectAltName=IP:{},IP:{}\n", Self::ADDRESS, Self::ADDRESS6);
        std::fs::write(self.certificate("names"), names).expect("write the server's names");
        let sign = "x509 -req -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2";
        self.openssl(&format!("{sign} -in server.csr -out server.pem -extfile names"));
        // Certificates of version 1, which have no extensions, are refused by many.
        std::fs::write(self.certificate("use"), "extendedKeyUsage=clientAuth\n")
            .expect("write the client's use");
        self.openssl(&format!("{sign} -in client.csr -out client.pem -extfile use"));
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("/usr/bin/openssl");
        command.current_dir(self.folder.path()).args(arguments.split(' '));
        finish(command, b"").ok();
    }

    fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It has not been waited for, so the number is its.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Where it would speak to its like; there are none.
const PEER: &str = "http://127.0.0.1:2380";
