//! Carries out what follows for names.

use causeway_dns::Problems;

use super::Engine;
use crate::conditions::Concern;
use crate::names::Names;
use crate::state::{NameAddresses, Touched};

impl Engine {
    /// Begins to answer names.
    pub(crate) fn start_names(&mut self, names: Option<Names>) {
        self.names = names;
        self.show_names();
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
        self.report_names();
    }

    /// The name server reports what does not work.
    pub(super) fn on_name_problems(&mut self, problems: Problems) {
        let Some(names) = &mut self.names else { return };
        names.on_problems(problems);
        self.report_names();
    }

    fn report_names(&mut self) {
        let Some(names) = &self.names else { return };
        let failures = names.failures();
        for line in self.state.conditions.set_lines(Concern::Names, failures) {
            tracing::error!("names: {line}");
        }
        self.show_names();
    }

    /// What lists and `status` have of it.
    fn show_names(&mut self) {
        let Some(names) = &self.names else { return };
        self.state.names = names.state(self.state.progress.born);
        let warnings = names.warnings();
        if self.state.conditions.warnings_of(&Concern::Names) != warnings {
            self.warn_instead(Concern::Names, warnings);
        }
    }
}
