//! Programs.
//!
//! A signal that we ignore stays ignored in the child (exec keeps `SIG_IGN`): after
//! [`causeway_host::ignore_sigterm`] a delegate is not ended by the SIGTERM of a whole process group
//! either, and finishes its part of DEL (row F48). SIGPIPE and the signal mask are the defaults.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::clock::{Deadline, backoff};
use crate::wait::poll;
use crate::{Error, Result};

/// How much of stdout and of stderr is read, in bytes: more than any ruleset that `iptables-save`
/// prints, and less than a program that never stops printing would fill.
const MOST_OUTPUT: usize = 64 << 20;

/// A program to run with exactly this environment and stdin.
#[derive(Clone, Debug)]
pub struct Program<'a> {
    /// Path.
    pub path: PathBuf,
    /// Arguments without the program's name.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// Bytes for stdin.
    pub stdin: &'a [u8],
    /// Killed after this long, with all that it started; the output says so.
    pub timeout: Duration,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Exit status 0.
    pub success: bool,
    /// Exit code, or `None` when a signal ended it.
    pub code: Option<i32>,
    /// Whether the time limit ended it.
    pub timed_out: bool,
    /// stdout
    pub stdout: Vec<u8>,
    /// stderr, lossy
    pub stderr: String,
}

/// Runs a program to its end. The child dies with us (`PR_SET_PDEATHSIG`) only if asked by the
/// caller's protocol: a CNI delegate must be let finish (row F7), so it is not set. `ETXTBSY` is
/// retried (row C27).
///
/// # Errors
/// It could not be started, or its pipes failed; `InvalidData`, and it is killed, if it does not
/// stop printing.
pub fn run(program: &Program<'_>) -> Result<Output> {
    let failed = |source| Error { action: format!("run {}", program.path.display()), source };
    let deadline = Deadline::after(program.timeout);
    let mut child = spawn(program, deadline).map_err(failed)?;
    let result = Exchange::new(&mut child, program.stdin)
        .and_then(|mut exchange| exchange.drive(deadline).map(|timed_out| (exchange, timed_out)));
    let (exchange, timed_out) = match result {
        Ok((exchange, timed_out)) => (Ok((exchange.stdout, exchange.stderr)), timed_out),
        Err(error) => (Err(error), true),
    };
    if timed_out {
        kill_group(&child);
    }
    let status = child.wait().map_err(failed)?;
    let (stdout, stderr) = exchange.map_err(failed)?;
    Ok(Output {
        success: status.success() && !timed_out,
        code: status.code(),
        timed_out,
        stdout,
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    })
}

/// Kills a child and what it started: a script that waits for another program would leave that
/// behind, which then goes on with what was given up.
fn kill_group(child: &Child) {
    // The child leads a group of its number, which stays taken until the child was waited for.
    kill_process_group(Pid::from_child(child), Signal::KILL).ok();
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that spawns programs")]
fn spawn(program: &Program<'_>, deadline: Deadline) -> io::Result<Child> {
    /// Someone is writing the program right now (`ETXTBSY`): an installation takes longer than a
    /// moment.
    const ATTEMPTS: u32 = 30;
    let mut command = Command::new(&program.path);
    command.args(&program.args).env_clear().envs(&program.env);
    command.process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut attempt = 1;
    loop {
        match command.spawn() {
            Err(error)
                if error.raw_os_error() == Some(libc::ETXTBSY)
                    && attempt < ATTEMPTS
                    && !deadline.passed() =>
            {
                backoff(attempt, deadline.remaining().min(Duration::from_millis(100)));
                attempt += 1;
            }
            result => return result,
        }
    }
}

/// The pipes of a running child and what came through them.
struct Exchange<'a> {
    /// Readable once the child has ended.
    process: OwnedFd,
    stdin: Option<std::process::ChildStdin>,
    pending: &'a [u8],
    out: Option<std::process::ChildStdout>,
    err: Option<std::process::ChildStderr>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl<'a> Exchange<'a> {
    fn new(child: &mut Child, stdin: &'a [u8]) -> io::Result<Self> {
        let exchange = Self {
            process: pidfd(child.id())?,
            stdin: child.stdin.take(),
            pending: stdin,
            out: child.stdout.take(),
            err: child.stderr.take(),
            stdout: Vec::new(),
            stderr: Vec::new(),
        };
        exchange.stdin.as_ref().map_or(Ok(()), set_nonblocking)?;
        exchange.out.as_ref().map_or(Ok(()), set_nonblocking)?;
        exchange.err.as_ref().map_or(Ok(()), set_nonblocking)?;
        Ok(exchange)
    }

    /// Moves bytes until the child has ended. `true`: it had to be given up at `deadline`.
    fn drive(&mut self, deadline: Deadline) -> io::Result<bool> {
        loop {
            if self.pending.is_empty() {
                // End of input.
                self.stdin = None;
            }
            let [process, stdin, out, err] = self.poll(deadline)?;
            if stdin {
                self.feed()?;
            }
            if out {
                drain(&mut self.out, &mut self.stdout)?;
            }
            if err {
                drain(&mut self.err, &mut self.stderr)?;
            }
            if process {
                // Whatever it wrote is in the pipes by now. A grandchild may keep them open, so
                // their end is not waited for.
                drain(&mut self.out, &mut self.stdout)?;
                drain(&mut self.err, &mut self.stderr)?;
                return Ok(false);
            }
            if deadline.passed() {
                return Ok(true);
            }
        }
    }

    /// Which of process, stdin, stdout and stderr have something; what is closed has nothing.
    fn poll(&self, deadline: Deadline) -> io::Result<[bool; 4]> {
        let open = [
            Some((self.process.as_fd(), PollFlags::IN)),
            self.stdin.as_ref().map(|stdin| (stdin.as_fd(), PollFlags::OUT)),
            self.out.as_ref().map(|out| (out.as_fd(), PollFlags::IN)),
            self.err.as_ref().map(|err| (err.as_fd(), PollFlags::IN)),
        ];
        let polled = open.iter().flatten();
        let mut polled: Vec<PollFd<'_>> =
            polled.map(|(fd, events)| PollFd::from_borrowed_fd(*fd, *events)).collect();
        poll(&mut polled, deadline.remaining())?;
        let mut polled = polled.iter();
        Ok(open
            .map(|one| one.is_some() && polled.next().is_some_and(|fd| !fd.revents().is_empty())))
    }

    fn feed(&mut self) -> io::Result<()> {
        let Some(stdin) = self.stdin.as_mut() else { return Ok(()) };
        match stdin.write(self.pending) {
            Ok(written) => self.pending = &self.pending[written..],
            // It does not read its input; that is its own affair.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.pending = &[],
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Reads what has been written; at the end of the stream closes it.
fn drain(stream: &mut Option<impl Read>, into: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    while let Some(open) = stream {
        match open.read(&mut buffer) {
            Ok(0) => *stream = None,
            Ok(length) if into.len() + length > MOST_OUTPUT => {
                let text = format!("it printed more than {MOST_OUTPUT} bytes");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            Ok(length) => into.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// A descriptor of a process: this one, or a child that is not waited for yet, so that its number
/// is its own.
pub(crate) fn pidfd(process: u32) -> io::Result<OwnedFd> {
    let number = i32::try_from(process).ok().and_then(Pid::from_raw);
    Ok(pidfd_open(number.ok_or(io::ErrorKind::InvalidInput)?, PidfdFlags::empty())?)
}

fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = fcntl_getfl(&fd)?;
    Ok(fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?)
}

#[cfg(test)]
mod tests;
