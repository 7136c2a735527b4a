//! What a device computes in hardware, by `SIOCETHTOOL`.

use std::io;
use std::os::fd::AsRawFd as _;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::{Error, Netlink, Result};

/// linux/sockios.h
const SIOCETHTOOL: libc::Ioctl = 0x8946;
/// linux/ethtool.h
const ETHTOOL_GTXCSUM: u32 = 0x16;
/// linux/ethtool.h
const ETHTOOL_STXCSUM: u32 = 0x17;

/// `struct ethtool_value`
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

impl Netlink {
    /// Whether the link called `name` leaves checksums of what it sends to hardware
    /// (`tx-checksumming` of `ethtool -k`).
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn tx_checksum(&self, name: &str) -> Result<bool> {
        let action = format!("read whether {name} offloads checksums");
        self.ethtool(action, name, ETHTOOL_GTXCSUM, 0).map(|data| data != 0)
    }

    /// Sets it (`ethtool -K NAME tx on|off`).
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn set_tx_checksum(&self, name: &str, on: bool) -> Result<()> {
        let action = format!("set whether {name} offloads checksums");
        self.ethtool(action, name, ETHTOOL_STXCSUM, u32::from(on)).map(drop)
    }

    fn ethtool(&self, action: String, name: &str, command: u32, data: u32) -> Result<u32> {
        let netns = match self.netns() {
            Ok(netns) => netns,
            Err(source) => return Err(Error { action, source }),
        };
        netns
            .run(|| ethtool(name, Value { command, data }))?
            .map_err(|source| Error { action, source })
    }
}

fn ethtool(name: &str, mut value: Value) -> io::Result<u32> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: all zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request and the value that it points to live through the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(value.data) }
}
