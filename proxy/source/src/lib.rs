//! Where facts are kept and where they come from: the embedded store (sled) and manifest files.

pub mod cluster;
mod manifests;
mod store;
mod watch;

pub use manifests::{ManifestDir, Scan};
pub use store::{Error, Origin, Store, Stored};
pub use watch::DirWatch;
