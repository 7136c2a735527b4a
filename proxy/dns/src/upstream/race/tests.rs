use crate::upstream::Judge;

use super::*;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[test]
fn with_two_silent_servers_the_third_is_asked_within_a_second_and_first_the_next_time() {
    let mut judge = Judge::new(3);
    let mut race = Race::new(judge.plan());
    assert_eq!(race.step(ms(0)), Step::Ask(0));
    assert_eq!(race.step(ms(0)), Step::Wait(ms(300)));
    assert_eq!(race.step(ms(300)), Step::Ask(1));
    assert_eq!(race.step(ms(301)), Step::Wait(ms(600)));
    assert_eq!(race.step(ms(601)), Step::Ask(2));
    assert_eq!(race.silent(ms(620)), [(0, ms(0)), (1, ms(300))], "the third has just been asked");
    let early = race.silent(ms(601));
    assert_eq!(early, [(0, ms(0)), (1, ms(300))], "the answer may come at once");
    for (server, since) in race.silent(ms(620)) {
        judge.silent(server, since, ms(620));
    }
    assert_eq!(Race::new(judge.plan()).step(ms(0)), Step::Ask(2));
}

#[test]
fn who_says_no_is_followed_by_the_next_at_once_and_all_of_them_end_it() {
    let mut race = Race::new(Judge::new(3).plan());
    for server in 0..3 {
        assert_eq!(race.step(ms(1)), Step::Ask(server));
        race.lost(server);
    }
    assert_eq!(race.step(ms(1)), Step::Over);
    assert_eq!(race.silent(ms(3000)), []);
}

#[test]
fn one_silent_server_is_asked_again_and_not_for_ever() {
    let mut race = Race::new(Judge::new(1).plan());
    let mut asked = Vec::new();
    let mut elapsed = ms(0);
    loop {
        match race.step(elapsed) {
            Step::Ask(_) => asked.push(elapsed),
            Step::Wait(until) => elapsed = until,
            Step::Over => break,
        }
    }
    assert_eq!(asked, [ms(0), ms(1200), ms(2400)]);
    assert_eq!(elapsed, PATIENCE);
    assert_eq!(race.silent(elapsed), [(0, ms(0))]);
    assert_eq!(Race::new(Vec::new()).step(ms(0)), Step::Over);
}
