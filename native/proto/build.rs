//! Makes the index of the descriptor set: where each file lies in it, what it imports, which messages it defines.
//!
//! With the index, a descriptor pool of a few files is built without decoding the other four hundred.

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

use prost::Message as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_types::{DescriptorProto, FileDescriptorProto};

const DESCRIPTOR_SET: &str = "../../python/tidegate/data/xds.binpb";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={DESCRIPTOR_SET}");
    println!("cargo::rerun-if-changed=build.rs");
    let set = std::fs::read(DESCRIPTOR_SET)?;
    let files = split(&set)?;
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(Path::new(&out).join("index.rs"), index(&files)?)?;
    Ok(())
}

struct Entry {
    start: usize,
    end: usize,
    file: FileDescriptorProto,
}

/// The files of the set (field 1 of `FileDescriptorSet`) with the place of their records, tag and length included.
fn split(set: &[u8]) -> Result<Vec<Entry>, Box<dyn Error>> {
    let mut rest = set;
    let mut files = Vec::new();
    while !rest.is_empty() {
        let start = set.len() - rest.len();
        let (tag, wire_type) = decode_key(&mut rest)?;
        if tag != 1 || wire_type != WireType::LengthDelimited {
            skip_field(wire_type, tag, &mut rest, DecodeContext::default())?;
            continue;
        }
        let length = usize::try_from(decode_varint(&mut rest)?)?;
        let (file, after) = rest
            .split_at_checked(length)
            .ok_or("truncated descriptor set")?;
        files.push(Entry {
            start,
            end: set.len() - after.len(),
            file: FileDescriptorProto::decode(file)?,
        });
        rest = after;
    }
    Ok(files)
}

fn index(files: &[Entry]) -> Result<String, Box<dyn Error>> {
    let numbers: HashMap<&str, usize> = files
        .iter()
        .enumerate()
        .map(|(i, entry)| (entry.file.name(), i))
        .collect();
    let mut text = String::from("pub(super) static FILES: &[File] = &[\n");
    let mut messages = Vec::new();
    for (number, entry) in files.iter().enumerate() {
        let mut imports = Vec::new();
        for import in &entry.file.dependency {
            imports.push(
                *numbers
                    .get(import.as_str())
                    .ok_or_else(|| format!("{import} is not in the set"))?,
            );
        }
        let Entry { start, end, .. } = entry;
        writeln!(
            text,
            "    File {{ start: {start}, end: {end}, imports: &{imports:?} }},"
        )?;
        for message in &entry.file.message_type {
            collect(&mut messages, entry.file.package(), message, number);
        }
    }
    messages.sort();
    text.push_str("];\n\n/// Sorted by name.\npub(super) static MESSAGES: &[(&str, u16)] = &[\n");
    for (name, number) in messages {
        writeln!(text, "    ({name:?}, {number}),")?;
    }
    text.push_str("];\n");
    Ok(text)
}

fn collect(
    messages: &mut Vec<(String, usize)>,
    scope: &str,
    message: &DescriptorProto,
    number: usize,
) {
    let name = if scope.is_empty() {
        message.name().to_owned()
    } else {
        format!("{scope}.{}", message.name())
    };
    for nested in &message.nested_type {
        collect(messages, &name, nested, number);
    }
    messages.push((name, number));
}
