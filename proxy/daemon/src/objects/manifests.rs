//! The manifest directory: its documents staged, and what it has no longer staged to go.

use std::collections::{BTreeMap, BTreeSet};

use causeway_model::manifest::{Document, Refusal, Validate};
use causeway_source::{Origin, Scan};

use super::{Stage, Staged};
use crate::state::ObjectId;

/// What a pass over the directory found.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    pub(crate) staged: Staged,
    /// Each object, with the file that has it first.
    seen: BTreeMap<ObjectId, String>,
    /// Files that are being written, and those with something refused, which may be half written:
    /// what they had before stays.
    incomplete: BTreeSet<String>,
    pub(crate) problems: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

impl Stage<'_> {
    /// Stages what the directory has.
    pub(crate) fn manifests(mut self, scan: Scan) -> Pass {
        let mut pass = Pass::default();
        pass.incomplete.extend(scan.busy);
        for (file, documents) in scan.files {
            for document in documents {
                self.read_document(&file, &document, &mut pass);
            }
        }
        self.drop_old_endpoints();
        let gone =
            self.context.state.files.iter().filter(|(id, file)| {
                !pass.incomplete.contains(*file) && !pass.seen.contains_key(*id)
            });
        for (id, _) in gone {
            self.staged.delete(id.clone());
        }
        let elsewhere = &self.objects.elsewhere;
        let shadowed = pass.seen.keys().filter(|id| elsewhere.contains_key(*id)).cloned();
        self.objects.shadowed = shadowed.collect();
        pass.staged = self.staged;
        pass
    }

    fn read_document(&mut self, file: &str, document: &Document, pass: &mut Pass) {
        let path = self.context.state.settings.manifest_dir.join(file);
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
        if let Err(refusal) = self.staged.together(&self.context.state.index, objects) {
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
            match self.accept(object, &origin) {
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
}
