//! What is never shown: the fields that Envoy's API calls sensitive, wherever they stand in a resource.

use serde_json::Value;

/// In `TlsCertificate`, `TlsSessionTicketKeys` and `GenericSecret`, by the message that holds them.
const SENSITIVE: &[&str] = &[
    "private_key",
    "password",
    "session_ticket_keys",
    "generic_secret",
];

const TEXT: &str = "[redacted]";
/// The same as bytes are written.
const BYTES: &str = "W3JlZGFjdGVkXQ==";

/// Replaces the values of sensitive fields, anywhere below.
pub(super) fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if SENSITIVE.contains(&name.as_str()) {
                    blank(name, field);
                } else {
                    redact(field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}

fn blank(name: &str, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if name != "@type" {
                    blank(name, field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| blank(name, item)),
        Value::String(text) => {
            let blank = if name == "inline_bytes" { BYTES } else { TEXT };
            blank.clone_into(text);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_not_shown_and_certificates_are() {
        let mut value = json!({ "chains": [{ "tls_certificates": [{
            "certificate_chain": { "inline_string": "cert" },
            "private_key": { "inline_bytes": "a2V5" },
            "password": { "filename": "/p" },
        }] }], "session_ticket_keys": { "keys": [{ "inline_string": "k" }] } });
        redact(&mut value);
        assert_eq!(
            value,
            json!({ "chains": [{ "tls_certificates": [{
                "certificate_chain": { "inline_string": "cert" },
                "private_key": { "inline_bytes": "W3JlZGFjdGVkXQ==" },
                "password": { "filename": "[redacted]" },
            }] }], "session_ticket_keys": { "keys": [{ "inline_string": "[redacted]" }] } })
        );
    }
}
