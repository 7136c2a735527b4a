use super::*;

const LO: Device = Device { index: 1, mtu: 65536, leads_out: false };
const ETH0: Device = Device { index: 2, mtu: 1500, leads_out: true };
const ETH1: Device = Device { index: 3, mtu: 9000, leads_out: true };

fn chosen(index: u32, bound: bool, mtu: u32) -> Carrier {
    Carrier { index, bound, mtu }
}

/// Rows: RD1
#[test]
fn an_address_on_lo_takes_device_and_mtu_from_the_routes() {
    assert_eq!(carrier(LO, [ETH1, ETH1], None), chosen(3, false, 9000));
    // Several ways: the least of their MTUs.
    assert_eq!(carrier(LO, [ETH1, ETH0, ETH1], None), chosen(3, false, 1500));
    assert_eq!(carrier(LO, [ETH1, ETH0], None), chosen(2, false, 1500));
    // A node that has this one's address is not a way out.
    assert_eq!(carrier(LO, [LO, ETH1], Some(ETH0)), chosen(3, false, 9000));
    assert_eq!(carrier(LO, [], Some(ETH1)), chosen(3, false, 9000));
    assert_eq!(carrier(LO, [], None), chosen(1, false, 1500));
    assert_eq!(carrier(LO, [], Some(LO)), chosen(1, false, 1500));
}

/// Rows: RD1
#[test]
fn a_route_with_a_smaller_mtu_counts() {
    let narrow = |device: Device| Device { mtu: 1400, ..device };
    assert_eq!(carrier(ETH0, [ETH0, narrow(ETH0), ETH0], None), chosen(2, true, 1400));
    assert_eq!(carrier(LO, [ETH1, narrow(ETH1)], None), chosen(3, false, 1400));
    assert_eq!(carrier(LO, [], Some(narrow(ETH1))), chosen(3, false, 1400));
}

/// Rows: RD1
#[test]
fn the_device_with_the_address_carries_where_packets_leave_by_it() {
    assert_eq!(carrier(ETH0, [], Some(ETH1)), chosen(2, true, 1500));
    assert_eq!(carrier(ETH0, [ETH0], None), chosen(2, true, 1500));
    // Nobody's record alone moves it.
    assert_eq!(carrier(ETH0, [ETH1, LO, ETH0], None), chosen(2, true, 1500));
    // All the others are behind another device.
    assert_eq!(carrier(ETH0, [ETH1], None), chosen(3, false, 9000));
}
