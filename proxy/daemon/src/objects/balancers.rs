//! Load balancer addresses: who has which, and what is to be stored so that those who wait longest
//! come first. Pure.

use std::mem;

use causeway_model::allocate::{self, PoolUse, Settled, Standing};
use causeway_model::{Object, ObjectKind};
use causeway_source::Stored;

use super::stage::origin_kept;
use super::{Objects, Stage, Staged};
use crate::state::State;

impl Objects {
    /// Whether it is to be looked who has which load balancer address.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.allocator.standing() == Standing::Unsettled
    }

    /// It is to be looked.
    pub(crate) fn unsettle(&mut self) {
        self.allocator.set_standing(Standing::Unsettled);
    }

    /// If something that was found is not stored yet, it is to be looked again.
    pub(crate) fn unsettle_owed(&mut self) {
        if self.allocator.standing() == Standing::Owed {
            self.unsettle();
        }
    }

    /// It was looked, and this was found. `owes`: it is not stored yet.
    pub(crate) fn settled(&mut self, found: &Settled, owes: bool) {
        let standing = if owes { Standing::Owed } else { Standing::Settled };
        let waiting = found.waiting.iter().map(|(key, _)| key.clone()).collect();
        self.allocator.settled(&self.pools, waiting, standing);
    }

    /// Whether any address is given away here.
    pub(crate) fn has_pools(&self) -> bool {
        !self.pools.balancers.is_empty()
    }

    /// Looks who is to have which load balancer address.
    pub(crate) fn settle(&self, state: &State) -> Settled {
        let services = state.index.services().values();
        allocate::settle(&self.pools, services, state.balancers.queue())
    }

    /// How much of each pool is used.
    pub(crate) fn pool_use(&mut self) -> Vec<PoolUse> {
        let version = self.allocator.balancer_version();
        match &self.pool_use {
            Some((known, found)) if *known == version => found.clone(),
            Some(_) | None => {
                let found = self.allocator.pool_use(&self.pools);
                self.pool_use = Some((version, found.clone()));
                found
            }
        }
    }
}

impl Stage<'_> {
    /// Stages the services whose load balancer addresses are to be others. Also returns what else was
    /// found.
    pub(crate) fn settle(mut self) -> (Staged, Settled) {
        let standing = self.objects.allocator.standing();
        let mut settled = self.objects.settle(self.context.state);
        for service in mem::take(&mut settled.changed) {
            let key = service.key.clone();
            if let Err(why) = self.replace(Object::Service(service)) {
                settled.waiting.push((key, why));
            }
        }
        // Nothing is stored yet.
        self.objects.allocator.set_standing(standing);
        (self.staged, settled)
    }

    /// Stages a stored service in another form.
    fn replace(&mut self, object: Object) -> Result<(), String> {
        let id = (ObjectKind::Service, object.key().clone());
        let State { index, files, .. } = self.context.state;
        let previous = index.services().get(&id.1).map(|one| Object::Service((**one).clone()));
        let Staged { objects, room, .. } = &mut self.staged;
        room.take((index, objects), &object, previous.as_ref()).map_err(|no| no.reason)?;
        if let Object::Service(service) = &object {
            self.objects.allocator.claim(service);
        }
        let elsewhere = self.objects.elsewhere.get(&id);
        let api = causeway_source::Origin::Api;
        let origin = origin_kept(&api, files.get(&id), elsewhere, &mut Vec::new());
        self.staged.objects.insert(id, Some(Stored { object, origin }));
        Ok(())
    }
}
