//! The page that charts are drawn on, in SVG: its frame, its title, and its grid.
//!
//! Decides what all charts have in common. Colours follow the reader's light or dark preference. Must not know what is drawn.

use std::fmt::Write;

/// Of every page.
pub const WIDTH: f64 = 760.0;

const LIGHT: &str = "\
text { font-family: system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328 }
.page { fill: #ffffff; stroke: #d1d9e0 } .title { font-size: 16px; font-weight: 600 }
.small { font-size: 12px; fill: #59636e } .grid { stroke: #e4e8ec }
";

const DARK: &str = "\
text { fill: #e6edf3 } .page { fill: #0d1117; stroke: #3d444d } .small { fill: #9198a1 } .grid { stroke: #262c34 }
";

/// What one chart adds to the style, for each preference.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// In the light.
    pub light: &'static str,
    /// What is different in the dark.
    pub dark: &'static str,
}

/// An empty page; to be ended with `</svg>`. `about` says what is seen to those who cannot see it.
pub fn open(height: f64, about: &str, style: Style, title: &str) -> String {
    let Style { light, dark } = style;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"{about}\">\n<style>\n{LIGHT}{light}\n\
         @media (prefers-color-scheme: dark) {{\n{DARK}{dark}\n}}\n</style>\n\
         <rect class=\"page\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\"/>\n\
         <text class=\"title\" x=\"24\" y=\"32\">{title}</text>\n",
        WIDTH - 1.0,
        height - 1.0,
    )
}

/// A line from `top` to `bottom` with its label below.
pub fn grid_line(svg: &mut String, x: f64, (top, bottom): (f64, f64), label: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(
        svg,
        "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{}\"/>\
         <text class=\"small\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
        top - 8.0,
        bottom + 4.0,
        bottom + 22.0,
    );
}
