//! Strings that many objects share, stored once.

use std::collections::BTreeSet;
use std::sync::Arc;

/// Names of namespaces, nodes and zones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    names: BTreeSet<Arc<str>>,
}

impl Names {
    /// Puts the shared one in place of an equal one.
    pub(crate) fn share(&mut self, name: &mut Arc<str>) {
        match self.names.get(name) {
            Some(shared) => *name = Arc::clone(shared),
            None => {
                self.names.insert(Arc::clone(name));
            }
        }
    }

    /// Forgets those that nobody else has.
    pub(crate) fn prune(&mut self) {
        self.names.retain(|name| Arc::strong_count(name) > 1);
    }
}
