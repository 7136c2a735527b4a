//! The daemon as the commands see it: requests with typed answers.

use std::io;
use std::path::Path;
use std::time::Duration;

use causeway_api::{Client, Error};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Failure;
use crate::kind::Kind;

/// How long an answer may take; an `apply` of very many services is the slowest.
const TIMEOUT: Duration = Duration::from_secs(120);

/// HTTP's 404.
const NOT_FOUND: u16 = 404;

/// The daemon at a socket.
pub(crate) struct Daemon {
    client: Client,
}

impl Daemon {
    pub(crate) fn new(socket: &Path) -> Self {
        Self { client: Client::new(socket) }
    }

    /// Waits until it listens.
    pub(crate) fn wait(&self) -> Result<(), Failure> {
        Ok(self.client.wait()?)
    }

    /// What a `GET` of a path answers.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.request("GET", path, b"")
    }

    /// What a `POST` to a path answers.
    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(io::Error::from)?;
        self.request("POST", path, &body)
    }

    /// An object by name, `None` if there is none.
    pub(crate) fn object(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, Failure> {
        self.find(&object_path(kind, namespace, name))
    }

    /// What a `GET` of a path answers, `None` for what is not there.
    pub(crate) fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Failure> {
        found(self.get(path))
    }

    /// Hands over each line of an answer, decoded, as it comes, until it ends or `each` fails.
    pub(crate) fn lines<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        each: &mut dyn FnMut(T) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut failure = None;
        let body = body.map(Value::to_string).unwrap_or_default();
        self.client.lines(method, path, body.as_bytes(), &mut |line| {
            if line.trim().is_empty() {
                return true;
            }
            let done = decode(method, path, line.as_bytes()).and_then(&mut *each);
            failure = done.err();
            failure.is_none()
        })?;
        failure.map_or(Ok(()), Err)
    }

    fn request<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Result<T, Failure> {
        let answer = self.client.request(method, path, body, TIMEOUT)?;
        decode(method, path, &answer)
    }
}

/// Path of a list, of all namespaces without one.
pub(crate) fn list_path(kind: Kind, namespace: Option<&str>, watch: bool) -> String {
    let namespace = namespace
        .filter(|_| kind.is_namespaced())
        .map(|namespace| format!("namespace={}", segment(namespace)));
    let query: Vec<String> =
        namespace.into_iter().chain(watch.then(|| "watch=true".into())).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    format!("/v1/{}{mark}{}", kind.plural(), query.join("&"))
}

/// Path of an object.
pub(crate) fn object_path(kind: Kind, namespace: &str, name: &str) -> String {
    if kind.is_namespaced() {
        format!("/v1/{}/{}/{}", kind.plural(), segment(namespace), segment(name))
    } else {
        format!("/v1/{}/{}", kind.plural(), segment(name))
    }
}

/// Text as a path segment or query value: all but RFC 3986's unreserved characters by their bytes.
pub(crate) fn segment(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            other => escaped += &format!("%{other:02X}"),
        }
    }
    escaped
}

fn found<T>(answer: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Failure::Daemon(Error::Refused { status: NOT_FOUND, .. })) => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn decode<T: DeserializeOwned>(method: &str, path: &str, answer: &[u8]) -> Result<T, Failure> {
    let answer = if answer.is_empty() { b"null" } else { answer };
    serde_json::from_slice(answer)
        .map_err(|source| Failure::Answer { request: format!("{method} {path}"), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_segment() {
        assert_eq!(list_path(Kind::Service, None, false), "/v1/services");
        assert_eq!(
            list_path(Kind::Service, Some("a&b"), true),
            "/v1/services?namespace=a%26b&watch=true"
        );
        assert_eq!(list_path(Kind::Node, Some("default"), true), "/v1/nodes?watch=true");
        assert_eq!(object_path(Kind::Service, "ns", "web-1"), "/v1/services/ns/web-1");
        assert_eq!(object_path(Kind::Node, "ns", "../x?y\r\n"), "/v1/nodes/..%2Fx%3Fy%0D%0A");
    }
}
