//! Containers by the records that `causeway-service` keeps of them: what a daemon goes on with
//! whose store was lost, and their host ports.

use std::path::Path;

use causeway_host::Records;
use causeway_host::paths::kind;
use causeway_model::{EndpointEvent, EndpointKey};
use causeway_service::record::{Announcement, Record, endpoint_key, record_key};

use crate::host_ports;

/// The events of the containers that are attached in this boot. What cannot be read is left out.
pub(crate) fn events(run_dir: &Path, boot_id: &str) -> Vec<EndpointEvent> {
    let records = Records::new(run_dir, kind::ENDPOINT).readable_in_part::<Announcement>();
    let events = records.into_iter().filter_map(|(_, told)| told.event);
    events.filter(|event| event.boot_id == boot_id).collect()
}

/// The host ports of all attachments. What cannot be read is left out.
pub(crate) fn host_ports(run_dir: &Path) -> host_ports::Records {
    let records = Records::new(run_dir, kind::SERVICE).readable_in_part::<Record>();
    records.into_iter().map(|(key, record)| (endpoint_key(key), record)).collect()
}

/// Those of one attachment, if it has some.
pub(crate) fn host_ports_of(run_dir: &Path, key: &EndpointKey) -> Option<Record> {
    Records::new(run_dir, kind::SERVICE).read(&record_key(key.clone())).ok().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use causeway_host::RecordKey;

    use super::*;

    /// Rows: RC5
    #[test]
    fn containers_of_this_boot_are_found_in_their_records() {
        let folder = tempfile::tempdir().expect("a folder");
        let event = |id: &str, boot: &str| EndpointEvent {
            key: EndpointKey {
                network: "net".into(),
                container_id: id.into(),
                ifname: "eth0".into(),
            },
            seq: 1,
            boot_id: boot.into(),
            record: None,
        };
        let write = |id: &str, record: serde_json::Value| {
            let key =
                RecordKey { network: "net".into(), container_id: id.into(), ifname: "eth0".into() };
            Records::new(folder.path(), kind::ENDPOINT).write(&key, &record).expect("written");
        };
        let note = |event: Option<EndpointEvent>| json!({ "socket": "/s", "spool": "/p", "announced": true, "event": event });
        write("this", note(Some(event("this", "boot"))));
        write("old", note(Some(event("old", "before"))));
        write("version", json!({ "socket": "/s", "spool": "/p", "announced": true }));
        std::fs::write(folder.path().join("attachments/endpoint/net/x.json"), "{").expect("made");
        assert_eq!(events(folder.path(), "boot"), [event("this", "boot")]);
        assert_eq!(events(&folder.path().join("none"), "boot"), []);
    }
}
