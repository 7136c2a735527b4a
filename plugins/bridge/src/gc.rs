//! GC: removes what belongs to this network and to no valid attachment (rows C73, C74).

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use causeway_host::paths::kind;
use causeway_host::{RecordKey, Records};
use causeway_kernel::Netlink;
use causeway_ruleset::name;
use cni_plugin::{Attachment, Command, Error, Request};
use serde_json::{Value, json};

use crate::config::Removal;
use crate::del::{self, Detachment};
use crate::ipam::Ipam;
use crate::{fault, masq, spoof};

/// Removes stale attachments, then links and rules without a record, then asks the IPAM plugin to
/// do likewise.
///
/// # Errors
/// All that could not be removed.
pub(crate) fn gc(request: &Request) -> Result<(), Error> {
    let config = Removal::of(request)?;
    let records = Records::new(&config.run_dir, kind::BRIDGE);
    let host = Netlink::open().map_err(fault::kernel)?;
    let sweep = Sweep { request, config: &config, records: &records, host: &host };
    let (keys, unreadable) = records.list(&request.network).map_err(fault::kernel)?;
    let mut errors: Vec<Error> = unreadable.into_iter().map(fault::kernel).collect();
    let stale = keys.into_iter().filter(|key| !sweep.is_valid(key));
    // Asked of all before the first is removed: an ADD may have ended when its turn comes.
    let (mut busy, stale): (Vec<_>, Vec<_>) = stale.partition(|key| records.is_busy(key));
    for key in stale {
        match sweep.remove(&key) {
            Some(failed) => errors.extend(failed),
            None => busy.push(key),
        }
    }
    errors.extend(sweep.links().err());
    let keep = sweep.keep();
    errors.extend(masq::gc(&config.run_dir, &request.network, &keep).err());
    errors.extend(spoof::gc(&config.run_dir, &request.network, &keep).err());
    if let Some(plugin) = config.ipam.as_deref() {
        let spared = sparing(request, &busy);
        errors.extend(Ipam { plugin, request: &spared }.ask(Command::Gc).err());
    }
    fault::collected(errors)
}

struct Sweep<'a> {
    request: &'a Request,
    config: &'a Removal,
    records: &'a Records,
    host: &'a Netlink,
}

impl Sweep<'_> {
    fn is_valid(&self, key: &RecordKey) -> bool {
        self.request
            .valid_attachments
            .iter()
            .any(|valid| valid.container_id == key.container_id && valid.ifname == key.ifname)
    }

    /// What failed, or `None` if an operation on the attachment runs right now: it is newer
    /// than the list (row F46).
    fn remove(&self, key: &RecordKey) -> Option<Vec<Error>> {
        let _lock = match self.records.lock(key, Duration::ZERO) {
            Ok(lock) => lock,
            Err(error) if error.is_transient() => return None,
            Err(error) => return Some(vec![fault::kernel(error)]),
        };
        let request = for_attachment(self.request, key);
        let record = del::read(self.records, key);
        let what = Detachment {
            request: &request,
            key,
            run_dir: &self.config.run_dir,
            bridge: &self.config.bridge,
            ipam: self.config.ipam.as_deref(),
            host: self.host,
        };
        let mut errors = del::detach(&what, record.as_ref());
        if errors.is_empty() {
            errors.extend(del::forget(&self.config.run_dir, key, record.as_ref()));
        }
        Some(errors)
    }

    /// Removes host ends of this network whose record was lost. The dump comes before the records
    /// are read, and a record before its link, so a new attachment is never taken for a lost one.
    fn links(&self) -> Result<(), Error> {
        let prefix = name::owner_network_prefix(&self.request.network);
        let links = self.host.links().map_err(fault::kernel)?;
        let keep = self.keep();
        let mut errors = Vec::new();
        for link in links {
            let Some(alias) = link.alias.as_deref().filter(|alias| alias.starts_with(&prefix))
            else {
                continue;
            };
            if !keep(alias) {
                errors.extend(self.host.delete_link(link.index).err().map(fault::kernel));
            }
        }
        fault::collected(errors)
    }

    /// Whether an owner comment is that of a valid attachment or of one with a record. Records are
    /// read again for each comment that is not known yet, after the kernel was: an attachment made
    /// meanwhile has its record by then.
    fn keep(&self) -> impl Fn(&str) -> bool {
        let network = self.request.network.as_str();
        let owner = |id: &str, ifname: &str| name::owner(network, id, ifname);
        let valid = &self.request.valid_attachments;
        let known: BTreeSet<String> =
            valid.iter().map(|valid| owner(&valid.container_id, &valid.ifname)).collect();
        let known = RefCell::new(known);
        move |comment: &str| {
            if known.borrow().contains(comment) {
                return true;
            }
            let Ok((keys, _)) = self.records.list(network) else { return true };
            let mut known = known.borrow_mut();
            known.extend(keys.iter().map(|key| owner(&key.container_id, &key.ifname)));
            known.contains(comment)
        }
    }
}

/// The request as if it were about `key`, for DEL of one attachment.
pub(crate) fn for_attachment(request: &Request, key: &RecordKey) -> Request {
    let mut request = request.clone();
    request.attachment =
        Attachment { container_id: key.container_id.clone(), ifname: key.ifname.clone() };
    request.env.insert("CNI_CONTAINERID".to_owned(), key.container_id.clone());
    request.env.insert("CNI_IFNAME".to_owned(), key.ifname.clone());
    request.env.remove("CNI_NETNS");
    request.netns = None;
    request.prev_result = None;
    request
}

/// The request with `busy` among the valid attachments, so that the IPAM plugin spares them too.
/// The same bytes if there is none.
fn sparing(request: &Request, busy: &[RecordKey]) -> Request {
    let mut request = request.clone();
    if busy.is_empty() {
        return request;
    }
    let Value::Object(config) = &mut request.raw else { return request };
    let valid = "cni.dev/valid-attachments";
    let sent = config.keys().find(|key| key.eq_ignore_ascii_case(valid)).cloned();
    let list = config.entry(sent.as_deref().unwrap_or(valid)).or_insert_with(|| json!([]));
    if !list.is_array() {
        *list = json!([]);
    }
    if let Value::Array(list) = list {
        list.extend(
            busy.iter().map(|key| json!({"containerID": key.container_id, "ifname": key.ifname})),
        );
    }
    request.stdin = request.raw.to_string().into_bytes();
    request
}
