//! A blocking client: one connection a request.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Problem;

/// Talks to the daemon at a socket.
#[derive(Clone, Debug)]
pub struct Client {
    #[expect(dead_code, reason = "until requests are sent")]
    socket: PathBuf,
}

/// Why a request has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens there.
    #[error("causewayd does not answer at {}; is it running?", socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The daemon refused.
    #[error("{}", problem.message)]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it said.
        problem: Problem,
    },
    /// What came back is not what the API promises, or the connection broke, or time was up.
    #[error("{what}")]
    Broken {
        /// What failed.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Client {
    /// A client for the daemon at `socket`; nothing is sent yet.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Sends a request with a JSON body (empty: none) and returns the answer's bytes.
    ///
    /// # Errors
    /// See [`Error`]; `Broken` with `TimedOut` after `timeout`.
    pub fn request(
        &self,
        _method: &str,
        _path: &str,
        _body: &[u8],
        _timeout: Duration,
    ) -> Result<Vec<u8>, Error> {
        todo!()
    }

    /// Sends a request and hands over each line of the answer as it comes, until it ends or `each`
    /// returns `false`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn lines(
        &self,
        _method: &str,
        _path: &str,
        _body: &[u8],
        _each: &mut dyn FnMut(&str) -> bool,
    ) -> Result<(), Error> {
        todo!()
    }
}
