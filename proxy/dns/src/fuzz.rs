//! Entry point of the fuzz target for queries: whatever bytes come, reading, answering and writing
//! must neither panic nor loop, and what is sent is a message within its limit that hickory-proto
//! reads, too.

use std::sync::LazyLock;

use causeway_model::{Event, Index, manifest};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::Name;

use crate::{
    Answer, Limit, PodRecords, Reply, Request, ServiceNames, UDP_PAYLOAD, Zone, ZoneSettings,
    answer, read, write,
};

/// Of each kind of service one.
const SERVICES: &str = "
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {clusterIP: 10.96.0.1,
 ports: [{name: http, port: 80}, {name: dns, protocol: UDP, port: 53}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: db}, spec: {clusterIP: None,
 ports: [{name: sql, port: 5432}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: out},
 spec: {type: ExternalName, externalName: example.com}}
---
{apiVersion: v1, kind: Service, metadata: {name: in},
 spec: {type: ExternalName, externalName: db.default.svc.cluster.local}}
---
{apiVersion: v1, kind: Service, metadata: {name: loop},
 spec: {type: ExternalName, externalName: loop.default.svc.cluster.local}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4,
 metadata: {name: db-4, labels: {kubernetes.io/service-name: db}},
 endpoints: [{addresses: [10.244.0.1], hostname: db-0, zone: a}, {addresses: [10.244.0.2]}],
 ports: [{name: sql, port: 5432}]}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv6,
 metadata: {name: db-6, labels: {kubernetes.io/service-name: db}},
 endpoints: [{addresses: ['fd00:244::1'], hostname: db-0, zone: a.b}],
 ports: [{name: sql, port: 5432}]}
";

static ZONE: LazyLock<Zone> = LazyLock::new(zone);

fn zone() -> Zone {
    let networks = ["10.96.0.0/12", "10.244.0.0/16", "fd00:244::/56"];
    let networks = networks.iter().filter_map(|text| text.parse().ok()).collect();
    let domain = Name::from_ascii("cluster.local.").unwrap_or_default();
    let mut settings = ZoneSettings::new(domain, 5, networks);
    settings.vips = vec![[10, 96, 0, 10].into()];
    settings.pods = PodRecords::Insecure;
    settings.zonal = true;
    let mut zone = Zone::new(settings);
    let mut index = Index::default();
    for document in manifest::parse(SERVICES) {
        for object in document.objects.unwrap_or_default() {
            index.apply(Event::Apply(object));
        }
    }
    for key in index.services().keys() {
        zone.put(key.clone(), index.resolve(key).map(|resolved| ServiceNames::of(&resolved)));
    }
    zone.set_synced();
    zone
}

/// Reads `bytes` as a query and answers it over UDP and TCP.
///
/// # Panics
/// What is sent is no answer to it.
pub fn query(bytes: &[u8]) {
    let request = match read(bytes) {
        Ok(request) => request,
        Err(refusal) => {
            let Some(answer) = refusal.answer else { return };
            let message = Message::from_vec(&answer).expect("a message");
            assert_eq!(message.id.to_be_bytes(), bytes[..2]);
            assert!(answer.len() <= 512 && message.answers.is_empty());
            return;
        }
    };
    let reply = match answer(&ZONE, &request.question, request.id.into()) {
        Answer::Own(reply) => reply,
        Answer::Forward => return,
        Answer::Chase { answers, .. } => {
            Reply { answers, ..Reply::of(ResponseCode::NoError, true) }
        }
    };
    sent(&request, &reply, Limit::Udp);
    sent(&request, &reply, Limit::Tcp);
}

fn sent(request: &Request, reply: &Reply, limit: Limit) {
    let bytes = write(request, reply, limit);
    let message = Message::from_vec(&bytes).expect("a message");
    let size = match (limit, request.edns) {
        (Limit::Tcp, _) => usize::from(u16::MAX),
        (Limit::Udp, None) => 512,
        (Limit::Udp, Some(edns)) => edns.payload.clamp(512, UDP_PAYLOAD).into(),
    };
    assert!(bytes.len() <= size, "{} bytes of {size}", bytes.len());
    assert_eq!(message.id, request.id);
    assert_eq!(message.edns.is_some(), request.edns.is_some());
    assert!(message.recursion_available && message.authoritative == reply.authoritative);
    let [asked] = &message.queries[..] else { panic!("{message:?}") };
    assert!(asked.name().eq_case(&request.question.name));
    assert!(limit == Limit::Udp || (!message.truncation && message.answers == reply.answers));
}

#[cfg(test)]
mod tests;
