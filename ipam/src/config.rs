//! The configuration: upstream's keys with upstream's meaning, and our own, checked as a whole.
//!
//! stdin is the main plugin's whole configuration; ours is `ipam` in it, with `runtimeConfig` and
//! `args` beside it (row C84). Keys arrive lower-cased ([`Request::config`]).
//!
//! | key of `ipam` beyond upstream's | default | meaning |
//! |---|---|---|
//! | `exclude` | - | addresses and networks that are never handed out, asked for or not |
//! | `reuseDelay` | `0s` | how long a freed address rests; who asks for it by name does not wait |
//! | `gcGrace` | `0s` | GC spares leases given less than this before it started; those given later it spares always |
//! | `statusIgnoresExhaustion` | false | STATUS succeeds while a pool is exhausted (else code 50) |
//! | `hostAddresses` | - | written by `causeway-bridge`: addresses of the node and of its routers, with words for them; a range that offers one is refused |
//! | `subnet: "auto"` | - | one pool for each of the node's subnets in `runDir`/node.json; for one network of a node at a time (code 7) |
//! | `runDir` | `/run/causeway` | records and facts of the node; also read beside `ipam` |

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use cni_plugin::{CniResult, Code, Error, Request, Route, Version};
use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde_json::Value;

use crate::range::{Family, Pool, Range, Span, canonical, number};

/// Where the stores are unless `dataDir` says otherwise.
pub(crate) const DATA_DIR: &str = "/var/lib/cni/causeway";
/// Where records and the node's facts are unless `runDir` says otherwise.
pub(crate) const RUN_DIR: &str = "/run/causeway";
/// What stands in `subnet` for the node's own subnets.
const AUTO: &str = "auto";

/// Where the state lies and how it is released: all that DEL, GC and CHECK need to know. Ranges
/// may be wrong or absent by then (rows C67, F34).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Network name.
    pub(crate) network: String,
    /// `dataDir`.
    pub(crate) data_dir: PathBuf,
    /// `runDir`: `node.json` and the attachment records.
    pub(crate) run_dir: PathBuf,
    /// `reuseDelay`.
    pub(crate) reuse_delay: Duration,
    /// `gcGrace`: GC keeps leases that were given less than this before it started.
    pub(crate) gc_grace: Duration,
    /// `statusIgnoresExhaustion`.
    pub(crate) status_ignores_exhaustion: bool,
}

/// All that ADD needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    /// One address is taken from each.
    pub(crate) pools: Vec<Pool>,
    /// Addresses asked for by name, in order, without repetition.
    pub(crate) requested: Vec<IpAddr>,
    /// Routes for the result.
    pub(crate) routes: Vec<Route>,
    /// `resolvConf`.
    pub(crate) resolv_conf: Option<PathBuf>,
    /// The node's subnets if a range says `auto`; else none.
    pub(crate) node_subnets: Vec<IpNetwork>,
}

/// The configuration as sent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Raw {
    ipam: Option<RawIpam>,
    rundir: String,
    runtimeconfig: RawRuntime,
    args: RawArgs,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RawIpam {
    #[serde(flatten)]
    range: RawRange,
    ranges: Vec<Option<Vec<Option<RawRange>>>>,
    routes: Option<Value>,
    datadir: String,
    rundir: String,
    resolvconf: String,
    exclude: Vec<Option<String>>,
    reusedelay: String,
    gcgrace: String,
    statusignoresexhaustion: bool,
    hostaddresses: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RawRange {
    subnet: String,
    rangestart: String,
    rangeend: String,
    gateway: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RawRuntime {
    ipranges: Vec<Option<Vec<Option<RawRange>>>>,
    ips: Vec<Option<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RawArgs {
    cni: RawCni,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RawCni {
    ips: Vec<Option<String>>,
}

/// What DEL reads: nothing but directories and durations, so that no other key can stop it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RawPlaces {
    ipam: Value,
    rundir: Value,
}

fn invalid(msg: impl Into<String>) -> Error {
    Error::new(Code::InvalidConfig, msg)
}

impl Place {
    /// The place that `request` names. Values that make no sense count as absent: a release must
    /// not fail for a key that it does not need. [`Checked::new`] refuses them for ADD.
    pub(crate) fn new(request: &Request) -> Self {
        let raw: RawPlaces = request.config().unwrap_or_default();
        let text = |key: &str| raw.ipam.get(key).and_then(Value::as_str).unwrap_or_default();
        let or =
            |text: &str, default: &str| PathBuf::from(if text.is_empty() { default } else { text });
        let run_dir = match text("rundir") {
            "" => raw.rundir.as_str().unwrap_or_default(),
            own => own,
        };
        Self {
            network: request.network.clone(),
            data_dir: or(text("datadir"), DATA_DIR),
            run_dir: or(run_dir, RUN_DIR),
            reuse_delay: duration(text("reusedelay")).unwrap_or_default(),
            gc_grace: duration(text("gcgrace")).unwrap_or_default(),
            status_ignores_exhaustion: raw
                .ipam
                .get("statusignoresexhaustion")
                .is_some_and(|value| value == &Value::Bool(true)),
        }
    }

    /// The file of the node's facts.
    pub(crate) fn node_file(&self) -> PathBuf {
        causeway_host::paths::node_file(&self.run_dir)
    }
}

impl Checked {
    /// Checks the configuration of `request`. `node` gives the node's subnets and is asked only
    /// if a range says `"subnet": "auto"`.
    ///
    /// # Errors
    /// Code 7 naming the field, code 6 for what does not decode, and what `node` returns.
    pub(crate) fn new(
        request: &Request,
        node: impl FnOnce() -> Result<Vec<IpNetwork>, Error>,
    ) -> Result<Self, Error> {
        let raw: Raw = request.config()?;
        let ipam = raw.ipam.ok_or_else(|| invalid("the configuration has no `ipam` object"))?;
        check_own_keys(&ipam)?;
        let excluded = exclusions(&ipam.exclude)?;
        let mut sets = raw_pools(raw.runtimeconfig.ipranges, "runtimeConfig.ipRanges")?;
        if !ipam.range.subnet.is_empty() {
            sets.push(vec![ipam.range]);
        }
        sets.extend(raw_pools(ipam.ranges, "ipam.ranges")?);
        let (sets, node_subnets) = resolve_auto(sets, node)?;
        let pools = check_pools(sets, &excluded)?;
        check_version(request.version, &pools)?;
        check_host(&pools, &ipam.hostaddresses)?;
        let requested = requested(request, &raw.args.cni.ips, &raw.runtimeconfig.ips)?;
        let resolv_conf = Some(ipam.resolvconf).filter(|p| !p.is_empty()).map(PathBuf::from);
        Ok(Self { pools, requested, routes: routes(ipam.routes)?, resolv_conf, node_subnets })
    }
}

/// What [`Place::new`] reads leniently.
fn check_own_keys(ipam: &RawIpam) -> Result<(), Error> {
    for (key, text) in [("reuseDelay", &ipam.reusedelay), ("gcGrace", &ipam.gcgrace)] {
        if duration(text).is_none() {
            return Err(invalid(format!(
                "ipam.{key} {text:?} is not a duration such as \"30s\", \"5m\" or \"1h30m\""
            )));
        }
    }
    for (key, text) in [("dataDir", &ipam.datadir), ("runDir", &ipam.rundir)] {
        if !text.is_empty() && !text.starts_with('/') {
            return Err(invalid(format!("ipam.{key} {text:?} is not an absolute path")));
        }
    }
    Ok(())
}

/// A duration as Go writes it, in units h, m, s and ms; empty is zero.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let value: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "h" => Duration::from_secs(3600),
            "m" => Duration::from_secs(60),
            "s" => Duration::from_secs(1),
            "ms" => Duration::from_millis(1),
            _ => return None,
        };
        rest = &rest[letters..];
        total = total.checked_add(unit.checked_mul(u32::try_from(value).ok()?)?)?;
    }
    Some(total)
}

fn exclusions(list: &[Option<String>]) -> Result<Vec<Span>, Error> {
    list.iter()
        .enumerate()
        .map(|(index, item)| {
            let field = format!("ipam.exclude[{index}]");
            let text = item.as_deref().ok_or_else(|| invalid(format!("{field} is null")))?;
            if let Ok(address) = text.trim().parse::<IpAddr>() {
                return Ok(Span::single(canonical(address)));
            }
            text.trim().parse::<IpNetwork>().map(Span::of).map_err(|_| {
                invalid(format!("{field} {text:?} is neither an address nor a network"))
            })
        })
        .collect()
}

type RawPools = Vec<Option<Vec<Option<RawRange>>>>;

fn raw_pools(list: RawPools, field: &str) -> Result<Vec<Vec<RawRange>>, Error> {
    list.into_iter()
        .enumerate()
        .map(|(i, pool)| {
            let pool = pool.ok_or_else(|| invalid(format!("{field}[{i}] is null")))?;
            pool.into_iter()
                .enumerate()
                .map(|(j, range)| {
                    range.ok_or_else(|| invalid(format!("{field}[{i}][{j}] is null")))
                })
                .collect()
        })
        .collect()
}

/// A pool whose only range says `auto` becomes one pool for each subnet of the node. Also gives
/// those subnets, or none if no range says so.
fn resolve_auto(
    sets: Vec<Vec<RawRange>>,
    node: impl FnOnce() -> Result<Vec<IpNetwork>, Error>,
) -> Result<(Vec<Vec<RawRange>>, Vec<IpNetwork>), Error> {
    let auto = |range: &RawRange| range.subnet.eq_ignore_ascii_case(AUTO);
    if !sets.iter().flatten().any(auto) {
        return Ok((sets, Vec::new()));
    }
    let subnets = node()?;
    let mut resolved = Vec::new();
    for set in sets {
        match set.as_slice() {
            [range] if auto(range) => {
                resolved.extend(subnets.iter().map(|subnet| vec![of_node(range, *subnet)]));
            }
            ranges if ranges.iter().any(auto) => {
                return Err(invalid(
                    "\"subnet\": \"auto\" must be the only range of its range set",
                ));
            }
            _ => resolved.push(set),
        }
    }
    Ok((resolved, subnets))
}

/// `range` in the node's `subnet`: the addresses it gives count if they are of that family.
fn of_node(range: &RawRange, subnet: IpNetwork) -> RawRange {
    let family = Family::of(subnet.ip());
    let keep = |text: &str| match text.parse::<IpAddr>() {
        Ok(address) if Family::of(canonical(address)) != family => String::new(),
        Ok(_) | Err(_) => text.to_owned(),
    };
    RawRange {
        subnet: subnet.to_string(),
        rangestart: keep(&range.rangestart),
        rangeend: keep(&range.rangeend),
        gateway: keep(&range.gateway),
    }
}

fn check_pools(sets: Vec<Vec<RawRange>>, excluded: &[Span]) -> Result<Vec<Pool>, Error> {
    if sets.is_empty() {
        return Err(invalid("no IP ranges specified: set ipam.ranges or ipam.subnet"));
    }
    let mut pools: Vec<Pool> = Vec::new();
    for (index, set) in sets.iter().enumerate() {
        let place = |error: Error| Error {
            msg: format!("invalid range set {index}: {}", error.msg),
            ..error
        };
        let ranges = check_set(set).map_err(place)?;
        let shares = |pool: &Pool| {
            pool.ranges.iter().any(|a| ranges.iter().any(|b| a.span.overlaps(&b.span)))
        };
        if let Some(other) = pools.iter().position(shares) {
            return Err(invalid(format!("range set {other} overlaps with {index}")));
        }
        pools.push(Pool::new(ranges, excluded));
    }
    Ok(pools)
}

fn check_set(set: &[RawRange]) -> Result<Vec<Range>, Error> {
    if set.is_empty() {
        return Err(invalid("empty range set"));
    }
    let mut ranges: Vec<Range> = Vec::new();
    for raw in set {
        let range = check_range(raw)?;
        for other in &ranges {
            if other.span.family != range.span.family {
                return Err(invalid("mixed address families"));
            }
            if other.span.overlaps(&range.span) {
                return Err(invalid(format!("ranges {other} and {range} overlap")));
            }
        }
        ranges.push(range);
    }
    Ok(ranges)
}

fn check_range(raw: &RawRange) -> Result<Range, Error> {
    let text = raw.subnet.trim();
    if text.is_empty() {
        return Err(invalid("a range has no `subnet`"));
    }
    // A bare address parses as a single host.
    let subnet =
        text.parse::<IpNetwork>().ok().filter(|_| text.contains('/')).ok_or_else(|| {
            invalid(format!("subnet {text:?} is not a network such as 10.0.0.0/16"))
        })?;
    if canonical(subnet.ip()) != subnet.ip() {
        return Err(invalid(format!(
            "subnet {subnet} is an IPv4-mapped network; write it as IPv4"
        )));
    }
    let bits = if subnet.is_ipv4() { 32 } else { 128 };
    if subnet.prefix() > bits - 2 {
        return Err(invalid(format!("network {subnet} too small to allocate from")));
    }
    if subnet.ip() != subnet.network() {
        return Err(invalid(format!(
            "subnet {subnet} has host bits set; its network address is {}",
            subnet.network()
        )));
    }
    let whole = Span::of(subnet);
    let broadcast = u128::from(subnet.is_ipv4());
    let first = bound(&raw.rangestart, "rangeStart", subnet)?.unwrap_or(whole.first + 1);
    let last = bound(&raw.rangeend, "rangeEnd", subnet)?.unwrap_or(whole.last - broadcast);
    if first > last {
        return Err(invalid(format!(
            "rangeStart {} is above rangeEnd {}",
            whole.family.address(first),
            whole.family.address(last)
        )));
    }
    let gateway = match raw.gateway.trim() {
        "" => whole.family.address(whole.first + 1),
        text => address(text, "gateway")?,
    };
    if Family::of(gateway) != whole.family {
        return Err(invalid(format!(
            "gateway {gateway} does not match the IP family of subnet {subnet}"
        )));
    }
    Ok(Range { subnet, span: Span { first, last, ..whole }, gateway })
}

fn bound(text: &str, field: &str, subnet: IpNetwork) -> Result<Option<u128>, Error> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let address = address(text, field)?;
    if !Span::of(subnet).contains(address) {
        return Err(invalid(format!("{field} {address} not in network {subnet}")));
    }
    Ok(Some(number(address)))
}

fn address(text: &str, field: &str) -> Result<IpAddr, Error> {
    let parsed = text.trim().parse::<IpAddr>().map(canonical);
    parsed.map_err(|_| invalid(format!("{field} {text:?} is not an IP address")))
}

/// The addresses of this node and of its routers, which the main plugin tells, are no container's.
fn check_host(pools: &[Pool], host: &BTreeMap<String, String>) -> Result<(), Error> {
    for (address, what) in host {
        let Ok(address) = address.parse::<IpAddr>() else { continue };
        if let Some(pool) = pools.iter().find(|pool| pool.offers(address)) {
            return Err(invalid(format!(
                "ipam.ranges: {pool} contains {address}, {what}: a container could get it; choose \
                 a range without it, or add it to ipam.exclude"
            )));
        }
    }
    Ok(())
}

/// Before 0.3.0 a result holds one address per IP family (row C39).
fn check_version(version: Version, pools: &[Pool]) -> Result<(), Error> {
    let count = |family| pools.iter().filter(|pool| pool.family() == family).count();
    if version < Version::V0_3_0 && (count(Family::V4) > 1 || count(Family::V6) > 1) {
        return Err(invalid(format!(
            "CNI version {version} does not support more than 1 address per family"
        )));
    }
    Ok(())
}

/// `CNI_ARGS` `IP`, `args.cni.ips` and `runtimeConfig.ips` add up (row C25).
fn requested(
    request: &Request,
    args: &[Option<String>],
    runtime: &[Option<String>],
) -> Result<Vec<IpAddr>, Error> {
    let mut addresses = Vec::new();
    if let Some(text) = request.args.pairs.get("IP").filter(|text| !text.is_empty()) {
        let address = named(text).ok_or_else(|| {
            Error::new(Code::InvalidEnvironment, "CNI_ARGS IP is not an IP address")
                .details(text.clone())
        })?;
        addresses.push(address);
    }
    for (field, list) in [("args.cni.ips", args), ("runtimeConfig.ips", runtime)] {
        for (index, item) in list.iter().enumerate() {
            let text = item.as_deref().unwrap_or("null");
            let address = named(text).ok_or_else(|| {
                invalid(format!("{field}[{index}] {text:?} is not an IP address"))
            })?;
            addresses.push(address);
        }
    }
    let mut unique = Vec::new();
    for address in addresses {
        if !unique.contains(&address) {
            unique.push(address);
        }
    }
    Ok(unique)
}

/// `ip` or `ip/len`; the length counts for nothing, as the subnet of the range gives it.
fn named(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let address = match text.split_once('/') {
        Some((address, prefix)) => {
            let prefix: u8 = prefix.parse().ok()?;
            IpNetwork::new(address.parse().ok()?, prefix).ok()?.ip()
        }
        None => text.parse().ok()?,
    };
    Some(canonical(address))
}

/// The routes of a configuration read like those of a result.
fn routes(routes: Option<Value>) -> Result<Vec<Route>, Error> {
    let Some(routes) = routes else { return Ok(Vec::new()) };
    if let Some(index) = routes.as_array().and_then(|list| list.iter().position(Value::is_null)) {
        return Err(invalid(format!("ipam.routes[{index}] is null")));
    }
    let shell = serde_json::json!({ "cniVersion": Version::V1_1_0.as_str(), "routes": routes });
    match CniResult::from_json(&shell, Version::V1_1_0) {
        Ok(result) => Ok(result.routes),
        Err(error) => {
            Err(invalid("ipam.routes is not a list of routes").details(error.to_string()))
        }
    }
}

#[cfg(test)]
mod tests;
