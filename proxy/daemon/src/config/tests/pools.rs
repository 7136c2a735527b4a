//! Pools of load balancer addresses.

use super::*;

#[test]
fn a_flag_is_one_pool_and_tables_of_the_file_are_several() {
    assert_eq!(with_file("", &[]).unwrap().balancer_pools, []);
    let flag = ["--lb-pool", "192.168.1.240-192.168.1.250, fd00:1::/120"];
    let read = with_file("", &flag).unwrap().balancer_pools;
    let [pool] = read.as_slice() else { panic!("{read:?}") };
    assert_eq!((pool.name.as_str(), pool.size(), pool.auto_assign), ("default", 11 + 256, true));
    let line = "lb_pool = [\"192.168.1.240-192.168.1.250\", \"fd00:1::/120\"]";
    assert_eq!(with_file(line, &[]).unwrap().balancer_pools, read);

    let tables = "[[lb_pool]]\nname = \"lan\"\naddresses = [\"192.168.1.240/28\"]\n\
                  [[lb_pool]]\nname = \"prod\"\naddresses = [\"192.168.2.1-192.168.2.9\"]\n\
                  auto_assign = false\npriority = 7\nnamespaces = [\"prod\"]\n\
                  selectors = [{ tier = \"a\" }]\navoid_buggy_ips = true\n";
    let read_tables = with_file(tables, &[]).unwrap().balancer_pools;
    let [lan, prod] = read_tables.as_slice() else { panic!("{read_tables:?}") };
    assert_eq!((lan.size(), lan.auto_assign, lan.priority), (16, true, 0));
    assert_eq!((prod.auto_assign, prod.priority, prod.avoid_buggy_ips), (false, 7, true));
    assert_eq!(prod.namespaces, ["prod"]);
    assert_eq!(prod.selectors[0]["tier"], "a");
    // A flag comes before the file.
    assert_eq!(with_file(tables, &flag).unwrap().balancer_pools, read);
}

#[test]
fn wrong_pools_are_refused_by_field_value_and_remedy() {
    let refused = |text: &str, part: &str| {
        let error = with_file(text, &[]).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    };
    refused(
        "lb_pool = \"192.168.1.0/33\"",
        "FILE: lb_pool: \"192.168.1.0/33\": 192.168.1.0/33: not a",
    );
    refused(
        "[[lb_pool]]\nname = \"a\"\naddresses = [\"10.0.0.1\", \"10.0.0.9-10.0.0.1\"]",
        "FILE: lb_pool[0].addresses[1]: \"10.0.0.9-10.0.0.1\": does not lead",
    );
    refused("[[lb_pool]]\nname = \"a\"", "FILE: lb_pool[0]: \"\": missing field `addresses`");
    refused(
        "[[lb_pool]]\nname = \"a b\"\naddresses = []",
        "FILE: lb_pool[0].name: \"a b\": not a valid Kubernetes name",
    );
    refused(
        "[[lb_pool]]\nname = \"a\"\naddresses = []\nautoAssign = true",
        "unknown field `autoAssign`, expected one of `name`",
    );
    refused(
        "[[lb_pool]]\nname = \"a\"\naddresses = []\npriority = \"high\"",
        "FILE: lb_pool[0].priority: \"\": invalid type",
    );
}
