//! A new connection, and the listing of everything in the store.

use std::sync::Arc;

use super::config::{self, Agreed};
use super::keys::Keys;
use super::store::{self, Failure, bounded};
use super::value::Reader;
use super::{Change, ClusterSettings, View};
use crate::etcd::{Client, KeyValue, Watch, WatchCreateRequest, end_of};

/// A connection and what there is.
pub(super) struct Opened {
    pub(super) client: Client,
    pub(super) agreed: Agreed,
    pub(super) listing: Listing,
    pub(super) watch: Option<Watch>,
}

/// All there is at a revision.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) revision: i64,
    pub(super) view: View,
    pub(super) own: Vec<(String, OwnKey)>,
}

/// A key of this node as it is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OwnKey {
    pub(super) revision: i64,
    /// When the key was made; 0: not known.
    pub(super) created: i64,
    /// Value and lease; `None`: it was deleted.
    pub(super) entry: Option<(Vec<u8>, i64)>,
}

impl OwnKey {
    pub(super) fn of(pair: &KeyValue) -> Self {
        let entry = Some((pair.value.clone(), pair.lease));
        Self { revision: pair.mod_revision, created: pair.create_revision, entry }
    }

    pub(super) fn gone(revision: i64) -> Self {
        Self { revision, created: 0, entry: None }
    }
}

impl Opened {
    /// Connects and looks at everything.
    ///
    /// # Errors
    /// In words.
    pub(super) async fn open(
        settings: Arc<ClusterSettings>,
        keys: Arc<Keys>,
        endpoint: &str,
    ) -> Result<Self, String> {
        let named = |failure: Failure| format!("{endpoint}: {}", failure.into_text());
        let client = store::connect(&settings, endpoint).await?;
        let agreed = config::agree(&client, &keys, &settings.config).await.map_err(named)?;
        if agreed.excluded.is_some() {
            return Ok(Self { client, agreed, listing: Listing::default(), watch: None });
        }
        let listing = Listing::read(&client, &settings, &keys).await.map_err(named)?;
        let watch = watch(&client, keys.root(), listing.revision).await.map_err(named)?;
        Ok(Self { client, agreed, listing, watch: Some(watch) })
    }
}

/// A watch on all keys, from the next revision on.
pub(super) async fn watch(client: &Client, root: &str, revision: i64) -> Result<Watch, Failure> {
    let create = WatchCreateRequest {
        key: root.into(),
        range_end: end_of(root.as_bytes()),
        start_revision: revision + 1,
        progress_notify: true,
    };
    bounded(client.watch(create)).await
}

impl Listing {
    pub(super) async fn read(
        client: &Client,
        settings: &ClusterSettings,
        keys: &Keys,
    ) -> Result<Self, Failure> {
        let reader = Reader::new(keys, settings);
        let mut listing = Self::default();
        let revision = store::list(client, keys.root(), |pair| listing.add(reader, &pair)).await?;
        listing.revision = revision;
        Ok(listing)
    }

    fn add(&mut self, reader: Reader<'_>, pair: &KeyValue) {
        if let Some(own) = own_key(reader.keys, reader.me, &pair.key) {
            self.own.push((own, OwnKey::of(pair)));
        }
        let view = &mut self.view;
        match reader.decode(pair) {
            Ok(Some(Change::Node(record))) => {
                drop(view.nodes.insert(record.identity.node.clone(), record));
            }
            Ok(Some(Change::Subnet(record))) => {
                drop(view.subnets.insert(record.subnet, record));
            }
            Ok(Some(Change::Container(node, container))) if node != *reader.me => {
                view.containers.push((node, container));
            }
            Ok(Some(Change::Object(stored))) => view.objects.push(stored),
            Ok(_) => {}
            Err(why) => {
                view.unreadable.insert(String::from_utf8_lossy(&pair.key).into_owned(), why);
            }
        }
    }
}

/// Keys that nobody but the node `me` writes.
pub(super) fn own_key(keys: &Keys, me: &str, key: &[u8]) -> Option<String> {
    let text = str::from_utf8(key).ok()?;
    (text == keys.node(me) || text.starts_with(&keys.containers(me))).then(|| text.to_owned())
}
