//! What must be held, by a plain map: the oracle. It shares no code with the engine, and knows of a claim who has it and who lives.

use std::collections::{BTreeMap, BTreeSet};

/// Whose a claim is: the sandbox (the container itself outside pods), and the container's name where the claim is its own.
pub type Key = (String, Option<String>);

/// One claim that is held.
#[derive(Debug, Clone, Default)]
pub struct Claim {
    /// The grant's id: another claim of the same owner's is another one.
    pub grant: String,
    pub gpus: BTreeSet<String>,
    pub external: bool,
    /// Whether a container of it was ever armed.
    pub applied: bool,
    /// Its containers, by id.
    pub members: BTreeMap<String, Stage>,
}

/// How far a container has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A living process is making it; whether that process took the claim, and so marked it.
    Making { marked: bool },
    /// Whoever made it has died or has given up.
    Abandoned,
    /// Armed: its first process has this PID.
    Armed(u32),
}

/// An admission: a container's part in a grant.
#[derive(Debug, Clone)]
pub struct Of {
    pub key: Key,
    pub id: String,
    pub grant: String,
    /// Whether the grant was made for it.
    pub fresh: bool,
}

/// Everything that is held, and what lives.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// GPUs that the node has.
    pub gpus: BTreeSet<String>,
    pub held: BTreeMap<Key, Claim>,
    /// PIDs of living first processes.
    pub alive: BTreeSet<u32>,
    /// First process of each sandbox that there ever was.
    pub sandboxes: BTreeMap<String, u32>,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub enum Asked {
    Number(usize),
    Exactly(BTreeSet<String>),
    /// Another allocator has given these.
    Given(BTreeSet<String>),
}

/// What the answer must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// What the owner has already.
    Joined(BTreeSet<String>),
    /// Something that fits.
    Granted,
    Refused,
}

impl Model {
    /// Whether a claim's owner lives: in a pod the sandbox, else the container; and whoever makes a container of it, where that is marked.
    pub fn lives(&self, key: &Key) -> bool {
        let Some(claim) = self.held.get(key) else { return false };
        let sandbox = self.sandboxes.get(&key.0).is_some_and(|pid| self.alive.contains(pid));
        sandbox
            || claim.members.values().any(|stage| match stage {
                Stage::Making { marked } => *marked,
                Stage::Abandoned => false,
                Stage::Armed(pid) => self.alive.contains(pid),
            })
    }

    /// GPUs that are held.
    fn taken(&self, by_external_too: bool) -> BTreeSet<String> {
        let counts = |claim: &&Claim| by_external_too || !claim.external;
        self.held.values().filter(counts).flat_map(|claim| claim.gpus.clone()).collect()
    }

    fn fits(&self, asked: &Asked) -> bool {
        let known = |gpus: &BTreeSet<String>| gpus.is_subset(&self.gpus);
        match asked {
            Asked::Number(number) => self.gpus.difference(&self.taken(true)).count() >= *number,
            Asked::Exactly(gpus) => known(gpus) && gpus.is_disjoint(&self.taken(true)),
            Asked::Given(gpus) => known(gpus) && gpus.is_disjoint(&self.taken(false)),
        }
    }

    /// What the dead hold is gone; whose that was.
    pub fn bury(&mut self) -> Vec<Key> {
        let dead: Vec<Key> = self.held.keys().filter(|key| !self.lives(key)).cloned().collect();
        self.held.retain(|key, _| !dead.contains(key));
        dead
    }

    /// A container asks. What the dead hold is buried if it is in the way, and by its former self at any rate.
    pub fn ask(&mut self, key: &Key, asked: &Asked) -> Answer {
        if self.lives(key) {
            let held = self.held[key].gpus.clone();
            return if held.is_subset(&self.gpus) { Answer::Joined(held) } else { Answer::Refused };
        }
        self.held.remove(key);
        if !self.fits(asked) {
            self.bury();
        }
        match self.fits(asked) {
            true => Answer::Granted,
            false => Answer::Refused,
        }
    }

    /// A container is admitted.
    pub fn admitted(&mut self, key: Key, id: &str, claim: Claim) {
        let marked = !self.held.contains_key(&key);
        let claim = self.held.entry(key).or_insert(claim);
        claim.members.insert(id.to_owned(), Stage::Making { marked });
    }

    /// Whether a container is a member of this grant.
    pub fn is_member(&self, of: &Of) -> bool {
        let claim = self.held.get(&of.key).filter(|claim| claim.grant == of.grant);
        claim.is_some_and(|claim| claim.members.contains_key(&of.id))
    }

    fn claim(&mut self, of: &Of) -> Option<&mut Claim> {
        self.held.get_mut(&of.key).filter(|claim| claim.grant == of.grant)
    }

    /// A container's making is taken back: the claim too, if it was made for it or no container ever had it.
    pub fn undone(&mut self, of: &Of) {
        let Some(claim) = self.claim(of) else { return };
        claim.members.remove(&of.id);
        if claim.members.is_empty() && (of.fresh || !claim.applied) {
            self.held.remove(&of.key);
        }
    }

    /// Whoever made a container has died.
    pub fn abandoned(&mut self, of: &Of) {
        if let Some(stage) = self.claim(of).and_then(|claim| claim.members.get_mut(&of.id))
            && matches!(stage, Stage::Making { .. })
        {
            *stage = Stage::Abandoned;
        }
    }

    /// A container is deleted: what it owned is free unless another still runs with it, and what it shared is one member's less. The last
    /// member of a pod whose sandbox has gone before leaves nobody.
    pub fn released(&mut self, id: &str) {
        let Self { held, alive, sandboxes, .. } = self;
        held.retain(|(sandbox, _), claim| {
            let was_member = claim.members.remove(id).is_some();
            if claim.members.values().any(|stage| runs(*stage, alive)) {
                return true;
            }
            let orphaned = sandboxes.get(sandbox).is_some_and(|pid| !alive.contains(pid));
            sandbox != id && !(was_member && claim.members.is_empty() && orphaned)
        });
    }

    /// The shim of a container has died, and containerd cleans up: whoever is dead holds nothing any more, whoever runs keeps it.
    pub fn cleaned(&mut self, id: &str) {
        for claim in self.held.values_mut() {
            if claim.members.get(id).is_some_and(|stage| !runs(*stage, &self.alive)) {
                claim.members.remove(id);
            }
        }
        self.bury();
    }

    /// A container is armed.
    pub fn armed(&mut self, of: &Of, pid: u32) {
        if let Some(claim) = self.claim(of) {
            claim.applied = true;
            claim.members.insert(of.id.clone(), Stage::Armed(pid));
        }
    }
}

/// Whether a container's first process lives.
fn runs(stage: Stage, alive: &BTreeSet<u32>) -> bool {
    matches!(stage, Stage::Armed(pid) if alive.contains(&pid))
}
