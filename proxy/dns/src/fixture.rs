//! Zones and questions for tests: from manifests to answers in bytes.

use std::collections::BTreeSet;

use causeway_model::{Event, Index, ObjectKey, manifest};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};

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

/// A table of facts: questions (`? NAME TYPE`), each with the lines of [`shown`] in any order.
pub(crate) fn facts(table: &str) -> Vec<(Question, Vec<String>)> {
    let mut facts: Vec<(Question, Vec<String>)> = Vec::new();
    for line in table.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(asked) = line.strip_prefix("? ") {
            let (name, record_type) = asked.split_once(' ').expect("name and type");
            let number = record_type.strip_prefix("TYPE").and_then(|number| number.parse().ok());
            let named = || record_type.parse().expect("a type");
            let record_type = number.map_or_else(named, RecordType::Unknown);
            facts.push((question(name, record_type), Vec::new()));
        } else {
            facts.last_mut().expect("a question first").1.push(line.to_owned());
        }
    }
    facts
}

/// An answer as sorted lines: code if it is an error, records, `SOA` for a denial, `+` before what is
/// in the additional section, and where the chase goes on.
pub(crate) fn shown(answer: &Answer) -> Vec<String> {
    let record = |record: &Record| {
        let (name, kind) = (record.name.to_ascii(), record.record_type());
        format!("{name} {} {kind} {}", record.ttl, record.data).trim_end().to_owned()
    };
    let mut lines: Vec<String> = match answer {
        Answer::Forward => vec!["FORWARD".to_owned()],
        Answer::Chase { answers, target } => {
            answers.iter().map(record).chain([format!("CHASE {target}")]).collect()
        }
        Answer::Own(reply) => {
            let mut lines: Vec<String> = reply.answers.iter().map(record).collect();
            let soa = |one: &Record| one.record_type() == RecordType::SOA;
            assert!(reply.authority.iter().all(soa), "{reply:?}");
            lines.extend(reply.authority.iter().map(|_| "SOA".to_owned()));
            lines.extend(reply.additional.iter().map(|one| format!("+ {}", record(one))));
            if reply.code != ResponseCode::NoError {
                lines.push(format!("{:?}", reply.code).to_uppercase());
            }
            lines
        }
    };
    lines.sort();
    lines
}

/// Each question of a table is answered what stands there.
pub(crate) fn check(zone: &Zone, table: &str) {
    for (question, mut expected) in facts(table) {
        expected.sort();
        let found = shown(&answer(zone, &question, 1));
        assert_eq!(found, expected, "{} {}", question.name, question.record_type);
    }
}
