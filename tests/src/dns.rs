//! Real clients and servers of DNS.

use std::net::IpAddr;
use std::process::{Child, Stdio};

use crate::{DEADLINE, Ns};

/// A dnsmasq that knows a few names and asks nobody, at port 53 of an address. Killed on drop.
#[derive(Debug)]
pub struct Dnsmasq(Child);

impl Dnsmasq {
    /// Starts it inside `ns` and returns when it answers. `names` are flags of dnsmasq, such as
    /// `--address=/example.org/192.0.2.1`.
    pub fn start(ns: &Ns, address: &str, names: &[&str]) -> Self {
        let mut command = ns.command("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
        ]);
        command.args(["--bind-interfaces", "--pid-file=", "--user=root", "--local-ttl=60"]);
        command.arg(format!("--listen-address={address}")).args(names);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self(command.spawn().unwrap_or_else(|e| panic!("start dnsmasq: {e}")));
        let limit = std::time::Instant::now() + DEADLINE;
        // `dig` waits for an answer or a refusal each time.
        while Dig::at(ns, address).ask("localhost A").code.is_empty() {
            assert!(std::time::Instant::now() < limit, "dnsmasq does not answer at {address}");
        }
        server
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// `dig` in a namespace.
#[derive(Clone, Copy, Debug)]
pub struct Dig<'a> {
    ns: &'a Ns,
    server: &'a str,
    flags: &'a str,
}

/// What `dig` was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DigAnswer {
    /// `NOERROR`, `NXDOMAIN`, ..; empty if nobody answered.
    pub code: String,
    /// `qr aa rd ra`
    pub flags: String,
    /// Lines `NAME TTL CLASS TYPE DATA` of the answer section, single blanks between the words.
    pub answers: Vec<String>,
    /// The same of the authority section.
    pub authority: Vec<String>,
    /// All that it printed.
    pub text: String,
}

impl<'a> Dig<'a> {
    /// Asks a server by UDP, once, for two seconds at most.
    pub fn at(ns: &'a Ns, server: &'a str) -> Self {
        Self { ns, server, flags: "" }
    }

    /// The same with more flags, such as `+tcp`.
    pub fn with(self, flags: &'a str) -> Self {
        Self { flags, ..self }
    }

    /// Asks for `NAME TYPE`.
    pub fn ask(&self, question: &str) -> DigAnswer {
        let Self { server, flags, .. } = self;
        let found =
            self.ns.try_sh(&format!("dig @{server} {flags} +tries=1 +time=2 +nocookie {question}"));
        DigAnswer::read(String::from_utf8_lossy(&found.stdout).into_owned())
    }

    /// The data of the answers' records of one type, in order of their text.
    pub fn data(&self, question: &str) -> Vec<String> {
        let answer = self.ask(question);
        assert_eq!(answer.code, "NOERROR", "{question}: {}", answer.text);
        let mut data: Vec<String> = answer.answers.iter().map(|line| data(line)).collect();
        data.sort();
        data
    }

    /// The addresses that a name leads to.
    pub fn addresses(&self, question: &str) -> Vec<IpAddr> {
        self.data(question).iter().filter_map(|one| one.parse().ok()).collect()
    }
}

/// What follows name, TTL, class and type.
fn data(line: &str) -> String {
    line.split(' ').skip(4).collect::<Vec<_>>().join(" ")
}

impl DigAnswer {
    fn read(text: String) -> Self {
        let after = |mark: &str| {
            let found = text.lines().find_map(|line| line.split_once(mark))?.1;
            found.split([',', ';']).next().map(|value| value.trim().to_owned())
        };
        let section = |name: &str| {
            let lines = text.lines().skip_while(|line| !line.contains(name)).skip(1);
            let lines = lines.take_while(|line| !line.is_empty());
            lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
        };
        Self {
            code: after("status: ").unwrap_or_default(),
            flags: after(";; flags: ").unwrap_or_default(),
            answers: section("ANSWER SECTION"),
            authority: section("AUTHORITY SECTION"),
            text,
        }
    }
}
