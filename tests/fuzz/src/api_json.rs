//! Bodies of the daemon's API, and objects in JSON.
#![no_main]

use causeway_api::{Apply, SvcTest, TraceRequest};
use causeway_model::EndpointEvent;
use causeway_model::manifest::{from_json, to_json};
use serde_json::{Value, from_slice, to_vec};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(event) = from_slice::<EndpointEvent>(bytes) {
        let again: EndpointEvent = from_slice(&to_vec(&event).unwrap()).unwrap();
        assert_eq!(again, event);
        event.record.map(|record| record.pod());
    }
    if let Ok(request) = from_slice::<TraceRequest>(bytes) {
        assert_eq!(from_slice::<TraceRequest>(&to_vec(&request).unwrap()).unwrap(), request);
    }
    if let Ok(request) = from_slice::<SvcTest>(bytes) {
        assert_eq!(from_slice::<SvcTest>(&to_vec(&request).unwrap()).unwrap(), request);
    }
    let apply = from_slice::<Apply>(bytes).map(|apply| apply.objects).unwrap_or_default();
    for value in apply.iter().chain(&from_slice::<Value>(bytes)) {
        for object in from_json(value).unwrap_or_default() {
            assert_eq!(from_json(&to_json(&object)).as_deref(), Ok(&[object][..]));
        }
    }
});
