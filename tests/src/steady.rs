//! Traffic that goes on while things happen, and what became of it.

use std::hash::Hasher as _;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Ns;
use crate::run::wait;

/// Echo requests every 20 ms.
#[derive(Debug)]
pub struct Pings {
    child: Child,
    shown: String,
}

/// The outcome of [`Pings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pinged {
    /// Requests.
    pub sent: usize,
    /// Requests without an answer.
    pub lost: usize,
}

impl Pings {
    /// Starts them from a namespace.
    pub fn start(from: &Ns, to: &str) -> Self {
        let mut command = from.command("ping");
        command.args(["-n", "-q", "-i", "0.02", to]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let shown = format!("{} pings {to}", from.name());
        let child = command.spawn().unwrap_or_else(|e| panic!("start ping: {e}"));
        Self { child, shown }
    }

    /// Ends them and counts.
    pub fn end(self) -> Pinged {
        let pid = i32::try_from(self.child.id()).expect("a process id is positive");
        // SAFETY: takes two numbers; the child has not been waited for.
        unsafe { libc::kill(pid, libc::SIGINT) };
        let done = wait(self.child, self.shown);
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        let counts = text.lines().find(|line| line.contains("packets transmitted"));
        let counts = counts.unwrap_or_else(|| panic!("{}", done.describe()));
        let mut numbers = counts.split(' ').filter_map(|word| word.parse::<usize>().ok());
        let (sent, received) = (numbers.next(), numbers.next());
        let (sent, received) = (sent.expect("how many"), received.expect("how many"));
        // The last may still have been under way.
        Pinged { sent, lost: sent.saturating_sub(received + 1) }
    }
}

/// One TCP connection over which a number goes every 5 ms and comes back.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    client: JoinHandle<io::Result<Streamed>>,
}

/// The outcome of a [`Stream`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streamed {
    /// Numbers that came back, all in order.
    pub numbers: u64,
    /// Longest time between sending a number and its coming back.
    pub slowest: Duration,
}

impl Stream {
    /// Opens it from one namespace to an address of another, or to one that leads there.
    pub fn start(from: &Ns, server: &Ns, to: &str, port: u16) -> Self {
        let listener = server.run(|| TcpListener::bind(("::", port)));
        let listener = listener.unwrap_or_else(|e| panic!("listen: {e}"));
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept()?;
            let mut buffer = [0; 4096];
            loop {
                let length = stream.read(&mut buffer)?;
                if length == 0 {
                    return io::Result::Ok(());
                }
                stream.write_all(&buffer[..length])?;
            }
        });
        let stream = from.run(|| TcpStream::connect(to));
        let mut stream = stream.unwrap_or_else(|e| panic!("{} to {to}: {e}", from.name()));
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let client = std::thread::spawn(move || {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            let (mut numbers, mut slowest) = (0_u64, Duration::ZERO);
            while !flag.load(Ordering::Relaxed) {
                let started = Instant::now();
                stream.write_all(&numbers.to_be_bytes())?;
                let mut back = [0; 8];
                stream.read_exact(&mut back)?;
                if u64::from_be_bytes(back) != numbers {
                    return Err(io::Error::other(format!("{back:?} instead of {numbers}")));
                }
                numbers += 1;
                slowest = slowest.max(started.elapsed());
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(Streamed { numbers, slowest })
        });
        Self { stop, client }
    }

    /// Ends it. Panics if it broke.
    pub fn end(self) -> Streamed {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        ended.unwrap_or_else(|e| panic!("the stream broke: {e}"))
    }
}

/// Sends so many bytes by TCP to a listener in `server`; both ends' hashes must be equal. Returns
/// how long it took.
pub fn transfer(from: &Ns, server: &Ns, to: &str, port: u16, bytes: usize) -> Duration {
    let listener = server.run(|| TcpListener::bind(("::", port)));
    let listener = listener.unwrap_or_else(|e| panic!("listen: {e}"));
    let receiver = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(crate::DEADLINE))?;
        let mut hash = std::hash::DefaultHasher::new();
        let (mut buffer, mut length) = (vec![0; 1 << 16], 0);
        loop {
            let read = stream.read(&mut buffer)?;
            if read == 0 {
                return io::Result::Ok((length, hash.finish()));
            }
            hash.write(&buffer[..read]);
            length += read;
        }
    });
    let started = Instant::now();
    let sent = from.run(|| {
        let mut stream = TcpStream::connect(to)?;
        stream.set_write_timeout(Some(crate::DEADLINE))?;
        let mut hash = std::hash::DefaultHasher::new();
        let (mut state, mut left) = (0x2545_f491_4f6c_dd1d_u64, bytes);
        let mut block = vec![0; 1 << 16];
        while left > 0 {
            for word in block.chunks_exact_mut(8) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                word.copy_from_slice(&state.to_be_bytes());
            }
            let part = &block[..left.min(block.len())];
            hash.write(part);
            stream.write_all(part)?;
            left -= part.len();
        }
        io::Result::Ok(hash.finish())
    });
    let sent = sent.unwrap_or_else(|e| panic!("{} to {to}: {e}", from.name()));
    let received = receiver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let (length, hash) = received.unwrap_or_else(|e| panic!("receive: {e}"));
    assert_eq!((length, hash), (bytes, sent), "what arrived is not what was sent");
    started.elapsed()
}

/// IP fragments that a namespace made, received, or could not make, of both families.
pub fn fragments(ns: &Ns) -> u64 {
    let text = ns.sh("cat /proc/net/snmp /proc/net/snmp6");
    let mut count = 0;
    let lines: Vec<Vec<&str>> =
        text.lines().map(|line| line.split_whitespace().collect()).collect();
    let heads = lines.iter().zip(lines.iter().skip(1)).filter(|(head, _)| head[0] == "Ip:");
    if let Some((head, values)) = heads.into_iter().next() {
        for (name, value) in head.iter().zip(values) {
            if ["ReasmReqds", "FragOKs", "FragFails", "FragCreates"].contains(name) {
                count += value.parse::<u64>().expect("a count");
            }
        }
    }
    for line in &lines {
        let name = line[0].strip_prefix("Ip6").unwrap_or_default();
        if ["ReasmReqds", "FragOKs", "FragFails", "FragCreates"].contains(&name) {
            count += line[1].parse::<u64>().expect("a count");
        }
    }
    count
}
