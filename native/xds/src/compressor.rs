//! `extensions.filters.http.compressor.v3.Compressor` and the compression libraries.

use tidegate_model::compressor::{
    BrotliMode, CompressionLibrary, Compressor, CompressorPerRoute, ResponseDirection,
};
use tidegate_model::{Name, RuntimeFlag};

use crate::context::Result;
use crate::fields::Fields;

/// What is compressed when the configuration names no types.
const CONTENT_TYPES: &[&str] = &[
    "text/html",
    "text/plain",
    "text/css",
    "application/javascript",
    "application/x-javascript",
    "text/javascript",
    "text/x-javascript",
    "text/ecmascript",
    "text/js",
    "text/jscript",
    "text/x-js",
    "application/ecmascript",
    "application/x-json",
    "application/xml",
    "application/json",
    "image/svg+xml",
    "text/xml",
    "application/xhtml+xml",
    "application/grpc-web",
    "application/grpc-web+proto",
];

const DEFAULT_MIN_CONTENT_LENGTH: u64 = 30;

pub(crate) fn compressor(fields: &Fields<'_>) -> Result<Compressor> {
    fields.refuse("request_direction_config", "requests are not compressed")?;
    let (library_name, library) = fields.need("compressor_library", |extension| {
        Ok((extension.string("name"), library(extension)?))
    })?;
    let choose_first = fields.bool("choose_first");
    let of_direction = fields.opt("response_direction_config", |direction| {
        direction.refuse("status_header_enabled", "is not supported")?;
        let common = direction.opt("common_config", |common| {
            Ok((
                common.opt("enabled", runtime_flag)?,
                common.opt_uint("min_content_length"),
                common.strings("content_type"),
            ))
        })?;
        let (enabled, minimum, types) = common.unwrap_or_default();
        let codes = direction.uints("uncompressible_response_codes");
        Ok(ResponseDirection {
            enabled: enabled.unwrap_or(ALWAYS),
            min_content_length: min_content_length(minimum),
            content_types: content_types(types),
            disable_on_etag_header: direction.bool("disable_on_etag_header"),
            remove_accept_encoding_header: direction.bool("remove_accept_encoding_header"),
            uncompressible_response_codes: codes
                .into_iter()
                .filter_map(|code| u16::try_from(code).ok())
                .collect(),
            own_stats: true,
        })
    })?;
    // The older fields count only without the newer message.
    let old = ResponseDirection {
        enabled: fields
            .opt("runtime_enabled", runtime_flag)?
            .unwrap_or(ALWAYS),
        min_content_length: min_content_length(fields.opt_uint("content_length")),
        content_types: content_types(fields.strings("content_type")),
        disable_on_etag_header: fields.bool("disable_on_etag_header"),
        remove_accept_encoding_header: fields.bool("remove_accept_encoding_header"),
        uncompressible_response_codes: Vec::new(),
        own_stats: false,
    };
    Ok(Compressor {
        library,
        library_name,
        response: of_direction.unwrap_or(old),
        choose_first,
    })
}

const ALWAYS: RuntimeFlag = RuntimeFlag {
    default: true,
    runtime_key: None,
};

/// `config.core.v3.RuntimeFeatureFlag`; on by default.
pub(crate) fn runtime_flag(fields: &Fields<'_>) -> Result<RuntimeFlag> {
    Ok(RuntimeFlag {
        default: fields.opt_bool("default_value").unwrap_or(true),
        runtime_key: fields.opt_string("runtime_key"),
    })
}

fn min_content_length(configured: Option<u64>) -> u64 {
    configured
        .filter(|length| *length > 0)
        .unwrap_or(DEFAULT_MIN_CONTENT_LENGTH)
}

fn content_types(configured: Vec<Name>) -> Vec<Name> {
    if configured.is_empty() {
        return CONTENT_TYPES.iter().map(|name| Name::from(*name)).collect();
    }
    configured
}

fn library(fields: &Fields<'_>) -> Result<CompressionLibrary> {
    fields.need_any(
        "typed_config",
        &[
            (
                "envoy.extensions.compression.gzip.compressor.v3.Gzip",
                &gzip,
            ),
            (
                "envoy.extensions.compression.brotli.compressor.v3.Brotli",
                &brotli,
            ),
            (
                "envoy.extensions.compression.zstd.compressor.v3.Zstd",
                &zstd,
            ),
        ],
    )
}

const TUNING: &str = "it only tunes how the library works";

fn gzip(fields: &Fields<'_>) -> Result<CompressionLibrary> {
    fields.ignore(
        &["memory_level", "compression_strategy", "chunk_size"],
        TUNING,
    );
    let level = fields.choice(
        "compression_level",
        &[
            ("DEFAULT_COMPRESSION", None),
            ("BEST_SPEED", Some(1)),
            ("COMPRESSION_LEVEL_2", Some(2)),
            ("COMPRESSION_LEVEL_3", Some(3)),
            ("COMPRESSION_LEVEL_4", Some(4)),
            ("COMPRESSION_LEVEL_5", Some(5)),
            ("COMPRESSION_LEVEL_6", Some(6)),
            ("COMPRESSION_LEVEL_7", Some(7)),
            ("COMPRESSION_LEVEL_8", Some(8)),
            ("BEST_COMPRESSION", Some(9)),
            ("COMPRESSION_LEVEL_1", Some(1)),
            ("COMPRESSION_LEVEL_9", Some(9)),
        ],
    )?;
    Ok(CompressionLibrary::Gzip {
        level,
        window_bits: byte(fields.opt_u32("window_bits"), 12),
    })
}

fn brotli(fields: &Fields<'_>) -> Result<CompressionLibrary> {
    fields.ignore(&["chunk_size"], TUNING);
    Ok(CompressionLibrary::Brotli {
        quality: byte(fields.opt_u32("quality"), 3),
        window_bits: byte(fields.opt_u32("window_bits"), 18),
        input_block_bits: byte(fields.opt_u32("input_block_bits"), 24),
        mode: fields.choice(
            "encoder_mode",
            &[
                ("DEFAULT", BrotliMode::Generic),
                ("GENERIC", BrotliMode::Generic),
                ("TEXT", BrotliMode::Text),
                ("FONT", BrotliMode::Font),
            ],
        )?,
        literal_context_modeling: !fields.bool("disable_literal_context_modeling"),
    })
}

fn zstd(fields: &Fields<'_>) -> Result<CompressionLibrary> {
    fields.ignore(&["strategy", "chunk_size"], TUNING);
    fields.refuse("dictionary", "is not supported")?;
    Ok(CompressionLibrary::Zstd {
        level: fields
            .opt_u32("compression_level")
            .unwrap_or(3)
            .try_into()
            .unwrap_or(3),
        checksum: fields.bool("enable_checksum"),
    })
}

fn byte(value: Option<u32>, default: u8) -> u8 {
    value
        .and_then(|value| u8::try_from(value).ok())
        .unwrap_or(default)
}

pub(crate) fn per_route(fields: &Fields<'_>) -> Result<CompressorPerRoute> {
    if fields.bool("disabled") {
        return Ok(CompressorPerRoute {
            response_enabled: Some(false),
            ..CompressorPerRoute::default()
        });
    }
    fields.need("overrides", |overrides| {
        overrides.refuse("compressor_library", "is not supported")?;
        let direction = overrides.opt("response_direction_config", |direction| {
            Ok(direction.opt_bool("remove_accept_encoding_header"))
        })?;
        Ok(CompressorPerRoute {
            response_enabled: direction.map(|_| true),
            remove_accept_encoding_header: direction.flatten(),
        })
    })
}
