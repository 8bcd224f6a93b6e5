//! `config.accesslog.v3.AccessLog`: file loggers, their formats and filters.

use std::sync::Arc;

use tidegate_model::access_log::{
    AccessLog, AccessLogFilter, ComparisonOp, JsonFormat, JsonNode, LogFormat,
};
use tidegate_model::{Fraction, RuntimeFraction};
use tidegate_model::{Name, format};

use crate::context::Result;
use crate::fields::Fields;
use crate::message::Value;
use crate::{matcher, value};

pub(crate) fn access_log(fields: &Fields<'_>) -> Result<Arc<AccessLog>> {
    fields.str("name");
    let filter = fields.opt("filter", filter)?;
    let (path, format) = fields.need_any(
        "typed_config",
        &[
            (
                "envoy.extensions.access_loggers.file.v3.FileAccessLog",
                &|file: &Fields<'_>| Ok((file.string("path"), file_format(file)?)),
            ),
            (
                "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
                &|stream: &Fields<'_>| Ok((Name::from("/dev/stdout"), log_format(stream)?)),
            ),
            (
                "envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
                &|stream: &Fields<'_>| Ok((Name::from("/dev/stderr"), log_format(stream)?)),
            ),
        ],
    )?;
    Ok(Arc::new(AccessLog {
        path,
        format,
        filter,
    }))
}

fn file_format(fields: &Fields<'_>) -> Result<LogFormat> {
    if fields.has("format") {
        return match fields.str("format") {
            "" => Ok(LogFormat::Default),
            text => checked_text(fields, "format", text),
        };
    }
    for name in ["json_format", "typed_json_format"] {
        if let Some(root) = json(fields, name)? {
            return Ok(LogFormat::Json(JsonFormat {
                root,
                omit_empty_values: false,
                sort_properties: true,
            }));
        }
    }
    log_format(fields)
}

fn log_format(fields: &Fields<'_>) -> Result<LogFormat> {
    Ok(fields
        .opt("log_format", substitution_format)?
        .unwrap_or(LogFormat::Default))
}

/// `config.core.v3.SubstitutionFormatString`.
fn substitution_format(fields: &Fields<'_>) -> Result<LogFormat> {
    fields.ignore(&["content_type"], "a log has no content type");
    let omit_empty_values = fields.bool("omit_empty_values");
    fields.opt("json_format_options", |options| {
        options.ignore(
            &["sort_properties"],
            "properties are always sorted, by Envoy too",
        );
        Ok(())
    })?;
    if let Some(root) = json(fields, "json_format")? {
        return Ok(LogFormat::Json(JsonFormat {
            root,
            omit_empty_values,
            sort_properties: true,
        }));
    }
    if omit_empty_values {
        return Err(fields.fault("omit_empty_values", "is not supported for text formats"));
    }
    if fields.has("text_format") {
        return checked_text(fields, "text_format", fields.str("text_format"));
    }
    let source = fields.need("text_format_source", matcher::data_source)?;
    let text = String::from_utf8_lossy(&source.bytes).into_owned();
    checked_text(fields, "text_format_source", &text)
}

fn checked_text(fields: &Fields<'_>, name: &str, text: &str) -> Result<LogFormat> {
    fields.get(name);
    format::parse(text).map_err(|error| fields.fault(name, error.to_string()))?;
    Ok(LogFormat::Text(Name::from(text)))
}

fn json(fields: &Fields<'_>, name: &str) -> Result<Option<JsonNode>> {
    let Some(root) = fields.get(name).and_then(Value::as_message) else {
        return Ok(None);
    };
    node(&value::from_struct(root))
        .map(Some)
        .map_err(|reason| fields.fault(name, reason))
}

fn node(value: &serde_json::Value) -> std::result::Result<JsonNode, String> {
    use serde_json::Value as Json;
    Ok(match value {
        Json::Null => JsonNode::Null,
        Json::Bool(value) => JsonNode::Bool(*value),
        Json::Number(number) => JsonNode::Number(number.as_f64().unwrap_or_default()),
        Json::String(text) => {
            format::parse(text).map_err(|error| error.to_string())?;
            JsonNode::String(Name::from(text.as_str()))
        }
        Json::Array(items) => JsonNode::Array(
            items
                .iter()
                .map(node)
                .collect::<std::result::Result<_, _>>()?,
        ),
        Json::Object(entries) => JsonNode::Object(
            entries
                .iter()
                .map(|(key, value)| Ok((Name::from(key.as_str()), node(value)?)))
                .collect::<std::result::Result<_, String>>()?,
        ),
    })
}

fn filter(fields: &Fields<'_>) -> Result<AccessLogFilter> {
    if let Some((op, value)) = fields.opt("status_code_filter", |filter| {
        filter.need("comparison", comparison)
    })? {
        return Ok(AccessLogFilter::StatusCode { op, value });
    }
    if let Some((op, value)) = fields.opt("duration_filter", |filter| {
        filter.need("comparison", comparison)
    })? {
        return Ok(AccessLogFilter::Duration { op, value });
    }
    if fields.opt("not_health_check_filter", |_| Ok(()))?.is_some() {
        return Ok(AccessLogFilter::NotHealthCheck);
    }
    if fields.opt("traceable_filter", |_| Ok(()))?.is_some() {
        return Ok(AccessLogFilter::Traceable);
    }
    if let Some(filter) = fields.opt("runtime_filter", runtime_filter)? {
        return Ok(filter);
    }
    if let Some(filters) = fields.opt("and_filter", |all| all.each("filters", filter))? {
        return Ok(AccessLogFilter::And(filters));
    }
    if let Some(filters) = fields.opt("or_filter", |any| any.each("filters", filter))? {
        return Ok(AccessLogFilter::Or(filters));
    }
    if let Some(header) = fields.opt("header_filter", |filter| {
        filter.need("header", matcher::header)
    })? {
        return Ok(AccessLogFilter::Header(header));
    }
    if let Some(flags) = fields.opt("response_flag_filter", |filter| Ok(filter.strings("flags")))? {
        return Ok(AccessLogFilter::ResponseFlag(flags));
    }
    if let Some(filter) = fields.opt("grpc_status_filter", grpc_status_filter)? {
        return Ok(filter);
    }
    let set = fields
        .message()
        .fields()
        .next()
        .map(|(field, _)| field.name().to_owned());
    Err(fields.fault(&set.unwrap_or_default(), "is not supported"))
}

fn grpc_status_filter(fields: &Fields<'_>) -> Result<AccessLogFilter> {
    let list = fields.get("statuses").and_then(Value::as_list);
    let mut statuses = Vec::new();
    for (at, status) in list.unwrap_or_default().iter().enumerate() {
        let number = status.as_enum().unwrap_or_default();
        match u8::try_from(number) {
            Ok(status @ 0..=16) => statuses.push(status),
            _ => {
                return Err(fields.fault(
                    &format!("statuses[{at}]"),
                    "value must be one of the defined enum values",
                ));
            }
        }
    }
    Ok(AccessLogFilter::GrpcStatus {
        statuses,
        exclude: fields.bool("exclude"),
    })
}

fn comparison(fields: &Fields<'_>) -> Result<(ComparisonOp, u32)> {
    let op = fields.choice(
        "op",
        &[
            ("EQ", ComparisonOp::Eq),
            ("GE", ComparisonOp::Ge),
            ("LE", ComparisonOp::Le),
            ("NE", ComparisonOp::Ne),
        ],
    )?;
    let value = fields.opt("value", |value| {
        value.ignore(
            &["runtime_key"],
            "log filters compare with the default value",
        );
        Ok(value.u32("default_value"))
    })?;
    Ok((op, value.unwrap_or_default()))
}

fn runtime_filter(fields: &Fields<'_>) -> Result<AccessLogFilter> {
    Ok(AccessLogFilter::Runtime {
        fraction: RuntimeFraction {
            default: fields
                .opt("percent_sampled", matcher::fraction)?
                .unwrap_or(Fraction::NEVER),
            runtime_key: fields.opt_string("runtime_key"),
        },
        use_independent_randomness: fields.bool("use_independent_randomness"),
    })
}
