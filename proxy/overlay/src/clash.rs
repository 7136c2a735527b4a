//! Why the kernel refuses a vxlan device (row O-18).

use std::net::IpAddr;

use crate::VxlanLink;

/// A vxlan device of another program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherVxlan {
    /// Its name.
    pub name: String,
    /// VNI.
    pub id: u32,
    /// UDP port.
    pub port: u16,
    /// Its own end; `None`: any.
    pub local: Option<IpAddr>,
}

/// What to say when the kernel answers `EEXIST` or `EADDRINUSE` to the making of `link`: VNI and
/// port are taken, by one of `others` if it is in this network namespace.
pub fn clash(link: &VxlanLink, others: &[OtherVxlan]) -> String {
    let same = |other: &&OtherVxlan| other.id == link.id && other.port == link.port;
    let VxlanLink { name, id, port, .. } = link;
    let holder = match others.iter().find(same) {
        Some(other) => format!("device {} uses the same", other.name),
        None => match others.iter().find(|other| other.port == *port) {
            Some(other) => {
                format!(
                    "device {} uses the port with VNI {} and different flags",
                    other.name, other.id
                )
            }
            None => "a program, or a device that was moved to another network namespace, uses the \
                     port; `ss -lunp` shows a program"
                .to_owned(),
        },
    };
    format!(
        "cannot make vxlan device {name} with VNI {id} and UDP port {port}: {holder}; remove it, \
         or start the causewayd of every node with another --vxlan-id or --vxlan-port"
    )
}

#[cfg(test)]
mod tests;
