//! Access logs, compiled: when to write a line and what is in it. Writing it somewhere is the data plane's business.

pub mod filter;
pub mod json;

use std::sync::Arc;

use tidegate_model::Name;
use tidegate_model::access_log::{AccessLog, LogFormat};

use self::filter::CompiledLogFilter;
use self::json::JsonFormatter;
use crate::error::CompileError;
use crate::format::Formatter;
use crate::log_context::LogContext;
use crate::runtime::Runtime;

/// Envoy's default format.
pub const DEFAULT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// The logs of one listener, filter or connection manager.
#[derive(Debug, Clone, Default)]
pub struct AccessLogs(Vec<CompiledAccessLog>);

/// One access log.
#[derive(Debug, Clone)]
pub struct CompiledAccessLog {
    pub config: Arc<AccessLog>,
    format: LineFormat,
    filter: Option<Arc<CompiledLogFilter>>,
}

#[derive(Debug, Clone)]
enum LineFormat {
    Text(Arc<Formatter>),
    Json(Arc<JsonFormatter>),
}

impl std::ops::Deref for AccessLogs {
    type Target = [CompiledAccessLog];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl CompiledAccessLog {
    pub(crate) fn compile_all(configs: &[Arc<AccessLog>]) -> Result<AccessLogs, CompileError> {
        configs
            .iter()
            .enumerate()
            .map(|(index, config)| {
                Self::compile(config).map_err(|e| e.within(&format!("access_log[{index}]")))
            })
            .collect::<Result<Vec<_>, _>>()
            .map(AccessLogs)
    }

    /// Also for the admin interface's own log.
    pub fn compile(config: &Arc<AccessLog>) -> Result<Self, CompileError> {
        let text = |format: &str| {
            Formatter::compile(format)
                .map(|formatter| LineFormat::Text(Arc::new(formatter)))
                .map_err(|e| CompileError::new("log_format", e.reason))
        };
        Ok(Self {
            format: match &config.format {
                LogFormat::Default => text(DEFAULT_FORMAT)?,
                LogFormat::Text(format) => text(format)?,
                LogFormat::Json(format) => {
                    LineFormat::Json(Arc::new(JsonFormatter::compile(format)?))
                }
            },
            filter: match &config.filter {
                Some(filter) => Some(Arc::new(
                    CompiledLogFilter::compile(filter).map_err(|e| e.within("filter"))?,
                )),
                None => None,
            },
            config: Arc::clone(config),
        })
    }

    #[inline]
    pub fn path(&self) -> &Name {
        &self.config.path
    }

    /// Appends the line, unless the filter leaves it out; whether it did.
    #[inline]
    pub fn write(
        &self,
        context: &(impl LogContext + ?Sized),
        runtime: &Runtime,
        random: u64,
        out: &mut Vec<u8>,
    ) -> bool {
        if let Some(filter) = &self.filter
            && !filter.passes(context, runtime, random)
        {
            return false;
        }
        match &self.format {
            LineFormat::Text(format) => format.format(context, out),
            LineFormat::Json(format) => format.format(context, out),
        }
        true
    }
}
