//! Makes tables of the descriptor set: where each file lies in it and what it imports, and the schema, which is every message,
//! field, oneof and enum as rows of numbers with one text for all names.
//!
//! With the first, a descriptor pool of a few files is built without decoding the other four hundred; with the second, messages
//! are read and written without any pool. Rows hold no pointers, so that nothing is relocated when the module is loaded and a
//! page of them costs memory only once somebody looks at it.

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

use prost::Message as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

const DESCRIPTOR_SET: &str = "../../python/tidegate/data/xds.binpb";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={DESCRIPTOR_SET}");
    println!("cargo::rerun-if-changed=build.rs");
    let set = std::fs::read(DESCRIPTOR_SET)?;
    let files = split(&set)?;
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(Path::new(&out).join("files.rs"), index(&files)?)?;
    std::fs::write(Path::new(&out).join("schema.rs"), schema(&files)?)?;
    Ok(())
}

// The descriptors' descriptors, options left encoded: that is where the extensions with the validation rules are.

#[derive(Clone, PartialEq, prost::Message)]
struct File {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    package: String,
    #[prost(string, repeated, tag = "3")]
    dependency: Vec<String>,
    #[prost(message, repeated, tag = "4")]
    messages: Vec<Message>,
    #[prost(message, repeated, tag = "5")]
    enums: Vec<Enum>,
    #[prost(string, tag = "12")]
    syntax: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    fields: Vec<Field>,
    #[prost(message, repeated, tag = "3")]
    messages: Vec<Message>,
    #[prost(message, repeated, tag = "4")]
    enums: Vec<Enum>,
    #[prost(bytes = "vec", tag = "7")]
    options: Vec<u8>,
    #[prost(message, repeated, tag = "8")]
    oneofs: Vec<Oneof>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Field {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "3")]
    number: u32,
    #[prost(int32, tag = "4")]
    label: i32,
    #[prost(int32, tag = "5")]
    kind: i32,
    #[prost(string, tag = "6")]
    type_name: String,
    #[prost(bytes = "vec", tag = "8")]
    options: Vec<u8>,
    #[prost(uint32, optional, tag = "9")]
    oneof: Option<u32>,
    #[prost(string, tag = "10")]
    json_name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Oneof {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "vec", tag = "2")]
    options: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Enum {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    values: Vec<Value>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Value {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "2")]
    number: i32,
}

struct Entry {
    start: usize,
    end: usize,
    file: File,
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
            file: File::decode(file)?,
        });
        rest = after;
    }
    Ok(files)
}

fn index(files: &[Entry]) -> Result<String, Box<dyn Error>> {
    let numbers: HashMap<&str, usize> = files
        .iter()
        .enumerate()
        .map(|(i, entry)| (entry.file.name.as_str(), i))
        .collect();
    let mut text = String::from("pub(super) static FILES: &[File] = &[\n");
    for entry in files {
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
    }
    text.push_str("];\n");
    Ok(text)
}

/// A message or an enum with its full name.
struct Named<'f, T> {
    name: String,
    file: usize,
    proto3: bool,
    item: &'f T,
}

#[derive(Default)]
struct Found<'f> {
    messages: Vec<Named<'f, Message>>,
    enums: Vec<Named<'f, Enum>>,
}

impl<'f> Found<'f> {
    fn collect(
        &mut self,
        scope: &str,
        messages: &'f [Message],
        enums: &'f [Enum],
        file: usize,
        proto3: bool,
    ) {
        let full = |name: &str| {
            if scope.is_empty() {
                name.to_owned()
            } else {
                format!("{scope}.{name}")
            }
        };
        for item in enums {
            let name = full(&item.name);
            self.enums.push(Named {
                name,
                file,
                proto3,
                item,
            });
        }
        for item in messages {
            let name = full(&item.name);
            self.collect(&name, &item.messages, &item.enums, file, proto3);
            self.messages.push(Named {
                name,
                file,
                proto3,
                item,
            });
        }
    }
}

/// Texts one after the other, each once.
#[derive(Default)]
struct Pool<T> {
    all: T,
    places: HashMap<Vec<u8>, usize>,
}

impl Pool<String> {
    fn put(&mut self, text: &str) -> String {
        let start = *self.places.entry(text.into()).or_insert_with(|| {
            self.all.push_str(text);
            self.all.len() - text.len()
        });
        format!("Span({start},{})", text.len())
    }
}

impl Pool<Vec<u8>> {
    fn put(&mut self, bytes: &[u8]) -> String {
        let start = *self.places.entry(bytes.into()).or_insert_with(|| {
            self.all.extend_from_slice(bytes);
            self.all.len() - bytes.len()
        });
        format!("Span({start},{})", bytes.len())
    }
}

// Extensions of protoc-gen-validate, by number.
const RULES: u32 = 1071;
const DISABLED: u32 = 1071;
const IGNORED: u32 = 1072;
const REQUIRED: u32 = 1071;
/// `MessageOptions.map_entry`.
const MAP_ENTRY: u32 = 7;

const LABEL_REPEATED: i32 = 3;
const TYPE_GROUP: i32 = 10;
const TYPE_MESSAGE: i32 = 11;
const TYPE_ENUM: i32 = 14;
const NONE: usize = 255;

fn schema(files: &[Entry]) -> Result<String, Box<dyn Error>> {
    let mut found = Found::default();
    for (number, entry) in files.iter().enumerate() {
        let file = &entry.file;
        let proto3 = file.syntax == "proto3";
        found.collect(&file.package, &file.messages, &file.enums, number, proto3);
    }
    found.messages.sort_by(|a, b| a.name.cmp(&b.name));
    let messages: HashMap<&str, usize> = found
        .messages
        .iter()
        .enumerate()
        .map(|(at, named)| (named.name.as_str(), at))
        .collect();
    let enums: HashMap<&str, usize> = found
        .enums
        .iter()
        .enumerate()
        .map(|(at, named)| (named.name.as_str(), at))
        .collect();
    let mut names = Pool::<String>::default();
    let mut rules = Pool::<Vec<u8>>::default();
    let (mut message_rows, mut field_rows, mut oneof_rows) =
        (String::new(), String::new(), String::new());
    let (mut enum_rows, mut value_rows) = (String::new(), String::new());
    let (mut field_count, mut oneof_count, mut value_count) = (0, 0, 0);
    for named in &found.messages {
        let message = named.item;
        let mut fields: Vec<&Field> = message.fields.iter().collect();
        fields.sort_by_key(|field| field.number);
        let checked = flag(&message.options, DISABLED)? || flag(&message.options, IGNORED)?;
        writeln!(
            message_rows,
            "MessageRow{{name:{},file:{},fields:Span({field_count},{}),oneofs:Span({oneof_count},{}),unchecked:{checked}}},",
            names.put(&named.name),
            named.file,
            fields.len(),
            message.oneofs.len(),
        )?;
        field_count += fields.len();
        oneof_count += message.oneofs.len();
        for oneof in &message.oneofs {
            let required = flag(&oneof.options, REQUIRED)?;
            writeln!(
                oneof_rows,
                "OneofRow{{name:{},required:{required}}},",
                names.put(&oneof.name)
            )?;
        }
        for field in fields {
            let type_name = field.type_name.trim_start_matches('.');
            let of = match field.kind {
                TYPE_MESSAGE => messages.get(type_name).copied(),
                TYPE_ENUM => enums.get(type_name).copied(),
                TYPE_GROUP => None,
                _ => Some(0),
            }
            .ok_or_else(|| format!("{}.{}: no type", named.name, field.name))?;
            let is_map = field.kind == TYPE_MESSAGE
                && flag(
                    &found
                        .messages
                        .get(of)
                        .ok_or("no such message")?
                        .item
                        .options,
                    MAP_ENTRY,
                )?;
            let repeated = field.label == LABEL_REPEATED;
            let presence =
                !repeated && (!named.proto3 || field.kind == TYPE_MESSAGE || field.oneof.is_some());
            let json_name = if field.json_name.is_empty() {
                camel_case(&field.name)
            } else {
                field.json_name.clone()
            };
            let rule = option(&field.options, RULES)?.unwrap_or_default();
            writeln!(
                field_rows,
                "FieldRow{{name:{},json_name:{},number:{},kind:{},of:{of},oneof:{},list:{},map:{is_map},presence:{presence},rules:{}}},",
                names.put(&field.name),
                names.put(&json_name),
                field.number,
                field.kind,
                field.oneof.map_or(NONE, |oneof| oneof as usize),
                repeated && !is_map,
                rules.put(rule),
            )?;
        }
    }
    for named in &found.enums {
        let values = &named.item.values;
        writeln!(
            enum_rows,
            "EnumRow{{name:{},values:Span({value_count},{})}},",
            names.put(&named.name),
            values.len()
        )?;
        value_count += values.len();
        for value in values {
            writeln!(
                value_rows,
                "ValueRow{{name:{},number:{}}},",
                names.put(&value.name),
                value.number
            )?;
        }
    }
    Ok(format!(
        "/// Sorted by name.\npub(super) static MESSAGES: &[MessageRow] = &[\n{message_rows}];\n\
         /// Of each message, sorted by number.\npub(super) static FIELDS: &[FieldRow] = &[\n{field_rows}];\n\
         pub(super) static ONEOFS: &[OneofRow] = &[\n{oneof_rows}];\n\
         pub(super) static ENUMS: &[EnumRow] = &[\n{enum_rows}];\n\
         pub(super) static VALUES: &[ValueRow] = &[\n{value_rows}];\n\
         pub(super) static NAMES: &str = {:?};\n\
         pub(super) static RULES: &[u8] = &{:?};\n",
        names.all, rules.all
    ))
}

/// `route_config` as `routeConfig`, the way protoc does it.
fn camel_case(name: &str) -> String {
    let mut camel = String::new();
    let mut upper = false;
    for c in name.chars() {
        match c {
            '_' => upper = true,
            c if upper => {
                camel.extend(c.to_uppercase());
                upper = false;
            }
            c => camel.push(c),
        }
    }
    camel
}

/// A length-delimited field of encoded options.
fn option(options: &[u8], wanted: u32) -> Result<Option<&[u8]>, Box<dyn Error>> {
    let mut rest = options;
    while !rest.is_empty() {
        let (tag, wire_type) = decode_key(&mut rest)?;
        if tag == wanted && wire_type == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(&mut rest)?)?;
            return Ok(Some(rest.get(..length).ok_or("truncated options")?));
        }
        skip_field(wire_type, tag, &mut rest, DecodeContext::default())?;
    }
    Ok(None)
}

/// A boolean field of encoded options.
fn flag(options: &[u8], wanted: u32) -> Result<bool, Box<dyn Error>> {
    let mut rest = options;
    while !rest.is_empty() {
        let (tag, wire_type) = decode_key(&mut rest)?;
        if tag == wanted && wire_type == WireType::Varint {
            return Ok(decode_varint(&mut rest)? != 0);
        }
        skip_field(wire_type, tag, &mut rest, DecodeContext::default())?;
    }
    Ok(false)
}
