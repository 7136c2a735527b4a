use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::sync::mpsc;
use std::thread::JoinHandle;

use super::*;

/// A server that reads one request up to `body` bytes of body and answers with `answer`.
fn serve(answer: &'static [u8]) -> (tempfile::TempDir, Client, JoinHandle<String>) {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("socket");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let request = read_request(&mut stream);
        stream.write_all(answer).expect("write the answer");
        request
    });
    (folder, Client::new(&socket), server)
}

fn read_request(stream: &mut impl io::Read) -> String {
    let mut text = String::new();
    let mut byte = [0];
    while !text.ends_with("\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a request");
        text.push(char::from(byte[0]));
    }
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.map_or(0, |digits| digits.parse().expect("a length"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("a body");
    text + &String::from_utf8(body).expect("text")
}

const WAIT: Duration = Duration::from_secs(10);

#[test]
fn a_request_is_http_with_a_json_body_and_gives_the_answer() {
    let (_folder, client, server) =
        serve(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello and no more");
    let answer = client.request("PUT", "/v1/events?a=b", b"{}", WAIT).expect("an answer");
    assert_eq!(answer, b"hello");
    let request = server.join().expect("a request");
    assert!(request.starts_with("PUT /v1/events?a=b HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nhost: causeway\r\n"), "{request}");
    assert!(request.contains("\r\ncontent-type: application/json\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n{}"), "{request}");
}

#[test]
fn an_empty_answer_is_fine() {
    let (_folder, client, server) = serve(b"HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(client.request("GET", "/v1/x", b"", WAIT).expect("an answer"), b"");
    assert!(!server.join().expect("a request").contains("content-type"));
}

#[test]
fn a_refusal_says_what_the_daemon_says() {
    let (_folder, client, _server) = serve(
        b"HTTP/1.1 409 Conflict\r\ncontent-length: 37\r\n\r\n{\"message\":\"taken\",\"causes\":[\"by a\"]}",
    );
    let error = client.request("GET", "/", b"", WAIT).expect_err("a refusal");
    let Error::Refused { status: 409, problem } = &error else { panic!("{error:?}") };
    assert_eq!(problem.causes, ["by a"]);
    assert_eq!(error.to_string(), "taken");
}

#[test]
fn a_refusal_of_somebody_else_is_quoted() {
    let (_folder, client, _server) =
        serve(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 5\r\n\r\noops\n");
    let error = client.request("GET", "/", b"", WAIT).expect_err("a refusal");
    assert_eq!(error.to_string(), "causewayd answers 502 Bad Gateway: oops");
}

#[test]
fn nobody_at_the_socket_is_unreachable() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("socket");
    let client = Client::new(&socket);
    let unreachable = |kind: io::ErrorKind| match client.request("GET", "/", b"", WAIT) {
        Err(Error::Unreachable { source, .. }) => assert_eq!(source.kind(), kind),
        other => panic!("{other:?}"),
    };
    unreachable(io::ErrorKind::NotFound);
    drop(UnixListener::bind(&socket).expect("a socket"));
    unreachable(io::ErrorKind::ConnectionRefused);
}

#[test]
fn silence_ends_with_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("socket");
    let _listener = UnixListener::bind(&socket).expect("a socket");
    let client = Client::new(&socket);
    match client.request("GET", "/quiet", b"", Duration::from_millis(50)) {
        Err(Error::Broken { what, source }) => {
            assert_eq!(source.kind(), io::ErrorKind::TimedOut);
            assert_eq!(what, "GET /quiet: no answer within 50 ms");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn broken_answers_are_errors() {
    let answers: [&[u8]; 4] = [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ];
    for answer in answers {
        let (_folder, client, _server) = serve(answer);
        let got = client.request("GET", "/", b"", WAIT);
        assert!(matches!(got, Err(Error::Broken { .. })), "{got:?} to {answer:?}");
    }
}

#[test]
fn a_path_that_is_none_is_refused_before_anything_is_sent() {
    let client = Client::new(Path::new("/nonexistent"));
    let got = client.request("GET", "/a b", b"", WAIT);
    assert!(matches!(got, Err(Error::Broken { .. })), "{got:?}");
}

#[test]
fn lines_come_as_they_are_sent() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("socket");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let (seen, next) = mpsc::channel::<()>();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        read_request(&mut stream);
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head).expect("the head");
        for chunk in ["4\r\none\n\r\n", "3\r\ntw\n\r\n", "5\r\nthr\nr\r\n", "3\r\nest\r\n0\r\n\r\n"]
        {
            stream.write_all(chunk.as_bytes()).expect("a chunk");
            // The next one only when the line of this one was handed over.
            next.recv_timeout(WAIT).expect("a line was seen");
        }
    });
    let mut lines = Vec::new();
    let mut each = |line: &str| {
        lines.push(line.to_owned());
        seen.send(()).is_ok()
    };
    Client::new(&socket).lines("GET", "/watch", b"", &mut each).expect("lines");
    assert_eq!(lines, ["one", "tw", "thr", "rest"]);
    server.join().expect("all sent");
}

#[test]
fn whoever_has_had_enough_gets_no_more_lines() {
    let (_folder, client, _server) = serve(b"HTTP/1.1 200 OK\r\n\r\none\ntwo\nthree\n");
    let mut count = 0;
    let mut each = |_: &str| {
        count += 1;
        count < 2
    };
    client.lines("GET", "/watch", b"", &mut each).expect("lines");
    assert_eq!(count, 2);
}

/// Rows: RA10
#[test]
fn who_may_not_open_the_socket_is_told_to_be_root() {
    let error = |kind: io::ErrorKind| Error::Unreachable {
        socket: "/run/causeway/causeway.sock".into(),
        source: kind.into(),
    };
    assert_eq!(
        error(io::ErrorKind::PermissionDenied).to_string(),
        "no permission to use /run/causeway/causeway.sock, the socket of causewayd: run it as root"
    );
    assert_eq!(
        error(io::ErrorKind::NotFound).to_string(),
        "causewayd does not answer at /run/causeway/causeway.sock; is it running?"
    );
}
