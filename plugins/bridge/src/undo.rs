//! What a failing ADD takes back, in reverse order. Dropping an [`Undo`] that was not committed
//! runs it, so that `?` and a panic unwind alike (I7).

use causeway_host::{RecordKey, Records};
use causeway_kernel::Netlink;
use cni_plugin::Error;
use ipnetwork::IpNetwork;

use crate::ipam::Ipam;
use crate::{fault, masq, record, spoof};

/// Where the things stand that are taken back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UndoContext<'a> {
    /// Whose.
    pub key: &'a RecordKey,
    /// `runDir`
    pub run_dir: &'a std::path::Path,
    /// The host's namespace.
    pub host: &'a Netlink,
    /// Records of this plugin.
    pub records: &'a Records,
    /// IPAM plugin; `None` for a layer-2 attachment.
    pub ipam: Option<Ipam<'a>>,
}

/// One thing done.
#[derive(Clone, Debug)]
pub(crate) enum Done {
    /// The record was written.
    Record,
    /// The IPAM plugin was started; it may hold a lease whatever it answered (rows C81, C82).
    Lease,
    /// The veth pair, by the name of its host end.
    Veth(String),
    /// The check of source addresses of this host end.
    Spoof(String),
    /// The masquerade of these addresses.
    Masquerade(Vec<IpNetwork>),
}

/// What was done so far.
#[derive(Debug)]
pub(crate) struct Undo<'a> {
    context: UndoContext<'a>,
    done: Vec<Done>,
}

impl<'a> Undo<'a> {
    /// Nothing done yet.
    pub(crate) fn new(context: UndoContext<'a>) -> Self {
        Self { context, done: Vec::new() }
    }

    /// Notes what was done, or is about to be.
    pub(crate) fn push(&mut self, done: Done) {
        self.done.push(done);
    }

    /// ADD succeeded: everything stays.
    pub(crate) fn commit(mut self) {
        self.done.clear();
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        let mut clean = true;
        while let Some(done) = self.done.pop() {
            // While anything is left the record stays, for the runtime's DEL.
            if matches!(done, Done::Record) && !clean {
                continue;
            }
            if let Err(error) = self.context.take_back(&done) {
                fault::warn(&format!("undo of a failed ADD: {error}"));
                clean = false;
            }
        }
    }
}

impl UndoContext<'_> {
    fn take_back(&self, done: &Done) -> Result<(), Error> {
        let last = || record::is_last(self.run_dir, 1);
        match done {
            Done::Record => self.records.remove(self.key).map_err(fault::kernel),
            Done::Lease => self.ipam.map_or(Ok(()), |ipam| ipam.take_back()),
            Done::Veth(name) => self.delete_veth(name).map_err(fault::kernel),
            Done::Spoof(host_ifname) => spoof::remove(self.run_dir, self.key, host_ifname, last()),
            Done::Masquerade(addresses) => masq::remove(self.run_dir, self.key, addresses, last()),
        }
    }

    fn delete_veth(&self, name: &str) -> causeway_kernel::Result<()> {
        match self.host.link(name)? {
            Some(link) => self.host.delete_link(link.index),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use causeway_host::paths::{self, kind};
    use causeway_kernel::BridgeSpec;
    use serde_json::{Value, json};

    use super::*;
    use crate::rules::testing::{Host, key};

    /// Whether the record is left of an ADD that failed after `done`.
    fn leaves_record(host: &Host, done: impl IntoIterator<Item = Done>) -> bool {
        let key = &key("blue", "a");
        let records = &Records::new(host.run_dir(), kind::BRIDGE);
        records.write(key, &json!({})).expect("a record");
        let netlink = &Netlink::open().expect("a socket");
        let context =
            UndoContext { key, run_dir: host.run_dir(), host: netlink, records, ipam: None };
        let mut undo = Undo::new(context);
        done.into_iter().for_each(|one| undo.push(one));
        drop(undo);
        records.read::<Value>(key).expect("readable").is_some()
    }

    #[test]
    fn the_record_goes_once_all_else_is_gone() {
        let host = Host::fake();
        assert!(!leaves_record(&host, [Done::Record, Done::Lease]));
        // A directory in the lock's place keeps rules from being removed.
        std::fs::create_dir(paths::rules_lock(host.run_dir())).expect("a directory");
        let spoof = || Done::Spoof("veth1".to_owned());
        assert!(leaves_record(&host, [Done::Record, spoof()]));
        // What succeeds after the failure does not make up for it.
        assert!(leaves_record(&host, [Done::Record, Done::Lease, spoof(), Done::Lease]));
        assert!(leaves_record(&host, []), "not ours to remove");
    }

    #[test]
    fn a_step_that_fails_keeps_nothing_but_the_record() {
        let host = Host::enter();
        std::fs::create_dir(paths::rules_lock(host.run_dir())).expect("a directory");
        let netlink = Netlink::open().expect("a socket");
        let link = BridgeSpec { name: "veth1", mtu: None, mac: None, vlan_filtering: false };
        netlink.add_bridge(&link).expect("a link");
        let (veth, spoof) = (Done::Veth("veth1".to_owned()), Done::Spoof("veth1".to_owned()));
        assert!(leaves_record(&host, [Done::Record, veth, spoof]));
        assert_eq!(netlink.link("veth1").expect("links"), None);
    }
}
