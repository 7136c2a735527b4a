//! Who has a place that several services may ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use causeway_model::{IpFamily, ObjectKey, Protocol};

/// Something that one service can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// A cluster address, with all its ports.
    Cluster(IpAddr),
    /// A port of another address; nobody has one of an address that is a cluster address.
    External(IpAddr, u16, Protocol),
    /// A port of the node.
    NodePort(IpFamily, u16, Protocol),
}

/// All wishes. The lowest key has the place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Claims {
    wishes: BTreeSet<(Place, ObjectKey)>,
    /// What services ask for and do not have; what they have is in their plans.
    lost: BTreeMap<ObjectKey, Box<[Place]>>,
}

impl Claims {
    /// Notes that a service, which held some places, now asks for others. Yields the services for
    /// which something changed by that.
    pub(super) fn replace(
        &mut self,
        key: &ObjectKey,
        mut held: BTreeSet<Place>,
        wanted: &BTreeSet<Place>,
    ) -> BTreeSet<ObjectKey> {
        held.extend(self.lost.get(key).into_iter().flatten());
        let mut others = BTreeSet::new();
        for place in held.symmetric_difference(wanted) {
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
        others
    }

    /// Notes what a service did not get.
    pub(super) fn note_lost(&mut self, key: &ObjectKey, lost: Box<[Place]>) {
        if lost.is_empty() {
            self.lost.remove(key);
        } else {
            self.lost.insert(key.clone(), lost);
        }
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

    /// Who asks for ports of an address as an external one.
    fn outside_wishes(&self, address: IpAddr) -> impl Iterator<Item = &ObjectKey> {
        let first = Place::External(address, 0, Protocol::Tcp);
        self.wishes.range(from(first)..).map_while(move |(place, key)| match place {
            Place::External(other, ..) if *other == address => Some(key),
            Place::Cluster(_) | Place::External(..) | Place::NodePort(..) => None,
        })
    }
}

/// Where the wishes for a place begin.
fn from(place: Place) -> (Place, ObjectKey) {
    (place, ObjectKey::new(Arc::default(), Arc::default()))
}
