//! Events of containers: from requests, from the spool, from containerd.

use std::sync::Arc;
use std::time::Duration;

use causeway_model::{EndpointEvent, EndpointKey, Event, Labels};

use super::Engine;
use crate::clock;
use crate::conditions::Concern;
use crate::liveness::Liveness;
use crate::log;
use crate::recorded;
use crate::request::Refused;

/// A gone attachment is remembered for so long, in nanoseconds of boot time: an event that was
/// overtaken comes later by seconds at most.
const REMEMBERED: u64 = 3_600_000_000_000;
/// Labels that come later count an attachment's `seq` up by one each; between two ADDs of one
/// attachment lie more nanoseconds than this.
const SAME_ADD: u64 = 1_000_000;
/// So many attachments are remembered before old ones are forgotten.
const MANY: usize = 4096;
/// Until the spool is read again if the store did not take all of it: its disk is full.
const SPOOL_AGAIN: Duration = Duration::from_secs(2);

impl Engine {
    /// Takes an event of a container: stores it and tells the index. One that is not the newest of
    /// its attachment, or of another boot, does nothing.
    ///
    /// # Errors
    /// 503 if it cannot be stored: then it is not taken at all.
    pub(super) fn on_container_event(
        &mut self,
        mut event: EndpointEvent,
        labels: &Labels,
    ) -> Result<(), Refused> {
        let known = self.seqs.get(&event.key).copied();
        if event.boot_id != self.facts.boot_id || known.is_some_and(|seq| seq >= event.seq) {
            return Ok(());
        }
        if let Some(record) = &mut event.record {
            record.labels.extend(labels.clone());
        }
        let stored = match event.record {
            Some(_) => self.store.put_container(&event),
            None => self.store.delete_container(&event.key),
        };
        stored.map_err(|error| Refused::caused(503, "the container cannot be stored", &error))?;
        self.remember(&event);
        if event.record.is_none() {
            // An older one must not come back by the spool after a restart.
            self.forget_spooled(&event);
        }
        self.state.progress.endpoint_changes += 1;
        self.pending.touched.containers.insert(event.key.clone());
        self.pending.publish.insert(event.key.clone());
        self.log_container(&event);
        if let Some(liveness) = &self.liveness {
            liveness.tell(&event.key, event.seq, event.record.as_ref());
        }
        let run_dir = &self.state.settings.run_dir;
        match event.record.as_ref().and_then(|_| recorded::host_ports_of(run_dir, &event.key)) {
            Some(ports) => drop(self.state.host_ports.insert(event.key.clone(), ports)),
            None => drop(self.state.host_ports.remove(&event.key)),
        }
        self.apply(match event.record {
            Some(record) => Event::Attach { node: Arc::clone(&self.facts.name), record },
            None => Event::Detach { node: Arc::clone(&self.facts.name), key: event.key },
        });
        Ok(())
    }

    /// A line of the log for an attachment that is new or gone.
    fn log_container(&self, event: &EndpointEvent) {
        let EndpointKey { network, container_id, ifname } = &event.key;
        let known = self.state.index.container(&self.facts.name, &event.key);
        let (word, pod, ips) = match (&event.record, known) {
            (Some(record), None) => ("attached", record.pod(), log::addresses(&record.ips)),
            (None, Some((gone, _))) => {
                ("detached", gone.record.pod(), log::addresses(&gone.record.ips))
            }
            // Other labels, or a DEL that comes again.
            (Some(_), Some(_)) | (None, None) => return,
        };
        tracing::info!("{word} {pod}: {ips} (container {container_id}, {ifname} in {network})");
    }

    /// Has a thread look whether containers live, those that are known by now first.
    pub(crate) fn watch_liveness(&mut self, liveness: Liveness) {
        for (one, _) in self.state.index.containers_of(&self.facts.name) {
            let seq = self.seqs.get(&one.record.key).copied().unwrap_or(0);
            liveness.tell(&one.record.key, seq, Some(&one.record.to_record()));
        }
        self.liveness = Some(liveness);
    }

    /// The container of an attachment is gone without DEL: it leaves its services. An ADD that came
    /// after the one that is meant stays.
    pub(super) fn on_dead(&mut self, key: EndpointKey, seq: u64) {
        let known = self.seqs.get(&key).copied().unwrap_or(0);
        let later = seq != 0 && known.saturating_sub(seq) > SAME_ADD;
        if later || self.state.index.container(&self.facts.name, &key).is_none() {
            return;
        }
        tracing::warn!(
            network = key.network,
            container = key.container_id,
            ifname = key.ifname,
            "a container is gone without DEL; removed from its services"
        );
        let boot_id = self.facts.boot_id.clone();
        let event = EndpointEvent { key, seq: known + 1, boot_id, record: None };
        if let Err(refused) = self.on_container_event(event, &Labels::new()) {
            tracing::error!(problem = ?refused.problem, "forget a container that is gone");
        }
    }

    /// Names attachments in `status`.
    pub(super) fn report_dead(&mut self, named: Vec<String>) {
        self.state.conditions.update_warnings(Concern::Attachments, named);
    }

    /// What containerd says of the attachments of a container.
    pub(super) fn on_labels(&mut self, container_id: &str, labels: &Labels) {
        let containers = self.state.index.containers_of(&self.facts.name);
        let events: Vec<EndpointEvent> = containers
            .map(|(one, _)| &one.record)
            .filter(|record| record.key.container_id == container_id)
            .filter(|record| {
                labels.iter().any(|(key, value)| record.labels.get(key) != Some(value.as_str()))
            })
            .map(|record| EndpointEvent {
                key: record.key.clone(),
                seq: self.seqs.get(&record.key).copied().unwrap_or(0) + 1,
                boot_id: self.facts.boot_id.clone(),
                record: Some(record.to_record()),
            })
            .collect();
        for event in events {
            if let Err(refused) = self.on_container_event(event, labels) {
                tracing::warn!(container_id, "keep labels: {refused}");
            }
        }
    }

    /// Reads the spool again, when its time has come.
    pub(super) fn retry_spool(&mut self) {
        if self.deadlines.spool.take(clock::now()) {
            self.pending.spool = true;
        }
    }

    /// Takes everything that waits in the spool.
    pub(super) fn read_spool(&mut self) {
        let (events, bad) = match self.spool.events() {
            Ok(read) => read,
            Err(error) => {
                let path = self.state.settings.spool();
                let text = format!("read the spool {}: {error}", path.display());
                tracing::error!("{text}");
                self.state.conditions.set(Concern::Spool, text);
                return;
            }
        };
        self.state.conditions.clear(&Concern::Spool);
        for name in bad {
            tracing::warn!(file = name, "an event in the spool does not decode; moved aside");
        }
        for event in events {
            let attached = event.record.is_some();
            match self.on_container_event(event.clone(), &Labels::new()) {
                Ok(()) => {
                    if attached {
                        self.front.look_up(&event.key.container_id);
                    }
                    self.pending.spooled.push(event);
                }
                Err(refused) => {
                    tracing::error!("take an event of the spool: {refused}");
                    self.deadlines.spool.set(clock::now() + SPOOL_AGAIN);
                }
            }
        }
    }

    fn remember(&mut self, event: &EndpointEvent) {
        self.seqs.insert(event.key.clone(), event.seq);
        let (index, node) = (&self.state.index, &self.facts.name);
        if self.seqs.len() > MANY + 2 * index.containers_of(node).count() {
            self.seqs.retain(|key, seq| {
                index.container(node, key).is_some() || seq.saturating_add(REMEMBERED) > event.seq
            });
        }
    }

    fn forget_spooled(&self, event: &EndpointEvent) {
        if let Err(error) = self.spool.remove(event) {
            tracing::warn!(error = %error, "remove an old event from the spool");
        }
    }
}
