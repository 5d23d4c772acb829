//! `berth topo`: the node's GPUs, CPUs and slices, and who sits where.
//!
//! ```text
//! seating (what sits where) ─► matrix, answer (JSON), tree, map ─► paint, svg ─► file
//! ```
//!
//! Decides which form is asked for.

mod answer;
mod file;
#[cfg(test)]
mod fixtures;
mod map;
mod mark;
mod matrix;
mod paint;
mod seating;
mod svg;
#[cfg(test)]
mod tests;
mod text;
mod tree;

use engine::Node;

use self::seating::Seating;
use crate::cli::Topo;
use crate::view;

/// Prints or draws the node.
pub fn run(node: &Node, how: &Topo, json: bool) -> anyhow::Result<()> {
    let (inventory, grants) = (node.inventory()?, node.grants()?);
    let seating = Seating::of(&inventory, &grants, node.exclusive_cpus(), node.reserved_cpus());
    if json {
        return view::print_json(&answer::of(&seating, &inventory, &grants));
    }
    if let Some(path) = &how.svg {
        return file::write(path, &svg::of(&seating));
    }
    if how.tree {
        return view::print_lines(&tree::lines(&seating));
    }
    if how.map {
        let coloured = paint::is_wanted(how.color);
        let lines = map::lines(&seating);
        return view::print_made(lines.iter().map(|line| paint::painted(line, coloured)));
    }
    view::print_lines(&matrix::lines(&seating, &inventory, &grants))
}
