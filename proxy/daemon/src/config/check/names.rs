//! Settings of the name server.

use std::net::{IpAddr, SocketAddr};

use super::super::given::Values;
use super::super::{DnsListen, DnsSettings, Error, Settings};
use super::value::{Reason, address, listener};
use super::{Given, Reader};

/// Port of DNS.
const PORT: u16 = 53;
/// A name has 255 octets at most, so a domain must leave room for two labels and `svc`.
const DOMAIN_LENGTH: usize = 120;
/// As many as CoreDNS takes.
const UPSTREAMS: usize = 15;

/// What `--dns-..` say, each for itself.
///
/// # Errors
/// The first one that is wrong.
pub(super) fn settings(value: &Reader<'_>) -> Result<DnsSettings, Error> {
    let vips = value.list("dns-vip", address)?;
    Ok(DnsSettings {
        listen: value.parse("dns-listen", listen)?,
        domain: value.parse("dns-domain", domain)?,
        upstreams: value.list("dns-upstream", upstream)?,
        ttl: value.parse("dns-ttl", ttl)?,
        vips: (!vips.is_empty()).then_some(vips),
    })
}

/// What must hold between them and others.
///
/// # Errors
/// The first one that does not.
pub(super) fn check(values: &Values, settings: &Settings) -> Result<(), Error> {
    let given = |name: &str| match values.get(name) {
        Some(given) => given.clone(),
        None => Given { value: String::new(), field: format!("--{name}") },
    };
    if settings.dns.upstreams.len() > UPSTREAMS {
        let reason = format!("names more than {UPSTREAMS} servers; give the nearest ones");
        return Err(given("dns-upstream").wrong(reason));
    }
    if settings.dns.vips.is_some() && settings.dns.listen != DnsListen::Auto {
        return Err(given("dns-vip").wrong("has no effect without --dns-listen auto; omit it"));
    }
    for vip in settings.dns.vips.iter().flatten() {
        if let Some(cluster) = settings.cluster_cidrs.iter().find(|one| one.contains(*vip)) {
            let reason = format!(
                "{vip} is in the cluster network {cluster}, whose addresses are containers'; \
                 choose one of the service network"
            );
            return Err(given("dns-vip").wrong(reason));
        }
        if settings.node_ips.contains(vip) || vip.is_loopback() || vip.is_multicast() {
            let reason = format!(
                "{vip} is no address of a service; choose one of the service network, or use \
                 --dns-listen {vip}:{PORT}"
            );
            return Err(given("dns-vip").wrong(reason));
        }
    }
    Ok(())
}

fn listen(text: &str) -> Result<DnsListen, Reason> {
    match text {
        "auto" => Ok(DnsListen::Auto),
        "off" => Ok(DnsListen::Off),
        "" => Err("neither auto nor off nor addresses".into()),
        _ => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            let each = items.map(|item| match listener(item) {
                // An answer would leave by another address than was asked.
                Ok(at) if at.ip().is_unspecified() => {
                    Err(format!("{item}: names no address; list those of this node, or use auto"))
                }
                Ok(at) => Ok(at),
                Err(_) => Err(format!(
                    "{item}: neither auto nor off nor ADDRESS:PORT, such as 10.0.1.1:53"
                )),
            });
            each.collect::<Result<Vec<_>, Reason>>().map(DnsListen::At)
        }
    }
}

/// A domain of letters, digits and dashes, without the dot at its end.
fn domain(text: &str) -> Result<String, Reason> {
    let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let label = |part: &str| {
        (1..=63).contains(&part.len())
            && part.bytes().all(inner)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    if text.len() <= DOMAIN_LENGTH && text.split('.').all(label) {
        return Ok(text);
    }
    Err(format!(
        "not a domain; use letters, digits, - and ., at most {DOMAIN_LENGTH}, such as cluster.local"
    ))
}

/// A server, at port 53 if it names none.
fn upstream(text: &str) -> Result<SocketAddr, Reason> {
    let server = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT));
    let server = server.or_else(|_| text.parse::<SocketAddr>());
    match server {
        Ok(server) if server.ip().is_unspecified() || server.port() == 0 => {
            Err("is no server's address".into())
        }
        Ok(server) => Ok(server),
        Err(_) => Err("neither an IP address nor ADDRESS:PORT, such as 1.1.1.1:53".into()),
    }
}

fn ttl(text: &str) -> Result<u32, Reason> {
    match text.parse() {
        Ok(seconds @ 0..=3600) => Ok(seconds),
        Ok(_) | Err(_) => Err("not a number of seconds between 0 and 3600".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_listen_at_are_auto_off_or_a_list() {
        assert_eq!(listen("auto"), Ok(DnsListen::Auto));
        assert_eq!(listen("off"), Ok(DnsListen::Off));
        let two = ["10.0.1.1:53", "[fd00::1]:5353"].map(|one| one.parse().expect("an address"));
        assert_eq!(listen("10.0.1.1:53, [fd00::1]:5353"), Ok(DnsListen::At(two.to_vec())));
        for wrong in ["", "on", "10.0.1.1", "auto,10.0.1.1:53", "10.0.1.1:53,off", "[::]:53"] {
            assert!(listen(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn domains_servers_and_seconds_are_checked() {
        assert_eq!(domain("Cluster.Local."), Ok("cluster.local".to_owned()));
        for wrong in ["", ".", "a..b", "a_b", "-a", "a-", &"a".repeat(64), &"a.".repeat(61)] {
            assert!(domain(wrong).is_err(), "{wrong:?}");
        }
        let at = |text: &str| text.parse().expect("an address");
        assert_eq!(upstream("1.1.1.1"), Ok(at("1.1.1.1:53")));
        assert_eq!(upstream("fd00::1"), Ok(at("[fd00::1]:53")));
        assert_eq!(upstream("[fd00::1]:5353"), Ok(at("[fd00::1]:5353")));
        for wrong in ["", "one.one.one.one", "0.0.0.0", "1.1.1.1:0", "1.1.1.1:x"] {
            assert!(upstream(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!((ttl("0"), ttl("3600")), (Ok(0), Ok(3600)));
        assert!(ttl("3601").is_err() && ttl("-1").is_err() && ttl("5s").is_err());
    }
}
