#!/bin/bash
# Waiting until a connected UDP socket is readable does not end when the port is refused.
#
# Seen with: tokio 1.54.1, Rust 1.95.0 on Linux 6.18. The ICMP answer "port unreachable" becomes a pending error of a
# connected socket. epoll reports that as EPOLLERR without EPOLLIN (udp_poll in net/ipv4/udp.c), and tokio's
# readable() waits for EPOLLIN alone, so a program that waits before it reads learns of the refusal by its own
# time-out. ready() with Interest::ERROR returns at once, and take_error() has the reason. recv() has it only if
# it is pending when recv() is called.
# Expected by guess: readable() returns, as poll(2) with POLLIN does, and the read after it fails.
# Output seen:
#   blocking recv: connection refused
#   readable: nothing within 2 s
#   ready with ERROR: at once, connection refused
#
# Needs root (unshare), Rust, crates.io. Exits 1 if readable() returns or ready() does not.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/src"
cat >"$work/Cargo.toml" <<'TOML'
[package]
name = "refused"
version = "0.0.0"
edition = "2021"

[dependencies]
tokio = { version = "=1.54.1", default-features = false, features = ["rt", "net", "time"] }
TOML
cat >"$work/src/main.rs" <<'RUST'
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::timeout;

const REFUSED: &str = "127.0.0.1:9";

async fn asked() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(REFUSED).await.unwrap();
    socket.send(b"x").await.unwrap();
    socket
}

fn main() {
    let blocking = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    blocking.connect(REFUSED).unwrap();
    blocking.send(b"x").unwrap();
    println!("blocking recv: {}", blocking.recv(&mut [0; 8]).unwrap_err().kind());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let waited = timeout(Duration::from_secs(2), asked().await.readable()).await;
        println!("readable: {}", if waited.is_err() { "nothing within 2 s" } else { "returned" });
        let (socket, began) = (asked().await, Instant::now());
        let ready = socket.ready(Interest::READABLE | Interest::ERROR);
        let ready = timeout(Duration::from_secs(2), ready).await;
        let why = socket.take_error().unwrap().map(|error| error.kind().to_string());
        let when = if began.elapsed() < Duration::from_secs(1) { "at once" } else { "late" };
        println!("ready with ERROR: {when}, {}", why.as_deref().unwrap_or("no error"));
        if waited.is_ok() || ready.is_err() {
            std::process::exit(1);
        }
    });
}
RUST
rustc --version
uname -r
cd "$work" # the project has settings of its own
cargo build --quiet --target-dir target
unshare --net sh -c 'ip link set lo up && exec "$0"' target/debug/refused
