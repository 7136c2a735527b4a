//! Many nodes: what they are to each other, and what may happen to them.

mod alloc;
mod balancers;
mod chaos;
mod deaths;
mod demo;
mod etcd;
mod export;
mod families;
mod hostile;
mod leases;
mod liar;
mod overlay;
mod policy;
mod readme;
mod shared;
mod shown;
mod steady;
mod store;
mod strangers;
