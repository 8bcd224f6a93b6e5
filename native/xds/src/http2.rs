//! `config.core.v3.Http2ProtocolOptions`, downstream and upstream.

use tidegate_model::Fraction;
use tidegate_model::http2::{Http2Options, KeepaliveSettings};

use crate::context::Result;
use crate::fields::Fields;

/// The options, and whether they say themselves what an invalid message ends.
pub(crate) struct Decoded {
    pub(crate) options: Http2Options,
    /// `override_stream_error_on_invalid_http_message` is there: nothing else decides.
    pub(crate) stream_error_is_final: bool,
}

pub(crate) fn options(fields: &Fields<'_>) -> Result<Decoded> {
    fields.expect_bool("allow_metadata", false)?;
    fields.ignore(&["max_metadata_size"], "METADATA frames are not enabled");
    fields.ignore(&["use_oghttp2_codec"], "there is one codec");
    fields.ignore(
        &["enable_huffman_encoding"],
        "a string is sent in its shorter form, and every peer reads both",
    );
    fields.expect_bool("disallow_obs_text", false)?;
    let default = Http2Options::default();
    let custom = custom_settings(fields)?;
    // A setting that has a name here may be given by number as well; it is the same setting.
    let number = |name: &str, identifier: Option<u16>, default: u32| {
        let by_number = custom.iter().find(|(known, _)| Some(*known) == identifier);
        let named = fields.opt_u32(name);
        named
            .or(by_number.map(|(_, value)| *value))
            .unwrap_or(default)
    };
    let stream_error = fields.opt_bool("override_stream_error_on_invalid_http_message");
    let messaging = fields.bool("stream_error_on_invalid_http_messaging");
    let options = Http2Options {
        hpack_table_size: number(
            "hpack_table_size",
            Some(HEADER_TABLE_SIZE),
            default.hpack_table_size,
        ),
        max_concurrent_streams: number(
            "max_concurrent_streams",
            Some(MAX_CONCURRENT_STREAMS),
            default.max_concurrent_streams,
        ),
        initial_stream_window_size: number(
            "initial_stream_window_size",
            Some(INITIAL_WINDOW_SIZE),
            default.initial_stream_window_size,
        ),
        initial_connection_window_size: number(
            "initial_connection_window_size",
            None,
            default.initial_connection_window_size,
        ),
        allow_connect: fields.bool("allow_connect"),
        max_outbound_frames: number("max_outbound_frames", None, default.max_outbound_frames),
        max_outbound_control_frames: number(
            "max_outbound_control_frames",
            None,
            default.max_outbound_control_frames,
        ),
        max_consecutive_inbound_frames_with_empty_payload: number(
            "max_consecutive_inbound_frames_with_empty_payload",
            None,
            default.max_consecutive_inbound_frames_with_empty_payload,
        ),
        max_inbound_priority_frames_per_stream: number(
            "max_inbound_priority_frames_per_stream",
            None,
            default.max_inbound_priority_frames_per_stream,
        ),
        max_inbound_window_update_frames_per_data_frame_sent: number(
            "max_inbound_window_update_frames_per_data_frame_sent",
            None,
            default.max_inbound_window_update_frames_per_data_frame_sent,
        ),
        stream_error_on_invalid_http_message: stream_error.unwrap_or(messaging),
        connection_keepalive: fields.opt("connection_keepalive", keepalive)?,
        max_header_field_size_bytes: fields
            .opt_u32("max_header_field_size_kb")
            .map(|kib| kib.saturating_mul(1024)),
        stream_reset_burst: fields
            .opt_uint("stream_reset_burst")
            .unwrap_or(default.stream_reset_burst),
        stream_reset_rate: fields
            .opt_uint("stream_reset_rate")
            .unwrap_or(default.stream_reset_rate),
    };
    Ok(Decoded {
        options,
        stream_error_is_final: stream_error.is_some(),
    })
}

const HEADER_TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const ENABLE_CONNECT_PROTOCOL: u16 = 8;
/// `custom_settings_parameters`: identifiers and values, each identifier once. Refused in Envoy's words and order, then those
/// that have no field of their own: the codec sends what it knows.
fn custom_settings(fields: &Fields<'_>) -> Result<Vec<(u16, u32)>> {
    const NAME: &str = "custom_settings_parameters";
    let all = fields.each(NAME, |parameter| {
        let identifier = u16::try_from(parameter.u32("identifier")).unwrap_or(u16::MAX);
        Ok((identifier, parameter.u32("value")))
    })?;
    let mut once: Vec<(u16, u32)> = Vec::with_capacity(all.len());
    let (mut inconsistent, mut both, mut unknown) = (Vec::new(), Vec::new(), None);
    for (at, &(identifier, value)) in all.iter().enumerate() {
        match once.iter().find(|(known, _)| *known == identifier) {
            None => once.push((identifier, value)),
            Some((_, known)) if *known != value => {
                inconsistent.push(format!("0x{identifier:02x}"));
            }
            Some(_) => {}
        }
        let here = format!("{NAME}[{at}]");
        let named = match identifier {
            ENABLE_PUSH if value == 1 => {
                return Err(fields.fault(
                    &here,
                    "server push is not supported by Envoy and can not be enabled via a SETTINGS parameter.",
                ));
            }
            ENABLE_PUSH => continue,
            ENABLE_CONNECT_PROTOCOL => {
                return Err(fields.fault(
                    &here,
                    "the \"allow_connect\" SETTINGS parameter must only be configured through the named field",
                ));
            }
            HEADER_TABLE_SIZE => "hpack_table_size",
            MAX_CONCURRENT_STREAMS => "max_concurrent_streams",
            INITIAL_WINDOW_SIZE => "initial_stream_window_size",
            _ => {
                unknown.get_or_insert((here, identifier));
                continue;
            }
        };
        if fields.has(named) {
            both.push(named);
        }
    }
    if !inconsistent.is_empty() {
        return Err(fields.fault(
            NAME,
            format!(
                "inconsistent HTTP/2 custom SETTINGS parameter(s) detected; identifiers = {{{}}}",
                inconsistent.join(",")
            ),
        ));
    }
    if !both.is_empty() {
        return Err(fields.fault(
            NAME,
            format!(
                "the {{{}}} HTTP/2 SETTINGS parameter(s) can not be configured through both named and custom parameters",
                both.join(",")
            ),
        ));
    }
    match unknown {
        Some((here, identifier)) => Err(fields.fault(
            &here,
            format!("setting 0x{identifier:02x} is not supported"),
        )),
        None => Ok(once),
    }
}

/// `config.core.v3.KeepaliveSettings`.
fn keepalive(fields: &Fields<'_>) -> Result<KeepaliveSettings> {
    let jitter = fields.opt("interval_jitter", |percent| {
        Ok(percent.opt_double("value").unwrap_or_default())
    })?;
    Ok(KeepaliveSettings {
        interval: fields.timeout("interval", None)?,
        timeout: fields.duration("timeout")?.unwrap_or_default(),
        // Between 0 and 100, checked with the message.
        interval_jitter: Fraction {
            per_million: (jitter.unwrap_or(15.0) * 10_000.0) as u32,
        },
        connection_idle_interval: fields.timeout("connection_idle_interval", None)?,
    })
}
