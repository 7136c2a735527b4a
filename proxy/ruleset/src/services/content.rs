//! What services put into the tables: elements, and chains of their own.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;

use causeway_model::{Balance, IpFamily, ObjectKey};

use super::layout::{self, Class, RULES, Set, bucket};
use super::own::{self, Own};
use crate::plan::{At, Decision, Frontend, Here, HostPlace, Pool, PortPlan, ServicePlan};
use crate::{Element, ElementValue, Key, RegValue, Rule, Verdict, name};

/// How often elements and chains that services share are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shared {
    /// Endpoints that may talk to themselves, by service port.
    pub(super) hairpin: BTreeMap<IpAddr, u32>,
    /// Chains for more than [`RULES`] endpoints.
    pub(super) sized: BTreeMap<(IpFamily, Class, u32), u32>,
}

/// What some services put into the tables.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// Elements that belong to one service each, in no order.
    pub(super) elements: BTreeMap<(IpFamily, Set), Vec<Element>>,
    /// Chains that belong to one service each.
    pub(super) chains: BTreeMap<(IpFamily, String), Vec<Rule>>,
    /// Elements and chains that do not.
    pub(super) shared: Shared,
}

/// A frontend, as elements name it.
#[derive(Clone, Copy)]
struct FrontendRef<'a> {
    service: &'a ObjectKey,
    port: &'a PortPlan,
    at: At,
}

impl Content {
    pub(super) fn of<'a>(
        services: impl IntoIterator<Item = (&'a ObjectKey, &'a ServicePlan)>,
    ) -> Self {
        let mut content = Self::default();
        for (key, service) in services {
            let mut addresses = Vec::new();
            for port in &service.ports {
                content.port(key, port);
                addresses.extend(port.frontends.iter().filter_map(|frontend| match frontend.at {
                    At::Cluster(address, _) => Some(address),
                    At::External(..) | At::NodePort(_) => None,
                }));
            }
            addresses.sort();
            addresses.dedup();
            for address in addresses {
                let comment = name::service(&key.namespace, &key.name, "");
                let element = member(vec![address.into()], comment);
                content.add(IpFamily::of(address), Set::ClusterIps, element);
            }
        }
        content
    }

    /// What rules know of this node's containers.
    pub(super) fn here(&mut self, here: &Here) {
        for address in &here.containers {
            self.add(IpFamily::of(*address), Set::Containers, plain(vec![(*address).into()]));
        }
        for HostPlace { family, protocol, port, host } in &here.yields {
            let port = [RegValue::Proto(protocol.number()), RegValue::Port(*port)];
            let set = if host.is_some() { Set::HostPortAddresses } else { Set::HostPorts };
            let key = host.map(RegValue::from).into_iter().chain(port).collect();
            self.add(*family, set, plain(key));
        }
    }

    fn add(&mut self, family: IpFamily, set: Set, element: Element) {
        self.elements.entry((family, set)).or_default().push(element);
    }

    fn port(&mut self, service: &ObjectKey, port: &PortPlan) {
        let targets = port.cluster.iter().chain(&port.local);
        let mut here = targets.filter(|one| one.here).map(|one| one.address).collect::<Vec<_>>();
        here.sort();
        here.dedup();
        for address in here {
            *self.shared.hairpin.entry(address).or_default() += 1;
        }
        for frontend in &port.frontends {
            self.frontend(FrontendRef { service, port, at: frontend.at }, frontend);
        }
    }

    fn frontend(&mut self, place: FrontendRef<'_>, frontend: &Frontend) {
        let FrontendRef { port, .. } = place;
        let (set, local_policy, drops) = match frontend.at {
            At::Cluster(..) => (None, None, Set::Drops),
            At::External(..) => (Some(Set::Externals), Some(Set::LocalPolicy), Set::Drops),
            At::NodePort(_) => {
                (Some(Set::NodePorts), Some(Set::NodePortLocalPolicy), Set::NodePortDrops)
            }
        };
        if let Some(set) = set {
            self.add(port.family, set, member(place.key(), place.comment()));
        }
        match frontend.decision {
            Decision::Reject => {}
            Decision::Drop => self.add(port.family, drops, member(place.key(), place.comment())),
            Decision::Balance { pool, .. } => self.balance(place, place.class(), pool),
            Decision::ByOrigin => {
                if let Some(set) = local_policy {
                    self.add(port.family, set, plain(place.key()));
                }
                self.balance(place, place.class(), Pool::Cluster);
                self.balance(place, place.local_class(), Pool::Local);
            }
        }
        if let (At::External(..), Some(nets)) = (frontend.at, &frontend.allow) {
            self.add(port.family, Set::Restricted, plain(place.key()));
            for net in layout::networks(nets, port.family) {
                let key = layout::range(net, &place.key());
                self.add(port.family, Set::Allowed, Element { key, value: None, comment: None });
            }
        }
    }

    fn balance(&mut self, place: FrontendRef<'_>, class: Class, pool: Pool) {
        let FrontendRef { port, .. } = place;
        let family = port.family;
        let targets = match pool {
            Pool::Cluster => &port.cluster,
            Pool::Local => &port.local,
        };
        let count = u32::try_from(targets.len()).unwrap_or(u32::MAX);
        if count == 0 {
            return;
        }
        let plain_choice = port.balance == Balance::Random || count == 1;
        let one_port = own::one_port(targets);
        let (false, true, Some(to_port)) = (port.affinity.is_some(), plain_choice, one_port) else {
            let own = Own { service: place.service, port, pool, targets };
            let chain = own.chain();
            self.add(family, Set::Own(class), going_to(place.key(), &chain));
            if let Entry::Vacant(entry) = self.chains.entry((family, chain)) {
                entry.insert(own::rules(&own));
                self.elements.extend(own::elements(&own).map(|(set, some)| ((family, set), some)));
            }
            return;
        };
        if count > RULES {
            *self.shared.sized.entry((family, class, count)).or_default() += 1;
            self.add(family, Set::Own(class), going_to(place.key(), &class.sized_chain(count)));
        }
        let elements = self.elements.entry((family, Set::Endpoints(class))).or_default();
        elements.extend((0..).zip(targets).map(|(index, target)| {
            let mut key = place.key();
            key.push(RegValue::Number(bucket(count, index)));
            leading_to(key, target.address.into())
        }));
        let to_port = leading_to(place.key(), RegValue::Port(to_port));
        self.add(family, Set::Ports(class), to_port);
    }
}

impl FrontendRef<'_> {
    fn key(&self) -> Vec<RegValue> {
        let protocol = RegValue::Proto(self.port.protocol.number());
        match self.at {
            At::Cluster(address, port) | At::External(address, port) => {
                let mut key = Vec::with_capacity(4);
                key.extend([address.into(), protocol, RegValue::Port(port)]);
                key
            }
            At::NodePort(port) => vec![protocol, RegValue::Port(port)],
        }
    }

    fn class(&self) -> Class {
        match self.at {
            At::Cluster(..) | At::External(..) => Class::Address,
            At::NodePort(_) => Class::NodePort,
        }
    }

    fn local_class(&self) -> Class {
        match self.at {
            At::Cluster(..) | At::External(..) => Class::AddressLocal,
            At::NodePort(_) => Class::NodePortLocal,
        }
    }

    fn comment(&self) -> String {
        name::service(&self.service.namespace, &self.service.name, &self.port.name)
    }
}

/// An element of the set of endpoints that may talk to themselves.
pub(super) fn hairpin(address: IpAddr) -> Element {
    plain(vec![address.into(), address.into()])
}

fn plain(key: Vec<RegValue>) -> Element {
    Element { key: Key::Exact(key), value: None, comment: None }
}

fn member(key: Vec<RegValue>, comment: String) -> Element {
    Element { comment: Some(comment), ..plain(key) }
}

fn leading_to(key: Vec<RegValue>, data: RegValue) -> Element {
    Element { value: Some(ElementValue::Data(vec![data])), ..plain(key) }
}

fn going_to(key: Vec<RegValue>, chain: &str) -> Element {
    let value = ElementValue::Verdict(Verdict::Goto(chain.to_owned()));
    Element { value: Some(value), ..plain(key) }
}
