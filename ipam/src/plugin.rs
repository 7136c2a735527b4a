//! The operations, from a checked request to the store and back.

use std::collections::BTreeSet;
use std::sync::Arc;

use cni_plugin::{About, Attachment, CniResult, Code, Dns, Error, Ip, Plugin, Request, Version};
use ipnetwork::IpNetwork;

use crate::allocator::{self, Ask, Now, Refusal};
use crate::auto;
use crate::config::{Checked, Place};
use crate::data_dirs;
use crate::facts;
use crate::session::{self, Patience};
use crate::store::{self, Owner};
use crate::upstream::Upstream;

/// Who we are. The keys of `CNI_ARGS` are those that containerd, CRI-O and nerdctl send, with or
/// without `IgnoreUnknown` (rows C23, C24).
pub(crate) const ABOUT: About = About {
    name: "causeway-ipam",
    version: env!("CARGO_PKG_VERSION"),
    supported: &Version::ALL,
    known_args: &[
        "K8S_POD_NAMESPACE",
        "K8S_POD_NAME",
        "K8S_POD_INFRA_CONTAINER_ID",
        "K8S_POD_UID",
        "NERDCTL_CNI_DHCP_HOSTNAME",
    ],
};

/// The IPAM plugin.
#[derive(Debug)]
pub(crate) struct Ipam {
    /// When the process started: what GC's list can know of at most.
    pub(crate) now: Now,
}

impl Plugin for Ipam {
    fn add(&self, request: &Request) -> Result<CniResult, Error> {
        let place = Place::new(request);
        let checked = Checked::new(request, || facts::node_subnets(&place.node_file()))?;
        let dns = match &checked.resolv_conf {
            Some(path) => facts::resolv_conf(path)?,
            None => Dns::default(),
        };
        let owner = owner_of(&request.attachment);
        let (pools, requested) = (checked.pools, checked.requested);
        let (now, reuse_delay) = (self.now.clone(), place.reuse_delay);
        let granted = {
            let owner = owner.clone();
            let lock = auto::lock(&place, &checked.node_subnets, &self.now).map_err(refused)?;
            let upstream = Upstream::new(&place, &self.now);
            let work = move |store: &mut dyn store::Store| {
                let ask = Ask {
                    pools: &pools,
                    requested: &requested,
                    owner: &owner,
                    reuse_delay,
                    now: &now,
                    elsewhere: &|address| upstream.holder(address),
                };
                allocator::allocate(store, &ask)
            };
            let (lock, run_dir) = (Arc::new(lock), &place.run_dir);
            session::with_locked(lock, run_dir, Patience::USUAL, &self.now, work)
        };
        let grants = granted.map_err(|refusal| {
            if matches!(refusal, Refusal::Store(store::Error::Io { .. })) {
                self.take_back(&place, owner);
            }
            refused(refusal)
        })?;
        data_dirs::note(&place.run_dir, &place.data_dir);
        let ips = grants
            .into_iter()
            .map(|grant| {
                Ok(Ip {
                    interface: None,
                    address: IpNetwork::new(grant.address, grant.range.subnet.prefix())
                        .map_err(|e| Error::caused(Code::Internal, "prefix length", &e))?,
                    gateway: Some(grant.range.gateway),
                })
            })
            .collect::<Result<_, Error>>()?;
        Ok(CniResult { ips, routes: checked.routes, dns, ..CniResult::default() })
    }

    fn del(&self, request: &Request) -> Result<(), Error> {
        causeway_host::ignore_sigterm();
        let place = Place::new(request);
        if !session::exists(&place) {
            return Ok(());
        }
        self.release(&place, owner_of(&request.attachment)).map_err(|e| store_error(&e))
    }

    fn check(&self, request: &Request) -> Result<(), Error> {
        let place = Place::new(request);
        let checked = Checked::new(request, || facts::node_subnets(&place.node_file()));
        let pools = match checked {
            Ok(checked) => checked.pools,
            // A node that lost its subnet: its containers keep their addresses.
            Err(error) if error.code == Code::TryAgainLater => Vec::new(),
            Err(error) => return Err(error),
        };
        let owner = owner_of(&request.attachment);
        let owned = if session::exists(&place) {
            let owner = owner.clone();
            session::with_store(&place, Patience::USUAL, &self.now, move |store| {
                store.owned(&owner)
            })
            .map_err(|e| store_error(&e))?
        } else {
            Vec::new()
        };
        let Owner { container_id, ifname } = &owner;
        let wrong = |msg: String| Err(Error::new(Code::Internal, msg));
        if owned.is_empty() {
            return wrong(format!(
                "no address of network {} is leased to {ifname} of container {container_id}",
                request.network
            ));
        }
        // upstream's host-local asks for none: then the lease is all there is to compare with.
        let Some(previous) = &request.prev_result else { return Ok(()) };
        let claimed: BTreeSet<_> = previous.ips.iter().map(|ip| ip.address.ip()).collect();
        if let Some(address) = owned.iter().find(|address| !claimed.contains(address)) {
            return wrong(format!(
                "{address} is leased to {ifname} of container {container_id} but not in prevResult"
            ));
        }
        let ours = |address| pools.iter().any(|pool| pool.range_of(address).is_some());
        match claimed.iter().find(|address| ours(**address) && !owned.contains(address)) {
            Some(address) => wrong(format!(
                "{address} of prevResult is not leased to {ifname} of container {container_id}"
            )),
            None => Ok(()),
        }
    }

    fn gc(&self, request: &Request) -> Result<(), Error> {
        let place = Place::new(request);
        if !session::exists(&place) {
            return Ok(());
        }
        let valid: BTreeSet<Owner> = request.valid_attachments.iter().map(owner_of).collect();
        let grace = u64::try_from(place.gc_grace.as_millis()).unwrap_or(u64::MAX);
        let drawn_ms = self.now.boot_ms.saturating_sub(grace);
        let (now, reuse_delay) = (facts::now(), place.reuse_delay);
        session::with_store(&place, Patience::USUAL, &self.now, move |store| {
            allocator::collect(store, &valid, drawn_ms, reuse_delay, &now).map(drop)
        })
        .map_err(|e| store_error(&e))
    }

    fn status(&self, request: &Request) -> Result<(), Error> {
        let place = Place::new(request);
        let checked = Checked::new(request, || facts::node_subnets(&place.node_file()));
        let checked = checked.map_err(|error| {
            // A wrong configuration keeps its own code: no waiting makes it right.
            let transient = matches!(error.code, Code::TryAgainLater | Code::Io);
            if transient { not_available(error) } else { error }
        })?;
        match auto::check(&place, &checked.node_subnets, &self.now) {
            // A store that other processes are working on serves ADD, so the answer is yes (row
            // C77).
            Ok(()) | Err(Refusal::Store(store::Error::Locked { .. })) => {}
            Err(refusal) => {
                let error = refused(refusal);
                let wrong = error.code == Code::InvalidConfig;
                return Err(if wrong { error } else { not_available(error) });
            }
        }
        if !session::exists(&place) {
            return Ok(());
        }
        let (now, reuse_delay) = (self.now.clone(), place.reuse_delay);
        let answer = session::with_store(&place, Patience::STATUS, &self.now, move |store| {
            allocator::exhausted(store, &checked.pools, reuse_delay, &now)
                .map(|pool| pool.map(ToString::to_string))
        });
        match answer {
            Ok(Some(pool)) if !place.status_ignores_exhaustion => Err(Error::new(
                Code::NotAvailable,
                format!("no IP addresses available in range set: {pool}"),
            )),
            Ok(_) | Err(store::Error::Locked { .. }) => Ok(()),
            Err(error) => Err(not_available(store_error(&error))),
        }
    }
}

impl Ipam {
    fn release(&self, place: &Place, owner: Owner) -> Result<(), store::Error> {
        let (now, reuse_delay) = (self.now.clone(), place.reuse_delay);
        session::with_store(place, Patience::USUAL, &self.now, move |store| {
            allocator::release(store, &owner, reuse_delay, &now).map(drop)
        })
    }

    /// After a failed write the lease may be on disk or not; it must not be (row F23).
    fn take_back(&self, place: &Place, owner: Owner) {
        // A store that cannot be written holds nothing new either.
        drop(self.release(place, owner));
    }
}

fn owner_of(attachment: &Attachment) -> Owner {
    Owner { container_id: attachment.container_id.clone(), ifname: attachment.ifname.clone() }
}

/// STATUS knows two codes only.
fn not_available(error: Error) -> Error {
    let details = error.to_string();
    Error::new(Code::NotAvailable, "addresses cannot be allocated").details(details)
}

fn refused(refusal: Refusal) -> Error {
    let msg = refusal.to_string();
    match refusal {
        Refusal::Exhausted { cooling: 0, .. } => Error::new(Code::PoolExhausted, msg),
        Refusal::Exhausted { cooling, .. } => Error::new(Code::PoolExhausted, msg)
            .details(format!("{cooling} addresses are held back by reuseDelay")),
        Refusal::Duplicate { .. } => Error::new(Code::Internal, msg),
        Refusal::Taken { holder, .. } => Error::new(Code::AddressUnavailable, msg).details(
            format!("it belongs to {} of container {}", holder.ifname, holder.container_id),
        ),
        Refusal::Reserved { .. } | Refusal::Unplaced(_) => {
            Error::new(Code::AddressUnavailable, msg)
        }
        Refusal::Shared { .. } => Error::new(Code::InvalidConfig, msg),
        Refusal::Store(error) => store_error(&error),
    }
}

/// The one place where a store's failure gets its code.
pub(crate) fn store_error(error: &store::Error) -> Error {
    let (code, hint) = match error {
        store::Error::Io { .. } => (Code::Io, ""),
        store::Error::Locked { .. } | store::Error::Thread(_) => (Code::TryAgainLater, ""),
        store::Error::Damaged { .. } => {
            (Code::StoreDamaged, "; `causeway-ipam repair` rebuilds it from the readable records")
        }
    };
    let mut whole = Error::caused(code, format!("{error}{hint}"), error);
    // The message has the first link of the chain.
    whole.details = whole.details.split_once(": ").map_or(String::new(), |(_, rest)| rest.into());
    whole
}
