//! Those who follow a commit, and change what the rules do not reach.
//!
//! | module | charter |
//! |---|---|
//! | [`conntrack`] | UDP flows whose endpoint no longer serves |
//! | [`health_checks`] | health check node ports of services of type LoadBalancer |
//! | [`probe`] | whether containers of services that ask for it take connections |

mod conntrack;
mod health_checks;
mod probe;

use crate::serve::Api;
use crate::state::{Committed, State};

use self::conntrack::Conntrack;
use self::health_checks::HealthChecks;
use self::probe::Probes;

/// Owned by the engine, on its thread; tasks that they spawn send events.
#[derive(Debug)]
pub(crate) struct Followers {
    api: Api,
    conntrack: Conntrack,
    health_checks: HealthChecks,
    probes: Probes,
}

impl Followers {
    /// Nothing is committed.
    pub(crate) fn new(api: Api) -> Self {
        Self {
            conntrack: Conntrack::start(api.metrics.clone()),
            health_checks: HealthChecks::default(),
            probes: Probes::new(api.events.clone()),
            api,
        }
    }

    /// The kernel holds the plan. Not called for commits that changed nothing at all.
    pub(crate) fn committed(&mut self, state: &mut State, commit: &Committed) {
        self.conntrack.committed(state, commit);
        self.health_checks.committed(&self.api, state, commit);
        self.probes.committed(state, commit);
    }

    /// Why UDP flows are not forgotten, with the remedy.
    pub(crate) fn conntrack_trouble(&mut self) -> Option<String> {
        self.conntrack.trouble()
    }
}
