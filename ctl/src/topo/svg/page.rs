//! SVG as far as the map needs it.
//!
//! Decides the style, how text is escaped and what fits. Source: SVG 2 (text, title), XML 1.0 (which characters there may be).

use std::fmt::Write;

use super::WIDTH;
use crate::topo::mark::{COLOURS, Tone};
use crate::topo::text;
use crate::view;

/// Fills for grants; the page's dark text reads on each.
const FILLS: [&str; COLOURS] = [
    "#6cb6ff", "#f7a35c", "#5fc98b", "#f38ba8", "#b79bf2", "#e8c547", "#4fc3c8", "#d6967e",
    "#a3c644", "#8da2f0", "#e59be0", "#9fb0bd",
];

const STYLE: &str = "\
text, tspan { fill: #1f2328; font-size: 12px }
text { font-family: system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif }
.page { fill: #ffffff; stroke: #d1d9e0 } .room { fill: #f6f8fa; stroke: #d1d9e0 }
.title { font-size: 17px; font-weight: 600 } .head { font-size: 13px; font-weight: 600 } .small { fill: #59636e }
.tiny { font-size: 10px; fill: #59636e } .line { stroke: #8b949e; fill: none }
.free { fill: #ffffff; stroke: #d1d9e0 } .pool { fill: #ffffff; stroke: #1a7f64; stroke-dasharray: 3 2 }
.aside { fill: #d8dee4 } .foreign { fill: url(#hatch); stroke: #8b949e } .hatch { stroke: #8b949e; stroke-opacity: 0.4 }
.near { fill-opacity: 0.42 }
.sign { font-size: 11px; text-anchor: middle } .on { fill: #1f2328 } .bold { font-weight: 600 }
";

const DARK: &str = "\
text, tspan { fill: #e6edf3 } .page { fill: #0d1117; stroke: #3d444d } .room { fill: #151b23; stroke: #3d444d }
.small, .tiny { fill: #9198a1 } .free { fill: #0d1117; stroke: #3d444d } .pool { fill: #0d1117; stroke: #3fb58f }
.aside { fill: #2f3742 } .on { fill: #0d1117 }
";

/// A page that is being drawn.
#[derive(Debug)]
pub struct Page {
    body: String,
}

/// Where a rectangle is.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    /// Left.
    pub x: f64,
    /// Top.
    pub y: f64,
    /// Width.
    pub w: f64,
    /// Height.
    pub h: f64,
}

impl Page {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { body: String::new() }
    }

    /// A line of text. `class` is of the style above, or several.
    pub fn text(&mut self, class: &str, x: f64, y: f64, words: &str) {
        let words = escaped(words);
        self.put(format_args!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{words}</text>"));
    }

    /// A line of text in two parts, each with its class.
    pub fn texts(&mut self, x: f64, y: f64, parts: [(&str, &str); 2]) {
        let [one, other] = parts.map(|(class, words)| (class, escaped(words)));
        self.put(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\"><tspan class=\"{}\">{}</tspan><tspan class=\"{}\" dx=\"10\">{}</tspan></text>",
            one.0, one.1, other.0, other.1,
        ));
    }

    /// A rectangle with round corners.
    pub fn rect(&mut self, class: &str, frame: Frame, round: f64) {
        let Frame { x, y, w, h } = frame;
        self.put(format_args!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" rx=\"{round}\"/>"
        ));
    }

    /// A line through these points.
    pub fn line(&mut self, points: &[(f64, f64)]) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.put(format_args!("<polyline class=\"line\" points=\"{}\"/>", points.join(" ")));
    }

    /// A cell that `who` hold: in the colour of each of them side by side, else as nobody's.
    pub fn cell(&mut self, frame: Frame, tone: Tone, who: &[usize]) {
        const STRIPES: usize = 4;
        let round = 3.0;
        let class = match tone {
            Tone::Free => "free",
            Tone::Pool => "pool",
            Tone::Reserved | Tone::Isolated => "aside",
            Tone::Foreign => "foreign",
            Tone::Own(nth) => return self.rect(&format!("h{}", nth % COLOURS), frame, round),
            Tone::Near(nth) => return self.rect(&format!("h{} near", nth % COLOURS), frame, round),
            Tone::Several(_) => {
                let shown = who.len().min(STRIPES);
                let wide = frame.w / shown.max(1) as f64;
                for (at, nth) in who.iter().take(shown).enumerate() {
                    let stripe = Frame { x: frame.x + wide * at as f64, w: wide, ..frame };
                    self.rect(&format!("h{} near", nth % COLOURS), stripe, 0.0);
                }
                return;
            }
        };
        self.rect(class, frame, round);
    }

    /// What follows until [`Self::end`] is told by `words` to whoever points at it or has it read aloud.
    pub fn begin(&mut self, words: &str) {
        let words = escaped(words);
        self.put(format_args!("<g><title>{words}</title>"));
    }

    /// Ends what [`Self::begin`] began.
    pub fn end(&mut self) {
        self.put(format_args!("</g>"));
    }

    /// The whole, `height` high.
    pub fn finished(self, height: f64, about: &str) -> String {
        let fills: String = FILLS
            .iter()
            .enumerate()
            .map(|(nth, fill)| {
                format!(".h{nth} {{ fill: {fill} }}{}", if nth % 6 == 5 { "\n" } else { " " })
            })
            .collect();
        let about = escaped(about);
        let frame = (WIDTH - 1.0, height - 1.0);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
             role=\"img\" aria-labelledby=\"about\">\n<title id=\"about\">{about}</title>\n<style>\n{STYLE}{fills}\
             @media (prefers-color-scheme: dark) {{\n{DARK}}}\n</style>\n\
             <defs><pattern id=\"hatch\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
             <line class=\"hatch\" x1=\"0\" y1=\"0\" x2=\"0\" y2=\"6\"/></pattern></defs>\n\
             <rect class=\"page\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\"/>\n{}</svg>\n",
            frame.0, frame.1, self.body,
        )
    }

    fn put(&mut self, what: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.body, "{what}");
    }
}

/// The text, cut so that it takes no more than `room` at this size of letters. Readers' fonts differ: it is an estimate on the safe side.
pub fn fitting(words: &str, size: f64, room: f64) -> String {
    let columns = (room / (size * 0.58)).max(0.0);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "no picture is that wide"
    )]
    text::cut(words, columns as usize)
}

/// Whether it takes no more than that as it is.
pub fn fits(words: &str, size: f64, room: f64) -> bool {
    text::width(words) as f64 * size * 0.58 <= room
}

/// As XML has it. What XML may not have is written out, with all else that is not seen.
fn escaped(words: &str) -> String {
    let mut text = String::new();
    for one in view::visible(words).chars() {
        match one {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&quot;"),
            _ => text.push(one),
        }
    }
    text
}
