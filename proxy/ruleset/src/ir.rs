//! Typed rule IR.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

/// nftables family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4 and IPv6
    Inet,
    /// IPv4
    Ip,
    /// IPv6
    Ip6,
    /// Bridge
    Bridge,
}

/// A table: family and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableId {
    /// Family.
    pub family: Family,
    /// Name.
    pub name: String,
}

/// Where a base chain hooks in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// prerouting
    Prerouting,
    /// input
    Input,
    /// forward
    Forward,
    /// output
    Output,
    /// postrouting
    Postrouting,
}

/// What makes a chain a base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// `filter` or `nat`.
    pub kind: String,
    /// Hook.
    pub hook: Hook,
    /// Priority; -100 is dstnat, 100 srcnat.
    pub priority: i32,
    /// Policy drop instead of accept.
    pub policy_drop: bool,
}

/// A chain without its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainSpec {
    /// Name.
    pub name: String,
    /// Hook, for a base chain.
    pub base: Option<BaseChain>,
}

/// Type of one component of a key or of map data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DataType {
    /// `ipv4_addr`
    Ipv4Addr,
    /// `ipv6_addr`
    Ipv6Addr,
    /// `inet_proto`
    InetProto,
    /// `inet_service`
    InetService,
    /// `mark`
    Mark,
    /// `ifname`
    IfName,
    /// `ether_addr`
    EtherAddr,
    /// `typeof numgen random mod 2`: what `numgen` and `jhash` yield, which has no name in nft's
    /// language. Not alone in a key: nft 1.1.7 lists and loads it with its bytes reversed.
    Number,
}

/// What a map yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapTarget {
    /// Data, concatenated.
    Data(Vec<DataType>),
    /// A verdict.
    Verdict,
}

/// Elements that a dynamic set can hold, so that nobody fills the memory with made-up sources. The
/// kernel's own default is 65,535.
pub const DYNAMIC_SIZE: u32 = 1 << 18;

/// A set or map without its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetSpec {
    /// Name.
    pub name: String,
    /// Components of the key.
    pub key: Vec<DataType>,
    /// `None` for a set.
    pub target: Option<MapTarget>,
    /// `flags interval`: keys may be ranges (one component, or concatenated with kernel 5.6), but
    /// not of marks and interface names, whose bytes do not sort as their values.
    pub interval: bool,
    /// `flags dynamic`: the packet path may add, [`DYNAMIC_SIZE`] elements at most.
    pub dynamic: bool,
    /// Default timeout, milliseconds.
    pub timeout_ms: Option<u64>,
}

/// One component of a key, of data, or of a comparison.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RegValue {
    /// IPv4 address
    V4(Ipv4Addr),
    /// IPv6 address
    V6(Ipv6Addr),
    /// IP protocol number
    Proto(u8),
    /// Port
    Port(u16),
    /// Mark
    Mark(u32),
    /// Interface name
    IfName(String),
    /// Ethernet address
    Mac([u8; 6]),
    /// A number that is drawn or computed
    Number(u32),
}

impl From<IpAddr> for RegValue {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => Self::V6(address),
        }
    }
}

/// Key of an element.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// One value a component.
    Exact(Vec<RegValue>),
    /// From and to, both inclusive, one pair a component.
    Range(Vec<RegValue>, Vec<RegValue>),
}

/// What an element of a map holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ElementValue {
    /// Data, one value a component.
    Data(Vec<RegValue>),
    /// Verdict.
    Verdict(Verdict),
}

/// An element of a set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// Key.
    pub key: Key,
    /// `None` in a set.
    pub value: Option<ElementValue>,
    /// Owner; at most 128 bytes.
    pub comment: Option<String>,
}

/// A verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// accept
    Accept,
    /// drop
    Drop,
    /// return
    Return,
    /// jump to a chain
    Jump(String),
    /// goto a chain
    Goto(String),
}

/// Something of a packet, its connection or its path that can be compared or looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// `ip saddr`
    IpSaddr,
    /// `ip daddr`
    IpDaddr,
    /// `ip6 saddr`
    Ip6Saddr,
    /// `ip6 daddr`
    Ip6Daddr,
    /// `ether saddr`
    EtherSaddr,
    /// `meta l4proto`
    L4Proto,
    /// `th sport`
    ThSport,
    /// `th dport`
    ThDport,
    /// `@th,96,16`: the higher bits of the number of a vxlan
    VniHigh,
    /// `@th,112,8`: the lower ones
    VniLow,
    /// `meta iifname`
    IifName,
    /// `meta oifname`
    OifName,
    /// `meta mark`
    Mark,
    /// `ct mark`
    CtMark,
    /// `ct original ip daddr`
    CtOriginalIpDaddr,
    /// `ct original ip6 daddr`
    CtOriginalIp6Daddr,
    /// `ct original proto-dst`
    CtOriginalProtoDst,
    /// `numgen random mod MODULUS offset OFFSET`: drawn again each time.
    Random {
        /// How many numbers; not 0.
        modulus: u32,
        /// The lowest.
        offset: u32,
    },
    /// `numgen inc mod MODULUS offset OFFSET`: one after the other, from the lowest when the rule is
    /// new.
    Turn {
        /// How many numbers; not 0.
        modulus: u32,
        /// The lowest.
        offset: u32,
    },
    /// `jhash ip saddr mod MODULUS seed SEED`: the same for the same source.
    SourceHash {
        /// `ip6 saddr`
        ipv6: bool,
        /// How many numbers; more than 1.
        modulus: u32,
        /// Seed.
        seed: u32,
    },
    /// A constant in a concatenation, `meta mark & VALUE | VALUE`: nft loads no bare constant where a
    /// rule looks something up. Not 0, which nft prints otherwise.
    Const(u32),
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// Compares a field with a value (`==`, or `!=` when `negate`).
    Cmp {
        /// Field.
        field: Field,
        /// `!=`
        negate: bool,
        /// Value.
        value: RegValue,
    },
    /// Compares an address field with a network; [`Match::net`] makes it. One of a single address
    /// reads back as [`Match::Cmp`], host bits read back cleared.
    Net {
        /// `IpSaddr`, `IpDaddr`, `Ip6Saddr` or `Ip6Daddr`.
        field: Field,
        /// `!=`
        negate: bool,
        /// Network.
        net: IpNetwork,
    },
    /// Compares masked mark bits.
    Bits {
        /// `Mark` or `CtMark`.
        field: Field,
        /// Mask.
        mask: u32,
        /// `!=`
        negate: bool,
        /// Value after masking.
        value: u32,
    },
    /// Looks the fields up in a set.
    InSet {
        /// Fields, concatenated.
        fields: Vec<Field>,
        /// Set name.
        set: String,
        /// `!=`
        negate: bool,
    },
    /// `meta nfproto ipv4|ipv6`. Fields of an IP header bring this condition along, as in nft:
    /// say it only if no such field follows.
    NfProto {
        /// IPv6
        ipv6: bool,
    },
    /// `fib daddr type local`
    FibDaddrLocal {
        /// `!=`
        negate: bool,
    },
    /// `fib saddr type local`
    FibSaddrLocal {
        /// `!=`
        negate: bool,
    },
    /// `ct status dnat`
    CtStatusDnat {
        /// `ct status & dnat == 0`
        negate: bool,
    },
    /// `ct state established,related` (or its absence)
    CtEstablished {
        /// `!=`
        negate: bool,
    },
    /// `ct state invalid`
    CtInvalid,
    /// `ct direction reply` if true.
    CtDirection {
        /// reply
        reply: bool,
    },
}

/// Where NAT goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NatTarget {
    /// A fixed address, optionally with a port.
    Fixed(IpAddr, Option<u16>),
    /// The data (address . port) that a map yields for the fields.
    Map {
        /// Fields, concatenated.
        fields: Vec<Field>,
        /// Map name.
        map: String,
        /// Whether the map yields IPv6 addresses.
        ipv6: bool,
    },
    /// The address that a map yields for the fields, and a port apart from it: nft loads no map of
    /// numbers whose data has a port.
    Apart {
        /// Fields, concatenated.
        fields: Vec<Field>,
        /// Map name.
        map: String,
        /// Whether the map yields IPv6 addresses.
        ipv6: bool,
        /// Where the port is from.
        port: NatPort,
    },
}

/// The port of [`NatTarget::Apart`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NatPort {
    /// A fixed one.
    Fixed(u16),
    /// The one that a map yields for the fields.
    Map {
        /// Fields, concatenated.
        fields: Vec<Field>,
        /// Map name.
        map: String,
    },
}

/// A statement of a rule, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// Go on only if this holds.
    Match(Match),
    /// counter
    Counter,
    /// `meta mark set mark and !mask xor value`
    SetMark {
        /// Bits to clear.
        mask: u32,
        /// Bits to set.
        value: u32,
    },
    /// `ct mark set ct mark and !mask xor value`
    SetCtMark {
        /// Bits to clear.
        mask: u32,
        /// Bits to set.
        value: u32,
    },
    /// masquerade
    Masquerade {
        /// `fully-random`
        random: bool,
    },
    /// dnat
    Dnat(NatTarget),
    /// snat
    Snat(NatTarget),
    /// vmap: fields looked up in a verdict map
    VerdictMap {
        /// Fields, concatenated.
        fields: Vec<Field>,
        /// Map name.
        map: String,
    },
    /// `update @set { fields timeout T }`: adds an element from the packet path, or restarts its
    /// timeout. The rule ends here if the set is full.
    Update {
        /// Fields, concatenated.
        fields: Vec<Field>,
        /// Name of a dynamic set.
        set: String,
        /// Milliseconds.
        timeout_ms: u64,
    },
    /// reject: answers with ICMP port unreachable. In tables of one IP family.
    Reject,
    /// An unconditional verdict.
    Verdict(Verdict),
    /// An expression that the IR does not know, kept as it came: name and attribute bytes.
    Other(String, Vec<u8>),
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Statements, in order.
    pub statements: Vec<Statement>,
    /// Owner or meaning; at most 128 bytes.
    pub comment: Option<String>,
}

/// A table as read back from the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableState {
    /// Chains by name, with rules and their handles.
    pub chains: BTreeMap<String, (ChainSpec, Vec<(u64, Rule)>)>,
    /// Sets and maps by name, with elements in key order.
    pub sets: BTreeMap<String, (SetSpec, Vec<Element>)>,
}
