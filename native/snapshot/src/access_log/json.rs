//! JSON log lines: the object of the configuration with operators evaluated, types kept where a value is one operator.

use tidegate_model::Name;
use tidegate_model::access_log::{JsonFormat, JsonNode};

use crate::error::CompileError;
use crate::format::{Formatter, Value, Written};
use crate::log_context::LogContext;

/// A compiled `json_format`.
#[derive(Debug)]
pub struct JsonFormatter {
    root: Node,
    omit_empty: bool,
}

#[derive(Debug)]
enum Node {
    Null,
    /// Already JSON.
    Fixed(Name),
    /// One operator: a number stays a number, a missing value is `null`.
    Value(Formatter),
    /// Text with operators in it.
    Text(Formatter),
    /// Keys are quoted and escaped, with the colon.
    Object(Vec<(Name, Node)>),
    Array(Vec<Node>),
}

impl JsonFormatter {
    pub(crate) fn compile(format: &JsonFormat) -> Result<Self, CompileError> {
        Ok(Self {
            root: Node::compile(&format.root, format).map_err(|e| e.within("json_format"))?,
            omit_empty: format.omit_empty_values,
        })
    }

    /// Appends one line.
    pub fn format(&self, context: &(impl LogContext + ?Sized), out: &mut Vec<u8>) {
        let start = out.len();
        if !self.root.write(context, self.omit_empty, out) {
            out.truncate(start);
            out.extend_from_slice(b"{}");
        }
        out.push(b'\n');
    }
}

impl Node {
    fn compile(node: &JsonNode, format: &JsonFormat) -> Result<Self, CompileError> {
        Ok(match node {
            JsonNode::Null => Self::Null,
            JsonNode::Bool(value) => Self::Fixed(Name::from(if *value { "true" } else { "false" })),
            JsonNode::Number(value) => Self::Fixed(Name::from(number_text(*value))),
            JsonNode::String(text) => {
                let formatter = Formatter::build(text, format.omit_empty_values)
                    .map_err(|e| CompileError::new("", e.reason))?;
                match (formatter.literal(), formatter.single_value()) {
                    (Some(literal), _) => Self::Fixed(Name::from(quoted(&literal))),
                    (None, Some(_)) => Self::Value(formatter),
                    (None, None) => Self::Text(formatter),
                }
            }
            JsonNode::Object(fields) => {
                let mut compiled = Vec::with_capacity(fields.len());
                let mut order: Vec<&(Name, JsonNode)> = fields.iter().collect();
                if format.sort_properties {
                    order.sort_by(|a, b| a.0.cmp(&b.0));
                }
                for (key, value) in order {
                    let node = Self::compile(value, format).map_err(|e| e.within(key))?;
                    compiled.push((Name::from(format!("{}:", quoted(key))), node));
                }
                Self::Object(compiled)
            }
            JsonNode::Array(values) => Self::Array(
                values
                    .iter()
                    .map(|value| Self::compile(value, format))
                    .collect::<Result<_, _>>()?,
            ),
        })
    }

    /// Whether anything was written: a missing value is left out with `omit_empty_values`.
    fn write(
        &self,
        context: &(impl LogContext + ?Sized),
        omit_empty: bool,
        out: &mut Vec<u8>,
    ) -> bool {
        match self {
            Self::Null if omit_empty => return false,
            Self::Null => out.extend_from_slice(b"null"),
            Self::Fixed(text) => out.extend_from_slice(text.as_bytes()),
            Self::Value(formatter) => {
                let start = out.len();
                let written = formatter
                    .single_value()
                    .map_or(Written::Missing, |value: &Value| {
                        match value.write_object(context, out) {
                            // It is JSON already.
                            Some(Written::Text) => Written::Number,
                            Some(written) => written,
                            None => value.write(context, out),
                        }
                    });
                match written {
                    Written::Missing if omit_empty => return false,
                    Written::Missing => out.extend_from_slice(b"null"),
                    Written::Number => {}
                    Written::Text => quote_in_place(start, out),
                }
            }
            Self::Text(formatter) => {
                out.push(b'"');
                formatter.format_pieces(context, out, escape_in_place);
                out.push(b'"');
            }
            Self::Object(fields) => {
                out.push(b'{');
                let mut first = true;
                for (key, node) in fields {
                    let before = out.len();
                    if !first {
                        out.push(b',');
                    }
                    out.extend_from_slice(key.as_bytes());
                    if node.write(context, omit_empty, out) {
                        first = false;
                    } else {
                        out.truncate(before);
                    }
                }
                out.push(b'}');
                return !(omit_empty && first);
            }
            Self::Array(values) => {
                out.push(b'[');
                let mut first = true;
                for node in values {
                    let before = out.len();
                    if !first {
                        out.push(b',');
                    }
                    if node.write(context, omit_empty, out) {
                        first = false;
                    } else {
                        out.truncate(before);
                    }
                }
                out.push(b']');
            }
        }
        true
    }
}

fn number_text(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        format!("{}", value as i64)
    } else {
        format!("{value}")
    }
}

fn quoted(text: &str) -> String {
    let mut out = text.as_bytes().to_vec();
    quote_in_place(0, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// Turns what was appended since `start` into a JSON string.
fn quote_in_place(start: usize, out: &mut Vec<u8>) {
    out.insert(start, b'"');
    escape_in_place(start + 1, out);
    out.push(b'"');
}

/// Escapes what was appended since `start`, as Envoy does: usual JSON escapes in valid UTF-8; if there is a byte that is not,
/// every byte that is not plain ASCII as `\u00XX`, so that nothing is lost and the line stays JSON.
fn escape_in_place(start: usize, out: &mut Vec<u8>) {
    let raw = out.get(start..).unwrap_or_default();
    if !raw.iter().any(|b| needs_escape(*b) || *b >= 0x80) {
        return;
    }
    let text = raw.to_vec();
    if let Ok(text) = std::str::from_utf8(&text) {
        if !text.bytes().any(needs_escape) {
            return;
        }
        out.truncate(start);
        for byte in text.bytes() {
            escape(byte, out);
        }
    } else {
        out.truncate(start);
        for byte in text {
            if needs_escape(byte) || byte >= 0x80 {
                out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
            } else {
                out.push(byte);
            }
        }
    }
}

fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f || matches!(byte, b'"' | b'\\')
}

fn escape(byte: u8, out: &mut Vec<u8>) {
    let short = match byte {
        b'"' => b'"',
        b'\\' => b'\\',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x8 => b'b',
        0xc => b'f',
        _ if needs_escape(byte) => {
            out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
            return;
        }
        _ => {
            out.push(byte);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

#[cfg(test)]
mod tests;
