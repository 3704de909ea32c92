//! Which steps there are, what must hold after each, and the search through all orders.

use std::collections::HashSet;
use std::sync::Arc;

use dataplane::pipeline::messages::{FromLcore, ToLcore};
use dataplane::pipeline::snapshot::Snapshot;

use crate::post::Post;
use crate::rig::{LCORES, Lcore, PACKETS, counted, snapshot};

/// What the control core sends, in this order: to which lcore, and the generation to adopt (0: a
/// question besides).
const SENDS: [(usize, u8); 5] = [(0, 2), (1, 2), (0, 0), (0, 3), (1, 3)];
/// Bursts that arrive at each lcore.
const BURSTS: [u8; LCORES] = [2, 1];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// The control core sends the next message.
    Send,
    /// The control core takes an answer of this lcore.
    Collect(usize),
    /// This lcore serves a message.
    Serve(usize),
    /// This lcore delivers its answers, as far as there is room.
    Deliver(usize),
    /// This lcore judges a burst.
    Burst(usize),
}

/// What happened, as far as the future depends on it: counts of steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Progress {
    sent: usize,
    lcores: [Part; LCORES],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Part {
    served: usize,
    delivered: usize,
    collected: usize,
    bursts: u8,
    bursts_since: u8,
}

impl Progress {
    /// Messages sent to an lcore so far: the generations in them.
    fn sent_to(&self, lcore: usize) -> impl Iterator<Item = u8> {
        SENDS[..self.sent].iter().filter(move |(to, _)| *to == lcore).map(|(_, what)| *what)
    }

    /// The generation in force on an lcore.
    fn in_force(&self, lcore: usize) -> u8 {
        let served = self.sent_to(lcore).take(self.lcores[lcore].served);
        served.filter(|generation| *generation > 0).last().unwrap_or(1)
    }

    /// How many snapshots the control core has back from an lcore.
    fn retired(&self, lcore: usize) -> usize {
        let collected = self.sent_to(lcore).take(self.lcores[lcore].collected);
        collected.filter(|generation| *generation > 0).count()
    }

    /// The steps that can be taken now.
    fn steps(&self, bound: usize) -> Vec<Step> {
        let mut steps = Vec::new();
        if let Some(&(to, _)) = SENDS.get(self.sent)
            && self.sent_to(to).count() - self.lcores[to].served < bound
        {
            steps.push(Step::Send);
        }
        for (lcore, part) in self.lcores.iter().enumerate() {
            if part.delivered > part.collected {
                steps.push(Step::Collect(lcore));
            }
            if self.sent_to(lcore).count() > part.served {
                steps.push(Step::Serve(lcore));
            }
            if part.served > part.delivered {
                steps.push(Step::Deliver(lcore));
            }
            if part.bursts < BURSTS[lcore] {
                steps.push(Step::Burst(lcore));
            }
        }
        steps
    }

    /// Who holds a published generation: the messages to lcores, the lcores and the answers.
    fn holders(&self, generation: u8) -> usize {
        let holds = |lcore: &usize| {
            let known = generation == 1 || self.sent_to(*lcore).any(|sent| sent == generation);
            known && self.retired(*lcore) < generation as usize
        };
        (0..LCORES).filter(holds).count()
    }
}

/// What all runs share: lcores that start over, and the snapshots.
struct World {
    lcores: [Lcore; LCORES],
    posts: [Post; LCORES],
    all: [Arc<Snapshot>; 3],
    judged: [[u64; LCORES]; 3],
}

/// One run: the real lcores and mailboxes, and what the control core keeps.
struct Run<'a> {
    lcores: &'a mut [Lcore; LCORES],
    posts: &'a mut [Post; LCORES],
    bound: usize,
    progress: Progress,
    /// By generation - 1; the control core lets go of one that both lcores have retired.
    kept: [Option<Arc<Snapshot>>; 3],
    /// The same snapshots: one holder more of each.
    all: &'a [Arc<Snapshot>; 3],
    /// Packets that each generation judged, by lcore, in this run and those before.
    judged: &'a mut [[u64; LCORES]; 3],
}

impl<'a> Run<'a> {
    fn new(world: &'a mut World, bound: usize) -> Run<'a> {
        let World { lcores, posts, all, judged } = world;
        posts.iter_mut().for_each(Post::clear);
        lcores.iter_mut().for_each(|lcore| lcore.reset(&all[0]));
        Run {
            lcores,
            posts,
            bound,
            progress: Progress::default(),
            kept: all.clone().map(Some),
            all,
            judged,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Send => self.send(),
            Step::Collect(lcore) => self.collect(lcore),
            Step::Serve(lcore) => {
                let before = self.progress.in_force(lcore);
                let message = self.posts[lcore].receive().expect("a message");
                self.lcores[lcore].serve(message);
                let part = &mut self.progress.lcores[lcore];
                part.served += 1;
                let after = self.progress.in_force(lcore);
                assert!(after >= before);
                if after > before {
                    self.progress.lcores[lcore].bursts_since = 0;
                }
            }
            Step::Deliver(lcore) => {
                let (post, part) = (&mut self.posts[lcore], &mut self.progress.lcores[lcore]);
                self.lcores[lcore].deliver(|message| {
                    post.answer(message)?;
                    part.delivered += 1;
                    Ok(())
                });
                let full = part.delivered - part.collected == self.bound;
                assert!(full || part.delivered == part.served, "an answer was kept back");
            }
            Step::Burst(lcore) => self.burst(lcore),
        }
        self.check_holders();
    }

    fn send(&mut self) {
        let (to, generation) = SENDS[self.progress.sent];
        let message = match generation.checked_sub(1) {
            None => ToLcore::Fold,
            Some(at) => ToLcore::Adopt(self.kept[at as usize].clone().expect("published")),
        };
        self.posts[to].send(message);
        self.progress.sent += 1;
    }

    /// Answers come in the order of questions; the last to retire a snapshot ends it.
    fn collect(&mut self, lcore: usize) {
        let answers = self.progress.lcores[lcore].collected;
        let question = self.progress.sent_to(lcore).nth(answers);
        let retired = self.progress.retired(lcore);
        match (self.posts[lcore].collect().expect("an answer"), question) {
            (FromLcore::Folded, Some(0)) => {}
            (FromLcore::Retired(old), Some(1..)) => {
                assert_eq!(old.generation as usize, retired + 1, "retired out of order");
            }
            other => panic!("{other:?}"),
        }
        self.progress.lcores[lcore].collected += 1;
        for generation in 1..=3 {
            let all = (0..LCORES).all(|lcore| self.progress.retired(lcore) >= generation);
            let at = generation - 1;
            if all && let Some(old) = self.kept[at].take() {
                let packets = [0, 1].map(|lcore| counted(&old, lcore));
                assert_eq!(packets, self.judged[at].map(|n| [n; 2]), "its final counters");
                drop(old);
                assert_eq!(Arc::strong_count(&self.all[at]), 1, "the control core frees it");
            }
        }
    }

    fn burst(&mut self, lcore: usize) {
        let generation = self.progress.in_force(lcore);
        let shown = self.lcores[lcore].burst();
        assert_eq!(shown, [[generation; 2]; PACKETS], "judged by another snapshot, or by two");
        self.judged[generation as usize - 1][lcore] += PACKETS as u64;
        let part = &mut self.progress.lcores[lcore];
        part.bursts += 1;
        part.bursts_since += 1;
    }

    fn check_holders(&self) {
        for generation in 1..=3u8 {
            let at = generation as usize - 1;
            let wanted = self.progress.holders(generation) + self.kept[at].is_some() as usize;
            assert_eq!(Arc::strong_count(&self.all[at]) - 1, wanted, "holders of {generation}");
        }
    }

    /// Nothing is left to do.
    fn check_end(&mut self) {
        let progress = self.progress;
        assert_eq!(progress.sent, SENDS.len());
        assert!((0..LCORES).all(|lcore| progress.in_force(lcore) == 3));
        for (part, bursts) in progress.lcores.iter().zip(BURSTS) {
            assert!(part.collected == part.served && part.bursts == bursts);
        }
        assert!(self.kept[0].is_none() && self.kept[1].is_none());
        let last = self.kept[2].take().expect("it is in force");
        for (number, lcore) in self.lcores.iter_mut().enumerate() {
            lcore.serve(ToLcore::Fold);
            assert_eq!(counted(&last, number), [self.judged[2][number]; 2]);
        }
    }
}

/// Takes every step from every state, each run as far as it finds something new.
pub(crate) fn explore(bound: usize) {
    let all = [1, 2, 3].map(snapshot);
    let mut world = World {
        lcores: Lcore::both(&all[0]),
        posts: [(); LCORES].map(|()| Post::new(bound)),
        all,
        judged: Default::default(),
    };
    let mut tried: HashSet<(Progress, Step)> = HashSet::new();
    let mut starts: Vec<Vec<Step>> = vec![Vec::new()];
    let (mut runs, mut ends) = (0, 0);
    while let Some(mut path) = starts.pop() {
        let mut run = Run::new(&mut world, bound);
        path.iter().for_each(|&step| run.take(step));
        runs += 1;
        loop {
            let steps = run.progress.steps(bound);
            if steps.is_empty() {
                run.check_end();
                ends += 1;
                break;
            }
            let state = run.progress;
            let mut new = steps.into_iter().filter(|&step| tried.insert((state, step)));
            let Some(next) = new.next() else { break };
            for other in new {
                starts.push(path.iter().copied().chain([other]).collect());
            }
            run.take(next);
            path.push(next);
        }
    }
    println!("{} steps from different states in {runs} runs, {ends} to the end", tried.len());
    assert!(ends > 0 && tried.len() > 1000);
}
