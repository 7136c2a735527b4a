use tokio::sync::oneshot::{self, error::TryRecvError};

use super::*;

type Answer = oneshot::Receiver<Result<Applied, Refused>>;

fn seen(cluster: &ClusterState) -> Seen<'_> {
    Seen { cluster, has_viewed: true, has_answered: true }
}

fn apply(wait: bool) -> Asked {
    Asked::Apply(Apply { wait, ..Apply::default() })
}

/// A queue, the answers it gave, and what is left to do.
struct World {
    writes: Writes,
    cluster: ClusterState,
    now: Instant,
    /// Numbers of what was sent.
    sent: Vec<u64>,
    /// What else was done.
    done: Vec<String>,
}

impl World {
    fn new() -> Self {
        let (writes, now) = (Writes::default(), clock::now());
        Self { writes, cluster: ClusterState::new(Ok(())), now, sent: Vec::new(), done: Vec::new() }
    }

    fn ask(&mut self, asked: Asked) -> Answer {
        let (reply, answer) = oneshot::channel();
        let effects = self.writes.ask(asked, Some(reply), seen(&self.cluster), self.now);
        self.carry_out(effects);
        self.advance();
        answer
    }

    fn manifests(&mut self) {
        let seen = seen(&self.cluster);
        let effects = self.writes.ask(Asked::Manifests, None, seen, self.now);
        self.carry_out(effects);
        self.advance();
    }

    fn advance(&mut self) {
        while let Some(job) = self.writes.next(seen(&self.cluster)) {
            self.attempt(job);
        }
    }

    /// As the engine does it: each change puts nothing and takes one node out.
    fn attempt(&mut self, job: Job) {
        let pass = matches!(job.asked, Asked::Manifests).then(Pass::default);
        let nodes = vec!["n9".to_owned()];
        let write = Write { id: self.writes.next_id(), nodes, ..Write::default() };
        let prepared = PreparedWrite { applied: Applied::default(), pass, write };
        let effects = self.writes.sent(job, prepared, self.now);
        self.carry_out(effects);
    }

    fn written(&mut self, id: u64, result: Result<i64, WriteError>) {
        let effects = self.writes.on_written(id, result, self.now);
        self.carry_out(effects);
        self.see(self.cluster.revision);
    }

    fn see(&mut self, revision: i64) {
        self.cluster.revision = revision;
        let effects = self.writes.on_revision(revision);
        self.carry_out(effects);
        self.advance();
    }

    fn pass_time(&mut self, time: Duration) {
        self.now += time;
        let effects = self.writes.expire(self.now);
        self.carry_out(effects);
        self.advance();
    }

    fn carry_out(&mut self, effects: Vec<WriteEffect>) {
        for effect in effects {
            let done = match effect {
                WriteEffect::Attempt(job) => return self.attempt(job),
                WriteEffect::Send(write) => {
                    self.sent.push(write.id);
                    continue;
                }
                WriteEffect::Answer(reply, answer) => {
                    drop(reply.send(answer));
                    continue;
                }
                WriteEffect::AnswerLater(applied, reply) => {
                    drop(reply.send(Ok(applied)));
                    "in the kernel".to_owned()
                }
                WriteEffect::Reported(_, refused) => {
                    format!("reported, refused: {}", refused.is_some())
                }
                WriteEffect::ManifestsLater(again) => match again {
                    Some(again) => format!("manifests in {:?}", again - self.now),
                    None => "manifests later".to_owned(),
                },
                WriteEffect::BalancersLater(again) => {
                    format!("balancers in {:?}", again - self.now)
                }
                WriteEffect::ClaimAnew => "claimed anew".to_owned(),
                WriteEffect::Stored(put, gone) => {
                    format!("stored {} and {}", put.len(), gone.len())
                }
                WriteEffect::Conflicted => "conflict".to_owned(),
            };
            self.done.push(done);
        }
    }

    fn done(&mut self) -> Vec<String> {
        mem::take(&mut self.done)
    }

    fn sent(&mut self) -> Vec<u64> {
        mem::take(&mut self.sent)
    }
}

fn waits(answer: &mut Answer) -> bool {
    matches!(answer.try_recv(), Err(TryRecvError::Empty))
}

fn refusal(answer: &mut Answer) -> String {
    let refused = answer.try_recv().expect("an answer").expect_err("a refusal");
    assert_eq!(refused.status, 503);
    refused.to_string()
}

#[test]
fn changes_go_one_at_a_time_and_are_answered_when_they_were_seen() {
    let mut world = World::new();
    let mut first = world.ask(apply(true));
    let mut second = world.ask(Asked::Delete(Vec::new()));
    assert_eq!(world.sent(), [1]);
    world.written(1, Ok(7));
    assert_eq!(world.done(), ["stored 0 and 1"]);
    world.see(6);
    assert!(waits(&mut first), "revision 7 was not seen yet");
    assert_eq!(world.sent(), [0u64; 0]);
    world.see(7);
    assert!(first.try_recv().expect("an answer").is_ok());
    assert_eq!(world.done(), ["in the kernel"]);
    assert_eq!(world.sent(), [2], "the next one's turn");
    assert!(waits(&mut second));
}

#[test]
fn who_does_not_wait_is_answered_when_it_is_stored() {
    let mut world = World::new();
    let mut answer = world.ask(apply(false));
    assert!(waits(&mut answer));
    world.written(1, Ok(7));
    assert!(answer.try_recv().expect("an answer").is_ok());
    world.see(7);
    assert_eq!(world.done(), ["stored 0 and 1"]);
}

#[test]
fn a_change_that_another_node_was_faster_with_is_staged_anew_once_that_is_seen() {
    let mut world = World::new();
    let mut answer = world.ask(apply(true));
    for attempt in 1..10 {
        assert_eq!(world.sent(), [attempt]);
        let revision = i64::try_from(attempt).expect("small");
        world.written(attempt, Err(WriteError::Conflict(revision)));
        assert_eq!(world.sent(), [0u64; 0], "what the other one wrote is to be seen first");
        world.see(revision);
        assert_eq!(world.done(), ["conflict", "claimed anew"]);
    }
    world.written(10, Err(WriteError::Conflict(10)));
    assert!(refusal(&mut answer).contains("10 times in a row"));
    assert_eq!(world.done(), ["conflict", "claimed anew"]);
    world.see(10);
    assert_eq!(world.writes.due(), None, "nothing is left");
}

#[test]
fn an_answer_to_a_change_that_was_given_up_is_none_to_the_next() {
    let mut world = World::new();
    let mut lost = world.ask(apply(true));
    let mut next = world.ask(apply(true));
    world.pass_time(Duration::from_millis(9_999));
    assert!(waits(&mut lost));
    world.pass_time(Duration::from_millis(1));
    assert!(refusal(&mut lost).contains("whether it was stored is not known"));
    assert_eq!(world.sent(), [1, 2]);
    world.written(1, Ok(7));
    world.see(7);
    assert!(waits(&mut next));
    world.written(2, Ok(8));
    world.see(8);
    assert!(next.try_recv().expect("an answer").is_ok());
}

#[test]
fn what_is_stored_and_not_seen_is_given_up_with_its_revision() {
    for (result, said) in [
        (Ok(99), "stored at revision 99, but this node has not received it"),
        (Err(WriteError::Conflict(99)), "another node wrote first, at revision 99"),
    ] {
        let mut world = World::new();
        let mut answer = world.ask(apply(true));
        world.written(1, result);
        world.pass_time(Duration::from_secs(10));
        assert!(refusal(&mut answer).contains(said));
    }
}

#[test]
fn a_store_that_refuses_is_quoted() {
    for error in [WriteError::Away("no answer".into()), WriteError::Denied("no answer".into())] {
        let mut world = World::new();
        let mut answer = world.ask(apply(true));
        world.written(1, Err(error));
        assert!(refusal(&mut answer).contains("no answer"));
        assert_eq!(world.done(), ["claimed anew"]);
    }
}

#[test]
fn while_the_store_is_away_changes_are_refused_at_once_and_the_queue_with_them() {
    let mut world = World::new();
    let mut sent = world.ask(apply(true));
    let mut queued = world.ask(apply(true));
    world.cluster.connection = Err((world.now, "connection refused".to_owned()));
    world.now += Duration::from_secs(2);
    let effects = world.writes.refuse(seen(&world.cluster), world.now);
    world.carry_out(effects);
    let said = refusal(&mut queued);
    assert!(said.contains("unreachable for 2s") && said.contains("connection refused"), "{said}");
    assert!(waits(&mut sent), "it may be stored");
    assert!(refusal(&mut world.ask(apply(true))).contains("unreachable for 2s"));
    world.manifests();
    assert_eq!(world.done(), ["manifests later"]);

    world.cluster.connection = Ok(());
    world.cluster.excluded = Some("another node has its name".to_owned());
    assert!(refusal(&mut world.ask(apply(true))).contains("another node has its name"));
}

#[test]
fn a_store_that_has_not_answered_yet_has_ten_seconds() {
    let mut world = World::new();
    world.cluster.connection = Err((world.now, "not connected".to_owned()));
    let (reply, mut answer) = oneshot::channel();
    let early = Seen { cluster: &world.cluster, has_viewed: false, has_answered: false };
    assert!(world.writes.ask(apply(true), Some(reply), early, world.now).is_empty());
    assert!(world.writes.next(early).is_none());
    world.pass_time(Duration::from_secs(10));
    assert!(refusal(&mut answer).contains("the cluster store has not answered"));
}

#[test]
fn the_manifest_directory_waits_once_and_is_read_again_after_a_refusal() {
    let mut world = World::new();
    let busy = world.ask(apply(true));
    world.manifests();
    world.manifests();
    world.written(1, Ok(1));
    world.see(1);
    drop(busy);
    assert_eq!(world.sent(), [1, 2]);
    world.done();
    world.written(2, Err(WriteError::Denied("no space".into())));
    assert_eq!(world.done(), ["manifests in 10s", "reported, refused: true", "claimed anew"]);
    assert_eq!(world.writes.due(), None, "it was queued once");

    world.manifests();
    world.written(3, Ok(2));
    world.see(2);
    assert_eq!(world.done(), ["stored 0 and 1", "reported, refused: false"]);
}

#[test]
fn a_change_of_many_objects_has_longer() {
    let mut world = World::new();
    let key = ObjectKey::new("default", "web");
    let delete = vec![(ObjectKind::Service, key, Vec::new()); 1000];
    let job = Job { asked: apply(true), reply: None, until: world.now, attempts: 0 };
    let write = Write { id: 1, delete, ..Write::default() };
    let prepared = PreparedWrite { applied: Applied::default(), pass: None, write };
    drop(world.writes.sent(job, prepared, world.now));
    assert_eq!(world.writes.due(), Some(world.now + Duration::from_secs(20)));
}
