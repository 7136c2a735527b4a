//! A daemon that only takes events, or does not.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::Value;

/// What it does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Keeps the event and answers 204.
    Takes,
    /// Keeps the event and answers 500: the rules could not be written.
    Fails,
    /// Closes the connection where the answer would be.
    Breaks,
    /// Never answers.
    Hangs,
}

/// Listens at a socket until dropped.
#[derive(Debug)]
pub struct FakeDaemon {
    socket: PathBuf,
    heard: Arc<Mutex<Vec<Value>>>,
    manner: Arc<Mutex<Manner>>,
    server: Option<JoinHandle<()>>,
}

impl FakeDaemon {
    /// One at `socket`.
    pub fn start(socket: &Path, manner: Manner) -> Self {
        drop(std::fs::remove_file(socket));
        let listener =
            UnixListener::bind(socket).unwrap_or_else(|e| panic!("{}: {e}", socket.display()));
        let (heard, manner) = (Arc::default(), Arc::new(Mutex::new(manner)));
        let (events, how) = (Arc::clone(&heard), Arc::clone(&manner));
        let server = std::thread::spawn(move || serve(&listener, &events, &how));
        Self { socket: socket.to_owned(), heard, manner, server: Some(server) }
    }

    /// From now on it does otherwise.
    pub fn be(&self, manner: Manner) {
        *self.manner.lock().expect("no panic while it was held") = manner;
    }

    /// All events so far, in the order of their arrival.
    pub fn heard(&self) -> Vec<Value> {
        self.heard.lock().expect("no panic while it was held").clone()
    }

    /// Container ids that are attached by what was heard and what is `spooled`.
    pub fn attached(&self, spooled: &[Value]) -> Vec<String> {
        let mut events = self.heard();
        events.extend_from_slice(spooled);
        Self::attached_by(&events)
    }

    /// Container ids that are attached as the daemon counts: of each attachment the event of the
    /// highest `seq`, in whatever order they came.
    pub fn attached_by(events: &[Value]) -> Vec<String> {
        let mut last: BTreeMap<String, &Value> = BTreeMap::new();
        let seq = |event: &Value| event["seq"].as_u64().expect("a number");
        for event in events {
            let known = last.entry(event["key"].to_string()).or_insert(event);
            if seq(event) > seq(known) {
                *known = event;
            }
        }
        let attached = last.values().filter(|event| event["record"].is_object());
        attached.map(|e| e["key"]["containerID"].as_str().expect("an id").to_owned()).collect()
    }
}

impl Drop for FakeDaemon {
    fn drop(&mut self) {
        self.be(Manner::Breaks);
        // Wakes it up; an empty request tells it to end.
        drop(UnixStream::connect(&self.socket));
        if let Some(server) = self.server.take() {
            drop(server.join());
        }
        drop(std::fs::remove_file(&self.socket));
    }
}

fn serve(listener: &UnixListener, heard: &Mutex<Vec<Value>>, manner: &Mutex<Manner>) {
    // Connections that are to hang stay open.
    let mut open = Vec::new();
    for stream in listener.incoming() {
        let mut stream = stream.expect("a connection");
        let how = *manner.lock().expect("no panic while it was held");
        let Some(event) = request(&mut stream) else {
            // Somebody looked whether we listen, or was killed; or we are to end.
            if how == Manner::Breaks {
                return;
            }
            continue;
        };
        match how {
            Manner::Takes | Manner::Fails => {
                heard.lock().expect("no panic while it was held").push(event);
                let answer: &[u8] = if how == Manner::Takes {
                    b"HTTP/1.1 204 No Content\r\n\r\n"
                } else {
                    b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 25\r\n\r\n{\"message\":\"nft is gone\"}\n"
                };
                // Whoever asked may have been killed.
                drop(stream.write_all(answer));
            }
            Manner::Breaks => {}
            Manner::Hangs => open.push(stream),
        }
    }
}

/// The body of a request for `PUT /v1/events`; `None` if there is no whole one.
fn request(stream: &mut UnixStream) -> Option<Value> {
    let mut head = String::new();
    let mut byte = [0];
    while !head.ends_with("\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(char::from(byte[0]));
    }
    assert!(head.starts_with("PUT /v1/events HTTP/1.1\r\n"), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.expect("a length").parse().expect("a number")];
    stream.read_exact(&mut body).ok()?;
    Some(serde_json::from_slice(&body).expect("JSON"))
}
