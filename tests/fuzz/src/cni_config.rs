//! What runtimes send to plugins: configuration, CNI_ARGS, results of other plugins.
#![no_main]

use std::collections::BTreeMap;

use cni_plugin::{About, CniArgs, CniResult, Request, Version};
use serde_json::Value;

const ABOUT: About = About {
    name: "fuzz",
    version: "0",
    supported: &[Version::V0_1_0, Version::V0_4_0, Version::V1_0_0, Version::V1_1_0],
    known_args: &[],
};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let env = |command: &str| -> BTreeMap<String, String> {
        [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", "/run/netns/c1"),
            ("CNI_PATH", "/opt/cni/bin"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    };
    for command in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
        if let Ok(request) = Request::parse(&ABOUT, env(command), || Ok(bytes.to_vec())) {
            drop(request.config::<Value>());
            drop(request.raw_get(&["args", "cni", "labels"]));
        }
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    drop(CniArgs::parse(text, &["CAUSEWAY_LABELS"]));
    let Ok(value) = serde_json::from_str::<Value>(text) else { return };
    for version in ABOUT.supported {
        if let Ok(result) = CniResult::from_json(&value, *version) {
            for version in ABOUT.supported {
                drop(result.to_json(*version));
            }
        }
    }
});
