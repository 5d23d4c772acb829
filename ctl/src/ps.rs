//! `berth ps`: grants, one line each.

use std::time::{Duration, SystemTime};

use engine::Node;

use crate::table;
use crate::view::{self, GrantView, InstanceView, MemberView};

/// Prints every grant.
pub fn run(node: &Node, json: bool) -> anyhow::Result<()> {
    let grants: Vec<GrantView> = node.grants()?.iter().map(view::grant).collect();
    if json {
        return view::print_json(&serde_json::json!({ "grants": grants }));
    }
    if grants.is_empty() {
        return view::print_lines(&["No container holds a GPU by Berth.".to_owned()]);
    }
    let head = ["GRANT", "OWNER", "GPUS", "STATE", "DECIDED BY", "AGE", "CONTAINERS"];
    let rows: Vec<Vec<String>> = grants.iter().map(row).collect();
    view::print_lines(&table::lines(&head, &rows))
}

fn row(grant: &GrantView) -> Vec<String> {
    let gpus = match grant.instances.is_empty() {
        true => grant.gpus.iter().map(|gpu| gpu.index.to_string()).collect(),
        false => grant.instances.iter().map(|one| slices(grant, one)).collect::<Vec<_>>(),
    };
    let containers: Vec<&str> = grant.members.iter().map(MemberView::shown).collect();
    let mut state = grant.state.to_owned();
    if grant.unconfined {
        state.push_str(" (unconfined)");
    }
    vec![
        grant.grant.clone(),
        grant.owner.clone(),
        gpus.join(","),
        state,
        grant.decided_by.clone(),
        age(grant.created),
        containers.join(","),
    ]
}

/// `3:1g.10gb@2`: GPU, profile, first slice.
fn slices(grant: &GrantView, instance: &InstanceView) -> String {
    format!("{}:{}@{}", grant.index_of(instance), instance.profile, instance.start)
}

/// As kubectl shows it: `45s`, `12m`, `3h`, `9d`.
fn age(created: u64) -> String {
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(created);
    match SystemTime::now().duration_since(then).unwrap_or_default().as_secs() {
        seconds @ 0..=119 => format!("{seconds}s"),
        seconds @ 120..=7_199 => format!("{}m", seconds / 60),
        seconds @ 7_200..=172_799 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}
