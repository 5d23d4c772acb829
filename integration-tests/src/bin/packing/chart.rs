//! The cells as a dot plot in SVG: a row for each, a dot for each policy, ticks for what none can reach.
//!
//! Decides the drawing only.

use std::fmt::Write;

use integration_tests::bench::page::{self, Style, WIDTH};

use crate::Cell;
use crate::policy::{self, Policy};

const LABELS: f64 = 150.0;
const RIGHT: f64 = 30.0;
const ROW: f64 = 26.0;
const TOP: f64 = 96.0;
const BOTTOM: f64 = 40.0;

const STYLE: Style = Style {
    light: "\
.label { font-size: 13px }
.first-fit { fill: #8c959f } .best-fit { fill: #5a7fb8 } .spread { fill: #c9a227 } .driver { fill: #a5628f } .berth { fill: #1a7f64 }
.repacking, .bound { stroke: #1f2328; stroke-width: 2 } .bound { stroke-dasharray: 2 2 }",
    dark: ".berth { fill: #3fb58f } .repacking, .bound { stroke: #e6edf3 }",
};

/// The chart of all cells.
pub fn render(cells: &[Cell]) -> String {
    let height = TOP + ROW * cells.len() as f64 + BOTTOM;
    let least = cells.iter().flat_map(|cell| &cell.shares).copied().fold(1.0, f64::min);
    let scale = Scale { least: (least * 20.0).floor() / 20.0 };
    let about = "Slices given of those asked for, by policy";
    let title = "MIG slices given of those asked for (farther right is better)";
    let mut svg = page::open(height, about, STYLE, title);
    legend(&mut svg);
    grid(&mut svg, &scale, height);
    for (index, cell) in cells.iter().enumerate() {
        row(&mut svg, &scale, TOP + ROW * index as f64 + ROW / 2.0, cell);
    }
    svg.push_str("</svg>\n");
    svg
}

/// Where a share lies on the page.
struct Scale {
    least: f64,
}

impl Scale {
    fn x(&self, share: f64) -> f64 {
        LABELS + (WIDTH - LABELS - RIGHT) * (share - self.least) / (1.0 - self.least)
    }
}

fn legend(svg: &mut String) {
    let names = policy::ALL.map(Policy::name).into_iter().chain(["bound"]);
    for (index, name) in names.enumerate() {
        let x = 32.0 + 102.0 * index as f64;
        mark(svg, name, x, 58.0);
        let _ = writeln!(svg, "<text class=\"small\" x=\"{:.1}\" y=\"62\">{name}</text>", x + 10.0);
    }
}

fn grid(svg: &mut String, scale: &Scale, height: f64) {
    let tenths = (0..=20).map(|n| f64::from(n) / 20.0).filter(|share| *share >= scale.least);
    for share in tenths {
        let label = format!("{:.0} %", share * 100.0);
        page::grid_line(svg, scale.x(share), (TOP, height - BOTTOM), &label);
    }
}

fn row(svg: &mut String, scale: &Scale, middle: f64, cell: &Cell) {
    let _ = writeln!(
        svg,
        "<text class=\"label\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{} {}</text>",
        LABELS - 12.0,
        middle + 4.5,
        cell.mix,
        cell.load,
    );
    for (policy, share) in policy::ALL.iter().zip(&cell.shares) {
        mark(svg, policy.name(), scale.x(*share), middle);
    }
    mark(svg, "bound", scale.x(cell.bound), middle);
}

fn mark(svg: &mut String, name: &str, x: f64, y: f64) {
    let _ = match name {
        "repacking" | "bound" => writeln!(
            svg,
            "<line class=\"{name}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
            y - 7.0,
            y + 7.0
        ),
        _ => writeln!(svg, "<circle class=\"{name}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\"/>"),
    };
}
