//! `GET /v1/leases`: what `causeway-ipam` has given out on this node.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::request::Refused;

/// How long an ADD or DEL that holds a network's lock is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// The leases; blocks for some milliseconds.
pub(crate) fn list(run_dir: &Path) -> Result<Vec<Value>, Refused> {
    match causeway_ipam::list_all(run_dir, LOCK_WAIT) {
        Ok(leases) => {
            Ok(leases.iter().map(|lease| serde_json::to_value(lease).unwrap_or_default()).collect())
        }
        Err(error) => {
            let status = if error.busy { 503 } else { 500 };
            let remedy = if error.busy { "try again" } else { "see: causeway-ipam repair" };
            Err(Refused::caused(status, &format!("leases cannot be read; {remedy}"), &error))
        }
    }
}
