//! Netlink messages and attributes as bytes.
//!
//! Written straight into one buffer, as a batch may hold 100,000 elements. The reader never panics
//! and never reads past its slice. `netlink-packet-netfilter` 0.4 has neither property: it panics
//! on an element with an empty key, cannot say the generation of a batch, and refuses a message for
//! one attribute; so it serves the tests, as a second reader.

const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;

/// Appends messages and attributes.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    buf: Vec<u8>,
}

/// Head of a message: what differs between messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) seq: u32,
    pub(crate) family: u8,
    pub(crate) res_id: u16,
}

/// Start of an open message or nest.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(crate) struct Mark(usize);

impl Writer {
    pub(crate) fn len(&self) -> usize {
        self.buf.len()
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.buf
    }

    /// Opens a message; [`Writer::end_message`] sets its length.
    pub(crate) fn message(&mut self, head: Head) -> Mark {
        let start = self.buf.len();
        self.buf.extend_from_slice(&[0; 4]);
        self.buf.extend_from_slice(&head.kind.to_ne_bytes());
        self.buf.extend_from_slice(&head.flags.to_ne_bytes());
        self.buf.extend_from_slice(&head.seq.to_ne_bytes());
        self.buf.extend_from_slice(&[0; 4]);
        self.buf.extend_from_slice(&[head.family, 0]);
        self.buf.extend_from_slice(&head.res_id.to_be_bytes());
        Mark(start)
    }

    pub(crate) fn end_message(&mut self, mark: Mark) {
        let len = u32::try_from(self.buf.len() - mark.0).unwrap_or(u32::MAX);
        self.buf[mark.0..mark.0 + 4].copy_from_slice(&len.to_ne_bytes());
    }

    /// Sets flags of a message that is complete.
    pub(crate) fn add_flags(&mut self, mark: Mark, flags: u16) {
        let at = mark.0 + 6;
        let old = u16::from_ne_bytes([self.buf[at], self.buf[at + 1]]);
        self.buf[at..at + 2].copy_from_slice(&(old | flags).to_ne_bytes());
    }

    pub(crate) fn nest(&mut self, kind: u16) -> Mark {
        let start = self.buf.len();
        self.buf.extend_from_slice(&[0; 2]);
        self.buf.extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        Mark(start)
    }

    pub(crate) fn end_nest(&mut self, mark: Mark) {
        // Callers bound nests (`codec::set::CHUNK`); a longer one gets length 0, which the kernel
        // refuses.
        let len = u16::try_from(self.buf.len() - mark.0).unwrap_or(0);
        self.buf[mark.0..mark.0 + 2].copy_from_slice(&len.to_ne_bytes());
    }

    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(value.len() + 4).unwrap_or(0);
        self.buf.extend_from_slice(&len.to_ne_bytes());
        self.buf.extend_from_slice(&kind.to_ne_bytes());
        self.buf.extend_from_slice(value);
        self.buf.resize(self.buf.len().next_multiple_of(4), 0);
    }

    /// Attributes that are encoded already.
    pub(crate) fn raw(&mut self, attributes: &[u8]) {
        self.buf.extend_from_slice(attributes);
        self.buf.resize(self.buf.len().next_multiple_of(4), 0);
    }

    pub(crate) fn string(&mut self, kind: u16, value: &str) {
        let len = u16::try_from(value.len() + 5).unwrap_or(0);
        self.buf.extend_from_slice(&len.to_ne_bytes());
        self.buf.extend_from_slice(&kind.to_ne_bytes());
        self.buf.extend_from_slice(value.as_bytes());
        self.buf.push(0);
        self.buf.resize(self.buf.len().next_multiple_of(4), 0);
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) {
        self.bytes(kind, &[value]);
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, kind: u16, value: u64) {
        self.bytes(kind, &value.to_be_bytes());
    }
}

/// A received message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) seq: u32,
    /// Port of the socket that the message comes from or is about.
    pub(crate) port: u32,
    /// Payload after `struct nlmsghdr`.
    pub(crate) payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// Family in `struct nfgenmsg`.
    pub(crate) fn family(&self) -> u8 {
        self.payload.first().copied().unwrap_or_default()
    }

    /// Attributes after `struct nfgenmsg`.
    pub(crate) fn attributes(&self) -> Attributes<'a> {
        Attributes(self.payload.get(4..).unwrap_or_default())
    }
}

/// Messages of one datagram. Ends at the first that is cut off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Messages<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let len = usize::try_from(u32::from_ne_bytes(array(self.0, 0)?)).ok()?;
        let whole = self.0.get(..len)?;
        let message = Message {
            kind: u16::from_ne_bytes(array(whole, 4)?),
            flags: u16::from_ne_bytes(array(whole, 6)?),
            seq: u32::from_ne_bytes(array(whole, 8)?),
            port: u32::from_ne_bytes(array(whole, 12)?),
            payload: whole.get(16..)?,
        };
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    }
}

/// An attribute.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attribute<'a> {
    pub(crate) kind: u16,
    pub(crate) value: &'a [u8],
}

impl<'a> Attribute<'a> {
    pub(crate) fn nested(&self) -> Attributes<'a> {
        Attributes(self.value)
    }

    pub(crate) fn u8(&self) -> Option<u8> {
        <[u8; 1]>::try_from(self.value).ok().map(|[byte]| byte)
    }

    pub(crate) fn u32(&self) -> Option<u32> {
        self.value.try_into().ok().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&self) -> Option<u64> {
        self.value.try_into().ok().map(u64::from_be_bytes)
    }

    /// The string before the terminating zero; `None` if it is not UTF-8.
    pub(crate) fn string(&self) -> Option<String> {
        let end = self.value.iter().position(|byte| *byte == 0).unwrap_or(self.value.len());
        String::from_utf8(self.value[..end].to_vec()).ok()
    }
}

/// Attributes in a row. Ends at the first that is cut off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    /// The first attribute of a kind.
    pub(crate) fn get(self, kind: u16) -> Option<Attribute<'a>> {
        let mut all = self;
        all.find(|attribute| attribute.kind == kind)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let len = usize::from(u16::from_ne_bytes(array(self.0, 0)?));
        let kind = u16::from_ne_bytes(array(self.0, 2)?) & NLA_TYPE_MASK;
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Attribute { kind, value })
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}
