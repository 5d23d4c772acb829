//! `berth topo --svg`: the map as a picture that stands for itself: text as text, colours by the reader's light or dark preference.
//!
//! Decides where everything is; `page` knows SVG. Must not know files.

mod legend;
mod page;
mod rooms;

use super::seating::Seating;
use page::Page;

/// Of the picture, and of what is around its edge.
const WIDTH: f64 = 960.0;
const EDGE: f64 = 24.0;

/// The picture.
pub fn of(seating: &Seating) -> String {
    let mut page = Page::new();
    let mut y = 36.0;
    page.text("title", EDGE, y, "Who sits where on this node");
    y += 22.0;
    page.text("small", EDGE, y, &seating.head());
    y += 18.0;
    if seating.driver.is_some() {
        for room in &seating.rooms {
            y = rooms::room(&mut page, y, room, seating);
        }
        if !seating.strays.is_empty() {
            y = rooms::strays(&mut page, y, seating);
        }
        if !seating.bare.is_empty() {
            let words = format!("NUMA nodes {}: no CPUs, no GPUs", seating.bare);
            page.text("small", EDGE, y + 6.0, &words);
            y += 22.0;
        }
        y = legend::legend(&mut page, y, seating);
    }
    page.finished(y + 8.0, &format!("Who sits where on this node. {}", seating.head()))
}
