//! Which servers are asked for names outside: a list of the settings, or a resolv.conf read with leniency.
//!
//! A line that is not understood costs that line alone (row D-47): it is skipped with a warning, and the
//! rest is used. What concerns programs and no servers (`search`, `options ndots:5`) is skipped in silence.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::str::FromStr;

/// So many servers are asked at most; what a file lists beyond is left out with a warning.
pub const MAX_UPSTREAMS: usize = 15;

/// Where the stub resolver of systemd listens; it may lead back to us, so that its own list is better.
const STUBS: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 53), Ipv4Addr::new(127, 0, 0, 54)];

/// Options that programs have by glibc 2.41, musl 1.2, and the BSDs; none says anything about servers.
const OPTIONS: &[&str] = &[
    "attempts",
    "debug",
    "edns0",
    "inet6",
    "insecure1",
    "insecure2",
    "ip6-bytestring",
    "ip6-dotint",
    "ndots",
    "no-aaaa",
    "no-check-names",
    "no-ip6-dotint",
    "no-reload",
    "no-tld-query",
    "no_tld_query",
    "rotate",
    "single-request",
    "single-request-reopen",
    "tcp",
    "timeout",
    "trust-ad",
    "use-vc",
];

/// A server that is asked for names outside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Upstream {
    /// Where it is.
    pub address: IpAddr,
    /// 53 unless told otherwise.
    pub port: u16,
    /// The link of a link-local address, by name or number: `eth0` of `fe80::1%eth0`.
    pub zone: Option<String>,
}

impl Upstream {
    /// The address for a socket; `index` is that of the link that `zone` names, 0 without one.
    pub fn socket_address(&self, index: u32) -> SocketAddr {
        match self.address {
            IpAddr::V4(address) => SocketAddr::from((address, self.port)),
            IpAddr::V6(address) => SocketAddrV6::new(address, self.port, 0, index).into(),
        }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zone = self.zone.as_ref().map(|zone| format!("%{zone}")).unwrap_or_default();
        match (self.address, self.port) {
            (address, 53) => write!(out, "{address}{zone}"),
            (IpAddr::V4(address), port) => write!(out, "{address}:{port}"),
            (IpAddr::V6(address), port) => write!(out, "[{address}{zone}]:{port}"),
        }
    }
}

impl FromStr for Upstream {
    type Err = String;

    /// `ADDR`, `ADDR%ZONE`, `ADDR:PORT`, `[ADDR6]:PORT`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no address of a DNS server: give ADDR or ADDR:PORT");
        if let Some(upstream) = parse_address(text, 53) {
            return Ok(upstream);
        }
        let (address, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let address = match address.strip_prefix('[') {
            Some(inside) => inside.strip_suffix(']').ok_or_else(wrong)?,
            None if address.contains(':') => return Err(wrong()),
            None => address,
        };
        let port = port.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        parse_address(address, port).ok_or_else(wrong)
    }
}

fn parse_address(text: &str, port: u16) -> Option<Upstream> {
    let (address, zone) = match text.split_once('%') {
        Some((address, zone)) if !zone.is_empty() => (address, Some(zone)),
        Some(_) => return None,
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    let unusable = address.is_unspecified() || address.is_multicast();
    if unusable || (zone.is_some() && !local) {
        return None;
    }
    Some(Upstream { address, port, zone: zone.map(str::to_owned) })
}

/// What a resolv.conf says about servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// In the order of the file, each once, own addresses left out.
    pub upstreams: Vec<Upstream>,
    /// systemd's stub is among them: systemd's own list is to be read instead (row D-32).
    pub stub: bool,
    /// What was skipped, with file and line.
    pub warnings: Vec<String>,
}

impl ResolvConf {
    /// Of the `content` of `file`, which is named in warnings. Servers at one of the `own` listening
    /// addresses would lead back to us and are left out.
    pub fn read(file: &str, content: &str, own: &BTreeSet<SocketAddr>) -> Self {
        let mut found = Self::default();
        for (index, line) in content.lines().enumerate() {
            if let Err(why) = found.line(line, own) {
                found.warnings.push(format!("{file}:{}: {why}", index + 1));
            }
        }
        found
    }

    fn line(&mut self, line: &str, own: &BTreeSet<SocketAddr>) -> Result<(), String> {
        let mut words = line.split_whitespace().take_while(|word| !word.starts_with(['#', ';']));
        match words.next() {
            None | Some("search" | "domain" | "sortlist" | "lookup" | "family") => Ok(()),
            Some("options") => {
                let name = |word: &str| word.split(':').next().unwrap_or_default().to_owned();
                match words.find(|word| !OPTIONS.contains(&name(word).as_str())) {
                    Some(unknown) => Err(format!("unknown option {unknown:?} is skipped")),
                    None => Ok(()),
                }
            }
            Some("nameserver") => self.server(words.next().unwrap_or_default(), own),
            Some(unknown) => Err(format!("unknown line {unknown:?} is skipped")),
        }
    }

    fn server(&mut self, text: &str, own: &BTreeSet<SocketAddr>) -> Result<(), String> {
        let upstream = parse_address(text, 53)
            .ok_or_else(|| format!("nameserver {text:?} is no address and is skipped"))?;
        let needs_zone =
            matches!(upstream.address, IpAddr::V6(ip) if Ipv6Addr::is_unicast_link_local(&ip));
        if needs_zone && upstream.zone.is_none() {
            return Err(format!("nameserver {text} needs a link (%eth0) and is skipped"));
        }
        let itself = own.iter().any(|own| own.ip() == upstream.address && own.port() == 53);
        if itself {
            return Err(format!("nameserver {text} is this daemon's own address and is skipped"));
        }
        self.stub |= STUBS.iter().any(|stub| upstream.address == IpAddr::V4(*stub));
        if self.upstreams.contains(&upstream) {
            return Ok(());
        }
        if self.upstreams.len() == MAX_UPSTREAMS {
            return Err(format!("nameserver {text} is skipped: {MAX_UPSTREAMS} are used at most"));
        }
        self.upstreams.push(upstream);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
