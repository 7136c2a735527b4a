//! A client of etcd's gRPC interface, as far as the cluster store needs it.
//!
//! The messages are written down by hand, so that the build needs no protobuf compiler: their
//! numbers are those of `api/etcdserverpb/rpc.proto` and `api/mvccpb/kv.proto` of etcd's
//! repository, which versions 3.4 to 3.6 share
//! (<https://github.com/etcd-io/etcd/tree/main/api>). Fields that nobody here reads or sets are
//! left out.

mod client;
mod message;
mod request;

pub use client::{Client, Error, Options, User, Watch};
pub use message::{
    Compare, CompareResult, DeleteRangeResponse, Event, EventType, KeyValue, LeaseTimeToLive,
    PutResponse, RangeRequest, RangeResponse, RequestOp, ResponseHeader, ResponseOp, TxnRequest,
    TxnResponse, WatchCreateRequest, WatchResponse, compare, request_op, response_op,
};
pub use request::end_of;
