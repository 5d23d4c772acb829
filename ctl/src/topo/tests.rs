//! Each form of the node as it is meant to look (files in `golden/`), and what no name of anybody's may do to it.

use std::fs;
use std::path::PathBuf;

use engine::{CpuSet, Inventory};
use unicode_width::UnicodeWidthStr;

use super::seating::Seating;
use super::{answer, fixtures, map, matrix, paint, svg, tree};

/// Compares with the file, or writes it where `BERTH_GOLDEN` is set.
fn is_as_kept(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var_os("BERTH_GOLDEN").is_some() {
        fs::write(&path, text).expect("written");
    }
    let kept = fs::read_to_string(&path).expect("a golden file");
    assert!(kept == text, "{name} is otherwise; with BERTH_GOLDEN=1 it is written anew:\n{text}");
}

fn map_of(seating: &Seating, coloured: bool) -> String {
    map::lines(seating).iter().map(|line| paint::painted(line, coloured) + "\n").collect()
}

/// Without what colours it.
fn bare(text: &str) -> String {
    let mut pieces = text.split('\u{1b}');
    let first = pieces.next().unwrap_or_default().to_owned();
    let rest = pieces.map(|piece| piece.split_once('m').expect("the end of a colour").1);
    std::iter::once(first.as_str()).chain(rest).collect()
}

/// Each form of text, and the picture.
fn is_well_formed(seating: &Seating) {
    let plain = map_of(seating, false);
    for line in plain.lines() {
        assert!(line.width() <= 80, "{} columns: {line}", line.width());
    }
    let coloured = map_of(seating, true);
    let trimmed = |text: &str| {
        text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(trimmed(&bare(&coloured)), trimmed(&plain), "colours add nothing");
    let tree = tree::lines(seating).join("\n");
    for text in [&plain, &tree] {
        let hidden = ['\u{202e}', '\u{2066}', '\u{200b}', '\u{feff}', '\u{2028}', '\u{61c}'];
        let moves = |one: &char| (one.is_control() && *one != '\n') || hidden.contains(one);
        assert_eq!(text.chars().find(moves), None, "{text}");
    }
    let picture = svg::of(seating);
    let document = roxmltree::Document::parse(&picture).unwrap_or_else(|error| panic!("{error}"));
    let root = document.root_element();
    assert_eq!(root.tag_name().name(), "svg");
    let title = root.children().find(|child| child.has_tag_name((SVG, "title"))).expect("a title");
    assert_eq!(
        root.attribute("aria-labelledby"),
        title.attribute("id"),
        "for those who cannot see"
    );
    assert!(title.text().is_some_and(|text| !text.is_empty()));
    let known = [
        "svg", "title", "style", "defs", "pattern", "line", "rect", "g", "text", "tspan",
        "polyline",
    ];
    for element in root.descendants().filter(roxmltree::Node::is_element) {
        let name = element.tag_name().name();
        assert!(known.contains(&name), "{name}: nothing is loaded, and nothing runs");
        for attribute in element.attributes() {
            assert!(!attribute.name().starts_with("on") && !attribute.name().contains("href"));
        }
    }
}

const SVG: &str = "http://www.w3.org/2000/svg";

#[test]
fn maps_trees_and_pictures_are_as_kept() {
    let nodes = [
        ("p4d", fixtures::busy_p4d()),
        ("gb200", fixtures::busy_gb200()),
        ("one", fixtures::busy_one()),
    ];
    for (name, seating) in nodes {
        is_well_formed(&seating);
        is_as_kept(&format!("src/topo/golden/{name}.map"), &map_of(&seating, false));
        is_as_kept(
            &format!("src/topo/golden/{name}.tree"),
            &(tree::lines(&seating).join("\n") + "\n"),
        );
        let picture = match name {
            // The guide shows it.
            "p4d" => "../docs/topo.svg".to_owned(),
            _ => format!("src/topo/golden/{name}.svg"),
        };
        is_as_kept(&picture, &svg::of(&seating));
    }
}

#[test]
fn no_name_breaks_a_terminal_or_a_picture() {
    let long = "very-long-name/".repeat(40);
    let wide = "容器".repeat(60);
    for name in [
        "a/\u{1b}[2J\u{1b}]0;owned\u{7}\r\n\tb",
        "a/<script>alert(1)</script>&amp;]]>\"'",
        "a/\u{202e}evil\u{2066}\u{200b}\u{feff}\u{fffe}\u{ffff}\u{0}",
        "a/\u{85}\u{2028}\u{2029}\u{61c}",
        "a/e\u{301}\u{301}\u{301}👩‍👩‍👧‍👦",
        &long,
        &wide,
    ] {
        let mut node = fixtures::p4d();
        fixtures::cut(&mut node, 0, &[]);
        node.gpus[4].model = name.to_owned();
        let mut whole = fixtures::grant(&node, name, &[("gpus", name), ("cpus", "2")], &[1, 2]);
        whole.members[0].name = name.to_owned();
        let whole = fixtures::pinned(whole, "0-3", "0", false);
        let mut sliced = fixtures::sliced(&node, name, 0, &[(19, "1g.5gb", 0, 1)]);
        sliced.members[0].pinning.reason = name.to_owned();
        let mut other = sliced.members[0].clone();
        other.name = format!("{name}2");
        other.pinning.reason.push('2');
        sliced.members.push(other);
        let seating = Seating::of(&node, &[whole, sliced], &CpuSet::none(), &CpuSet::none());
        is_well_formed(&seating);
    }
}

#[test]
fn a_full_node_is_told_of_in_fewer_words() {
    let mut node = fixtures::p4d();
    let mut grants = Vec::new();
    for gpu in 0..8 {
        fixtures::cut(&mut node, gpu, &[]);
        for start in 0..7 {
            let label = format!("team/slice-{gpu}-{start}");
            let grant = fixtures::sliced(&node, &label, gpu, &[(19, "1g.5gb", start, 1)]);
            grants.push(fixtures::pinned(grant, "0-23", "0", false));
        }
    }
    let seating = Seating::of(&node, &grants, &CpuSet::none(), &CpuSet::none());
    is_well_formed(&seating);
    let map = map_of(&seating, false);
    assert!(map.contains("[A|B|C|D|E|F|G|.]"), "{map}");
    assert!(map.contains("&&&&&&&& &&&&&&&& &&&&&&&&"), "more than nine: {map}");
    let of_holders = map.lines().filter(|line| line.contains("  team/slice-")).count();
    assert_eq!(of_holders, 56, "a line each: {map}");
    assert!(map.lines().count() < 56 + 60, "{map}");
}

#[test]
fn a_node_without_a_driver_says_so_in_every_form() {
    let nothing = Inventory::default();
    let seating = Seating::of(&nothing, &[], &CpuSet::none(), &CpuSet::none());
    is_well_formed(&seating);
    let words = "No NVIDIA driver is loaded on this node.";
    assert_eq!(map_of(&seating, false), format!("{words}\n"));
    assert_eq!(tree::lines(&seating), [words]);
    assert_eq!(matrix::lines(&seating, &nothing, &[]), [words]);
    assert!(svg::of(&seating).contains(words));
}

#[test]
fn the_matrix_and_the_answer_have_every_instance_and_whose_it_is() {
    let mut node = fixtures::p4d();
    fixtures::cut(&mut node, 0, &[(9, 0, 4), (19, 6, 1)]);
    fixtures::cut(&mut node, 1, &[(9, 4, 4)]);
    let mut theirs = fixtures::sliced(&node, "ml/theirs", 1, &[(9, "3g.20gb", 4, 4)]);
    theirs.slots[0].foreign = true;
    let grants = [fixtures::sliced(&node, "ml/notebook", 0, &[(9, "3g.20gb", 0, 4)]), theirs];
    let seating = Seating::of(&node, &grants, &fixtures::set("20-23"), &fixtures::set("0"));
    let text = matrix::lines(&seating, &node, &grants).join("\n");
    for line in [
        "MIG   INSTANCE   SLICES  HELD BY",
        "GPU0  3g.20gb@0  0-3     ml/notebook",
        "GPU0  1g.5gb@6   6       - (not made by Berth)",
        "GPU1  3g.20gb@4  4-7     ml/theirs (not made by Berth)",
    ] {
        assert!(text.lines().any(|one| one == line), "{line}: {text}");
    }
    let answer = answer::of(&seating, &node, &grants);
    let instances = answer["gpus"][0]["instances"].as_array().expect("instances");
    let told = |at: usize| {
        let one = &instances[at];
        (
            one["profile"].as_str(),
            one["start"].as_u64(),
            one["slices"].as_u64(),
            one["foreign"].as_bool(),
        )
    };
    assert_eq!(told(0), (Some("3g.20gb"), Some(0), Some(4), Some(false)));
    assert_eq!(told(1), (Some("1g.5gb"), Some(6), Some(1), Some(true)));
    assert_eq!(instances[0]["holders"][0], "ml/notebook");
    assert_eq!(instances[1]["holders"].as_array().map(Vec::len), Some(0));
    assert_eq!(answer["cpus"]["exclusive_free"], "20-23");
    assert_eq!(answer["numa_nodes"][1]["cpus"], "24-47,72-95");
}

#[test]
fn every_field_of_the_answer_is_in_the_guide() {
    let guide = include_str!("../../../docs/berth.md");
    let mut node = fixtures::p4d();
    fixtures::cut(&mut node, 0, &[(9, 0, 4)]);
    let seating = Seating::of(&node, &[], &CpuSet::none(), &CpuSet::none());
    let answer = answer::of(&seating, &node, &[]);
    let gpu = &answer["gpus"][0];
    let objects = [&answer, gpu, &gpu["instances"][0], &answer["numa_nodes"][0], &answer["cpus"]];
    let paragraph = guide.split_once("\n`topo`: ").expect("its fields").1;
    let paragraph = paragraph.split_once("\n\n").expect("an end").0;
    for field in objects.iter().flat_map(|one| one.as_object().expect("an object").keys()) {
        assert!(paragraph.contains(&format!("\"{field}\"")), "{field} is not in docs/berth.md");
    }
}
