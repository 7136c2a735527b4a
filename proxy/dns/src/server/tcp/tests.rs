use std::future::pending;
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::counters::Counters;
use crate::fixture::settings;
use crate::forward::Forwarder;
use crate::testing::run;
use crate::{Stale, Zone};

use super::*;

fn desk() -> Rc<Desk> {
    let counters = Arc::new(Counters::default());
    let forwarder = Forwarder::new(Stale::Never, Arc::clone(&counters));
    Rc::new(Desk::new(Zone::new(settings()), forwarder, counters))
}

fn address(number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(number).unwrap()))
}

#[test]
fn one_address_has_a_hundred_and_gets_one_back_with_each_that_ends() {
    let (desk, connections) = (desk(), Rc::default());
    let take = || Admitted::take(&connections, address(1), &desk);
    let mut held: Vec<_> = (0..EACH).map(|_| take().expect("a place")).collect();
    assert!(take().is_none());
    assert!(Admitted::take(&connections, address(2), &desk).is_some(), "another address");
    held.pop();
    assert!(take().is_some());
    assert_eq!(desk.counters.too_many.get(), 1);
    held.clear();
    let all = connections.borrow();
    assert_eq!((all.all, all.each.len()), (0, 0));
}

#[test]
fn beyond_all_that_there_may_be_the_oldest_goes() {
    run(async {
        let (desk, connections) = (desk(), Rc::<RefCell<Connections>>::default());
        let mut tasks = Vec::new();
        for number in 0..=ALL {
            let admitted = Admitted::take(&connections, address(number), &desk).expect("a place");
            let task = tokio::task::spawn_local(async move {
                let _admitted = admitted;
                pending::<()>().await;
            });
            connections.borrow_mut().order.push_back(task.abort_handle());
            tasks.push(task);
        }
        let oldest = tasks.remove(0).await;
        assert!(oldest.is_err_and(|ended| ended.is_cancelled()));
        assert!(tasks.iter().all(|task| !task.is_finished()));
        assert_eq!(connections.borrow().all, ALL);
        assert_eq!(desk.counters.connections[1].get(), ALL as u64);
    });
}
