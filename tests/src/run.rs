//! Running a program to its end, within a deadline.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How long a program may take before it is killed and the test fails.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A program that came to its end. Its `Debug` form is [`Finished::describe`].
#[derive(Clone)]
pub struct Finished {
    /// The command, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// All it wrote to stdout.
    pub stdout: Vec<u8>,
    /// All it wrote to stderr.
    pub stderr: Vec<u8>,
}

impl Finished {
    /// Stdout as text; panics unless the program exited with 0.
    pub fn ok(self) -> String {
        assert!(self.status.success(), "{}", self.describe());
        String::from_utf8(self.stdout).expect("UTF-8 on stdout")
    }

    /// The exit code, or 128 plus the signal that ended it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Command, status and output as one text.
    pub fn describe(&self) -> String {
        format!(
            "{}\n{}\nstdout: {}\nstderr: {}",
            self.command,
            self.status,
            String::from_utf8_lossy(&self.stdout),
            String::from_utf8_lossy(&self.stderr)
        )
    }
}

impl std::fmt::Debug for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.describe())
    }
}

/// Runs `command` with `stdin` to its end; panics when it does not start or misses [`DEADLINE`].
pub fn finish(mut command: Command, stdin: &[u8]) -> Finished {
    let shown = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("start {shown}: {e}"));
    if let Some(mut pipe) = child.stdin.take() {
        // A program that does not read its stdin closes the pipe early; that is its right.
        if let Err(error) = pipe.write_all(stdin) {
            assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe, "write to {shown}: {error}");
        }
    }
    wait(child, shown)
}

/// Waits for a started program whose stdout and stderr are pipes (or neither); panics when it
/// misses [`DEADLINE`].
pub(crate) fn wait(child: Child, shown: String) -> Finished {
    let (finished, late) = wait_within(child, shown, DEADLINE);
    assert!(!late, "did not end within {DEADLINE:?}: {}", finished.describe());
    finished
}

/// As [`wait`] with a limit of its own. Returns whether the program had to be killed.
pub(crate) fn wait_within(child: Child, shown: String, limit: Duration) -> (Finished, bool) {
    let pid = i32::try_from(child.id()).expect("a process id is positive");
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let in_time = receiver.recv_timeout(limit);
    let late = in_time.is_err();
    let output = in_time.or_else(|_| {
        // SAFETY: kill takes two integers; the child has not been waited for yet.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        receiver.recv_timeout(DEADLINE)
    });
    let output = output.unwrap_or_else(|_| panic!("{shown} did not end by SIGKILL"));
    let output = output.unwrap_or_else(|e| panic!("wait for {shown}: {e}"));
    let (stdout, stderr) = (output.stdout, output.stderr);
    (Finished { command: shown, status: output.status, stdout, stderr }, late)
}
