//! Ports that processes of this node listen on: a node port takes their connections away.

use std::collections::BTreeSet;

use causeway_model::{Protocol, Service};

/// Protocols and ports on which a process listens.
pub(crate) type Listening = BTreeSet<(Protocol, u16)>;

/// Reads them from /proc, which tells of the reading thread's namespace.
pub(crate) fn listening() -> Listening {
    let mut listening = Listening::new();
    for (protocol, file, state) in [
        (Protocol::Tcp, "tcp", "0A"),
        (Protocol::Tcp, "tcp6", "0A"),
        (Protocol::Udp, "udp", "07"),
        (Protocol::Udp, "udp6", "07"),
    ] {
        let text = std::fs::read_to_string(format!("/proc/thread-self/net/{file}"));
        let text = text.unwrap_or_default();
        let ports = text.lines().filter_map(|line| port(line, state));
        listening.extend(ports.map(|port| (protocol, port)));
    }
    listening
}

/// The local port of a line, if its socket is in `state`.
fn port(line: &str, state: &str) -> Option<u16> {
    let mut fields = line.split_whitespace().skip(1);
    let (_, port) = fields.next()?.rsplit_once(':')?;
    let found = fields.nth(1)?;
    if found == state { u16::from_str_radix(port, 16).ok() } else { None }
}

/// What to say of node ports that `previous` had not and that a process listens on.
pub(crate) fn shadowed(
    service: &Service,
    previous: Option<&Service>,
    listening: &Listening,
) -> Vec<String> {
    let before: BTreeSet<_> = previous.into_iter().flat_map(node_ports).collect();
    node_ports(service)
        .filter(|port| !before.contains(port) && listening.contains(port))
        .map(|(protocol, port)| {
            format!(
                "node port {port}/{} shadows a local listener, which will no longer receive \
                 connections",
                protocol.name()
            )
        })
        .collect()
}

fn node_ports(service: &Service) -> impl Iterator<Item = (Protocol, u16)> {
    service.ports.iter().filter_map(|port| Some((port.protocol, port.node_port?)))
}

#[cfg(test)]
mod tests {
    use super::port;

    #[test]
    fn lines_of_proc_are_read() {
        let line = "  0: 0100007F:0277 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0";
        assert_eq!(port(line, "0A"), Some(631));
        assert_eq!(port(line, "07"), None);
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt";
        assert_eq!(port(head, "0A"), None);
    }
}
