//! Where facts are kept and where they come from: the embedded store (sled), manifest files, and
//! etcd, whose client this is, too.

pub mod cluster;
pub mod etcd;
mod manifests;
mod size;
mod store;
mod stored;
mod watch;

pub use manifests::{ManifestDir, Scan};
pub use size::{check_size, claims};
pub use store::{Error, Recovered, Store, disk_trouble, lost_stores};
pub use stored::{Origin, Stored};
pub use watch::DirWatch;
