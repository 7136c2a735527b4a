//! What all nodes must agree on, and the id of the store: written once, by the first node (rows
//! O-41, C-14).

use causeway_model::ClusterConfig;
use serde::{Deserialize, Serialize};

use super::keys::{Key, Keys};
use super::store::{Failure, bounded};
use super::value;
use crate::etcd::{Client, Compare, CompareResult, RangeRequest, RequestOp, TxnRequest};

/// What the store says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    /// Random id.
    pub(super) store: String,
    /// Why this node cannot take part, with the remedy.
    pub(super) excluded: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct StoredConfig {
    store: String,
    #[serde(flatten)]
    config: ClusterConfig,
}

/// What can be read of any version's value.
#[derive(Deserialize)]
struct AnyVersion {
    #[serde(default)]
    store: String,
    schema: u32,
}

/// Writes the configuration if there is none, and returns what there is.
pub(super) async fn agree(
    client: &Client,
    keys: &Keys,
    ours: &ClusterConfig,
) -> Result<Agreed, Failure> {
    let key = keys.text(&Key::Config);
    let store = format!("{:016x}{:016x}", super::random(), super::random());
    let stored = value::encode(&StoredConfig { store: store.clone(), config: ours.clone() });
    let txn = TxnRequest::new()
        .when([Compare::create_revision(key.as_str(), CompareResult::Equal, 0)])
        .and_then([RequestOp::put(key.as_str(), stored, 0)])
        .or_else([RequestOp::get(RangeRequest::one(key.as_str()))]);
    let response = bounded(client.txn(txn)).await?;
    if response.succeeded {
        return Ok(Agreed { store, excluded: None });
    }
    let Some(found) = response.ranges().next() else {
        return Err(Failure::Away("the response lacks the configuration".into()));
    };
    let bytes = found.kvs.first().map(|pair| pair.value.as_slice()).unwrap_or_default();
    Ok(judge(bytes, ours, &key))
}

/// Whether a node with these settings can take part.
fn judge(stored: &[u8], ours: &ClusterConfig, key: &str) -> Agreed {
    let damaged = |why: String| Agreed {
        store: String::new(),
        excluded: Some(format!(
            "the cluster settings in the store cannot be read: {why}: stop causewayd on all nodes, \
             delete the key {key}, then start causewayd again"
        )),
    };
    let any: AnyVersion = match value::json(stored) {
        Ok(any) => any,
        Err(why) => return damaged(why),
    };
    if any.schema != ours.schema {
        let remedy = if any.schema > ours.schema {
            "install the newer causewayd on this node"
        } else {
            "install the older causewayd on this node until all other nodes are upgraded"
        };
        let text = format!(
            "the cluster data in the store has version {}, and this causewayd supports version {}: \
             {remedy}",
            any.schema, ours.schema
        );
        return Agreed { store: any.store, excluded: Some(text) };
    }
    match value::json::<StoredConfig>(stored) {
        Err(why) => damaged(why),
        Ok(stored) => {
            let differences = ours.differences(&stored.config);
            let excluded = (!differences.is_empty()).then(|| {
                format!(
                    "settings of this node differ from those of the cluster ({}): make them equal \
                     and restart causewayd; to change them for the cluster, stop causewayd on all \
                     nodes, delete the key {key}, then start causewayd again",
                    differences.join("; ")
                )
            });
            Agreed { store: stored.store, excluded }
        }
    }
}

#[cfg(test)]
mod tests;
