//! What nodes live on, told to index, plan and whoever applies.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use causeway_model::Home;

use super::Engine;
use crate::conditions::Concern;
use crate::config::store_url;
use crate::event::{Event, Events};
use crate::guard::{self, Own};

/// How often the store's names are looked up.
const LOOK_UP: Duration = Duration::from_secs(30);

impl Engine {
    /// Takes in what may be other than before: addresses of nodes and of the store, parts of the
    /// cluster network.
    pub(super) fn guard(&mut self) {
        let state = &self.state;
        let own = Own {
            name: &state.node.name,
            ips: &state.node.ips,
            subnets: &state.node.subnets,
            amid_cluster: self.facts.refused.is_some(),
        };
        let names = &self.network.store;
        let guarded = guard::guarded(&state.settings, own, &state.peers, names);
        let home = Home {
            subnets: guard::subnets(&state.settings, own, &state.peers),
            guarded: Arc::new(guarded),
            ..state.index.home().clone()
        };
        if home == *state.index.home() && self.objects.pools.guarded == home.guarded {
            return;
        }
        self.objects.pools.guarded = Arc::clone(&home.guarded);
        self.objects.unsettle();
        let concerned = self.state.plan.guard(Arc::clone(&home.guarded));
        self.pending.touched.services.extend(concerned);
        let changes = self.state.index.set_home(home);
        self.note(changes);
        self.pending.left_out = true;
    }

    /// The store's names lead there.
    pub(super) fn on_store_addresses(&mut self, ips: BTreeSet<IpAddr>) {
        if ips != self.network.store {
            self.network.store = ips;
            self.guard();
        }
    }

    /// Names what is left out, as far as that is new, now and then.
    pub(super) fn report_left_out(&mut self, now: Instant) {
        if !self.pending.left_out || !self.network.said.is_time(&Concern::LeftOut, now) {
            return;
        }
        self.pending.left_out = false;
        let over = self.state.left_out.all().unwrap_or_default();
        let over = over.lines().map(|line| format!("service {line}"));
        let lines: BTreeSet<String> =
            guard::left_out(&self.state).into_iter().chain(over).collect();
        for line in lines.difference(&self.network.left_out) {
            tracing::warn!("{line}");
            self.network.said.say(Concern::LeftOut, now);
        }
        self.network.left_out = lines;
    }
}

/// Keeps the addresses of the store's names known, if it has some.
pub(super) async fn look_up(endpoints: Vec<String>, events: Events) {
    let named = endpoints.iter().filter_map(|endpoint| store_url::host(endpoint));
    let named: Vec<(&str, u16)> =
        named.filter(|(host, _)| host.parse::<IpAddr>().is_err()).collect();
    let mut known = BTreeSet::new();
    while !named.is_empty() {
        let mut found = BTreeSet::new();
        for at in &named {
            // What it was goes on while nobody answers.
            match tokio::net::lookup_host(*at).await {
                Ok(addresses) => found.extend(addresses.map(|at| at.ip())),
                Err(_) => found.extend(known.iter().copied()),
            }
        }
        if found != known && events.send(Event::StoreAddresses(found.clone())).await.is_err() {
            return;
        }
        known = found;
        tokio::time::sleep(LOOK_UP).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    /// Rows: RH3
    #[test]
    fn names_of_the_store_are_looked_up() {
        testing::run(async {
            let (events, mut told) = tokio::sync::mpsc::channel(4);
            let endpoints = ["http://172.18.0.9:2379", "http://localhost:2379"];
            let looking = tokio::spawn(look_up(endpoints.map(str::to_owned).to_vec(), events));
            let Some(Event::StoreAddresses(found)) = told.recv().await else { panic!("told") };
            assert!(found.iter().all(IpAddr::is_loopback) && !found.is_empty(), "{found:?}");
            looking.abort();
            let (events, mut told) = tokio::sync::mpsc::channel(4);
            look_up(endpoints[..1].iter().map(|&url| url.to_owned()).collect(), events).await;
            assert!(told.recv().await.is_none(), "an address is no name");
        });
    }
}
