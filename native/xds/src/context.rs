//! What all decoders share: the descriptor pool, the compiled validation rules, the warnings, and the way a fault is told.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use tidegate_proto::FileId;

use crate::rules::MessageRules;

/// What is wrong, and where; the resource's name is added at the border of the crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) path: String,
    pub(crate) reason: String,
}

pub(crate) type Result<T> = std::result::Result<T, Fault>;

impl Fault {
    /// A fault of the resource as a whole.
    pub(crate) fn whole(reason: impl Into<String>) -> Self {
        Self {
            path: String::new(),
            reason: reason.into(),
        }
    }

    /// The same fault, seen from the message that holds this one at `prefix`.
    pub(crate) fn under(mut self, prefix: &str) -> Self {
        if self.path.is_empty() {
            prefix.clone_into(&mut self.path);
        } else if !prefix.is_empty() {
            let dot = if self.path.starts_with('[') { "" } else { "." };
            self.path = format!("{prefix}{dot}{}", self.path);
        }
        self
    }
}

/// A field that is set, that Envoy honours, and that changes nothing here.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Warning {
    /// The message type that has the field.
    pub message: String,
    /// The field's path from the root of the resource.
    pub field_path: String,
    pub reason: &'static str,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: ignored: {}", self.field_path, self.reason)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Context {
    pool: RefCell<Pool>,
    rules: RefCell<HashMap<String, Arc<MessageRules>>>,
    warnings: RefCell<Vec<Warning>>,
}

#[derive(Debug, Default)]
struct Pool {
    descriptors: DescriptorPool,
    /// Sorted.
    files: Vec<FileId>,
}

/// What stands in the `Any`s of a resource more often than not. It is loaded with the resource's own type, because growing a
/// pool while messages of it are about means copying it.
const COMPANIONS: &[(&str, &[&str])] = &[
    ("envoy.config.bootstrap.v3.Bootstrap", IN_LISTENERS),
    ("envoy.config.listener.v3.Listener", IN_LISTENERS),
    ("envoy.config.route.v3.RouteConfiguration", IN_ROUTES),
];

const IN_LISTENERS: &[&str] = &[
    "envoy.extensions.access_loggers.file.v3.FileAccessLog",
    "envoy.extensions.filters.http.cors.v3.Cors",
    "envoy.extensions.filters.http.fault.v3.HTTPFault",
    "envoy.extensions.filters.http.router.v3.Router",
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
];

const IN_ROUTES: &[&str] = &[
    "envoy.extensions.filters.http.cors.v3.Cors",
    "envoy.extensions.filters.http.fault.v3.HTTPFault",
];

impl Context {
    /// The descriptor of a message, its file and what that imports loaded when they are not yet.
    pub(crate) fn descriptor(&self, full_name: &str) -> Result<MessageDescriptor> {
        let unknown = || Fault::whole(format!("unknown message type '{full_name}'"));
        let file = tidegate_proto::file_of_message(full_name).ok_or_else(unknown)?;
        let mut pool = self.pool.borrow_mut();
        if pool.files.binary_search(&file).is_err() {
            let companions = COMPANIONS.iter().find(|(name, _)| *name == full_name);
            let companions = companions.map_or(&[][..], |(_, companions)| companions);
            let companions = companions
                .iter()
                .filter_map(|name| tidegate_proto::file_of_message(name));
            pool.load(companions.chain([file]))?;
        }
        pool.descriptors
            .get_message_by_name(full_name)
            .ok_or_else(unknown)
    }

    /// Decodes a message; protobuf's own errors, no validation.
    pub(crate) fn decode(&self, full_name: &str, bytes: &[u8]) -> Result<DynamicMessage> {
        let descriptor = self.descriptor(full_name)?;
        DynamicMessage::decode(descriptor, bytes)
            .map_err(|error| Fault::whole(format!("Unable to parse as {full_name}: {error}")))
    }

    /// The validation rules of a message type, compiled on first use.
    pub(crate) fn rules(&self, descriptor: &MessageDescriptor) -> Result<Arc<MessageRules>> {
        if let Some(rules) = self.rules.borrow().get(descriptor.full_name()) {
            return Ok(Arc::clone(rules));
        }
        let rules = Arc::new(MessageRules::of(descriptor)?);
        self.rules
            .borrow_mut()
            .insert(descriptor.full_name().to_owned(), Arc::clone(&rules));
        Ok(rules)
    }

    pub(crate) fn warn(&self, warning: Warning) {
        self.warnings.borrow_mut().push(warning);
    }

    pub(crate) fn take_warnings(&self) -> Vec<Warning> {
        self.warnings.take()
    }
}

impl Pool {
    fn load(&mut self, roots: impl IntoIterator<Item = FileId>) -> Result<()> {
        let files = tidegate_proto::closure(roots, &self.files);
        let set: Vec<u8> = files.iter().flat_map(|file| file.set()).copied().collect();
        self.descriptors
            .decode_file_descriptor_set(set.as_slice())
            .map_err(|error| Fault::whole(format!("descriptor set: {error}")))?;
        self.files.extend(files);
        self.files.sort_unstable();
        Ok(())
    }
}
