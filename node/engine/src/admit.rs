//! Admission: from what a bundle says to a grant and an edited bundle, or to a refusal.
//!
//! ```text
//! Ask::read ─► observe ─► prior allocation? ─► trust ─► [ node lock: decide ─► Reserved ] ─► links, trees ─► edits ─► stored
//! ```
//!
//! Decides the order, and that an admission which fails anywhere leaves neither a grant nor a changed bundle. Must not mount, signal or
//! run anything in the container.

use std::fs::{Metadata, symlink_metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use device::{DriverTree, Placing};
use ledger::{Grant, InProgress, Known, Ledger};
use oci_specs::Bundle;
use plan::trust::{
    OtherAllocator, env_may_ask, may_ask, may_have_extras, may_hold, may_name_devices,
    other_matters,
};
use plan::visible::Visible;
use plan::{Capabilities, Gpu, GrantId, Inventory, NodeSet, Pinning, Refusal, Want, Warning};

use crate::ask::Ask;
use crate::claim::{Claim, Facts, Taken, take};
use crate::crash::point;
use crate::dress::mounted_beside;
use crate::edits::{Parts, Variables, edits, joined};
use crate::extras::Brought;
use crate::pinning::{Around, left_alone, may_be_pinned};
use crate::prior::{self, Prior};
use crate::{Denied, Fault, Node};
use crate::{instances, mode};

/// What an admitted container was given. Empty for a container that got nothing.
#[derive(Debug, Default)]
pub struct Admission {
    given: Option<Box<Given>>,
}

/// The parts of an admission that later steps need.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) grant: GrantId,
    pub(crate) container: String,
    /// Whether this admission made the grant, so that undoing it takes the grant back.
    pub(crate) fresh: bool,
    /// The mark of such a grant, until the container is armed.
    pub(crate) progress: Option<InProgress>,
    /// The ledger as it was left, until it is changed again.
    pub(crate) known: Option<Known>,
    pub(crate) env: Variables,
    /// The driver's files, unless another has brought them.
    pub(crate) tree: Option<DriverTree>,
    pub(crate) capabilities: Capabilities,
    pub(crate) driver: String,
    /// Whether `tree` comes as a layer of the root filesystem rather than by binds.
    pub(crate) layered: bool,
    /// Whether the root is the container's own, to be written to.
    pub(crate) own_root: bool,
    pub(crate) placings: Vec<Placing>,
    /// The memory nodes that its processes prefer.
    pub(crate) preferred: NodeSet,
    /// The pod's UID and the container's name in it, as the kubelet knows it.
    pub(crate) pod: Option<(String, String)>,
    /// What the container runs without.
    pub(crate) notes: Vec<String>,
    /// Where something is mounted while the OCI runtime makes the container, if its root may be dressed meanwhile: the runtime then neither
    /// runs a hook, which may be an `ldconfig`, nor mounts anything on the files that are written.
    pub(crate) mounted_beside: Option<Vec<String>>,
}

impl Given {
    /// Something that the container runs without: for the log now, and for whoever asks the ledger later.
    pub(crate) fn note(&mut self, warning: &Warning) {
        tracing::warn!(container = self.container, %warning, "best effort");
        self.notes.push(warning.to_string());
    }
}

/// The root filesystem that the container is about to get.
#[derive(Debug, Clone, Default)]
pub struct Rootfs {
    /// Directories of the overlay that is going to be mounted, upper ones first; empty when it is no overlay or is mounted already.
    pub layers: Vec<PathBuf>,
    /// Whether it is mounted for this container and goes with it. Another's, which was there before, is left as it is.
    pub own: bool,
}

impl Admission {
    /// Directory to be added as the uppermost lower layer of the container's overlay.
    pub fn layer(&self) -> Option<&Path> {
        let given = self.given.as_ref().filter(|given| given.layered)?;
        given.tree.as_ref().map(|tree| tree.path.as_path())
    }

    /// The grant; `None` for a container that got nothing.
    pub fn grant(&self) -> Option<&GrantId> {
        self.given.as_ref().map(|given| &given.grant)
    }

    /// The NUMA nodes whose memory its processes are to prefer; none where that is left alone.
    pub fn preferred_memory(&self) -> Vec<u32> {
        self.given.as_ref().map_or_else(Vec::new, |given| given.preferred.iter().collect())
    }

    /// Something that the container runs without, found out by the caller before it is armed.
    pub fn lacks(&mut self, what: &str, why: &str) {
        if let Some(given) = self.given_mut() {
            given.note(&Warning::Without { what: what.to_owned(), why: why.to_owned() });
        }
    }

    pub(crate) fn given(&self) -> Option<&Given> {
        self.given.as_deref()
    }

    pub(crate) fn given_mut(&mut self) -> Option<&mut Given> {
        self.given.as_deref_mut()
    }
}

/// What is to be taken, after precedence and trust.
enum Decision {
    Nothing,
    Prior(Box<Prior>),
    Asked(Want),
    FromEnv(Want),
}

/// What is to be taken, and with what.
pub(crate) struct Claimed<'a> {
    pub(crate) claim: Claim<'a>,
    prior_edits: Option<oci_specs::Edits>,
    driver: plan::Driver,
}

/// What a grant is carried out with.
struct Work<'a> {
    ask: &'a Ask,
    inventory: &'a Inventory,
    tree: Option<&'a DriverTree>,
    layered: bool,
    prior_edits: Option<oci_specs::Edits>,
    pinning: &'a Pinning,
    capabilities: &'a Capabilities,
    extras: Brought,
}

impl Node {
    /// Decides about `ask` and, if it is granted, edits the bundle. May block: on the node's locks, on a child that looks at the node.
    ///
    /// `sandbox_init` is the PID of the pod's first process, if there is a pod.
    ///
    /// # Errors
    /// [`Denied`]; nothing is held and the bundle is as it was.
    pub fn admit(
        &self,
        ask: &Ask,
        bundle: &Bundle,
        rootfs: &Rootfs,
        sandbox_init: Option<u32>,
    ) -> Result<Admission, Denied> {
        point("admit.start");
        if !prior::can_matter(self, ask)? {
            return Ok(Admission::default());
        }
        // Looked at before anything is written beside it.
        let ledger = self.ledger()?;
        let ahead = read_ahead(&ledger);
        let mut inventory = self.inventory()?;
        point("admit.observed");
        let Some(Claimed { claim, prior_edits, driver }) = self.claimed(ask, &inventory)? else {
            return Ok(Admission::default());
        };
        let capabilities = capabilities(ask);
        let extras = Brought::of(self, ask)?;
        // Slow at most once per driver version; before anything is held.
        let tree = (!ask.evidence.libraries)
            .then(|| device::driver_tree(&self.host, &self.tool, &driver, &capabilities))
            .transpose()?;
        point("admit.prepared");
        let around = Around::of(self, ask)?;
        let sandbox_init = sandbox_init.map(process_id).transpose()?;
        let mut known = ahead.and_then(|thread| thread.join().ok()?);
        let taken = loop {
            let (inventory_now, capabilities) = (&inventory, &capabilities);
            let around = &around;
            let facts = Facts { ask, around, inventory: inventory_now, capabilities, sandbox_init };
            match take(self, &ledger, known.take(), &claim, facts) {
                Err(Denied::Refused(refusal)) => {
                    let switched = mode::switch_for(self, &ledger, &claim, ask, &inventory)?;
                    inventory = switched.ok_or(refusal)?;
                }
                taken => break taken?,
            }
        };
        let Taken { grant, progress, known } = taken;
        point("admit.taken");
        let (mut known, fresh) = (Some(known), progress.is_some());
        let layered = tree.as_ref().is_some_and(|tree| fits(tree, &rootfs.layers));
        let mounted_beside = mounted_beside(bundle.spec(), prior_edits.as_ref());
        let mut notes = Vec::new();
        let pinning = grant.members.iter().find(|member| member.container == ask.container);
        let pinning = pinning.map(|member| member.pinning.clone()).unwrap_or_default();
        if let Some(why) = left_alone(&pinning) {
            tracing::warn!(container = ask.container, why, "not pinned");
            notes.push(why);
        }
        let work = Work {
            ask,
            inventory: &inventory,
            tree: tree.as_ref(),
            layered,
            prior_edits,
            pinning: &pinning,
            capabilities: &capabilities,
            extras,
        };
        let made = instances::make(self, &ledger, &grant, &mut known, fresh);
        let (env, placings) = match made.and_then(|grant| self.apply(work, &grant, bundle)) {
            Ok(applied) => applied,
            Err(error) => {
                if let Err(fault) = self.take_back(&grant.id, &ask.container, fresh, progress) {
                    tracing::warn!(container = ask.container, %fault, "left for reconcile");
                }
                return Err(error);
            }
        };
        Ok(Admission {
            given: Some(Box::new(Given {
                grant: grant.id.clone(),
                container: ask.container.clone(),
                fresh,
                progress,
                known,
                env,
                tree,
                capabilities,
                driver: driver.version,
                layered,
                own_root: rootfs.own,
                placings,
                preferred: pinning.preferred,
                pod: ask.asker.pod.as_ref().map(|pod| (pod.uid.clone(), pod.container.clone())),
                notes,
                mounted_beside,
            })),
        })
    }

    /// What is claimed, by whom it was decided, and the driver that it takes. `None` where nothing is.
    pub(crate) fn claimed<'a>(
        &self,
        ask: &'a Ask,
        inventory: &Inventory,
    ) -> Result<Option<Claimed<'a>>, Denied> {
        let (claim, prior_edits) = match self.decide(ask, inventory)? {
            Decision::Nothing => return Ok(None),
            Decision::Prior(prior) => {
                let Prior { by, given, computes, edits } = *prior;
                (Claim::External { by, given, computes, request: ask.request.as_ref() }, edits)
            }
            Decision::Asked(want) => (Claim::Ours { want, request: ask.request.as_ref() }, None),
            Decision::FromEnv(want) => (Claim::Ours { want, request: None }, None),
        };
        let driver = inventory.driver.clone().ok_or(Refusal::NoDriver)?;
        Ok(Some(Claimed { claim, prior_edits, driver }))
    }

    /// Precedence and trust: already injected > CDI annotations > our annotations > environment.
    fn decide(&self, ask: &Ask, inventory: &Inventory) -> Result<Decision, Denied> {
        let prior = prior::find(self, ask, inventory)?;
        if let Some(request) = &ask.request {
            if request.opted_out && prior.is_none() {
                return Ok(Decision::Nothing);
            }
            let asker = ask.asking();
            let other = match prior.is_none() && other_matters(request, &asker, &self.policy) {
                true => device::kubelet::owner_of_gpus(&self.kubelet)?,
                false => None,
            };
            may_ask(request, &asker, &self.policy, &OtherAllocator(other), prior.is_some())?;
            may_be_pinned(self, request, &asker)?;
            may_have_extras(&request.extras_key(), &request.extras, &asker, &self.policy)?;
        }
        if let Some(prior) = prior {
            if let Some(request) = &ask.request {
                request.agrees_with(&prior.given, prior.by, inventory)?;
            }
            return Ok(Decision::Prior(Box::new(prior)));
        }
        if let Some(request) = &ask.request {
            let want = request.want.clone().ok_or_else(|| request.needs_a_claim())?;
            return Ok(Decision::Asked(want));
        }
        match ask.evidence.visible.as_deref() {
            Some(value) if env_may_ask(&ask.asker, &self.policy) => {
                const VARIABLE: &str = "NVIDIA_VISIBLE_DEVICES";
                let visible = Visible::parse(value);
                let wanted = visible.asks(value, inventory, &self.policy)?;
                let Some(want) = wanted else { return Ok(Decision::Nothing) };
                if visible != Visible::All {
                    may_name_devices(VARIABLE, &ask.asker, &self.policy)?;
                }
                may_hold(VARIABLE, &ask.asking(), &self.policy)?;
                Ok(Decision::FromEnv(want))
            }
            _ => Ok(Decision::Nothing),
        }
    }

    /// Carries a grant out as far as that can be done before the container is there. What later steps need comes back: the
    /// environment, and what is put in place when the container is armed.
    fn apply(
        &self,
        work: Work<'_>,
        grant: &Grant,
        bundle: &Bundle,
    ) -> Result<(Variables, Vec<Placing>), Denied> {
        let Work { ask, inventory, tree, layered, prior_edits, pinning, capabilities, extras } =
            work;
        let gpus = gpus_of(grant, inventory);
        let migs = instances::migs_of(grant);
        let mut nodes = device::device_nodes(&self.host, &gpus, &migs, capabilities)?;
        nodes.extend(extras.nodes);
        if ask.has_user_namespace {
            device::stand_on_the_host(&self.host, &nodes).map_err(|(path, why)| {
                let why =
                    format!("{why}, and a container with a user namespace gets the host's own");
                Refusal::DeviceNode { path, why }
            })?;
        }
        // Of the node, not of the container: `berth doctor` tells of them as long as they are missing.
        for problem in device::char_links(&self.host, &nodes) {
            tracing::warn!(container = ask.container, %problem, "a link in /dev/char could not be made");
        }
        point("admit.links");
        let proc = device::proc_tree(&self.host, &gpus, &migs)?;
        point("admit.trees");
        let gpu_cpus = self.gpu_cpus(grant, &ask.container, &gpus, inventory, pinning);
        let parts = Parts {
            pinning,
            gpu_cpus,
            host: &self.host,
            grant,
            nodes: &nodes,
            tree,
            layered,
            already_void: ask.variable("NVIDIA_VISIBLE_DEVICES") == Some("void"),
            confined: ask.asker.privileged.is_none(),
            extra_mounts: extras.mounts,
        };
        let all = joined(prior_edits.unwrap_or_default(), edits(&parts));
        let env = all.env.clone();
        bundle.store(&all)?;
        point("admit.stored");
        Ok((env, Placing::proc_driver(&proc)))
    }

    /// Undoes an admission whose container could not be made. Safe to call for one that gave nothing.
    ///
    /// # Errors
    /// [`Fault`] when the ledger cannot be written; reconcile will finish it.
    pub fn undo(&self, admission: Admission) -> Result<(), Fault> {
        point("undo.start");
        match admission.given {
            Some(given) => {
                self.forget(&given.grant, &given.container);
                self.take_back(&given.grant, &given.container, given.fresh, given.progress)
            }
            None => Ok(()),
        }
    }
}

/// Ledgers from this size on are read on a thread of their own, while the node is looked at: starting one takes as long as reading so much.
const WORTH_A_THREAD: u64 = 16 << 10;

/// Reads the ledger beside what comes before the decision. What cannot be read is left to whoever holds the lock, who says so.
fn read_ahead(ledger: &Ledger) -> Option<JoinHandle<Option<Known>>> {
    if ledger.size() < WORTH_A_THREAD {
        return None;
    }
    let ledger = ledger.clone();
    thread::Builder::new().name("read-ahead".into()).spawn(move || ledger.look().ok()).ok()
}

/// The GPUs of a grant, those of its MIG devices among them, as they are now.
fn gpus_of<'a>(grant: &Grant, inventory: &'a Inventory) -> Vec<&'a Gpu> {
    grant.gpus.iter().filter_map(|given| inventory.gpu(&given.uuid)).collect()
}

/// Driver capabilities: the annotation's, else what the image's variable leaves of the default.
pub(crate) fn capabilities(ask: &Ask) -> Capabilities {
    let annotated = ask.request.as_ref().and_then(|request| request.capabilities.as_ref());
    plan::capability::effective(annotated, ask.variable("NVIDIA_DRIVER_CAPABILITIES"))
}

/// A process as the ledger knows it.
pub(crate) fn process_id(pid: u32) -> Result<ledger::ProcessId, Fault> {
    let start = ledger::liveness::start_time(pid);
    let start_time = start.map_err(|source| Fault::Process { pid, source })?.unwrap_or_default();
    Ok(ledger::ProcessId { pid, start_time })
}

/// Whether the tree can be laid over these layers (uppermost first): a directory of ours over a symlink or a file of the image's would hide
/// it, and over a directory of another owner or mode would take that from the container, since an overlay shows those of the uppermost.
fn fits(tree: &DriverTree, layers: &[PathBuf]) -> bool {
    let is_like_ours = |meta: &Metadata| {
        meta.uid() == 0 && meta.gid() == 0 && meta.mode() & 0o7777 == DriverTree::DIRECTORY_MODE
    };
    let fits = |directory: &PathBuf| {
        let found = layers.iter().filter_map(|layer| symlink_metadata(layer.join(directory)).ok());
        let mut found = found.peekable();
        found.peek().is_none_or(is_like_ours) && found.all(|meta| meta.is_dir())
    };
    !layers.is_empty() && tree.directories.iter().all(fits)
}
