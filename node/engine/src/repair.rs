//! Repair: from a ledger that cannot be believed to one that can, without giving anything twice.
//!
//! ```text
//! node lock ─► what can be read ─┐
//!              what lives        ┴► agrees: kept ─ disagrees or has none: rebuilt ─ contradicts the rest: dropped ─► exchanged
//! ```
//!
//! Decides which records stand. The kernel's word on what a container has beats the record's; what a living container has and cannot be
//! written down is said, and only lost where the operator says so. Must not judge the file: the ledger crate does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use device::Living;
use ledger::{Condition, Grant, Ledger, LedgerError, Lost, Salvage};
use plan::{Inventory, PciAddress};

use crate::admit::process_id;
use crate::audit::holdings;
use crate::claim::LOCK;
use crate::instances::migs_of;
use crate::rebuild::place;
use crate::unclaimed::{Unclaimed, unclaimed};
use crate::{Fault, Node};

/// What a repair found, and what it did or would do.
#[derive(Debug, Default)]
pub struct Repair {
    /// The ledger's file.
    pub path: PathBuf,
    /// What is wrong with it, as the end of a sentence; `None` where there is nothing to repair.
    pub damage: Option<String>,
    /// Lines that cannot be read.
    pub unreadable: Vec<Lost>,
    /// Records that stand as they were.
    pub kept: Vec<Arc<Grant>>,
    /// Records made anew from what living containers have.
    pub rebuilt: Vec<Arc<Grant>>,
    /// Records that can be read and do not stand, and why.
    pub dropped: Vec<(Arc<Grant>, String)>,
    /// What lives and would have no record, in words.
    pub unrecorded: Vec<String>,
    /// MIG instances that have none.
    pub unclaimed: Vec<Unclaimed>,
    /// Where the damaged one is now.
    pub saved: Option<PathBuf>,
    /// Whether the new one is in its place.
    pub is_done: bool,
}

impl Node {
    /// Repairs the ledger; with `dry_run` only says what would be done. With `force`, also where something that lives loses its record, so that
    /// what it holds may be given a second time.
    ///
    /// # Errors
    /// [`Fault`] for another version's ledger, and without `force` where something would lose its record; nothing is changed then.
    pub fn repair(&self, dry_run: bool, force: bool) -> Result<Repair, Fault> {
        let ledger = self.ledger()?;
        // May look at the node by a child: not under the lock.
        let inventory = self.inventory().unwrap_or_else(|fault| {
            tracing::warn!(%fault, "no record can be made anew");
            Inventory::default()
        });
        let mending = ledger.mend(LOCK)?;
        let mut repair = Repair { path: ledger.path(), ..Repair::default() };
        let living = device::living(&self.host)?;
        let salvage = match &mending.condition {
            Condition::Sound(_) => return Ok(repair),
            Condition::Missing if living.is_empty() => return Ok(repair),
            Condition::Missing => {
                repair.damage = Some("is missing, and containers have GPUs by it".to_owned());
                Salvage::default()
            }
            Condition::Foreign { format, known } => {
                let damage = ledger::Damage::Format { format: *format, known: *known };
                return Err(LedgerError::Unusable { path: repair.path, damage }.into());
            }
            Condition::Damaged { damage, salvage } => {
                repair.damage = Some(damage.to_string());
                repair.unreadable.clone_from(&salvage.lost);
                Salvage {
                    generation: salvage.generation,
                    grants: salvage.grants.clone(),
                    lost: Vec::new(),
                }
            }
        };
        let stands = self.sort_out(&ledger, &inventory, salvage.grants, &living, &mut repair)?;
        let slots = stands.iter().flat_map(|grant| grant.devices().slots);
        let claimed: Vec<_> = slots.map(|slot| slot.place()).collect();
        repair.unclaimed = unclaimed(&inventory, &claimed);
        if dry_run {
            return Ok(repair);
        }
        if !repair.unrecorded.is_empty() && !force {
            return Err(Fault::RepairLoses {
                path: repair.path,
                what: repair.unrecorded.join("; "),
            });
        }
        repair.saved = mending.replace(stands)?;
        repair.is_done = true;
        Ok(repair)
    }

    /// The records that are to stand, those that are surest first.
    fn sort_out(
        &self,
        ledger: &Ledger,
        inventory: &Inventory,
        read: Vec<Arc<Grant>>,
        living: &[Living],
        repair: &mut Repair,
    ) -> Result<Vec<Arc<Grant>>, Fault> {
        let mut stands: Vec<Arc<Grant>> = Vec::new();
        let mut rest = Vec::new();
        let mut unaccounted: Vec<&Living> = living.iter().collect();
        for grant in read {
            let own: Vec<&Living> = living.iter().filter(|one| is_of(one, &grant)).collect();
            if own.iter().any(|one| !has_what(one, &grant)) {
                repair.dropped.push((grant, "its container has something else".to_owned()));
            } else if own.is_empty() {
                rest.push(grant);
            } else {
                unaccounted.retain(|one| !own.contains(one));
                self.add((ledger, inventory), &mut stands, grant, repair)?;
            }
        }
        let kept = stands.len();
        let mut by_grant: BTreeMap<String, Vec<&Living>> = BTreeMap::new();
        for one in unaccounted {
            match self.grant_id(one) {
                Some(id) => by_grant.entry(id).or_default().push(one),
                None => {
                    repair.unrecorded.push(unknown(one, "whose container it is cannot be told"))
                }
            }
        }
        for (id, containers) in by_grant {
            match self.rebuilt(&id, &containers, inventory) {
                Ok(grant) => self.add((ledger, inventory), &mut stands, Arc::new(grant), repair)?,
                Err(why) => {
                    repair.unrecorded.extend(containers.iter().map(|one| unknown(one, &why)));
                }
            }
        }
        repair.kept.extend_from_slice(&stands[..kept]);
        repair.rebuilt.extend_from_slice(&stands[kept..]);
        let before = stands.len();
        for grant in rest {
            self.add((ledger, inventory), &mut stands, grant, repair)?;
        }
        repair.kept.extend_from_slice(&stands[before..]);
        for id in ledger.in_progress()? {
            if !stands.iter().any(|grant| grant.id == id) {
                let words = format!("grant {id}, whose container is being made or given back");
                repair.unrecorded.push(words);
            }
        }
        Ok(stands)
    }

    /// Adds a record that contradicts none of those that stand already.
    fn add(
        &self,
        (ledger, inventory): (&Ledger, &Inventory),
        stands: &mut Vec<Arc<Grant>>,
        grant: Arc<Grant>,
        repair: &mut Repair,
    ) -> Result<(), Fault> {
        let audit = |grants: &[Arc<Grant>]| plan::audit::audit(inventory, &holdings(grants));
        let told = [audit(stands), audit(std::slice::from_ref(&grant))].concat();
        stands.push(Arc::clone(&grant));
        let mut words = ledger::contradictions(stands);
        // What is wrong with it by itself is no reason: what it holds is held.
        let between = audit(stands).into_iter().filter(|finding| !told.contains(finding));
        words.extend(between.map(|finding| finding.to_string()));
        words.dedup();
        if words.is_empty() {
            return Ok(());
        }
        stands.pop();
        if self.lives(ledger, &grant)? {
            repair.unrecorded.push(format!("{} ({})", grant.label, grant.id));
        }
        repair.dropped.push((grant, words.join("; ")));
        Ok(())
    }
}

/// Whether the container is one of the grant's members, as this process or by its id.
fn is_of(one: &Living, grant: &Grant) -> bool {
    let started = process_id(one.pid).ok();
    let own = place(one);
    grant.members.iter().any(|member| {
        let is_process = member.init.is_some() && member.init == started;
        let is_named = own.as_ref().is_some_and(|(namespace, id)| {
            *namespace == grant.owner.namespace && *id == member.container
        });
        is_process || is_named
    })
}

/// Whether the container is shown just what the grant says.
fn has_what(one: &Living, grant: &Grant) -> bool {
    let mut shown: Vec<PciAddress> = one.gpus.clone();
    let mut given: Vec<PciAddress> = grant.gpus.iter().map(|gpu| gpu.pci).collect();
    shown.sort_unstable();
    given.sort_unstable();
    let mut migs = migs_of(grant);
    let mut shown_migs = one.migs.clone();
    migs.sort_unstable();
    shown_migs.sort_unstable();
    shown == given && shown_migs == migs
}

fn unknown(one: &Living, why: &str) -> String {
    let gpus: Vec<String> = one.gpus.iter().map(ToString::to_string).collect();
    format!("the container of process {} with the GPUs at {} ({why})", one.pid, gpus.join(", "))
}
