//! Which labels of a container in containerd were set by its user. Pure.
//!
//! containerd's clients copy the labels of an image to the containers that they make of it. Who
//! writes an image must not choose whose endpoint its containers are, so labels that are the
//! image's own do not count unless a setting says so. Names of pods and networks never come from
//! there at all.

use std::collections::{BTreeMap, BTreeSet};

use causeway_model::{Labels, manifest};
use serde::Deserialize;
use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};

/// Labels of one container that count.
pub(super) const MOST: usize = 64;
/// Keys that a container's runtime writes for itself, with values that are not labels: no news.
const OF_RUNTIMES: [&str; 5] =
    ["nerdctl/", "containerd.io/", "io.containerd.", "io.cri-containerd", "com.docker."];
/// Keys that only the plugins write, by what the runtime says of the pod.
const RESERVED: &str = "causeway.io/";

/// A label of an image or of several.
pub(super) type Pairs = BTreeSet<(String, String)>;

/// What is known of the image that a container was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ImageLabels {
    /// There is none: all labels are the user's.
    None,
    /// These are its labels.
    Labels(Pairs),
    /// Nobody knows which labels are its own, and why.
    Unknown(String),
}

/// What counts, and what does not with why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sorted {
    /// These labels count.
    pub(super) labels: Labels,
    /// Keys that do not count, with the reason.
    pub(super) refused: Vec<(String, String)>,
}

/// Sorts the labels of a container.
pub(super) fn sort(labels: Labels, image: &ImageLabels) -> Sorted {
    let mut sorted = Sorted::default();
    for (key, value) in labels {
        match verdict(&key, &value, image, sorted.labels.len()) {
            Ok(()) => drop(sorted.labels.insert(key, value)),
            Err(_) if OF_RUNTIMES.iter().any(|prefix| key.starts_with(prefix)) => {}
            Err(why) => sorted.refused.push((key, why)),
        }
    }
    sorted
}

fn verdict(key: &str, value: &str, image: &ImageLabels, count: usize) -> Result<(), String> {
    if key.starts_with(RESERVED) {
        return Err("keys under causeway.io are set by the plugins only".to_owned());
    }
    match image {
        ImageLabels::None => {}
        ImageLabels::Labels(own) if own.contains(&(key.to_owned(), value.to_owned())) => {
            return Err(
                "it comes from the image; to use labels of images, set --image-labels".to_owned()
            );
        }
        ImageLabels::Labels(_) => {}
        ImageLabels::Unknown(why) => return Err(format!("it may come from the image: {why}")),
    }
    manifest::check_label(key, value)?;
    if count >= MOST {
        return Err(format!("a container can have at most {MOST} labels"));
    }
    Ok(())
}

/// A blob of an image that refers to other blobs: an index, a list of Docker, or a manifest.
#[derive(Debug, Deserialize)]
pub(super) struct Manifest {
    #[serde(default)]
    manifests: Vec<BlobDescriptor>,
    config: Option<BlobDescriptor>,
    #[serde(flatten)]
    others: Others,
}

/// Names a blob.
#[derive(Debug, Deserialize)]
struct BlobDescriptor {
    /// `sha256:...`
    digest: String,
    #[serde(flatten)]
    others: Others,
}

/// Keys of a JSON object that are not read.
type Others = BTreeMap<String, IgnoredAny>;

impl Manifest {
    /// Reads one: the blobs that may lead to more, one a platform, and the configuration. `None`:
    /// nobody can tell where it leads.
    pub(super) fn read(bytes: &[u8]) -> Option<(Vec<String>, Option<String>)> {
        let read: Self = serde_json::from_slice(bytes).ok()?;
        let named =
            read.manifests.iter().chain(&read.config).all(|one| one.others.lacks(&["digest"]));
        if !named || !read.others.lacks(&["manifests", "config"]) {
            return None;
        }
        let digests = read.manifests.into_iter().map(|one| one.digest).collect();
        Some((digests, read.config.map(|one| one.digest)))
    }
}

/// containerd's language takes a key of JSON for a name of its own though the case differs. A key that
/// only it reads hides labels from here: no honest image has one.
trait Lacks {
    /// Whether none of the keys would be taken for one of these.
    fn lacks(&self, names: &[&str]) -> bool;
}

impl Lacks for Others {
    fn lacks(&self, names: &[&str]) -> bool {
        // Through capital letters, for those that have two small ones, as the long s has.
        let fold = |key: &str| -> String {
            key.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
        };
        self.keys().all(|key| !names.contains(&fold(key).as_str()))
    }
}

/// What is read of the configuration of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Config {
    /// Its labels.
    pub(super) labels: Pairs,
    /// Digests of its layers, the lowest first.
    layers: Vec<String>,
}

impl Config {
    /// Reads one; `None`: it is none, or containerd may read something else in it.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        #[derive(Debug, Deserialize)]
        struct Whole {
            config: Option<Inner>,
            rootfs: Option<RootFs>,
            #[serde(flatten)]
            others: Others,
        }
        #[derive(Debug, Default, Deserialize)]
        struct Inner {
            #[serde(default, rename = "Labels")]
            labels: Option<Labels>,
            #[serde(flatten)]
            others: Others,
        }
        #[derive(Debug, Default, Deserialize)]
        struct RootFs {
            #[serde(default)]
            diff_ids: Vec<String>,
            #[serde(flatten)]
            others: Others,
        }
        let Whole { config, rootfs, others } = serde_json::from_slice(bytes).ok()?;
        let (config, rootfs) = (config.unwrap_or_default(), rootfs.unwrap_or_default());
        let plain = others.lacks(&["config", "rootfs"])
            && config.others.lacks(&["labels"])
            && rootfs.others.lacks(&["diff_ids"]);
        let labels = config.labels.unwrap_or_default().into_iter().collect();
        plain.then_some(Self { labels, layers: rootfs.diff_ids })
    }

    /// What containerd calls the snapshot of all its layers: ChainID of OCI's image specification.
    pub(super) fn chain(&self) -> String {
        let chain = |below: String, layer: &String| match below.is_empty() {
            true => layer.clone(),
            false => format!("sha256:{}", hex(&Sha256::digest(format!("{below} {layer}")))),
        };
        self.layers.iter().fold(String::new(), chain)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
