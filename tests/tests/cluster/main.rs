//! Many nodes: what they are to each other, and what may happen to them.

mod etcd;
