//! Zones and questions for tests: from manifests to answers in bytes.

use std::collections::BTreeSet;

use causeway_model::{Event, Index, ObjectKey, manifest};
use hickory_proto::op::Message;
use hickory_proto::rr::{DNSClass, Name, RecordType};

use crate::{
    Answer, Edns, Limit, Question, Reply, Request, ServiceNames, Zone, ZoneSettings, answer, write,
};

/// Settings that tests begin with.
pub(crate) fn settings() -> ZoneSettings {
    let networks = ["10.96.0.0/12", "fd00:96::/112", "10.244.0.0/16", "fd00:244::/56"];
    let networks = networks.map(|text| text.parse().unwrap()).to_vec();
    let mut settings = ZoneSettings::new(name("cluster.local."), 5, networks);
    settings.vips = vec!["10.96.0.10".parse().unwrap(), "fd00:96::a".parse().unwrap()];
    settings
}

/// Services and slices of documents in YAML.
pub(crate) fn index(text: &str) -> Index {
    let mut index = Index::default();
    for document in manifest::parse(text) {
        for object in document.objects.expect("a good document") {
            index.apply(Event::Apply(object));
        }
    }
    index
}

/// A synced zone of documents.
pub(crate) fn zone(settings: ZoneSettings, text: &str) -> Zone {
    let mut zone = Zone::new(settings);
    let index = index(text);
    let keys: BTreeSet<ObjectKey> = index.services().keys().cloned().collect();
    for key in keys {
        let resolved = index.resolve(&key).expect("it is there");
        zone.put(key, Some(ServiceNames::of(&resolved)));
    }
    zone.set_synced();
    zone
}

/// A name from text, in its case.
pub(crate) fn name(text: &str) -> Name {
    let labels = text.split('.').filter(|label| !label.is_empty());
    Name::from_labels(labels.map(str::as_bytes)).unwrap()
}

/// A question of class IN.
pub(crate) fn question(text: &str, record_type: RecordType) -> Question {
    Question { name: name(text), record_type, class: DNSClass::IN }
}

/// A request of id 7 with RD.
pub(crate) fn request(question: Question, payload: Option<u16>) -> Request {
    let edns = payload.map(|payload| Edns { payload, version: 0, dnssec_ok: false });
    Request { id: 7, question, recursion_desired: true, checking_disabled: false, edns }
}

/// Our own answer to a question, with seed 1.
pub(crate) fn own(zone: &Zone, text: &str, record_type: RecordType) -> Reply {
    match answer(zone, &question(text, record_type), 1) {
        Answer::Own(reply) => reply,
        Answer::Forward | Answer::Chase { .. } => panic!("{text} {record_type}: not answered"),
    }
}

/// What the client reads, by the reader of hickory-proto.
pub(crate) fn sent(request: &Request, reply: &Reply, limit: Limit) -> Message {
    Message::from_vec(&write(request, reply, limit)).expect("a message")
}
