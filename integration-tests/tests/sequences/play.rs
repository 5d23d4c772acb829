//! One random sequence: what is done to the node, what the model says of it, and the comparison after each step.
//!
//! Decides how each operation is carried out, on both sides. Which come when is `random`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result, bail, ensure};
use engine::{Admission, Denied, Rootfs, State};
use integration_tests::actors::{Container, Init, Place, Prepared, owner};
use simnode::Change;

use crate::compare;
use crate::model::{Answer, Asked, Claim, Key, Model, Of, Stage};

/// A sequence that is going on.
pub struct Play<'a> {
    pub place: &'a Place,
    pub model: Model,
    /// What was done so far.
    pub told: Vec<String>,
    /// Admissions in this process, by containers.
    pub admitted: BTreeMap<String, (Of, Prepared, Admission)>,
    inits: BTreeMap<u32, Init>,
    /// Minors of the node's GPUs, those that were lost included.
    pub minors: BTreeMap<String, u32>,
    lost: Vec<String>,
}

/// A container that is to be admitted.
pub struct Wish {
    pub container: Container,
    pub key: Key,
    pub asked: Asked,
}

impl<'a> Play<'a> {
    pub fn begin(place: &'a Place) -> Result<Self> {
        let inventory = place.node.inventory()?;
        let minors: BTreeMap<String, u32> =
            inventory.gpus.iter().map(|gpu| (gpu.uuid.to_string(), gpu.minor)).collect();
        let model = Model { gpus: minors.keys().cloned().collect(), ..Model::default() };
        let (told, admitted, inits) = Default::default();
        Ok(Self { place, model, told, admitted, inits, minors, lost: Vec::new() })
    }

    /// A first process of somebody's.
    fn start(&mut self) -> Result<u32> {
        let init = self.place.init()?;
        let pid = init.pid();
        self.inits.insert(pid, init);
        self.model.alive.insert(pid);
        Ok(pid)
    }

    pub fn kill(&mut self, pid: u32) {
        self.inits.remove(&pid);
        self.model.alive.remove(&pid);
    }

    pub fn new_sandbox(&mut self, id: &str) -> Result<()> {
        let pid = self.start()?;
        self.model.sandboxes.insert(id.to_owned(), pid);
        Ok(())
    }

    /// Admits a container in this process.
    pub fn admit(&mut self, wish: Wish) -> Result<()> {
        let Wish { container, key, asked } = wish;
        let prepared = self.place.prepare(&container)?;
        let (bundle, ask) = prepared.read()?;
        let sandbox = container.pod.as_ref().and_then(|pod| self.model.sandboxes.get(&pod.sandbox));
        let said = self.place.node.admit(&ask, &bundle, &Rootfs::default(), sandbox.copied());
        let expected = self.model.ask(&key, &asked);
        let admission = match (said, &expected) {
            (Err(Denied::Refused(refusal)), Answer::Refused) => {
                return self.reasons(&refusal.to_string(), &asked);
            }
            (Ok(admission), Answer::Granted | Answer::Joined(_)) => admission,
            (Ok(_), Answer::Refused) => bail!("{asked:?} was admitted, and there is no room"),
            (Err(denied), _) => bail!("{asked:?} was denied, and there is room: {denied}"),
        };
        let grant = admission.grant().context("it has a grant")?.to_string();
        let gpus = self.gpus_of(&grant)?;
        match (&expected, &asked) {
            (Answer::Joined(held), _) => ensure!(gpus == *held, "joined {held:?} and has {gpus:?}"),
            (_, Asked::Number(number)) => ensure!(gpus.len() == *number, "{number} are {gpus:?}"),
            (_, Asked::Exactly(these) | Asked::Given(these)) => {
                ensure!(gpus == *these, "{these:?} are {gpus:?}");
            }
        }
        let external = matches!(asked, Asked::Given(_));
        let claim = Claim { grant: grant.clone(), gpus, external, ..Claim::default() };
        let fresh = expected == Answer::Granted;
        self.model.admitted(key.clone(), &prepared.id, claim);
        let of = Of { key, id: prepared.id.clone(), grant, fresh };
        self.admitted.insert(of.id.clone(), (of, prepared, admission));
        Ok(())
    }

    /// A refusal names every candidate.
    fn reasons(&self, refusal: &str, asked: &Asked) -> Result<()> {
        // A claim that is joined is refused for what it holds, not for want of room.
        let is_gone = refusal.contains("is no longer on this node");
        if let (Asked::Number(_), false) = (asked, is_gone) {
            let missing = self.model.gpus.iter().find(|gpu| !refusal.contains(gpu.as_str()));
            ensure!(missing.is_none(), "{missing:?} is not in: {refusal}");
        }
        Ok(())
    }

    fn gpus_of(&self, grant: &str) -> Result<BTreeSet<String>> {
        let grants = self.place.grants()?;
        let found = grants.iter().find(|one| one.id.to_string() == grant);
        let found = found.with_context(|| format!("{grant} is in the ledger"))?;
        Ok(found.gpus.iter().map(|gpu| gpu.uuid.to_string()).collect())
    }

    /// Dresses and arms a container; the claim that it has is perhaps no longer there.
    pub fn arm(&mut self, id: &str) -> Result<()> {
        let Some((of, prepared, mut admission)) = self.admitted.remove(id) else { return Ok(()) };
        self.place.node.dress(&mut admission, &prepared.rootfs())?;
        let pid = self.start()?;
        let armed = self.place.node.arm(&mut admission, pid, None);
        match (armed, self.model.is_member(&of)) {
            (Ok(()), true) => self.model.armed(&of, pid),
            (Err(fault), false) => {
                ensure!(fault.to_string().contains("no longer"), "{fault}");
                self.kill(pid);
            }
            (Ok(()), false) => bail!("{id} was armed, and its claim has gone"),
            (Err(fault), true) => bail!("{id} was not armed, and its claim stands: {fault}"),
        }
        self.admitted.insert(id.to_owned(), (of, prepared, admission));
        Ok(())
    }

    pub fn undo(&mut self, id: &str) -> Result<()> {
        let Some((of, _, admission)) = self.admitted.remove(id) else { return Ok(()) };
        self.place.node.undo(admission)?;
        self.model.undone(&of);
        Ok(())
    }

    /// As if the process had died that made a container: its lock is free, its mark stays.
    pub fn abandon(&mut self, id: &str) -> Result<()> {
        let Some((of, _, admission)) = self.admitted.remove(id) else { return Ok(()) };
        let name = self.place.boot()?.join(format!("{}.admitting", of.grant));
        let marked = name.exists();
        drop(admission);
        if marked && !name.exists() {
            let ledger = self.place.node.ledger()?;
            let id = of.grant.parse().map_err(|_| anyhow::anyhow!("{} is an id", of.grant))?;
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&name)?;
            ensure!(!ledger.is_in_progress(&id)?, "a mark that nobody holds counts");
        }
        self.model.abandoned(&of);
        Ok(())
    }

    pub fn release(&mut self, id: &str) -> Result<()> {
        self.place.node.release(owner(id))?;
        self.model.released(id);
        Ok(())
    }

    /// containerd's clean-up after a shim that was killed, whether or not the container has ended with it.
    pub fn clean_up(&mut self, id: &str) -> Result<()> {
        self.place.node.clean_up(owner(id))?;
        self.model.cleaned(id);
        Ok(())
    }

    pub fn reconcile(&mut self) -> Result<()> {
        let before = self.place.grants()?;
        let looked = self.place.node.reconcile(true)?;
        ensure!(self.place.grants()? == before, "a dry run changed the ledger");
        let report = self.place.node.reconcile(false)?;
        ensure!(looked.released == report.released, "the dry run said {:?}", looked.released);
        let dead = self.model.bury();
        ensure!(report.released.len() == dead.len(), "{dead:?} had died: {:?}", report.released);
        self.place.audit_without(&self.lost)
    }

    /// A GPU falls off the bus, and the node is looked at anew.
    pub fn lose(&mut self, gpu: &str) -> Result<()> {
        self.place.gpus.sim.change(Change::Lost { gpu: gpu.to_owned(), lost: true })?;
        // Nothing tells the node that it has: it is looked at anew for another reason.
        let cache = self.place.boot()?.join("inventory.json");
        if cache.exists() {
            fs::remove_file(cache)?;
        }
        self.lost.push(gpu.to_owned());
        self.model.gpus.remove(gpu);
        Ok(())
    }

    /// The driver is loaded anew, and finds every GPU.
    pub fn reload(&mut self) -> Result<()> {
        self.place.gpus.sim.change(Change::Load)?;
        self.lost.clear();
        self.model.gpus = self.minors.keys().cloned().collect();
        Ok(())
    }

    /// A process of its own makes a container outside pods and dies somewhere on the way. What it reached stands in the ledger.
    pub fn die_elsewhere(
        &mut self,
        container: &Container,
        point: Option<&str>,
        kill_after: usize,
    ) -> Result<()> {
        let prepared = self.place.prepare(container)?;
        let pid = self.start()?;
        let arm = format!("arm {pid}");
        let mut actor = self.place.actor(&prepared, None, &["admit", "dress", &arm], point)?;
        for _ in 0..kill_after {
            if actor.next_answer()?.is_empty() {
                break;
            }
        }
        if point.is_none() {
            actor.kill()?;
        }
        actor.end()?;
        let key = (prepared.id.clone(), None);
        for grant in self.place.grants()? {
            let owner = (grant.owner.sandbox.clone(), grant.owner.container.clone());
            if owner == key && !self.model.held.contains_key(&key) {
                let applied = grant.state == State::Applied;
                let stage = if applied { Stage::Armed(pid) } else { Stage::Abandoned };
                let gpus = grant.gpus.iter().map(|gpu| gpu.uuid.to_string()).collect();
                let members = BTreeMap::from([(prepared.id.clone(), stage)]);
                let claim =
                    Claim { grant: grant.id.to_string(), gpus, external: false, applied, members };
                self.model.held.insert(key.clone(), claim);
            }
        }
        // It may have buried others before it died.
        let standing: BTreeSet<Key> = self
            .place
            .grants()?
            .into_iter()
            .map(|g| (g.owner.sandbox, g.owner.container))
            .collect();
        let buried: Vec<Key> =
            self.model.held.keys().filter(|key| !standing.contains(key)).cloned().collect();
        for key in buried {
            ensure!(!self.model.lives(&key), "{key:?} lost its claim to another's death");
            self.model.held.remove(&key);
        }
        Ok(())
    }

    /// That the ledger is what the model says.
    pub fn compare(&self) -> Result<()> {
        compare::same(&self.place.grants()?, &self.model)
    }

    /// Everybody dies; nothing may be left.
    pub fn end(mut self) -> Result<()> {
        let containers: Vec<String> = self.admitted.keys().cloned().collect();
        for id in containers {
            self.abandon(&id)?;
        }
        self.inits.clear();
        self.model.alive.clear();
        self.reload()?;
        self.reconcile()?;
        self.compare()?;
        ensure!(self.model.held.is_empty(), "the dead hold {:?}", self.model.held);
        self.place.all_can_be_had()?;
        self.place.audit()?;
        for bundle in fs::read_dir(self.place.gpus.path("bundles"))? {
            fs::remove_dir_all(bundle?.path())?;
        }
        Ok(())
    }
}
