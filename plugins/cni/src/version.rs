//! Protocol versions.

/// A version of the CNI specification that this package speaks. Ordered by age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.1.0; also what a missing or empty `cniVersion` means.
    V0_1_0,
    /// 0.2.0
    V0_2_0,
    /// 0.3.0
    V0_3_0,
    /// 0.3.1
    V0_3_1,
    /// 0.4.0: CHECK
    V0_4_0,
    /// 1.0.0: no `version` in `ips`
    V1_0_0,
    /// 1.1.0: GC, STATUS, interface `mtu`
    V1_1_0,
}

impl Version {
    /// Every version, oldest first.
    pub const ALL: [Self; 7] = [
        Self::V0_1_0,
        Self::V0_2_0,
        Self::V0_3_0,
        Self::V0_3_1,
        Self::V0_4_0,
        Self::V1_0_0,
        Self::V1_1_0,
    ];

    /// The text in `cniVersion`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version written as `text`, exactly.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }

    /// Whether a result of this version cannot be written without an address (row C40). A plugin
    /// checks this before it acts.
    pub const fn needs_ip(self) -> bool {
        matches!(self.format(), Format::PerFamily)
    }

    /// The result format.
    pub(crate) const fn format(self) -> Format {
        match self {
            Self::V0_1_0 | Self::V0_2_0 => Format::PerFamily,
            Self::V0_3_0 | Self::V0_3_1 | Self::V0_4_0 => Format::Tagged,
            Self::V1_0_0 | Self::V1_1_0 => Format::Plain,
        }
    }
}

/// Versions that share a result format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// `ip4` and `ip6`, no interfaces.
    PerFamily,
    /// Lists, each address tagged with its IP version.
    Tagged,
    /// Lists.
    Plain,
}

/// Major, minor and patch as Go's library reads them: missing parts are 0.
pub(crate) fn numbers(text: &str) -> Option<[i64; 3]> {
    let mut numbers = [0; 3];
    for (index, part) in text.split('.').enumerate() {
        *numbers.get_mut(index)? = part.parse().ok()?;
    }
    Some(numbers)
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
