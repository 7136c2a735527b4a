//! ADD: the plan's values become links, addresses, routes and rules; a failure rolls everything
//! back.

mod addresses;
mod links;
mod neighbours;
mod ptp;
mod subnet_change;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use causeway_host::paths::kind;
use causeway_host::{FileLock, RecordKey, Records};
use causeway_kernel::{Link, Mac, Netlink, Netns};
use causeway_ruleset::name;
use cni_plugin::{CniResult, Code, Dns, Error, Request};

use crate::config::{self, Checked, Mode};
use crate::ipam::Ipam;
use crate::plan::{self, Addressing, AttachmentLinks};
use crate::reclaim::Reclaim;
use crate::record::{self, Record};
use crate::undo::{Done, Undo, UndoContext};
use crate::{del, fault, names, node, repair};

/// Time for duplicate address detection.
const SETTLE: Duration = Duration::from_secs(5);
/// Time for carrier and a forwarding port.
const FORWARD: Duration = Duration::from_millis(2500);
/// Names tried for the host end.
const NAMES: u32 = 10;

/// Everything an ADD works with.
struct AddContext<'a> {
    request: &'a Request,
    config: &'a Checked,
    key: &'a RecordKey,
    /// Alias of the host end and comment of the rules.
    owner: String,
    /// `CNI_NETNS`
    netns_path: &'a str,
    netns: &'a Netns,
    host: &'a Netlink,
    inside: &'a Netlink,
    records: &'a Records,
}

/// The links of an attachment while it is made.
struct Links {
    /// `None` in ptp mode.
    bridge: Option<Link>,
    host: Link,
    container: Link,
    /// The bridge has ports that are not ours.
    foreign_ports: bool,
}

/// Attaches the container of `request`.
///
/// # Errors
/// Whatever failed; nothing is left behind but the bridge, which other attachments may use.
pub(crate) fn add(request: &Request) -> Result<CniResult, Error> {
    let config = &Checked::of(request)?;
    let netns_path = request.netns.as_deref().unwrap_or_default();
    let netns = &Netns::open(netns_path).map_err(fault::netns)?;
    let key = &record::key(request);
    let records = &Records::new(&config.run_dir, kind::BRIDGE);
    let host = &Netlink::open().map_err(fault::kernel)?;
    let inside = &Netlink::open_in(netns).map_err(fault::kernel)?;
    let owner = name::owner(&key.network, &key.container_id, &key.ifname);
    let context =
        AddContext { request, config, key, owner, netns_path, netns, host, inside, records };
    // Before anything is made: no DEL would find the program either.
    context.ipam().map_or(Ok(()), |ipam| ipam.find())?;
    // If we are killed, a DEL that comes at once waits for the IPAM plugin, whose lease it frees.
    let lock = records.lock(key, record::LOCK_WAIT).and_then(FileLock::share_with_children);
    let _lock = lock.map_err(fault::kernel)?;
    let host_ifname = context.claim().inspect_err(|_| context.forget_lock())?;
    let mut undo = Undo::new(context.undo_context());
    let result = context.attach(host_ifname, &mut undo)?;
    undo.commit();
    if let Err(error) = repair::restore_where_flushed(&config.run_dir, key) {
        fault::warn(&format!("rules of other attachments are missing: {error}"));
    }
    Ok(result)
}

impl<'a> AddContext<'a> {
    fn undo_context(&self) -> UndoContext<'a> {
        UndoContext {
            key: self.key,
            run_dir: &self.config.run_dir,
            host: self.host,
            records: self.records,
            ipam: self.ipam(),
        }
    }

    fn reclaim(&self) -> Reclaim<'a> {
        Reclaim { request: self.request, run_dir: &self.config.run_dir, own: self.key }
    }

    fn ipam(&self) -> Option<Ipam<'a>> {
        let request = self.request;
        self.config.ipam.as_deref().map(|plugin| Ipam { plugin, request })
    }

    /// A free name for the host end. Refuses a second ADD before the lease of the first one is
    /// touched (rows C59, C61); clears away an attachment that died without DEL.
    fn claim(&self) -> Result<String, Error> {
        if self.inside.link(&self.key.ifname).map_err(fault::kernel)?.is_some() {
            return Err(Error::new(
                Code::InvalidEnvironment,
                format!(
                    "CNI_IFNAME: interface {} already exists in {}; use another name or DEL first",
                    self.key.ifname, self.netns_path
                ),
            ));
        }
        let record = self.records.read::<Record>(self.key);
        if !matches!(record, Ok(None)) {
            self.clear(record.ok().flatten())?;
        }
        self.free_name(0).map(|(name, _)| name)
    }

    /// Removes what the lock left of an ADD that was refused, unless it lies beside a record.
    fn forget_lock(&self) {
        if matches!(self.records.read::<Record>(self.key), Ok(None)) {
            // The refusal is what the user has to know.
            drop(self.records.remove(self.key));
        }
    }

    fn clear(&self, record: Option<Record>) -> Result<(), Error> {
        let detachment = del::Detachment {
            request: self.request,
            key: self.key,
            run_dir: &self.config.run_dir,
            bridge: &self.config.bridge,
            ipam: self.config.ipam.as_deref(),
            host: self.host,
        };
        if del::host_end(&detachment, record.as_ref()).map_err(fault::kernel)?.is_some() {
            return Err(self.duplicate());
        }
        fault::collected(del::detach(&detachment, record.as_ref()))?;
        // The chain that failed was another container's.
        del::forget_failure(&self.config.run_dir, self.key)
    }

    fn duplicate(&self) -> Error {
        Error::new(
            Code::InvalidEnvironment,
            format!(
                "container {} already has {} on network {}; duplicate ADD is not allowed, DEL first",
                self.key.container_id, self.key.ifname, self.key.network
            ),
        )
    }

    /// The first name from `salt` on that nothing has, and the salt after it.
    fn free_name(&self, salt: u32) -> Result<(String, u32), Error> {
        for salt in salt..NAMES {
            let name = plan::host_ifname(&self.owner, salt);
            match self.host.link(&name).map_err(fault::kernel)? {
                None => return Ok((name, salt + 1)),
                Some(link) if link.alias.as_deref() == Some(self.owner.as_str()) => {
                    return Err(self.duplicate());
                }
                Some(_) => {}
            }
        }
        Err(Error::new(
            Code::TryAgainLater,
            format!("no free interface name for the host end of {}", self.key.container_id),
        ))
    }

    fn attach(&self, host_ifname: String, undo: &mut Undo<'a>) -> Result<CniResult, Error> {
        let mut record = Record {
            netns: self.netns_path.to_owned(),
            bridge: self.config.bridge.clone(),
            host_ifname,
            masq: self.config.ip_masq && self.config.ipam.is_some(),
            spoof: self.config.mac_spoof_check,
            ipam: self.config.ipam.clone().unwrap_or_default(),
            // Without it the attachment is judged by its link and the path alone.
            netns_id: self.netns.id_by(self.inside).ok(),
            ..Record::new(self.key.clone())
        };
        record::ipam_facts(&mut record, self.request);
        self.write(&record)?;
        undo.push(Done::Record);
        if self.config.ipam.is_some() {
            self.reclaim().before_lease();
        }
        let (links, leased) = self.links_and_lease(&mut record, undo)?;
        let mut dns = self.config.dns.clone();
        let mut addressing = None;
        if let Some(leased) = leased {
            if dns.is_empty() {
                dns = leased.dns.clone();
            }
            // The default route of the first network of several stays the only one.
            let routed = |like| self.inside.has_default_gateway(like).map_err(fault::kernel);
            addressing = Some(match self.config.mode {
                Mode::Bridge => Addressing::of(self.config.gateway, leased, routed)?,
                Mode::Ptp => plan::ptp::addressing(self.config.gateway, leased, routed)?,
            });
        }
        if record.masq && addressing.is_some() {
            record.masq_exclude = self.never_masqueraded()?;
        }
        record.mac = plan::mac_text(links.container.mac);
        record.addresses = addressing.iter().flat_map(|plan| plan.leased.clone()).collect();
        record.gateways = addressing.iter().flat_map(|plan| plan.gateways.clone()).collect();
        self.write(&record)?;
        let mut vlan_gateway = None;
        if let Some(addressing) = &addressing {
            self.configure_container(&links.container, addressing)?;
            match &links.bridge {
                Some(bridge) => vlan_gateway = self.configure_gateway(bridge, addressing)?,
                None => self.configure_host_end(&links.host, addressing)?,
            }
            self.masquerade(&record, undo)?;
        }
        let links = self.settle(links, addressing.as_ref())?;
        if links.foreign_ports {
            self.remember_unused(&record.addresses);
        }
        let ends = AttachmentLinks {
            bridge: links.bridge.as_ref(),
            host: &links.host,
            container: &links.container,
            vlan_gateway: vlan_gateway.as_ref(),
            netns: self.netns_path,
        };
        let dns = self.names(dns, addressing.as_ref())?;
        Ok(plan::result(&ends, addressing, dns, self.request.prev_result.as_ref()))
    }

    /// What the container asks for names: `given`, or what the node offers if neither the configuration
    /// nor another plugin says it.
    fn names(&self, given: Dns, addressing: Option<&Addressing>) -> Result<Dns, Error> {
        let before = self.request.prev_result.as_ref();
        if !given.is_empty() || before.is_some_and(|result| !result.dns.is_empty()) {
            return Ok(given);
        }
        let Some(addressing) = addressing else { return Ok(Dns::default()) };
        let Some(node) = node::dns(&self.config.run_dir)? else { return Ok(Dns::default()) };
        let namespace = self.request.args.pairs.get("K8S_POD_NAMESPACE").map(String::as_str);
        Ok(names::dns(&node, &addressing.gateways, namespace.unwrap_or("default")))
    }

    fn write(&self, record: &Record) -> Result<(), Error> {
        self.records.write(self.key, record).map_err(fault::kernel)
    }

    fn gateway_link_name(&self) -> Option<String> {
        let vlan = self.config.port.vlan.filter(|_| self.config.gateway.enabled)?;
        Some(config::gateway_link(&self.config.bridge, vlan))
    }

    /// The runtime may have given the container up meanwhile (row F17).
    fn same_namespace(&self) -> Result<(), Error> {
        match Netns::open(self.netns_path) {
            Ok(now) if now.is_same(self.netns) => Ok(()),
            Ok(_) => Err(Error::new(
                Code::InvalidNetns,
                format!(
                    "CNI_NETNS: {} was replaced by another namespace in the meantime",
                    self.netns_path
                ),
            )),
            Err(error) => Err(fault::netns(error)),
        }
    }

    /// The host end with carrier and as a forwarding port. If the bridge runs a spanning tree
    /// the port forwards half a minute later: carrier is enough then.
    fn forwarding(&self, index: u32) -> Result<Link, Error> {
        let late = match self.host.wait_forwarding(index, FORWARD) {
            Ok(link) => return Ok(link),
            Err(error) => fault::kernel(error),
        };
        match self.host.link_by_index(index).map_err(fault::kernel)? {
            Some(link) if late.code == Code::TryAgainLater && link.up && link.carrier => Ok(link),
            Some(_) | None => Err(late),
        }
    }

    /// Waits for a forwarding port, tells the neighbours, and reads the links as they are now.
    fn settle(&self, links: Links, addressing: Option<&Addressing>) -> Result<Links, Error> {
        let mut now = links;
        if !self.config.container_down {
            now.host = self.forwarding(now.host.index)?;
            if let (Some(_), Some(mac)) = (addressing, now.container.mac) {
                // Neighbours that miss it learn the address a little later.
                if let Err(error) = self.inside.announce(now.container.index, mac) {
                    fault::warn(&fault::kernel(error));
                }
            }
        }
        self.same_namespace()?;
        if let Some(bridge) = &mut now.bridge {
            let found = self.host.link_by_index(bridge.index).map_err(fault::kernel)?;
            *bridge = found.ok_or_else(|| {
                Error::new(
                    Code::Io,
                    format!("bridge {} was removed by another process", bridge.name),
                )
            })?;
        }
        Ok(now)
    }
}

/// An address for a bridge; the seed of the standard library's hasher is the randomness at hand.
fn random_mac() -> Mac {
    plan::local_mac(RandomState::new().build_hasher().finish())
}
