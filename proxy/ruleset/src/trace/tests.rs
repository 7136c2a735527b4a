//! The semantics of services, row by row, as what becomes of packets.

use ipnetwork::IpNetwork;

use super::*;
use crate::plan::{Hides, HostPort, NodePortAddresses, PlanContext};
use crate::testing::{facts, flows, packet, plan, services};

/// Rows: P11, P12, P13, P14, P15, P16, P17, P20
#[test]
fn a_cluster_address_leads_to_usable_endpoints_and_refuses_all_else() {
    let plan = plan(
        "web  172.30.0.41 80/tcp -> 10.0.1.2:8080@n1 10.0.2.2:8080@n2
         none 172.30.0.42 80/tcp -> 10.0.1.2:8080@n1!unready 10.0.1.3:8080@n1!dead
         host 172.30.0.43 80/tcp -> 192.168.0.1:8080@n1 10.0.1.4:80@n1
         free 172.30.0.44 80/tcp -> 10.0.1.9:80",
    );
    flows(
        &plan,
        "10.0.9.9    -> 172.30.0.41:80/tcp => 10.0.1.2:8080 10.0.2.2:8080
         10.0.1.2    -> 172.30.0.41:80/tcp => 10.0.1.2:8080 masq 10.0.2.2:8080
         10.0.2.2    -> 172.30.0.41:80/tcp => 10.0.1.2:8080 10.0.2.2:8080
         10.0.1.9    -> 172.30.0.44:80/tcp => 10.0.1.9:80 masq
         10.0.1.1    -> 172.30.0.44:80/tcp => 10.0.1.9:80 masq
         node        -> 172.30.0.43:80/tcp => 10.0.1.4:80 masq 192.168.0.1:8080 masq
         10.0.9.9    -> 172.30.0.41:81/tcp => reject
         10.0.9.9    -> 172.30.0.41:80/udp => reject
         10.0.9.9    -> 172.30.0.42:80/tcp => reject
         node        -> 172.30.0.42:80/tcp => reject
         203.0.113.9 -> 172.30.0.42:80/tcp => reject
         10.0.9.9    -> 172.30.0.99:80/tcp => drop
         10.0.9.9    -> 10.0.1.2:8080/tcp  => pass",
    );
}

/// Rows: P3, P4, P5
#[test]
fn ports_protocols_and_families_are_apart_and_endpoints_have_their_own_ports() {
    let plan = plan(
        "web 172.30.0.41,fd00:30::41 53/tcp=a -> 10.0.1.2:1053 10.0.1.3:2053, \
         53/udp=b -> 10.0.1.2:53 [fd00:10:0:1::2]:53, 54/sctp=c -> 10.0.1.2:54
         six fd00:30::42 80/tcp -> 10.0.1.2:80 [fd00:10:0:1::2]:80",
    );
    flows(
        &plan,
        "10.0.9.9      -> 172.30.0.41:53/tcp   => 10.0.1.2:1053 10.0.1.3:2053
         10.0.9.9      -> 172.30.0.41:53/udp   => 10.0.1.2:53
         10.0.9.9      -> 172.30.0.41:54/sctp  => 10.0.1.2:54
         10.0.9.9      -> 172.30.0.41:53/sctp  => reject
         fd00:10:0:9:: -> [fd00:30::41]:53/tcp => reject
         fd00:10:0:9:: -> [fd00:30::41]:53/udp => [fd00:10:0:1::2]:53
         fd00:10:0:9:: -> [fd00:30::42]:80/tcp => [fd00:10:0:1::2]:80",
    );
}

/// Rows: P18, P19, P61
#[test]
fn who_comes_from_outside_is_masqueraded_where_that_is_known() {
    let text = "web 172.30.0.41,fd00:30::41 80/tcp -> 10.0.1.2:80@n1 [fd00:10:0:1::2]:80@n1";
    let services = services(text);
    let detected = Plan::fresh(facts(), &services);
    flows(
        &detected,
        "203.0.113.9   -> 172.30.0.41:80/tcp   => 10.0.1.2:80 masq
         10.0.9.9      -> 172.30.0.41:80/tcp   => 10.0.1.2:80
         2001:db8::9   -> [fd00:30::41]:80/tcp => [fd00:10:0:1::2]:80 masq
         fd00:10:0:9:: -> [fd00:30::41]:80/tcp => [fd00:10:0:1::2]:80",
    );
    let mut unknown = facts();
    unknown.cluster_cidrs.truncate(1);
    flows(
        &Plan::fresh(unknown, &services),
        "203.0.113.9     -> 172.30.0.41:80/tcp   => 10.0.1.2:80 masq
         2001:db8::9     -> [fd00:30::41]:80/tcp => [fd00:10:0:1::2]:80
         node            -> [fd00:30::41]:80/tcp => [fd00:10:0:1::2]:80
         fd00:10:0:1::2  -> [fd00:30::41]:80/tcp => [fd00:10:0:1::2]:80 masq",
    );
    let all = PlanContext { masquerade_all: true, ..facts() };
    flows(&Plan::fresh(all, &services), "10.0.9.9 -> 172.30.0.41:80/tcp => 10.0.1.2:80 masq");
}

const POLICIES: &str = "
    all   172.30.0.1 ext=203.0.113.1 80/tcp:30001 -> 10.0.1.2:80@n1 10.0.2.2:80@n2
    local 172.30.0.2 ext=203.0.113.2 external=local 80/tcp:30002 -> 10.0.1.2:80@n1 10.0.2.2:80@n2
    far   172.30.0.3 ext=203.0.113.3 external=local 80/tcp:30003 -> 10.0.2.2:80@n2
    none  172.30.0.4 ext=203.0.113.4 external=local 80/tcp:30004 -> 10.0.2.2:80@n2!unready
    in    172.30.0.5 ext=203.0.113.5 internal=local 80/tcp:30005 -> 10.0.1.2:80@n1 10.0.2.2:80@n2
    infar 172.30.0.6 ext=203.0.113.6 internal=local 80/tcp:30006 -> 10.0.2.2:80@n2
    inno  172.30.0.7 internal=local 80/tcp -> 10.0.2.2:80@n2!dead
    both  172.30.0.8 ext=203.0.113.8 internal=local external=local affinity=60 80/tcp:30008 \
        -> 10.0.1.2:80@n1 10.0.2.2:80@n2";

/// Rows: P32, P33, P34, P35, P36, P37, P38, P54
#[test]
fn the_external_policy_tells_endpoints_here_from_those_elsewhere() {
    let plan = plan(POLICIES);
    flows(
        &plan,
        "203.0.113.99 -> 203.0.113.1:80/tcp => 10.0.1.2:80 masq 10.0.2.2:80 masq
         10.0.9.9     -> 203.0.113.1:80/tcp => 10.0.1.2:80 masq 10.0.2.2:80 masq
         203.0.113.99 -> 203.0.113.2:80/tcp => 10.0.1.2:80
         10.0.9.9     -> 203.0.113.2:80/tcp => 10.0.1.2:80 10.0.2.2:80
         10.0.1.2     -> 203.0.113.2:80/tcp => 10.0.1.2:80 masq 10.0.2.2:80
         node         -> 203.0.113.2:80/tcp => 10.0.1.2:80 masq 10.0.2.2:80 masq
         203.0.113.99 -> 203.0.113.3:80/tcp => drop
         10.0.9.9     -> 203.0.113.3:80/tcp => 10.0.2.2:80
         node         -> 203.0.113.3:80/tcp => 10.0.2.2:80 masq
         203.0.113.99 -> 203.0.113.4:80/tcp => reject
         10.0.9.9     -> 203.0.113.4:80/tcp => reject
         203.0.113.99 -> 203.0.113.1:81/tcp => pass",
    );
}

/// Rows: P42, P33, P34, P36, P37, P49
#[test]
fn node_ports_follow_the_external_policy() {
    let plan = plan(POLICIES);
    flows(
        &plan,
        "203.0.113.99 -> 192.168.0.1:30001/tcp => 10.0.1.2:80 masq 10.0.2.2:80 masq
         203.0.113.99 -> 192.168.0.1:30002/tcp => 10.0.1.2:80
         10.0.9.9     -> 192.168.0.1:30002/tcp => 10.0.1.2:80 10.0.2.2:80
         node         -> 192.168.0.1:30002/tcp => 10.0.1.2:80 masq 10.0.2.2:80 masq
         node         -> 127.0.0.1:30002/tcp   => 10.0.1.2:80 masq 10.0.2.2:80 masq
         203.0.113.99 -> 192.168.0.1:30003/tcp => drop
         203.0.113.99 -> 192.168.0.1:30004/tcp => reject
         203.0.113.99 -> 192.168.0.9:30001/tcp => pass
         203.0.113.99 -> 192.168.0.1:30001/udp => pass",
    );
}

/// Rows: P30, P39, P40
#[test]
fn the_internal_policy_is_apart_from_the_external_one() {
    let plan = plan(POLICIES);
    flows(
        &plan,
        "10.0.9.9     -> 172.30.0.2:80/tcp     => 10.0.1.2:80 10.0.2.2:80
         10.0.9.9     -> 172.30.0.5:80/tcp     => 10.0.1.2:80
         203.0.113.99 -> 203.0.113.5:80/tcp    => 10.0.1.2:80 masq 10.0.2.2:80 masq
         10.0.9.9     -> 172.30.0.6:80/tcp     => drop
         node         -> 172.30.0.6:80/tcp     => drop
         203.0.113.99 -> 203.0.113.6:80/tcp    => 10.0.2.2:80 masq
         10.0.9.9     -> 172.30.0.7:80/tcp     => reject
         10.0.9.9     -> 172.30.0.8:80/tcp     => 10.0.1.2:80
         203.0.113.99 -> 203.0.113.8:80/tcp    => 10.0.1.2:80
         203.0.113.99 -> 192.168.0.1:30008/tcp => 10.0.1.2:80",
    );
}

fn with_node_ports(nets: &[&str]) -> Plan {
    let nets = nets.iter().map(|net| net.parse().unwrap()).collect::<Vec<IpNetwork>>();
    let node_port_addresses = NodePortAddresses::In(nets);
    let text = "web  172.30.0.1,fd00:30::1 80/tcp:30001 -> 10.0.1.2:80@n1 [fd00:10:0:1::2]:80@n1
                none 172.30.0.2 80/tcp:30002 -> 10.0.1.2:80!dead";
    Plan::fresh(PlanContext { node_port_addresses, ..facts() }, &services(text))
}

/// Rows: P43, P44, P45, P48, P49
#[test]
fn node_ports_answer_at_the_chosen_addresses_only() {
    flows(
        &with_node_ports(&["192.168.0.1/32", "fd00:192::1/128"]),
        "203.0.113.9 -> 192.168.0.1:30001/tcp      => 10.0.1.2:80 masq
         203.0.113.9 -> 192.168.0.1:30002/tcp      => reject
         203.0.113.9 -> 10.0.1.1:30001/tcp         => pass
         203.0.113.9 -> 10.0.1.1:30002/tcp         => pass
         node        -> 127.0.0.1:30001/tcp        => pass
         2001:db8::9 -> [fd00:192::1]:30001/tcp    => [fd00:10:0:1::2]:80 masq
         2001:db8::9 -> [fd00:10:0:1::1]:30001/tcp => pass",
    );
    flows(
        &with_node_ports(&["0.0.0.0/0", "192.168.9.0/24", "fd00:10::/32"]),
        "203.0.113.9 -> 10.0.1.1:30001/tcp         => 10.0.1.2:80 masq
         node        -> 127.0.0.1:30001/tcp        => pass
         2001:db8::9 -> [fd00:192::1]:30001/tcp    => pass
         2001:db8::9 -> [fd00:10:0:1::1]:30001/tcp => [fd00:10:0:1::2]:80 masq",
    );
    flows(
        &with_node_ports(&["10.0.0.0/8"]),
        "203.0.113.9 -> 192.168.0.1:30001/tcp      => pass
         203.0.113.9 -> 10.0.1.1:30001/tcp         => 10.0.1.2:80 masq
         2001:db8::9 -> [fd00:192::1]:30001/tcp    => [fd00:10:0:1::2]:80 masq
         node        -> [::1]:30001/tcp            => pass",
    );
}

/// Rows: P45, P46
#[test]
fn by_default_node_ports_answer_everywhere_but_at_ipv6_localhost() {
    let text = "web 172.30.0.1,fd00:30::1 80/tcp:30001 -> 10.0.1.2:80@n1 [fd00:10:0:1::2]:80@n1";
    let plan = plan(text);
    flows(
        &plan,
        "203.0.113.9 -> 192.168.0.1:30001/tcp   => 10.0.1.2:80 masq
         10.0.9.9    -> 10.0.1.1:30001/tcp      => 10.0.1.2:80 masq
         node        -> 127.0.0.1:30001/tcp     => 10.0.1.2:80 masq
         node        -> 127.0.0.53:30001/tcp    => 10.0.1.2:80 masq
         2001:db8::9 -> [fd00:192::1]:30001/tcp => [fd00:10:0:1::2]:80 masq
         node        -> [::1]:30001/tcp         => pass
         203.0.113.9 -> 127.0.0.1:30001/tcp     => drop",
    );
}

/// Rows: P50, P55, P56, P57, P59, P60, P98
#[test]
fn a_load_balancer_address_is_for_its_source_ranges() {
    let plan = plan(
        "web 172.30.0.1,fd00:30::1 lb=203.0.113.1 lb=2001:db8::1 lb-proxy=203.0.113.2 lb-host=a.b \
         lb=192.168.0.1 ext=203.0.113.3 allow=203.0.113.64/26 80/tcp:30001 \
         -> 10.0.1.2:80 [fd00:10:0:1::2]:80
         one 172.30.0.2 lb=203.0.113.5 allow=203.0.113.64/26 80/tcp -> 10.0.1.2:80!dead",
    );
    flows(
        &plan,
        "203.0.113.99 -> 203.0.113.1:80/tcp     => 10.0.1.2:80 masq
         203.0.113.9  -> 203.0.113.1:80/tcp     => drop
         10.0.9.9     -> 203.0.113.1:80/tcp     => drop
         node         -> 203.0.113.1:80/tcp     => drop
         2001:db8::9  -> [2001:db8::1]:80/tcp   => drop
         203.0.113.9  -> 203.0.113.2:80/tcp     => pass
         203.0.113.9  -> 203.0.113.3:80/tcp     => 10.0.1.2:80 masq
         203.0.113.9  -> 172.30.0.1:80/tcp      => 10.0.1.2:80 masq
         203.0.113.9  -> 192.168.0.1:30001/tcp  => 10.0.1.2:80 masq
         203.0.113.99 -> 192.168.0.1:80/tcp     => 10.0.1.2:80 masq
         203.0.113.9  -> 192.168.0.1:80/tcp     => drop
         203.0.113.9  -> 203.0.113.5:80/tcp     => drop
         203.0.113.99 -> 203.0.113.5:80/tcp     => reject
         203.0.113.9  -> 192.168.0.1:30002/tcp  => pass",
    );
}

/// Rows: P58
#[test]
fn the_node_may_use_a_load_balancer_address_that_is_its_own() {
    let text = "web 172.30.0.1 lb=203.0.113.1 lb=203.0.113.2 lb-proxy=203.0.113.3 RANGE 80/tcp \
                -> 10.0.1.2:80";
    flows(
        &plan(&text.replace("RANGE", "allow=192.168.0.0/24")),
        "203.0.113.1 -> 203.0.113.1:80/tcp => 10.0.1.2:80 masq
         203.0.113.1 -> 203.0.113.2:80/tcp => 10.0.1.2:80 masq
         203.0.113.3 -> 203.0.113.1:80/tcp => drop
         node        -> 203.0.113.1:80/tcp => 10.0.1.2:80 masq",
    );
    flows(
        &plan(&text.replace("RANGE", "allow=192.168.1.0/24")),
        "203.0.113.1 -> 203.0.113.1:80/tcp => drop
         node        -> 203.0.113.1:80/tcp => drop",
    );
    // Every source of the family, in whatever words.
    flows(
        &plan(&text.replace("RANGE", "allow=10.0.0.0/8 allow=0.0.0.0/0")),
        "203.0.113.9 -> 203.0.113.1:80/tcp => 10.0.1.2:80 masq",
    );
}

/// Rows: P65, P66, P67
#[test]
fn readiness_decides_and_draining_endpoints_are_the_last_resort() {
    let plan = plan(
        "ready 172.30.0.1 80/tcp -> 10.0.1.1:80!published 10.0.1.2:80 10.0.1.3:80!draining
         drain 172.30.0.2 80/tcp -> 10.0.1.2:80!unready 10.0.1.3:80!draining 10.0.1.4:80!dead
         dead  172.30.0.3 80/tcp -> 10.0.1.2:80!unready 10.0.1.4:80!dead
         mixed 172.30.0.4 internal=local 80/tcp -> 10.0.1.3:80@n1!draining 10.0.2.2:80@n2
         other 172.30.0.5 internal=local 80/tcp -> 10.0.1.3:80@n1!unready 10.0.2.2:80@n2!draining
         here  172.30.0.6 ext=203.0.113.6 external=local 80/tcp -> \
             10.0.1.3:80@n1!draining 10.0.2.2:80@n2",
    );
    flows(
        &plan,
        "10.0.9.9     -> 172.30.0.1:80/tcp  => 10.0.1.1:80 10.0.1.2:80
         10.0.9.9     -> 172.30.0.2:80/tcp  => 10.0.1.3:80
         10.0.9.9     -> 172.30.0.3:80/tcp  => reject
         10.0.9.9     -> 172.30.0.4:80/tcp  => 10.0.1.3:80
         10.0.9.9     -> 172.30.0.5:80/tcp  => drop
         10.0.9.9     -> 172.30.0.6:80/tcp  => 10.0.2.2:80
         203.0.113.99 -> 203.0.113.6:80/tcp => 10.0.1.3:80",
    );
}

/// Rows: P68, P70
#[test]
fn hints_choose_the_nearest_where_every_ready_endpoint_has_one() {
    let text = "
        zone  172.30.0.1 80/tcp -> 10.0.1.2:80^^a 10.0.2.2:80^^b 10.0.3.2:80^^a+b
        some  172.30.0.2 80/tcp -> 10.0.1.2:80^^a 10.0.2.2:80
        alien 172.30.0.3 80/tcp -> 10.0.1.2:80^^c 10.0.2.2:80^^b
        node  172.30.0.4 80/tcp -> 10.0.1.2:80^n1^^b 10.0.2.2:80^n2^^a
        nodes 172.30.0.5 80/tcp -> 10.0.1.2:80^n2^^b 10.0.2.2:80^n3^^a
        nope  172.30.0.6 80/tcp -> 10.0.1.2:80^^a 10.0.2.2:80!unready
        drain 172.30.0.7 80/tcp -> 10.0.1.2:80^^a!draining 10.0.2.2:80^^b!draining
        local 172.30.0.8 internal=local 80/tcp -> 10.0.1.2:80@n1^^b 10.0.2.2:80@n2^^a";
    flows(
        &plan(text),
        "10.0.9.9 -> 172.30.0.1:80/tcp => 10.0.1.2:80 10.0.3.2:80
         10.0.9.9 -> 172.30.0.2:80/tcp => 10.0.1.2:80 10.0.2.2:80
         10.0.9.9 -> 172.30.0.3:80/tcp => 10.0.1.2:80 10.0.2.2:80
         10.0.9.9 -> 172.30.0.4:80/tcp => 10.0.1.2:80
         10.0.9.9 -> 172.30.0.5:80/tcp => 10.0.2.2:80
         10.0.9.9 -> 172.30.0.6:80/tcp => 10.0.1.2:80
         10.0.9.9 -> 172.30.0.7:80/tcp => 10.0.1.2:80 10.0.2.2:80
         10.0.9.9 -> 172.30.0.8:80/tcp => 10.0.1.2:80",
    );
    let moved = PlanContext { zone: Some("b".to_owned()), ..facts() };
    flows(
        &Plan::fresh(moved, &services(text)),
        "10.0.9.9 -> 172.30.0.1:80/tcp => 10.0.2.2:80 10.0.3.2:80
         10.0.9.9 -> 172.30.0.4:80/tcp => 10.0.1.2:80",
    );
    let nowhere = PlanContext { zone: None, ..facts() };
    flows(
        &Plan::fresh(nowhere, &services(text)),
        "10.0.9.9 -> 172.30.0.1:80/tcp => 10.0.1.2:80 10.0.2.2:80 10.0.3.2:80",
    );
}

#[test]
fn source_hash_keeps_a_source_at_one_endpoint() {
    let plan = plan(
        "web 172.30.0.1 balance=source-hash 80/tcp -> 10.0.1.2:80@n1 10.0.1.3:80@n1 10.0.1.4:80@n1",
    );
    let tracer = Tracer::new(&plan);
    let mut seen = std::collections::BTreeSet::new();
    for host in 0..=99 {
        let packet = packet(&format!("10.0.9.{host} -> 172.30.0.1:80/tcp"));
        let Outcome::Endpoints(choices) = tracer.trace(&packet).outcome else { panic!() };
        let [one] = &choices[..] else { panic!("{choices:?}") };
        seen.insert(one.clone());
        let Outcome::Endpoints(again) = tracer.trace(&packet).outcome else { panic!() };
        assert_eq!(choices, again);
    }
    assert_eq!(seen.len(), 3);
}

/// What `causeway trace` prints.
fn steps(plan: &Plan, text: &str) -> String {
    let trace = trace(plan, &packet(text));
    let service = trace.service.as_deref().unwrap_or("-");
    format!("{service}\n{}", trace.steps.join("\n"))
}

#[test]
fn a_trace_says_why() {
    let plan = plan(
        "web 172.30.0.1 lb=203.0.113.1 allow=203.0.113.64/26 external=local internal=local \
         affinity=60 80/tcp:30001=http -> 10.0.1.2:80@n1 10.0.1.3:80@n1 10.0.2.2:80@n2",
    );
    assert_eq!(
        steps(&plan, "203.0.113.99 -> 203.0.113.1:80/tcp"),
        "default/web:http
203.0.113.99 is outside the cluster networks.
203.0.113.1 port 80/TCP is an external address of default/web:http.
The source is in 203.0.113.64/26 of loadBalancerSourceRanges.
externalTrafficPolicy is Local, endpoints of this node only; the source address is kept (no \
masquerade).
One of 2 endpoints, at random. Session affinity: the endpoint of the source's last connection, \
if that is less than 60 s ago."
    );
    assert_eq!(
        steps(&plan, "10.0.1.2 -> 172.30.0.1:80/tcp"),
        "default/web:http
10.0.1.2 is in cluster network 10.0.0.0/16.
172.30.0.1 port 80/TCP is the cluster address of default/web:http.
internalTrafficPolicy is Local: endpoints of this node only.
The source address is kept (no masquerade).
One of 2 endpoints, at random. Session affinity: the endpoint of the source's last connection, \
if that is less than 60 s ago.
Hairpin: if 10.0.1.2 is picked as its own endpoint, the source address becomes this node's; \
otherwise replies would be lost."
    );
    assert_eq!(
        steps(&plan, "10.0.9.9 -> 172.30.0.1:81/tcp"),
        "default/web
10.0.9.9 is in cluster network 10.0.0.0/16.
172.30.0.1 is the cluster address of default/web, which has no such port.
Rejected: ICMP port unreachable."
    );
    assert_eq!(
        steps(&plan, "node -> 172.30.0.9:80/tcp"),
        "-
192.168.0.1 is this node.
No service has the address 172.30.0.9, which is in service network 172.30.0.0/16: dropped."
    );
}

/// Containers of this node outside the cluster networks: 10.99.0.2 and 10.99.0.3.
///
/// Rows: RB6
#[test]
fn a_container_outside_the_cluster_networks_is_seen_by_those_who_can_answer() {
    let text =
        "web 172.30.0.41 80/tcp -> 10.0.1.2:80@n1 10.99.0.3:80@n1 10.0.2.2:80@n2 203.0.113.5:80
                out 172.30.0.42 external=local 80/tcp:30001 -> 10.0.1.2:80@n1 10.0.2.2:80@n2";
    let mut plan = plan(text);
    let own = ["10.0.1.2", "10.99.0.2", "10.99.0.3"].map(|ip| ip.parse().expect("an address"));
    let delta = plan.set_containers(own);
    assert!(!delta.is_empty() && plan.set_containers(own).is_empty());
    flows(
        &plan,
        "10.99.0.2   -> 172.30.0.41:80/tcp    => 10.0.1.2:80 10.0.2.2:80 masq 10.99.0.3:80 203.0.113.5:80 masq
         10.99.0.3   -> 172.30.0.41:80/tcp    => 10.0.1.2:80 10.0.2.2:80 masq 10.99.0.3:80 masq 203.0.113.5:80 masq
         10.99.0.4   -> 172.30.0.41:80/tcp    => 10.0.1.2:80 masq 10.0.2.2:80 masq 10.99.0.3:80 masq 203.0.113.5:80 masq
         10.0.1.2    -> 172.30.0.41:80/tcp    => 10.0.1.2:80 masq 10.0.2.2:80 10.99.0.3:80 203.0.113.5:80
         10.99.0.2   -> 192.168.0.1:30001/tcp => 10.0.1.2:80 10.0.2.2:80 masq
         203.0.113.9 -> 192.168.0.1:30001/tcp => 10.0.1.2:80",
    );
    let steps = trace(&plan, &packet("10.99.0.3 -> 172.30.0.41:80/tcp")).steps;
    assert_eq!(
        steps,
        [
            "10.99.0.3 is a container of this node, outside the cluster networks.",
            "172.30.0.41 port 80/TCP is the cluster address of default/web.",
            "One of 4 endpoints, at random.",
            "10.0.1.2: on this node, so the source address 10.99.0.3 is kept.",
            "Hairpin: if 10.99.0.3 is picked as its own endpoint, the source address becomes this \
             node's; otherwise replies would be lost.",
            "10.0.2.2, 203.0.113.5: not on this node and without a route back to 10.99.0.3: the \
             source address becomes this node's (masquerade).",
        ]
    );
    // If all are in the cluster networks, rules need to know of none.
    assert!(!plan.set_containers(own.into_iter().take(1)).is_empty());
    assert_eq!(plan.here.containers.len(), 0);
}

/// Three services and five host ports at their places.
fn beside_host_ports() -> Plan {
    let mut plan = plan(
        "web 172.30.0.41 80/tcp:30001 -> 10.0.2.2:80@n2
         dns 172.30.0.42 ext=192.168.0.1 53/udp:30002 -> 10.0.2.3:53@n2
         own 172.30.0.43 81/tcp:30003 -> 10.0.2.4:81@n2",
    );
    let port = |protocol, host: Option<&str>, port, target: &str, conditional| HostPort {
        protocol,
        host: host.map(|text| text.parse().expect("an address")),
        port,
        target: target.parse().expect("an address and port"),
        owner: ObjectKey::new("default", "c1"),
        hides: Hides::Needed,
        conditional,
    };
    let all = vec![
        port(Protocol::Tcp, None, 30_001, "10.0.1.2:8080", false),
        port(Protocol::Udp, Some("10.0.1.1"), 30_002, "10.0.1.2:53", false),
        port(Protocol::Udp, None, 53, "10.0.1.2:53", false),
        port(Protocol::Tcp, None, 8080, "10.0.1.2:8080", false),
        port(Protocol::Tcp, None, 30_003, "10.0.1.2:81", true),
    ];
    let delta = plan.set_host_ports(all);
    assert!(delta.here.is_some());
    plan
}

/// A host port of every address, one of an address, and one with conditions, beside node ports and an
/// external address that is this node's.
///
/// Rows: RB5
#[test]
fn a_host_port_comes_before_services_at_its_place() {
    let mut plan = beside_host_ports();
    flows(
        &plan,
        "203.0.113.9 -> 192.168.0.1:30001/tcp => 10.0.1.2:8080
         10.0.1.2    -> 192.168.0.1:30001/tcp => 10.0.1.2:8080 masq
         10.0.1.2    -> 172.30.0.41:80/tcp    => 10.0.2.2:80
         203.0.113.9 -> 192.168.0.1:30002/udp => 10.0.2.3:53 masq
         203.0.113.9 -> 10.0.1.1:30002/udp    => 10.0.1.2:53
         203.0.113.9 -> 192.168.0.1:53/udp    => 10.0.1.2:53
         203.0.113.9 -> 192.168.0.1:8080/tcp  => 10.0.1.2:8080
         203.0.113.9 -> 192.168.0.7:8080/tcp  => pass",
    );
    let yields: Vec<_> = plan.yields().map(|one| (one.place.to_string(), one.service)).collect();
    let key = |name| ObjectKey::new("default", name);
    assert_eq!(
        yields,
        [
            ("node port 30001/TCP".to_owned(), key("web")),
            ("node port 30002/UDP".to_owned(), key("dns")),
            ("192.168.0.1:53/UDP".to_owned(), key("dns")),
            ("node port 30003/TCP".to_owned(), key("own")),
        ]
    );
    // The rules give way if it is certain: not for conditions of others.
    assert_eq!(
        plan.here.yields.iter().map(|one| one.port).collect::<Vec<_>>(),
        [30_001, 53, 30_002]
    );
    let steps = trace(&plan, &packet("203.0.113.9 -> 192.168.0.1:30001/tcp")).steps;
    assert_eq!(
        steps,
        [
            "203.0.113.9 is outside the cluster networks.",
            "192.168.0.1 is this node, and 30001/TCP is a host port of default/c1.",
            "The host port takes precedence over node port 30001/TCP of service default/web.",
            "The source address is kept (no masquerade).",
        ]
    );
    // A service that comes later gives way as well, and one that goes is forgotten.
    let later = services("new 172.30.0.44 80/tcp:8080 -> 10.0.2.2:80@n2");
    let delta = plan.update(&later.keys().cloned().collect(), &|key| later.get(key).cloned());
    assert_eq!(delta.here.expect("a change").1.yields.len(), 4);
    let delta = plan.update(&later.keys().cloned().collect(), &|_| None);
    assert_eq!(delta.here.expect("a change").1.yields.len(), 3);
}
