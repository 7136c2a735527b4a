//! Names and owner comments. Every name of a kernel object comes from here.
//!
//! An owner comment identifies an attachment: `<network hash>-<attachment hash> <readable>`, at
//! most 128 bytes, which is what `nft` accepts for a comment. Hashes come first, so that
//! truncating the readable part never makes two owners equal; the network hash stands alone so
//! that GC finds the elements of one network by prefix.
//!
//! Records and kernel objects outlive an upgrade, so these names never change: the hash is
//! SipHash-2-4 with a fixed key, over each part's length and bytes.

use siphasher::sip::SipHasher24;

/// What `nft` accepts for a comment, in bytes.
const COMMENT_MAX: usize = 128;
/// Bytes of a chain's or a set's name; the kernel takes 255.
const NAME_MAX: usize = 200;
/// Container ids are 64 hex digits mostly; the first 12 are what people read.
const ID_SHOWN: usize = 12;
/// Key of the hash: digits of pi, no secret.
const KEY: (u64, u64) = (0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344);

/// Owner comment of an attachment, for rules and elements. ASCII without quotes, backslashes and
/// control characters, so that `nft` reads back what it prints.
pub fn owner(network: &str, container_id: &str, ifname: &str) -> String {
    let prefix = owner_network_prefix(network);
    let attachment = hash_hex(&[network, container_id, ifname], 16);
    let id = container_id.chars().take(ID_SHOWN).collect::<String>();
    let mut owner = plain(&format!("{prefix}{attachment} {network}/{id}/{ifname}"));
    owner.truncate(COMMENT_MAX);
    owner
}

/// The prefix that every [`owner`] of `network` starts with.
pub fn owner_network_prefix(network: &str) -> String {
    format!("{}-", hash_hex(&[network], 8))
}

/// Comment of an element or rule of a service: `namespace/name`, or `namespace/name:port`.
/// Kubernetes' names are lower-case letters, digits, `-` and `.`; whatever else comes is replaced,
/// so that the text stays between its quotes.
pub fn service(namespace: &str, name: &str, port: &str) -> String {
    let port = if port.is_empty() { String::new() } else { format!(":{port}") };
    let mut comment = plain(&format!("{namespace}/{name}{port}"));
    comment.truncate(COMMENT_MAX);
    comment
}

/// Name of what one pool of a service port has alone: `PREFIX-<hash>-namespace/name/port/protocol`.
/// The hash comes first, so that truncating never makes two equal. Letters, digits, `.`, `/`, `-`
/// and `_` are what nft's scanner takes as a name, at most `NAME_MAX` of them.
pub fn pool(prefix: &str, of: &[&str]) -> String {
    let shown = of.iter().copied().filter(|part| !part.is_empty()).collect::<Vec<_>>();
    let name = plain(&shown.join("/"))
        .replace(|c: char| !c.is_ascii_alphanumeric() && !"./-_".contains(c), "_");
    let mut name = format!("{prefix}-{}-{name}", hash_hex(of, 16));
    name.truncate(NAME_MAX);
    name
}

/// A stable hash of parts as lower-case hex digits, 16 at most. Parts are told apart: `["a", "b"]`
/// and `["ab"]` differ.
pub fn hash_hex(parts: &[&str], hex_chars: usize) -> String {
    let mut hex = format!("{:016x}", hash_parts(parts));
    hex.truncate(hex_chars);
    hex
}

/// ASCII without quotes, backslashes and control characters.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '_' })
        .map(|c| if matches!(c, '"' | '\\') { '_' } else { c })
        .collect()
}

/// [`hash_hex`] as a number.
pub fn hash_parts(parts: &[&str]) -> u64 {
    let mut input = Vec::new();
    for part in parts {
        input.extend_from_slice(&(part.len() as u64).to_le_bytes());
        input.extend_from_slice(part.as_bytes());
    }
    hash(&input)
}

/// A stable hash of bytes.
pub(crate) fn hash(input: &[u8]) -> u64 {
    siphash(KEY, input)
}

/// SipHash-2-4, <https://www.aumasson.jp/siphash/siphash.pdf>.
fn siphash((k0, k1): (u64, u64), input: &[u8]) -> u64 {
    SipHasher24::new_with_keys(k0, k1).hash(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test vectors of the paper's reference code: key 00..0f, input 00..(n-1).
    #[test]
    fn siphash_gives_the_published_values() {
        let key = (0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        let input = (0..15).collect::<Vec<u8>>();
        assert_eq!(siphash(key, &[]), 0x726f_db47_dd0e_0e31);
        assert_eq!(siphash(key, &input), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn owners_never_change() {
        let id = "0123456789abcdef0123456789abcdef";
        let owner = owner("causeway", id, "eth0");
        assert!(owner.starts_with(&owner_network_prefix("causeway")));
        assert_eq!(owner, "48044129-d2149a85f0593d75 causeway/0123456789ab/eth0");
    }

    #[test]
    fn owners_fit_a_comment_and_differ() {
        let network = "n".repeat(300);
        let (a, b) = (owner(&network, "id1", "eth0"), owner(&network, "id2", "eth0"));
        assert_eq!((a.len(), b.len()), (128, 128));
        assert_ne!(a, b);
        let strange = owner("a\"\\\n\u{e9}b", "x", "y");
        assert!(strange.ends_with(" a____b/x/y"), "{strange}");
    }

    #[test]
    fn names_of_services_never_leave_their_place() {
        assert_eq!(service("shop", "web", "http"), "shop/web:http");
        assert_eq!(service("shop", "web", ""), "shop/web");
        let evil = "a\"; flush ruleset; #\n{}";
        assert_eq!(service("x", evil, ""), "x/a_; flush ruleset; #_{}");
        let chain = pool("balance", &["x", evil, "", "TCP"]);
        let (_, readable) = chain.split_once("-x/").expect("the readable part");
        assert_eq!(readable, "a___flush_ruleset______/TCP");
        let long = "n".repeat(300);
        assert_eq!(service(&long, "a", "").len(), 128);
        let [a, b] = ["a", "b"].map(|name| pool("balance", &[&long, name]));
        assert_eq!((a.len(), b.len()), (200, 200));
        assert_ne!(a, b);
    }

    #[test]
    fn parts_are_told_apart() {
        assert_ne!(hash_hex(&["a", "b"], 16), hash_hex(&["ab"], 16));
        assert_ne!(hash_hex(&["a", ""], 16), hash_hex(&["a"], 16));
        assert_eq!(hash_hex(&["a"], 8).len(), 8);
    }
}
