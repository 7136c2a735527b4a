use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{Watch, Watched};
use crate::conditions::Concern;
use crate::event::Event;

/// Fails when it reads an `x`.
struct Pipe(UnixStream);

impl AsRawFd for Pipe {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Watch for Pipe {
    type Change = ();

    fn changed(&mut self) -> io::Result<Option<()>> {
        let mut bytes = [0; 8];
        let length = self.0.read(&mut bytes)?;
        match bytes[..length].contains(&b'x') {
            true => Err(io::Error::other("it broke")),
            false => Ok(Some(())),
        }
    }
}

fn pipe() -> (UnixStream, Pipe) {
    let (writer, reader) = UnixStream::pair().expect("a pair");
    reader.set_nonblocking(true).expect("no blocking");
    (writer, Pipe(reader))
}

/// Rows: RA5
#[test]
fn what_cannot_be_watched_is_polled_and_watched_again() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let (sender, mut events) = mpsc::channel(16);
        let (mut first, broken) = pipe();
        let (mut second, healthy) = pipe();
        // Two attempts fail, the third one succeeds.
        let outcomes = vec![Ok(healthy), Err(()), Err(())];
        let outcomes = Mutex::new(outcomes);
        let arm = move || {
            let next = outcomes.lock().expect("no panic").pop().expect("no further attempt");
            next.map_err(|()| io::Error::other("none is left"))
        };
        let concern = Concern::Directory("x".into());
        let watched = Watched { concern, remedy: "raise it", arm, event: |_| Event::Spool };
        tokio::spawn(
            async move { watched.keep(Ok(broken), &sender, Duration::from_millis(1)).await },
        );
        let mut next = async || events.recv().await.expect("an event");

        first.write_all(b"a").expect("write");
        assert!(matches!(next().await, Event::Spool));
        first.write_all(b"x").expect("write");
        let Event::Condition { concern, text } = next().await else { panic!("no condition") };
        assert_eq!((&*concern.name(), text.as_deref()), ("watch of x", Some("it broke; raise it")));
        // Looked at while it is not watched: before each attempt.
        for _ in 0..3 {
            assert!(matches!(next().await, Event::Spool));
        }
        let Event::Condition { text, .. } = next().await else { panic!("still said") };
        assert_eq!(text, None);
        assert!(matches!(next().await, Event::Spool), "what happened before it was watched");
        second.write_all(b"a").expect("write");
        assert!(matches!(next().await, Event::Spool));
    });
}
