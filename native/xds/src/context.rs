//! What all decoders share: the warnings, the descriptors for printing, and the way a fault is told.

use std::cell::RefCell;

use tidegate_proto::schema::MessageType;

use crate::dump::Descriptors;
use crate::message::{Encoded, Malformed, Message};

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
    /// The name of the resource; empty for a bootstrap.
    pub resource: String,
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
    pub(crate) descriptors: RefCell<Descriptors>,
    warnings: RefCell<Vec<Warning>>,
}

impl Context {
    /// Bytes as a message of a type. They are not looked at yet, see [`crate::rules::check`].
    pub(crate) fn decode<'a>(&self, full_name: &str, bytes: &'a [u8]) -> Result<Encoded<'a>> {
        Ok(Encoded::new(message_type(full_name)?, bytes))
    }

    /// The first level of a message.
    pub(crate) fn read<'a>(&self, message: &Encoded<'a>) -> Result<Message<'a>> {
        message
            .read()
            .map_err(|error| unreadable(message.kind(), &error))
    }

    pub(crate) fn warn(&self, warning: Warning) {
        self.warnings.borrow_mut().push(warning);
    }

    /// How many there are.
    pub(crate) fn warned(&self) -> usize {
        self.warnings.borrow().len()
    }

    /// Says whose those are that came after the first `count`.
    pub(crate) fn name_warnings(&self, count: usize, resource: &str) {
        for warning in self.warnings.borrow_mut().iter_mut().skip(count) {
            resource.clone_into(&mut warning.resource);
        }
    }

    pub(crate) fn take_warnings(&self) -> Vec<Warning> {
        self.warnings.take()
    }
}

pub(crate) fn message_type(full_name: &str) -> Result<MessageType> {
    MessageType::named(full_name)
        .ok_or_else(|| Fault::whole(format!("unknown message type '{full_name}'")))
}

/// Bytes that are no message of a type: a fault of the whole.
pub(crate) fn unreadable(kind: MessageType, error: &Malformed) -> Fault {
    Fault::whole(format!(
        "Unable to parse as {}: {}",
        kind.full_name(),
        error.0
    ))
}
