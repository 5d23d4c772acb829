//! Boots, and ledgers that cannot be believed: the one makes everything void, the others nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use engine::{Admission, Denied, Rootfs};
use integration_tests::actors::{Container, Place, owner};
use integration_tests::suite::Suite;
use simnode::Change;

use crate::actor;

pub fn trials(suite: &mut Suite) {
    suite.plain("boots::a_reboot_voids_what_was_held_and_no_other_nodes", None, reboot);
    suite.plain(
        "boots::a_ledger_that_cannot_be_believed_is_neither_used_nor_replaced",
        None,
        damage,
    );
}

fn admit(place: &Place, container: &Container) -> Result<Result<Admission, Denied>> {
    let prepared = place.prepare(container)?;
    let (bundle, ask) = prepared.read()?;
    let before = fs::read(prepared.bundle.join("config.json"))?;
    let said = place.node.admit(&ask, &bundle, &Rootfs::default(), None);
    if said.is_err() {
        let after = fs::read(prepared.bundle.join("config.json"))?;
        ensure!(before == after, "the bundle of a container that was denied has changed");
    }
    Ok(said)
}

fn reboot() -> Result<()> {
    let (rebooted, other) = (Place::up(actor(), "p5")?, Place::up(actor(), "p5")?);
    let mut kept = Vec::new();
    for place in [&rebooted, &other] {
        let mut admission = admit(place, &Container::alone("before", 5))??;
        let init = place.init()?;
        place.node.arm(&mut admission, init.pid(), None)?;
        kept.push(init);
    }
    let old = rebooted.boot()?.join("ledger.json");
    let was = fs::read(&old)?;
    rebooted.gpus.sim.change(Change::Reboot)?;
    ensure!(rebooted.grants()?.is_empty(), "the last boot's grants count");
    // The process of the last boot still lives here, and its number means nothing there.
    rebooted.all_can_be_had()?;
    rebooted.node.release(owner("before"))?;
    ensure!(fs::read(&old)? == was, "the last boot's ledger was written to");
    rebooted.node.reconcile(false)?;
    rebooted.audit()?;
    ensure!(!old.exists(), "what the last boot left is void and stays for nobody");
    ensure!(other.grants()?.len() == 1, "the other node holds {:?}", other.grants()?);
    ensure!(
        matches!(admit(&other, &Container::alone("more", 4))?, Err(Denied::Refused(_))),
        "there is no room"
    );
    other.audit()
}

/// What somebody may have made of the file, and a word of the complaint.
const DAMAGES: [(&str, &str); 7] = [
    (r#"{"format":2,"generation":7,"holdings":{}}"#, "format 2"),
    (r#"{"format":1,"generation":7,"grants":[],"more":1}"#, "more"),
    (r#"{"format":1,"generation":7,"gra"#, "ledger.json"),
    ("not JSON", "ledger.json"),
    ("", "empty"),
    ("[]", "ledger.json"),
    ("\0\0\0\0\0\0\0\0", "ledger.json"),
];

fn damage() -> Result<()> {
    let place = Place::up(actor(), "p5")?;
    let mut making = admit(&place, &Container::alone("making", 2))??;
    let ledger = place.boot()?.join("ledger.json");
    let sound = fs::read(&ledger)?;
    for (text, word) in DAMAGES {
        fs::write(&ledger, text)?;
        let before = fs::metadata(&ledger)?.modified()?;
        let tried = all_refuse(&place, &mut making, word);
        tried.with_context(|| format!("with {text:?}"))?;
        let same =
            fs::read(&ledger)? == text.as_bytes() && fs::metadata(&ledger)?.modified()? == before;
        ensure!(same, "{text:?} was written over");
    }
    fs::write(&ledger, &sound)?;
    fs::set_permissions(&ledger, fs::Permissions::from_mode(0o644))?;
    all_refuse(&place, &mut making, "0644").context("others may read it")?;
    fs::set_permissions(&ledger, fs::Permissions::from_mode(0o600))?;
    linked(&place, &mut making, &ledger)?;
    // As it was, it counts again.
    let init = place.init()?;
    place.node.arm(&mut making, init.pid(), None)?;
    ensure!(place.grants()?.len() == 1, "the container that was being made has its grant");
    place.audit()
}

fn linked(place: &Place, making: &mut Admission, ledger: &Path) -> Result<()> {
    let elsewhere = place.gpus.path("elsewhere");
    fs::copy(ledger, &elsewhere)?;
    let sound = fs::read(ledger)?;
    fs::remove_file(ledger)?;
    symlink(&elsewhere, ledger)?;
    all_refuse(place, making, "symbolic link")?;
    ensure!(
        fs::read(&elsewhere)? == sound && fs::read_link(ledger)? == elsewhere,
        "it was replaced"
    );
    fs::remove_file(ledger)?;
    fs::write(ledger, sound)?;
    Ok(fs::set_permissions(ledger, fs::Permissions::from_mode(0o600))?)
}

/// That every verb refuses, names the file and says this word.
fn all_refuse(place: &Place, making: &mut Admission, word: &str) -> Result<()> {
    let node = &place.node;
    let init = place.init()?;
    let admitted = match admit(place, &Container::alone("next", 1))? {
        Ok(_) => bail!("it was admitted"),
        Err(Denied::Refused(refusal)) => bail!("it is no matter of room: {refusal}"),
        Err(Denied::Broken(fault)) => fault.to_string(),
    };
    let ways = ["`berth ledger repair`", "until Berth is upgraded"];
    ensure!(ways.iter().any(|way| admitted.contains(way)), "no way out: {admitted}");
    let said = [
        ("admit", Err(admitted)),
        ("release", node.release(owner("making")).map_err(|fault| fault.to_string())),
        ("clean up", node.clean_up(owner("making")).map_err(|fault| fault.to_string())),
        ("reconcile", node.reconcile(false).map(drop).map_err(|fault| fault.to_string())),
        ("arm", node.arm(making, init.pid(), None).map_err(|fault| fault.to_string())),
        ("list", node.grants().map(drop).map_err(|fault| fault.to_string())),
        ("verify", node.verify().map(drop).map_err(|fault| fault.to_string())),
    ];
    for (verb, outcome) in said {
        let Err(words) = outcome else { bail!("{verb} went on") };
        ensure!(words.contains("ledger.json") && words.contains(word), "{verb}: {words}");
    }
    Ok(())
}
