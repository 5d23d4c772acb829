//! The ratios as a bar chart in SVG: one bar per comparison, and a line where both are equal.
//! Decides the drawing only.

use std::fmt::Write;

use super::figures::{Comparison, Figures};
use super::page::{self, Style, WIDTH};

const LABELS: f64 = 250.0;
const VALUES: f64 = 70.0;
const ROW: f64 = 26.0;
const BAR: f64 = 14.0;
const TOP: f64 = 78.0;
const BOTTOM: f64 = 44.0;
/// A bar past this many times the reference is cut short: the number at the edge still says it.
const LONGEST: f64 = 2.0;

const STYLE: Style = Style {
    light: "\
.label, .value { font-size: 13px } .value { font-variant-numeric: tabular-nums }
.one { stroke: #1f2328; stroke-width: 1.5 }
.less { fill: #1a7f64 } .more { fill: #c4501b } .aim { stroke: #1f2328; stroke-width: 2 }",
    dark: ".one { stroke: #e6edf3 } .less { fill: #3fb58f } .more { fill: #e5834d } .aim { stroke: #e6edf3 }",
};

/// The chart of every comparison that has a ratio. `subtitle` says what was compared with what.
pub fn render(figures: &Figures, subtitle: &str) -> String {
    let rows: Vec<(&Comparison, f64)> = figures
        .comparisons
        .iter()
        .filter_map(|comparison| Some((comparison, comparison.ratio()?)))
        .collect();
    let height = TOP + ROW * rows.len() as f64 + BOTTOM;
    let scale = Scale::over(rows.iter().map(|(_, ratio)| *ratio));

    let about = "Berth's medians as ratios of the reference's";
    let title = "Berth / containerd-shim-runc-v2, medians (shorter is better)";
    let mut svg = page::open(height, about, STYLE, title);
    let _ = writeln!(svg, "<text class=\"small\" x=\"24\" y=\"52\">{}</text>", escape(subtitle));
    grid(&mut svg, &scale, height);
    for (index, (comparison, ratio)) in rows.iter().enumerate() {
        bar(&mut svg, &scale, index, comparison, *ratio);
    }
    one_line(&mut svg, &scale, height);
    svg.push_str("</svg>\n");
    svg
}

/// Where a ratio lies on the page.
struct Scale {
    most: f64,
}

impl Scale {
    /// Reaches a little past the longest bar, and past the line of equality in any case.
    fn over(ratios: impl Iterator<Item = f64>) -> Scale {
        let longest = ratios.fold(1.0, f64::max).min(LONGEST);
        Scale { most: (longest * 1.05 * 10.0).ceil() / 10.0 }
    }

    fn x(&self, ratio: f64) -> f64 {
        LABELS + (WIDTH - LABELS - VALUES) * (ratio.min(self.most) / self.most)
    }
}

fn grid(svg: &mut String, scale: &Scale, height: f64) {
    let quarters = (1..).map(|n| f64::from(n) * 0.25).take_while(|ratio| *ratio <= scale.most);
    for ratio in std::iter::once(0.0).chain(quarters) {
        page::grid_line(svg, scale.x(ratio), (TOP, height - BOTTOM), &ratio.to_string());
    }
}

fn bar(svg: &mut String, scale: &Scale, index: usize, comparison: &Comparison, ratio: f64) {
    let middle = TOP + ROW * index as f64 + ROW / 2.0;
    let (left, right) = (scale.x(0.0), scale.x(ratio));
    let class = if ratio <= 1.0 { "less" } else { "more" };
    let _ = writeln!(
        svg,
        "<text class=\"label\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
         <rect class=\"{class}\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\"/>\
         <text class=\"value\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{ratio:.2}</text>",
        LABELS - 12.0,
        middle + 4.5,
        escape(&comparison.title),
        middle - BAR / 2.0,
        right - left,
        WIDTH - 24.0,
        middle + 4.5,
    );
    if let Some(aim) = comparison.aim {
        let x = scale.x(aim);
        let _ = writeln!(
            svg,
            "<line class=\"aim\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"><title>aim: \
             {aim}</title></line>",
            middle - BAR / 2.0 - 3.0,
            middle + BAR / 2.0 + 3.0,
        );
    }
}

/// Drawn last, so that it crosses the bars.
fn one_line(svg: &mut String, scale: &Scale, height: f64) {
    let x = scale.x(1.0);
    let _ = writeln!(
        svg,
        "<line class=\"one\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{}\"/>\
         <text class=\"small\" x=\"24\" y=\"{}\">thin marks: what was aimed for</text>",
        TOP - 8.0,
        height - BOTTOM + 4.0,
        height - 16.0,
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::figures::{Side, Unit};
    use super::*;

    fn figures(ratios: &[f64]) -> Figures {
        let comparison = |(index, ratio): (usize, &f64)| {
            let mut comparison = Comparison::new(format!("n{index}"), "a < b & c", Unit::Ms);
            comparison.push(Side::Berth, *ratio);
            comparison.push(Side::Reference, 1.0);
            comparison
        };
        Figures { comparisons: ratios.iter().enumerate().map(comparison).collect(), facts: vec![] }
    }

    #[test]
    fn each_comparison_gets_a_bar_and_worse_ones_another_colour() {
        let svg = render(&figures(&[0.5, 1.5]), "x");
        assert_eq!(svg.matches("class=\"less\"").count(), 1);
        assert_eq!(svg.matches("class=\"more\"").count(), 1);
        assert!(svg.contains(">0.50</text>") && svg.contains(">1.50</text>"));
    }

    #[test]
    fn names_are_escaped() {
        let svg = render(&figures(&[1.0]), "this & <that>");
        assert!(svg.contains("a &lt; b &amp; c") && svg.contains("this &amp; &lt;that&gt;"));
    }

    #[test]
    fn no_bar_leaves_the_page_however_bad_the_ratio() {
        let scale = Scale::over([40.0].into_iter());
        assert!(scale.x(40.0) <= WIDTH - VALUES);
        assert!(scale.x(1.0) < scale.x(2.0));
    }

    #[test]
    fn what_has_no_ratio_has_no_bar() {
        let nothing = Comparison::new("x", "x", Unit::Ms);
        let svg = render(&Figures { comparisons: vec![nothing], facts: vec![] }, "x");
        assert!(!svg.contains("class=\"label\""));
    }
}
