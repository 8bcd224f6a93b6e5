//! `/certs`: the certificates of all transport sockets, a pair of lists for each.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tidegate_tls::CertificateDetails;

use super::{Asked, Page};
use crate::config::TlsContext;
use crate::engine::Core;
use crate::time::timestamp;

pub(super) fn page(core: &Core, _: &Asked) -> Page {
    let contexts = core.lock().tls_contexts();
    let now = SystemTime::now();
    let certificates: Vec<Value> = contexts.iter().map(|context| shown(context, now)).collect();
    Page::json(&json!({ "certificates": certificates }))
}

fn shown(context: &TlsContext, now: SystemTime) -> Value {
    let mut fields = serde_json::Map::new();
    let trusted: Vec<Value> = context.trusted_ca.iter().map(|ca| one(ca, now)).collect();
    let chain = context.certificates.iter();
    let chain: Vec<Value> = chain.map(|certificate| one(certificate, now)).collect();
    for (name, list) in [("ca_cert", trusted), ("cert_chain", chain)] {
        if !list.is_empty() {
            fields.insert(name.to_owned(), Value::Array(list));
        }
    }
    Value::Object(fields)
}

fn one(certificate: &CertificateDetails, now: SystemTime) -> Value {
    let info = &certificate.info;
    let mut names: Vec<Value> = Vec::new();
    names.extend(info.dns_sans.iter().map(|name| json!({ "dns": &**name })));
    names.extend(info.uri_sans.iter().map(|name| json!({ "uri": &**name })));
    names.extend(
        info.ip_sans
            .iter()
            .map(|ip| json!({ "ip_address": ip.to_string() })),
    );
    let mut fields = serde_json::Map::new();
    fields.insert("path".to_owned(), json!(&*certificate.path));
    fields.insert("serial_number".to_owned(), json!(&*info.serial));
    fields.insert("subject_alt_names".to_owned(), Value::Array(names));
    let days = days_left(info.not_after, now);
    fields.insert("days_until_expiration".to_owned(), json!(days.to_string()));
    fields.insert("valid_from".to_owned(), json!(moment(info.not_before)));
    fields.insert("expiration_time".to_owned(), json!(moment(info.not_after)));
    Value::Object(fields)
}

/// Whole days; 0 after the end.
pub(crate) fn days_left(not_after: i64, now: SystemTime) -> u64 {
    let now = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = u64::try_from(not_after).unwrap_or_default();
    seconds.saturating_sub(now.as_secs()) / 86_400
}

/// As proto-JSON writes a `Timestamp` of whole seconds.
fn moment(seconds: i64) -> String {
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    timestamp(SystemTime::UNIX_EPOCH + since).replace(".000Z", "Z")
}
