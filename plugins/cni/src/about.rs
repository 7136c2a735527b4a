//! What a plugin says of itself: name, version, and the protocol versions it speaks.

use serde_json::{Value, json};

use crate::Version;

/// What a plugin says of itself.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Type name, for instance `causeway-bridge`.
    pub name: &'static str,
    /// Version of the program.
    pub version: &'static str,
    /// Supported protocol versions, oldest first.
    pub supported: &'static [Version],
    /// `CNI_ARGS` keys that this plugin knows beside `IgnoreUnknown` and
    /// [`crate::CniArgs::COMMON`] (row C23).
    pub known_args: &'static [&'static str],
}

impl About {
    /// The newest version that the plugin speaks.
    pub(crate) fn newest(&self) -> Version {
        self.supported.iter().copied().max().unwrap_or(Version::V1_1_0)
    }

    /// What goes to stderr without a command (row C1).
    pub(crate) fn text(&self) -> String {
        let Self { name, version, .. } = self;
        let version = version.trim_start_matches('v');
        let supported: Vec<_> = self.supported.iter().map(|version| version.as_str()).collect();
        let supported = supported.join(", ");
        format!("CNI {name} plugin v{version}\nCNI protocol versions supported: {supported}\n")
    }

    /// The answer to VERSION (row C36).
    pub(crate) fn versions(&self) -> Value {
        let supported: Vec<_> = self.supported.iter().map(|version| version.as_str()).collect();
        json!({ "cniVersion": self.newest().as_str(), "supportedVersions": supported })
    }
}
