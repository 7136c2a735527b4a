//! The manifest directory into the store.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use causeway_model::manifest::{Document, Refusal, Validate};
use causeway_source::Origin;

use super::Engine;
use super::objects::Staged;
use crate::conditions::Concern;
use crate::request::Refused;
use crate::state::ObjectId;

/// What a pass over the directory found.
#[derive(Debug, Default)]
pub(super) struct Pass {
    pub(super) staged: Staged,
    /// Each object, with the file that has it first.
    seen: BTreeMap<ObjectId, String>,
    /// Files that are being written, and those with something refused, which may be half written:
    /// what they had before stays.
    incomplete: BTreeSet<String>,
    problems: Vec<String>,
    warnings: Vec<String>,
}

impl Engine {
    /// Reads all files and makes this node's store follow.
    pub(super) fn read_manifests(&mut self) {
        let mut pass = self.stage_manifests();
        let staged = mem::take(&mut pass.staged);
        let written = self.write(staged);
        self.report_manifests(pass, written.err());
    }

    /// Reads all files.
    pub(super) fn stage_manifests(&mut self) -> Pass {
        let mut pass = Pass::default();
        let scan = self.manifests.scan();
        pass.incomplete.extend(scan.busy);
        for (file, documents) in scan.files {
            for document in documents {
                self.read_document(&file, &document, &mut pass);
            }
        }
        self.drop_old_endpoints(&mut pass.staged);
        let gone =
            self.state.files.iter().filter(|(id, file)| {
                !pass.incomplete.contains(*file) && !pass.seen.contains_key(*id)
            });
        for (id, _) in gone {
            pass.staged.delete(id.clone());
        }
        let elsewhere = &self.elsewhere;
        self.shadowed =
            pass.seen.keys().filter(|id| elsewhere.contains_key(*id)).cloned().collect();
        pass
    }

    /// Says what a pass found, and why it was not written.
    pub(super) fn report_manifests(&mut self, mut pass: Pass, refused: Option<Refused>) {
        if let Some(refused) = refused {
            let causes = refused.problem.causes.join(": ");
            pass.problems.push(format!("{}: {causes}", refused.problem.message));
        }
        self.report(pass.problems, pass.warnings);
    }

    fn read_document(&mut self, file: &str, document: &Document, pass: &mut Pass) {
        let path = self.state.settings.manifest_dir.join(file);
        let path = path.display();
        // A slip makes another service, silently: a folder is as strict as `apply`.
        let validate = Validate::Strict;
        for warning in document.warnings(validate) {
            pass.warnings.push(format!("{path}:{}: {}", warning.line, warning.text));
        }
        let refused = |refusal: &Refusal| {
            let field = &refusal.field;
            let line = if refusal.line == 0 { document.line_of(field) } else { refusal.line };
            format!("{path}:{line}: {refusal}")
        };
        let refusals = document.refusals(validate);
        if !refusals.is_empty() {
            pass.problems.extend(refusals.into_iter().map(refused));
            pass.incomplete.insert(file.to_owned());
            return;
        }
        let objects = document.objects.as_deref().unwrap_or_default();
        if let Err(refusal) = pass.staged.together(&self.state.index, objects) {
            pass.problems.push(refused(&refusal));
            pass.incomplete.insert(file.to_owned());
            return;
        }
        for object in objects.iter().cloned() {
            let id = (object.kind(), object.key().clone());
            if let Some(first) = pass.seen.get(&id) {
                let name = &id.1;
                pass.warnings.push(format!(
                    "{path}:{}: {name} stands in {first} already, which counts",
                    document.line
                ));
                continue;
            }
            pass.seen.insert(id, file.to_owned());
            let origin = Origin::Manifest(file.to_owned());
            match self.accept(object, &origin, &mut pass.staged) {
                Ok((_, warnings)) => pass.warnings.extend(warnings.iter().map(|text| {
                    let field = text.split(": ").next().unwrap_or_default();
                    format!("{path}:{}: {text}", document.line_of(field))
                })),
                Err(refusal) => {
                    pass.problems.push(refused(&refusal));
                    pass.incomplete.insert(file.to_owned());
                }
            }
        }
    }

    /// Says problems and warnings that are new, and keeps them for `status`.
    fn report(&mut self, problems: Vec<String>, warnings: Vec<String>) {
        let conditions = &mut self.state.conditions;
        for problem in conditions.set_lines(Concern::Manifests, problems) {
            tracing::error!("{problem}");
        }
        for warning in conditions.set_warnings(Concern::Manifests, warnings) {
            tracing::warn!("{warning}");
        }
    }
}
