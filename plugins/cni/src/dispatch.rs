//! From an environment and stdin to a reply: order of checks, version rules, error objects.

use std::collections::BTreeMap;
use std::io;

use crate::{CniResult, Error, Request, Version};

/// The process environment as a value.
pub type Environment = BTreeMap<String, String>;

/// What a plugin says of itself.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Type name, for instance `causeway-bridge`.
    pub name: &'static str,
    /// Version of the program.
    pub version: &'static str,
    /// Supported protocol versions, oldest first.
    pub supported: &'static [Version],
    /// `CNI_ARGS` keys that this plugin knows beside `IgnoreUnknown` (row C23).
    pub known_args: &'static [&'static str],
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

/// Runs one invocation. `stdin` is called only when the command needs it (row C6);
/// `own_netns` tells whether the path of `CNI_NETNS` is the namespace we run in (row C12), and is
/// asked before anything is done.
pub fn dispatch(
    plugin: &dyn Plugin,
    about: &About,
    env: Environment,
    stdin: impl FnOnce() -> io::Result<Vec<u8>>,
    own_netns: impl FnOnce(&str) -> bool,
) -> Reply {
    let _ = (plugin, about, env, stdin, own_netns);
    todo!()
}
