//! A blocking client: one connection per request.
//!
//! It drives its connection on a current-thread tokio runtime of its own, so it must not be used
//! inside one. Making the runtime costs some 30 µs.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::Problem;

/// Talks to the daemon at a socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Why a request has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens there. Nothing was sent.
    #[error("{}", unreachable(socket, source))]
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
    /// What came back is not what the API promises, or the connection broke, or time was up. The
    /// daemon may have done what was asked.
    #[error("{what}")]
    Broken {
        /// What failed.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The socket is root's: whoever may not open it learns nothing of who listens.
fn unreachable(socket: &Path, error: &io::Error) -> String {
    let socket = socket.display();
    if error.kind() == io::ErrorKind::PermissionDenied {
        format!("no permission to use {socket}, the socket of causewayd: run it as root")
    } else {
        format!("causewayd does not answer at {socket}; is it running?")
    }
}

impl Client {
    /// A client for the daemon at `socket`; nothing is sent yet.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Whether a process listens. Nothing is sent.
    ///
    /// # Errors
    /// `Unreachable`
    pub fn reach(&self) -> Result<(), Error> {
        Asked { method: "GET", path: "/" }.block_on(self.connect()).map(drop)
    }

    /// Waits a little, then until a daemon listens.
    ///
    /// # Errors
    /// `Unreachable` if waiting will not help.
    pub fn wait(&self) -> Result<(), Error> {
        /// Before each attempt: a restart takes longer.
        const PAUSE: Duration = Duration::from_millis(200);
        Asked { method: "GET", path: "/" }.block_on(async {
            loop {
                tokio::time::sleep(PAUSE).await;
                match self.connect().await {
                    Ok(_) => return Ok(()),
                    Err(Error::Unreachable { source, .. })
                        if matches!(
                            source.kind(),
                            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                        ) => {}
                    Err(error) => return Err(error),
                }
            }
        })
    }

    /// Sends a request with a JSON body (empty: none) and returns the answer's bytes. `path` is
    /// sent as it is: names in it are escaped by the caller if they need it.
    ///
    /// # Errors
    /// See [`Error`]; `Broken` with `TimedOut` after `timeout`.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
        timeout: Duration,
    ) -> Result<Vec<u8>, Error> {
        let asked = Asked { method, path };
        let exchange = async {
            let answer = self.send(asked, body).await?;
            let bytes = answer.into_body().collect().await;
            Ok(bytes.map_err(|error| asked.broken("read the answer", &error))?.to_bytes().to_vec())
        };
        let bounded = async {
            tokio::time::timeout(timeout, exchange).await.unwrap_or_else(|_| {
                let what = format!("{method} {path}: no answer within {} ms", timeout.as_millis());
                Err(Error::Broken { what, source: io::ErrorKind::TimedOut.into() })
            })
        };
        asked.block_on(bounded)
    }

    /// Sends a request and hands over each line of the answer as it comes, until it ends or `each`
    /// returns `false`. Bytes that are not UTF-8 are replaced.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn lines(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
        each: &mut dyn FnMut(&str) -> bool,
    ) -> Result<(), Error> {
        let asked = Asked { method, path };
        asked.block_on(async {
            let mut answer = self.send(asked, body).await?.into_body();
            let mut lines = Lines::default();
            while let Some(frame) = answer.frame().await {
                let frame = frame.map_err(|error| asked.broken("read the answer", &error))?;
                if let Some(bytes) = frame.data_ref()
                    && !lines.take(bytes, each)
                {
                    return Ok(());
                }
            }
            lines.finish(each);
            Ok(())
        })
    }

    /// Never waits: of a daemon that hangs the queue of connections is full at some time.
    async fn connect(&self) -> Result<UnixStream, Error> {
        let connected = UnixStream::connect(&self.socket).await;
        connected.map_err(|source| Error::Unreachable { socket: self.socket.clone(), source })
    }

    /// Sends a request; the answer has a good status.
    async fn send(&self, asked: Asked<'_>, body: &[u8]) -> Result<Response<Incoming>, Error> {
        let request = asked.request(body)?;
        let stream = self.connect().await?;
        let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) =
            shaken.map_err(|error| asked.broken("open a connection", &error))?;
        // What breaks the connection is told to those who wait for the answer.
        drop(tokio::spawn(connection));
        let sent = sender.send_request(request).await;
        let answer = sent.map_err(|error| asked.broken("send the request", &error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let bytes = answer.into_body().collect().await;
        let bytes = bytes.map_err(|error| asked.broken("read the refusal", &error))?.to_bytes();
        Err(Error::Refused { status: status.as_u16(), problem: problem(status, &bytes) })
    }
}

/// Method and path of a request.
#[derive(Clone, Copy)]
struct Asked<'a> {
    method: &'a str,
    path: &'a str,
}

impl Asked<'_> {
    fn request(self, body: &[u8]) -> Result<Request<Full<Bytes>>, Error> {
        let invalid = |source: io::Error| Error::Broken {
            what: format!("{} {} is not a request", self.method, self.path),
            source,
        };
        let uri: Uri = self.path.parse().map_err(|error| invalid(io::Error::other(error)))?;
        let request = Request::builder().method(self.method).uri(uri).header("host", "causeway");
        let request = if body.is_empty() {
            request
        } else {
            request.header("content-type", "application/json")
        };
        let body = Full::new(Bytes::copy_from_slice(body));
        request.body(body).map_err(|error| invalid(io::Error::other(error)))
    }

    fn block_on<T>(self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
        let runtime = runtime.map_err(|source| Error::Broken {
            what: format!("{} {}: start a runtime", self.method, self.path),
            source,
        })?;
        runtime.block_on(work)
    }

    fn broken(self, doing: &str, error: &hyper::Error) -> Error {
        use std::error::Error as _;
        // The errno if there is one; hyper's own words otherwise.
        let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        let source = match io {
            Some(io) => io::Error::new(io.kind(), io.to_string()),
            None => io::Error::other(error.to_string()),
        };
        Error::Broken { what: format!("{} {}: {doing}", self.method, self.path), source }
    }
}

/// What a refusal says; one that is not a [`Problem`] is quoted.
fn problem(status: StatusCode, body: &[u8]) -> Problem {
    /// Characters of a foreign answer that are worth showing.
    const SHOWN: usize = 200;
    serde_json::from_slice(body).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(body);
        let text: String = text.trim().chars().take(SHOWN).collect();
        let separator = if text.is_empty() { "" } else { ": " };
        Problem { message: format!("causewayd answers {status}{separator}{text}"), causes: vec![] }
    })
}

/// Cuts what arrives into lines.
#[derive(Default)]
struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// `false` once `each` has had enough.
    fn take(&mut self, bytes: &[u8], each: &mut dyn FnMut(&str) -> bool) -> bool {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            let line = std::mem::take(&mut self.begun);
            if !each(String::from_utf8_lossy(&line).trim_end_matches('\r')) {
                return false;
            }
        }
        self.begun.extend_from_slice(rest);
        true
    }

    fn finish(self, each: &mut dyn FnMut(&str) -> bool) {
        if !self.begun.is_empty() {
            each(&String::from_utf8_lossy(&self.begun));
        }
    }
}

#[cfg(test)]
mod tests;
