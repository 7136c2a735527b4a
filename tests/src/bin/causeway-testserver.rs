//! A server for containers of tests and demos: says who answers, needs nothing from its image.
//!
//! `causeway-testserver [--hostname-text] [--tcp ADDRESS:PORT].. [--udp ADDRESS:PORT]..`; without
//! addresses it listens on ports 80 and 8080 of both protocols. HTTP is answered with `HTTP Server
//! IP address: <ip>` and `Request path: <path>`, or with `--hostname-text` by `HOSTNAME:<name>
//! IP:<ip>`. Any other TCP line and every UDP packet get the line of `traffic`. When it listens on
//! all addresses it prints `ready` on stdout.
#![expect(clippy::print_stdout, reason = "the words `ready` and the usage go to stdout")]

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::thread;

use causeway_tests::traffic::{PATIENCE, line};

const USAGE: &str =
    "usage: causeway-testserver [--hostname-text] [--tcp ADDRESS:PORT].. [--udp ADDRESS:PORT]..";

#[derive(Debug, Default)]
struct Options {
    hostname_text: bool,
    tcp: Vec<SocketAddr>,
    udp: Vec<SocketAddr>,
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let served = options(std::env::args().skip(1)).and_then(|options| serve(&options));
    let Err(message) = served;
    eprintln!("causeway-testserver: {message}");
    ExitCode::from(2)
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options::default();
    while let Some(argument) = arguments.next() {
        let list = match argument.as_str() {
            "--hostname-text" => {
                options.hostname_text = true;
                continue;
            }
            "--tcp" => &mut options.tcp,
            "--udp" => &mut options.udp,
            _ => return Err(format!("unknown argument {argument:?}; {USAGE}")),
        };
        let text = arguments.next().unwrap_or_default();
        list.push(text.parse().map_err(|e| format!("{argument} {text:?}: {e}; {USAGE}"))?);
    }
    if options.tcp.is_empty() && options.udp.is_empty() {
        options.tcp = [80, 8080].map(|port| SocketAddr::from(([0; 16], port))).to_vec();
        options.udp.clone_from(&options.tcp);
    }
    Ok(options)
}

/// Listens on every address and answers for ever.
fn serve(options: &Options) -> Result<std::convert::Infallible, String> {
    stop_on_sigterm();
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim().to_owned();
    for address in &options.tcp {
        let listener = TcpListener::bind(address).map_err(|e| format!("--tcp {address}: {e}"))?;
        let (name, hostname_text) = (name.clone(), options.hostname_text);
        thread::spawn(move || {
            while let Ok((stream, peer)) = listener.accept() {
                let name = name.clone();
                // A client that goes away early is its own business.
                thread::spawn(move || drop(answer(stream, peer, &name, hostname_text)));
            }
        });
    }
    for address in &options.udp {
        let socket = UdpSocket::bind(address).map_err(|e| format!("--udp {address}: {e}"))?;
        let name = name.clone();
        thread::spawn(move || while echo(&socket, &name).is_ok() {});
    }
    println!("ready");
    loop {
        thread::park();
    }
}

fn answer(stream: TcpStream, peer: SocketAddr, name: &str, hostname_text: bool) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let own = stream.local_addr()?.ip().to_canonical();
    let mut reader = BufReader::new(&stream);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let request = request.trim_end();
    let Some(path) = path_of(request) else {
        return (&stream).write_all(line(name, own, canonical(peer), request).as_bytes());
    };
    let mut header = String::new();
    while reader.read_line(&mut header)? > 0 && !header.trim_end().is_empty() {
        header.clear();
    }
    let body = if hostname_text {
        format!("HOSTNAME:{name} IP:{own}\n")
    } else {
        format!("HTTP Server IP address: {own}\nRequest path: {path}\n")
    };
    write!(
        &stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
         Connection: close\r\nX-Client: {}\r\n\r\n{body}",
        body.len(),
        canonical(peer)
    )
}

/// The path of `GET /path HTTP/1.1`.
fn path_of(request: &str) -> Option<&str> {
    let mut words = request.split(' ');
    let (_method, path, protocol) = (words.next()?, words.next()?, words.next()?);
    protocol.starts_with("HTTP/").then_some(path)
}

fn echo(socket: &UdpSocket, name: &str) -> io::Result<()> {
    let mut buffer = [0; 2048];
    let (length, peer) = socket.recv_from(&mut buffer)?;
    let text = String::from_utf8_lossy(&buffer[..length]);
    let reply = line(name, towards(peer)?, canonical(peer), text.trim_end());
    // An error here is an ICMP answer to an earlier reply; the next request is served all the same.
    drop(socket.send_to(reply.as_bytes(), peer));
    Ok(())
}

/// The address that packets to `peer` leave from.
fn towards(peer: SocketAddr) -> io::Result<IpAddr> {
    let probe = UdpSocket::bind(if peer.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    probe.connect(peer)?;
    Ok(probe.local_addr()?.ip().to_canonical())
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// As the first process of a container SIGTERM would be ignored, and every stop take ten seconds.
fn stop_on_sigterm() {
    extern "C" fn stop(_signal: libc::c_int) {
        // SAFETY: _exit is async-signal-safe.
        unsafe { libc::_exit(0) }
    }
    // SAFETY: the handler calls only what is async-signal-safe.
    unsafe { libc::signal(libc::SIGTERM, stop as *const () as libc::sighandler_t) };
}
