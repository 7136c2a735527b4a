use causeway_model::MacAddress;

use crate::{OtherVxlan, VxlanLink, clash};

fn other(name: &str, id: u32, port: u16) -> OtherVxlan {
    OtherVxlan { name: name.to_owned(), id, port, local: None }
}

/// Row: O-18
#[test]
fn who_has_the_number_or_the_port_is_named() {
    let link = VxlanLink {
        name: "cwov1".to_owned(),
        id: 1,
        port: 8472,
        dev: Some(2),
        local: [172, 18, 0, 2].into(),
        mac: MacAddress([2; 6]),
        mtu: 1450,
        addresses: [].into(),
    };
    let said = |holder: &str| {
        format!(
            "cannot make vxlan device cwov1 with VNI 1 and UDP port 8472: {holder}; remove it, or \
             start the causewayd of every node with another --vxlan-id or --vxlan-port"
        )
    };
    let others = [other("ov9", 9, 8472), other("flannel.1", 1, 8472), other("cwvx1", 1, 4789)];
    assert_eq!(clash(&link, &others), said("device flannel.1 uses the same"));
    let others = [other("ov9", 9, 8472), other("cwvx1", 1, 4789)];
    assert_eq!(
        clash(&link, &others),
        said("device ov9 uses the port with VNI 9 and different flags")
    );
    let nobody = "a program, or a device that was moved to another network namespace, uses the \
                  port; `ss -lunp` shows a program";
    assert_eq!(clash(&link, &[other("cwvx1", 1, 4789)]), said(nobody));
}
