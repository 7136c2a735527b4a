//! What plugins and daemon share on a node's disk: records, locks, files written whole, paths,
//! marks, and which boot this is. Knows no network and starts no program.

mod clock;
mod error;
pub mod file;
mod lock;
mod node_file;
pub mod paths;
mod record;
pub mod sealed;
mod signal;

pub use clock::{Deadline, boot_id, boot_time};
pub use error::{Error, Result};
pub use lock::{FileLock, Wait};
pub use node_file::{Field, NodeDns, NodeFile};
pub use record::{RecordKey, Records};
pub use sealed::SealedLock;
pub use signal::ignore_sigterm;
