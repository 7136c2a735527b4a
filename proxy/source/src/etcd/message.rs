//! The messages, named as in etcd's definitions.

/// `mvccpb.KeyValue`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct KeyValue {
    /// The key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// Revision of the key's creation.
    #[prost(int64, tag = "2")]
    pub create_revision: i64,
    /// Revision of the key's last change.
    #[prost(int64, tag = "3")]
    pub mod_revision: i64,
    /// What the key holds.
    #[prost(bytes = "vec", tag = "5")]
    pub value: Vec<u8>,
    /// The lease that the key hangs on; 0: none.
    #[prost(int64, tag = "6")]
    pub lease: i64,
}

/// `mvccpb.Event.EventType`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum EventType {
    /// The key was written.
    Put = 0,
    /// The key was deleted, or its lease expired.
    Delete = 1,
}

/// `mvccpb.Event`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Event {
    /// What happened.
    #[prost(enumeration = "EventType", tag = "1")]
    pub r#type: i32,
    /// To which key; a deletion has the key and its revision.
    #[prost(message, optional, tag = "2")]
    pub kv: Option<KeyValue>,
}

/// `ResponseHeader`
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ResponseHeader {
    /// Of the store when it answered.
    #[prost(int64, tag = "3")]
    pub revision: i64,
}

/// `RangeRequest`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RangeRequest {
    /// The first key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// The first key behind the range; empty: the first key alone.
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    /// At most so many keys; 0: all.
    #[prost(int64, tag = "3")]
    pub limit: i64,
    /// As of this revision; 0: the newest.
    #[prost(int64, tag = "4")]
    pub revision: i64,
    /// Without the values.
    #[prost(bool, tag = "8")]
    pub keys_only: bool,
}

/// `RangeResponse`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RangeResponse {
    /// The store's revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// What was found, by key.
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<KeyValue>,
    /// The limit cut some off.
    #[prost(bool, tag = "3")]
    pub more: bool,
}

/// `PutRequest`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PutRequest {
    /// The key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// What it is to hold.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
    /// The lease that it hangs on; 0: none.
    #[prost(int64, tag = "3")]
    pub lease: i64,
}

/// `PutResponse`
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct PutResponse {
    /// The store's revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
}

/// `DeleteRangeRequest`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DeleteRangeRequest {
    /// The first key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// The first key behind the range; empty: the first key alone.
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
}

/// `DeleteRangeResponse`
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct DeleteRangeResponse {
    /// The store's revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// How many keys there were.
    #[prost(int64, tag = "2")]
    pub deleted: i64,
}

/// `RequestOp`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RequestOp {
    /// Which one.
    #[prost(oneof = "request_op::Request", tags = "1, 2, 3, 4")]
    pub request: Option<request_op::Request>,
}

/// Of `RequestOp`.
pub mod request_op {
    /// A part of a transaction.
    #[derive(Clone, PartialEq, Eq, prost::Oneof)]
    pub enum Request {
        /// Reads.
        #[prost(message, tag = "1")]
        Range(super::RangeRequest),
        /// Writes.
        #[prost(message, tag = "2")]
        Put(super::PutRequest),
        /// Deletes.
        #[prost(message, tag = "3")]
        DeleteRange(super::DeleteRangeRequest),
        /// More of them.
        #[prost(message, tag = "4")]
        Txn(super::TxnRequest),
    }
}

/// `ResponseOp`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ResponseOp {
    /// Which one.
    #[prost(oneof = "response_op::Response", tags = "1, 2, 3, 4")]
    pub response: Option<response_op::Response>,
}

/// Of `ResponseOp`.
pub mod response_op {
    /// The outcome of a part of a transaction.
    #[derive(Clone, PartialEq, Eq, prost::Oneof)]
    pub enum Response {
        /// It read.
        #[prost(message, tag = "1")]
        Range(super::RangeResponse),
        /// It wrote.
        #[prost(message, tag = "2")]
        Put(super::PutResponse),
        /// It deleted.
        #[prost(message, tag = "3")]
        DeleteRange(super::DeleteRangeResponse),
        /// It was a transaction.
        #[prost(message, tag = "4")]
        Txn(super::TxnResponse),
    }
}

/// `Compare.CompareResult`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum CompareResult {
    /// They are alike.
    Equal = 0,
    /// The key's is greater.
    Greater = 1,
    /// The key's is less.
    Less = 2,
}

/// `Compare.CompareTarget`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum CompareTarget {
    /// The key's version. Nobody asks for it; a message without a target means it.
    Version = 0,
    /// The revision of its creation.
    Create = 1,
    /// The revision of its last change.
    Mod = 2,
    /// What it holds.
    Value = 3,
    /// The lease that it hangs on.
    Lease = 4,
}

/// `Compare`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Compare {
    /// What has to come out.
    #[prost(enumeration = "CompareResult", tag = "1")]
    pub result: i32,
    /// What is compared.
    #[prost(enumeration = "CompareTarget", tag = "2")]
    pub target: i32,
    /// The first key.
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    /// With what.
    #[prost(oneof = "compare::Target", tags = "5, 6, 7, 8")]
    pub target_union: Option<compare::Target>,
    /// The first key behind the range, of which all must compare; empty: the first key alone.
    #[prost(bytes = "vec", tag = "64")]
    pub range_end: Vec<u8>,
}

/// Of `Compare`.
pub mod compare {
    /// What a key is compared with.
    #[derive(Clone, PartialEq, Eq, prost::Oneof)]
    pub enum Target {
        /// The revision of its creation; 0: it is absent.
        #[prost(int64, tag = "5")]
        CreateRevision(i64),
        /// The revision of its last change; 0: it is absent.
        #[prost(int64, tag = "6")]
        ModRevision(i64),
        /// What it holds.
        #[prost(bytes, tag = "7")]
        Value(Vec<u8>),
        /// The lease that it hangs on.
        #[prost(int64, tag = "8")]
        Lease(i64),
    }
}

/// `TxnRequest`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TxnRequest {
    /// If all of these hold,
    #[prost(message, repeated, tag = "1")]
    pub compare: Vec<Compare>,
    /// this is done,
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<RequestOp>,
    /// else this.
    #[prost(message, repeated, tag = "3")]
    pub failure: Vec<RequestOp>,
}

/// `TxnResponse`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TxnResponse {
    /// The store's revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// All comparisons held.
    #[prost(bool, tag = "2")]
    pub succeeded: bool,
    /// One for each operation.
    #[prost(message, repeated, tag = "3")]
    pub responses: Vec<ResponseOp>,
}

/// `WatchRequest`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct WatchRequest {
    #[prost(oneof = "watch_request::Request", tags = "1, 3")]
    pub(super) request_union: Option<watch_request::Request>,
}

/// Of `WatchRequest`.
pub(super) mod watch_request {
    /// What a watch is told.
    #[derive(Clone, PartialEq, Eq, prost::Oneof)]
    pub(in super::super) enum Request {
        #[prost(message, tag = "1")]
        Create(super::WatchCreateRequest),
        #[prost(message, tag = "3")]
        Progress(super::WatchProgressRequest),
    }
}

/// `WatchCreateRequest`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct WatchCreateRequest {
    /// The first key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// The first key behind the range; empty: the first key alone.
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    /// From this revision on; 0: from the next one on.
    #[prost(int64, tag = "3")]
    pub start_revision: i64,
    /// Revisions are told even if nothing happens.
    #[prost(bool, tag = "4")]
    pub progress_notify: bool,
}

/// `WatchProgressRequest`
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct WatchProgressRequest {}

/// `WatchResponse`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct WatchResponse {
    /// The store's revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// The answer to the request that made the watch.
    #[prost(bool, tag = "3")]
    pub created: bool,
    /// The watch is over.
    #[prost(bool, tag = "4")]
    pub canceled: bool,
    /// It is because older revisions than this one are gone; 0: not for that.
    #[prost(int64, tag = "5")]
    pub compact_revision: i64,
    /// Why it is over.
    #[prost(string, tag = "6")]
    pub cancel_reason: String,
    /// What happened.
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<Event>,
}

/// `LeaseGrantRequest`
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct LeaseGrantRequest {
    #[prost(int64, tag = "1")]
    pub(super) ttl: i64,
}

/// `LeaseGrantResponse`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct LeaseGrantResponse {
    #[prost(int64, tag = "2")]
    pub(super) id: i64,
    #[prost(string, tag = "4")]
    pub(super) error: String,
}

/// `LeaseKeepAliveRequest`, `LeaseRevokeRequest`, `LeaseTimeToLiveRequest`
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct LeaseRequest {
    #[prost(int64, tag = "1")]
    pub(super) id: i64,
}

/// `LeaseRevokeResponse`
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct LeaseRevokeResponse {}

/// `LeaseKeepAliveResponse`
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct LeaseKeepAliveResponse {
    #[prost(int64, tag = "3")]
    pub(super) ttl: i64,
}

/// `LeaseTimeToLiveResponse`
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LeaseTimeToLive {
    /// So many seconds are left; none or less: it is gone.
    #[prost(int64, tag = "3")]
    pub ttl: i64,
    /// So many seconds it was made for.
    #[prost(int64, tag = "4")]
    pub granted_ttl: i64,
}

/// `AuthenticateRequest`
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub(super) struct AuthenticateRequest {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) password: String,
}

/// `AuthenticateResponse`
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub(super) struct AuthenticateResponse {
    #[prost(string, tag = "2")]
    pub(super) token: String,
}

#[cfg(test)]
mod tests;
