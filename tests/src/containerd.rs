//! A machine that runs containerd, with `ctr` and `nerdctl` as its users.

mod cri;
mod images;
mod podman;

pub use cri::Cri;
pub use podman::Podman;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::run::{DEADLINE, Finished, wait};
use crate::{Node, TempDir, bins, unique};

/// Upstream's plugins, and which of ours does the same.
const REPLACED: [(&str, &str); 3] = [
    ("bridge", "causeway-bridge"),
    ("host-local", "causeway-ipam"),
    ("portmap", "causeway-service"),
];

/// containerd in the network namespace of a [`Node`], with `/etc/cni`, `/opt/cni/bin`, `/run/causeway`,
/// `/var/lib`, processes and cgroups of its own. Default paths are meant everywhere: `/opt/cni/bin`
/// holds our plugins and upstream's. Everything ends on drop.
#[derive(Debug)]
pub struct Machine<'a> {
    node: &'a Node,
    /// Namespace of containerd: `nerdctl` puts it into container ids.
    namespace: String,
    /// Process 1 of the machine, as the test sees it.
    pid: u32,
    /// Its mount and process namespaces.
    namespaces: [Arc<File>; 2],
    host: Option<Child>,
    /// Closed to end the host.
    control: Mutex<(Option<ChildStdin>, BufReader<ChildStdout>)>,
    notify: UnixDatagram,
    folder: TempDir,
}

/// A container that runs in the foreground of a client; killed on drop.
#[derive(Debug)]
pub struct Foreground<'m> {
    /// A machine ends when all processes on it were waited for.
    machine: PhantomData<&'m ()>,
    child: Child,
    shown: String,
    /// Open until the end, so that the client can always write.
    output: BufReader<ChildStdout>,
}

/// `causewayd` on a machine; killed on drop.
#[derive(Debug)]
pub struct Causewayd<'m> {
    /// A machine ends when all processes on it were waited for.
    machine: PhantomData<&'m ()>,
    child: Child,
    shown: String,
    log: PathBuf,
}

impl Causewayd<'_> {
    /// What it and those before it on this machine have logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Causewayd<'_> {
    fn drop(&mut self) {
        // It has not been waited for, so the number is its.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

impl<'a> Machine<'a> {
    /// The image every machine holds: `causeway-testserver`, answering on ports 80 and 8080.
    pub const IMAGE: &'static str = "docker.io/library/cwtest:latest";

    /// Starts containerd and loads [`Machine::IMAGE`].
    ///
    /// # Panics
    /// When containerd does not come up, and if the test runs without real root: containerd
    /// cannot make containers inside a user namespace that knows one user only.
    pub fn start(node: &'a Node) -> Self {
        Self::start_host(node, "")
    }

    /// The same with Kubernetes' runtime service (CRI), whose sandboxes run `sandbox`; empty for none.
    fn start_host(node: &'a Node, sandbox: &str) -> Self {
        assert_real_root();
        let folder = TempDir::new("containerd");
        let namespace = format!("cw{}-{}", std::process::id(), unique());
        let notify = notify_socket(node, &namespace);
        let mut command = node.command(bins::workspace().join("tests/containerd-host"));
        command.arg(&namespace).arg(folder.path().join("log")).arg(sandbox);
        command.env("NOTIFY_SOCKET", format!("@{namespace}")).env("HOME", "/root");
        let mut host = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("start tests/containerd-host: {e}"));
        let stdin = host.stdin.take().expect("a pipe");
        let mut stdout = BufReader::new(host.stdout.take().expect("a pipe"));
        let ready = answer(&mut stdout, "ready", folder.path());
        let pid = ready.parse().unwrap_or_else(|e| panic!("process id {ready:?}: {e}"));
        let control = Mutex::new((Some(stdin), stdout));
        let namespaces = ["mnt", "pid"].map(|kind| {
            let path = format!("/proc/{pid}/ns/{kind}");
            Arc::new(File::open(&path).unwrap_or_else(|e| panic!("open {path}: {e}")))
        });
        let host = Some(host);
        let machine = Self { node, namespace, pid, namespaces, host, control, notify, folder };
        machine.install_plugins();
        machine.start_containerd();
        machine.load_image();
        machine
    }

    /// The network namespace of this machine.
    pub fn node(&self) -> &Node {
        self.node
    }

    /// The namespace of containerd that this machine uses.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Runs a program on this machine to its end.
    pub fn finish(&self, program: impl AsRef<OsStr>, arguments: &[&str]) -> Finished {
        let (child, shown) = self.spawn(program.as_ref(), arguments);
        wait(child, shown)
    }

    /// Runs a shell script on this machine and returns its stdout; panics when it fails.
    pub fn sh(&self, script: &str) -> String {
        self.finish("/bin/sh", &["-euc", script]).ok()
    }

    /// Runs `ctr` in the namespace of this machine.
    pub fn ctr(&self, arguments: &[&str]) -> Finished {
        self.finish("ctr", &[&["--namespace", &self.namespace], arguments].concat())
    }

    /// Runs `nerdctl` in the namespace of this machine.
    pub fn nerdctl(&self, arguments: &[&str]) -> Finished {
        self.finish(bins::tool("nerdctl"), &[&self.nerdctl_options()[..], arguments].concat())
    }

    /// `nerdctl run -d --name NAME OPTIONS.. IMAGE`, back when the server in it listens.
    pub fn run(&self, name: &str, options: &[&str]) {
        let started = self.try_run(name, options);
        assert!(started.status.success(), "{}\n{}", started.describe(), self.log());
        self.await_server(name);
    }

    /// As [`Machine::run`], without an opinion about failure, back when the container was started.
    pub fn try_run(&self, name: &str, options: &[&str]) -> Finished {
        self.try_run_image(name, options, Self::IMAGE)
    }

    /// As [`Machine::run`], of another image.
    pub fn run_image(&self, name: &str, options: &[&str], image: &str) {
        let started = self.try_run_image(name, options, image);
        assert!(started.status.success(), "{}\n{}", started.describe(), self.log());
        self.await_server(name);
    }

    fn try_run_image(&self, name: &str, options: &[&str], image: &str) -> Finished {
        self.nerdctl(&[&["run", "-d", "--name", name], options, &[image]].concat())
    }

    /// Follows the log of a nerdctl container until its server says that it listens. For a container
    /// that runs for the first time: the log keeps what the server said in earlier runs.
    pub fn await_server(&self, name: &str) {
        self.follow(name);
    }

    /// `nerdctl start NAME`, back when the server in it listens.
    pub fn start_again(&self, name: &str) {
        self.again("start", name);
    }

    /// `nerdctl restart NAME`, back when the server in it listens.
    pub fn restart(&self, name: &str) {
        self.again("restart", name);
    }

    fn again(&self, verb: &str, name: &str) {
        // A container whose start was refused has no log.
        let said = self.nerdctl(&["logs", name]).stdout;
        let earlier = said.split(|&byte| byte == b'\n').filter(|line| *line == b"ready").count();
        self.nerdctl(&[verb, name]).ok();
        let mut log = self.follow(name);
        for _ in 0..earlier {
            let line = line_of(&mut log.output, &log.shown);
            assert_eq!(line, "ready", "{} after {verb}\n{}", log.shown, self.log());
        }
    }

    /// `nerdctl rm -f NAMES..`
    pub fn remove(&self, names: &[&str]) {
        self.try_remove(names).unwrap_or_else(|error| panic!("{error}\n{}", self.log()));
    }

    /// As [`Machine::remove`], or with what the client said.
    ///
    /// `rm -f` ends with 0 after an error, too, and leaves the container as it was (nerdctl 2.0.3,
    /// pkg/cmd/container/remove.go), so its stderr counts.
    pub fn try_remove(&self, names: &[&str]) -> Result<(), String> {
        let finished = self.nerdctl(&[&["rm", "-f"], names].concat());
        let failed = String::from_utf8_lossy(&finished.stderr).contains("level=error");
        if finished.status.success() && !failed { Ok(()) } else { Err(finished.describe()) }
    }

    /// `nerdctl logs -f NAME`, which has said that the server listened once.
    fn follow(&self, name: &str) -> Foreground<'_> {
        let arguments = [&self.nerdctl_options()[..], &["logs", "-f", name]].concat();
        self.foreground(bins::tool("nerdctl").as_os_str(), &arguments)
    }

    /// `ctr run --cni` of [`Machine::IMAGE`], back when the server in it listens.
    pub fn ctr_run(&self, id: &str) -> Foreground<'_> {
        let namespace = ["--namespace", &self.namespace];
        let run = ["run", "--rm", "--cni", Self::IMAGE, id];
        self.foreground("ctr".as_ref(), &[&namespace[..], &run].concat())
    }

    /// `ctr run --cni --label LABEL..` of [`Machine::IMAGE`], back when the server in it listens.
    pub fn ctr_run_labelled(&self, id: &str, labels: &[&str]) -> Foreground<'_> {
        self.ctr_run_image(id, labels, Self::IMAGE)
    }

    /// The same of another image.
    pub fn ctr_run_image(&self, id: &str, labels: &[&str], image: &str) -> Foreground<'_> {
        let namespace = ["--namespace", &self.namespace];
        let labels = labels.iter().flat_map(|label| ["--label", label]);
        let mut run = vec!["run", "--rm", "--cni"];
        run.extend(labels);
        run.extend([image, id]);
        self.foreground("ctr".as_ref(), &[&namespace[..], &run].concat())
    }

    /// Starts `causewayd` with every path at its default; back when it says that it is ready.
    /// Killed with the machine.
    pub fn causewayd(&self, arguments: &[&str]) -> Causewayd<'_> {
        let program = bins::ours("causewayd");
        let mut command = self.command(program.as_os_str(), arguments);
        command.env("NOTIFY_SOCKET", format!("@{}", self.namespace));
        let path = self.folder.path().join("causewayd.log");
        let log = File::options().create(true).append(true).open(&path);
        let log = log.unwrap_or_else(|e| panic!("open {}: {e}", path.display()));
        command.stdout(Stdio::null()).stderr(log);
        let (child, shown) = self.launch(command);
        let daemon = Causewayd { machine: PhantomData, child, shown, log: path };
        let mut buffer = [0; 4096];
        let got = self.notify.recv(&mut buffer);
        let got = got.unwrap_or_else(|e| panic!("{} is not ready: {e}", daemon.shown));
        assert!(buffer[..got].starts_with(b"READY=1"), "{:?}", &buffer[..got]);
        daemon
    }

    /// Runs the command line `causeway`.
    pub fn causeway(&self, arguments: &[&str]) -> Finished {
        self.finish(bins::ours("causeway"), arguments)
    }

    /// What `nerdctl inspect` says of a container.
    pub fn inspect(&self, name: &str) -> Value {
        let text = self.nerdctl(&["inspect", name]).ok();
        let mut all: Value = serde_json::from_str(&text).expect("JSON of nerdctl inspect");
        all[0].take()
    }

    /// The address of a nerdctl container in its first network.
    pub fn address(&self, name: &str) -> String {
        let inspected = self.inspect(name);
        let ip = inspected["NetworkSettings"]["IPAddress"].as_str();
        ip.unwrap_or_else(|| panic!("{name} has no address: {inspected}")).to_owned()
    }

    /// A file or directory of this machine as the test sees it.
    pub fn path(&self, path: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.pid)).join(path.trim_start_matches('/'))
    }

    /// Puts a conflist into `/etc/cni/net.d`.
    pub fn network(&self, list: &Value) {
        let name = list["name"].as_str().expect("a network has a name");
        let path = self.path("/etc/cni/net.d").join(format!("50-{name}.conflist"));
        std::fs::write(&path, list.to_string())
            .unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
    }

    /// Copies a file of the project's directory `conf` into `/etc/cni/net.d`, as the README says.
    pub fn shipped_network(&self, file: &str) {
        let from = bins::workspace().join("conf").join(file);
        let to = self.path("/etc/cni/net.d").join(file);
        std::fs::copy(&from, &to).unwrap_or_else(|e| {
            panic!("copy {} to {}: {e}", from.display(), to.display());
        });
    }

    /// What attachments have left: links beside `eth0` and bridges, rules and chains of their own,
    /// leases, records and cached results. Empty on a machine without containers.
    pub fn residue(&self) -> Vec<String> {
        let links = self.node.links().into_iter().filter(|link| {
            let name = &link["ifname"];
            name != "lo" && name != "eth0" && link["linkinfo"]["info_kind"] != "bridge"
        });
        let mut residue: Vec<String> = links.map(|link| link["ifname"].to_string()).collect();
        let mut note = |text: &str| residue.extend(text.lines().map(str::to_owned));
        note(&self.node.sh("nft list tables | grep causeway || true"));
        note(&self.sh("
            find /run/causeway /var/lib/cni/networks /var/lib/cni/results -type f \
              ! -name '*lock' 2>/dev/null || true
            iptables-save | grep -E '^(-A.* -[sd] 10\\.|:CNI-(DN-)?[0-9a-f])' || true
        "));
        residue.extend(self.leases().iter().map(Value::to_string));
        residue
    }

    /// The leases of `causeway-ipam`, as it shows them.
    pub fn leases(&self) -> Vec<Value> {
        let folder = "/var/lib/cni/causeway";
        if !self.path(folder).exists() {
            return Vec::new();
        }
        let show = ["show", "--data-dir", folder];
        let text = self.finish(bins::ours("causeway-ipam"), &show).ok();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("causeway-ipam show: {e}: {text}"))
    }

    /// Kills containerd as a crash would; its containers go on.
    pub fn kill_containerd(&self) {
        self.tell("kill", "killed");
    }

    /// Starts containerd and returns when it says that it is ready.
    pub fn start_containerd(&self) {
        self.tell("start", "started");
        let mut buffer = [0; 4096];
        loop {
            let got = self.notify.recv(&mut buffer);
            let got = got.unwrap_or_else(|e| panic!("containerd not ready: {e}\n{}", self.log()));
            if buffer[..got].starts_with(b"READY=1") {
                return;
            }
        }
    }

    /// The last lines of what containerd wrote.
    pub fn log(&self) -> String {
        tail(self.folder.path())
    }

    fn tell(&self, word: &str, wanted: &str) {
        let mut control = self.control.lock().expect("no panic under the lock");
        let stdin = control.0.as_mut().expect("open until drop");
        writeln!(stdin, "{word}").unwrap_or_else(|e| panic!("tell the host {word}: {e}"));
        answer(&mut control.1, wanted, self.folder.path());
    }

    fn nerdctl_options(&self) -> [&str; 6] {
        let cgroups = ["--cgroup-manager", "cgroupfs"];
        let [[a, b], [c, d]] = [["--namespace", &self.namespace], ["--cni-path", "/opt/cni/bin"]];
        [a, b, c, d, cgroups[0], cgroups[1]]
    }

    /// Starts a program on this machine as a child of the test, with pipes for its output.
    ///
    /// A program in between, such as `nsenter`, would leave a child behind when it is killed.
    fn spawn(&self, program: &OsStr, arguments: &[&str]) -> (Child, String) {
        let mut command = self.command(program, arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        self.launch(command)
    }

    fn command(&self, program: &OsStr, arguments: &[&str]) -> Command {
        let mut command = self.node.command(program);
        command.args(arguments).env("HOME", "/root").stdin(Stdio::null());
        command
    }

    /// Starts a command inside the machine's mount and process namespaces.
    fn launch(&self, mut command: Command) -> (Child, String) {
        let shown = format!("{command:?}");
        let [mounts, processes] = self.namespaces.clone();
        // SAFETY: between fork and exec only setns is called, which is async-signal-safe.
        unsafe { command.pre_exec(move || set_ns(&mounts, libc::CLONE_NEWNS)) };
        // The process namespace holds for the children of a thread, which can then start no other.
        let started = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                set_ns(&processes, libc::CLONE_NEWPID)?;
                command.spawn()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        (started.unwrap_or_else(|e| panic!("start {shown}: {e}")), shown)
    }

    fn foreground(&self, program: &OsStr, arguments: &[&str]) -> Foreground<'_> {
        let (mut child, shown) = self.spawn(program, arguments);
        let mut stderr = child.stderr.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut client = Foreground { child, shown, output, machine: PhantomData };
        let line = line_of(&mut client.output, &client.shown);
        if line != "ready" {
            let shown = client.shown.clone();
            drop(client);
            let mut text = String::new();
            let read = stderr.read_to_string(&mut text);
            panic!("{shown}: {line:?}, {read:?}: {text}\n{}", self.log());
        }
        client
    }

    /// A plugin is known by the name of its file, which may be a link.
    fn install_plugins(&self) {
        let target = self.path("/opt/cni/bin");
        let upstream = std::fs::read_dir(bins::UPSTREAM)
            .unwrap_or_else(|e| panic!("{}: {e}; run: make deps", bins::UPSTREAM));
        let upstream = upstream.map(|entry| entry.expect("a folder entry").path());
        let ours = ["causeway-bridge", "causeway-ipam", "causeway-service"].map(bins::ours);
        for plugin in upstream.chain(ours) {
            link(&plugin, &target.join(plugin.file_name().expect("a file")));
        }
    }

    /// Puts our plugins under the names of upstream's, as an administrator can to replace them.
    pub fn replace_upstream(&self) {
        let folder = self.path("/opt/cni/bin");
        for (name, plugin) in REPLACED {
            let path = folder.join(name);
            std::fs::remove_file(&path)
                .unwrap_or_else(|e| panic!("remove {}: {e}", path.display()));
            link(&bins::ours(plugin), &path);
        }
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        if let Ok(control) = self.control.get_mut() {
            drop(control.0.take());
        }
        if let Some(host) = self.host.take() {
            drop(wait(host, "tests/containerd-host".to_owned()));
        }
    }
}

impl Foreground<'_> {
    /// Waits until the client ends by itself.
    pub fn wait(mut self) {
        let rest = line_of(&mut self.output, &self.shown);
        assert_eq!(rest, "", "{}", self.shown);
        let status = self.child.wait().unwrap_or_else(|e| panic!("wait for {}: {e}", self.shown));
        assert!(status.success(), "{}: {status}", self.shown);
    }
}

impl Drop for Foreground<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill() {
            eprintln!("kill {}: {error}", self.shown);
        }
        if let Err(error) = self.child.wait() {
            eprintln!("wait for {}: {error}", self.shown);
        }
    }
}

fn set_ns(file: &File, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open for the length of the call.
    match unsafe { libc::setns(file.as_raw_fd(), kind) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn assert_real_root() {
    let map = std::fs::read_to_string("/proc/self/uid_map").expect("read /proc/self/uid_map");
    let fields: Vec<&str> = map.split_whitespace().collect();
    assert!(
        fields == ["0", "0", "4294967295"],
        "containerd needs root to make containers; run: sudo make test"
    );
}

/// Where containerd says `READY=1`: an abstract name, seen from any mount namespace.
fn notify_socket(node: &Node, name: &str) -> UnixDatagram {
    let address = SocketAddr::from_abstract_name(name).expect("a short name");
    let socket = node.run(|| UnixDatagram::bind_addr(&address));
    let socket = socket.unwrap_or_else(|e| panic!("bind the unix socket @{name}: {e}"));
    socket.set_read_timeout(Some(DEADLINE)).expect("a timeout above zero");
    socket
}

/// Reads one line `WORD REST` and returns the rest.
fn answer(from: &mut BufReader<ChildStdout>, word: &str, folder: &Path) -> String {
    let line = line_of(from, "tests/containerd-host");
    let (first, rest) = line.split_once(' ').unwrap_or((&line, ""));
    assert_eq!(first, word, "tests/containerd-host said {line:?}\n{}", tail(folder));
    rest.to_owned()
}

/// The next line of a program that writes whole lines, empty at its end; panics when neither comes
/// within [`DEADLINE`].
fn line_of(from: &mut BufReader<ChildStdout>, what: &str) -> String {
    if from.buffer().is_empty() {
        let fd = from.get_ref().as_raw_fd();
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let limit = i32::try_from(DEADLINE.as_millis()).expect("a deadline of seconds");
        // SAFETY: the pointer is to one pollfd that outlives the call.
        let ready = unsafe { libc::poll(&raw mut poll, 1, limit) };
        assert!(ready > 0, "{what} said nothing within {DEADLINE:?}");
    }
    let mut line = String::new();
    from.read_line(&mut line).unwrap_or_else(|e| panic!("read from {what}: {e}"));
    line.trim_end().to_owned()
}

fn tail(folder: &Path) -> String {
    let text = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.contains("loading plugin")).collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

fn link(from: &Path, to: &Path) {
    let done = std::os::unix::fs::symlink(from, to);
    done.unwrap_or_else(|e| panic!("link {} to {}: {e}", to.display(), from.display()));
}
