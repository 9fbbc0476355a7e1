//! What the network does to messages, and the order in which things happen.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A machine: peers and servers alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Node(pub(crate) usize);

/// How bad it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// One way, at least and at most.
    pub(crate) latency: (Duration, Duration),
    /// How many of a thousand messages are lost, come twice, or are overtaken. Links are reliable in the real world;
    /// engines should not depend on it.
    pub(crate) lost: u32,
    pub(crate) doubled: u32,
    pub(crate) overtaken: u32,
    /// How many of a thousand signals never arrive.
    pub(crate) signals_lost: u32,
}

impl Weather {
    pub(crate) const FAIR: Self =
        Self { latency: (ms(20), ms(60)), lost: 0, doubled: 0, overtaken: 0, signals_lost: 0 };
    pub(crate) const FOUL: Self =
        Self { latency: (ms(5), ms(400)), lost: 20, doubled: 20, overtaken: 50, signals_lost: 200 };
}

#[derive(Debug)]
struct Due<T> {
    at: Instant,
    number: u64,
    what: T,
}

impl<T> PartialEq for Due<T> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<T> Eq for Due<T> {}

impl<T> Ord for Due<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<T> PartialOrd for Due<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Everything that will happen, in order.
#[derive(Debug)]
pub(crate) struct Agenda<T> {
    heap: BinaryHeap<Reverse<Due<T>>>,
    number: u64,
}

impl<T> Agenda<T> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), number: 0 }
    }

    pub(crate) fn add(&mut self, at: Instant, what: T) {
        self.number += 1;
        self.heap.push(Reverse(Due { at, number: self.number, what }));
    }

    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|due| due.0.at)
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        self.heap.pop().map(|due| due.0.what)
    }
}

/// Who reaches whom, how long it takes, and what gets lost.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) dice: StdRng,
    pub(crate) weather: Weather,
    cut: BTreeSet<(Node, Node)>,
}

impl Network {
    pub(crate) fn new(seed: u64, weather: Weather) -> Self {
        Self { dice: StdRng::seed_from_u64(seed), weather, cut: BTreeSet::new() }
    }

    pub(crate) fn chance(&mut self, per_mille: u32) -> bool {
        self.dice.random_range(0..1000) < per_mille
    }

    pub(crate) fn between(&mut self, (least, most): (Duration, Duration)) -> Duration {
        least + (most - least).mul_f64(self.dice.random_range(0.0..1.0))
    }

    pub(crate) fn latency(&mut self) -> Duration {
        self.between(self.weather.latency)
    }

    pub(crate) fn cut(&mut self, a: Node, b: Node) {
        self.cut.insert((a.min(b), a.max(b)));
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    pub(crate) fn reaches(&self, a: Node, b: Node) -> bool {
        !self.cut.contains(&(a.min(b), a.max(b)))
    }
}
