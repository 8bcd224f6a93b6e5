//! The xDS types: one descriptor set (`python/tidegate/data/xds.binpb`, made by `tools/xds_descriptors.py`), an index of its
//! files, and the same in the form that messages are read and written by: the [`schema`].
//!
//! There are no generated structs. `xds` decodes through the schema because it must see every field that is set, known to
//! us or not: what it does not read, it rejects. Both are compiled into the binary and read in place; nothing is decoded until
//! somebody asks for a file, so that an idle proxy does not pay for the hundreds of Envoy extensions that it will never meet.
//! The control plane's Python messages come from the same file.
//!
//! This crate must not know what any of the messages mean.

pub mod schema;

use std::collections::HashSet;

/// The whole set: an encoded `google.protobuf.FileDescriptorSet`, dependencies first.
pub fn descriptor_set() -> &'static [u8] {
    include_bytes!("../../../python/tidegate/data/xds.binpb")
}

/// One file of the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(u16);

struct File {
    start: usize,
    end: usize,
    imports: &'static [u16],
}

mod index {
    #![allow(
        clippy::unreadable_literal,
        reason = "generated: offsets into the descriptor set"
    )]
    use super::File;

    include!(concat!(env!("OUT_DIR"), "/files.rs"));
}
use index::FILES;

impl FileId {
    /// A `FileDescriptorSet` of this file alone; one after the other, several of these are again a set.
    pub fn set(self) -> &'static [u8] {
        FILES
            .get(usize::from(self.0))
            .and_then(|file| descriptor_set().get(file.start..file.end))
            .unwrap_or_default()
    }
}

/// The file that defines a message, by the message's full name (`envoy.config.cluster.v3.Cluster`).
pub fn file_of_message(full_name: &str) -> Option<FileId> {
    schema::MessageType::named(full_name).map(schema::MessageType::file)
}

/// Every file that `roots` need, `roots` included, dependencies first; those in `present` (sorted) are left out.
pub fn closure(roots: impl IntoIterator<Item = FileId>, present: &[FileId]) -> Vec<FileId> {
    let mut wanted = HashSet::new();
    let mut pending: Vec<FileId> = roots.into_iter().collect();
    while let Some(file) = pending.pop() {
        if present.binary_search(&file).is_ok() || !wanted.insert(file) {
            continue;
        }
        let imports = FILES
            .get(usize::from(file.0))
            .map_or(&[][..], |file| file.imports);
        pending.extend(imports.iter().map(|import| FileId(*import)));
    }
    // The set is in dependency order, hence so are the numbers.
    let mut files: Vec<FileId> = wanted.into_iter().collect();
    files.sort_unstable();
    files
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::field_descriptor_proto::{Label, Type};
    use prost_types::{FileDescriptorProto, FileDescriptorSet};

    use super::schema::{Kind, MessageType};
    use super::*;

    fn file_of(id: FileId) -> FileDescriptorProto {
        FileDescriptorSet::decode(id.set()).unwrap().file.remove(0)
    }

    #[test]
    fn the_index_finds_every_file_of_the_set() {
        let set = FileDescriptorSet::decode(descriptor_set()).unwrap();
        assert_eq!(set.file.len(), FILES.len());
        for file in &set.file {
            for message in &file.message_type {
                let name = format!("{}.{}", file.package(), message.name());
                let found = file_of_message(&name).unwrap();
                assert_eq!(file_of(found).name(), file.name());
            }
        }
        assert_eq!(file_of_message("envoy.config.cluster.v3.NoSuchThing"), None);
    }

    fn check_message(scope: &str, message: &prost_types::DescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        let found = MessageType::named(&name).unwrap();
        assert_eq!(found.full_name(), name);
        assert_eq!(MessageType::all().nth(found.index()), Some(found));
        assert_eq!(found.fields().len(), message.field.len());
        let oneofs: Vec<&str> = message
            .oneof_decl
            .iter()
            .map(prost_types::OneofDescriptorProto::name)
            .collect();
        assert!(found.oneofs().map(schema::Oneof::name).eq(oneofs));
        for field in &message.field {
            let known = found.field(field.number() as u32).unwrap();
            assert_eq!(known.name(), field.name());
            assert_eq!(found.field_named(field.name()), Some(known));
            assert_eq!(found.field_with_json_name(known.json_name()), Some(known));
            assert_eq!(known.oneof(), field.oneof_index.map(|at| at as usize));
            let repeated = field.label() == Label::Repeated;
            assert_eq!(
                known.is_list() || known.is_map(),
                repeated,
                "{name} {known:?}"
            );
            match (known.kind(), field.r#type()) {
                (Kind::Message(of), Type::Message) => {
                    assert_eq!(of.full_name(), field.type_name().trim_start_matches('.'));
                }
                (Kind::Enum(of), Type::Enum) => {
                    assert_eq!(of.full_name(), field.type_name().trim_start_matches('.'));
                }
                (kind, of) => assert_eq!(format!("{kind:?}"), format!("{of:?}")),
            }
        }
        for nested in &message.nested_type {
            check_message(&name, nested);
        }
    }

    #[test]
    fn the_schema_is_the_descriptors() {
        let set = FileDescriptorSet::decode(descriptor_set()).unwrap();
        for file in &set.file {
            for message in &file.message_type {
                check_message(file.package(), message);
            }
        }
        let cluster = MessageType::named("envoy.config.cluster.v3.Cluster").unwrap();
        assert!(cluster.field_named("name").unwrap().rules().len() > 2);
        let Kind::Enum(policy) = cluster.field_named("lb_policy").unwrap().kind() else {
            panic!("an enum");
        };
        assert_eq!(policy.name_of(1), Some("LEAST_REQUEST"));
        assert_eq!(policy.number_of("RANDOM"), Some(3));
        assert_eq!((policy.name_of(99), policy.number_of("x")), (None, None));
        assert_eq!(
            MessageType::named("envoy.config.cluster.v3.NoSuchThing"),
            None
        );
    }

    #[test]
    fn nested_messages_are_found_too() {
        assert_eq!(
            file_of_message("envoy.config.cluster.v3.Cluster.EdsClusterConfig"),
            file_of_message("envoy.config.cluster.v3.Cluster")
        );
    }

    #[test]
    fn a_closure_is_complete_in_order_and_small() {
        let cluster = file_of_message("envoy.config.cluster.v3.Cluster").unwrap();
        let files = closure([cluster], &[]);
        assert!(files.contains(&cluster));
        assert!(files.len() < 80, "{}", files.len());
        let mut seen = HashSet::new();
        for id in &files {
            let file = file_of(*id);
            assert!(
                file.dependency.iter().all(|import| seen.contains(import)),
                "{}",
                file.name()
            );
            seen.insert(file.name().to_owned());
        }
        assert_eq!(closure([cluster], &files), Vec::new());
    }
}
