//! Who waits for the kernel to free what a DEL deleted: not whoever waits for the plugin.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use causeway_tests::{Lab, Runtime};
use serde_json::json;

/// A process that this one traces, stopped.
struct Traced(i32);

/// How a traced process stopped, or that it ended.
#[derive(Debug, PartialEq, Eq)]
enum Stop {
    Signal(i32),
    /// `PTRACE_EVENT_..`
    Event(i32),
    Call,
    Ended(i32),
}

impl Traced {
    /// Lets it go on by `request`, and waits until it stops again.
    fn go_on(&self, request: libc::c_uint, signal: i32) -> Stop {
        self.ask(request, signal.into());
        self.wait()
    }

    fn wait(&self) -> Stop {
        let mut status = 0;
        // SAFETY: a status that lives across the call.
        let waited = unsafe { libc::waitpid(self.0, &raw mut status, libc::__WALL) };
        assert_eq!(waited, self.0, "waitpid: {}", std::io::Error::last_os_error());
        if !libc::WIFSTOPPED(status) {
            return Stop::Ended(status);
        }
        match (status >> 16, libc::WSTOPSIG(status)) {
            (0, call) if call == libc::SIGTRAP | 0x80 => Stop::Call,
            (0, signal) => Stop::Signal(signal),
            (event, _) => Stop::Event(event),
        }
    }

    fn ask(&self, request: libc::c_uint, data: libc::c_long) {
        // SAFETY: these requests take two numbers.
        let done = unsafe { libc::ptrace(request, self.0, 0, data) };
        assert_eq!(done, 0, "ptrace {request}: {}", std::io::Error::last_os_error());
    }

    /// The new process of a fork that it has just stopped at.
    fn forked(&self) -> Traced {
        let mut child: libc::c_ulong = 0;
        let into = &raw mut child;
        // SAFETY: the kernel writes one long to `into`.
        let done = unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, self.0, 0, into) };
        assert_eq!(done, 0, "PTRACE_GETEVENTMSG: {}", std::io::Error::last_os_error());
        Traced(i32::try_from(child).expect("a process id"))
    }

    /// The number of the system call that it is about to make.
    fn call(&self) -> libc::c_long {
        let text = std::fs::read_to_string(format!("/proc/{}/syscall", self.0));
        let text = text.expect("read /proc/PID/syscall");
        text.split(' ').next().and_then(|number| number.parse().ok()).expect("a system call")
    }

    /// What its descriptors lead to, by number.
    fn descriptors(&self) -> Vec<(String, String)> {
        let folder = std::fs::read_dir(format!("/proc/{}/fd", self.0)).expect("its descriptors");
        let open = folder.map(|entry| entry.expect("a descriptor"));
        let target = |path| std::fs::read_link(path).expect("a link").display().to_string();
        open.map(|one| (one.file_name().display().to_string(), target(one.path()))).collect()
    }
}

/// Runs a plugin up to the fork that leaves its sockets to a child, then the child until it waits;
/// then the plugin to its end, while the child is held where it waits.
#[expect(clippy::zombie_processes, reason = "`Traced::wait` reaps it")]
fn run(mut command: Command, stdin: &[u8]) {
    let shown = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    // SAFETY: ptrace is async-signal-safe.
    unsafe {
        command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    let mut process = command.spawn().expect("start a plugin");
    let mut stdout = process.stdout.take().expect("a pipe");
    process.stdin.take().expect("a pipe").write_all(stdin).expect("write to a plugin");
    let plugin = Traced(i32::try_from(process.id()).expect("a process id"));
    assert_eq!(plugin.wait(), Stop::Signal(libc::SIGTRAP), "{shown}: exec");
    let options = libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
    plugin.ask(libc::PTRACE_SETOPTIONS, options.into());
    let mut stop = plugin.go_on(libc::PTRACE_CONT, 0);
    while let Stop::Signal(signal) = stop {
        stop = plugin.go_on(libc::PTRACE_CONT, signal);
    }
    assert_eq!(stop, Stop::Event(libc::PTRACE_EVENT_FORK), "{shown}: leaves its sockets to nobody");
    let child = plugin.forked();
    assert_eq!(child.wait(), Stop::Signal(libc::SIGSTOP));
    loop {
        let stop = child.go_on(libc::PTRACE_SYSCALL, 0);
        assert_eq!(stop, Stop::Call, "{shown}: the child ends before the plugin");
        if [libc::SYS_poll, libc::SYS_ppoll].contains(&child.call()) {
            break;
        }
    }
    assert!(matches!(plugin.go_on(libc::PTRACE_CONT, 0), Stop::Ended(0)), "{shown}");
    let mut out = String::new();
    stdout.read_to_string(&mut out).expect("its end");
    assert_eq!(out, "", "{shown}");
    let open = child.descriptors();
    let (sockets, others): (Vec<_>, Vec<_>) =
        open.iter().partition(|(_, target)| target.starts_with("socket:"));
    assert!(!sockets.is_empty(), "{shown}: the child holds {open:?}");
    let others: Vec<&str> = others.iter().map(|(_, target)| target.as_str()).collect();
    assert_eq!(others, ["anon_inode:[pidfd]"], "{shown}");
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.0)).expect("its stat");
    let group = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(2));
    assert_eq!(group, Some(child.0.to_string().as_str()), "{shown}: process group in {stat}");
    let mut stop = child.go_on(libc::PTRACE_CONT, 0);
    while let Stop::Signal(signal) = stop {
        stop = child.go_on(libc::PTRACE_CONT, signal);
    }
    assert_eq!(stop, Stop::Ended(0), "{shown}: the child");
}

/// The child that keeps the netfilter sockets waits for the end of the plugin, so the plugin's own
/// close is never the last one. The order is forced, no time is measured.
///
/// Rows: RC14
#[test]
fn a_plugin_ends_before_its_sockets_are_closed() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let list = node.conflist("closing", "10.67.0.0/24");
    let runtime = Runtime::new(node, list);
    let ports = json!({ "portMappings": [
        { "hostPort": 8080, "containerPort": 80, "protocol": "tcp" } ] });
    let pod = node.pod();
    let attachment = pod.attachment("eth0").runtime_config(ports);
    let result = runtime.add_ok(&attachment);
    for plugin in runtime.plugins().rev() {
        let config = runtime.config(plugin, &attachment, &result);
        let call = runtime.call(plugin, "DEL", &config, &attachment);
        run(call.command(), call.input());
    }
    assert_eq!(node.sh("nft list ruleset | grep causeway || true"), "");
}
