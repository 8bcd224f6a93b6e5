//! YAML and JSON text as JSON values, resolved as Envoy resolves them.
//!
//! Plain `true`, `yes`, `on`, `y` and their opposites are booleans and plain integers are numbers; whatever is quoted or tagged `!!str`
//! is a string (yaml-cpp's rules). Anchors, aliases and merge keys work; a key given twice is refused, and so is a
//! second document. Errors have the line and the column.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};
use serde_json::{Map, Number, Value as Json};

use crate::context::{Fault, Result};

/// Aliases may not make a document explode.
const MAX_NODES: usize = 2_000_000;
const MAX_DEPTH: usize = 128;

/// One YAML document; an empty one is an empty object.
pub(crate) fn parse(text: &str) -> Result<Json> {
    let mut loader = Loader {
        events: Parser::new_from_str(text),
        lines: text.lines().collect(),
        anchors: HashMap::new(),
        nodes: 0,
    };
    let mut document = None;
    loop {
        let (event, span) = loader.next()?;
        match event {
            Event::StreamEnd => return Ok(document.unwrap_or_else(|| Json::Object(Map::new()))),
            Event::DocumentStart(_) if document.is_some() => {
                return Err(at(span.start, "only one document is expected"));
            }
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            event => document = Some(loader.node(event, span, 0)?),
        }
    }
}

/// One JSON document, by the same rules where both apply (a key given twice is refused).
pub(crate) fn parse_json(text: &str) -> Result<Json> {
    // JSON's own reader first: its errors are the better ones. YAML then finds what it lets pass.
    let document = serde_json::from_str(text)
        .map_err(|error| Fault::whole(format!("Unable to parse JSON: {error}")))?;
    check_duplicates(text)?;
    Ok(document)
}

/// Reads JSON only for keys that an object has twice, which `serde_json::Value` would merge.
fn check_duplicates(text: &str) -> Result<()> {
    struct Unique;
    impl<'de> serde::de::DeserializeSeed<'de> for Unique {
        type Value = ();
        fn deserialize<D: serde::Deserializer<'de>>(
            self,
            deserializer: D,
        ) -> std::result::Result<(), D::Error> {
            deserializer.deserialize_any(self)
        }
    }
    impl<'de> serde::de::Visitor<'de> for Unique {
        type Value = ();
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("JSON")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(
            self,
            mut map: A,
        ) -> std::result::Result<(), A::Error> {
            let mut keys = std::collections::HashSet::new();
            while let Some(key) = map.next_key::<String>()? {
                map.next_value_seed(Unique)?;
                if let Some(key) = keys.replace(key) {
                    return Err(serde::de::Error::custom(format!("duplicate key '{key}'")));
                }
            }
            Ok(())
        }
        fn visit_seq<A: serde::de::SeqAccess<'de>>(
            self,
            mut seq: A,
        ) -> std::result::Result<(), A::Error> {
            while seq.next_element_seed(Unique)?.is_some() {}
            Ok(())
        }
        fn visit_bool<E>(self, _: bool) -> std::result::Result<(), E> {
            Ok(())
        }
        fn visit_i64<E>(self, _: i64) -> std::result::Result<(), E> {
            Ok(())
        }
        fn visit_u64<E>(self, _: u64) -> std::result::Result<(), E> {
            Ok(())
        }
        fn visit_f64<E>(self, _: f64) -> std::result::Result<(), E> {
            Ok(())
        }
        fn visit_str<E>(self, _: &str) -> std::result::Result<(), E> {
            Ok(())
        }
        fn visit_unit<E>(self) -> std::result::Result<(), E> {
            Ok(())
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    serde::de::DeserializeSeed::deserialize(Unique, &mut deserializer)
        .map_err(|error| Fault::whole(format!("Unable to parse JSON: {error}")))
}

fn at(marker: Marker, reason: impl std::fmt::Display) -> Fault {
    Fault::whole(format!(
        "Unable to parse YAML at line {}, column {}: {reason}",
        marker.line(),
        marker.col() + 1
    ))
}

struct Loader<'t> {
    events: Parser<'t, saphyr_parser::StrInput<'t>>,
    lines: Vec<&'t str>,
    anchors: HashMap<usize, Json>,
    nodes: usize,
}

impl<'t> Loader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span)> {
        match self.events.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(at(*error.marker(), error.info())),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    /// The text of a line up to a marker and `more` characters.
    fn before(&self, marker: Marker, more: usize) -> String {
        let line = marker
            .line()
            .checked_sub(1)
            .and_then(|at| self.lines.get(at));
        line.map(|line| line.chars().take(marker.col() + more).collect())
            .unwrap_or_default()
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<()> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err(at(span.start, "the document is too large"));
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Json> {
        if depth > MAX_DEPTH {
            return Err(at(span.start, "the document is nested too deeply"));
        }
        self.count(1, span)?;
        let (anchor, value) = match event {
            Event::Alias(anchor) => {
                let value = self.anchors.get(&anchor).cloned();
                let value = value.ok_or_else(|| at(span.start, "the alias has no anchor"))?;
                self.count(size(&value), span)?;
                return Ok(value);
            }
            Event::Scalar(text, style, anchor, tag) => {
                let string = tag.is_some_and(|tag| {
                    tag.is_yaml_core_schema() && tag.suffix == "str" || tag.handle == "!"
                });
                let value = if style == ScalarStyle::Plain && !string {
                    plain(&text)
                } else {
                    Json::String(text.into_owned())
                };
                (anchor, value)
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => items.push(self.node(event, span, depth + 1)?),
                    }
                }
                (anchor, Json::Array(items))
            }
            Event::MappingStart(anchor, _) => {
                let flow = self.before(span.start, 1).ends_with('{');
                (anchor, Json::Object(self.mapping(depth, flow)?))
            }
            other => return Err(at(span.start, format!("unexpected {other:?}"))),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn mapping(&mut self, depth: usize, flow: bool) -> Result<Map<String, Json>> {
        let mut map = Map::new();
        let mut merged: Vec<Map<String, Json>> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let (key, plain_key) = match event {
                Event::MappingEnd => break,
                Event::Scalar(text, style, _, _) => {
                    (text.into_owned(), style == ScalarStyle::Plain)
                }
                _ => return Err(at(span.start, "a key must be a scalar")),
            };
            if !flow && self.before(span.start, 0).contains('\t') {
                return Err(at(span.start, "a tab cannot indent"));
            }
            let (event, value_span) = self.next()?;
            let value = self.node(event, value_span, depth + 1)?;
            if key == "<<" && plain_key {
                match value {
                    Json::Object(base) => merged.push(base),
                    Json::Array(bases) if bases.iter().all(Json::is_object) => {
                        merged.extend(bases.into_iter().filter_map(|base| match base {
                            Json::Object(base) => Some(base),
                            _ => None,
                        }));
                    }
                    _ => {
                        return Err(at(
                            value_span.start,
                            "a merge key needs a mapping or a list of mappings",
                        ));
                    }
                }
            } else if map.contains_key(&key) {
                return Err(at(span.start, format!("duplicate key '{key}'")));
            } else {
                map.insert(key, value);
            }
        }
        for (key, value) in merged.into_iter().flatten() {
            map.entry(key).or_insert(value);
        }
        Ok(map)
    }
}

fn size(value: &Json) -> usize {
    match value {
        Json::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        Json::Object(map) => 1 + map.values().map(size).sum::<usize>(),
        _ => 1,
    }
}

/// A plain scalar by Envoy's rules: null, boolean, integer, else text. A number with a fraction is text too; where a number
/// is wanted, proto-JSON takes it as one.
fn plain(text: &str) -> Json {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Json::Null,
        _ => {}
    }
    if let Some(value) = boolean(text) {
        return Json::Bool(value);
    }
    if let Some(number) = integer(text) {
        return Json::Number(number);
    }
    Json::String(text.to_owned())
}

/// In lower, upper or title case, as yaml-cpp takes them.
fn boolean(text: &str) -> Option<bool> {
    let lower = text.to_ascii_lowercase();
    let title = text.chars().skip(1).all(|c| c.is_ascii_lowercase());
    let upper = text.chars().all(|c| c.is_ascii_uppercase());
    if !title && !upper {
        return None;
    }
    match lower.as_str() {
        "y" | "yes" | "true" | "on" => Some(true),
        "n" | "no" | "false" | "off" => Some(false),
        _ => None,
    }
}

/// Decimal, `0x` and `0` octal integers. A leading zero before other digits keeps the text (a ZIP code is no number).
fn integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let magnitude = if let Some(hex) = digits.strip_prefix("0x") {
        u64::from_str_radix(hex, 16).ok()?
    } else if digits.len() > 1 && digits.starts_with('0') {
        u64::from_str_radix(digits, 8).ok()?
    } else if digits.bytes().all(|b| b.is_ascii_digit()) {
        digits.parse().ok()?
    } else {
        return None;
    };
    // Beyond this a double, which is what JSON has, would lose digits.
    if magnitude > 1 << 53 {
        return None;
    }
    if negative {
        i64::try_from(magnitude)
            .ok()
            .map(|value| Number::from(-value))
    } else {
        Some(Number::from(magnitude))
    }
}
