//! The external authorization filter, compiled: which headers the service is told, and which of its own go on.

use std::sync::Arc;

use tidegate_model::ext_authz::{AuthzService, ExtAuthz, HttpAuthz};
use tidegate_model::matcher::StringMatcher;

use crate::error::CompileError;
use crate::matcher::CompiledString;
use crate::metadata::CompiledMetadata;
use crate::retry::CompiledRetryPolicy;

/// See the module.
#[derive(Debug)]
pub struct CompiledExtAuthz {
    pub config: Arc<ExtAuthz>,
    pub enabled_metadata: Option<CompiledMetadata>,
    pub retry_policy: Option<Arc<CompiledRetryPolicy>>,
    /// `None`: all.
    allowed_headers: Option<Vec<CompiledString>>,
    disallowed_headers: Option<Vec<CompiledString>>,
    pub http: Option<CompiledHttpAuthz>,
}

/// What is to be done with the headers of an HTTP service's answer.
#[derive(Debug)]
pub struct CompiledHttpAuthz {
    upstream: Vec<CompiledString>,
    upstream_append: Vec<CompiledString>,
    client: Vec<CompiledString>,
    client_on_success: Vec<CompiledString>,
    metadata: Vec<CompiledString>,
}

/// What an HTTP service is always told.
const ALWAYS_TOLD: [&[u8]; 4] = [b"authorization", b":method", b":path", b":authority"];
/// What the client is told of a denial besides what is listed.
const ALWAYS_PASSED: [&[u8]; 4] = [
    b":status",
    b"content-length",
    b"www-authenticate",
    b"location",
];

impl CompiledExtAuthz {
    pub fn compile(config: &Arc<ExtAuthz>) -> Result<Self, CompileError> {
        let optional = |list: &Option<Vec<StringMatcher>>| list.as_deref().map(all).transpose();
        let policy = match &config.service {
            AuthzService::Grpc(service) => &service.retry_policy,
            AuthzService::Http(service) => &service.retry_policy,
        };
        let is_http = matches!(config.service, AuthzService::Http(_));
        let mut allowed_headers = optional(&config.allowed_headers)?;
        if is_http && allowed_headers.is_none() {
            allowed_headers = Some(Vec::new());
        }
        Ok(Self {
            enabled_metadata: config
                .filter_enabled_metadata
                .as_ref()
                .map(CompiledMetadata::compile)
                .transpose()?,
            retry_policy: policy
                .as_ref()
                .map(|policy| CompiledRetryPolicy::compile(policy).map(Arc::new))
                .transpose()?,
            allowed_headers,
            disallowed_headers: optional(&config.disallowed_headers)?,
            http: match &config.service {
                AuthzService::Http(service) => Some(CompiledHttpAuthz::compile(service)?),
                AuthzService::Grpc(_) => None,
            },
            config: Arc::clone(config),
        })
    }

    /// Whether the service is told of this request header; names in lower case, pseudo headers included.
    pub fn tells(&self, name: &[u8]) -> bool {
        if let Some(list) = &self.disallowed_headers
            && any(list, name)
        {
            return false;
        }
        match &self.allowed_headers {
            None => true,
            Some(list) => self.http.is_some() && ALWAYS_TOLD.contains(&name) || any(list, name),
        }
    }
}

impl CompiledHttpAuthz {
    fn compile(service: &HttpAuthz) -> Result<Self, CompileError> {
        Ok(Self {
            upstream: all(&service.allowed_upstream_headers)?,
            upstream_append: all(&service.allowed_upstream_headers_to_append)?,
            client: all(&service.allowed_client_headers)?,
            client_on_success: all(&service.allowed_client_headers_on_success)?,
            metadata: all(&service.dynamic_metadata_from_headers)?,
        })
    }

    /// Set in the request that is let pass.
    pub fn sets_upstream(&self, name: &[u8]) -> bool {
        any(&self.upstream, name)
    }

    /// Appended to what the request has under that name.
    pub fn appends_upstream(&self, name: &[u8]) -> bool {
        any(&self.upstream_append, name)
    }

    /// Passed on with a denial.
    pub fn tells_client(&self, name: &[u8]) -> bool {
        if self.client.is_empty() {
            return name != b"host" && name != b":authority";
        }
        ALWAYS_PASSED.contains(&name) || any(&self.client, name)
    }

    /// Added to the response of a request that is let pass.
    pub fn tells_client_on_success(&self, name: &[u8]) -> bool {
        any(&self.client_on_success, name)
    }

    pub fn is_metadata(&self, name: &[u8]) -> bool {
        any(&self.metadata, name)
    }
}

fn all(list: &[StringMatcher]) -> Result<Vec<CompiledString>, CompileError> {
    list.iter().map(CompiledString::compile).collect()
}

fn any(list: &[CompiledString], name: &[u8]) -> bool {
    list.iter().any(|matcher| matcher.matches(name))
}
