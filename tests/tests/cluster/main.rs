//! Many nodes: what they are to each other, and what may happen to them.

mod deaths;
mod demo;
mod etcd;
mod families;
mod leases;
mod policy;
mod steady;
mod store;
mod overlay;
