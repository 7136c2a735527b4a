//! `causeway status`

use std::collections::BTreeMap;

use causeway_api::Status;
use serde_json::json;

use crate::age::age;
use crate::cli::{Document, Format};
use crate::daemon::Daemon;
use crate::screen::{Screen, Style};
use crate::{Failure, Verdict};

pub(crate) fn run(
    daemon: &Daemon,
    screen: &mut Screen,
    format: Option<Format>,
) -> Result<Verdict, Failure> {
    let form = Format::of_document(format)?;
    let status: Status = daemon.get("/v1/status")?;
    match form {
        Document::Text => show(screen, &status)?,
        Document::Json => screen.json(&json!(status))?,
        Document::Yaml => screen.yaml(&json!(status))?,
    }
    Ok(Verdict::finding_if(!status.degraded.is_empty()))
}

fn show(screen: &mut Screen, status: &Status) -> Result<(), Failure> {
    let synced =
        status.synced.map_or("never".to_owned(), |seconds| format!("{} ago", age(seconds)));
    screen.say(&format!("Node:      {}", status.node))?;
    screen.say(&format!("Daemon:    causewayd {}, up {}", status.version, age(status.uptime)))?;
    screen.say(&format!("Backend:   {}", status.backend))?;
    screen.say(&format!("Store:     {}", status.store))?;
    screen.say(&format!("Synced:    {synced}"))?;
    screen.say(&format!("Objects:   {}", counts(&status.counts)))?;
    screen.say(&format!("Events:    {}", counts(&status.events)))?;
    if status.degraded.is_empty() {
        screen.say_in(Style::Good, "State:     OK")?;
    } else {
        screen.say_in(Style::Bad, "State:     DEGRADED")?;
    }
    for problem in &status.degraded {
        screen.say_in(Style::Bad, &format!("  - {problem}"))?;
    }
    if !status.warnings.is_empty() {
        screen.say_in(Style::Notice, "Warnings:")?;
    }
    for warning in &status.warnings {
        screen.say_in(Style::Notice, &format!("  - {warning}"))?;
    }
    Ok(())
}

/// `2 endpoint slices, 3 services`
fn counts(counts: &BTreeMap<String, u64>) -> String {
    if counts.is_empty() {
        return "<none>".to_owned();
    }
    let shown = counts.iter().map(|(name, count)| format!("{count} {}", words(name)));
    shown.collect::<Vec<_>>().join(", ")
}

/// `endpointSlices` as `endpoint slices`.
fn words(name: &str) -> String {
    let mut words = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            words.push(' ');
        }
        words.push(c.to_ascii_lowercase());
    }
    words
}
