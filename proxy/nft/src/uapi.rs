//! Numbers of `linux/netfilter/nf_tables.h`, `nfnetlink.h` and of nft's user data.

const SUBSYS: u16 = 10 << 8;

pub(crate) const BATCH_BEGIN: u16 = 16;
pub(crate) const BATCH_END: u16 = 17;
pub(crate) const BATCH_GENID: u16 = 1;
pub(crate) const SUBSYS_NFTABLES: u16 = 10;

pub(crate) const NEWTABLE: u16 = SUBSYS;
pub(crate) const GETTABLE: u16 = SUBSYS | 1;
pub(crate) const DELTABLE: u16 = SUBSYS | 2;
pub(crate) const NEWCHAIN: u16 = SUBSYS | 3;
pub(crate) const GETCHAIN: u16 = SUBSYS | 4;
pub(crate) const DELCHAIN: u16 = SUBSYS | 5;
pub(crate) const NEWRULE: u16 = SUBSYS | 6;
pub(crate) const GETRULE: u16 = SUBSYS | 7;
pub(crate) const DELRULE: u16 = SUBSYS | 8;
pub(crate) const NEWSET: u16 = SUBSYS | 9;
pub(crate) const GETSET: u16 = SUBSYS | 10;
pub(crate) const DELSET: u16 = SUBSYS | 11;
pub(crate) const NEWSETELEM: u16 = SUBSYS | 12;
pub(crate) const GETSETELEM: u16 = SUBSYS | 13;
pub(crate) const DELSETELEM: u16 = SUBSYS | 14;
pub(crate) const GETGEN: u16 = SUBSYS | 16;

pub(crate) const GEN_ID: u16 = 1;
pub(crate) const GEN_PROC_PID: u16 = 2;
pub(crate) const GEN_PROC_NAME: u16 = 3;
/// `linux/netlink.h`: to be ignored.
pub(crate) const NLMSG_NOOP: u16 = 1;
/// The multicast group of changes.
pub(crate) const NFNLGRP_NFTABLES: u32 = 7;
pub(crate) const NEWGEN: u16 = SUBSYS | 15;
/// The first attribute of every object but a generation is its table's name.
pub(crate) const OF_TABLE: u16 = 1;

pub(crate) const TABLE_NAME: u16 = 1;
pub(crate) const TABLE_FLAGS: u16 = 2;

pub(crate) const CHAIN_TABLE: u16 = 1;
pub(crate) const CHAIN_NAME: u16 = 3;
pub(crate) const CHAIN_HOOK: u16 = 4;
pub(crate) const CHAIN_POLICY: u16 = 5;
pub(crate) const CHAIN_USE: u16 = 6;
pub(crate) const CHAIN_TYPE: u16 = 7;
pub(crate) const HOOK_NUM: u16 = 1;
pub(crate) const HOOK_PRIORITY: u16 = 2;

pub(crate) const RULE_TABLE: u16 = 1;
pub(crate) const RULE_CHAIN: u16 = 2;
pub(crate) const RULE_HANDLE: u16 = 3;
pub(crate) const RULE_EXPRESSIONS: u16 = 4;
pub(crate) const RULE_USERDATA: u16 = 7;

pub(crate) const SET_TABLE: u16 = 1;
pub(crate) const SET_NAME: u16 = 2;
pub(crate) const SET_FLAGS: u16 = 3;
pub(crate) const SET_KEY_TYPE: u16 = 4;
pub(crate) const SET_KEY_LEN: u16 = 5;
pub(crate) const SET_DATA_TYPE: u16 = 6;
pub(crate) const SET_DATA_LEN: u16 = 7;
pub(crate) const SET_DESC: u16 = 9;
pub(crate) const SET_ID: u16 = 10;
pub(crate) const SET_TIMEOUT: u16 = 11;
pub(crate) const SET_USERDATA: u16 = 13;
pub(crate) const SET_DESC_SIZE: u16 = 1;
pub(crate) const SET_DESC_CONCAT: u16 = 2;
pub(crate) const SET_FIELD_LEN: u16 = 1;
pub(crate) const SET_F_ANONYMOUS: u32 = 0x1;
pub(crate) const SET_F_INTERVAL: u32 = 0x4;
pub(crate) const SET_F_MAP: u32 = 0x8;
pub(crate) const SET_F_TIMEOUT: u32 = 0x10;
pub(crate) const SET_F_EVAL: u32 = 0x20;
pub(crate) const SET_F_CONCAT: u32 = 0x80;
pub(crate) const DATA_TYPE_VERDICT: u32 = 0xffff_ff00;

pub(crate) const ELEM_LIST_TABLE: u16 = 1;
pub(crate) const ELEM_LIST_SET: u16 = 2;
pub(crate) const ELEM_LIST_ELEMENTS: u16 = 3;
pub(crate) const LIST_ELEM: u16 = 1;
pub(crate) const ELEM_KEY: u16 = 1;
pub(crate) const ELEM_DATA: u16 = 2;
pub(crate) const ELEM_FLAGS: u16 = 3;
pub(crate) const ELEM_USERDATA: u16 = 6;
pub(crate) const ELEM_KEY_END: u16 = 10;
pub(crate) const ELEM_F_INTERVAL_END: u32 = 0x1;

pub(crate) const DATA_VALUE: u16 = 1;
pub(crate) const DATA_VERDICT: u16 = 2;
pub(crate) const VERDICT_CODE: u16 = 1;
pub(crate) const VERDICT_CHAIN: u16 = 2;
pub(crate) const NF_DROP: i32 = 0;
pub(crate) const NF_ACCEPT: i32 = 1;
pub(crate) const NFT_JUMP: i32 = -3;
pub(crate) const NFT_GOTO: i32 = -4;
pub(crate) const NFT_RETURN: i32 = -5;

pub(crate) const EXPR_NAME: u16 = 1;
pub(crate) const EXPR_DATA: u16 = 2;

pub(crate) const META_PROTOCOL: u32 = 1;
pub(crate) const META_MARK: u32 = 3;
pub(crate) const META_IIFNAME: u32 = 6;
pub(crate) const META_OIFNAME: u32 = 7;
pub(crate) const META_IIFTYPE: u32 = 8;
pub(crate) const META_NFPROTO: u32 = 15;
pub(crate) const META_L4PROTO: u32 = 16;

pub(crate) const CT_STATE: u32 = 0;
pub(crate) const CT_DIRECTION: u32 = 1;
pub(crate) const CT_STATUS: u32 = 2;
pub(crate) const CT_MARK: u32 = 3;
pub(crate) const CT_PROTO_DST: u32 = 12;
pub(crate) const CT_DST_IP: u32 = 20;
pub(crate) const CT_DST_IP6: u32 = 22;
pub(crate) const CT_STATE_INVALID: u32 = 1;
/// `established | related`
pub(crate) const CT_STATE_ESTABLISHED: u32 = 2 | 4;
/// `IPS_DST_NAT`
pub(crate) const CT_STATUS_DNAT: u32 = 1 << 5;

pub(crate) const PAYLOAD_LINK: u32 = 0;
pub(crate) const PAYLOAD_NETWORK: u32 = 1;
pub(crate) const PAYLOAD_TRANSPORT: u32 = 2;

pub(crate) const FIB_ADDRTYPE: u32 = 3;
pub(crate) const FIB_F_SADDR: u32 = 1;
pub(crate) const FIB_F_DADDR: u32 = 2;
pub(crate) const RTN_LOCAL: u32 = 2;

/// `NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED`: the kernel sets them from the registers.
pub(crate) const NAT_F_IMPLIED: u32 = 3;
/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`
pub(crate) const NAT_F_FULLY_RANDOM: u32 = 0x10;

pub(crate) const HASH_JENKINS: u32 = 0;
pub(crate) const DYNSET_UPDATE: u32 = 1;
pub(crate) const REJECT_ICMP_UNREACH: u32 = 0;
/// `ICMP_PORT_UNREACH`
pub(crate) const PORT_UNREACH: u8 = 3;
/// `ICMPV6_PORT_UNREACH`
pub(crate) const PORT_UNREACH6: u8 = 4;

pub(crate) const NFPROTO_INET: u8 = 1;
pub(crate) const NFPROTO_IPV4: u8 = 2;
pub(crate) const NFPROTO_BRIDGE: u8 = 7;
pub(crate) const NFPROTO_IPV6: u8 = 10;
pub(crate) const ETH_P_IP: u16 = 0x0800;
pub(crate) const ETH_P_IPV6: u16 = 0x86dd;
pub(crate) const ARPHRD_ETHER: u16 = 1;

/// nft's user data: comment of a rule or element (`NFTNL_UDATA_RULE_COMMENT`,
/// `NFTNL_UDATA_SET_ELEM_COMMENT`).
pub(crate) const UDATA_COMMENT: u8 = 0;
/// nft's user data of a set: byte order of key and of data.
pub(crate) const UDATA_SET_KEY_BYTEORDER: u8 = 0;
pub(crate) const UDATA_SET_DATA_BYTEORDER: u8 = 1;
/// Expressions that stand for the types of key and data (`NFTNL_UDATA_SET_KEY_TYPEOF`), each with
/// its number and what it reads.
pub(crate) const UDATA_SET_KEY_TYPEOF: u8 = 3;
pub(crate) const UDATA_SET_DATA_TYPEOF: u8 = 4;
pub(crate) const UDATA_TYPEOF_EXPR: u8 = 0;
pub(crate) const UDATA_TYPEOF_DATA: u8 = 1;
/// nft's `enum expr_types`.
pub(crate) const EXPR_PAYLOAD: u32 = 7;
pub(crate) const EXPR_META: u32 = 9;
pub(crate) const EXPR_CONCAT: u32 = 13;
pub(crate) const EXPR_NUMGEN: u32 = 23;
/// nft's numbers of headers and of their fields.
pub(crate) const PROTO_ETHER: u32 = 17;
pub(crate) const ETHHDR_SADDR: u32 = 2;
pub(crate) const PROTO_TH: u32 = 11;
pub(crate) const THDR_DPORT: u32 = 2;
pub(crate) const PROTO_IP: u32 = 12;
pub(crate) const IPHDR_DADDR: u32 = 12;
pub(crate) const PROTO_IP6: u32 = 13;
pub(crate) const IP6HDR_DADDR: u32 = 9;
pub(crate) const NUMGEN_RANDOM: u32 = 1;
