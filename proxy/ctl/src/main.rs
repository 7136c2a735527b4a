//! The operator's command line over the daemon's API.

mod age;
mod apply;
mod cli;
mod columns;
mod daemon;
mod delete;
mod describe;
mod dns;
mod files;
mod get;
mod kind;
mod screen;
mod status;
mod svc;
mod table;
mod text;
mod trace;
mod watch;
mod yaml;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use causeway_api::chain;
use clap::Parser;

use crate::cli::{Cli, Command, SvcCommand};
use crate::daemon::Daemon;
use crate::screen::Screen;

/// How a command that ran ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// All is well: exit code 0.
    Fine,
    /// Refused, not found, degraded, a finding: exit code 1.
    Finding,
}

impl Verdict {
    fn finding_if(bad: bool) -> Self {
        if bad { Self::Finding } else { Self::Fine }
    }
}

/// Why a command did not come to its end.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The words make no sense together.
    #[error("{0}")]
    Usage(String),
    /// The daemon refused, or is not there.
    #[error(transparent)]
    Daemon(#[from] causeway_api::Error),
    /// The daemon closed a watch, which has no end of its own.
    #[error("causewayd ended the watch")]
    WatchEnded,
    /// What the daemon sent does not decode.
    #[error("cannot decode causewayd's answer to {request}; are both of the same version?")]
    Answer {
        /// Method and path.
        request: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Nobody reads our output any more, or it cannot be written.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
}

impl Failure {
    fn code(&self) -> ExitCode {
        match self {
            Self::Daemon(causeway_api::Error::Refused { .. }) => ExitCode::from(1),
            // A pipe closed by its reader, as by `head`: it had all that it wanted.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Self::Output(_) => ExitCode::from(1),
            Self::Usage(_) | Self::Daemon(_) | Self::WatchEnded | Self::Answer { .. } => {
                ExitCode::from(2)
            }
        }
    }

    /// What failed and its causes, outermost first, in one line.
    fn message(&self) -> String {
        let causes: &[String] =
            if let Self::Daemon(causeway_api::Error::Refused { problem, .. }) = self {
                &problem.causes
            } else {
                &[]
            };
        causes.iter().fold(chain(self), |text, cause| format!("{text}: {cause}"))
    }

    fn is_silent(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let color = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
    let mut screen = Screen::new(
        (Box::new(io::stdout()), color && io::stdout().is_terminal()),
        (Box::new(io::stderr()), color && io::stderr().is_terminal()),
    );
    let ended = run(cli, &mut screen).and_then(|verdict| {
        screen.flush()?;
        Ok(verdict)
    });
    match ended {
        Ok(Verdict::Fine) => ExitCode::SUCCESS,
        Ok(Verdict::Finding) => ExitCode::from(1),
        Err(failure) => {
            if !failure.is_silent() {
                // If stderr is closed too there is nobody left to tell.
                screen.complain(&failure.message()).ok();
            }
            failure.code()
        }
    }
}

fn run(cli: Cli, screen: &mut Screen) -> Result<Verdict, Failure> {
    let daemon = Daemon::new(&cli.socket);
    let format = cli.output;
    match cli.command {
        Command::Apply(args) => apply::run(&daemon, screen, &args, format),
        Command::Delete(args) => delete::run(&daemon, screen, &args, format),
        Command::Get(args) => get::run(&daemon, screen, &args, format),
        Command::Describe(args) => describe::run(&daemon, screen, &args, format),
        Command::Status => status::run(&daemon, screen, format),
        Command::Svc { command: SvcCommand::Test(args) } => {
            svc::test(&daemon, screen, &args, format)
        }
        Command::Dns(args) => dns::run(&daemon, screen, &args, format),
        Command::Trace(args) => trace::run(&daemon, screen, &args, format),
        Command::Completion { shell } => cli::completion(shell, screen),
    }
}

/// Seconds since 1970, for ages.
#[expect(clippy::disallowed_methods, reason = "the program's single reading of the clock")]
fn now() -> u64 {
    // A clock before 1970 makes ages of 0.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}
