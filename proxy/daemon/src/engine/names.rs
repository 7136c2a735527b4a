//! Carries out what follows for names.

use causeway_dns::{Problems, Upstream};

use super::Engine;
use crate::conditions::Concern;
use crate::names::{NameAddresses, Names};
use crate::state::Touched;

impl Engine {
    /// Begins to answer names.
    pub(crate) fn start_names(&mut self, names: Option<Names>) {
        self.names = names;
    }

    /// The kernel holds what was touched.
    pub(super) fn tell_names(&mut self, touched: &Touched) {
        let Some(names) = &mut self.names else { return };
        names.committed(&self.state, touched);
        self.show_names();
    }

    /// The thread has looked where names are to be answered.
    pub(super) fn on_name_addresses(&mut self, found: NameAddresses) {
        let Some(names) = &mut self.names else { return };
        names.on_addresses(found);
        self.show_names();
    }

    /// The name server reports what does not work.
    pub(super) fn on_name_problems(&mut self, problems: &Problems) {
        let listeners = problems.listeners.iter().map(|(at, why)| format!("{at}: {why}"));
        let failed = |(server, why): &(Upstream, Option<String>)| {
            why.as_ref().map(|why| format!("upstream {server}: {why}"))
        };
        let upstreams = problems.upstreams.iter();
        let none = upstreams.len() == 0;
        let all = !none && upstreams.clone().all(|(_, why)| why.is_some());
        let upstreams: Vec<String> = upstreams.filter_map(failed).collect();
        let outside = match (none, all) {
            (true, _) => Some(
                "there is no server for names outside the cluster: they are answered SERVFAIL; add \
                 one to the host's /etc/resolv.conf, or set --dns-upstream"
                    .to_owned(),
            ),
            (false, true) => Some(format!("names outside the cluster: {}", upstreams.join("; "))),
            (false, false) => None,
        };
        let lines: Vec<String> = listeners.collect();
        let new = self.state.conditions.set_lines(Concern::Names, lines);
        for line in new {
            tracing::error!("names: {line}");
        }
        self.name_notes = match all {
            true => Vec::new(),
            false => upstreams,
        };
        self.name_notes.extend(outside);
        self.name_notes.extend(problems.warnings.iter().cloned());
        self.show_names();
    }

    /// What lists and `status` have of it.
    fn show_names(&mut self) {
        let Some(names) = &self.names else { return };
        let service = names.service(self.state.progress.born);
        if self.state.name_service.as_deref() != service.as_ref() {
            self.state.name_service = service.map(Into::into);
        }
        let warnings = [names.warnings(), self.name_notes.clone()].concat();
        if self.state.conditions.warnings_of(&Concern::Names) != warnings {
            self.warn_instead(Concern::Names, warnings);
        }
    }
}
