//! Configurations as runtimes send them.

use cni_plugin::Environment;
use serde_json::json;

use super::*;
use crate::plugin::ABOUT;

fn request(config: &Value, args: &str) -> Request {
    let env: Environment = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", "/run/netns/none"),
        ("CNI_PATH", "/opt/cni/bin"),
        ("CNI_ARGS", args),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    Request::parse(&ABOUT, env, || Ok(config.to_string().into_bytes())).unwrap()
}

fn with_ipam(ipam: Value) -> Value {
    json!({ "cniVersion": "1.1.0", "name": "net", "type": "ptp", "ipam": ipam })
}

fn check(config: &Value) -> Result<Checked, Error> {
    Checked::new(&request(config, ""), || Ok(vec!["10.7.0.0/24".parse().unwrap()]))
}

fn shown(checked: &Checked) -> Vec<String> {
    checked.pools.iter().map(ToString::to_string).collect()
}

#[test]
fn ranges_come_from_all_places_in_upstreams_order() {
    let config = json!({ "cniVersion": "1.1.0", "name": "net", "type": "bridge",
        "runtimeConfig": { "ipRanges": [[{ "subnet": "10.3.0.0/24" }]] },
        "ipam": { "type": "causeway-ipam", "subnet": "10.1.0.0/24", "rangeEnd": "10.1.0.9",
            "ranges": [[{ "subnet": "10.2.0.0/24", "rangeStart": "10.2.0.5" },
                        { "subnet": "10.4.0.0/24", "gateway": "10.9.9.9" }],
                       [{ "subnet": "fd00::/64" }]] } });
    let checked = check(&config).unwrap();
    assert_eq!(
        shown(&checked),
        [
            "10.3.0.1-10.3.0.254",
            "10.1.0.1-10.1.0.9",
            "10.2.0.5-10.2.0.254,10.4.0.1-10.4.0.254",
            "fd00::1-fd00::ffff:ffff:ffff:ffff",
        ]
    );
    let gateways: Vec<_> =
        checked.pools.iter().flat_map(|p| &p.ranges).map(|r| r.gateway.to_string()).collect();
    assert_eq!(gateways, ["10.3.0.1", "10.1.0.1", "10.2.0.1", "10.9.9.9", "fd00::1"]);
}

/// go-cni sends its own case; nerdctl adds keys that nobody reads.
#[test]
fn keys_match_without_regard_to_case() {
    let config = json!({ "cniVersion": "1.0.0", "name": "net",
        "RuntimeConfig": { "IPRanges": [[{ "Subnet": "10.3.0.0/24", "RangeStart": "10.3.0.7" }]],
                           "ips": null },
        "args": { "cni": {} },
        "ipam": { "type": "causeway-ipam", "ipRange": "x", "DATADIR": "/d", "resolvConf": "",
                  "ranges": [], "routes": [], "exclude": null, "subnet": "" } });
    assert_eq!(shown(&check(&config).unwrap()), ["10.3.0.7-10.3.0.254"]);
    let place = Place::new(&request(&config, ""));
    assert_eq!(place.data_dir, PathBuf::from("/d"));
}

/// Ranges that are refused alone, each with what the refusal names.
fn wrong_ranges() -> Vec<(Value, &'static str)> {
    let range = |range: Value| json!({ "ranges": [[range]] });
    vec![
        (range(json!({})), "a range has no `subnet`"),
        (range(json!({ "subnet": "10.0.0.0" })), "subnet \"10.0.0.0\" is not a network"),
        (range(json!({ "subnet": "x/8" })), "subnet \"x/8\" is not a network"),
        (range(json!({ "subnet": "10.0.0.1/24" })), "its network address is 10.0.0.0"),
        (range(json!({ "subnet": "10.0.0.0/31" })), "10.0.0.0/31 too small to allocate from"),
        (range(json!({ "subnet": "fd00::/127" })), "fd00::/127 too small to allocate from"),
        (range(json!({ "subnet": "::ffff:10.0.0.0/120" })), "write it as IPv4"),
        (
            range(json!({ "subnet": "10.0.0.0/24", "rangeStart": "10.0.1.1" })),
            "rangeStart 10.0.1.1 not in network 10.0.0.0/24",
        ),
        (
            range(json!({ "subnet": "10.0.0.0/24", "rangeEnd": "fd00::1" })),
            "rangeEnd fd00::1 not in network 10.0.0.0/24",
        ),
        (
            range(
                json!({ "subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9", "rangeEnd": "10.0.0.8" }),
            ),
            "rangeStart 10.0.0.9 is above rangeEnd 10.0.0.8",
        ),
        (
            range(json!({ "subnet": "10.0.0.0/24", "gateway": "one" })),
            "gateway \"one\" is not an IP address",
        ),
        (
            range(json!({ "subnet": "10.0.0.0/24", "gateway": "fd00::1" })),
            "does not match the IP family of subnet 10.0.0.0/24",
        ),
    ]
}

/// Other configurations that are refused, likewise.
fn wrong_configurations() -> Vec<(Value, &'static str)> {
    vec![
        (json!({}), "no IP ranges specified"),
        (json!({ "ranges": [[]] }), "invalid range set 0: empty range set"),
        (json!({ "ranges": [null] }), "ipam.ranges[0] is null"),
        (json!({ "ranges": [[null]] }), "ipam.ranges[0][0] is null"),
        (
            json!({ "ranges": [[{ "subnet": "10.0.0.0/24" }, { "subnet": "fd00::/64" }]] }),
            "mixed address families",
        ),
        (
            json!({ "ranges": [[{ "subnet": "10.0.0.0/24" }, { "subnet": "10.0.0.0/25" }]] }),
            "ranges 10.0.0.1-10.0.0.254 and 10.0.0.1-10.0.0.126 overlap",
        ),
        (
            json!({ "ranges": [[{ "subnet": "10.0.0.0/24" }], [{ "subnet": "10.0.0.0/8" }]] }),
            "range set 0 overlaps with 1",
        ),
        (
            json!({ "subnet": "10.0.0.0/24", "exclude": ["10.0.0.300"] }),
            "ipam.exclude[0] \"10.0.0.300\" is neither",
        ),
        (json!({ "subnet": "10.0.0.0/24", "exclude": [null] }), "ipam.exclude[0] is null"),
        (json!({ "subnet": "10.0.0.0/24", "reuseDelay": "5" }), "ipam.reuseDelay \"5\""),
        (json!({ "subnet": "10.0.0.0/24", "gcGrace": "soon" }), "ipam.gcGrace \"soon\""),
        (json!({ "subnet": "10.0.0.0/24", "dataDir": "x" }), "ipam.dataDir \"x\""),
        (json!({ "subnet": "10.0.0.0/24", "routes": [null] }), "ipam.routes[0] is null"),
        (json!({ "subnet": "10.0.0.0/24", "routes": [{ "dst": "x" }] }), "ipam.routes is not"),
        (
            json!({ "ranges": [[{ "subnet": "auto" }, { "subnet": "10.0.0.0/24" }]] }),
            "\"subnet\": \"auto\" must be the only range",
        ),
    ]
}

#[test]
fn wrong_configurations_are_refused_by_field_and_value() {
    for (ipam, expected) in [wrong_ranges(), wrong_configurations()].concat() {
        let error = check(&with_ipam(ipam.clone())).expect_err(&ipam.to_string());
        assert_eq!(error.code, Code::InvalidConfig, "{ipam}: {error}");
        assert!(error.msg.contains(expected), "{ipam}: {error}");
    }
    let error = check(&json!({ "name": "net" })).unwrap_err();
    assert_eq!(error.msg, "the configuration has no `ipam` object");
}

/// Rows: C39
#[test]
fn old_versions_have_one_address_of_a_family() {
    let pools = json!([[{ "subnet": "10.0.0.0/24" }], [{ "subnet": "fd00::/64" }],
        [{ "subnet": "10.1.0.0/24" }]]);
    for (version, pools, fine) in [
        ("0.1.0", json!([pools[0]]), true),
        ("0.2.0", json!([pools[0], pools[1]]), true),
        ("0.2.0", pools.clone(), false),
        ("", pools.clone(), false),
        ("0.3.0", pools.clone(), true),
        ("1.1.0", pools.clone(), true),
    ] {
        let config = json!({ "cniVersion": version, "name": "net", "ipam": { "ranges": pools } });
        let found = check(&config);
        assert_eq!(found.is_ok(), fine, "{config}: {found:?}");
        if let Err(error) = found {
            assert_eq!(error.code, Code::InvalidConfig);
            assert!(error.msg.contains("does not support more than 1 address per family"));
        }
    }
}

#[test]
fn requested_addresses_add_up() {
    let config = json!({ "cniVersion": "1.1.0", "name": "net",
        "args": { "cni": { "ips": ["10.0.0.6/8", "::ffff:10.0.0.5"] } },
        "runtimeConfig": { "ips": ["10.0.0.7", "10.0.0.6"] },
        "ipam": { "subnet": "10.0.0.0/24" } });
    let request = request(&config, "IP=10.0.0.5/24;MAC=02:00:00:00:00:01");
    let checked = Checked::new(&request, || unreachable!("nothing says auto")).unwrap();
    let shown: Vec<_> = checked.requested.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.0.0.5", "10.0.0.6", "10.0.0.7"]);
}

#[test]
fn requested_addresses_that_are_none_are_refused() {
    let ipam = json!({ "subnet": "10.0.0.0/24" });
    let bad = request(&with_ipam(ipam.clone()), "IP=ten");
    let error = Checked::new(&bad, || Ok(vec![])).unwrap_err();
    assert_eq!((error.code, error.details.as_str()), (Code::InvalidEnvironment, "ten"));
    for item in [json!(null), json!("10.0.0.1/33"), json!("")] {
        let config = json!({ "name": "net", "runtimeConfig": { "ips": [item] }, "ipam": ipam });
        let error = check(&config).unwrap_err();
        assert_eq!(error.code, Code::InvalidConfig);
        assert!(error.msg.starts_with("runtimeConfig.ips[0]"), "{error}");
    }
}

/// Rows: C23, C24
#[test]
fn arguments_of_containerd_and_nerdctl_pass() {
    let ipam = with_ipam(json!({ "subnet": "10.0.0.0/24" }));
    for args in [
        "K8S_POD_UID=u;K8S_POD_NAME=p;IgnoreUnknown=1;K8S_POD_NAMESPACE=n;FURTHER=x",
        "K8S_POD_INFRA_CONTAINER_ID=i;K8S_POD_UID=u;K8S_POD_NAME=p;K8S_POD_NAMESPACE=n",
        "NERDCTL_CNI_DHCP_HOSTNAME=h;MAC=02:00:00:00:00:01",
        "MAC=02:00:00:00:00:01",
    ] {
        assert!(Checked::new(&request(&ipam, args), || Ok(vec![])).is_ok(), "{args}");
    }
}

#[test]
fn auto_stands_for_the_subnets_of_the_node() {
    let subnets = || Ok(vec!["10.7.0.0/24".parse().unwrap(), "fd07::/64".parse().unwrap()]);
    let config = with_ipam(json!({ "ranges": [
        [{ "subnet": "auto", "rangeStart": "10.7.0.100", "gateway": "fd07::9" }],
        [{ "subnet": "10.8.0.0/24" }]] }));
    let checked = Checked::new(&request(&config, ""), subnets).unwrap();
    assert_eq!(
        shown(&checked),
        ["10.7.0.100-10.7.0.254", "fd07::1-fd07::ffff:ffff:ffff:ffff", "10.8.0.1-10.8.0.254"]
    );
    assert_eq!(checked.pools[1].ranges[0].gateway.to_string(), "fd07::9");
    let legacy = with_ipam(json!({ "subnet": "Auto" }));
    assert_eq!(shown(&check(&legacy).unwrap()), ["10.7.0.1-10.7.0.254"]);
}

#[test]
fn exclusions_are_not_offered() {
    let checked = check(&with_ipam(json!({ "subnet": "10.0.0.0/29",
        "exclude": ["10.0.0.3", "10.0.0.4/31", "fd00::/64"] })))
    .unwrap();
    let offered: Vec<_> =
        checked.pools[0].free.iter().flat_map(|(_, s)| s.first..=s.last).map(|n| n & 7).collect();
    assert_eq!(offered, [2, 6]);
}

#[test]
fn durations_read_like_go_writes_them() {
    for (text, seconds) in
        [("", 0.0), ("30s", 30.0), ("5m", 300.0), ("1h1m1s", 3661.0), ("250ms", 0.25)]
    {
        assert_eq!(duration(text), Some(Duration::from_secs_f64(seconds)), "{text}");
    }
    for text in ["5", "s", "-5s", "5d", "5 s", "1.5h", "99999999999999999999s", "5000000000h"] {
        assert_eq!(duration(text), None, "{text}");
    }
}

/// DEL must not fail for a key that it does not need.
///
/// Rows: C67, F34
#[test]
fn a_place_is_found_whatever_the_rest_says() {
    let place = |config: Value| Place::new(&request(&config, ""));
    let found = place(json!({ "name": "net", "runDir": "/r", "ipam": {
        "DataDir": "/d", "ranges": "nonsense", "routes": 7, "reuseDelay": "1m" } }));
    assert_eq!((found.data_dir, found.run_dir), ("/d".into(), "/r".into()));
    assert_eq!(found.reuse_delay, Duration::from_secs(60));
    let found = place(json!({ "name": "net", "ipam": { "reuseDelay": "?", "runDir": "/own" } }));
    assert_eq!((found.data_dir, found.run_dir), (DATA_DIR.into(), "/own".into()));
    assert_eq!(place(json!({ "name": "net", "ipam": 7 })).data_dir, PathBuf::from(DATA_DIR));
    assert_eq!(place(json!({ "name": "net" })).run_dir, PathBuf::from(RUN_DIR));
}

#[test]
fn routes_pass_with_all_their_fields() {
    let checked = check(&with_ipam(json!({ "subnet": "10.0.0.0/24", "routes": [
        { "dst": "0.0.0.0/0" },
        { "dst": "10.0.0.0/8", "gw": "10.0.0.9", "mtu": 1400, "advmss": 1360, "priority": 10,
          "table": 0, "scope": 253 }] })))
    .unwrap();
    let route = &checked.routes[1];
    assert_eq!(checked.routes[0].gw, None);
    assert_eq!((route.mtu, route.advmss, route.priority), (Some(1400), Some(1360), Some(10)));
    assert_eq!((route.table, route.scope), (Some(0), Some(253)));
}
