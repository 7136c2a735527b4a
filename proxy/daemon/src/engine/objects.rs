//! What is staged, written and adopted.

use std::mem;

use causeway_model::{Event, ObjectKey, ObjectKind};
use causeway_source::{Origin, Stored};

use super::Engine;
use crate::clock;
use crate::conditions::Concern;
use crate::objects::{Pass, Stage, Staged, StagingContext, ports, tell_written};
use crate::request::Refused;
use crate::state::{ObjectId, id_of};

impl Engine {
    /// Begins to stage changes.
    pub(super) fn stage(&mut self) -> Stage<'_> {
        let context = StagingContext {
            state: &self.state,
            membership: &self.membership,
            listening: ports::listening,
            now: clock::unix().as_secs(),
        };
        Stage::new(&mut self.objects, context)
    }

    /// Writes what is staged to this node's store, then tells the index.
    ///
    /// # Errors
    /// 503: nothing is written.
    pub(super) fn write(&mut self, staged: Staged) -> Result<(), Refused> {
        let (put, gone) = staged.parts();
        if put.is_empty() && gone.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.store.write(&put, &gone) {
            self.objects.claim_anew(&self.state.index);
            return Err(Refused::caused(503, "the objects cannot be stored", &error));
        }
        tell_written(put.iter().map(id_of), gone.iter().cloned());
        self.adopt(put, gone);
        self.look_for_undecodable();
        Ok(())
    }

    /// Takes in objects of the cluster store.
    pub(super) fn adopt_objects(&mut self, put: Vec<Stored>, gone: Vec<ObjectId>) {
        self.pending.manifests |= self.objects.adopt(&put, &gone);
        self.adopt(put, gone);
    }

    /// Takes in what is stored now.
    pub(super) fn adopt(&mut self, put: Vec<Stored>, gone: Vec<ObjectId>) {
        self.written += put.len() + gone.len();
        for (kind, key) in gone {
            if kind == ObjectKind::Service {
                self.objects.release(&key);
            }
            self.comes_from((kind, key.clone()), Origin::Api);
            self.tell(kind, key.clone(), Event::Delete(kind, key));
        }
        for stored in put {
            let (kind, key) = id_of(&stored);
            self.comes_from((kind, key.clone()), stored.origin);
            self.tell(kind, key, Event::Apply(stored.object));
        }
    }

    /// Notes who an object came from.
    pub(super) fn comes_from(&mut self, id: ObjectId, origin: Origin) {
        self.objects.comes_from(&mut self.state.files, id, origin);
    }

    pub(super) fn tell(&mut self, kind: ObjectKind, key: ObjectKey, fact: Event) {
        match kind {
            ObjectKind::Service => self.state.progress.service_changes += 1,
            ObjectKind::EndpointSlice => self.state.progress.endpoint_changes += 1,
            ObjectKind::Node => {}
        }
        self.pending.touched.objects.insert((kind, key));
        self.apply(fact);
    }

    /// Reads all files and makes this node's store follow.
    pub(super) fn read_manifests(&mut self) {
        let mut pass = self.stage_manifests();
        let staged = mem::take(&mut pass.staged);
        let written = self.write(staged);
        self.report_manifests(pass, written.err());
    }

    /// Stages what all files have.
    pub(super) fn stage_manifests(&mut self) -> Pass {
        let scan = self.manifests.scan();
        self.stage().manifests(scan)
    }

    /// Says what a pass found, and why it was not written.
    pub(super) fn report_manifests(&mut self, mut pass: Pass, refused: Option<Refused>) {
        if let Some(refused) = refused {
            let causes = refused.problem.causes.join(": ");
            pass.problems.push(format!("{}: {causes}", refused.problem.message));
        }
        self.report(pass.problems, pass.warnings);
    }

    /// Says problems and warnings that are new, and keeps them for `status`.
    fn report(&mut self, problems: Vec<String>, warnings: Vec<String>) {
        let conditions = &mut self.state.conditions;
        for problem in conditions.set_lines(Concern::Manifests, problems) {
            tracing::error!("{problem}");
        }
        for warning in conditions.update_warnings(Concern::Manifests, warnings) {
            tracing::warn!("{warning}");
        }
    }
}
