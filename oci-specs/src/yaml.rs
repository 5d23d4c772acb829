//! YAML as JSON: as much of YAML as CDI specs, and Kubernetes' manifests, are written in.
//!
//! Decides what of YAML is taken: documents of lists, maps and scalars, each scalar as it would be
//! in JSON. No anchors, tags or merge keys, which no generator writes. Must not know what a document is about.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// How deep lists and maps may lie within each other.
const MAX_DEPTH: usize = 32;

/// Parses one document.
///
/// # Errors
/// What is wrong with it and where, in words.
pub fn parse(text: &str) -> Result<Value, String> {
    read(text, 1)?.pop().ok_or_else(|| "it is empty".into())
}

/// Parses all documents of a stream, empty ones left out.
///
/// # Errors
/// As [`parse`]; `most` are the documents that there may be.
pub fn documents(text: &str, most: usize) -> Result<Vec<Value>, String> {
    let mut all = read(text, most)?;
    all.retain(|document| !document.is_null());
    Ok(all)
}

fn read(text: &str, most: usize) -> Result<Vec<Value>, String> {
    let mut open: Vec<Open> = Vec::new();
    let mut documents = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| error.to_string())?;
        let at = |problem: &str| {
            Err(format!("line {}, column {}: {problem}", span.start.line(), span.start.col() + 1))
        };
        let value = match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd => continue,
            Event::DocumentStart(_) if documents.len() == most => {
                return at(&match most {
                    1 => "a second document; a spec is one".to_owned(),
                    most => format!("more than {most} documents"),
                });
            }
            Event::DocumentStart(_) | Event::DocumentEnd => continue,
            Event::Alias(_) => return at("an alias, which is not supported; write it out"),
            Event::Scalar(_, _, anchor, ref tag)
            | Event::SequenceStart(anchor, ref tag)
            | Event::MappingStart(anchor, ref tag)
                if anchor != 0 || tag.is_some() =>
            {
                return at("an anchor or a tag, which is not supported; leave it out");
            }
            Event::SequenceStart(..) | Event::MappingStart(..) if open.len() >= MAX_DEPTH => {
                return at("lists and maps lie too deep within each other");
            }
            Event::SequenceStart(..) => {
                open.push(Open::List(Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Map(Map::new(), None));
                continue;
            }
            Event::Scalar(text, style, ..) => match open.last_mut() {
                Some(Open::Map(map, key @ None)) => {
                    if map.contains_key(&*text) {
                        return at(&format!("key {text:?} is there twice"));
                    }
                    *key = Some(text.into_owned());
                    continue;
                }
                _ => scalar(&text, style),
            },
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(list)) => Value::Array(list),
                Some(Open::Map(map, _)) => Value::Object(map),
                None => return at("an end without a beginning"),
            },
        };
        match open.last_mut() {
            None => documents.push(value),
            Some(Open::List(list)) => list.push(value),
            Some(Open::Map(map, key)) => match key.take() {
                Some(key) => drop(map.insert(key, value)),
                None => return at("a key that is not a plain word"),
            },
        }
    }
    Ok(documents)
}

/// A list or map that is being read; a map with the key whose value comes next.
enum Open {
    List(Vec<Value>),
    Map(Map<String, Value>, Option<String>),
}

/// A scalar by YAML 1.2's core schema.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return text.into();
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return true.into(),
        "false" | "False" | "FALSE" => return false.into(),
        _ => {}
    }
    let (digits, base) = match text.get(..2) {
        Some("0o") => (&text[2..], 8),
        Some("0x") => (&text[2..], 16),
        // YAML 1.1, which Go's library writes file modes for: a leading zero is octal.
        _ if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        _ => (text, 10),
    };
    match digits.starts_with('+') {
        true => text.into(),
        false => i64::from_str_radix(digits, base).map_or_else(|_| text.into(), Value::from),
    }
}
