use super::*;
use crate::config::Gateway;

fn net(text: &str) -> IpNetwork {
    text.parse().expect("a network")
}

fn ip(address: &str, gateway: Option<&str>) -> Ip {
    let gateway = gateway.map(|gateway| gateway.parse().expect("an address"));
    Ip { interface: None, address: net(address), gateway }
}

#[expect(clippy::unnecessary_wraps, reason = "stands for a request to the kernel")]
fn unrouted(_: IpAddr) -> Result<bool, Error> {
    Ok(false)
}

const GATEWAY: Gateway = Gateway { enabled: true, default_route: true, force_address: false };

fn of(ips: Vec<Ip>) -> Result<Addressing, Error> {
    addressing(GATEWAY, CniResult { ips, ..CniResult::default() }, unrouted)
}

#[test]
fn everything_but_the_gateway_leads_through_the_gateway() {
    let plan = of(vec![ip("10.0.1.2/24", Some("10.0.1.254")), ip("fd00:1::2/64", None)]);
    let plan = plan.expect("valid");
    assert_eq!(plan.addresses(), [net("10.0.1.2/32"), net("fd00:1::2/128")]);
    assert_eq!(plan.leased, [net("10.0.1.2/24"), net("fd00:1::2/64")]);
    assert_eq!(plan.gateways, [net("10.0.1.254/32"), net("fd00:1::1/128")]);
    let routes = container_routes(&plan, 7);
    let text = |route: &RouteSpec| {
        let via = route.gw.map_or("link".to_owned(), |gw| gw.to_string());
        format!("{} {via} {}", route.dst, route.onlink)
    };
    let texts: Vec<String> = routes.iter().map(text).collect();
    assert_eq!(
        texts,
        [
            "10.0.1.254/32 link false",
            "fd00:1::1/128 link false",
            "10.0.1.0/24 10.0.1.254 true",
            "fd00:1::/64 fd00:1::1 true",
            "0.0.0.0/0 10.0.1.254 true",
            "::/0 fd00:1::1 true",
        ]
    );
    let host: Vec<IpNetwork> =
        host_routes(&plan.addresses(), 9).into_iter().map(|route| route.dst).collect();
    assert_eq!(host, plan.addresses());
}

#[test]
fn addresses_of_one_subnet_share_gateway_and_route() {
    let plan = of(vec![ip("10.0.1.2/24", None), ip("10.0.1.3/24", None)]).expect("valid");
    assert_eq!(plan.gateways, [net("10.0.1.1/32")]);
    let routes = container_routes(&plan, 7);
    assert_eq!(routes.len(), 3, "gateway, subnet, default: {routes:?}");
}

#[test]
fn a_gateway_is_needed_and_is_another_address() {
    for alone in ["10.0.1.2/32", "10.0.1.2/31", "fd00::2/128"] {
        let error = of(vec![ip(alone, None)]).expect_err(alone);
        assert!(error.msg.contains(alone) && error.msg.contains("gateway"), "{error}");
        assert_eq!(error.code, Code::InvalidConfig);
    }
    let error = of(vec![ip("10.0.1.1/24", None)]).expect_err("its own gateway");
    assert!(error.msg.contains("10.0.1.1/24"), "{error}");
    let plan = of(vec![ip("10.0.1.2/32", Some("169.254.1.1"))]).expect("valid");
    assert_eq!(container_routes(&plan, 7).len(), 2, "no route to a subnet of one address");
}
