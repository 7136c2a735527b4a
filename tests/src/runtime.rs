//! A runtime: what libcni does with a conflist.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::{Map, Value, json};

use crate::{Attachment, Cni, Node, Outcome};

/// Plays libcni over one network on one node.
///
/// Each plugin gets its own entry of the list with `name`, `cniVersion`, `prevResult` and, for
/// capabilities it declares, `runtimeConfig`. The final result of ADD is kept for DEL and CHECK.
#[derive(Debug)]
pub struct Runtime<'a> {
    node: &'a Node,
    list: Value,
    results: Mutex<BTreeMap<(String, String), Value>>,
}

impl<'a> Runtime<'a> {
    /// A runtime for the network that `list` (a conflist) describes.
    pub fn new(node: &'a Node, list: Value) -> Self {
        assert!(list["plugins"].is_array(), "not a conflist: {list}");
        Self { node, list, results: Mutex::default() }
    }

    /// Runs the plugins in order and returns the last result, or the first failed run. A failure
    /// is not cleaned up: what is left is the plugins' doing.
    pub fn add(&self, attachment: &Attachment) -> Result<Value, Outcome> {
        let mut previous = Value::Null;
        for plugin in self.plugins() {
            let config = self.config(plugin, attachment, &previous);
            let outcome = self.call(plugin, "ADD", &config, attachment).run();
            if !outcome.status.success() {
                return Err(outcome);
            }
            previous = outcome.json();
        }
        self.remember(attachment, previous.clone());
        Ok(previous)
    }

    /// As [`Runtime::add`]; panics on a failure.
    pub fn add_ok(&self, attachment: &Attachment) -> Value {
        self.add(attachment).unwrap_or_else(|outcome| panic!("{}", outcome.describe()))
    }

    /// Runs the plugins in reverse with the kept result and returns the first failed run; as
    /// libcni, stops there.
    pub fn del(&self, attachment: &Attachment) -> Result<(), Outcome> {
        let previous = self.result(attachment).unwrap_or(Value::Null);
        for plugin in self.plugins().rev() {
            let config = self.config(plugin, attachment, &previous);
            silent(self.call(plugin, "DEL", &config, attachment).run())?;
        }
        self.forget(attachment);
        Ok(())
    }

    /// As [`Runtime::del`]; panics on a failure.
    pub fn del_ok(&self, attachment: &Attachment) {
        self.del(attachment).unwrap_or_else(|outcome| panic!("{}", outcome.describe()));
    }

    /// Runs CHECK in order with the kept result and returns the first failed run.
    pub fn check(&self, attachment: &Attachment) -> Result<(), Outcome> {
        let previous = self.result(attachment).unwrap_or(Value::Null);
        for plugin in self.plugins() {
            let config = self.config(plugin, attachment, &previous);
            silent(self.call(plugin, "CHECK", &config, attachment).run())?;
        }
        Ok(())
    }

    /// Runs GC on every plugin with these attachments as the valid ones.
    pub fn gc(&self, valid: &[&Attachment]) -> Result<(), Outcome> {
        let valid: Vec<Value> = valid
            .iter()
            .map(|one| json!({ "containerID": one.id, "ifname": one.ifname }))
            .collect();
        self.on_network("GC", &json!({ "cni.dev/valid-attachments": valid }))
    }

    /// Runs STATUS on every plugin.
    pub fn status(&self) -> Result<(), Outcome> {
        self.on_network("STATUS", &json!({}))
    }

    /// The kept result of an attachment.
    pub fn result(&self, attachment: &Attachment) -> Option<Value> {
        self.results.lock().expect("no panic under the lock").get(&key(attachment)).cloned()
    }

    /// Replaces the kept result, `null` for a cache that was lost.
    pub fn remember(&self, attachment: &Attachment, result: Value) {
        self.results.lock().expect("no panic under the lock").insert(key(attachment), result);
    }

    /// Drops the kept result, as a runtime that lost its cache.
    pub fn forget(&self, attachment: &Attachment) {
        self.results.lock().expect("no panic under the lock").remove(&key(attachment));
    }

    /// What a plugin of the list reads on stdin for an attachment.
    pub fn config(&self, plugin: &Value, attachment: &Attachment, previous: &Value) -> Value {
        let mut config = self.base(plugin);
        let mut values = Map::new();
        for (capability, wanted) in plugin["capabilities"].as_object().into_iter().flatten() {
            let value = attachment.runtime_config.get(capability);
            if let (Some(true), Some(value)) = (wanted.as_bool(), value) {
                values.insert(capability.clone(), value.clone());
            }
        }
        if !values.is_empty() {
            config.insert("runtimeConfig".to_owned(), Value::Object(values));
        }
        if !previous.is_null() {
            config.insert("prevResult".to_owned(), previous.clone());
        }
        Value::Object(config)
    }

    /// The plugins of the list, in order.
    pub fn plugins(&self) -> std::slice::Iter<'_, Value> {
        self.list["plugins"].as_array().expect("checked by new").iter()
    }

    /// The call of one plugin of the list.
    pub fn call(
        &self,
        plugin: &Value,
        command: &str,
        config: &Value,
        attachment: &Attachment,
    ) -> Cni<'a> {
        let kind = plugin["type"].as_str().unwrap_or_else(|| panic!("no type in {plugin}"));
        Cni::new(self.node, kind, command, config).attachment(attachment)
    }

    fn on_network(&self, command: &str, extra: &Value) -> Result<(), Outcome> {
        // libcni exports the variables of an attachment as empty strings here.
        let (id, ifname, netns, args) = Default::default();
        let none = Attachment { id, ifname, netns, args, runtime_config: Value::Null };
        for plugin in self.plugins() {
            let mut config = self.base(plugin);
            config.extend(extra.as_object().cloned().unwrap_or_default());
            silent(self.call(plugin, command, &Value::Object(config), &none).run())?;
        }
        Ok(())
    }

    fn base(&self, plugin: &Value) -> Map<String, Value> {
        let mut config = plugin.as_object().cloned().expect("a plugin is an object");
        for key in ["name", "cniVersion"] {
            if let Some(value) = self.list.get(key) {
                config.insert(key.to_owned(), value.clone());
            }
        }
        config
    }
}

fn silent(outcome: Outcome) -> Result<(), Outcome> {
    if !outcome.status.success() {
        return Err(outcome);
    }
    outcome.silent();
    Ok(())
}

fn key(attachment: &Attachment) -> (String, String) {
    (attachment.id.clone(), attachment.ifname.clone())
}
