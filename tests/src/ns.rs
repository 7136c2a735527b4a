//! A network namespace with a path.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::run::{Finished, finish};
use crate::{assert_entered, unique};

/// The `PATH` programs get inside a namespace.
pub(crate) const PROGRAM_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A network namespace bound to `/run/netns/NAME`, unbound on drop. `lo` is up.
#[derive(Debug)]
pub struct Ns {
    name: String,
    path: PathBuf,
    file: Arc<File>,
}

impl Ns {
    /// Makes a namespace whose name starts with `label`.
    pub fn new(label: &str) -> Self {
        assert_entered();
        let name = format!("{label}-{}", unique());
        let path = Path::new("/run/netns").join(&name);
        File::create(&path).unwrap_or_else(|e| panic!("make {}: {e}", path.display()));
        let target = path.clone();
        std::thread::spawn(move || {
            // SAFETY: unshare takes flags only, and only this short thread changes namespace.
            check(unsafe { libc::unshare(libc::CLONE_NEWNET) }, "unshare(CLONE_NEWNET)");
            bind(Path::new("/proc/thread-self/ns/net"), &target);
        })
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let file = File::open(&path).unwrap_or_else(|e| panic!("open {}: {e}", path.display()));
        let ns = Self { name, path, file: Arc::new(file) };
        // A new namespace has the IPv4 settings of the machine (net.core.devconf_inherit_init_net).
        ns.sh("ip link set lo up
            for of in all default; do echo 0 >/proc/sys/net/ipv4/conf/$of/route_localnet; done");
        ns
    }

    /// The name `ip -n` and `ip netns exec` take.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The path to give as `CNI_NETNS`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` on a thread inside the namespace and returns its value; a panic is passed on.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter().unwrap_or_else(|e| panic!("enter {}: {e}", self.name));
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A command that will start inside the namespace, with a plain `PATH` and nothing else in its
    /// environment.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", PROGRAM_PATH);
        let file = Arc::clone(&self.file);
        // SAFETY: between fork and exec only setns is called, which is async-signal-safe.
        unsafe { command.pre_exec(move || set(&file)) };
        command
    }

    /// Runs a shell script inside the namespace and returns its stdout; panics when it fails.
    pub fn sh(&self, script: &str) -> String {
        self.try_sh(script).ok()
    }

    /// As [`Ns::sh`], without an opinion about failure.
    pub fn try_sh(&self, script: &str) -> Finished {
        let mut command = self.command("/bin/sh");
        command.args(["-euc", script]);
        finish(command, b"")
    }

    /// Feeds lines to one `ip -batch -` inside the namespace.
    pub fn ip(&self, lines: &str) {
        let mut command = self.command("ip");
        command.args(["-batch", "-"]);
        finish(command, lines.as_bytes()).ok();
    }

    /// Sets a sysctl, named as below `/proc/sys/net/`.
    pub fn set_sysctl(&self, key: &str, value: &str) {
        let file = Path::new("/proc/sys/net").join(key);
        self.run(|| std::fs::write(&file, value))
            .unwrap_or_else(|e| panic!("write {value} to {}: {e}", file.display()));
    }

    /// Reads a sysctl, named as below `/proc/sys/net/`.
    pub fn sysctl(&self, key: &str) -> String {
        let file = Path::new("/proc/sys/net").join(key);
        let text = self.run(|| std::fs::read_to_string(&file));
        text.unwrap_or_else(|e| panic!("read {}: {e}", file.display())).trim().to_owned()
    }

    /// Moves the calling thread into the namespace.
    pub(crate) fn enter(&self) -> io::Result<()> {
        set(&self.file)
    }
}

impl Drop for Ns {
    fn drop(&mut self) {
        let path = c_path(&self.path);
        // SAFETY: the path is a NUL-terminated string that outlives the call.
        let gone = unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        if gone != 0 || std::fs::remove_file(&self.path).is_err() {
            eprintln!("remove {}: {}", self.path.display(), io::Error::last_os_error());
        }
    }
}

fn set(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for the length of the call.
    match unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn bind(source: &Path, target: &Path) {
    let (from, to) = (c_path(source), c_path(target));
    let none = std::ptr::null();
    // SAFETY: both paths are NUL-terminated; a bind mount reads neither type nor data.
    let done = unsafe { libc::mount(from.as_ptr(), to.as_ptr(), none, libc::MS_BIND, none.cast()) };
    check(done, &format!("bind {} to {}", source.display(), target.display()));
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("a path without NUL")
}

fn check(result: libc::c_int, what: &str) {
    assert_eq!(result, 0, "{what}: {}", io::Error::last_os_error());
}
