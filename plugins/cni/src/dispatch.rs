//! From an environment and stdin to a reply: order of checks, version rules, error objects.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::Value;

use crate::about::About;
use crate::environment::{self, Command, Environment};
use crate::request::{Refused, Request};
use crate::{CniResult, Code, Error, Version};

/// All bytes of `input`, for [`dispatch()`] to read stdin with.
///
/// # Errors
/// Those of `input`.
pub fn read_all(mut input: impl io::Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The operations of a plugin. Each is called with a checked request.
pub trait Plugin {
    /// ADD: attach; the result goes to stdout in the request's version.
    ///
    /// # Errors
    /// Anything; nothing may be left behind (I7).
    fn add(&self, request: &Request) -> Result<CniResult, Error>;
    /// DEL: detach; succeeds when there is nothing to remove.
    ///
    /// # Errors
    /// What could not be removed.
    fn del(&self, request: &Request) -> Result<(), Error>;
    /// CHECK: verify against `prev_result`; changes nothing.
    ///
    /// # Errors
    /// The first difference found.
    fn check(&self, request: &Request) -> Result<(), Error>;
    /// GC: remove what belongs to this network and to none of `valid_attachments`.
    ///
    /// # Errors
    /// All that could not be removed.
    fn gc(&self, request: &Request) -> Result<(), Error>;
    /// STATUS: whether ADD can work.
    ///
    /// # Errors
    /// Code 50 or 51.
    fn status(&self, request: &Request) -> Result<(), Error>;
    /// The printed result could not be delivered (stdout closed): take the ADD back (row F48).
    fn undo_add(&self, request: &Request) {
        // DEL reports to nobody here: the runtime is gone.
        drop(self.del(request));
    }
}

/// What the process has to print and return.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// Bytes for stdout: the protocol and nothing else (I8).
    pub stdout: Vec<u8>,
    /// Text for stderr.
    pub stderr: String,
    /// 0 or 1.
    pub exit: u8,
    /// The request of an ADD that succeeded, for [`Plugin::undo_add`] when stdout is closed.
    pub added: Option<Box<Request>>,
}

impl Reply {
    /// Writes stderr, then stdout. When the result of an ADD cannot be written, nobody will know
    /// of the attachment: it is taken back (row F48). Returns the exit status.
    pub fn deliver(
        self,
        plugin: &dyn Plugin,
        out: &mut dyn io::Write,
        err: &mut dyn io::Write,
    ) -> u8 {
        // stderr is for people; that it is closed must not fail an operation.
        drop(err.write_all(self.stderr.as_bytes()).and_then(|()| err.flush()));
        let Err(error) = out.write_all(&self.stdout).and_then(|()| out.flush()) else {
            return self.exit;
        };
        drop(writeln!(err, "cannot write to stdout: {error}"));
        if let Some(request) = &self.added {
            undo(plugin, request);
        }
        1
    }

    fn failure(version: Version, error: &Error) -> Self {
        Self { stdout: printed(&error.to_json(version)), exit: 1, ..Self::default() }
    }
}

/// Runs one invocation. `stdin` is called only when the command needs it (row C6);
/// `own_netns` tells whether the path of `CNI_NETNS` is the namespace we run in (row C12), and is
/// asked before anything is done.
///
/// VERSION answers with the newest version that we speak: stdin, if the asking version would
/// stand (row C36), may be closed or never end, and is therefore not read (row C6).
pub fn dispatch(
    plugin: &dyn Plugin,
    about: &About,
    env: Environment,
    stdin: impl FnOnce() -> io::Result<Vec<u8>>,
    own_netns: impl FnOnce(&str) -> bool,
) -> Reply {
    match environment::get(&env, "CNI_COMMAND") {
        "" => return Reply { stderr: about.text(), ..Reply::default() },
        "VERSION" => return Reply { stdout: printed(&about.versions()), ..Reply::default() },
        _ => {}
    }
    let request = match Request::parse_or_refuse(about, env, stdin) {
        Ok(request) => request,
        Err(Refused { version, error }) => {
            return Reply::failure(version.unwrap_or_else(|| about.newest()), &error);
        }
    };
    match run(plugin, about, &request, own_netns) {
        Ok(None) => Reply::default(),
        Ok(Some(result)) => {
            Reply { stdout: printed(&result), added: Some(Box::new(request)), ..Reply::default() }
        }
        Err(error) => Reply::failure(request.version, &error),
    }
}

/// Calls the handler. `Some` is the result of an ADD, ready to print.
fn run(
    plugin: &dyn Plugin,
    about: &About,
    request: &Request,
    own_netns: impl FnOnce(&str) -> bool,
) -> Result<Option<Value>, Error> {
    if let (Command::Add | Command::Del, Some(netns)) = (request.command, &request.netns)
        && !environment::netns_override(&request.env)
        && own_netns(netns)
    {
        let msg = "CNI_NETNS must not be the network namespace of the plugin";
        return Err(Error::new(Code::InvalidNetns, msg).details(netns));
    }
    let guarded = catch_unwind(AssertUnwindSafe(|| match request.command {
        Command::Add => plugin.add(request).map(Some),
        Command::Del => plugin.del(request).map(|()| None),
        Command::Check => plugin.check(request).map(|()| None),
        Command::Gc => plugin.gc(request).map(|()| None),
        Command::Status => plugin.status(request).map(|()| None),
        Command::Version => Ok(None),
    }));
    let result = guarded.unwrap_or_else(|panic| {
        let msg = format!("{} {} panicked: this is a bug", about.name, request.command.as_str());
        Err(Error::new(Code::Internal, msg).details(panic_text(&*panic)))
    })?;
    let Some(result) = result else { return Ok(None) };
    result.to_json(request.version).map(Some).inspect_err(|_| undo(plugin, request))
}

fn undo(plugin: &dyn Plugin, request: &Request) {
    // The failure that led here is reported already; one of the undoing has no place to go.
    drop(catch_unwind(AssertUnwindSafe(|| plugin.undo_add(request))));
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or_default().to_owned()
}

fn printed(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

#[cfg(test)]
mod tests;
