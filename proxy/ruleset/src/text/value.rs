//! Values, keys, verdicts and durations as nft prints them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{DataType, Key, RegValue, Verdict};

pub(super) fn types(kinds: &[DataType]) -> String {
    kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(" . ")
}

/// The expressions that stand for the types of a set with numbers.
pub(super) fn expressions(kinds: &[DataType]) -> String {
    kinds.iter().map(|kind| expression(*kind)).collect::<Vec<_>>().join(" . ")
}

fn expression(kind: DataType) -> &'static str {
    match kind {
        DataType::Ipv4Addr => "ip daddr",
        DataType::Ipv6Addr => "ip6 daddr",
        DataType::InetProto => "meta l4proto",
        DataType::InetService => "th dport",
        DataType::Mark => "meta mark",
        DataType::IfName => "iifname",
        DataType::EtherAddr => "ether saddr",
        DataType::Number => "numgen random mod 2",
    }
}

pub(super) fn value(value: &RegValue) -> String {
    match value {
        RegValue::V4(address) => address.to_string(),
        RegValue::V6(address) => address.to_string(),
        RegValue::Proto(proto) => protocol(*proto),
        RegValue::Port(port) => port.to_string(),
        RegValue::Mark(value) => mark(*value),
        RegValue::IfName(name) => format!("\"{name}\""),
        RegValue::Number(number) => number.to_string(),
        RegValue::Mac(mac) => {
            mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
        }
    }
}

pub(super) fn mark(mark: u32) -> String {
    format!("0x{mark:08x}")
}

/// Names of the protocols that nft's own scanner knows, or that `/etc/protocols` lists everywhere.
fn protocol(number: u8) -> String {
    let name = match number {
        1 => "icmp",
        6 => "tcp",
        17 => "udp",
        33 => "dccp",
        58 => "ipv6-icmp",
        132 => "sctp",
        136 => "udplite",
        _ => return number.to_string(),
    };
    name.to_owned()
}

pub(super) fn values(values: &[RegValue]) -> String {
    values.iter().map(value).collect::<Vec<_>>().join(" . ")
}

pub(super) fn key(key: &Key) -> String {
    match key {
        Key::Exact(components) => values(components),
        Key::Range(from, to) => {
            let ranges = from.iter().zip(to).map(|(from, to)| range(from, to));
            ranges.collect::<Vec<_>>().join(" . ")
        }
    }
}

fn range(from: &RegValue, to: &RegValue) -> String {
    if from == to {
        return value(from);
    }
    match prefix(from, to) {
        Some(prefix) => format!("{}/{prefix}", value(from)),
        None => format!("{}-{}", value(from), value(to)),
    }
}

/// Length of the prefix that these addresses are first and last of.
fn prefix(from: &RegValue, to: &RegValue) -> Option<u32> {
    let (from, to, width) = match (from, to) {
        (RegValue::V4(from), RegValue::V4(to)) => {
            (u128::from(from.to_bits()), u128::from(to.to_bits()), Ipv4Addr::BITS)
        }
        (RegValue::V6(from), RegValue::V6(to)) => (from.to_bits(), to.to_bits(), Ipv6Addr::BITS),
        _ => return None,
    };
    let host = from ^ to;
    let aligned = host & host.wrapping_add(1) == 0 && from & host == 0;
    aligned.then(|| width - host.count_ones())
}

/// An address with a port, or alone.
pub(super) fn target(address: IpAddr, port: Option<u16>) -> String {
    match (address, port) {
        (address, None) => address.to_string(),
        (IpAddr::V4(address), Some(port)) => format!("{address}:{port}"),
        (IpAddr::V6(address), Some(port)) => format!("[{address}]:{port}"),
    }
}

pub(super) fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Return => "return".to_owned(),
        Verdict::Jump(chain) => format!("jump {chain}"),
        Verdict::Goto(chain) => format!("goto {chain}"),
    }
}

/// Milliseconds as nft prints durations: `1d2h3m4s5ms`.
pub(super) fn duration(mut milliseconds: u64) -> String {
    let mut text = String::new();
    for (unit, name) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")]
    {
        if milliseconds >= unit {
            text.push_str(&format!("{}{name}", milliseconds / unit));
            milliseconds %= unit;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}
