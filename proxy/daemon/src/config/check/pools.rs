//! Pools of load balancer addresses: one by `--lb-pool`, or several in tables of the file.

use std::collections::BTreeMap;

use causeway_model::allocate::{AddressRange, BalancerPool};
use serde::Deserialize;

use super::super::Error;
use super::super::given::{Given, POOL_TABLES, Values};
use super::Reader;
use super::value::node_name;

/// Name of the pool of `--lb-pool`.
const DEFAULT: &str = "default";

/// A table `[[lb_pool]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    name: String,
    addresses: Vec<String>,
    #[serde(default = "yes")]
    auto_assign: bool,
    #[serde(default)]
    priority: u32,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default)]
    selectors: Vec<BTreeMap<String, String>>,
    #[serde(default)]
    avoid_buggy_ips: bool,
}

fn yes() -> bool {
    true
}

/// Reads the pools. Flag and variable come before the file.
///
/// # Errors
/// One is wrong: where, and what would be right.
pub(super) fn pools(values: &Values) -> Result<Vec<BalancerPool>, Error> {
    let ranges = Reader(values).list("lb-pool", AddressRange::parse)?;
    if !ranges.is_empty() {
        return Ok(vec![BalancerPool { ranges, ..BalancerPool::new(DEFAULT) }]);
    }
    let given = values.get(POOL_TABLES).filter(|_| !values.contains_key("lb-pool"));
    let Some(given) = given else { return Ok(Vec::new()) };
    let wrong = |error: &dyn std::fmt::Display| given.clone().wrong(error.to_string());
    let tables: Vec<serde_json::Value> =
        serde_json::from_str(&given.value).map_err(|error| wrong(&error))?;
    tables.into_iter().enumerate().map(|(index, table)| pool(given, index, table)).collect()
}

fn pool(given: &Given, index: usize, table: serde_json::Value) -> Result<BalancerPool, Error> {
    let at = |part: &str, value: &str| Given {
        field: format!("{}[{index}]{part}", given.field),
        value: value.to_owned(),
    };
    let table: Table = serde_path_to_error::deserialize(table).map_err(|error| {
        let path = error.path().to_string();
        let part = if path == "." { String::new() } else { format!(".{path}") };
        at(&part, "").wrong(error.inner().to_string())
    })?;
    let name = node_name(&table.name).map_err(|why| at(".name", &table.name).wrong(why))?;
    let ranges = table.addresses.iter().enumerate().map(|(number, text)| {
        let part = format!(".addresses[{number}]");
        AddressRange::parse(text.trim()).map_err(|why| at(&part, text).wrong(why))
    });
    Ok(BalancerPool {
        name,
        ranges: ranges.collect::<Result<_, _>>()?,
        auto_assign: table.auto_assign,
        priority: table.priority,
        namespaces: table.namespaces,
        selectors: table.selectors,
        avoid_buggy_ips: table.avoid_buggy_ips,
    })
}
