//! Random numbers of the kernel: ids of questions that nobody can guess.

use rustix::rand::{GetRandomFlags, getrandom};

/// So many random bytes.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Up to 256 bytes come whole; before the kernel has any, at boot, it waits for them.
    while getrandom(&mut bytes, GetRandomFlags::empty()) != Ok(N) {}
    bytes
}

/// A random id of a message.
pub(crate) fn id() -> u16 {
    u16::from_ne_bytes(bytes())
}
