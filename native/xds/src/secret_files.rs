//! Which directories a secret's files live in: what has to be watched for it.

use tidegate_proto::schema::MessageType;

use crate::context::{Result, message_type, unreadable};
use crate::message::{Encoded, Message, Value};

const SECRET: &str = "envoy.extensions.transport_sockets.tls.v3.Secret";

/// The directories, each in the words of the configuration: `watched_directory` of a certificate or validation context, else
/// those of the files it refers to.
pub(crate) fn directories(secret: &[u8]) -> Result<Vec<String>> {
    let kind = message_type(SECRET)?;
    let top = read(&Encoded::new(kind, secret), kind)?;
    let mut found = Vec::new();
    for (content, files) in [
        ("tls_certificate", ["certificate_chain", "private_key"]),
        ("validation_context", ["trusted_ca", "crl"]),
    ] {
        let Some(content) = message(&top, content)? else {
            continue;
        };
        if let Some(watched) = message(&content, "watched_directory")? {
            found.extend(text(&watched, "path"));
            continue;
        }
        for file in files {
            if let Some(source) = message(&content, file)?
                && let Some(path) = text(&source, "filename")
            {
                let directory = path
                    .rsplit_once('/')
                    .map_or(".", |(directory, _)| directory);
                found.push(if directory.is_empty() { "/" } else { directory }.to_owned());
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn read<'a>(encoded: &Encoded<'a>, kind: MessageType) -> Result<Message<'a>> {
    encoded.read().map_err(|error| unreadable(kind, &error))
}

fn message<'a>(parent: &Message<'a>, name: &str) -> Result<Option<Message<'a>>> {
    let found = parent.get(name).and_then(Value::as_message);
    found
        .map(|found| {
            found
                .read()
                .map_err(|error| unreadable(found.kind(), &error))
        })
        .transpose()
}

fn text(parent: &Message<'_>, name: &str) -> Option<String> {
    let found = parent.get(name).and_then(Value::as_str)?;
    (!found.is_empty()).then(|| found.to_owned())
}
