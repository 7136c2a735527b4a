//! `causewayd leave`: takes this node out of the cluster for good. What other nodes send
//! its containers ends at once, and other nodes may get its subnets of the cluster network.

use std::io::{self, Write as _};

use causeway_model::NodeIdentity;
use causeway_source::cluster::{self, ClusterSettings, Removal};

use crate::cleanup;
use crate::config::{Settings, StoreKind};
use crate::engine::cluster_settings;
use crate::files;
use crate::node;
use crate::start;

/// Why the node stays.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no cluster.
    #[error("leave: this node is not in a cluster store (--store embedded){}", .0)]
    Alone(&'static str),
    /// A daemon runs, or its lock cannot be taken.
    #[error("leave the cluster")]
    Lock(#[source] start::Error),
    /// Who we are.
    #[error("leave the cluster")]
    Node(#[source] node::Error),
    /// There are containers.
    #[error(
        "leave: containers are attached on this node, and other nodes may get its addresses once \
         it has left; remove the containers first. If their runtime does not know them any more, \
         use --force, then run `causewayd cleanup --all`"
    )]
    Attached,
    /// The store.
    #[error("leave the cluster: {0}")]
    Store(String),
    /// A file, or the answer.
    #[error("{action}")]
    File {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Takes this node out of the cluster store, and prints what it had.
///
/// # Errors
/// See [`Error`].
pub(crate) fn run(settings: &Settings, force: bool) -> Result<(), Error> {
    let failed = |action| move |source| Error::File { action, source };
    if settings.store != StoreKind::Etcd {
        let peers = settings.peers_file.is_some();
        let remedy = if peers {
            "; remove it from the other nodes' peers files"
        } else {
            "; give the flags that the daemon of this node was started with"
        };
        return Err(Error::Alone(remedy));
    }
    causeway_host::file::make_folder(&settings.run_dir)
        .map_err(failed("make the run directory"))?;
    // Whoever runs would join again.
    let lock = start::lock(&settings.run_dir).map_err(Error::Lock)?;
    if !force && cleanup::is_attached(&settings.run_dir) {
        return Err(Error::Attached);
    }
    let identity = NodeIdentity {
        node: node::name(settings).map_err(Error::Node)?,
        machine_id: node::machine_id(settings).map_err(Error::Node)?,
    };
    let removed = ask(&cluster_settings(settings, identity))?;
    // What it had is free for other nodes: nothing here may ask for it or give addresses of it.
    for folder in [&settings.run_dir, &settings.state_dir] {
        files::remove(&causeway_host::paths::node_file(folder))
            .map_err(failed("remove node.json"))?;
    }
    say(&removed).map_err(failed("print what was released"))?;
    drop(lock);
    Ok(())
}

fn ask(settings: &ClusterSettings) -> Result<Removal, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|source| Error::File { action: "start the event loop", source })?;
    runtime.block_on(cluster::leave(settings)).map_err(Error::Store)
}

fn say(removed: &Removal) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if *removed == Removal::default() {
        return writeln!(out, "this node has no records in the cluster store");
    }
    let subnets: Vec<String> = removed.subnets.iter().map(ToString::to_string).collect();
    let subnets = if subnets.is_empty() { "no subnet".to_owned() } else { subnets.join(", ") };
    let containers = match removed.containers {
        1 => "1 container".to_owned(),
        count => format!("{count} containers"),
    };
    writeln!(out, "left the cluster; released {subnets} and {containers}")?;
    writeln!(
        out,
        "causewayd joins again when it starts: systemctl disable causewayd. To remove what it \
         created on this node: causewayd cleanup --all"
    )
}
