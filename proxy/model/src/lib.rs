//! Services, endpoints and nodes: Kubernetes objects parsed and checked, events to index to
//! resolved services, allocation of addresses and ports.
//!
//! Pure (invariant I1). Documents come in by [`manifest`], containers as [`EndpointRecord`]s;
//! [`Index`] holds the facts and says which services a fact concerns; [`Resolved`] is a service
//! with the endpoints that it has.
#![forbid(unsafe_code)]

pub mod allocate;
mod cluster;
mod guarded;
mod hash;
mod index;
mod labels;
pub mod limits;
pub mod manifest;
mod names;
mod object;
mod record;
mod resolved;

pub use cluster::{
    ClusterConfig, MacAddress, NoMacAddress, NodeIdentity, NodeRecord, Peer, SubnetRecord, part_len,
};
pub use guarded::Guarded;
pub use index::{Changes, Container, Event, Home, Index};
pub use labels::{LabelSet, Labels};
pub use manifest::special;
pub use object::{
    Balance, EndpointSlice, Hints, Ingress, IpFamily, IpFamilyPolicy, Misplaced, Node, Object,
    ObjectKey, ObjectKind, Protocol, Service, ServicePort, ServiceType, SliceEndpoint, SlicePort,
    TargetPort, TrafficDistribution, TrafficPolicy,
};
pub use record::{EndpointEvent, EndpointKey, EndpointRecord, HeldRecord};
pub use resolved::{Endpoint, LeftOut, Resolved, ResolvedPort};
