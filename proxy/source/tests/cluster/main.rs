//! The task behind `Cluster` against a real etcd: several nodes in one process.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod etcd;
mod leases;
mod node;
mod outages;
mod secrets;
mod shared;
mod subnets;
