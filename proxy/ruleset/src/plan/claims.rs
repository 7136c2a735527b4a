//! Which service owns an address and port that several claim.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use causeway_model::{Guarded, IpFamily, ObjectKey, Protocol};

/// Something that one service can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A cluster address, with all its ports.
    Cluster(IpAddr),
    /// A port of another address; nobody has one of an address that is a cluster address.
    External(IpAddr, u16, Protocol),
    /// A port of the node.
    NodePort(IpFamily, u16, Protocol),
}

impl Place {
    /// Why no service can have it, in words.
    pub fn denial(&self, guarded: &Guarded) -> Option<String> {
        match *self {
            Self::Cluster(address) => guarded.cluster(address),
            Self::External(address, port, protocol) => guarded.external(address, port, protocol),
            Self::NodePort(_, port, protocol) => guarded.node_port(port, protocol),
        }
    }

    /// The address, if it has one.
    pub(super) fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Cluster(address) | Self::External(address, ..) => Some(*address),
            Self::NodePort(..) => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster(address) => write!(out, "{address}"),
            Self::External(address, port, protocol) => {
                write!(out, "{}/{}", SocketAddr::new(*address, *port), protocol.name())
            }
            Self::NodePort(_, port, protocol) => {
                write!(out, "node port {port}/{}", protocol.name())
            }
        }
    }
}

/// A place that two services ask for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contest {
    /// Who does not have it.
    pub loser: ObjectKey,
    /// What.
    pub place: Place,
    /// Who has it.
    pub owner: ObjectKey,
}

/// All wishes. The lowest key has the place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Claims {
    wishes: BTreeSet<(Place, ObjectKey)>,
    /// What services ask for and do not have; what they have is in their plans.
    lost: BTreeMap<ObjectKey, Box<[Place]>>,
}

impl Claims {
    /// Notes that a service, whose plan holds some places, now asks for these. Yields the other services for
    /// which something changed by that.
    pub(super) fn replace(
        &mut self,
        key: &ObjectKey,
        mut held: Vec<Place>,
        wanted: &[Place],
    ) -> BTreeSet<ObjectKey> {
        held.extend(self.lost.get(key).into_iter().flatten());
        held.sort_unstable();
        let mut others = BTreeSet::new();
        for place in without(&held, wanted).chain(without(wanted, &held)) {
            let owner = self.owner(place).cloned();
            let wish = (*place, key.clone());
            if !self.wishes.remove(&wish) {
                self.wishes.insert(wish);
            }
            let next = self.owner(place);
            if owner.as_ref() == next {
                continue;
            }
            if let (Place::Cluster(address), true) = (place, owner.is_none() || next.is_none()) {
                others.extend(self.outside_wishes(*address).cloned());
            }
            others.extend(owner.as_ref().into_iter().chain(next).cloned());
        }
        others.remove(key);
        others
    }

    /// Notes what a service asks for and what it has of that.
    pub(super) fn note_lost(&mut self, key: &ObjectKey, wanted: &[Place], held: &[Place]) {
        let lost = without(wanted, held).copied().collect::<Box<_>>();
        if lost.is_empty() {
            self.lost.remove(key);
        } else {
            self.lost.insert(key.clone(), lost);
        }
    }

    /// What a service claims and other services have.
    pub(super) fn contests<'a>(&'a self, key: &'a ObjectKey) -> impl Iterator<Item = Contest> + 'a {
        let lost = self.lost.get(key).into_iter().flatten();
        lost.filter_map(move |place| {
            let owner = self.holder(place).filter(|owner| *owner != key)?;
            Some(Contest { loser: key.clone(), place: *place, owner: owner.clone() })
        })
    }

    /// The same of all services.
    pub(super) fn all_contests(&self) -> impl Iterator<Item = Contest> {
        self.lost.keys().flat_map(|key| self.contests(key))
    }

    /// Who answers at a place.
    pub(super) fn holder(&self, place: &Place) -> Option<&ObjectKey> {
        let cluster = match place {
            Place::External(address, ..) => self.owner(&Place::Cluster(*address)),
            Place::Cluster(_) | Place::NodePort(..) => None,
        };
        cluster.or_else(|| self.owner(place))
    }

    /// Whether a service has a place.
    pub(super) fn has(&self, key: &ObjectKey, place: &Place) -> bool {
        if let Place::External(address, ..) = place
            && self.owner(&Place::Cluster(*address)).is_some()
        {
            return false;
        }
        self.owner(place) == Some(key)
    }

    fn owner(&self, place: &Place) -> Option<&ObjectKey> {
        let (first, key) = self.wishes.range(from(*place)..).next()?;
        (first == place).then_some(key)
    }

    /// Who asks for an address, or for a port of it.
    pub(super) fn asking(&self, address: IpAddr) -> impl Iterator<Item = &ObjectKey> {
        let place = Place::Cluster(address);
        let wishes = self.wishes.range(from(place)..);
        let cluster = wishes.take_while(move |(other, _)| *other == place).map(|(_, key)| key);
        cluster.chain(self.outside_wishes(address))
    }

    /// Who asks for anything.
    pub(super) fn all_asking(&self) -> impl Iterator<Item = &ObjectKey> {
        self.wishes.iter().map(|(_, key)| key)
    }

    /// Who asks for ports of an address as an external one.
    fn outside_wishes(&self, address: IpAddr) -> impl Iterator<Item = &ObjectKey> {
        let first = Place::External(address, 0, Protocol::Tcp);
        self.wishes.range(from(first)..).map_while(move |(place, key)| match place {
            Place::External(other, ..) if *other == address => Some(key),
            Place::Cluster(_) | Place::External(..) | Place::NodePort(..) => None,
        })
    }
}

/// Those of `places` that are not in the others, both ascending.
fn without<'a>(places: &'a [Place], others: &'a [Place]) -> impl Iterator<Item = &'a Place> {
    places.iter().filter(|place| others.binary_search(place).is_err())
}

/// Where the wishes for a place begin.
fn from(place: Place) -> (Place, ObjectKey) {
    (place, ObjectKey::new(Arc::default(), Arc::default()))
}
