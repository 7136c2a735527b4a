//! Names of pods by their addresses (Kubernetes DNS specification, row D-18).

/// Which names below `pod.` of the domain there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodRecords {
    /// None.
    #[default]
    Disabled,
    /// Any address in a namespace that exists: the name is turned into what it says.
    Insecure,
    /// Addresses that pods of the namespace have.
    Verified,
}
