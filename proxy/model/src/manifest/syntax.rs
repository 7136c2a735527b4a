//! What names, labels, ports and addresses must look like; rules of Kubernetes' `apimachinery`
//! (`util/validation`) and `core/validation`.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// RFC 1123 label: `a-z0-9-`, at most 63.
pub(crate) fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// RFC 1123 label or the reason why not.
pub(super) fn dns_label(text: &str) -> Result<(), String> {
    if is_dns_label(text) {
        return Ok(());
    }
    Err(format!(
        "{text:?} is not a DNS label: lower-case letters, digits and '-', which must not come \
         first or last, at most 63 characters"
    ))
}

/// RFC 1035 label (names of services): as a DNS label, and a letter first.
pub(super) fn dns_1035(text: &str) -> Result<(), String> {
    dns_label(text)?;
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!("{text:?} must begin with a letter"));
    }
    Ok(())
}

/// RFC 1123 subdomain: DNS labels joined by dots, at most 253. Labels may be longer than 63, as in
/// Kubernetes.
pub(super) fn dns_subdomain(text: &str) -> Result<(), String> {
    let label = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    if text.len() <= 253 && text.split('.').all(label) {
        return Ok(());
    }
    Err(format!(
        "{text:?} is not a DNS name: labels of lower-case letters, digits and '-' joined by '.', \
         at most 253 characters"
    ))
}

/// Name of a port of a container (IANA service name).
pub(super) fn port_name(text: &str) -> Result<(), String> {
    let fine = (1..=15).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && text.bytes().any(|b| b.is_ascii_lowercase())
        && !text.contains("--")
        && !text.starts_with('-')
        && !text.ends_with('-');
    if fine {
        return Ok(());
    }
    Err(format!(
        "{text:?} is not a port name: lower-case letters, digits and single '-' inside, at least \
         one letter, at most 15 characters; write a port number without quotes"
    ))
}

/// `[PREFIX/]NAME`, as keys of labels.
pub(super) fn qualified_name(text: &str) -> Result<(), String> {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    if let Some(prefix) = prefix {
        dns_subdomain(prefix).map_err(|_| {
            format!("{text:?}: the part before '/' must be a DNS name such as example.com")
        })?;
    }
    if is_name_part(name) {
        return Ok(());
    }
    Err(format!(
        "{text:?}: a key is NAME or DNSNAME/NAME; NAME consists of letters, digits, '-', '_' and \
         '.', starts and ends with a letter or digit, and has at most 63 characters"
    ))
}

/// Value of a label; may be empty.
pub(super) fn label_value(text: &str) -> Result<(), String> {
    if text.is_empty() || is_name_part(text) {
        return Ok(());
    }
    Err(format!(
        "{text:?} is not a label value: letters, digits, '-', '_' and '.', starting and ending \
         with a letter or digit, at most 63 characters"
    ))
}

fn is_name_part(text: &str) -> bool {
    let alphanumeric = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && alphanumeric(bytes.first())
        && alphanumeric(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

/// An address.
pub(super) fn ip(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text
        .parse()
        .map_err(|_| format!("{text:?} is not an IP address such as 10.96.0.10 or fd00::a"))?;
    if let IpAddr::V6(v6) = address
        && v6.to_ipv4_mapped().is_some()
    {
        return Err(format!("{text:?} is an IPv4 address in IPv6 form: write it as IPv4"));
    }
    Ok(address)
}

/// An address that can be one of a host of some network.
pub(super) fn unicast(text: &str) -> Result<IpAddr, String> {
    let address = ip(text)?;
    match special(address) {
        Some(what) => Err(format!("{address} is {what} and cannot be used here")),
        None => Ok(address),
    }
}

/// What makes an address unfit for services and endpoints.
pub fn special(address: IpAddr) -> Option<&'static str> {
    let (link_local, broadcast, mapped) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.is_broadcast(), false),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), false, v6.to_ipv4_mapped().is_some()),
    };
    if mapped {
        Some("an IPv4 address in IPv6 form")
    } else if broadcast {
        Some("the broadcast address")
    } else if address.is_unspecified() {
        Some("the unspecified address")
    } else if address.is_loopback() {
        Some("a loopback address")
    } else if link_local {
        Some("a link-local address")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else {
        None
    }
}

/// A network, host bits cleared.
pub(super) fn network(text: &str) -> Result<IpNetwork, String> {
    let fine = text.contains('/').then(|| text.trim().parse::<IpNetwork>().ok()).flatten();
    let network =
        fine.ok_or_else(|| format!("{text:?} is not a network such as 10.0.0.0/8 or fd00::/64"))?;
    IpNetwork::new(network.network(), network.prefix()).map_err(|error| error.to_string())
}
