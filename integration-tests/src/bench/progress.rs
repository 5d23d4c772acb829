//! Says how far a part of the bench is, now and then, on stderr.

use std::time::{Duration, Instant};

/// One part's progress.
pub struct Progress {
    name: &'static str,
    runs: usize,
    said: Instant,
}

impl Progress {
    /// Says that the part begins.
    pub fn new(name: &'static str, runs: usize) -> Progress {
        eprintln!("{name}: {runs} a side");
        Progress { name, runs, said: Instant::now() }
    }

    /// After `done` iterations, of which `warm_up` do not count.
    pub fn step(&mut self, done: usize, warm_up: usize) {
        if self.said.elapsed() < Duration::from_secs(10) {
            return;
        }
        self.said = Instant::now();
        eprintln!("{}: {} of {}", self.name, done.saturating_sub(warm_up), self.runs);
    }
}
