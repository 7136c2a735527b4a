use super::*;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn first_round(judge: &Judge, count: usize) -> Vec<(usize, Duration)> {
    judge.plan().iter().take(count).map(|attempt| (attempt.server, attempt.at)).collect()
}

#[test]
fn servers_are_asked_in_order_and_silent_ones_do_not_hold_up_the_next() {
    let judge = Judge::new(3);
    assert_eq!(first_round(&judge, 3), [(0, ms(0)), (1, ms(300)), (2, ms(600))]);
}

#[test]
fn suspect_servers_come_last_and_soon_and_are_trusted_again_with_a_reply() {
    let mut judge = Judge::new(3);
    judge.failed(0, ms(300));
    judge.failed(1, ms(600));
    judge.failed(1, ms(900));
    assert_eq!(first_round(&judge, 3), [(2, ms(0)), (0, ms(300)), (1, ms(350))]);
    assert_eq!(judge.suspects(), [0, 1]);
    assert_eq!(judge.suspect_since(1), Some(ms(600)));
    judge.replied(0, ms(1000));
    assert_eq!(first_round(&judge, 3), [(0, ms(0)), (2, ms(300)), (1, ms(600))]);
    assert_eq!(judge.suspects(), [1]);
}

#[test]
fn fifteen_silent_servers_are_all_asked_in_time_and_each_more_than_once() {
    for count in 1..=15 {
        let mut judge = Judge::new(count);
        for suspect in 0..count / 2 {
            judge.failed(suspect, ms(0));
        }
        let plan = judge.plan();
        for server in 0..count {
            let times: Vec<_> = plan.iter().filter(|attempt| attempt.server == server).collect();
            assert!(times.len() >= 2, "{server} of {count}: {times:?}");
            assert!(times[0].at <= ROUND, "{server} of {count}: {times:?}");
        }
        assert!(plan.is_sorted_by_key(|attempt| attempt.at));
        assert!(plan.iter().all(|attempt| attempt.at < PATIENCE));
    }
}

#[test]
fn a_server_that_loops_is_not_asked() {
    let mut judge = Judge::new(2);
    judge.set_loops(0, true);
    assert!(judge.plan().iter().all(|attempt| attempt.server == 1));
    judge.set_loops(1, true);
    assert_eq!(judge.plan(), []);
    judge.set_loops(0, false);
    assert!(judge.plan().iter().all(|attempt| attempt.server == 0));
    assert_eq!(Judge::new(0).plan(), []);
}

#[test]
fn a_server_that_replies_to_others_is_not_suspect_for_one_silence() {
    let mut judge = Judge::new(1);
    judge.replied(0, ms(500));
    judge.silent(0, ms(200), ms(600));
    assert_eq!(judge.suspects(), [0_usize; 0]);
    judge.silent(0, ms(501), ms(900));
    assert_eq!(judge.suspects(), [0]);
}
