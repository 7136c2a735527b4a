//! Peers files, good and bad.

use super::*;

fn parsed(text: &str) -> Result<Vec<Entry>, String> {
    let cluster = ["10.0.0.0/16", "fd00:10::/48"].map(|network| network.parse().unwrap());
    parse(Path::new("/etc/causeway/peers.toml"), text, &cluster).map_err(|error| error.to_string())
}

#[test]
fn one_and_two_families() {
    let text = r#"
        [[node]]
        name = "node1"
        ip = "172.18.0.2"
        subnet = "10.0.1.0/24"
        [[node]]
        name = "node2"
        ip = ["172.18.0.3", "fd00:172:18::3"]
        subnet = ["10.0.2.0/24", "fd00:10:0:2::/64"]
    "#;
    let [one, two] = &parsed(text).unwrap()[..] else { panic!("two nodes") };
    assert_eq!((one.name.as_str(), one.ips.len(), one.subnets.len()), ("node1", 1, 1));
    assert_eq!(two.ips, ["172.18.0.3", "fd00:172:18::3"].map(|ip| ip.parse::<IpAddr>().unwrap()));
    assert_eq!(two.subnets[1].to_string(), "fd00:10:0:2::/64");
    assert_eq!(parsed("").unwrap(), []);
}

#[test]
fn refusals_name_line_field_and_remedy() {
    let node = |name: &str, ip: &str, subnet: &str| {
        format!("[[node]]\nname = \"{name}\"\nip = {ip}\nsubnet = {subnet}\n")
    };
    let good = node("a", "\"172.18.0.2\"", "\"10.0.1.0/24\"");
    let check = |entry: String, wanted: &[&str]| {
        let error = parsed(&format!("{good}{entry}")).unwrap_err();
        assert!(error.starts_with("/etc/causeway/peers.toml:"), "{error}");
        for part in wanted {
            assert!(error.contains(part), "{part:?} in {error:?}");
        }
    };
    let (ip, net) = ("\"172.18.0.3\"", "\"10.0.2.0/24\"");
    check(node("a", ip, net), &[".toml:5: node \"a\": name: used by an entry above", "remove one"]);
    check(node("", ip, net), &[":5: ", "name:", "--node-name"]);
    check(node("b", "\"127.0.0.1\"", net), &[":5: ", "ip: \"127.0.0.1\"", "172.18.0.2"]);
    check(node("b", "\"eth0\"", net), &["ip: \"eth0\""]);
    check(node("b", "[]", net), &["ip: empty; at least one is required"]);
    check(node("b", "[\"172.18.0.3\", \"172.18.0.4\"]", net), &["ip: two of the same IP family"]);
    check(node("b", ip, "\"10.0.2.0\""), &["subnet: \"10.0.2.0\" is not a network"]);
    check(node("b", ip, "\"10.0.2.1/24\""), &["host bits set; write 10.0.2.0/24"]);
    check(node("b", ip, "\"10.1.2.0/24\""), &["subnet: 10.1.2.0/24", "--cluster-cidr"]);
    check(
        node("b", ip, "\"10.0.1.128/25\""),
        &["10.0.1.128/25 overlaps 10.0.1.0/24 of node \"a\""],
    );
    check("[[node]]\nname = \"b\"\nip = 5\n".to_owned(), &[":7: ", "string or a list of strings"]);
    check(
        "[[node]]\nname = \"b\"\nport = 5\n".to_owned(),
        &[":7: ", "port", "name, ip and subnet"],
    );
    check("[[node]]\nname = \n".to_owned(), &[":6: "]);
    check("nodes = 5\n".to_owned(), &["nodes"]);
}

#[test]
fn an_absent_file_says_what_to_write() {
    let error = read(Path::new("/nonexistent/peers.toml"), &[]).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/peers.toml: cannot be read"), "{error}");
    assert!(error.contains("[[node]]"), "{error}");
}
