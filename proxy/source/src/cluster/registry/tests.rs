use proptest::prelude::*;

use super::*;

fn config(clusters: &[&str], len: u8) -> ClusterConfig {
    ClusterConfig {
        schema: ClusterConfig::SCHEMA,
        cluster_cidrs: clusters.iter().map(|text| text.parse().unwrap()).collect(),
        service_cidrs: Vec::new(),
        node_subnet_len: len,
        node_ports: (30000, 32767),
        overlay: "vxlan".into(),
        vxlan_id: 1,
        vxlan_port: 8472,
    }
}

fn identity(node: &str) -> NodeIdentity {
    NodeIdentity { node: node.into(), machine_id: format!("machine-{node}") }
}

struct Case {
    config: ClusterConfig,
    asked: Vec<IpNetwork>,
    previous: Vec<IpNetwork>,
    ips: Vec<IpAddr>,
    taken: Taken,
    random: u64,
}

fn nets(texts: &[&str]) -> Vec<IpNetwork> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

impl Case {
    fn new(clusters: &[&str], len: u8) -> Self {
        Self {
            config: config(clusters, len),
            asked: Vec::new(),
            previous: Vec::new(),
            ips: Vec::new(),
            taken: Taken::default(),
            random: 0,
        }
    }

    fn has(mut self, node: &str, subnet: &str) -> Self {
        self.taken.subnets.insert(subnet.parse().unwrap(), Some(identity(node)));
        self
    }

    fn ips(mut self, ips: &[&str]) -> Self {
        self.ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        self
    }

    fn choose(&self) -> Result<Vec<IpNetwork>, Subnets> {
        let wish = Wish {
            identity: &identity("me"),
            config: &self.config,
            asked: &self.asked,
            previous: &self.previous,
            ips: &self.ips,
            random: self.random,
        };
        choose(&wish, &self.taken)
    }

    #[track_caller]
    fn check(&self, expected: &[&str]) {
        assert_eq!(self.choose(), Ok(nets(expected)));
    }

    #[track_caller]
    fn none(&self) -> String {
        match self.choose() {
            Err(Subnets::None(why)) => why,
            other => panic!("{other:?}"),
        }
    }
}

const V4: [&str; 1] = ["10.0.0.0/16"];

/// Rows: S-11
#[test]
fn the_address_of_the_node_says_a_number() {
    for (ip, expected) in [
        ("172.18.0.2", "10.0.2.0/24"),
        ("172.18.0.12", "10.0.12.0/24"),
        ("172.18.0.20", "10.0.20.0/24"),
        ("172.18.1.2", "10.0.2.0/24"),
    ] {
        Case::new(&V4, 24).ips(&[ip]).check(&[expected]);
    }
    Case::new(&V4, 26).ips(&["172.18.0.5"]).check(&["10.0.1.64/26"]);
    let both = ["10.0.0.0/16", "fd00:10::/48"];
    Case::new(&both, 24).ips(&["172.18.0.3"]).check(&["10.0.3.0/24", "fd00:10:0:3::/64"]);
    let ips = ["fd00:172:18::7", "172.18.0.3"];
    Case::new(&both, 24).ips(&ips).check(&["10.0.3.0/24", "fd00:10:0:7::/64"]);
}

/// Rows: O-32, O-34
#[test]
fn without_a_preference_the_start_is_random_and_the_first_part_last() {
    let mut case = Case::new(&["10.0.0.0/22"], 24);
    case.check(&["10.0.1.0/24"]);
    case.random = 2;
    case.check(&["10.0.3.0/24"]);
    case = case.has("a", "10.0.3.0/24");
    case.check(&["10.0.1.0/24"]);
    case = case.has("b", "10.0.1.0/24").has("c", "10.0.2.0/24");
    case.check(&["10.0.0.0/24"]);
    let full = case.has("d", "10.0.0.0/24").none();
    assert!(full.contains("10.0.0.0/22 has no /24 left") && full.contains("have 4"), "{full}");
    Case::new(&["10.0.5.0/24"], 24).check(&["10.0.5.0/24"]);
}

/// Rows: O-34, O-37, O-61
#[test]
fn what_the_node_has_comes_before_what_it_had_and_that_before_others() {
    let mut case = Case::new(&V4, 24).ips(&["172.18.0.2"]);
    case.previous = nets(&["10.0.77.0/24"]);
    case.check(&["10.0.77.0/24"]);
    case.has("me", "10.0.9.0/24").check(&["10.0.9.0/24"]);
}

/// Rows: O-38, O-65
#[test]
fn what_another_has_by_now_is_lost_with_its_name() {
    let mut case = Case::new(&V4, 24).has("n2", "10.0.77.0/24");
    case.previous = nets(&["10.0.77.0/24"]);
    let lost = Subnets::Lost { subnet: nets(&["10.0.77.0/24"])[0], owner: identity("n2") };
    assert_eq!(case.choose(), Err(lost));
    case.asked = nets(&["10.0.5.0/24"]);
    case.check(&["10.0.5.0/24"]);
    case.asked.clear();
    case.previous = nets(&["10.9.0.0/24", "10.0.80.0/25"]);
    assert!(case.choose().is_ok(), "what no settings allow is not lost");
}

/// Rows: O-34, O-65
#[test]
fn these_or_none_with_the_name_of_who_has_it() {
    let mut case = Case::new(&V4, 24).has("n2", "10.0.5.0/24").has("me", "10.0.6.0/24");
    case.asked = nets(&["10.0.5.0/24"]);
    let why = case.none();
    assert!(why.contains("10.0.5.0/24 belongs to node n2 (machine id machine-n2)"), "{why}");
    case.asked = nets(&["10.0.7.0/24"]);
    case.check(&["10.0.7.0/24"]);
}

/// Rows: O-36
#[test]
fn reserved_ones_are_for_those_who_ask() {
    let mut case = Case::new(&["10.0.0.0/22"], 24).ips(&["172.18.0.2"]);
    case.taken.reservations = nets(&["10.0.2.0/24", "10.0.1.0/24"]).into_iter().collect();
    case.check(&["10.0.3.0/24"]);
    case.asked = nets(&["10.0.2.0/24"]);
    case.check(&["10.0.2.0/24"]);
}

/// One part in four thousand million is taken: it is looked up, and not looked for part by part.
///
/// Rows: RH7
#[test]
fn a_wide_network_with_many_records_is_no_more_work() {
    let mut case = Case::new(&["fd00:10::/32"], 24).ips(&["fd00:172::2"]);
    case = case.has("n2", "fd00:10:0:2::/64");
    // Written by whatever: none of them is a part, so none of them reaches this place.
    assert!(!is_part(&case.config, "fd00:10::/33".parse().unwrap()));
    for number in 3..3_000 {
        let part = format!("fd00:10:0:{number:x}::/64").parse().unwrap();
        case.taken.reservations.insert(part);
    }
    case.random = 1;
    case.check(&["fd00:10:0:bb8::/64"]);
}

/// Rows: RH7
#[test]
fn a_record_in_its_name_moves_no_node() {
    let mut case = Case::new(&V4, 24).has("me", "10.0.2.0/24").has("me", "10.0.1.0/24");
    case.previous = nets(&["10.0.2.0/24"]);
    case.check(&["10.0.2.0/24"]);
}

proptest! {
    /// Rows: O-34
    #[test]
    fn nodes_never_meet_until_the_network_is_full(
        randoms in prop::collection::vec(any::<u64>(), 70),
        ips in prop::collection::vec(any::<u32>(), 70),
    ) {
        let mut case = Case::new(&["10.0.0.0/18", "fd00:10::/58"], 24);
        for (index, (random, ip)) in randoms.into_iter().zip(ips).enumerate() {
            case.random = random;
            case.ips = vec![IpAddr::V4(ip.into())];
            let chosen = case.choose();
            prop_assert_eq!(chosen.is_ok(), index < 64);
            for subnet in chosen.unwrap_or_default() {
                prop_assert!(case.config.cluster_cidrs.iter().any(|all| within(*all, subnet)));
                prop_assert!(case.taken.free(subnet));
                let other = Some(identity(&index.to_string()));
                case.taken.subnets.insert(subnet, other);
            }
        }
    }
}
