//! Staging, without a store.

use causeway_api::{AppliedOutcome, Apply};
use causeway_model::{Event as Fact, ObjectKind};
use causeway_source::Scan;
use serde_json::{Value, json};

use super::*;
use crate::request::Target;
use crate::state::ClusterState;
use crate::testing::state;

struct World {
    state: State,
    objects: Objects,
    membership: Membership,
    _folder: tempfile::TempDir,
}

/// A process listens at the first node port.
fn listening() -> Listening {
    [(causeway_model::Protocol::Tcp, 30_000)].into()
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let state = state(folder.path());
        let pools = Pools {
            reserved: Vec::new(),
            service_cidrs: state.settings.service_cidrs.clone(),
            node_ports: state.settings.node_port_range,
            foreign: state.settings.cluster_cidrs.clone(),
            guarded: Arc::default(),
            balancers: Vec::new(),
            neighbours: Vec::new(),
        };
        let cluster = ClusterState::new(Ok(()));
        let ttl = std::time::Duration::from_secs(40);
        let membership = Membership::new("n1".into(), ttl, &[], cluster);
        Self { state, objects: Objects::new(pools), membership, _folder: folder }
    }

    fn stage(&mut self) -> Stage<'_> {
        let context =
            StagingContext { state: &self.state, membership: &self.membership, listening, now: 7 };
        Stage::new(&mut self.objects, context)
    }

    /// Stages documents and has them stored. Outcomes, or what they were refused for.
    fn apply(&mut self, documents: &[Value]) -> Vec<String> {
        let raw = |value| serde_json::value::to_raw_value(value).expect("JSON");
        let apply = Apply { objects: documents.iter().map(raw).collect(), ..Apply::default() };
        let (staged, applied) = self.stage().apply(&apply);
        self.store(staged);
        let word = |one: &causeway_api::AppliedObject| match &one.refusal {
            Some(refusal) => format!("{}: {}", refusal.field, refusal.reason),
            None => format!("{:?} {}", one.outcome, one.warnings.join("; ")).trim().to_owned(),
        };
        applied.results.iter().map(word).collect()
    }

    fn manifests(&mut self, files: &[(&str, &[Value])]) -> Pass {
        let documents = |all: &[Value]| {
            all.iter().flat_map(causeway_model::manifest::parse_json).collect::<Vec<_>>()
        };
        let files = files.iter().map(|(file, all)| ((*file).to_owned(), documents(all)));
        let scan = Scan { files: files.collect(), ..Scan::default() };
        let mut pass = self.stage().manifests(scan);
        self.store(mem::take(&mut pass.staged));
        pass
    }

    fn delete(&mut self, name: &str) -> (AppliedOutcome, String) {
        let target = Target::Object(ObjectKind::Service, ObjectKey::new("default", name));
        let (staged, applied) = self.stage().delete(&[target]);
        self.store(staged);
        let one = &applied.results[0];
        let refusal = one.refusal.as_ref().map(|refusal| refusal.reason.clone());
        (one.outcome, refusal.unwrap_or_default())
    }

    fn store(&mut self, staged: Staged) {
        let (put, gone) = staged.parts();
        for (kind, key) in gone {
            self.objects.release(&key);
            self.objects.comes_from(&mut self.state.files, (kind, key.clone()), Origin::Api);
            self.state.index.apply(Fact::Delete(kind, key));
        }
        for stored in put {
            self.objects.comes_from(&mut self.state.files, id_of(&stored), stored.origin);
            self.state.index.apply(Fact::Apply(stored.object));
        }
    }

    fn address(&self, name: &str) -> String {
        let service = &self.state.index.services()[&ObjectKey::new("default", name)];
        service.cluster_ips.first().map(ToString::to_string).unwrap_or_default()
    }
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80, "protocol": "TCP" }] },
    })
}

fn at(name: &str, address: &str) -> Value {
    let mut service = service(name);
    service["spec"]["clusterIP"] = json!(address);
    service
}

#[test]
fn a_service_keeps_its_address_and_what_is_as_it_was_is_not_stored() {
    let mut world = World::new();
    assert_eq!(world.apply(&[service("web"), service("api")]), ["Created", "Created"]);
    let address = world.address("web");
    assert_ne!(address, world.address("api"));
    assert_eq!(world.apply(&[service("web")]), ["Unchanged"]);
    let mut changed = service("web");
    changed["spec"]["ports"][0]["port"] = json!(81);
    assert_eq!(world.apply(&[changed]), ["Configured"]);
    assert_eq!(world.address("web"), address);
    let taken = world.apply(&[at("other", &address)]);
    assert!(taken[0].starts_with("spec.clusterIP") && taken[0].contains(&address), "{taken:?}");
    assert_eq!(world.delete("web").0, AppliedOutcome::Deleted);
    assert_eq!(world.apply(&[at("other", &address)]), ["Created"]);
    assert_eq!(world.delete("web").0, AppliedOutcome::NotFound);
}

#[test]
fn what_is_staged_and_not_stored_is_given_back() {
    let mut world = World::new();
    let raw = serde_json::value::to_raw_value(&at("web", "10.96.0.7")).expect("JSON");
    drop(world.stage().apply(&Apply { objects: vec![raw], ..Apply::default() }));
    assert!(world.apply(&[at("other", "10.96.0.7")])[0].contains("10.96.0.7"));
    world.objects.claim_anew(&world.state.index);
    assert_eq!(world.apply(&[at("other", "10.96.0.7")]), ["Created"]);
}

#[test]
fn a_node_port_that_a_process_listens_on_is_warned_of_once() {
    let mut world = World::new();
    let mut service = service("web");
    service["spec"]["type"] = json!("NodePort");
    service["spec"]["ports"][0]["nodePort"] = json!(30_000);
    let created = world.apply(&[service.clone()]);
    assert!(created[0].starts_with("Created ") && created[0].contains("30000"), "{created:?}");
    service["spec"]["ports"][0]["port"] = json!(81);
    assert_eq!(world.apply(&[service]), ["Configured"]);
}

#[test]
fn the_manifest_directory_has_the_last_word_on_what_it_holds() {
    let mut world = World::new();
    let pass = world.manifests(&[("a.yaml", &[service("web")]), ("b.yaml", &[service("web")])]);
    assert!(pass.problems.is_empty());
    assert!(pass.warnings[0].contains("stands in a.yaml already"), "{:?}", pass.warnings);
    let (outcome, why) = world.delete("web");
    assert_eq!(outcome, AppliedOutcome::Refused);
    assert!(why.contains("a.yaml: remove it there"), "{why}");
    let mut changed = service("web");
    changed["spec"]["ports"][0]["port"] = json!(81);
    let applied = world.apply(&[changed]);
    assert!(applied[0].contains("which counts again when that directory changes"), "{applied:?}");
    // A file with something refused may be half written: what it had stays.
    let bad =
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "x" }, "spec": 1 });
    let pass = world.manifests(&[("a.yaml", &[bad])]);
    assert!(pass.problems[0].contains("a.yaml:"), "{:?}", pass.problems);
    assert_eq!(world.state.index.services().len(), 1);
    world.manifests(&[("a.yaml", &[])]);
    assert_eq!(world.state.index.services().len(), 0);
}

#[test]
fn what_another_nodes_manifests_hold_counts() {
    let mut world = World::new();
    world.apply(&[at("web", "10.96.0.7")]);
    let id = (ObjectKind::Service, ObjectKey::new("default", "web"));
    let theirs = Origin::Elsewhere { node: "n2".to_owned(), file: "t.yaml".to_owned() };
    world.objects.comes_from(&mut world.state.files, id.clone(), theirs);
    let pass = world.manifests(&[("a.yaml", &[at("web", "10.96.0.8")])]);
    assert!(pass.warnings[0].contains("t.yaml of the manifest directory of node n2"));
    assert_eq!(world.address("web"), "10.96.0.7");
    assert!(world.objects.adopt(&[], &[id]), "when theirs goes ours counts");
    assert!(!world.objects.adopt(&[], &[]));
}
